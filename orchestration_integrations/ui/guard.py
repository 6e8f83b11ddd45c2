"""Who may read from the page's server, and who may act through it.

Three things could act in a user's name: another web site that the user's browser visits (its requests carry a foreign
``Origin``), a web site whose name was pointed at this machine after it was loaded (its requests carry a foreign
``Host``), and anybody who can reach the port. So:

- Without a token the page answers only for names that are this machine: ``localhost``, a name that was given, or an
  address, which no name system can point elsewhere. A foreign ``Host`` is refused.
- With a token everything but the page's own files demands it, as a bearer token. No cookie holds it, so a browser
  never sends it by itself. A blank token is an error, never "no token": a variable that was meant to hold one is empty.
- An action also demands the page's own ``Origin``, a JSON body, and a token of this process that only the page itself
  can read.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Container, Mapping
from urllib.parse import urlsplit

import msgspec

from ..api.errors import ConfigurationError
from ..settings import is_header_safe, is_loopback

ACTION_HEADER = "x-page-action"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Refusal(msgspec.Struct, frozen=True):
    """Why a request is not served."""

    status: int
    why: str


class Guard:
    """The checks of one page.

    Args:
        token: what every request has to carry; None demands nothing.
        actions: whether anything may be changed through the page.
        hosts: names under which the page may be asked for without a token, besides addresses and ``localhost``.

    Raises:
        ConfigurationError: the token is blank, or no HTTP header can carry it.
    """

    def __init__(self, *, token: str | None, actions: bool, hosts: frozenset[str] = frozenset()) -> None:
        self._token = demanded_token(token, "token")
        self.actions = actions
        self._hosts = frozenset(host.lower() for host in hosts)
        self.action_token = secrets.token_urlsafe(24)

    def refusal(self, method: str, headers: Mapping[str, str]) -> Refusal | None:
        """Why a request for data or for an action is refused; None where it is served.

        Args:
            method: of the request.
            headers: of the request, by lower-case name.
        """
        if self._token is not None:
            if not _carries(headers.get("authorization", ""), self._token):
                return Refusal(401, "this page demands a token")
        elif not is_known_host(headers.get("host", ""), self._hosts):
            return Refusal(
                403,
                f"the page was asked for as {headers.get('host', '')!r}, which is not known to be this machine; "
                "open it by its address, or start its server with --allow-host for this name, or with a token",
            )
        if method in SAFE_METHODS:
            return None
        if not self.actions:
            return Refusal(403, "this page only reads; its server was started without --allow-actions")
        why = foreign_request(headers)
        if why is not None:
            return Refusal(403, why)
        if "origin" not in headers:
            return Refusal(403, "an action has to come from the page: the request names no Origin")
        if not hmac.compare_digest(headers.get(ACTION_HEADER, "").encode(), self.action_token.encode()):
            return Refusal(403, "an action has to come from the page; load the page again")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return Refusal(415, "the body of an action has to be application/json")
        return None


def demanded_token(value: str | None, name: str) -> str | None:
    """What a server demands of those who ask it: a token without outer white space; None demands nothing.

    Args:
        value: as it was given; None where none was.
        name: of the option or variable that gave it, for messages.

    Raises:
        ConfigurationError: it is blank, so that it would let everybody in, or no HTTP header can carry it.
    """
    if value is None:
        return None
    token = value.strip()
    if not token:
        raise ConfigurationError(
            f"{name}: is blank, so it would keep nobody out; give a token, or leave it out", field=name
        )
    if not is_header_safe(token):
        raise ConfigurationError(f"{name}: contains characters that no HTTP header can carry", field=name)
    return token


def is_known_host(host: str, names: Container[str]) -> bool:
    """Whether a ``Host`` header names this machine: by ``localhost``, an address, or one of the names (lower case)."""
    name = _host_name(host)
    return is_loopback(name) or is_address(name) or name in names


def foreign_request(headers: Mapping[str, str]) -> str | None:
    """Why a request that changes something comes from another web site; None where it does not.

    Programs send no ``Origin``; browsers send one with each such request.
    """
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return f"the request comes from another web site ({site})"
    origin = headers.get("origin")
    if origin is None:
        return None
    if urlsplit(origin).netloc.lower() != headers.get("host", "").lower() or not urlsplit(origin).netloc:
        return f"the request comes from another web site: {origin}"
    return None


def origin_of(text: str) -> str:
    """An origin as a browser writes it: ``https://airflow.example``.

    Raises:
        ConfigurationError: the text is none.
    """
    parts = urlsplit(text.strip())
    try:
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/")
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        wrong, port = True, ""
    if (
        wrong
        or parts.query
        or parts.fragment
        or parts.username
        or not parts.netloc.isascii()
        or set(parts.netloc) & {*" ;,*'"}
    ):
        raise ConfigurationError(
            f"embed_in: must be an origin such as https://airflow.example, not {text!r}", field="embed_in"
        )
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def is_address(host: str) -> bool:
    """Whether a host is an IP address: no name system can point it elsewhere."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _host_name(host: str) -> str:
    """The name in a ``Host`` header, without its port and brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _carries(authorization: str, token: str) -> bool:
    scheme, _, given = authorization.partition(" ")
    return (
        bool(token)
        and scheme.lower() == "bearer"
        and hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())
    )
