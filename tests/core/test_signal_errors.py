"""What a signal handler raises amid an exchange is the caller's wish, whatever its class."""

from __future__ import annotations

import functools
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpcore
import pytest

from orchestration_integrations import MemoryRunStore, OrchestrationHttpHook, TransportError
from orchestration_integrations.http_hook import network
from orchestration_integrations.http_hook.interrupts import after_interrupt
from orchestration_integrations.http_hook.signal_errors import raised_by_signal
from orchestration_integrations.server import EmbeddedServer

WAITS = {"name": "waits", "stages": [{"wait_event": {"event": "go"}}]}


class SoftTimeLimitExceeded(Exception):
    """As Celery's."""


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(3) as running:
        yield running


@pytest.fixture
def on_alarm() -> Iterator[Any]:
    before = signal.getsignal(signal.SIGALRM)
    yield lambda handler: signal.signal(signal.SIGALRM, handler)
    signal.signal(signal.SIGALRM, before)


def plain(number: int, frame: Any) -> None:
    raise SoftTimeLimitExceeded


def of_the_system(number: int, frame: Any) -> None:
    raise TimeoutError("too long")


class Handler:
    def __call__(self, number: int, frame: Any) -> None:
        raise ValueError("called")

    def method(self, number: int, frame: Any) -> None:
        raise ConnectionError("a method")


def any_arguments(*arguments: Any) -> None:
    raise SoftTimeLimitExceeded


def for_the_last_time(number: int, frame: Any) -> None:
    """The second one is to end the program."""
    signal.signal(number, signal.SIG_IGN)
    raise SoftTimeLimitExceeded


class Cached:
    @functools.lru_cache  # noqa: B019
    def handle(self, number: int, frame: Any) -> None:
        raise SoftTimeLimitExceeded


HANDLERS = {
    "any arguments": (any_arguments, SoftTimeLimitExceeded),
    "one that puts back another": (for_the_last_time, SoftTimeLimitExceeded),
    "a method that is cached": (Cached().handle, SoftTimeLimitExceeded),
    "a function": (plain, SoftTimeLimitExceeded),
    "a builtin error": (of_the_system, TimeoutError),
    "an object": (Handler(), ValueError),
    "a method": (Handler().method, ConnectionError),
    "a partial": (functools.partial(plain), SoftTimeLimitExceeded),
}


@pytest.mark.parametrize("how", HANDLERS)
def test_a_limit_amid_an_exchange_ends_the_call_and_cancels_the_run(
    server: EmbeddedServer, on_alarm: Any, how: str
) -> None:
    handler, kind = HANDLERS[how]
    on_alarm(handler)
    with OrchestrationHttpHook(base_url=server.url) as hook:

        def hangs(event: Any) -> None:
            if event.kind == "listening":
                server.fault("get_instance", "stall", 1, seconds=20)
                server.fault("abort_instance", "cut_before", 2)  # these are none of the handler's
                threading.Timer(0.25, signal.pthread_kill, (threading.main_thread().ident, signal.SIGALRM)).start()

        begun = time.monotonic()
        with pytest.raises(kind) as caught:
            hook.run_once(WAITS, run_key=how, store=MemoryRunStore(), poll_interval=0.1, on_stage=hangs)
        assert time.monotonic() - begun < 15
        came = after_interrupt(caught.value)
        assert came is not None
        assert came.word == "cancelled"
        (row,) = hook.list_instances()
        assert row.state == "cancelled"


def alarm_after(seconds: float) -> None:
    threading.Timer(seconds, signal.pthread_kill, (threading.main_thread().ident, signal.SIGALRM)).start()


@pytest.mark.parametrize("where", ["wants", "choose", "save"])
def test_a_limit_amid_a_function_of_the_callers_is_no_answer_of_it(
    server: EmbeddedServer, on_alarm: Any, where: str
) -> None:
    """It was taken for an owner or a store that is away: asked again, and the run was paid."""
    on_alarm(of_the_system)
    store = MemoryRunStore()
    blocked: list[str] = []

    def blocks() -> None:
        if not blocked:
            blocked.append(where)
            alarm_after(0.2)
            time.sleep(30)

    def wants() -> bool:
        if where == "wants":
            blocks()
        return True

    if where != "wants":
        real = getattr(store, where)

        def call(*arguments: Any) -> Any:
            blocks()
            return real(*arguments)

        setattr(store, where, call)
    with OrchestrationHttpHook(base_url=server.url) as hook:
        with pytest.raises(TimeoutError):
            hook.run_once(WAITS, run_key="k", store=store, wants=wants, timeout=20)
        assert not [row for row in server.record().released if row]
        assert all(row.state != "running" or not row.status for row in hook.list_instances())


def test_an_idle_handler_of_whatever_kind_makes_no_wish_of_a_failed_read(server: EmbeddedServer, on_alarm: Any) -> None:
    on_alarm(Cached().handle)
    with OrchestrationHttpHook(base_url=server.url) as hook:
        server.fault("list_instances", "cut_before", 1)
        assert not hook.list_instances()


def test_a_limit_amid_a_connection_goes_to_no_further_address(on_alarm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on_alarm(of_the_system)
    tried: list[str] = []

    def connect_tcp(self: Any, host: str, *arguments: Any) -> Any:
        tried.append(host)
        try:
            alarm_after(0.2)
            time.sleep(30)
        except TimeoutError:
            raise httpcore.ConnectTimeout("timed out") from None

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_tcp)
    monkeypatch.setattr(network, "_addresses", lambda *_: ["127.0.0.1", "127.0.0.2"])
    with OrchestrationHttpHook(base_url="http://both.example") as hook, pytest.raises(TimeoutError):
        hook.list_instances()
    assert tried == ["127.0.0.1"]


def test_the_client_that_was_broken_off_serves_no_further_call(server: EmbeddedServer, on_alarm: Any) -> None:
    on_alarm(plain)
    with OrchestrationHttpHook(base_url=server.url) as hook:
        hook.list_instances()
        server.fault("list_instances", "stall", 1, seconds=20)
        threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGALRM)).start()
        with pytest.raises(SoftTimeLimitExceeded):
            hook.list_instances()
        assert not hook.list_instances()


def test_what_the_exchange_raises_is_a_failed_exchange(server: EmbeddedServer, on_alarm: Any) -> None:
    on_alarm(plain)
    server.fault("list_instances", "cut_before", 50)
    with (
        OrchestrationHttpHook(base_url=server.url, retry_budget=0.2) as hook,
        pytest.raises(TransportError),
    ):
        hook.list_instances()
    with pytest.raises(TimeoutError) as caught:
        raise TimeoutError
    assert raised_by_signal(caught.value) is None
