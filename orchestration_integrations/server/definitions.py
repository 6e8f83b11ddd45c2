"""Definitions as the server reads them: the weak check at creation, variables, defaults, the check at launch.

Nothing here is stricter than the real server. A stage is described by a table of fields; reading it
against the raw object fills in variables and defaults and yields what the history shows as its input.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from . import golang

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class DefinitionError(ValueError):
    """A definition or a stage that the server refuses; the text is what it would say."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a stage: its name in messages, its key in JSON, what it holds."""

    name: str
    key: str
    kind: str  # str, bigint, duration, date, bool, strings, struct
    default: str = ""
    optional: bool = False  # left out of the input when absent
    required: bool = False  # checked at launch
    fields: tuple[Field, ...] = ()


def _account(later: bool, ledger: str = "default") -> tuple[Field, ...]:
    fields: tuple[Field, ...] = (
        Field("ID", "id", "str", required=True),
        Field("Ledger", "ledger", "str", ledger, required=True),
    )
    if later:
        fields += (
            Field("ThroughAccount", "throughAccount", "str", "world"),
            Field("AllowOverdraft", "allowOverdraft", "bool", "false"),
        )
    return fields


@lru_cache(maxsize=2)
def _tables(later: bool) -> dict[str, tuple[Field, ...]]:
    wallet: tuple[Field, ...] = (
        Field("ID", "id", "str", required=not later),
        Field("Balance", "balance", "str", "main", required=True),
    )
    payout: tuple[Field, ...] = (
        Field("PSP", "psp", "str"),
        Field("Metadata", "metadata", "str", "formanceAccountID" if later else "stripeConnectID"),
    )
    payin: tuple[Field, ...] = (Field("ID", "id", "str", required=True),)
    if later:
        wallet = (wallet[0], Field("Name", "name", "str"), wallet[1])
        payout += (
            Field("Type", "type", "str", "TRANSFER"),
            Field("SourceAccount", "sourceAccount", "str", optional=True),
            Field("WaitingValidation", "waitingValidation", "bool", "false"),
            Field("ConnectorID", "connectorId", "str", optional=True),
        )
        payin += (
            Field("Ledger", "ledger", "str", optional=True),
            Field("HoldingAccount", "holdingAccount", "str", optional=True),
            Field("ThroughAccount", "throughAccount", "str", "world"),
            Field("AllowOverdraft", "allowOverdraft", "bool", "false"),
        )

    def side(name: str, key: str, payment: tuple[Field, ...]) -> Field:
        return Field(
            name,
            key,
            "struct",
            fields=(
                Field("Wallet", "wallet", "struct", optional=True, fields=wallet),
                Field("Account", "account", "struct", optional=True, fields=_account(later)),
                Field("Payment", "payment", "struct", optional=True, fields=payment),
            ),
        )

    amount = (Field("Amount", "amount", "bigint"), Field("Asset", "asset", "str"))
    send: tuple[Field, ...] = (
        side("Source", "source", payin),
        side("Destination", "destination", payout),
        Field("Amount", "amount", "struct", optional=True, fields=amount),
    )
    tables = {
        "delay": (
            Field("Duration", "duration", "duration", optional=True),
            Field("Until", "until", "date", optional=True),
        ),
        "wait_event": (Field("Event", "event", "str", required=True),),
    }
    if later:
        send += (
            Field("Metadata", "metadata", "strings", optional=True),
            Field("Timestamp", "timestamp", "date", optional=True),
        )
        updated = (*_account(False, "main"), Field("Metadata", "metadata", "strings"))
        tables["update"] = (Field("Account", "account", "struct", optional=True, fields=updated),)
    tables["send"] = send
    return tables


_GREEDY = re.compile(r"\$\{.*\}")
_SINGLE = re.compile(r"\$\{[^}]+\}")
_BIG_INT = re.compile(r"[+-]?[0-9]{1,4000}", re.ASCII)
RUNNERS = {"send": "RunSend", "delay": "RunDelay", "wait_event": "RunWaitEvent", "update": "RunUpdate"}
_STRUCTS = {"send": "Send", "delay": "Delay", "wait_event": "WaitEvent", "update": "Update"}


def interpolate(text: str, variables: Mapping[str, str], generation: int) -> str:
    """Fill in `${name}`; an absent variable is the empty string. Generation 1 matches greedily."""
    if "${" not in text:
        return text
    pattern = _GREEDY if generation == 1 else _SINGLE
    return pattern.sub(lambda m: variables.get(m[0][2:-1], ""), text)


def has_variables(raw: Any) -> bool:
    """Whether a value, or any in it, has a `${name}`."""
    if isinstance(raw, dict):
        return any(map(has_variables, raw.values()))
    return isinstance(raw, str) and "${" in raw


def check(stages: Sequence[Any], generation: int) -> None:
    """The check at creation, with no variables. DefinitionError."""
    for stage in stages:
        if not stage:
            raise DefinitionError("empty specification")
        if len(stage) > 1:
            raise DefinitionError("a specification should have only one name")
        ((kind, raw),) = stage.items()
        resolve(kind, raw, {}, generation)


def resolve(kind: str, raw: Any, variables: Mapping[str, str], generation: int) -> dict[str, Any]:
    """A stage with variables and defaults filled in: values as Python objects. DefinitionError."""
    table = _tables(generation > 1).get(kind)
    if table is None:
        raise DefinitionError(f"unable to resolve schema {kind}")
    return _struct(table, raw or {}, variables, generation)


def _struct(table: Sequence[Field], raw: Any, variables: Mapping[str, str], generation: int) -> dict[str, Any]:
    out = {}
    for field in table:
        try:
            out[field.key] = _value(field, raw.get(field.key), variables, generation)
        except DefinitionError as error:
            raise DefinitionError(f"resolving field '{field.name}': {error}") from None
    return out


def _value(field: Field, raw: Any, variables: Mapping[str, str], generation: int) -> Any:
    if raw is None and field.optional:
        return None
    if field.kind == "struct":
        if not isinstance(raw, dict):
            raise DefinitionError(f"expected map but was {golang.go_type(raw)}")
        return _struct(field.fields, raw, variables, generation)
    if field.kind == "strings":
        if raw is None:
            return None
        if not isinstance(raw, dict):
            raise DefinitionError(f"expecting map, got type: {golang.go_type(raw)}")
        return {k: _text(v, "", variables, generation) for k, v in raw.items()}
    if field.kind == "bigint":
        return _big_int(raw, variables, generation)
    if field.kind == "bool":
        return _bool(field, raw, variables, generation)
    if field.kind == "duration":
        if not isinstance(raw, str):
            raise DefinitionError(f"expected uint or interpolated string but was {golang.go_type(raw)}")
        text = interpolate(raw, variables, generation)
        try:
            return golang.parse_duration(text) if text else 0
        except ValueError:
            raise DefinitionError("unable to resolve field 'Duration' to duration value") from None
    text = _text(raw, field.default, variables, generation)
    if field.kind == "date":
        try:
            golang.parse_instant(text)
        except ValueError:
            raise DefinitionError("expected date as rfc3339 format") from None
    return text


def _text(raw: Any, default: str, variables: Mapping[str, str], generation: int) -> str:
    if raw is None:
        return default
    if not isinstance(raw, str):
        raise DefinitionError(f"expected string but was {golang.go_type(raw)}")
    return interpolate(raw, variables, generation) or default


def _big_int(raw: Any, variables: Mapping[str, str], generation: int) -> int | None:
    if raw is None:
        return None
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        return golang.to_int64(raw)
    if not isinstance(raw, str):
        raise DefinitionError(f"expected big int or interpolated string but was {golang.go_type(raw)}")
    text = interpolate(raw, variables, generation)
    if not text:
        return None
    if not _BIG_INT.fullmatch(text):
        raise DefinitionError(f"unable to parse '{text}' as big int")
    return int(text)


def _bool(field: Field, raw: Any, variables: Mapping[str, str], generation: int) -> bool:
    if isinstance(raw, bool):
        return raw
    if raw is not None and not isinstance(raw, str):
        raise DefinitionError(f"expected uint or interpolated string but was {golang.go_type(raw)}")
    text = field.default if raw is None else interpolate(raw, variables, generation).lower()
    if text not in ("true", "false"):
        raise DefinitionError("unable to resolve field 'bool' to bool value")
    return text == "true"


def requirements(kind: str, stage: Mapping[str, Any], generation: int) -> str | None:
    """The check at launch: the text of what is missing, or None."""
    if kind == "delay":
        if (stage["duration"] is None) == (stage["until"] is None):
            return "\n".join(_failed(f"Delay.{x}", x, "duration or until") for x in ("duration", "until"))
        return None
    missing = list(_missing(_STRUCTS[kind], _tables(generation > 1)[kind], stage))
    if kind == "send" and generation > 1:
        for side in ("source", "destination"):
            wallet = stage[side]["wallet"]
            if wallet and bool(wallet["id"]) == bool(wallet["name"]):
                path = f"Send.{side.capitalize()}.Wallet.WalletReference"
                missing += [_failed(f"{path}.{x}", x, "id or name") for x in ("id", "name")]
    return "\n".join(missing) or None


def _missing(path: str, table: Sequence[Field], value: Mapping[str, Any]) -> list[str]:
    out = []
    for field in table:
        inner = value[field.key]
        if field.fields and inner is not None:
            out += _missing(f"{path}.{field.name}", field.fields, inner)
        elif field.required and not inner:
            out.append(_failed(f"{path}.{field.name}", field.name, "required"))
    return out


def _failed(path: str, name: str, tag: str) -> str:
    return f"Key: '{path}' Error:Field validation for '{name}' failed on the '{tag}' tag"


def shown_input(kind: str, stage: Mapping[str, Any], generation: int) -> dict[str, Any]:
    """A resolved stage as the history shows it: absent fields left out, numbers through a float."""
    return _shown(_tables(generation > 1)[kind], stage)


def _shown(table: Sequence[Field], value: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for field in table:
        inner = value[field.key]
        if inner is None and field.optional:
            continue
        if field.fields:
            out[field.key] = _shown(field.fields, inner)
        elif field.kind == "duration":
            out[field.key] = golang.format_duration(inner)
        elif field.kind == "bigint" and inner is not None:
            out[field.key] = golang.lossy(inner)
        elif field.key not in ("name", "allowOverdraft") or inner:
            out[field.key] = inner
    return out
