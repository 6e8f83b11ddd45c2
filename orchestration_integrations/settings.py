"""Where the server is and how to talk to it: one normaliser for code, environment and connection forms.

All of them end in ``Settings(...)``, which converts strictly (``"false"`` is false, ``"maybe"`` is an error that
names the field). So a form that only knows text means the same as code.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import msgspec
from msgspec.structs import force_setattr

from .api.closest import did_you_mean
from .api.errors import ConfigurationError

_ENVIRONMENT = {
    "base_url": "ORCHESTRATION_URL",
    "token": "ORCHESTRATION_TOKEN",
    "client_id": "ORCHESTRATION_CLIENT_ID",
    "client_secret": "ORCHESTRATION_CLIENT_SECRET",
    "token_url": "ORCHESTRATION_TOKEN_URL",
    "scope": "ORCHESTRATION_SCOPE",
    "api_version": "ORCHESTRATION_API_VERSION",
    "verify": "ORCHESTRATION_VERIFY",
    "cert": "ORCHESTRATION_CERT",
    "timeout": "ORCHESTRATION_TIMEOUT",
    "retry_budget": "ORCHESTRATION_RETRY_BUDGET",
    "max_connections": "ORCHESTRATION_MAX_CONNECTIONS",
    "ui_url": "ORCHESTRATION_UI_URL",
}
_BOOLEANS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
_SECRETS = ("token", "client_secret")
_AUTHORITY = r"(\[(?P<v6>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(:(?P<port>[0-9]{0,5}))?"
_SHOWN_AUTHORITY = r"([^:\[]*|\[[0-9a-fA-F:.]*\])(:[0-9]{0,6})?|[0-9a-fA-F]*(:[0-9a-fA-F.]*){2,}"
_HOST_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_UI_FIELD = re.compile(r"\{(instance_id|workflow_id)\}")
_UI_ROUTE = "/#/instances/{instance_id}"
"""Where the live page shows an instance."""
MASK = "**********"
"""What a secret field reads where a framework has masked it."""


class Settings(msgspec.Struct, frozen=True):
    """How to reach an orchestration server. Values are normalised; a wrong one raises ConfigurationError.

    Attributes:
        base_url: with or without scheme (``https``, on loopback ``http``), port and base path
            (``/api/orchestration`` behind a gateway, none on a bare server).
        token: ready-made bearer token. Not together with client_id.
        client_id: for OAuth2 client credentials; needs client_secret.
        client_secret: secret.
        token_url: default ``{scheme and host of base_url}/api/auth/oauth/token``.
        scope: asked for with the token; default: none is named.
        api_version: ``auto`` (lists by v2 where the server has it, all else by v1), ``v1`` or ``v2``.
        verify: True, False or the path of a CA bundle.
        cert: path of a client certificate, or (certificate, key).
        timeout: seconds of one HTTP exchange, default 10.
        retry_budget: seconds of one call with all its retries, default 60.
        max_connections: how many connections to the server may be open at once for reads, and as many for submits,
            default 20.
        ui_url: what people open to see an instance: the address of the live page, or a template with ``{instance_id}``
            and, where it is needed, ``{workflow_id}`` for a console. Default: the instance on the server's API.
    """

    base_url: str
    token: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    token_url: str | None = None
    scope: str | None = None
    api_version: Literal["auto", "v1", "v2"] = "auto"
    verify: bool | str = True
    cert: str | tuple[str, str] | None = None
    timeout: float = 10.0
    retry_budget: float = 60.0
    max_connections: int = 20
    ui_url: str | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            force_setattr(self, name, value)

        put("base_url", normalised_url(self.base_url, "base_url"))
        for name in ("token", "client_id", "client_secret", "scope"):
            put(name, _text_or_none(getattr(self, name), name))
        if self.token is not None and (self.client_id is not None or self.client_secret is not None):
            raise ConfigurationError("token: give either token or client_id and client_secret, not both", field="token")
        if self.client_id is not None and self.client_secret is None:
            raise ConfigurationError("client_secret: is missing beside client_id", field="client_secret")
        if self.client_secret is not None and self.client_id is None:
            raise ConfigurationError("client_id: is missing beside client_secret", field="client_id")
        token_url = _text_or_none(self.token_url, "token_url")
        put("token_url", normalised_url(token_url or _token_url(self.base_url), "token_url"))
        version = _text_or_none(self.api_version, "api_version") or "auto"
        if version not in ("auto", "v1", "v2"):
            raise ConfigurationError(f"api_version: must be auto, v1 or v2, not {version!r}", field="api_version")
        put("api_version", version)
        put("verify", _verify(self.verify))
        put("cert", _cert(self.cert))
        put("timeout", seconds(self.timeout, "timeout"))
        put("retry_budget", seconds(self.retry_budget, "retry_budget"))
        put("max_connections", _count(self.max_connections, "max_connections"))
        put("ui_url", _ui_url(self.ui_url))

    @classmethod
    def from_env(cls, **given: Any) -> Settings:
        """Settings from ``ORCHESTRATION_URL``, ``_TOKEN``, ``_CLIENT_ID``, ``_CLIENT_SECRET``, ``_TOKEN_URL``, …

        Args:
            given: fields by name, each instead of its variable. None means "not given". A token that is given replaces
                the client id and secret of the environment, and they replace its token.

        Raises:
            ConfigurationError: no base URL is given and ``ORCHESTRATION_URL`` is not set, or a value is wrong.
        """
        fields: dict[str, Any] = {name: os.environ.get(variable, "") for name, variable in _ENVIRONMENT.items()}
        fields = {name: text for name, text in fields.items() if text.strip()}
        given = {name: value for name, value in given.items() if value is not None}
        if "token" in given:
            fields.pop("client_id", None)
            fields.pop("client_secret", None)
        elif "client_id" in given or "client_secret" in given:
            fields.pop("token", None)
        fields.update(given)
        if "base_url" not in fields:
            raise ConfigurationError("base_url: give it, or set ORCHESTRATION_URL", field="base_url")
        try:
            return cls.from_fields(fields)
        except ConfigurationError as error:
            if error.field in given or error.field not in fields:
                raise
            raise ConfigurationError(f"{error} (from {_ENVIRONMENT[error.field]})", field=error.field) from error

    @classmethod
    def from_fields(cls, given: Mapping[str, Any]) -> Settings:
        """Settings from the fields of a form: absent, None and empty texts mean the default.

        Raises:
            ConfigurationError: a field is unknown or wrong.
        """
        for name in given:
            if name not in cls.__struct_fields__:
                meant = did_you_mean(name, cls.__struct_fields__)
                raise ConfigurationError(f"{name}: unknown setting{meant}", field=str(name))
        kept = {name: value for name, value in given.items() if value is not None and value != ""}
        if "base_url" not in kept:
            raise ConfigurationError("base_url: is missing", field="base_url")
        return cls(**kept)

    def with_changes(self, **changes: Any) -> Settings:
        """A copy with some fields changed; a token address that was derived follows its server."""
        if "base_url" in changes and self.token_url == _token_url(self.base_url):
            changes.setdefault("token_url", None)
        return Settings(**{**{name: getattr(self, name) for name in self.__struct_fields__}, **changes})

    def without_secrets(self) -> Settings:
        """A copy that names the server and how to talk to it, without any credentials."""
        return self.with_changes(token=None, client_id=None, client_secret=None)

    def instance_link(self, instance_id: str, workflow_id: str | None = None) -> str:
        """What people open to see an instance.

        Args:
            instance_id: the instance.
            workflow_id: its workflow; None where it is not known. A template that needs it is not used then.
        """
        values = {"instance_id": instance_id, "workflow_id": workflow_id}
        if self.ui_url is None or (workflow_id is None and "{workflow_id}" in self.ui_url):
            return f"{self.base_url}/instances/{quote(instance_id, safe='')}"
        return _UI_FIELD.sub(lambda field: quote(values[field[1]] or "", safe=""), self.ui_url)

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in _SECRETS)
        return f"Settings({', '.join(shown)})"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that no log, repr or exception may contain."""
        return tuple(value for value in (getattr(self, name) for name in _SECRETS) if value)


def _token_url(base_url: str) -> str:
    scheme, host = urlsplit(base_url)[:2]
    return f"{scheme}://{host}/api/auth/oauth/token"


def normalised_url(url: object, name: str) -> str:
    """An address in its one spelling: scheme, lower-case ASCII host, port, and path without trailing slashes.

    Args:
        url: with or without a scheme. A host in other letters than ASCII is written as IDNA (``xn--…``).
        name: of the field, for messages.

    Raises:
        ConfigurationError: the text is no address that HTTP can use; ``field`` is ``name``.
    """
    if not isinstance(url, str) or not url.strip():
        raise ConfigurationError(f"{name}: must be a non-empty text", field=name)
    try:
        return _one_spelling(url.strip(), name)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; given: {_shown_url(url.strip())}", field=name) from None


def _one_spelling(text: str, name: str) -> str:
    if any(char.isspace() for char in text):
        raise ConfigurationError(f"{name}: contains white space", field=name)
    if not text.isprintable():
        raise ConfigurationError(f"{name}: contains a character that cannot be printed; remove it", field=name)
    scheme, sep, rest = text.partition("://")
    if not sep:
        scheme, rest = "", text
    scheme = scheme.lower()
    if scheme not in ("", "http", "https"):
        raise ConfigurationError(f"{name}: the scheme must be http or https", field=name)
    if "?" in rest or "#" in rest:
        raise ConfigurationError(f"{name}: must not contain a query or a fragment", field=name)
    if "\\" in rest:
        raise ConfigurationError(f"{name}: contains a backslash; separate its parts by /", field=name)
    authority, _, path = rest.partition("/")
    host, port = host_and_port(authority, name)
    scheme = scheme or ("http" if is_loopback(host) else "https")
    shown_host = f"[{host}]" if ":" in host else host
    shown_port = f":{port}" if port is not None and port != {"http": 80, "https": 443}[scheme] else ""
    segments = [segment for segment in path.split("/") if segment]
    if any(segment.lower().replace("%2e", ".") in (".", "..") for segment in segments):
        raise ConfigurationError(f"{name}: the path must not contain . or ..", field=name)
    if name == "base_url" and segments and segments[-1] == "v2":
        raise ConfigurationError(f"{name}: leave out the trailing /v2; api_version chooses it", field=name)
    return f"{scheme}://{shown_host}{shown_port}" + "".join(f"/{segment}" for segment in segments)


def _shown_url(text: str) -> str:
    """A wrong address for a message, without what may be a password or a token in it."""
    scheme, sep, rest = text.partition("://") if "://" in text else ("", "", text)
    if not re.fullmatch(r"[a-z0-9+.-]*", scheme, re.ASCII | re.IGNORECASE):
        scheme = "…"
    *hidden, rest = re.split("@|%40", rest)
    rest, *query = re.split(r"[?#]", rest, maxsplit=1)
    authority, slash, path = rest.partition("/")
    if not re.fullmatch(_SHOWN_AUTHORITY, authority, re.ASCII):
        authority = authority.partition(":")[0] + ":…"
    return _shown(scheme + sep + "…@" * bool(hidden) + authority + slash + path + "…" * bool(query))


def host_and_port(authority: str, name: str) -> tuple[str, int | None]:
    """Host (lower-case ASCII; an IPv6 address without its brackets) and port of an address; None where it names none.

    Args:
        authority: what stands between the scheme and the path.
        name: of the field, for messages.

    Raises:
        ConfigurationError: they are none that can be reached; ``field`` is ``name``.
    """
    if "@" in authority:
        raise ConfigurationError(
            f"{name}: must not contain a user or password; use client_id and client_secret", field=name
        )
    if authority.count(":") > 1 and not authority.startswith("["):
        authority = f"[{authority}]"  # an IPv6 address without its brackets
    parts = re.fullmatch(_AUTHORITY, authority, re.ASCII)
    port = int(parts["port"]) if parts and parts["port"] else None
    if parts is None or (port is not None and not 0 < port < 2**16):
        raise ConfigurationError(f"{name}: no valid host and port", field=name)
    if parts["v6"] is not None:
        try:
            ipaddress.IPv6Address(parts["v6"])
        except ValueError:
            raise ConfigurationError(f"{name}: no valid IPv6 address", field=name) from None
        return parts["v6"].lower(), port
    host = parts["host"].lower()
    if not host:
        raise ConfigurationError(f"{name}: has no host", field=name)
    return _ascii_host(host, name), port


def _ascii_host(host: str, name: str) -> str:
    """A host name in the letters that the name system knows."""
    ascii_host = host
    if not host.isascii():
        import idna  # of httpx; slow to import, and hardly ever needed

        try:
            ascii_host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError:
            raise ConfigurationError(f"{name}: {host!r} is no valid host name", field=name) from None
    labels = ascii_host.removesuffix(".").split(".")
    if len(ascii_host) > 253 or not all(re.fullmatch(_HOST_LABEL, label, re.ASCII) for label in labels):
        raise ConfigurationError(f"{name}: {host!r} is no valid host name", field=name)
    if all(label.isdecimal() for label in labels):
        try:
            ipaddress.IPv4Address(ascii_host)
        except ValueError:
            raise ConfigurationError(f"{name}: {host!r} is no valid IPv4 address", field=name) from None
    return ascii_host


def is_loopback(host: str) -> bool:
    """Whether a host (an IPv6 address without its brackets) is this machine by its very name."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def boolean(value: object, name: str) -> bool:
    """A bool, or the text of one. Raises ConfigurationError."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _BOOLEANS:
        return _BOOLEANS[value.strip().lower()]
    raise ConfigurationError(f"{name}: must be true or false, not {_shown(value)}", field=name)


def seconds(value: object, name: str, *, zero: bool = False) -> float:
    """A number of seconds above 0 (or from 0, where ``zero``), or the text of one. Raises ConfigurationError."""
    number: float | None = None
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = None
    if number is None or not (0 <= number < 1e10) or (number == 0 and not zero):
        least = "from 0" if zero else "above 0"
        raise ConfigurationError(f"{name}: must be a number of seconds {least}, not {_shown(value)}", field=name)
    return number


def _count(value: object, name: str) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not isinstance(value, int | str) or not text.isdecimal() or not 0 < int(text) < 10**6:
        raise ConfigurationError(f"{name}: must be a whole number from 1, not {_shown(value)}", field=name)
    return int(text)


def _text_or_none(value: object, name: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigurationError(f"{name}: must be a text, not a {type(value).__name__}", field=name)
    if not value.strip():
        return None
    text = value.strip()
    if name in ("token", "client_id", "client_secret"):
        if set(text) == {"*"}:
            raise ConfigurationError(
                f"{name}: is masked ({MASK}); give the value itself or load it from where it is stored", field=name
            )
        if name == "token" and text.lower().startswith("bearer "):
            raise ConfigurationError("token: give it without the word Bearer", field=name)
        if name == "token" and not is_header_safe(text):
            raise ConfigurationError(f"{name}: contains characters that no HTTP header can carry", field=name)
    if not all(char.isprintable() for char in text):
        raise ConfigurationError(
            f"{name}: contains a line break or another character that cannot be printed; remove it", field=name
        )
    return text


def is_header_safe(token: str) -> bool:
    """Whether a bearer token can stand in a header: visible ASCII, and not empty."""
    return bool(token) and all("!" <= char <= "~" for char in token)


def _ui_url(value: object) -> str | None:
    """A template of what people open, made of an address or given as one."""
    text = _text_or_none(value, "ui_url")
    if text is None:
        return None
    if not re.match(r"https?://[^/?#{}\s]+", text, re.IGNORECASE) or any(char.isspace() for char in text):
        raise ConfigurationError(
            f"ui_url: must begin with http:// or https:// and a host, not {_shown(text)}", field="ui_url"
        )
    if re.search(r"[{}]", _UI_FIELD.sub("", text)):
        raise ConfigurationError(
            f"ui_url: may name {{instance_id}} and {{workflow_id}} and nothing else in braces, not {_shown(text)}",
            field="ui_url",
        )
    if "{instance_id}" in text:
        return text
    if "{workflow_id}" in text or "#" in text or "?" in text:
        raise ConfigurationError(
            f"ui_url: a template has to name {{instance_id}}; given: {_shown(text)}", field="ui_url"
        )
    return text.rstrip("/") + _UI_ROUTE


def _verify(value: object) -> bool | str:
    if isinstance(value, str) and value.strip().lower() not in _BOOLEANS:
        path = os.path.expanduser(value.strip())
        if not os.path.exists(path):
            raise ConfigurationError(
                f"verify: must be true, false or the path of a CA bundle, and there is no file {_shown(value)}",
                field="verify",
            )
        if not os.access(path, os.R_OK):
            raise ConfigurationError(f"verify: the CA bundle {path!r} cannot be read", field="verify")
        return path
    return boolean(value, "verify")


def _cert(value: object) -> str | tuple[str, str] | None:
    if value is None or value == "":
        return None
    paths = (value,) if isinstance(value, str) else value
    if (
        not isinstance(paths, list | tuple)
        or len(paths) not in (1, 2)
        or not all(isinstance(p, str) and p for p in paths)
    ):
        raise ConfigurationError("cert: must be a path or a pair of paths (certificate, key)", field="cert")
    expanded = tuple(os.path.expanduser(path) for path in paths)
    for path in expanded:
        if not os.path.isfile(path):
            raise ConfigurationError(f"cert: there is no file {path!r}", field="cert")
        if not os.access(path, os.R_OK):
            raise ConfigurationError(f"cert: the file {path!r} cannot be read", field="cert")
    return (expanded[0], expanded[1]) if len(expanded) == 2 else expanded[0]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
