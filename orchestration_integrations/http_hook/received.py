"""Whether a connection holds nothing but the answer that was read from it.

A server or a proxy that has lost count sends more than one answer to a request. What follows the first one lies in the
client's buffer already, and would be taken for the answer to the next request: of another instance, or of another
question. So a connection that brought more than its answer is not used again.

h11, which httpcore reads answers with, keeps its buffer to itself. So ``Received`` follows the bytes beside it: where
the head ends, and where a chunked body ends, by h11's own rules. What it does not understand counts as more.
"""

from __future__ import annotations

import re

HEAD_LIMIT = 128 * 1024
"""Bytes in which the end of a head, or of what follows the last chunk, is looked for. h11 takes fewer."""
_LINE_LIMIT = 16 * 1024
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_TRANSFER_ENCODING = re.compile(rb"^transfer-encoding[ \t]*:(.*)$", re.IGNORECASE | re.MULTILINE)
_SIZE = re.compile(rb"([0-9a-fA-F]{1,20})[ \t]*(;[^\n]*)?")


class Received:
    """What has come over a connection since the latest request was written to it. Only a head is kept in memory."""

    def __init__(self) -> None:
        self._head: bytes | None = b""  # None once its end was found
        self._count = 0
        self._chunks: _Chunks | None = None
        self._strange = False

    def begin(self) -> None:
        """A request is written: from here on its answer comes."""
        if self._head != b"":
            self._head, self._count, self._chunks, self._strange = b"", 0, None, False

    def add(self, data: bytes) -> None:
        """Some bytes have come."""
        if self._head is not None:
            data = self._after_head(data)
        if self._chunks is None:
            self._count += len(data)
        elif data:
            self._chunks.add(data)

    def is_exactly(self, body: int) -> bool:
        """Whether that was one answer and nothing more.

        Args:
            body: bytes of its body, as they were read, still packed.
        """
        if self._head is not None or self._strange:
            return False
        return self._count == body if self._chunks is None else self._chunks.over

    def _after_head(self, data: bytes) -> bytes:
        """What follows the final head in these bytes. Heads of status 1xx come before it."""
        known = len(self._head or b"")
        text = self._head + data if self._head else data
        start = 0
        while True:
            end = _END_OF_HEAD.search(text, max(start, known - 2))
            if end is None:
                self._head = text[start:]
                self._strange = self._strange or len(self._head) > HEAD_LIMIT
                return b""
            head = text[start : end.end()]
            start = end.end()
            status = head.partition(b" ")[2][:3]
            if not status.startswith(b"1"):
                break
        self._head = None
        if status not in (b"204", b"304"):  # these have no body, whatever their head says
            named = _TRANSFER_ENCODING.findall(head)
            if named and [one.strip().lower() for one in named] != [b"chunked"]:
                self._strange = True
            elif named:
                self._chunks = _Chunks()
        return text[start:]


class _Chunks:
    """Follows a chunked body to its end.

    Attributes:
        over: whether it has ended, and nothing has followed.
    """

    def __init__(self) -> None:
        self.over = False
        self._left = 0  # bytes of the chunk, and of the line break behind it, that are still to come
        self._line = b""  # of a size, or all lines behind the last chunk, as far as they have come
        self._last = False
        self._strange = False

    def add(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._strange or self.over:
                self._strange, self.over = True, False
                return
            if self._left:
                at = self._skip(data, at)
            elif self._last:
                at = self._end(data, at)
            else:
                at = self._size(data, at)

    def _skip(self, data: bytes, at: int) -> int:
        step = min(self._left, len(data) - at)
        ending = data[at + max(0, self._left - 2) : at + step]  # the part of it that belongs to the line break
        if ending and ending != b"\r\n"[max(0, 2 - self._left) :][: len(ending)]:
            self._strange = True
        self._left -= step
        return at + step

    def _size(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        if end < 0:
            self._keep(data[at:], _LINE_LIMIT)
            return len(data)
        line, self._line = self._line + data[at:end], b""
        found = _SIZE.fullmatch(line[:-1].rstrip(b" \t")) if line.endswith(b"\r") else None
        if found is None:
            self._strange = True
            return end + 1
        size = int(found[1], 16)
        self._last = size == 0
        self._left = size + 2 if size else 0
        return end + 1

    def _end(self, data: bytes, at: int) -> int:
        """Behind the last chunk: an empty line, or trailers and an empty line."""
        known = len(self._line)
        text = self._line + data[at:]
        if text.startswith((b"\n", b"\r\n")):
            end = text.index(b"\n") + 1
        else:
            found = _END_OF_HEAD.search(text, max(0, known - 2))
            if found is None:
                self._line = b""
                self._keep(text, HEAD_LIMIT)
                return len(data)
            end = found.end()
        self.over = True
        return at + end - known

    def _keep(self, text: bytes, limit: int) -> None:
        self._line += text
        self._strange = self._strange or len(self._line) > limit
