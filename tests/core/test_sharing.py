"""Hooks of a process share what costs; what is interrupted, forked or closed costs nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import pickle
import signal
import socket
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import httpx
import pytest

from orchestration_integrations import (
    AsyncOrchestrationHttpHook,
    MemoryRunStore,
    OrchestrationError,
    OrchestrationHttpHook,
    Settings,
    TransportError,
    ValidationError,
    WaitTimeoutError,
)
from orchestration_integrations.http_hook import asynchronous_driver, connections, network, tls
from orchestration_integrations.server import EmbeddedServer
from tests.conftest import open_hook
from tests.scripted import Got, ScriptedServer, instance, respond


class Server:
    """Gives tokens, and instances by their id."""

    def __init__(self, pause: float = 0.0) -> None:
        self.tokens = 0
        self.pause = pause

    def __call__(self, got: Got) -> Any:
        if got.target.endswith("/oauth/token"):
            self.tokens += 1
            return respond(200, {"access_token": f"token-{self.tokens}", "expires_in": 3600})
        time.sleep(self.pause)
        return respond(200, instance(id=got.target.rsplit("/", 1)[1]))


def credentials(server: ScriptedServer, **changes: Any) -> Settings:
    return Settings(base_url=server.url, client_id="c", client_secret="s", **changes)


def test_a_payments_hooks_fetch_one_token(kind: str) -> None:
    """T8: three hooks made a payment, and fetched three tokens."""
    answers = Server()
    with ScriptedServer(answers) as server:
        for timeout in (10.0, 4.0, 10.0):
            hook = open_hook(kind, credentials(server, timeout=timeout))
            assert hook.get_instance("i").id == "i"
            hook.close()
        assert answers.tokens == 1


def test_many_tasks_of_one_loop_share_one_token_and_their_connections() -> None:
    """W9: twenty deferred tasks fetched twenty tokens."""
    answers = Server()

    async def task(settings: Settings, number: int) -> str:
        async with AsyncOrchestrationHttpHook(settings) as hook:
            await hook.get_instance(f"i{number}")
            await asyncio.sleep(0.05)
            return (await hook.get_instance(f"i{number}")).id

    async def main(settings: Settings) -> list[str]:
        return await asyncio.gather(*[task(settings, number) for number in range(40)])

    with ScriptedServer(answers) as server:
        found = asyncio.run(main(credentials(server, max_connections=5)))
        assert found == [f"i{number}" for number in range(40)]
        assert answers.tokens == 1
        reads = {got.connection for got in server.got if "/instances/" in got.target}
        assert len(reads) <= 5


def test_other_settings_share_nothing(kind: str) -> None:
    answers = Server()
    with ScriptedServer(answers) as server:
        for scope in ("a", "b"):
            open_hook(kind, credentials(server, scope=scope)).get_instance("i")
        open_hook(kind, credentials(server, scope="b"), own_connections=True).get_instance("i")
        assert answers.tokens == 3


def test_each_hook_is_told_the_token_that_it_sends(kind: str) -> None:
    """So that it can mask it: also one that another hook has fetched."""
    told: list[str] = []
    with ScriptedServer(Server()) as server:
        open_hook(kind, credentials(server)).get_instance("i")
        hook = open_hook(kind, credentials(server), on_token=told.append)
        hook.get_instance("i")
    assert told == ["token-1"]


def test_a_hook_that_is_closed_leaves_the_others_alone() -> None:
    with ScriptedServer(Server()) as server:
        first, second = (OrchestrationHttpHook(base_url=server.url) for _ in range(2))
        for hook in (first, second):
            hook.get_instance("i")
        first.close()
        first.close()
        second.get_instance("i")
        assert len({got.connection for got in server.got}) == 1
        second.close()
        first.get_instance("i")
        assert len({got.connection for got in server.got}) == 2


def test_one_context_serves_all_hooks_and_none_is_made_without_tls(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S5: each deferred task read the certificates on the triggerer's loop, 20 ms each."""
    made: list[str] = []
    real = tls.ssl_context

    def counted(settings: Settings, **options: Any) -> Any:
        made.append(settings.base_url)
        return real(settings, **options)

    monkeypatch.setattr(tls, "ssl_context", counted)
    with ScriptedServer(Server()) as server:
        for _ in range(3):
            open_hook(kind, base_url=server.url).get_instance("i")
        assert made == []
        port = server.url.rsplit(":", 1)[1]
        settings = Settings(base_url=f"https://127.0.0.1:{port}", timeout=0.3, retry_budget=0.3)
        for _ in range(3):
            with pytest.raises(Exception):  # noqa: B017, PT011  # the server speaks no TLS
                open_hook(kind, settings).get_instance("i")
        assert made == [settings.base_url]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_two_hundred_waits_do_not_stall_their_loop(scheme: str) -> None:
    """S5: 200 deferred tasks stalled the triggerer by 4.1 s: what each of them did on the loop came in one go."""
    OrchestrationHttpHook(base_url="http://127.0.0.1:1")  # a triggerer has imported by then

    async def main(url: str) -> tuple[float, list[Any]]:
        longest = 0.0
        done = asyncio.Event()

        async def watch() -> None:
            nonlocal longest
            while not done.is_set():
                before = time.thread_time()
                at = time.monotonic()
                await asyncio.sleep(0.001)
                # CPU time of this thread: what the loop did in one go, whatever else the machine does.
                longest = max(longest, min(time.thread_time() - before, time.monotonic() - at))

        async def task() -> Any:
            async with AsyncOrchestrationHttpHook(
                Settings(base_url=url, timeout=20, retry_budget=20 if scheme == "http" else 0.1)
            ) as hook:
                return await hook.get_instance("i")

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0.01)
        found = await asyncio.gather(*[task() for _ in range(200)], return_exceptions=True)
        done.set()
        await watching
        return longest, found

    with ScriptedServer(Server()) as server:
        port = server.url.rsplit(":", 1)[1]
        longest, found = asyncio.run(main(f"{scheme}://127.0.0.1:{port}"))
        if scheme == "http":
            assert {one.id for one in found} == {"i"}
    before = time.thread_time()
    httpx.create_ssl_context()
    one_by_one = 200 * (time.thread_time() - before)
    assert longest < one_by_one / 5, "a context of one's own for each, as it was"


def test_a_forked_child_opens_its_own(kind: str) -> None:
    """M2: answers went to either process, and a wait returned the success of another instance."""
    with ScriptedServer(Server(pause=0.01)) as server:
        hook = open_hook(kind, credentials(server))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: hook.get_instance(f"i{number}"), range(8)) if kind == "sync" else [])
        hook.get_instance("before")
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover
            wrong = 99
            try:
                wrong = sum(hook.get_instance(f"child{n}").id != f"child{n}" for n in range(30))
            finally:
                os.write(writing, str(wrong).encode())
                os._exit(0)
        os.close(writing)
        wrong = sum(hook.get_instance(f"parent{n}").id != f"parent{n}" for n in range(30))
        with os.fdopen(reading) as pipe:
            assert pipe.read() == "0"
        os.waitpid(child, 0)
        assert wrong == 0


def test_a_fork_amid_another_threads_call_does_not_block_the_child() -> None:
    """What another thread had locked stays locked in the child for ever."""
    with ScriptedServer(Server(pause=0.002)) as server:
        hook = OrchestrationHttpHook(credentials(server))
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                OrchestrationHttpHook(credentials(server)).get_instance("i")

        threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for number in range(10):
                child = os.fork()
                if child == 0:  # pragma: no cover
                    signal.alarm(20)
                    try:
                        good = hook.get_instance(f"child{number}").id == f"child{number}"
                    finally:
                        os._exit(0 if good else 1)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            over.set()
            for thread in threads:
                thread.join()


def test_cancelled_calls_lose_no_places_in_the_pool() -> None:
    """T3: ten times thirty calls that were cancelled after 2 ms; later every call failed after 60 s."""

    async def main(url: str) -> str:
        async with AsyncOrchestrationHttpHook(Settings(base_url=url, max_connections=5, timeout=3)) as hook:

            async def hurried() -> None:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(hook.get_instance("i"), 0.002)

            for _ in range(10):
                await asyncio.gather(*[hurried() for _ in range(30)])
            found = await asyncio.gather(*[hook.get_instance(f"i{n}") for n in range(20)])
            return " ".join(one.id for one in found)

    with ScriptedServer(Server(pause=0.005)) as server:
        assert asyncio.run(main(server.url)) == " ".join(f"i{n}" for n in range(20))


def test_an_interrupt_in_a_thread_loses_no_place_in_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestration_integrations.http_hook import network

    real = network.BoundedStream.read
    interrupts = iter([True] * 8 + [False] * 1000)

    def read(self: Any, max_bytes: int, timeout: Any = None) -> bytes:
        if next(interrupts):
            raise KeyboardInterrupt
        return real(self, max_bytes, timeout)

    monkeypatch.setattr(network.BoundedStream, "read", read)
    with ScriptedServer(Server()) as server:
        hook = OrchestrationHttpHook(Settings(base_url=server.url, max_connections=2, timeout=2))
        for _ in range(8):
            with pytest.raises(KeyboardInterrupt):
                hook.get_instance("i")
        assert hook.get_instance("i").id == "i"


def test_a_hook_serves_one_loop_after_another() -> None:
    with ScriptedServer(Server()) as server:
        hook = AsyncOrchestrationHttpHook(credentials(server))
        for _ in range(3):
            assert asyncio.run(hook.get_instance("i")).id == "i"


def test_settings_of_a_hook_can_be_pickled() -> None:
    settings = Settings(base_url="https://o.example", client_id="c", client_secret="geheim")
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert "geheim" not in repr(settings)


def test_idle_settings_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_SETTINGS", 3)
    monkeypatch.setattr(connections, "_shared", OrderedDict())
    answers = Server()
    with ScriptedServer(answers) as server:
        for number in range(6):
            with OrchestrationHttpHook(credentials(server, scope=str(number))) as hook:
                hook.get_instance("i")
        with OrchestrationHttpHook(credentials(server, scope="0")) as hook:
            hook.get_instance("i")
        assert answers.tokens == 7
        with OrchestrationHttpHook(credentials(server, scope="5")) as hook:
            hook.get_instance("i")
        assert answers.tokens == 7


def test_a_thread_that_fetches_a_token_does_not_hold_up_an_event_loop() -> None:
    released = threading.Event()
    in_time: list[bool] = []

    def answer(got: Got) -> Any:
        if not got.target.endswith("/oauth/token"):
            return respond(200, instance())
        in_time.append(released.wait(20))
        return respond(200, {"access_token": "token", "expires_in": 3600})

    async def beside(settings: Settings) -> str:
        """The loop goes on while the thread waits for its token, and gets one by itself."""
        async with AsyncOrchestrationHttpHook(settings) as hook:
            call = asyncio.create_task(hook.get_instance("i"))
            for _ in range(5):
                await asyncio.sleep(0.01)
            released.set()
            return (await call).id

    with ScriptedServer(answer) as server:
        settings = credentials(server, timeout=20)
        with ThreadPoolExecutor(1) as pool:
            fetching = pool.submit(OrchestrationHttpHook(settings).get_instance, "i")
            while not server.got:
                time.sleep(0.01)
            assert asyncio.run(beside(settings)) == "i"
            assert fetching.result(30).id == "i"
    assert all(in_time), "the loop came to release the answer only after the thread had given up"


def test_a_cancelled_run_is_stopped_although_the_loops_threads_are_busy() -> None:
    """The cancel waited for the threads of the loop's executor, where users' own work sits."""
    over = threading.Event()
    with EmbeddedServer(1) as server:
        definition = {"name": "long", "stages": [{"delay": {"duration": "1h"}}]}

        async def main() -> str:
            loop = asyncio.get_running_loop()
            loop.set_default_executor(ThreadPoolExecutor(2))
            async with AsyncOrchestrationHttpHook(base_url=server.url) as hook:
                chosen: list[str] = []
                paying = asyncio.create_task(
                    hook.run_once(definition, run_key="k", store=MemoryRunStore(), on_chosen=chosen.append)
                )
                while not server.record().released:  # noqa: ASYNC110  # of a server in another thread
                    await asyncio.sleep(0.02)
                busy = [loop.run_in_executor(None, over.wait, 60) for _ in range(2)]
                paying.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await paying
                assert not any(thread.done() for thread in busy)
                state = OrchestrationHttpHook(base_url=server.url).get_instance(chosen[0]).state
                over.set()
                await asyncio.gather(*busy)
                return state

        try:
            assert asyncio.run(main()) == "cancelled"
        finally:
            over.set()


def test_a_child_closes_although_its_parents_threads_held_locks() -> None:
    with ScriptedServer(Server()) as server:
        hook = OrchestrationHttpHook(base_url=server.url)
        hook.get_instance("i")
        held, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            with hook._connections._lock:  # type: ignore[union-attr]
                held.set()
                go_on.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if child == 0:  # pragma: no cover
            signal.alarm(10)
            hook.close()
            os._exit(0)
        try:
            assert os.waitpid(child, 0)[1] == 0
        finally:
            go_on.set()
            thread.join()


def test_a_client_that_was_given_up_is_not_lent_again() -> None:
    lent = connections._Lent(object())
    assert lent.begin()
    assert lent.end(broken_off=True)
    assert not lent.begin()


@pytest.mark.parametrize("wants", ["object", "lambda"])
def test_an_owner_may_answer_later(wants: str) -> None:
    """An object whose call is asynchronous, or a function that returns something to await, was refused after 27 s."""

    class Wants:
        async def __call__(self) -> bool:
            return True

    async def later() -> bool:
        return True

    definition = {"name": "short", "stages": [{"delay": {"duration": "1ms"}}]}
    with EmbeddedServer(2) as server:

        async def main() -> str:
            async with AsyncOrchestrationHttpHook(base_url=server.url) as hook:
                workflow = (await hook.ensure_workflow(definition, gate=True)).workflow
                asked: Any = Wants() if wants == "object" else lambda: later()
                return (await hook.start(workflow.id, wants=asked)).workflow_id

        assert asyncio.run(main())
        with pytest.raises(ValidationError, match="wants"):
            OrchestrationHttpHook(base_url=server.url).start("w", wants=Wants())


def test_a_cancel_with_a_wrong_limit_notes_nothing(kind: str) -> None:
    """A stop stood on record that nobody had sent: the next call would have taken it for a cancellation."""
    definition = {"name": "long", "stages": [{"delay": {"duration": "1h"}}]}
    store = MemoryRunStore()
    with EmbeddedServer(1) as server:
        hook = open_hook(kind, base_url=server.url)
        with pytest.raises(WaitTimeoutError) as caught:
            hook.run_once(definition, run_key="k", store=store, timeout=0, on_timeout="leave")
        for timeout in ("15", -1):
            with pytest.raises(ValidationError, match="timeout"):
                hook.cancel(caught.value.instance_id, timeout=timeout, store=store, run_key="k")
        record = store.load("k")
        assert record is not None
        assert not record.hold


@pytest.mark.parametrize("name", ["deadline", "row_grace", "read_budget", "timeout"])
def test_a_number_that_is_none_is_refused_by_its_name(kind: str, name: str) -> None:
    with ScriptedServer(Server()) as server:
        with pytest.raises(ValidationError) as caught:
            open_hook(kind, base_url=server.url).wait("i", **{name: "soon"})
        assert caught.value.path == name
        assert server.got == []


def test_a_signal_that_leaves_a_lock_of_the_pool_held_does_not_hang_the_interrupt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client was closed in the thread that held its pool's lock, and waited for it for ever."""
    import httpcore._synchronization as locks

    with ScriptedServer(Server()) as server:
        hook = OrchestrationHttpHook(base_url=server.url)
        hook.get_instance("i")
        real = locks.ThreadLock.__enter__
        interrupted: list[bool] = []

        def interrupt(self: Any) -> Any:
            entered = real(self)
            if not interrupted:
                interrupted.append(True)
                raise KeyboardInterrupt  # as a signal that comes between the lock and the code under it
            return entered

        monkeypatch.setattr(locks.ThreadLock, "__enter__", interrupt)
        done: list[str] = []

        def call() -> None:
            try:
                hook.get_instance("i")
            except KeyboardInterrupt:
                done.append(hook.get_instance("after").id)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(20)
        assert done == ["after"]


@pytest.mark.parametrize("spelling", ["plain", "escaped", "an id"])
def test_a_token_that_a_server_echoes_is_masked_in_any_spelling(kind: str, spelling: str) -> None:
    token = "abc&def<ghi"

    def answer(got: Got) -> Any:
        if spelling == "an id":
            return respond(200, instance(id=f"Bearer {token}"))
        body = {"errorCode": "VALIDATION", "errorMessage": f"bad token {token}"}
        text = json.dumps(body)
        if spelling == "escaped":
            text = text.replace("&", "\\u0026").replace("<", "\\u003c")
        return respond(403, text.encode())

    with ScriptedServer(answer) as server:
        with pytest.raises(OrchestrationError) as caught:
            open_hook(kind, base_url=server.url, token=token, retry_budget=0.5).get_instance("i")
    for text in (str(caught.value), repr(caught.value), repr(vars(caught.value))):
        assert token not in text


def test_a_body_that_is_packed_twice_is_not_unpacked(kind: str) -> None:
    packed = gzip.compress(gzip.compress(b" " * 2**26))

    def answer(got: Got) -> Any:
        return respond(200, packed, Content_Encoding="gzip, gzip")

    with ScriptedServer(answer) as server:
        with pytest.raises(TransportError, match="more than once"):
            open_hook(kind, base_url=server.url, retry_budget=0.5).get_instance("i")


def two_answers(peer: socket.socket, got: Got, second: bytes) -> None:
    """The answer, and in the same breath one that nobody asked for."""
    first = json.dumps(instance(id=got.target.rsplit("/", 1)[1])).encode()
    parts = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body for body in (first, second)]
    peer.sendall(b"".join(parts))


def test_what_follows_an_answer_is_no_answer_to_the_next_question(kind: str) -> None:
    """The client had it in its buffer already: a list that was empty, for a key that had a run."""

    def answer(got: Got) -> Any:
        if "/instances/" in got.target:
            return lambda peer, _: two_answers(peer, got, b'{"data": []}')
        return respond(200, {"data": [instance()["data"]]})

    async def one_loop(url: str) -> list[str]:
        async with AsyncOrchestrationHttpHook(base_url=url, api_version="v1") as hook:
            await hook.get_instance("a")
            return [row.id for row in await hook.list_instances()]

    with ScriptedServer(answer) as server:
        if kind == "async":
            assert asyncio.run(one_loop(server.url)) == ["i"]
        else:
            hook = OrchestrationHttpHook(base_url=server.url, api_version="v1")
            hook.get_instance("a")
            assert [row.id for row in hook.list_instances()] == ["i"]


@pytest.mark.parametrize("how", ["length", "chunks", "interim", "gzip"])
def test_a_connection_that_brought_its_answer_is_used_again(kind: str, how: str) -> None:
    def answer(got: Got) -> Any:
        body = json.dumps(instance(id=got.target.rsplit("/", 1)[1])).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        if how == "interim":
            head = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + head
        if how == "gzip":
            body, head = gzip.compress(body), head + b"Content-Encoding: gzip\r\n"
        if how == "chunks":
            half = len(body) // 2
            parts = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:], b""))
            return lambda peer, _: peer.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + parts)
        return lambda peer, _: peer.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async def one_loop(url: str) -> None:
        async with AsyncOrchestrationHttpHook(base_url=url) as hook:
            for number in range(4):
                assert (await hook.get_instance(f"i{number}")).id == f"i{number}"

    with ScriptedServer(answer) as server:
        if kind == "async":
            asyncio.run(one_loop(server.url))
        else:
            hook = OrchestrationHttpHook(base_url=server.url)
            for number in range(4):
                assert hook.get_instance(f"i{number}").id == f"i{number}"
        assert len({got.connection for got in server.got}) == 1


def test_a_task_that_comes_between_an_end_and_those_who_waited_for_it_fails_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The certificates were read; before the first task woke, a new one began to read them again."""

    async def run() -> list[str]:
        loop = asyncio.get_running_loop()
        first: asyncio.Future[None] = loop.create_future()
        begun: list[asyncio.Future[None]] = []
        tasks: list[asyncio.Task[str]] = []

        def begins(function: Any) -> asyncio.Future[None]:
            if begun:
                begun.append(loop.run_in_executor(None, function))
            else:
                begun.append(first)
                first.add_done_callback(lambda _: tasks.append(loop.create_task(ask())))  # before the others wake
            return begun[-1]

        monkeypatch.setattr(connections, "in_own_thread", begins)
        monkeypatch.setattr(asynchronous_driver, "as_sent", lambda call: call)  # a task of its own would come later

        async def ask() -> str:
            async with AsyncOrchestrationHttpHook(settings) as hook:
                return (await hook.get_instance("i")).id

        tasks += [loop.create_task(ask()), loop.create_task(ask())]
        await asyncio.sleep(0.05)
        await loop.run_in_executor(None, import_module, "orchestration_integrations.http_hook.transport")
        first.set_result(None)
        await asyncio.sleep(0.05)
        assert len(begun) == 2, "nobody came in between"
        return await asyncio.gather(*tasks)

    with ScriptedServer(Server()) as server:
        settings = Settings(base_url=server.url, timeout=4.5)
        assert asyncio.run(run()) == ["i", "i", "i"]


async def test_a_pool_is_told_whether_an_idle_connection_has_something_to_read_as_anyio_says_it() -> None:
    """It asks of each idle connection for each request, so the socket is asked, and anyio is not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = await network.AsyncBoundedBackend().connect_tcp("127.0.0.1", listener.getsockname()[1], 5)
        other, _ = listener.accept()
        asked: list[str] = []
        anyio_stream = stream._stream
        of_anyio = anyio_stream.get_extra_info
        anyio_stream.get_extra_info = lambda info: asked.append(info) or of_anyio(info)
        assert stream.get_extra_info("is_readable") is of_anyio("is_readable") is False
        other.close()
        await asyncio.sleep(0.01)
        assert stream.get_extra_info("is_readable") is True
        await stream.aclose()
        assert stream.get_extra_info("is_readable") is True
        assert asked == []
