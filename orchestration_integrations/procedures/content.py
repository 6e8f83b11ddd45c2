"""The content of a payment: what a key stands for, as digests.

A key names one payment. Whether a later call under the same key means the same payment is decided by comparing
contents: the digest of the stages, and a digest for each variable, so that an error can name the variable that
differs. The key salts every digest, so that equal contents under one key give equal digests, and equal values under
different keys do not. Digests are no encryption: whoever has a record can find a short value, such as an amount, by
trial. The name and the id of a workflow are not part of the content, so a definition that is created again under
another name is the same payment; but two workflows that a caller names *by id*, or by their names, are different.
Options and errors call the content ``fingerprint`` where a user may leave a variable out of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ..api.definitions import PLACEHOLDER, SAFE_INTEGER, canonical, strings_of
from ..api.models import StageRun
from .gate import FORMAT, GateText, own_stages

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?(e\+[0-9]+)?", re.ASCII)
GATE_DIGITS = 8
VARIABLE_DIGITS = 12


class Content(msgspec.Struct, frozen=True):
    """What is paid.

    Attributes:
        stages: digest of the stages; empty where they could not be read.
        variables: digest of each variable by name, without those that may differ.
        workflow_id: the workflow, where the caller named it by id or by name; None for a definition.
        format: version of the digests.
    """

    stages: str
    variables: Mapping[str, str]
    workflow_id: str | None = None
    format: str = FORMAT

    def without_stages(self) -> Content:
        """The same where the stages are not known."""
        return msgspec.structs.replace(self, stages="")

    def gate_text(self, key: str, round: int) -> GateText:
        """What the gate of a run of this content says."""
        return GateText(
            key=key, stages=self.stages, variables=_all_variables(key, self.variables), round=round, format=self.format
        )


UNKNOWN = Content(stages="", variables={}, format="")
"""The content of a run of which only the id is known: its gate says what it stands for."""


def content_of(
    key: str,
    stages: Sequence[Mapping[str, Any]],
    texts: Mapping[str, str],
    *,
    ignored: Sequence[str] = (),
    workflow_id: str | None = None,
) -> Content:
    """The content of a run.

    Args:
        key: of the run.
        stages: of the workflow, as the server keeps them.
        texts: the variables as they are sent, without those that carry the key and the gate.
        ignored: names of variables that may differ between attempts.
        workflow_id: where the caller named the workflow by id or by name.
    """
    plain = msgspec.json.encode(canonical({"stages": own_stages(stages)})["stages"], order="sorted")
    return Content(
        stages=_digest(key, "stages", plain, GATE_DIGITS),
        variables={
            name: _variable_digest(key, name, text) for name, text in sorted(texts.items()) if name not in ignored
        },
        workflow_id=workflow_id,
    )


def differences(recorded: Content, asked: Content, ignored: Sequence[str] = ()) -> tuple[str, ...]:
    """What differs: ``workflow``, ``variables.<name>``, in this order; empty for the same payment.

    Digests of another version cannot be compared; they count as equal. Variables named in ``ignored`` may differ.
    """
    if recorded.format != asked.format:
        return ()
    found = []
    by_id = recorded.workflow_id is not None and asked.workflow_id is not None
    other_id = by_id and recorded.workflow_id != asked.workflow_id
    other_stages = bool(recorded.stages and asked.stages) and recorded.stages != asked.stages
    if other_id or other_stages:
        found.append("workflow")
    names = sorted({*recorded.variables, *asked.variables} - set(ignored))
    found += [f"variables.{name}" for name in names if recorded.variables.get(name) != asked.variables.get(name)]
    return tuple(found)


def differs_from_gate(gate: GateText, asked: Content) -> tuple[str, ...]:
    """The same where only the gate's text is known: ``workflow``, ``content``."""
    if gate.format != asked.format:
        return ()
    wanted = asked.gate_text(gate.key, gate.round)
    found = []
    if asked.stages and gate.stages != wanted.stages:
        found.append("workflow")
    if gate.variables != wanted.variables:
        found.append("content")
    return tuple(found)


def differs_from_history(
    stages: Sequence[Mapping[str, Any]], texts: Mapping[str, str], history: Sequence[StageRun]
) -> tuple[str, ...]:
    """The variables whose values a run's history shows to be others: all that is known of a run without a gate.

    Only what a launched stage shows as a whole string is compared; the server normalises durations, and numbers from
    2**53 on lose digits there.
    """
    found: dict[str, None] = {}
    for name, theirs in shown_texts(stages, history):
        mine = texts.get(name, theirs)
        if mine != theirs and not (_is_large(mine) or _same_number(mine, theirs)):
            found[f"variables.{name}"] = None
    return tuple(found)


def shown_texts(stages: Sequence[Mapping[str, Any]], history: Sequence[StageRun]) -> Iterator[tuple[str, str]]:
    """(name, text) of each variable that a launched stage shows: as a whole string, or as the only one in a string.

    Durations are passed over.
    """
    for stage, run in zip(stages, history, strict=False):
        kind, body = next(iter(stage.items()), ("", {}))
        shown = dict(strings_of(_as_texts(run.input)))
        for path, template in strings_of(body if kind != "delay" else {}):
            found = _part_of(template, shown[path]) if path in shown else None
            if found is not None:
                yield found


def _part_of(template: str, shown: str) -> tuple[str, str] | None:
    """(name, text) of the only placeholder of a template; None where there are more, or the rest of it is not shown."""
    names = list(PLACEHOLDER.finditer(template))
    if len(names) != 1:
        return None
    before, after = template[: names[0].start()], template[names[0].end() :]
    if len(shown) < len(before) + len(after) or not (shown.startswith(before) and shown.endswith(after)):
        return None
    return names[0][1], shown[len(before) : len(shown) - len(after)]


def other_content(
    content: Content, key: str, key_variable: str, stages: Sequence[Mapping[str, Any]], history: Sequence[StageRun]
) -> str | None:
    """The name of a variable of which a run's history shows another text than its key was submitted with; None where it
    shows none. It may be the same payment all the same.

    Only digests of the texts are known, so a number that the server writes in another way (``007``) counts as another
    text, and so does a default that it fills in where a text is empty. A large number, which loses digits there, is
    passed over.
    """
    for name, shown in shown_texts(stages, history):
        digest = content.variables.get(name) if content.format == FORMAT else None
        if name == key_variable:
            if shown != key:
                return name
        elif digest is not None and not _is_large(shown) and _variable_digest(key, name, shown) != digest:
            return name
    return None


def _as_texts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_texts(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_texts(inner) for inner in value]
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _is_large(text: str) -> bool:
    """Whether a text is a number that the server keeps inexactly, in whichever way it writes it."""
    return _NUMBER.fullmatch(text) is not None and float(text) >= SAFE_INTEGER


def _same_number(mine: str, theirs: str) -> bool:
    return mine.isdecimal() and theirs.isdecimal() and int(mine) == int(theirs)


def _variable_digest(key: str, name: str, text: str) -> str:
    return _digest(key, f"variable {name}", text.encode(), VARIABLE_DIGITS)


def _all_variables(key: str, digests: Mapping[str, str]) -> str:
    return _digest(key, "variables", msgspec.json.encode(sorted(digests.items())), GATE_DIGITS)


def _digest(key: str, what: str, data: bytes, digits: int) -> str:
    parts = (FORMAT.encode(), key.encode(), what.encode(), data)
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hashlib.sha256(framed).hexdigest()[:digits]
