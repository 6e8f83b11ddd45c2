"""`info`: which server the settings reach, and as whom."""

from ..version import __version__
from .session import Session, reaching_server


@reaching_server
def info(session: Session) -> None:
    """Show which server the settings reach, its version, and how this command signs in. No secret is shown."""
    settings = session.settings
    version = session.hook.get_server_info().version
    session.hook.list_workflows()
    credentials = "a token" if settings.token else "client credentials" if settings.client_id else "none"
    session.out.one(
        {
            "type": "info",
            "url": settings.base_url,
            "server_version": version,
            "lists_by": "v2" if session.hook.plans.versions.has_v2 else "v1",
            "credentials": credentials,
            "client_id": settings.client_id,
            "token_url": settings.token_url if settings.client_id else None,
            "verify": settings.verify,
            "http_timeout": settings.timeout,
            "retry_budget": settings.retry_budget,
            "client_version": __version__,
        }
    )
