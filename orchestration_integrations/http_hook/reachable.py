"""Whom the hooks of this process may send to. A test that runs must not pay in production.

A test's server stands in the environment, but code under test can have an address of its own: of a secrets backend,
of a saved block, of another connection. So while a test's server is up, each hook of the process sends to this machine
and to addresses that the test allows by name, and to nobody else. Every request passes here, also one for a token.
Which proxy carries it makes no difference: what counts is for whom it is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import httpx

from ..api.errors import ConfigurationError
from ..settings import is_loopback

Origin = tuple[str, str, int | None]

_PORTS = {"http": 80, "https": 443}
_fences: tuple[frozenset[Origin], ...] = ()
_lock = threading.Lock()


def origin_of(address: str) -> Origin:
    """Scheme, host and port of an address. Raises ValueError for what is no address of a server."""
    try:
        url = httpx.URL(address)
    except (httpx.InvalidURL, TypeError):
        raise ValueError(f"{address!r} is no address: give https://host or https://host:port") from None
    if url.scheme not in _PORTS or not url.host:
        raise ValueError(f"{address!r} is no address: give https://host or https://host:port")
    return _origin(url)


def _origin(url: httpx.URL) -> Origin:
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


@contextmanager
def only_this_machine(allow: Iterable[str] = ()) -> Iterator[None]:
    """Inside the block, hooks of this process send to this machine and to these addresses only. Where several blocks
    are open, an address must be allowed by each.

    Args:
        allow: addresses; scheme, host and port count, a path does not.

    Raises:
        ValueError: one of them is no address.
    """
    global _fences
    fence = frozenset(map(origin_of, allow))
    with _lock:
        _fences = (*_fences, fence)
    try:
        yield
    finally:
        with _lock:
            left = list(_fences)
            left.remove(fence)
            _fences = tuple(left)


def serves_a_test() -> bool:
    """Whether a server for tests is up: then the hooks of this process talk to that one."""
    return bool(_fences)


def check(url: httpx.URL) -> None:
    """To be called before a request is sent. Raises ConfigurationError where it may not be."""
    if not _fences or is_loopback(url.host):
        return
    if all(_origin(url) in fence for fence in _fences):
        return
    shown = f"{url.scheme}://{url.netloc.decode('ascii')}"
    refused = ConfigurationError(
        f"{shown}: nothing was sent: a server for tests runs in this process, and this address is not on this "
        f"machine. Give the code under test the address of the test's server; if the test means this one, allow it: "
        f"@pytest.mark.orchestration_server(allow=[{shown!r}]) or server_for_tests(allow=[{shown!r}])",
        field="base_url",
    )
    refused.before_send = True
    raise refused
