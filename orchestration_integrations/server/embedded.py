"""The server on a socket of this process, for tests and for `orchestration-integrations serve`."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .app import Connections, create_app
from .clock import SECOND, monotonic_ns
from .core import Core
from .judging import Judging
from .page import is_loopback, make_page
from .skipping import Skipping
from .tokens import demanded_token

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path
    from types import TracebackType

    from starlette.applications import Starlette

    from ..ui.page import Page
    from .record import Record
    from .set_fault import SetFault
    from .timing import Timing


class EmbeddedServer(Judging):
    """An Orchestration server that runs in a thread of this process; a context manager.

        with EmbeddedServer(generation=2) as server:
            client = httpx.Client(base_url=server.url)

    Args:
        generation: which generation of the real server it imitates; 2.
        port: 0 (default) takes a free one.
        db: an SQLite file; None keeps everything in memory. A server started on the file of an earlier one goes
            on where that stopped, delays and retries included.
        token: demand this bearer token, or one issued by the token endpoint for any client id with the
            token as its client secret; None demands nothing. A blank one is an error.
        faults: whether the control calls under `/_control/` exist; True.
        host: the address to listen on; 127.0.0.1.
        seed: makes ids, jitter and moments repeatable; None: random.
        timing: the server's latencies.
        data: accounts, wallets, payments and connectors that are there from the start, as a mapping with these keys
            or as a file in JSON or YAML; their fields are those of module `seeding`. A `db` that was used before
            has it already.
        time: `real` (default): time passes as usual. `skip`: while all that is left is waiting, the clock jumps to what
            comes next; see `skipping`. The waits of this process are known, as in `server_for_tests`.
        page: whether it serves its live page at `/`; True.
        allow_hosts: names of this machine, besides addresses and `localhost`, by which it may be asked for without its
            token. They count while `host` is an address of this machine alone; on another it answers to any name, and
            only its page asks for a known one.

    Attributes:
        url: its address, known once it is started.

    Raises:
        OSError: the port is taken, or the data's file can't be read.
        ValueError: the data isn't right (the text names the field), the `db` was used before with other data, the
            token is blank, or `time` is neither of the two.
    """

    def __init__(
        self,
        generation: Literal[1, 2, 3] = 2,
        *,
        port: int = 0,
        db: str | None = None,
        token: str | None = None,
        faults: bool = True,
        host: str = "127.0.0.1",
        seed: int | None = None,
        timing: Timing | None = None,
        data: Mapping[str, Any] | str | Path | None = None,
        time: Literal["real", "skip"] = "real",
        page: bool = True,
        allow_hosts: Collection[str] = (),
    ) -> None:
        self._time = _checked_time(time)
        self.core = Core(generation, db=db, token=token, faults=faults, seed=seed, timing=timing, data=data)
        self.skipping = Skipping(self.core)
        self.url = ""
        self._token = demanded_token(token)
        self._hosts = tuple(allow_hosts)
        self._has_page = page
        self._app: Starlette | None = None
        self._address = (host, port)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None

    def start(self) -> EmbeddedServer:
        """Listen and serve; again is harmless. Returns itself."""
        if self._thread is not None:
            return self
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # so that asyncio sends at once
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(256)
        except BaseException:
            listener.close()
            raise
        port = listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{port}"
        connections = Connections()
        self._app = create_app(
            core=self.core,
            connections=connections,
            page=self._page_of_itself if self._has_page else None,
            hosts=self._hosts if is_loopback(host) else None,
        )
        config = uvicorn.Config(
            self._app,
            http=_protocol(connections),
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
        )
        started = threading.Event()
        server = _Server(config, started)
        self._socket, self._server = listener, server
        self._thread = threading.Thread(target=self._run, name="orchestration-server", daemon=True)
        self._thread.start()
        self.time = self._time
        if not started.wait(10) or not server.started:
            self.stop()
            raise RuntimeError("the embedded server did not start")
        return self

    def _page_of_itself(self) -> Page:
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
        host = everywhere.get(self._address[0], self._address[0])
        port = self.url.rpartition(":")[2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        return make_page(address, self._token, self.core.generation, (host, *self._hosts))

    def _run(self) -> None:
        server, listener = self._server, self._socket
        if server is not None and listener is not None:
            loop = _Loop()
            asyncio.set_event_loop(loop)
            try:
                loop.run_until_complete(server.serve(sockets=[listener]))
            finally:
                _close(loop)

    @property
    def time(self) -> Literal["real", "skip"]:
        """Whether time skips. It may be changed while the server runs."""
        return self._time

    @time.setter
    def time(self, how: Literal["real", "skip"]) -> None:
        self._time = _checked_time(how)
        if how == "skip" and self._thread is not None:
            self.skipping.start()
        else:
            self.skipping.stop()

    def stop(self) -> None:
        """Cut what is under way, close everything; again is harmless.

        Raises:
            RuntimeError: the server has failed while it ran, such as when its time could no longer skip.
        """
        self.skipping.stop()
        if self._app is not None:
            self._app.state.front.stop()
        if self._server is not None:
            self._server.end()
            self.core.cut_all()
        if self._thread is not None:
            self._thread.join(5)
        if self._socket is not None:
            self._socket.close()
        self._app = self._server = self._thread = self._socket = None
        self.core.close()
        self.core.raise_failure()

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def world(self, what: str) -> None:
        """Take a part of the server away or bring it back: `workers stopped`, `engine started`, `database …`,
        `ledger …`, `wallets …`, `payments …`; or `publish {json}`, an event message for triggers. ValueError: else."""
        self.core.world(what)

    def fault(self, operation: str, kind: str, count: int = 1, **options: Any) -> SetFault:
        """Let the next `count` requests for an operation go wrong. Operations, kinds and options: module `faults`.
        ValueError: there is no such thing. As a context manager it holds inside a block only: see `SetFault`."""
        return self.core.fault(operation, kind, count, **options)

    def clear_faults(self) -> None:
        """Take all faults back that have not happened yet."""
        self.core.clear_faults()

    def advance(self, seconds: float) -> None:
        """Move the server's clock ahead: everything that falls into that time happens at once, in order.
        ValueError: `seconds` is no number."""
        self.core.advance(seconds)

    def seed_data(self, data: Mapping[str, Any] | str | Path) -> None:
        """Add accounts, wallets, payments and connectors: all of them, or none. As the argument `data`.
        ValueError: it isn't right, or an id is taken."""
        self.core.seed_data(data)

    def wallet(self, wallet_id: str) -> dict[str, dict[str, int]]:
        """What a wallet's balances hold now, by balance and asset. ValueError: there is no such wallet."""
        return self.core.wallet(wallet_id)

    def record(self) -> Record:
        """What really happened. `record().lines()` and `record().as_json_lines()` are an audit record."""
        return self.core.record()

    def balance(self, account: str, asset: str, ledger: str = "default") -> int:
        """What an account holds now."""
        return self.core.balance(account, asset, ledger)


def _checked_time(how: Literal["real", "skip"]) -> Literal["real", "skip"]:
    if how not in ("real", "skip"):
        raise ValueError(f"time must be 'real' or 'skip', not {how!r}")
    return how


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose timers run on where the time of a test is frozen."""

    def time(self) -> float:
        return monotonic_ns() / SECOND


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """As `asyncio.run` does at its end."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    asyncio.set_event_loop(None)
    loop.close()


class _Server(uvicorn.Server):
    """Tells when it serves, and ends when it is told to."""

    def __init__(self, config: uvicorn.Config, told: threading.Event) -> None:
        super().__init__(config)
        self._told = told
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        await super().startup(sockets)
        self._told.set()

    async def main_loop(self) -> None:
        await self._end.wait()

    def end(self) -> None:
        """Stop serving; from any thread."""
        self.should_exit = True
        with suppress(RuntimeError):  # the loop is closed: it has ended
            self._loop.call_soon_threadsafe(self._end.set)


def _protocol(connections: Connections) -> type[H11Protocol]:
    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            connections.opened(transport)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.closed(self.transport)
            super().connection_lost(exc)

    return Protocol
