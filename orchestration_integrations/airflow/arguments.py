"""What operators are given, checked once templates are filled in and before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from ..api.errors import ValidationError
from ..api.numbers import at_least_zero
from ..ownership.keys import checked_run_key
from ..procedures.wait_arguments import check_on_timeout

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
_NONE = re.compile(r"(?<![A-Za-z0-9_])None(?![A-Za-z0-9_])")


def check_run(
    *,
    workflow_id: Any,
    workflow_name: Any,
    definition: Any,
    path: Any,
    variables: Any,
    run_key: Any,
    on_timeout: Any,
    allow_none_text: Sequence[str],
) -> None:
    """Refuse wrong arguments of a run.

    Raises:
        ValidationError: ``path`` names the argument.
    """
    sources = {"workflow_id": workflow_id, "workflow_name": workflow_name, "definition": definition, "path": path}
    given = [name for name, value in sources.items() if value not in (None, "")]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ValidationError(
            f"give exactly one of workflow_id, workflow_name, definition and path, not {found}", path="workflow_id"
        )
    if given[0] in ("workflow_id", "workflow_name"):
        named = sources[given[0]]
        if not isinstance(named, str):
            raise ValidationError(f"{given[0]} must be a string, not a {type(named).__name__}", path=given[0])
        refuse_none_text(given[0], named)
    check_on_timeout(on_timeout)
    if variables is not None and not isinstance(variables, Mapping):
        raise ValidationError(f"variables must be a mapping, not a {type(variables).__name__}", path="variables")
    if run_key is not None:
        checked_run_key(run_key)
        refuse_none_text("run_key", run_key)
    for name, value in (variables or {}).items():
        if name not in allow_none_text:
            refuse_none_text(f"variables.{name}", value)


def refuse_none_text(path: str, value: Any) -> None:
    """Refuse the text ``None``, which a template makes of an XCom that is not there: it would be paid to.

    Raises:
        ValidationError: the word stands in the text.
    """
    if isinstance(value, str) and _NONE.search(value):
        how = "; allow_none_text names variables that may hold it" if path.startswith("variables.") else ""
        raise ValidationError(
            f"{path} is {value!r}: a template that finds nothing (an XCom that is not there) makes the text None of "
            f"it, which would be paid to; nothing was started{how}",
            path=path,
        )


def seconds_of(value: Any, name: str) -> float | None:
    """Seconds: of a number, of a timedelta, or of the text that a template has come to; None where None is given.

    Raises:
        ValidationError: it is none of these.
    """
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    elif isinstance(value, str):
        if not _SECONDS.fullmatch(value.strip()):
            raise ValidationError(
                f"{name} must be a number of seconds, such as 300 or 2.5, and the text that was given or that a "
                f"template has come to is {value!r}; nothing was sent",
                path=name,
            )
        value = float(value)
    return at_least_zero(value, name)


def needed_seconds_of(value: Any, name: str) -> float:
    """As ``seconds_of`` where None is refused as well."""
    return at_least_zero(seconds_of(value, name), name)


def poll_seconds_of(value: Any, name: str = "poll_interval") -> float:
    """As ``needed_seconds_of`` for the time between two looks, which is above 0."""
    seconds = needed_seconds_of(value, name)
    if seconds == 0:
        raise ValidationError(f"{name} must be above 0 seconds", path=name)
    return seconds


def stage_of(value: Any) -> int | None:
    """The number of a stage, also as the text that a template has come to; None where none is given.

    Raises:
        ValidationError: it is no whole number from 0.
    """
    if value is None or value in ("", "None"):
        return None
    text = str(value).strip()
    if isinstance(value, bool) or not text.isdecimal():
        raise ValidationError(f"stage must be a whole number from 0, not {value!r}", path="stage")
    return int(text)


def named(value: Any, name: str) -> str:
    """A text that names something.

    Raises:
        ValidationError: it is empty, no text, or the word that a template makes of an XCom that is not there.
    """
    if not isinstance(value, str) or value in ("", "None"):
        raise ValidationError(f"{name} must be a non-empty string, not {value!r}", path=name)
    return value


def instance_ids(given: Any, name: str = "instance_id") -> tuple[list[str], bool]:
    """The instances that are named, and whether they came as a list.

    A mapped task's ids come as a list, or as the text that a template makes of one: both are taken. None, the empty
    text and the text ``None`` name nothing.

    Raises:
        ValidationError: it is neither an id nor a list of ids. Taken for nothing, it would leave runs alive.
    """
    listed = given
    if isinstance(given, str) and given.strip()[:1] in ("[", "("):
        listed = _list_of(given, name)
    elif not isinstance(given, str) and given is not None:
        try:
            if isinstance(given, Mapping):
                raise TypeError
            listed = list(given)  # a list, or what Airflow hands over for the XComs of a mapped task
        except TypeError:
            raise ValidationError(f"{name} must be an id or a list of ids, not {given!r}", path=name) from None
    several = not isinstance(listed, str) and listed is not None
    found: list[str] = []
    for one in listed if several else [listed]:
        if one is None or (isinstance(one, str) and one.strip() in ("", "None", "none")):
            continue
        if not isinstance(one, str) or re.search(r"[\s()\[\]{}<>,'\"]", one.strip()):
            raise ValidationError(
                f"{name} must be the id of an instance or a list of ids, not {one!r}; for a mapped task "
                f"give a list: {name}=pay.output['instance_id'], or \"{{{{ ti.xcom_pull(…) | list }}}}\"",
                path=name,
            )
        found.append(one.strip())
    return list(dict.fromkeys(found)), several


def _list_of(text: str, name: str) -> Sequence[Any]:
    """The list that a template has made a text of: Python's spelling, or JSON."""
    import ast
    import json

    for parse in (ast.literal_eval, json.loads):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, RecursionError):
            continue
        if isinstance(found, list | tuple):
            return found
    raise ValidationError(f"{name}: this text is no list of ids: {text[:200]!r}", path=name)
