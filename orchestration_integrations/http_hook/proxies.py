"""Which proxy the environment names for an address.

``HTTP_PROXY``, ``HTTPS_PROXY`` and ``ALL_PROXY`` name one (lower case too), ``NO_PROXY`` the hosts that are reached
without. A server on this machine's loopback is never reached by a proxy.
"""

from __future__ import annotations

from urllib.request import getproxies_environment, proxy_bypass

import httpx

from ..api.errors import ConfigurationError
from ..settings import is_loopback

VARIABLES = tuple(
    name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (upper, upper.lower())
)
"""Of the environment; the lower-case one counts where both are set."""
_SCHEMES = ("http", "https", "socks5", "socks5h")


def proxy_for(url: httpx.URL) -> httpx.Proxy | None:
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
    try:
        address = httpx.URL(given if "://" in given else f"http://{given}")
        usable = bool(address.host) and address.scheme in _SCHEMES
    except (httpx.InvalidURL, ValueError, TypeError):
        usable = False
    if not usable:
        raise ConfigurationError(
            f"proxy: {variable} is no address of a proxy; give http://host:port, or add the server's host to NO_PROXY",
            field="proxy",
        )
    if address.scheme.startswith("socks") and not _speaks_socks():
        raise ConfigurationError(
            f"proxy: {variable} names a SOCKS proxy, and the package socksio is not installed: install httpx[socks], "
            "or add the server's host to NO_PROXY",
            field="proxy",
        )
    return httpx.Proxy(address)


def _speaks_socks() -> bool:
    from importlib.util import find_spec

    return find_spec("socksio") is not None
