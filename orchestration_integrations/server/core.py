"""The server without a network: a request in, an exchange out; plus what tests may do to it.

Two shells carry exchanges over a network or pretend to: `app` (ASGI) and `inprocess` (httpx, virtual time).
"""

from __future__ import annotations

import random
import threading
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any

import msgspec

from . import control, seeding
from .api import Api
from .call_log import CallLog
from .clock import SECOND, Clock, RealClock, VirtualClock
from .engine import Engine
from .exchange import Exchange, Reply, Request
from .faults import Faults
from .ledger import Ledger
from .parts import PARTS
from .payments import Payments
from .record import Record
from .routes import below_prefix
from .set_fault import SetFault
from .store import SqliteStore, Store
from .timing import Timing
from .tokens import Tokens
from .triggers import Triggers
from .wallets import balance_account

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class Core:
    """One imitated server.

    Args:
        generation: 1, 2 (default) or 3.
        clock: a `RealClock` of its own by default.
        db: an SQLite file; None keeps everything in memory.
        token: demand this bearer token, or one issued for this client secret; None demands nothing.
        faults: whether the control calls under `/_control/` exist.
        seed: makes ids, jitter and moments repeatable; None: random.
        timing: the server's latencies.
        data: accounts, wallets, payments and connectors that are there from the start (see `seeding`), as a mapping
            or as a file in JSON or YAML. A `db` that was used before has it already.

    Raises:
        ValueError: no such generation, the data isn't right, or the `db` was used before with other data.
        OSError: the data's file can't be read.
    """

    def __init__(
        self,
        generation: int = 2,
        *,
        clock: Clock | None = None,
        db: str | None = None,
        token: str | None = None,
        faults: bool = True,
        seed: int | None = None,
        timing: Timing | None = None,
        data: Mapping[str, Any] | str | Path | None = None,
    ) -> None:
        if generation not in (1, 2, 3):
            raise ValueError(f"generation must be 1, 2 or 3, not {generation!r}")
        wanted = None if data is None else seeding.read(data)
        self.generation = generation
        self.clock: Clock = clock if clock is not None else RealClock()
        self.lock = threading.RLock()
        self.rng = random.Random(seed)  # noqa: S311
        self.controlled = faults
        self.faults = Faults()
        self.store = SqliteStore(db) if db is not None else Store()
        self._record = Record()
        self._seeded = "" if wanted is None else seeding.fingerprint(wanted)
        self.store.keep(self._record)
        loaded = self._loaded(db)
        if loaded is not None and isinstance(self.clock, RealClock):
            self.clock.offset_ns = max(self.clock.offset_ns, loaded[4].get("offset_ns", 0))
        self.engine = Engine(generation, self.clock, timing or Timing(), self.store, self._record, self.rng)
        self.triggers = Triggers(self.engine)
        self.tokens = Tokens(token, self.clock, self._record, self.rng)
        self.api = Api(self.engine, self.triggers, self.tokens, self.faults)
        self.held: set[Exchange] = set()
        self.listeners: list[Callable[[], None]] = []
        """Called, by whatever thread, after something has changed."""
        self.calls = CallLog()
        self.hears: list[Callable[[Request, Exchange], object]] = []
        """Called with each request, once it is taken in."""
        self.overs: list[Callable[[Exchange], object]] = []
        """Called with each exchange, once it is over."""
        self.under_way = 0
        """Requests from their arrival until the last byte of their answers; counted by the shell."""
        self._failed: tuple[str, BaseException] | None = None
        if loaded is not None:
            self._restore(loaded)
        elif wanted is not None:
            self._seed(wanted)
        if isinstance(self.clock, VirtualClock):
            self.clock.serve(self._moved, self.engine.next_due)

    # ---- requests ----------------------------------------------------------------------------

    def handle(self, request: Request) -> Exchange:
        """Take a request in. The exchange has its reply already, or will have it (see `Exchange`)."""
        with self.lock:
            now = self.clock.now_ns()
            self.engine.pump(now)
            exchange = self._refused() or self._control(request) or self.api.handle(request)
            if self.controlled:
                self.calls.begun(request, exchange, now)
            for hear in self.hears:
                hear(request, exchange)
            if exchange.reply is None:
                self.held.add(exchange)
            self.store.flush(self._meta)
            self._wake_held()
            return exchange

    def fail(self, why: str, error: BaseException) -> None:
        """This server can't be what it is to be: each further request is refused, and `raise_failure` raises."""
        with self.lock:
            self._failed = (why, error)

    def raise_failure(self) -> None:
        """RuntimeError: the server has failed."""
        if self._failed is not None:
            raise RuntimeError(self._failed[0]) from self._failed[1]

    def _refused(self) -> Exchange | None:
        if self._failed is None:
            return None
        exchange = Exchange()
        # As a mistake of the client's: what is repeated after other answers would be so for long.
        told = {"errorCode": "VALIDATION", "errorMessage": self._failed[0]}
        self.api.complete(exchange, Reply(400, msgspec.json.encode(told)))
        return exchange

    def arrives(self) -> None:
        """A request has begun to arrive."""
        with self.lock:
            self.under_way += 1

    def leaves(self) -> None:
        """Its exchange is over, or it never became one."""
        with self.lock:
            self.under_way -= 1

    def _control(self, request: Request) -> Exchange | None:
        path = below_prefix(request.path)
        if not path.startswith(control.PREFIX):
            return None
        exchange = Exchange()
        self.api.complete(exchange, control.handle(self, request, path[len(control.PREFIX) :]))
        return exchange

    def pump(self) -> None:
        """Let everything happen that is due by now."""
        with self.lock:
            if self.engine.pump(self.clock.now_ns()):
                self.store.flush(self._meta)
                self._wake_held()

    def answers(self, exchange: Exchange) -> None:
        """The answer is about to go out: from now on a client may know that the request is over."""
        with self.lock:
            self.calls.ended(exchange)
            self.held.discard(exchange)

    def forget(self, exchange: Exchange) -> None:
        """The exchange is over: answered, cut or left by the client."""
        with self.lock:
            if exchange.reply is None:
                self.pump()  # what the client's leaving comes too late for
            self.api.settle(exchange)
            self.calls.ended(exchange)
            if not exchange.gone:
                for over in self.overs:
                    over(exchange)
            exchange.gone = True
            self.held.discard(exchange)

    def cut_all(self) -> None:
        """Cut every exchange whose answer is still held."""
        with self.lock:
            for exchange in self.held:
                exchange.cut_ns = 0
            self._wake_held()

    def _wake_held(self) -> None:
        for listener in self.listeners:
            listener()

    def _moved(self, now_ns: int) -> None:
        if self.engine.pump(now_ns):
            self.store.flush(self._meta)

    def close(self) -> None:
        """Let go of the database file."""
        with self.lock:
            self.store.flush(self._meta)
            self.store.close()

    # ---- what tests may do ---------------------------------------------------------------------

    def world(self, what: str) -> None:
        """Take a part away or bring it back: `workers stopped`, `engine started`, `database …`, `ledger …`,
        `wallets …`, `payments …`; or let an event message arrive on the broker: `publish {json}`.

        Raises:
            ValueError: anything else.
        """
        words = what.split()
        with self.lock:
            self.engine.pump(self.clock.now_ns())
            if words and words[0] == "publish":
                try:
                    message = msgspec.json.decode(what.split("publish", 1)[1].encode())
                except msgspec.DecodeError as error:
                    raise ValueError(f"no event message: {error}") from None
                self.publish(message)
                return
            if len(words) != 2 or words[0] not in PARTS or words[1] not in ("stopped", "started"):
                raise ValueError(f"{what!r} is not '<part> stopped' or '<part> started'; parts: {', '.join(PARTS)}")
            if words[1] == "stopped":
                self.engine.parts.stop(words[0])
            else:
                self.engine.parts.start(words[0])
            self.store.flush(self._meta)
            self._wake_held()

    def fault(self, operation: str, kind: str, count: int = 1, **options: Any) -> SetFault:
        """Let the next `count` requests for an operation go wrong; see `faults` for kinds and options.

        Raises:
            ValueError: no such operation, kind or option.
        """
        with self.lock:
            return SetFault(self.faults, self.faults.add(operation, kind, count, **options), self.lock)

    def clear_faults(self) -> None:
        """Take all faults back that have not happened yet."""
        with self.lock:
            self.faults.clear()

    def advance(self, seconds: float) -> None:
        """Move the clock ahead; everything that falls into that time happens, in order and at its instant.

        Raises:
            ValueError: it is no number.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, (Real, Decimal)):
            raise ValueError(f"seconds must be a number, not {seconds!r}")
        self.move_ns(int(seconds * SECOND))

    def move_ns(self, nanoseconds: int) -> None:
        """As `advance`, in nanoseconds."""
        with self.lock:
            self.clock.move_ns(nanoseconds)
            self.store.touch_meta()
            self.engine.pump(self.clock.now_ns())
            self.store.flush(self._meta)
            self._wake_held()

    def seed_data(self, data: Mapping[str, Any] | str | Path) -> None:
        """Add accounts, wallets, payments and connectors; see `seeding`. All of them, or none.

        Raises:
            ValueError: the data isn't right, or an id is taken.
            OSError: its file can't be read.
        """
        wanted = seeding.read(data)
        with self.lock:
            self.engine.pump(self.clock.now_ns())
            self._seed(wanted)
            self.store.flush(self._meta)

    def _seed(self, wanted: seeding.SeedData) -> None:
        seeding.apply(wanted, self.engine.memory.outside, self.engine.now)
        self.store.touch_meta()

    def record(self) -> Record:
        """What really happened by now: a copy."""
        with self.lock:
            self.pump()
            return self._record.copy()

    def balance(self, account: str, asset: str, ledger: str = "default") -> int:
        """What an account holds by now; 0 for an account that nothing was ever sent to."""
        with self.lock:
            self.pump()
            return self.engine.ledger.balance(ledger, account, asset)

    def balances(self, ledger: str, account: str) -> dict[str, int]:
        """What an account holds by now, by asset."""
        with self.lock:
            self.pump()
            return dict(self.engine.ledger.balances.get(ledger, {}).get(account, {}))

    def wallet(self, wallet_id: str) -> dict[str, dict[str, int]]:
        """What a wallet's balances hold by now, by balance and asset. ValueError: there is no such wallet."""
        with self.lock:
            self.pump()
            outside = self.engine.memory.outside
            wallet = outside.wallets.by_id.get(wallet_id)
            if wallet is None:
                raise ValueError(f"no wallet {wallet_id!r}")
            accounts = outside.ledger.balances.get(wallet["ledger"], {})
            return {name: dict(accounts.get(balance_account(wallet_id, name), {})) for name in wallet["balances"]}

    def publish(self, message: Mapping[str, Any]) -> None:
        """Let an event message arrive on the broker that triggers listen to.

        Raises:
            ValueError: it isn't an object.
        """
        if not isinstance(message, dict):
            raise ValueError("an event message is an object")
        with self.lock:
            self.engine.pump(self.clock.now_ns())
            self.triggers.publish(message)
            self.store.flush(self._meta)
            self._wake_held()

    # ---- storage ---------------------------------------------------------------------------------

    def _meta(self) -> dict[str, Any]:
        engine, outside = self.engine, self.engine.memory.outside
        return {
            "offset_ns": self.clock.offset_ns if isinstance(self.clock, RealClock) else 0,
            "ledger": {name: getattr(outside.ledger, name) for name in Ledger.__slots__},
            "wallets": outside.wallets.by_id,
            "payments": {name: getattr(outside.payments, name) for name in Payments.__slots__},
            "up": engine.parts.up,
            "parked": engine.parts.parked,
            "stalled": engine.parts.stalled,
            "seen": sorted(self.triggers.seen),
            "seeded": self._seeded,
        }

    def _loaded(self, db: str | None) -> Any:
        """What an earlier server left in the file, which has this data already if any is given. ValueError."""
        loaded = self.store.load()
        if loaded is None:
            return None
        meta = loaded[4]
        before = meta.get("seeded", self._seeded if meta else "")  # files of earlier versions don't tell
        if self._seeded not in ("", before):
            self.store.close()
            raise ValueError(
                f"database {db} was used before, with {'other' if before else 'no'} data: take a new file, or leave the"
                " data out and add what is missing to the running server (seed_data)"
            )
        self._seeded = before
        return loaded

    def _restore(self, loaded: Any) -> None:
        workflows, instances, triggers, entries, meta = loaded
        engine = self.engine
        engine.memory.workflows = {w.id: w for w in workflows}
        engine.memory.instances = {i.id: i for i in instances}
        self.triggers.by_id = {t.id: t for t in triggers}
        engine.restore(entries)
        if meta:
            for name, value in meta["ledger"].items():
                setattr(engine.ledger, name, value)
            engine.memory.outside.wallets.by_id = meta["wallets"]
            for name, value in meta["payments"].items():
                setattr(engine.memory.outside.payments, name, value)
            engine.parts.restore(meta["up"], [(kind, args) for kind, args in meta["parked"]], meta["stalled"])
            self.triggers.seen = set(meta["seen"])


__all__ = ["Core", "Exchange", "Reply", "Request"]
