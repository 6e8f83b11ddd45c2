"""Names of task runs that say what they are about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_ID_LENGTH = 12
_TEXTS = ("step", "run_key", "event")
_SUBJECTS = ("workflow_id", "instance_id", "trigger_id")


def named(verb: str) -> Callable[[dict[str, Any]], str]:
    """What Prefect calls for the name of a task run, once its parameters are values: also if it was mapped or submitted
    with futures.

    Args:
        verb: the beginning of the name. The name of a definition, a step, run key or event, and the beginning of an id
            follow, if there are any.
    """

    def name(parameters: dict[str, Any]) -> str:
        definition = parameters.get("definition")
        texts = [definition.get("name") if isinstance(definition, Mapping) else None]
        texts += [parameters.get(one) for one in _TEXTS]
        subjects = [_id_in(parameters.get(one), one) for one in _SUBJECTS]
        return "-".join([verb, *(text for text in (*texts, *subjects) if isinstance(text, str) and text)])

    return name


def _id_in(given: object, field: str) -> object:
    if isinstance(given, Mapping):
        given = given.get(field)
    return given[:_ID_LENGTH] if isinstance(given, str) else None
