"""Definitions and variables checked before they are sent, and the placeholders in a definition.

The server checks little, and some of what it lets pass moves money otherwise than meant: an
unknown ledger field is dropped, a delay without a duration is no delay, a big number loses digits.
So this is stricter than the server where the shape is known, and open where it may grow: an
unknown kind of stage or field passes with a warning.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from .calls import is_encodable
from .closest import did_you_mean
from .errors import ValidationError
from .instants import format_instant, is_go_duration, is_rfc3339
from .money_fields import EXAMPLE, SMALLEST_UNIT, amount_fault, asset_fault
from .stage_kinds import STAGE_FIELDS

logger = logging.getLogger("orchestration_integrations.api")

SAFE_INTEGER = 2**53
"""From here on the server's float64 loses digits: such integers go as decimal strings."""

PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
_SIDES = {
    "account": {"id", "ledger", "throughAccount", "allowOverdraft"},
    "wallet": {"id", "name", "balance"},
    "payment": {"id", "ledger", "holdingAccount", "throughAccount", "allowOverdraft"}
    | {"psp", "type", "sourceAccount", "metadata", "waitingValidation", "connectorId"},
}
_SWITCHES = {"allowOverdraft", "waitingValidation"}
"""Fields that are true or false; all others of a source or destination are strings."""


# ---- definitions ---------------------------------------------------------------------------------


def validated_definition(definition: object) -> dict[str, Any]:
    """A copy of the definition as it is to be sent.

    Args:
        definition: mapping with ``stages`` (a list) and optionally ``name``.

    Raises:
        ValidationError: ``path`` says where, ``stages[1].send.amount.asset``. Nothing was sent.
    """
    if not isinstance(definition, Mapping):
        raise ValidationError(f"a definition must be a mapping, not {type(definition).__name__}", path="definition")
    try:
        copy: dict[str, Any] = _plain(definition, "")
    except RecursionError:
        raise ValidationError("the definition is nested too deeply, or contains itself", path="definition") from None
    name = copy.get("name")
    if name is not None and not isinstance(name, str):
        raise ValidationError(f"name must be a string, not {name!r}", path="name")
    if "stages" not in copy:
        raise ValidationError("a definition needs stages, a list", path="stages")
    stages = copy["stages"]
    if not isinstance(stages, list):
        raise ValidationError(f"stages must be a list, not {type(stages).__name__}", path="stages")
    if not stages:
        logger.warning("definition %s has no stages: its runs succeed at once and move nothing", name or "(unnamed)")
    _warn_unknown(copy, {"name", "stages"}, "")
    for number, stage in enumerate(stages):
        _check_stage(stage, f"stages[{number}]")
    return copy


def _plain(value: Any, path: str) -> Any:
    """JSON types only, copied; what JSON would bend is refused or, where it is safe, written as a string."""
    if isinstance(value, Mapping):
        plain = {}
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValidationError(f"{path or 'definition'}: the key {key!r} must be a string", path=path or None)
            plain[key] = _plain(inner, f"{path}.{key}" if path else key)
        return plain
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{path}[{number}]") for number, inner in enumerate(value)]
    if isinstance(value, str):
        return variable_text(path, value, path)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return str(int(value)) if abs(value) > SAFE_INTEGER - 1 else int(value)
    if isinstance(value, date | datetime | Decimal):
        return variable_text(path, value, path)
    remedy = f"{SMALLEST_UNIT}, such as {EXAMPLE}" if path.endswith(".amount.amount") else "write it as a string"
    raise ValidationError(f"{path}: a {type(value).__name__} cannot stand in a definition; {remedy}", path=path)


def _check_stage(stage: Any, path: str) -> None:
    if not isinstance(stage, dict):
        raise ValidationError(f"{path} must be a mapping with one key, the kind of the stage", path=path)
    if len(stage) != 1:
        found = ", ".join(stage) or "none"
        raise ValidationError(f"{path} must have exactly one key, the kind of the stage; found: {found}", path=path)
    ((kind, body),) = stage.items()
    here = f"{path}.{kind}"
    if kind not in STAGE_FIELDS:
        _warn_unknown_kind(kind, STAGE_FIELDS, here, "stage")
        return
    if not isinstance(body, dict):
        raise ValidationError(f"{here} must be a mapping, not {type(body).__name__}", path=here)
    _warn_unknown(body, STAGE_FIELDS[kind], here)
    {"send": _check_send, "delay": _check_delay, "wait_event": _check_wait, "update": _check_update}[kind](body, here)


def _check_wait(body: dict[str, Any], path: str) -> None:
    _required_text(body, "event", path)


def _check_delay(body: dict[str, Any], path: str) -> None:
    given = [field for field in ("duration", "until") if body.get(field) is not None]
    if len(given) != 1:
        raise ValidationError(f"{path} needs exactly one of duration and until", path=path)
    field = given[0]
    text = _required_text(body, field, path)
    if "${" in text:
        return
    if field == "duration" and not is_go_duration(text):
        raise ValidationError(
            f'{path}.duration: {text!r} is no duration such as "1h30m" or "5s"', path=f"{path}.duration"
        )
    if field == "duration" and text.startswith("-"):
        raise ValidationError(f"{path}.duration: {text!r} is negative and would be no delay", path=f"{path}.duration")
    if field == "until" and not is_rfc3339(text):
        raise ValidationError(
            f'{path}.until: {text!r} is no RFC 3339 instant such as "2030-01-01T00:00:00Z"', path=f"{path}.until"
        )


def _check_send(body: dict[str, Any], path: str) -> None:
    for side in ("source", "destination"):
        _check_side(_required_mapping(body, side, path), f"{path}.{side}")
    _check_amount(body, path)
    _check_metadata(body, path)
    timestamp = body.get("timestamp")
    if timestamp is not None and not (isinstance(timestamp, str) and ("${" in timestamp or is_rfc3339(timestamp))):
        raise ValidationError(f"{path}.timestamp: {timestamp!r} is no RFC 3339 instant", path=f"{path}.timestamp")


def _check_amount(body: dict[str, Any], path: str) -> None:
    if body.get("amount") is None and body["source"].get("payment") is not None:
        return  # the payment goes whole
    amount = _required_mapping(body, "amount", path)
    here = f"{path}.amount"
    _warn_unknown(amount, {"amount", "asset"}, here)
    value = amount.get("amount")
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise ValidationError(
            f"{here}.amount must be an integer or its decimal text, not {value!r}", path=f"{here}.amount"
        )
    asset = amount.get("asset")
    wrong = "" if "${" in str(value) else amount_fault(str(value), asset if isinstance(asset, str) else "")
    if wrong:
        raise ValidationError(f"{here}.amount: {value!r} {wrong}", path=f"{here}.amount")
    name = _required_text(amount, "asset", here)
    wrong = "" if "${" in name else asset_fault(name)
    if wrong:
        raise ValidationError(f"{here}.asset: {name!r} {wrong}", path=f"{here}.asset")


def _check_side(side: dict[str, Any], path: str) -> None:
    kinds = [kind for kind in side if side[kind] is not None]
    if len(kinds) != 1:
        raise ValidationError(f"{path} needs exactly one of account, wallet and payment", path=path)
    kind = kinds[0]
    here = f"{path}.{kind}"
    if kind not in _SIDES:
        _warn_unknown_kind(kind, _SIDES, here, "source or destination")
        return
    body = side[kind]
    if not isinstance(body, dict):
        raise ValidationError(f"{here} must be a mapping, not {type(body).__name__}", path=here)
    _warn_unknown(body, _SIDES[kind], here)
    if kind == "account":
        _required_text(body, "id", here)
    elif kind == "wallet" and not body.get("id") and not body.get("name"):
        raise ValidationError(f"{here} needs an id or a name", path=here)
    for field, value in body.items():
        if value is None or field not in _SIDES[kind]:
            continue
        if field in _SWITCHES and not isinstance(value, bool):
            hint = ": the server fills no ${…} into a boolean" if isinstance(value, str) else ""
            raise ValidationError(f"{here}.{field} must be true or false, not {value!r}{hint}", path=f"{here}.{field}")
        if field not in _SWITCHES and not isinstance(value, str):
            raise ValidationError(f"{here}.{field} must be a string, not {value!r}", path=f"{here}.{field}")


def _check_update(body: dict[str, Any], path: str) -> None:
    account = _required_mapping(body, "account", path)
    here = f"{path}.account"
    _warn_unknown(account, {"id", "ledger", "metadata"}, here)
    _required_text(account, "id", here)
    _required_mapping(account, "metadata", here)
    _check_metadata(account, here)


def _check_metadata(body: dict[str, Any], path: str) -> None:
    metadata = body.get("metadata")
    if metadata is None:
        return
    here = f"{path}.metadata"
    if not isinstance(metadata, dict):
        raise ValidationError(f"{here} must be a mapping of strings", path=here)
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise ValidationError(f"{here}.{key} must be a string, not {value!r}", path=f"{here}.{key}")


def _required_text(body: Mapping[str, Any], field: str, path: str) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not value:
        what = "is missing" if value is None else f"must be a non-empty string, not {value!r}"
        raise ValidationError(f"{path}.{field} {what}", path=f"{path}.{field}")
    return value


def _required_mapping(body: Mapping[str, Any], field: str, path: str) -> dict[str, Any]:
    value = body.get(field)
    if not isinstance(value, dict):
        what = "is missing" if value is None else f"must be a mapping, not {value!r}"
        raise ValidationError(f"{path}.{field} {what}", path=f"{path}.{field}")
    return value


def _warn_unknown_kind(kind: str, known: Collection[str], path: str, what: str) -> None:
    logger.warning(
        "%s: unknown kind of %s%s, passed on unchecked; the known kinds are %s",
        path,
        what,
        did_you_mean(kind, known),
        ", ".join(known),
    )


def _warn_unknown(body: Mapping[str, Any], known: Collection[str], path: str) -> None:
    for field in sorted(body.keys() - known):
        logger.warning(
            "%s: unknown field%s; a server that does not know it drops it without a word",
            f"{path}.{field}" if path else field,
            did_you_mean(field, sorted(known)),
        )


def canonical(definition: Mapping[str, Any]) -> Any:
    """A form in which definitions that mean the same are equal: key order, numbers as text, no nulls, no empty name."""
    return {"name": definition.get("name") or "", "stages": _canonical(definition.get("stages") or [])}


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _canonical(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


# ---- placeholders --------------------------------------------------------------------------------


def strings_of(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, text) of each string in a JSON value."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from strings_of(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from strings_of(inner, f"{path}[{number}]")


def placeholders(stages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(path, name) of each ``${name}`` in the stages."""
    for path, text in strings_of(list(stages), "stages"):
        for match in PLACEHOLDER.finditer(text):
            yield path, match[1]


def unused_variables(stages: Sequence[Mapping[str, Any]], names: Iterable[str]) -> tuple[str, ...]:
    """The names of variables that no placeholder in the stages asks for: the server ignores them silently."""
    used = {name for _, name in placeholders(stages)}
    return tuple(name for name in names if name not in used)


def has_crowded_string(stages: Sequence[Mapping[str, Any]]) -> str | None:
    """The path of a string with two placeholders, which generation 1 empties whole; None if there is none."""
    for path, text in strings_of(list(stages), "stages"):
        if len(PLACEHOLDER.findall(text)) > 1:
            return path
    return None


def filled(template: str, texts: Mapping[str, str]) -> tuple[str | None, tuple[str, ...]]:
    """(what a string of a definition reads once its placeholders are filled in, their names).

    It is None where that is not known: a placeholder has no value, or braces are left over, which the generations of
    the server read in different ways.
    """
    names = tuple(match[1] for match in PLACEHOLDER.finditer(template))
    rest = PLACEHOLDER.sub("", template)
    if any(name not in texts for name in names) or "${" in rest or "}" in rest:
        return None, names
    return PLACEHOLDER.sub(lambda match: texts[match[1]], template), names


def may_become(template: str, text: str) -> bool:
    """Whether a string of a definition can read ``text`` once its placeholders are filled in."""
    if template == text:
        return True
    parts = PLACEHOLDER.split(template)[::2]
    if len(parts) == 1:
        return False
    return re.fullmatch(".*".join(re.escape(part) for part in parts), text, re.DOTALL) is not None


def awaited_event(stage: Mapping[str, Any]) -> str | None:
    """The event, placeholders unfilled, that a stage of a definition waits for; None for other kinds."""
    wait = stage.get("wait_event")
    event = wait.get("event") if isinstance(wait, Mapping) else None
    return event if isinstance(event, str) else None


# ---- variables -----------------------------------------------------------------------------------


def variable_text(name: str, value: object, path: str | None = None) -> str:
    """The text of a variable's value: of str, bool, int, Decimal, date and aware datetime, and of nothing else."""
    where = path or f"variables.{name}"
    if isinstance(value, str):
        if not is_encodable(value):
            raise ValidationError(f"{where}: contains an unpaired surrogate and cannot be sent as UTF-8", path=where)
        return str.__str__(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValidationError(f"{where}: {value} is no number that can be sent", path=where)
        return format(value, "f")
    if isinstance(value, datetime):
        if value.tzinfo is None or value.utcoffset() is None:
            raise ValidationError(f"{where}: a datetime needs a time zone", path=where)
        return format_instant(value)
    if isinstance(value, date):
        return value.isoformat()
    remedy = {
        "NoneType": "leave it out or give a string",
        "float": f"give a string, an int or a Decimal, so that no digit is guessed; {SMALLEST_UNIT}, such as {EXAMPLE}",
    }.get(type(value).__name__, "give a string")
    raise ValidationError(f"{where}: a variable cannot be {type(value).__name__}: {remedy}", path=where)


def variable_texts(variables: object) -> dict[str, str]:
    """All variables as the strings that the API takes.

    Raises:
        ValidationError: names the key. Nothing was sent.
    """
    if variables is None:
        return {}
    if not isinstance(variables, Mapping):
        raise ValidationError(f"variables must be a mapping, not {type(variables).__name__}", path="variables")
    texts = {}
    for name, value in variables.items():
        if not isinstance(name, str) or not name:
            raise ValidationError(f"variables: the name {name!r} must be a non-empty string", path="variables")
        texts[name] = variable_text(name, value)
        if not is_encodable(name):
            raise ValidationError(
                f"variables: the name {name!r} contains an unpaired surrogate and cannot be sent as UTF-8",
                path="variables",
            )
    return texts
