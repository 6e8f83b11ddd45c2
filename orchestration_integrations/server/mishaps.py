"""What the faults of a request do to its exchange, and the answers that come in place of the server's own."""

from __future__ import annotations

import random
import zlib
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING

from .clock import SECOND
from .exchange import Exchange, Interim, Reply
from .faults import NETWORK
from .replies import encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .faults import Fault

_PAGE = "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<center><h1>{1}</h1></center>\r\n</body>\r\n</html>\r\n"
_MEGABYTE = 2**20
_OF_AN_ANSWER = ("truncated", "slow", "gzip_bomb")
"""What changes nothing where the answer has no body, or is an error."""


def prepare(exchange: Exchange, faults: Sequence[Fault], now_ns: int, rng: random.Random, internal: str) -> bool:
    """Set an exchange up for its faults.

    Args:
        internal: the code of an error answer that the server doesn't explain.

    Returns:
        Whether the work is done. If not, `override` is the answer, or the connection is cut.
    """
    for fault in faults:
        _set(exchange, fault, internal)
        if fault.kind in NETWORK and fault.kind not in _OF_AN_ANSWER:
            exchange.changes.add(fault.name)
    for fault in faults:
        if fault.kind in ("refuse", "cut_before"):
            exchange.refused = fault.kind == "refuse"
            exchange.cut_ns = now_ns
            return False
        if fault.kind == "cut_amid":
            given = fault.options.get("after")
            moment = rng.uniform(0.0, 0.012) if given is None else float(given)
            exchange.cut_ns = now_ns + int(moment * SECOND)
            # A run is several steps, and the cut falls between two of them. Any other call is done in one.
            return exchange.operation == "run_workflow" or moment >= 0.004
        if fault.kind in ("status", "html") and not fault.options.get("work"):
            return False
    return True


def _set(exchange: Exchange, fault: Fault, internal: str) -> None:
    kind, options = fault.kind, fault.options
    if kind in ("hidden", "unknown_fields", "shuffled"):
        exchange.content += (kind,)
    elif kind == "misread":
        exchange.content += (options["how"],)
    elif kind == "stall":
        exchange.stall_ns = int(options.get("seconds", 30.0) * SECOND)
    elif kind == "cut_after":
        exchange.lost = True
    elif kind == "truncated":
        exchange.truncate = True
    elif kind == "slow":
        exchange.rate = max(0.001, float(options.get("bytes_per_second", 20.0)))
    elif kind == "slow_head":
        exchange.head_rate = max(0.001, float(options.get("bytes_per_second", 5.0)))
    elif kind == "interim":
        exchange.interim = Interim(options.get("code", 102), float(options.get("every", 0.2)), options.get("times"))
    elif kind == "gzip_bomb":
        exchange.bomb_bytes = options.get("megabytes", 256) * _MEGABYTE
    elif kind == "html":
        exchange.override = gateway_page(options.get("code", 502))
    elif kind == "status":
        exchange.override = _error_status(fault, internal)


def phrase_of(status: int) -> str:
    """The words beside a status; none for one that no standard knows."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def gateway_page(code: int) -> Reply:
    """A gateway's page."""
    phrase = phrase_of(code)
    return Reply(code, _PAGE.format(f"{code} {phrase}".strip(), phrase or code).encode(), "text/html")


def _error_status(fault: Fault, internal: str) -> Reply:
    options = fault.options
    code = options.get("code", 503)
    headers: tuple[tuple[str, str], ...] = ()
    if options.get("retry_after") is not None:
        headers = (("Retry-After", str(options["retry_after"])),)
    if code == 204:
        return Reply(code, headers=headers)
    error_code = options.get("error_code", "NOT_FOUND" if code == 404 else internal)
    body = {"errorCode": error_code, "errorMessage": options.get("message", "unavailable")}
    return Reply(code, encode(body), headers=headers)


def as_bomb(reply: Reply, size: int) -> Reply:
    """An answer that is compressed, says so, and unpacks to its body followed by white space of so many bytes."""
    status = 200 if reply.status == 204 else reply.status
    headers = (*reply.headers, ("Content-Encoding", "gzip"))
    return Reply(status, _bomb(reply.body or b"{}", size), reply.content_type, headers)


@lru_cache(maxsize=2)
def _bomb(body: bytes, size: int) -> bytes:
    """The same compressed block over and over: quick to make, and a thousandth of what it unpacks to."""
    spaces = b" " * _MEGABYTE
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = compressor.compress(body) + compressor.flush(zlib.Z_FULL_FLUSH)
    block = compressor.compress(spaces) + compressor.flush(zlib.Z_FULL_FLUSH)
    checksum = zlib.crc32(body)
    for _ in range(size // _MEGABYTE):
        checksum = zlib.crc32(spaces, checksum)
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    total = (len(body) + size // _MEGABYTE * _MEGABYTE) % 2**32
    tail = checksum.to_bytes(4, "little") + total.to_bytes(4, "little")
    return head + first + block * (size // _MEGABYTE) + compressor.flush(zlib.Z_FINISH) + tail
