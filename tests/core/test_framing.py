"""What follows an answer on its connection is never taken for the answer to another request."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
from pathlib import Path
from typing import Any

import h11
import pytest

from orchestration_integrations import AsyncOrchestrationHttpHook, OrchestrationHttpHook, Settings, TransportError
from orchestration_integrations.http_hook import exchange
from orchestration_integrations.http_hook.received import HEAD_LIMIT, Received
from tests.conftest import open_hook
from tests.scripted import Got, ScriptedServer, instance, respond
from tests.tunnels import TlsServer, make_certificate

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def counted(body: bytes) -> bytes:
    return OK + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(*parts: bytes) -> bytes:
    return CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts if part) + b"0\r\n\r\n"


def histories(kind: str, url: str, *ids: str, **options: Any) -> list[Any]:
    """What the input of the first stage is, of one instance after another, over the connections of one hook."""
    settings = Settings(base_url=url, timeout=5, **options)

    async def one_loop() -> list[Any]:
        async with AsyncOrchestrationHttpHook(settings) as hook:
            return [(await hook.get_instance_history(name))[0].input["of"] for name in ids]

    if kind == "async":
        return asyncio.run(one_loop())
    with OrchestrationHttpHook(settings) as hook:
        return [hook.get_instance_history(name)[0].input["of"] for name in ids]


def history(of: str, length: int = 0) -> bytes:
    row = {"name": "RunSend", "input": {"of": of}, "terminated": True, "startedAt": "2026-01-01T00:00:00Z"}
    text = json.dumps({"data": [row]}).encode()
    return text + b" " * (length - len(text))


def asked(got: Got) -> str:
    return got.target.split("/")[2]


@pytest.mark.parametrize("second", [counted, chunked])
@pytest.mark.parametrize("first", [counted, chunked])
def test_two_answers_in_one_breath_are_one(kind: str, first: Any, second: Any) -> None:
    """Only the last bytes of a chunked answer were looked at, and the second one ends as the first."""

    def answer(got: Got) -> Any:
        return lambda peer, _: peer.sendall(first(history(asked(got))) + second(history("nobody")))

    with ScriptedServer(answer) as server:
        assert histories(kind, server.url, "a", "b", "c") == ["a", "b", "c"]


def test_what_lies_in_another_record_of_tls_is_seen(kind: str, certificate: Path) -> None:
    """The loop's TLS has a buffer of its own, and its socket shows nothing of what lies there."""

    def answer(got: Got) -> Any:
        def both(peer: socket.socket, _: Got) -> None:
            peer.sendall(counted(history(asked(got))))
            peer.sendall(counted(history("nobody")))

        return both

    with TlsServer(certificate, answer) as server:
        url = server.url.replace("http:", "https:")
        assert histories(kind, url, "a", "b", "c", verify=str(certificate / "cert.pem")) == ["a", "b", "c"]


def test_what_a_loop_has_read_ahead_is_seen(kind: str) -> None:
    """httpcore takes 64 KiB at a time, and a loop reads 256: an answer of 64 KiB left the second one in between."""

    def answer(got: Got) -> Any:
        text = counted(history(asked(got), 60_000))
        text = counted(history(asked(got), 60_000 + 65_536 - len(text)))
        assert len(text) == 65_536
        return lambda peer, _: peer.sendall(text + counted(history("nobody")))

    with ScriptedServer(answer) as server:
        assert histories(kind, server.url, "a", "b", "c") == ["a", "b", "c"]


@pytest.mark.parametrize("more", [True, False])
def test_threads_that_share_connections_get_their_own_answers(more: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The connection was looked at after it had gone back to the pool, where another thread had taken it."""

    def answer(got: Got) -> Any:
        text = counted(history(asked(got))) + (counted(history("nobody")) if more else b"")
        return lambda peer, _: peer.sendall(text)

    wrong: list[Any] = []
    with (
        ScriptedServer(answer) as server,
        OrchestrationHttpHook(Settings(base_url=server.url, timeout=5)) as hook,
    ):

        def work(name: str) -> None:
            for number in range(120):
                one = f"{name}-{number}"
                try:
                    found: Any = hook.get_instance_history(one)[0].input["of"]
                except Exception as error:
                    found = error
                if found != one:
                    wrong.append((one, found))

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(server.got) == 480, "an exchange had failed, and was repeated"
    if not more:
        assert "more than its answer" not in caplog.text


def test_a_body_that_was_not_read_to_its_end_is_no_matter(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exchange, "BODY_LIMIT", 1000)

    def answer(got: Got) -> Any:
        return respond(200, b" " * 200_000 if got.target.endswith("long") else instance())

    with ScriptedServer(answer) as server:
        hook = open_hook(kind, base_url=server.url, retry_budget=1)
        with pytest.raises(TransportError, match="longer than"):
            hook.get_instance("long")
        assert hook.get_instance("i").id == "i"
        assert len({got.connection for got in server.got}) == len(server.got)
    assert "more than its answer" not in caplog.text


# ---- the reader of the framing beside h11 -----------------------------------------------------------------


def by_h11(stream: bytes) -> tuple[int, bool] | None:
    """Bytes of the body, and whether nothing follows it; None where there is no whole answer."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(stream)
    count = 0
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return None
        if event is h11.NEED_DATA or event is h11.PAUSED:
            return None
        if isinstance(event, h11.Data):
            count += len(event.data)
        if isinstance(event, h11.EndOfMessage):
            return count, connection.trailing_data == (b"", False)


def by_us(parts: list[bytes], body: int) -> bool:
    received = Received()
    received.begin()
    for part in parts:
        received.add(part)
    return received.is_exactly(body)


def cut_up(draw: random.Random, stream: bytes) -> list[bytes]:
    cuts = sorted(draw.randrange(len(stream) + 1) for _ in range(draw.choice([0, 1, 3, len(stream)])))
    return [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


FOLDED = b"Transfer-Encoding:\r\n chunked"
HEADS = [
    b"Transfer-Encoding: chunked",
    b"transfer-encoding:CHUNKED  ",
    b"Transfer-Encoding: gzip, chunked",
    FOLDED,
    b"X-Other: a\r\n Transfer-Encoding: chunked",
    b"X-Transfer-Encoding: chunked",
    b"Vary: Transfer-Encoding",
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Transfer-Encoding : chunked",
]
PIECES = [
    b"5\r\nhello\r\n",
    b"A;x=y\r\n0123456789\r\n",
    b"2 \r\n\r\n\r\n",
    b"1\nx\r\n",
    b"1\r\nxyz",
    b"5\r\n0\r\n\r\n\r\n",
]
ENDS = [b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"0\r\n\n", b"0\r\nA: b\n\n", b"00;z\r\n\r\n", b"0\r\nA: b\r\n", b"0\r\n\r"]
MORE = [
    b"",
    b"",
    b"",
    b"\r\n",
    b"0\r\n\r\n",
    b"0",
    b"hello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"\r\n\r\n",
]


def test_no_answer_is_taken_for_whole_that_h11_has_more_of() -> None:
    draw = random.Random(7)
    judged = {True: 0, False: 0}
    for _ in range(20_000):
        lines = draw.sample(HEADS, draw.choice([1, 1, 2]))
        if draw.random() < 0.3:
            lines.append(b"Content-Length: 0")
        break_ = draw.choice([b"\r\n", b"\r\n", b"\n"])
        head = draw.choice([b"HTTP/1.1 200 OK", b"HTTP/1.1 204 None", b"HTTP/1.1 304 Old", b"HTTP/1.1 200"])
        stream = b"HTTP/1.1 102 Wait\r\nA: b\r\n\r\n" * draw.choice([0, 0, 1, 2])
        stream += break_.join([head, *lines, b"", b""])
        if draw.random() < 0.7:
            stream += b"".join(draw.choices(PIECES, k=draw.randrange(4))) + draw.choice(ENDS)
        stream += draw.choice(MORE)
        known = by_h11(stream)
        if known is None:
            continue  # httpcore raises, and closes the connection
        body, whole = known
        judged[whole] += 1
        ours = by_us(cut_up(draw, stream), body)
        assert ours <= whole, stream
        assert ours is whole or FOLDED in lines, stream  # what is not understood costs a connection, and no more
    assert min(judged.values()) > 500


def test_an_answer_begins_with_its_request() -> None:
    received = Received()
    for body in (b"one", b"", b"three"):
        for text in (counted(body), chunked(body), chunked(*(body[at : at + 1] for at in range(len(body))))):
            received.begin()
            received.begin()
            received.add(text)
            assert received.is_exactly(len(body))


@pytest.mark.parametrize(
    "endless",
    [OK + b"X: y\r\n" * 40_000, CHUNKED + b"1" * 400_000, CHUNKED + b"0\r\n" + b"X: y\r\n" * 40_000],
    ids=["head", "size of a chunk", "trailers"],
)
def test_what_never_ends_is_not_understood(endless: bytes) -> None:
    received = Received()
    for at in range(0, len(endless), 4096):
        received.add(endless[at : at + 4096])
    received.add(b"\r\n\r\n")
    assert len(endless) > HEAD_LIMIT
    assert not received.is_exactly(0)
