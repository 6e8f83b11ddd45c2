"""The block that says where an orchestration server is and how to talk to it."""

from __future__ import annotations

import os
import threading
from typing import Any, Literal
from uuid import UUID

import prefect
from prefect.blocks.abstract import CredentialsBlock
from prefect.blocks.core import BlockNotSavedError
from pydantic import Field, SecretStr, field_validator, model_validator

from ..api.errors import ConfigurationError
from ..http_hook import AsyncOrchestrationHttpHook, OrchestrationHttpHook
from ..settings import Settings
from .block_links import DOCUMENTATION_URL, LOGO_URL
from .known_fields import KnownFieldsOnly

FACE = f"prefect/{prefect.__version__}"


class OrchestrationCredentials(KnownFieldsOnly, CredentialsBlock):
    """Where a Formance Orchestration server is, and how to authenticate there.

    Example:
        Load stored credentials and list workflows:
        ```python
        from orchestration_integrations.prefect import OrchestrationCredentials

        credentials = OrchestrationCredentials.load("BLOCK_NAME")
        with credentials.get_client() as client:
            workflows = client.list_workflows()
        ```
    """

    _block_type_name = "Orchestration Credentials"
    _block_type_slug = "orchestration-credentials"
    _logo_url = LOGO_URL  # type: ignore[assignment]
    _documentation_url = DOCUMENTATION_URL  # type: ignore[assignment]
    _description = (
        "Where a Formance Orchestration server is, and how to authenticate there. How to use it: `docs/prefect.md` of "
        "the package orchestration-integrations."
    )

    base_url: str = Field(
        description="URL of the server, with its base path: /api/orchestration behind a stack's gateway, none without."
    )
    client_id: str | None = Field(default=None, description="Client id for OAuth2 client credentials.")
    client_secret: SecretStr | None = Field(default=None, description="Client secret for OAuth2 client credentials.")
    token_url: str | None = Field(
        default=None, description="URL that gives tokens; by default /api/auth/oauth/token on the server's host."
    )
    scope: str | None = Field(default=None, description="Scope to ask for with a token; by default none is named.")
    token: SecretStr | None = Field(
        default=None, description="A ready-made bearer token, instead of a client id and secret."
    )
    api_version: Literal["auto", "v1", "v2"] = Field(
        default="auto", description="API version for lists: auto finds out what the server has."
    )
    verify: bool | str = Field(
        default=True, description="Whether to verify the server's certificate, or the path of a CA bundle."
    )
    cert: str | tuple[str, str] | None = Field(
        default=None, description="Path of a client certificate, or a pair: certificate and key."
    )
    timeout: float = Field(default=10.0, description="Seconds that one HTTP exchange may take.")
    retry_budget: float = Field(default=60.0, description="Seconds that one call may take with all its retries.")
    max_connections: int = Field(default=20, description="How many connections may be open at once.")
    ui_url: str | None = Field(
        default=None,
        description="What the link of a run opens: the address of the live page, or a template with {instance_id} and "
        "{workflow_id}; by default the instance on the server's API.",
    )

    @field_validator("token", "client_secret")
    @classmethod
    def _refuse_masks(cls, value: SecretStr | None, info: Any) -> SecretStr | None:
        # Prefect stores a block given as a parameter with its secrets masked; a run from such parameters gets the mask.
        text = value.get_secret_value().strip() if value is not None else ""
        if text and set(text) == {"*"}:
            raise ConfigurationError(
                f"{info.field_name}: is masked; Prefect masks the secrets of a block that is given as a parameter. "
                "Pass the name of the stored block, or load it inside the flow",
                field=str(info.field_name),
            )
        return value

    @model_validator(mode="after")
    def _refuse_wrong_fields(self) -> OrchestrationCredentials:
        self.check()
        return self

    def check(self) -> None:
        """Refuse fields that no server could be reached with. Files are looked for where they are used.

        Raises:
            ConfigurationError: a field is wrong; ``field`` names it.
        """
        given = self._given()
        # The block may be made on another machine than the one that uses it.
        if isinstance(given["verify"], str) and (os.sep in given["verify"] or "." in given["verify"]):
            given["verify"] = True
        given["cert"] = None
        Settings.from_fields(given)

    def save(self, name: str | None = None, overwrite: bool = False, client: Any = None) -> Any:
        """As Prefect's, once ``check`` has found nothing: fields may have been changed since the block was made."""
        self.check()
        return super().save(name, overwrite=overwrite, client=client)

    async def asave(self, name: str | None = None, overwrite: bool = False, client: Any = None) -> UUID:
        """As ``save``, for asyncio."""
        self.check()
        return await super().asave(name, overwrite=overwrite, client=client)

    @classmethod
    def from_env(cls) -> OrchestrationCredentials:
        """Credentials from ``ORCHESTRATION_URL``, ``ORCHESTRATION_TOKEN``, ``ORCHESTRATION_CLIENT_ID`` …

        Raises:
            ConfigurationError: ``ORCHESTRATION_URL`` is not set, or a value is wrong.
        """
        settings = Settings.from_env()
        given = {name: getattr(settings, name) for name in OrchestrationCredentials.model_fields}
        return cls(**{name: value for name, value in given.items() if value is not None})

    def settings(self) -> Settings:
        """The normalised settings. Nothing is sent.

        Raises:
            ConfigurationError: a field is wrong; ``field`` names it.
        """
        return Settings.from_fields(self._given())

    def _given(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in OrchestrationCredentials.model_fields}
        for name in ("token", "client_secret"):
            if given[name] is not None:
                given[name] = given[name].get_secret_value()
        return given

    def get_client(self) -> OrchestrationHttpHook:
        """A blocking client; use it as a context manager.

        Raises:
            ConfigurationError: a field is wrong.
        """
        return OrchestrationHttpHook(self.settings(), face=FACE)

    def get_async_client(self) -> AsyncOrchestrationHttpHook:
        """A client for asyncio; use it as an async context manager.

        Raises:
            ConfigurationError: a field is wrong.
        """
        return AsyncOrchestrationHttpHook(self.settings(), face=FACE)


Credentials = OrchestrationCredentials | str
"""The block, or the name under which it is stored."""


def stored_name(credentials: Credentials) -> str | None:
    """The name under which the block is stored; None where it is not."""
    if isinstance(credentials, str):
        return credentials
    try:
        return credentials.get_block_placeholder().removeprefix(f"prefect.blocks.{credentials.get_block_type_slug()}.")
    except BlockNotSavedError:
        return None


def settings_of(credentials: Credentials) -> Settings:
    """The settings of a block, or of the block that is stored under a name. Blocking.

    Raises:
        ConfigurationError: a field is wrong, or it is no credentials at all.
        ValueError: no block is stored under the name.
    """
    if isinstance(credentials, OrchestrationCredentials):
        return credentials.settings()
    if not isinstance(credentials, str) or not credentials:
        raise ConfigurationError(
            "credentials: must be OrchestrationCredentials or the name of a stored block, "
            f"not {type(credentials).__name__}",
            field="credentials",
        )
    # A thread of its own: where an event loop runs, loading would give a coroutine.
    loaded: list[Settings | BaseException] = []

    def load() -> None:
        try:
            block: Any = OrchestrationCredentials.load(credentials)
            loaded.append(block.settings())
        except BaseException as error:
            loaded.append(error)

    thread = threading.Thread(target=load, name="orchestration-credentials")
    thread.start()
    thread.join()
    if isinstance(loaded[0], BaseException):
        raise loaded[0]
    return loaded[0]
