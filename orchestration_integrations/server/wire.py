"""Answers written to the connection past the HTTP server, byte by byte: heads that drip, informational answers.

An HTTP server writes the head of an answer in one piece, and the body only after it. What is written here ends with
the connection, since the HTTP server doesn't know of it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .mishaps import phrase_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .exchange import Interim


def head(status: int, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A status line and headers, as they go over the connection."""
    lines = [f"HTTP/1.1 {status} {phrase_of(status)}".encode()]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def write_interim(transport: asyncio.Transport, interim: Interim) -> None:
    """Informational answers with their pauses, until there were enough or the client leaves."""
    sent = 0
    while not transport.is_closing() and (interim.times is None or sent < interim.times):
        transport.write(head(interim.code, ()))
        sent += 1
        await asyncio.sleep(interim.every)


async def drip(transport: asyncio.Transport, data: bytes, rate: float) -> None:
    """Data at so many bytes a second, until the client leaves."""
    size = max(1, int(rate / 10))
    for at in range(0, len(data), size):
        if transport.is_closing():
            return
        chunk = data[at : at + size]
        transport.write(chunk)
        await asyncio.sleep(len(chunk) / rate)
