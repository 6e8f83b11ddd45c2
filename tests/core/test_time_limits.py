"""One exchange is over when it says, whatever the network does, and nothing leaves after that (group T)."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import time
from types import SimpleNamespace
from typing import Any

import httpcore
import pytest

from orchestration_integrations import AmbiguousRunError, AmbiguousSubmitError, Settings, TransportError
from orchestration_integrations.clock import SYSTEM_CLOCK
from orchestration_integrations.http_hook import exchange, network
from orchestration_integrations.http_hook.deadline import Deadline
from tests.conftest import open_hook
from tests.scripted import Got, ScriptedServer, instance, respond

SLACK = 2.5
"""Seconds that a busy machine may add."""


@pytest.fixture(autouse=True, scope="module")
def imported() -> None:
    """The first call of a process imports, which takes long on a busy machine."""
    with ScriptedServer(lambda got: respond(200, instance())) as server:
        for kind in ("sync", "async"):
            open_hook(kind, Settings(base_url=server.url, timeout=60)).get_instance("i")


def hook_for(kind: str, url: str, **options: Any) -> Any:
    return open_hook(kind, Settings(base_url=url, timeout=1.5, retry_budget=1.6, **options))


def dripping(text: bytes, every: float = 0.1) -> Any:
    """Sends a byte at a time, far longer than anybody should wait."""

    def answer(peer: socket.socket, got: Got) -> None:
        for number in range(len(text)):
            peer.sendall(text[number : number + 1])
            time.sleep(every)

    return answer


def endless(text: bytes) -> Any:
    def answer(peer: socket.socket, got: Got) -> None:
        for _ in range(1000):
            peer.sendall(text)
            time.sleep(0.05)

    return answer


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + b"X-Filler: abc\r\n" * 40
SLOW = {
    "head": dripping(HEAD),
    "body": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b" " * 500, 0.02),
    "endless 1xx": endless(b"HTTP/1.1 102 Processing\r\n\r\n"),
}


@pytest.mark.parametrize("how", SLOW)
def test_an_exchange_is_over_in_its_time(kind: str, how: str) -> None:
    """T1."""
    with ScriptedServer(lambda got: SLOW[how]) as server:
        hook = hook_for(kind, server.url)
        began = time.monotonic()
        with pytest.raises(TransportError) as caught:
            hook.get_instance("i")
        assert time.monotonic() - began < 1.6 + SLACK
        assert caught.value.sent


@pytest.mark.parametrize("how", SLOW)
def test_a_cancel_is_over_in_its_time(kind: str, how: str) -> None:
    """T1: ``cancel(timeout=2)`` took 16 s."""
    with ScriptedServer(lambda got: SLOW[how]) as server:
        hook = open_hook(kind, Settings(base_url=server.url, timeout=10))
        began = time.monotonic()
        assert hook.cancel("i", timeout=0.5).status == "not_confirmed"
        assert time.monotonic() - began < 0.5 + SLACK


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Names that are looked up slowly, or have dead addresses."""
    real = socket.getaddrinfo
    names: dict[str, Any] = {}

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        text = host.decode() if isinstance(host, bytes) else host
        if text not in names:
            return real(host, port, *args, **kwargs)
        seconds, addresses = names[text]
        time.sleep(seconds)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, int(port or 0)))
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


def port_of(url: str) -> str:
    return url.rsplit(":", 1)[1]


def test_a_slow_look_up_sends_nothing(kind: str, slow_names: dict[str, Any]) -> None:
    """T2: the POST went out after its deadline, with a millisecond for the answer, and was ambiguous for nothing."""
    slow_names["slow.example"] = (3.0, ["127.0.0.1"])
    with ScriptedServer(lambda got: respond(204, None)) as server:
        hook = hook_for(kind, f"http://slow.example:{port_of(server.url)}")
        began = time.monotonic()
        with pytest.raises(TransportError) as caught:
            hook.send_event("i", "go")
        assert time.monotonic() - began < 3.0 + SLACK
        assert not caught.value.sent
        assert not isinstance(caught.value, AmbiguousSubmitError)
        assert server.got == []


@pytest.fixture
def dead_port() -> Any:
    """An address that takes no connection and refuses none: its queue is full."""
    listener = socket.socket()
    listener.bind(("127.0.0.2", 0))
    listener.listen(0)
    port = listener.getsockname()[1]
    fillers = []
    for _ in range(4):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(("127.0.0.2", port))
        fillers.append(one)
    yield port
    for one in [*fillers, listener]:
        one.close()


def test_a_dead_first_address_leaves_time_for_the_second(kind: str, slow_names: dict[str, Any], dead_port: int) -> None:
    """T2."""
    slow_names["two.example"] = (0.0, ["127.0.0.2", "127.0.0.3"])
    listener = socket.create_server(("127.0.0.3", dead_port))
    answer = json.dumps(instance()).encode()

    def serve() -> None:
        peer, _ = listener.accept()
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)

    threading.Thread(target=serve, daemon=True).start()
    try:
        hook = open_hook(kind, Settings(base_url=f"http://two.example:{dead_port}", timeout=3, retry_budget=3))
        assert hook.get_instance("i").id == "i"
    finally:
        listener.close()


def test_many_dead_addresses_share_the_time(kind: str, slow_names: dict[str, Any], dead_port: int) -> None:
    """T2: five dead addresses took the time five times over."""
    slow_names["five.example"] = (0.0, ["127.0.0.2"] * 5)
    hook = hook_for(kind, f"http://five.example:{dead_port}")
    began = time.monotonic()
    with pytest.raises(TransportError) as caught:
        hook.send_event("i", "go")
    assert time.monotonic() - began < 3.2 + SLACK
    assert not caught.value.sent


def test_nothing_is_written_once_the_deadline_is_over(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """T2: the connection stood at the last moment."""
    place = network.BoundedStream if kind == "sync" else network.AsyncBoundedStream
    real: Any = place.write

    def late(self: Any, buffer: bytes, timeout: Any = None) -> Any:
        timeout.deadline.at -= 60.0
        return real(self, buffer, timeout)

    monkeypatch.setattr(place, "write", late)
    with ScriptedServer(lambda got: respond(204, None)) as server:
        with pytest.raises(TransportError) as caught:
            hook_for(kind, server.url).send_event("i", "go")
        assert not caught.value.sent
        assert server.got == []


def test_an_answer_counts_unpacked(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """T4: 3 MB that held 3 GB took 2.2 GB of memory."""
    monkeypatch.setattr(exchange, "BODY_LIMIT", 2**20)
    packed = gzip.compress(b" " * 2**22)
    assert len(packed) < 2**16

    def bomb(peer: socket.socket, got: Got) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        peer.sendall(head + packed)

    with ScriptedServer(lambda got: bomb) as server:
        with pytest.raises(TransportError, match="longer than"):
            hook_for(kind, server.url).get_instance("i")


# ---- what is no answer is a failed exchange, whatever raised it -----------------------------------------


@pytest.mark.parametrize("raised", [ssl.SSLError("bad record"), OSError("gone"), EOFError("cut"), ValueError("odd")])
@pytest.mark.parametrize("where", ["read", "write"])
def test_whatever_a_connection_raises_is_a_failed_exchange(
    kind: str, monkeypatch: pytest.MonkeyPatch, raised: Exception, where: str
) -> None:
    """The async side let TLS errors out as they were: a healthy run was taken for interrupted, and cancelled."""
    place: Any = httpcore.SyncBackend if kind == "sync" else httpcore.AnyIOBackend
    real = place.connect_tcp

    def fails(*arguments: Any, **options: Any) -> Any:
        raise raised

    def spoiled(made: Any) -> Any:
        """The connection of httpcore, as it is but for what fails; and without a socket to go around it."""
        everything = {name: getattr(made, name) for name in ("read", "write", "close", "aclose") if hasattr(made, name)}
        return SimpleNamespace(**{**everything, where: fails}, get_extra_info=lambda info: None)

    def connected(*arguments: Any, **options: Any) -> Any:
        made = real(*arguments, **options)
        return spoiled(made) if kind == "sync" else spoiled_later(made)

    async def spoiled_later(made: Any) -> Any:
        return spoiled(await made)

    monkeypatch.setattr(place, "connect_tcp", connected)
    with ScriptedServer(lambda got: respond(200, instance())) as server:
        with pytest.raises(TransportError) as caught:
            hook_for(kind, server.url).get_instance("i")
        assert caught.value.sent
        with pytest.raises(AmbiguousRunError):
            hook_for(kind, server.url).run_workflow("w")


@pytest.mark.parametrize("how", ["hangs", "closes", "talks"])
def test_a_socks_proxy_keeps_the_time_too(kind: str, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """httpcore hands over no time-out while it speaks to a SOCKS proxy."""
    pytest.importorskip("socksio")
    listener = socket.create_server(("127.0.0.1", 0))
    peers: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            peers.append(peer)
            if how == "closes":
                peer.close()
            elif how == "talks":
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    threading.Thread(target=serve, daemon=True).start()
    monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{listener.getsockname()[1]}")
    began = time.monotonic()
    try:
        with pytest.raises(TransportError):
            hook_for(kind, "http://orchestration.example").get_instance("i")
    finally:
        listener.close()
        for peer in peers:
            peer.close()
    assert time.monotonic() - began < 3.2 + SLACK


def test_a_slow_reader_does_not_extend_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part of a body that a socket took had the whole time again."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    class Plain:
        def get_extra_info(self, info: str) -> Any:
            return ours if info == "socket" else None

    over = threading.Event()

    def sip() -> None:
        while not over.wait(0.1):
            theirs.recv(512)

    reader = threading.Thread(target=sip, daemon=True)
    reader.start()
    deadline = Deadline(SYSTEM_CLOCK, time.monotonic() + 0.6)
    began = time.monotonic()
    try:
        with pytest.raises(httpcore.WriteTimeout):
            network.BoundedStream(Plain()).write(b"x" * 2**22, deadline["write"])  # type: ignore[arg-type]
    finally:
        over.set()
        reader.join()
        for one in (ours, theirs):
            one.close()
    assert time.monotonic() - began < 0.6 + SLACK
    assert deadline.sent
