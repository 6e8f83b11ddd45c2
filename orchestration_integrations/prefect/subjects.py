"""What a task is about: an id, or what another task returned that holds the id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..api.errors import ValidationError
from ..api.given_ids import not_an_id

Subject = str | Mapping[str, Any]
"""An id, or what a task returned that holds it."""

_GIVEN_BY = {"instance_id": "run_workflow", "workflow_id": "create_workflow", "trigger_id": "create_trigger"}

_FIELDS = frozenset({"instance_id", "workflow_id", "trigger_id", "run_key", "state"})
"""What a caller passes who maps over one result."""


def id_in(given: object, field: str) -> str:
    """The id in what a caller passed: an id, or a mapping that a task returned.

    Args:
        given: what was passed.
        field: ``instance_id``, ``workflow_id`` or ``trigger_id``.

    Raises:
        ValidationError: it is neither; ``path`` is the field.
    """
    task = _GIVEN_BY[field]
    if isinstance(given, Mapping):
        given = given.get(field)
        if given is None:
            raise ValidationError(
                f"{field}: the mapping that was given has none; give the id, or what {task} returned", path=field
            )
    if given is None:
        raise ValidationError(
            f"{field} is None: the task {task}, or another one that should give it, did not run (Prefect returns None "
            "for a call whose upstream failed), so there is nothing to act on",
            path=field,
        )
    if not isinstance(given, str) or not given:
        raise ValidationError(
            f"{field} must be an id or what {task} returned, not {not_an_id(given, field)}", path=field
        )
    if given in _FIELDS:
        raise ValidationError(
            f"{field} is {given!r}, the name of a field: .map goes over the fields of a mapping; give it a list of "
            "results, or submit one call",
            path=field,
        )
    return given


def instance_id_of(given: object) -> str:
    """As ``id_in``, of an instance."""
    return id_in(given, "instance_id")


def run_key_of(given: object) -> str | None:
    """The run key in what ``run_workflow`` returned; None where only an id is known."""
    key = given.get("run_key") if isinstance(given, Mapping) else None
    return key if isinstance(key, str) and key else None
