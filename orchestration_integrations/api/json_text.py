"""JSON as servers and gateways send it."""

from __future__ import annotations

import msgspec

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def decoded(body: bytes) -> object:
    """The value of a JSON text, which may begin with a byte order mark.

    Raises:
        ValueError: the body is no JSON. The message does not quote it.
    """
    try:
        value: object = msgspec.json.decode(body.removeprefix(BYTE_ORDER_MARK))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("the body is no JSON") from None
    return value
