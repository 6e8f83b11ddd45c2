"""Which proxy the environment names for an address.

``HTTP_PROXY``, ``HTTPS_PROXY`` and ``ALL_PROXY`` name one (lower case too), ``NO_PROXY`` the hosts that are reached
without. A server on this machine's loopback is never reached by a proxy.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.request import getproxies_environment, proxy_bypass

import httpx

from ..api.errors import ConfigurationError
from ..settings import host_and_port, is_loopback

VARIABLES = tuple(
    name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (upper, upper.lower())
)
"""Of the environment; the lower-case one counts where both are set."""
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True)
class Proxy:
    """A proxy that the environment names.

    Attributes:
        address: with user and password, where they are given.
        name: for messages: scheme, host and port, and the variable; never the password.
        under_tls: whether the proxy itself is spoken to by TLS.
        socks: whether it speaks SOCKS.
    """

    address: httpx.Proxy
    name: str
    under_tls: bool
    socks: bool


def proxy_for(url: httpx.URL) -> Proxy | None:
    """The proxy for an address; None for none.

    Raises:
        ConfigurationError: what the environment names is no proxy that can be used.
    """
    if is_loopback(url.host):
        return None
    named = getproxies_environment()
    place = url.host if url.port is None else f"{url.host}:{url.port}"
    if proxy_bypass(place):
        return None
    scheme = url.scheme if url.scheme in named else "all"
    given = named.get(scheme)
    if not given:
        return None
    variable = f"{scheme.upper()}_PROXY"
    proxy = _proxy(given.strip(), variable)
    if proxy.socks and not _speaks_socks():
        raise ConfigurationError(
            f"proxy: {variable} names a SOCKS proxy, and the package socksio is not installed: install httpx[socks], "
            "or add the server's host to NO_PROXY",
            field="proxy",
        )
    return proxy


def _proxy(given: str, variable: str) -> Proxy:
    """Reads what a variable says. It may hold a password, so no message quotes it."""
    scheme, separator, rest = given.partition("://")
    if not separator:
        scheme, rest = "http", given
    scheme = scheme.lower()
    user, at, authority = rest.removesuffix("/").rpartition("@")
    try:
        if scheme not in _PORTS or any(sign in rest.removesuffix("/") for sign in "/?#\\") or "@" in user:
            raise ValueError
        host, port = host_and_port(authority, "proxy")
        shown = f"{f'[{host}]' if ':' in host else host}:{port or _PORTS[scheme]}"
        address = httpx.Proxy(f"{scheme}://{user}{at}{shown}")
    except (ConfigurationError, httpx.InvalidURL, ValueError, TypeError):
        raise ConfigurationError(
            f"proxy: {variable} is no address of a proxy; give http://host:port (a port from 1 to 65535; signs of a "
            "password as %40), or add the server's host to NO_PROXY",
            field="proxy",
        ) from None
    return Proxy(
        address,
        f"{scheme}://{shown} ({variable})",
        under_tls=scheme == "https",
        socks=scheme.startswith("socks"),
    )


def _speaks_socks() -> bool:
    from importlib.util import find_spec

    return find_spec("socksio") is not None
