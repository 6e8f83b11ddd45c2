# mypy: disable-error-code="import-not-found,import-untyped"
"""What Airflow is told about this provider, without importing more than this module."""

from __future__ import annotations

from typing import Any

_PACKAGE = "orchestration_integrations.airflow"
_NAME = "Formance Orchestration"

UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema"],
    "relabeling": {"host": "Base URL", "login": "Client ID", "password": "Client secret"},
    "placeholders": {"host": "https://example.com/api/orchestration"},
}

# name: (label, description, type, password)
_FIELDS: dict[str, tuple[str, str, str, bool]] = {
    "token": ("Bearer token", "A ready-made token, instead of client ID and secret.", "string", True),
    "token_url": ("Token URL", "Default: /api/auth/oauth/token on the host of the base URL.", "string", False),
    "scope": ("Scope", "Asked for with the token: orchestration:read orchestration:write.", "string", False),
    "api_version": ("API version", "auto, v1 or v2. Default: auto.", "string", False),
    "verify": ("Verify TLS", "true, false or the path of a CA bundle. Default: true.", "string", False),
    "cert": ("Client certificate", "Path of a file with certificate and key.", "string", False),
    "timeout": ("Timeout", "Seconds of one HTTP exchange. Default: 10.", "string", False),
    "retry_budget": ("Retry budget", "Seconds of one call with all its retries. Default: 60.", "string", False),
    "max_connections": ("Connections", "How many may be open at once. Default: 20.", "string", False),
    "ui_url": ("Page", "What the link of a task opens: the live page, or a template: {instance_id}.", "string", False),
}
_FILES = ("verify", "cert")


def get_provider_info() -> dict[str, Any]:
    """The provider's metadata; the entry point ``apache_airflow_provider`` names this function."""
    return {
        "package-name": "orchestration-integrations",
        "name": _NAME,
        "description": "Run money flows on a Formance Orchestration server.",
        "connection-types": [
            {
                "connection-type": "orchestration",
                "hook-class-name": f"{_PACKAGE}.hooks.OrchestrationHook",
                "hook-name": _NAME,
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": {
                    name: {
                        "label": label,
                        "description": description,
                        "schema": {"type": [kind, "null"], **({"format": "password"} if password else {})},
                    }
                    for name, (label, description, kind, password) in _FIELDS.items()
                },
            }
        ],
        "integrations": [
            {
                "integration-name": _NAME,
                "external-doc-url": "https://docs.formance.com/modules/flows/",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": _NAME, "python-modules": [f"{_PACKAGE}.hooks"]}],
        "operators": [{"integration-name": _NAME, "python-modules": [f"{_PACKAGE}.operators"]}],
        "sensors": [{"integration-name": _NAME, "python-modules": [f"{_PACKAGE}.sensors"]}],
        "triggers": [{"integration-name": _NAME, "python-modules": [f"{_PACKAGE}.triggers"]}],
        "notifications": [
            f"{_PACKAGE}.notifications.OrchestrationCancelInstanceNotifier",
            f"{_PACKAGE}.notifications.OrchestrationSendEventNotifier",
        ],
        "task-decorators": [{"name": "orchestration", "class-name": f"{_PACKAGE}.decorators.orchestration_task"}],
        "extra-links": [f"{_PACKAGE}.links.OrchestrationInstanceLink"],
        "config": {
            "orchestration": {
                "description": "Formance Orchestration.",
                "options": {
                    "record_store": {
                        "description": "Where tasks keep the record of their runs: auto (the task state store of "
                        "Airflow 3.3, below it Variables), variables, or none.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": None,
                        "default": "auto",
                    },
                    "ui_url": {
                        "description": "Address of the live page, which Airflow 3.1 and later show in a tab of each "
                        "task instance. Start the page with --embed-in and Airflow's origin.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "https://orchestration-page.example",
                        "default": "",
                    },
                },
            }
        },
    }


def camel_cased(behaviour: dict[str, Any]) -> dict[str, Any]:
    """The same in the spelling of a hook's own method."""
    return {
        **{key: value for key, value in behaviour.items() if "-" not in key},
        "hidden_fields": behaviour["hidden-fields"],
    }


def form_widgets() -> dict[str, Any]:
    """The extra fields as widgets of a form library that only Airflow 2 has. The form refuses a wrong value."""
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import PasswordField, StringField
    from wtforms.validators import Optional

    widgets: dict[str, Any] = {}
    for name, (label, description, _, password) in _FIELDS.items():
        kind, widget = (PasswordField, BS3PasswordFieldWidget) if password else (StringField, BS3TextFieldWidget)
        widgets[name] = kind(
            lazy_gettext(label), widget=widget(), description=description, validators=[Optional(), _refusing(name)]
        )
    return widgets


def _refusing(name: str) -> Any:
    """What a form asks whether the value of a field will do. Files are looked for where they are used."""

    def validate(form: Any, field: Any) -> None:
        from wtforms.validators import ValidationError

        from ..api.errors import ConfigurationError
        from ..settings import Settings

        if name in _FILES and ("/" in field.data or "." in field.data):
            return
        given = {"base_url": "http://localhost", name: field.data}
        if name == "token":
            given["client_id"] = getattr(getattr(form, "login", None), "data", None)
            given["client_secret"] = given["client_id"] and "given"
        try:
            Settings.from_fields(given)
        except ConfigurationError as error:
            raise ValidationError(str(error)) from None

    return validate
