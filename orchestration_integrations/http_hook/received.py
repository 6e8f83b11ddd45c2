"""Whether a connection holds nothing but the answer that was read from it.

A server or a proxy that has lost count sends more than one answer to a request. What follows the first one lies in the
client's buffer already, and would be taken for the answer to the next request: of another instance, or of another
question. So a connection that brought more than its answer is not used again.
"""

from __future__ import annotations

import logging

import httpx

logger = logging.getLogger("orchestration_integrations.hook")

HEAD_LIMIT = 128 * 1024
"""Bytes in which the end of a head is looked for."""
_END_OF_CHUNKS = b"0\r\n\r\n"


class Received:
    """What has come over a connection since the latest request was written to it."""

    def __init__(self) -> None:
        self._start = b""
        self._tail = b""
        self._count = 0

    def begin(self) -> None:
        """A request is written: from here on its answer comes."""
        if self._count:
            self._start, self._tail, self._count = b"", b"", 0

    def add(self, data: bytes) -> None:
        """Some bytes have come."""
        self._count += len(data)
        if len(self._start) < HEAD_LIMIT:
            self._start += data[: HEAD_LIMIT - len(self._start)]
        self._tail = (self._tail + data)[-len(_END_OF_CHUNKS) :]

    def is_exactly(self, answer: httpx.Response) -> bool:
        """Whether that was the answer and nothing more. The body must have been read."""
        head = self._length_of_heads()
        if head is None:
            return False
        if "chunked" in answer.headers.get("Transfer-Encoding", "").lower():
            return self._tail == _END_OF_CHUNKS
        return self._count == head + answer.num_bytes_downloaded

    def _length_of_heads(self) -> int | None:
        """Bytes of the final head and of those of status 1xx before it; None where no end is found."""
        begin = 0
        while True:
            end = self._start.find(b"\r\n\r\n", begin)
            if end < 0:
                return None
            status = self._start[begin:end].partition(b" ")[2]
            begin = end + 4
            if not status.startswith(b"1"):
                return begin


def leave_if_more(answer: httpx.Response) -> None:
    """Close the connection if it brought more than this answer, whose body was read."""
    stream = answer.extensions.get("network_stream")
    received = getattr(stream, "received", None)  # of ``network``; a transport of a test has none
    if stream is not None and isinstance(received, Received) and not received.is_exactly(answer):
        logger.warning("the server sent more than its answer; the connection is not used again")
        stream.close()


async def aleave_if_more(answer: httpx.Response) -> None:
    """As ``leave_if_more``."""
    stream = answer.extensions.get("network_stream")
    received = getattr(stream, "received", None)
    if stream is not None and isinstance(received, Received) and not received.is_exactly(answer):
        logger.warning("the server sent more than its answer; the connection is not used again")
        await stream.aclose()
