"""The hook: an Airflow connection of type ``orchestration`` becomes the shared HTTP hook.

A connection's host is the base URL, with or without scheme and base path; login and password are the
client id and secret; everything else stands in the extras, by its own name or by the prefixed name
of older connection forms. Extras are read strictly: a wrong one is an error that names it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from ..api.errors import (
    AuthenticationError,
    ConfigurationError,
    NotFoundError,
    OrchestrationError,
    is_gateways_404,
    summary,
)
from ..settings import Settings
from .compat import AIRFLOW_VERSION_TEXT, BaseHook, get_async_connection, in_thread, mask_secret

if TYPE_CHECKING:
    from ..http_hook import AsyncOrchestrationHttpHook, OrchestrationHttpHook

logger = logging.getLogger("orchestration_integrations.airflow")

CONN_TYPE = "orchestration"
DEFAULT_CONN_ID = "orchestration_default"
FACE = f"airflow/{AIRFLOW_VERSION_TEXT}"
EXTRAS = (
    "token",
    "token_url",
    "scope",
    "api_version",
    "verify",
    "cert",
    "timeout",
    "retry_budget",
    "max_connections",
    "ui_url",
)
_PREFIX = f"extra__{CONN_TYPE}__"
_NOBODY = "00000000-0000-0000-0000-000000000000"
TEST_BUDGET = 10.0
"""Seconds that testing a connection may take for each of its two calls."""


def settings_of(connection: Any) -> Settings:
    """The settings that a connection stands for.

    Raises:
        ConfigurationError: a field or an extra is wrong; ``field`` names it.
    """
    fields = {"base_url": _base_url(connection)}
    fields.update(_extras(connection.extra))
    for name, value in (("client_id", connection.login), ("client_secret", connection.password)):
        if value:
            fields[name] = value
    return Settings.from_fields(fields)


def _base_url(connection: Any) -> str:
    host = (connection.host or "").strip()
    if not host:
        raise ConfigurationError("host: is missing in the connection; give the base URL of the server", field="host")
    schema = (connection.schema or "").strip().strip("/")
    scheme, sep, rest = host.partition("://")
    if not sep:
        scheme, rest = "", host
    if schema.lower() in ("http", "https"):
        # Where the form has a field for it, it may hold the scheme; in a URI it is the path.
        scheme, schema = scheme or schema, ""
    place, slash, path = rest.partition("/")
    if connection.port:
        place = _with_port(place, int(connection.port))
    url = f"{place}{slash}{path}".rstrip("/")
    if schema:
        url = f"{url}/{schema}"
    return f"{scheme}://{url}" if scheme else url


def _with_port(place: str, port: int) -> str:
    host, sep, given = place.rpartition(":")
    bracketed = place.endswith("]")
    if sep and not bracketed and given.isdecimal() and (host.count(":") == 0 or host.endswith("]")):
        if int(given) != port:
            raise ConfigurationError(f"port: the host says {given} and the port field {port}", field="port")
        return place
    if place.count(":") > 1 and not place.startswith("["):
        place = f"[{place}]"
    return f"{place}:{port}"


def _extras(text: Any) -> dict[str, Any]:
    """The extras by their plain names; a plain one wins over a prefixed one."""
    if text is None or text == "":
        return {}
    found: Any = text
    for _ in range(2):  # a form may have stored the JSON object as a JSON string
        if isinstance(found, str):
            try:
                found = json.loads(found)
            except ValueError:
                raise ConfigurationError("extra: must be a JSON object, this is no JSON", field="extra") from None
    if not isinstance(found, dict):
        raise ConfigurationError(f"extra: must be a JSON object, not a {type(found).__name__}", field="extra")
    plain: dict[str, Any] = {}
    prefixed: dict[str, Any] = {}
    for name, value in found.items():
        bare = name[len(_PREFIX) :] if name.startswith(_PREFIX) else name
        if bare not in EXTRAS:
            if not name.startswith("extra__") and name != "__extra__":
                logger.warning("extra %r of the connection is unknown and ignored; known: %s", name, ", ".join(EXTRAS))
            continue
        if value is None or value == "":
            continue
        (plain if bare == name else prefixed)[bare] = value
    return {**prefixed, **plain}


def mask(values: Iterable[str]) -> None:
    """Register secrets with Airflow's masker, also as they look inside a URL."""
    for value in values:
        for form in {value, quote(value, safe=""), quote_plus(value)}:
            mask_secret(form)


def _quiet_requests() -> None:
    """Keep the HTTP library from writing a line for each request into the task's log, unless its level is set."""
    for name in ("httpx", "httpcore"):
        library = logging.getLogger(name)
        if library.level == logging.NOTSET:
            library.setLevel(logging.WARNING)


class _MaskToken:
    """Masks a fetched token before it is used. Telling the supervisor may block; on a loop ``in_thread`` does it."""

    def __call__(self, token: str) -> None:
        mask((token,))

    async def ahear(self, token: str) -> None:
        """As a call, without blocking the loop."""
        await in_thread(mask, (token,))

    def __reduce__(self) -> str:
        return "_mask_token"  # by its name here: hooks that are pickled share it


_mask_token = _MaskToken()


class OrchestrationHook(BaseHook):  # type: ignore[misc]
    """Talks to the orchestration server of an Airflow connection.

    Args:
        orchestration_conn_id: id of a connection of type ``orchestration``.
    """

    conn_name_attr = "orchestration_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONN_TYPE
    hook_name = "Formance Orchestration"

    def __init__(self, orchestration_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.orchestration_conn_id = orchestration_conn_id
        self._settings: Settings | None = None
        self._http: OrchestrationHttpHook | None = None

    def settings(self) -> Settings:
        """The settings of the connection, looked up once. Raises ConfigurationError."""
        if self._settings is None:
            settings = settings_of(self.get_connection(self.orchestration_conn_id))
            mask(settings.secrets)
            self._settings = settings
        return self._settings

    async def async_settings(self) -> Settings:
        """As ``settings``, without blocking the event loop."""
        if self._settings is None:
            settings = settings_of(await get_async_connection(self.orchestration_conn_id))
            await in_thread(mask, settings.secrets)
            self._settings = settings
        return self._settings

    def get_conn(self) -> OrchestrationHttpHook:
        """The shared hook, safe to use from several threads."""
        if self._http is None:
            self._http = self.fresh_conn()
        return self._http

    def fresh_conn(self, *, masked: bool = True, apart: bool = False, **changes: Any) -> OrchestrationHttpHook:
        """Another shared hook, some settings changed.

        Args:
            masked: register fetched tokens with Airflow's masker. False for a process that is being killed, where a
                call to Airflow may hang.
            apart: share neither connections nor a token with other hooks of this process.
            changes: settings by name.
        """
        from ..http_hook import OrchestrationHttpHook

        _quiet_requests()
        settings = self.settings().with_changes(**changes)
        on_token = _mask_token if masked else None
        return OrchestrationHttpHook(settings, face=FACE, on_token=on_token, own_connections=apart)

    async def get_async_conn(self) -> AsyncOrchestrationHttpHook:
        """The async twin; use it as an async context manager."""
        settings = await self.async_settings()
        _quiet_requests()
        loop = asyncio.get_running_loop()
        module = await loop.run_in_executor(None, import_module, "orchestration_integrations.http_hook")
        await loop.run_in_executor(None, import_module, "orchestration_integrations.http_hook.plans")
        made: AsyncOrchestrationHttpHook = module.AsyncOrchestrationHttpHook(settings, face=FACE, on_token=_mask_token)
        return made

    def test_connection(self) -> tuple[bool, str]:
        """Whether the server answers and takes the credentials, with its URL and version, or what is wrong."""
        try:
            http = self.fresh_conn(
                apart=True, retry_budget=TEST_BUDGET, timeout=min(self.settings().timeout, TEST_BUDGET)
            )
        except OrchestrationError as error:
            return False, str(error)
        settings = http.settings
        how = "a bearer token" if settings.token else "client credentials" if settings.client_id else "no credentials"
        where = f"{settings.base_url} with {how}"
        with http:
            try:
                version = http.get_server_info().version or "unknown"
                accepted = _takes_credentials(http)
            except AuthenticationError as error:
                return False, f"{where}: the credentials are refused: {summary(error)}"
            except OrchestrationError as error:
                return False, f"{where}: {summary(error)}"
        return True, f"{where}: server version {version}{accepted}"

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Labels of the connection form (Airflow 2.11; later ones read the provider's metadata)."""
        from .provider_info import UI_FIELD_BEHAVIOUR, camel_cased

        return camel_cased(UI_FIELD_BEHAVIOUR)

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Extra fields of the connection form (Airflow 2.11; later ones read the provider's metadata)."""
        from .provider_info import form_widgets

        return form_widgets()


def _takes_credentials(http: OrchestrationHttpHook) -> str:
    """A read that needs permission: an instance that cannot exist. Only a refusal is an error here."""
    try:
        http.get_instance(_NOBODY)
    except NotFoundError as error:
        if is_gateways_404(error):
            raise
        return ""
    except AuthenticationError:
        raise
    except OrchestrationError as error:
        return f", but reading an instance fails: {summary(error)}"
    return ""
