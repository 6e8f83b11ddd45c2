"""Files that somebody names, read within bounds: so many bytes, and so many seconds where a program writes them."""

from __future__ import annotations

import os
import select
import stat
import time

PIPE_SECONDS = 30.0
"""Seconds for which a named pipe, such as a shell's ``<(…)``, is waited for in all."""
_CHUNK = 65536


def bytes_of_file(path: str, most: int) -> bytes:
    """The first bytes of a file or a named pipe.

    Args:
        path: of it.
        most: bytes that are read at most; whoever asks for one more than it takes sees that there are more.

    Raises:
        OSError: it cannot be opened or read, it is a folder or a device, or nobody has written the pipe in time.
    """
    # A pipe that nobody writes holds up an open that blocks.
    opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(opened).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
            raise OSError("it is neither a file nor a pipe")
        until = time.monotonic() + PIPE_SECONDS
        chunks, left = [], most
        while left:
            if stat.S_ISFIFO(mode):
                _await_writing(opened, until)
            try:
                chunk = os.read(opened, min(left, _CHUNK))
            except BlockingIOError:  # another reader of the pipe was quicker
                continue
            if not chunk:
                break
            chunks.append(chunk)
            left -= len(chunk)
        return b"".join(chunks)
    finally:
        os.close(opened)


def _await_writing(opened: int, until: float) -> None:
    poll = select.poll()
    poll.register(opened, select.POLLIN)
    if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
        raise OSError(f"it is a pipe, and nobody has written it to its end within {PIPE_SECONDS:g} seconds")
