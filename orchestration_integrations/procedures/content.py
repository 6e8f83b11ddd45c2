"""The content of a payment: what a key stands for, as digests.

A key names one payment. Whether a later call under the same key means the same payment is decided by comparing
contents: the digest of the stages, and a digest for each variable, so that an error can name the variable that
differs. The key salts every digest: equal contents under one key give equal digests, and amounts or account names
cannot be read out of a record. The name and the id of a workflow are not part of the content, so a definition that
is created again under another name is the same payment; but two workflows that a caller names *by id* are different.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..api.definitions import canonical
from .gate import FORMAT, GateText, own_stages

STAGES_DIGITS = 8
VARIABLE_DIGITS = 12


class Content(msgspec.Struct, frozen=True):
    """What is paid.

    Attributes:
        stages: digest of the stages; empty where they could not be read.
        variables: digest of each variable by name, without those that may differ.
        workflow_id: the workflow, where the caller named it by id; None for a definition.
        format: version of the digests.
    """

    stages: str
    variables: Mapping[str, str]
    workflow_id: str | None = None
    format: str = FORMAT

    def gate_text(self, key: str, round: int) -> GateText:
        """What the gate of a run of this content says."""
        return GateText(
            key=key, stages=self.stages, variables=_all_variables(key, self.variables), round=round, format=self.format
        )


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
        workflow_id: where the caller named the workflow by id.
    """
    plain = msgspec.json.encode(canonical({"stages": own_stages(stages)})["stages"], order="sorted")
    return Content(
        stages=_digest(key, "stages", plain, STAGES_DIGITS),
        variables={
            name: _digest(key, f"variable {name}", text.encode(), VARIABLE_DIGITS)
            for name, text in sorted(texts.items())
            if name not in ignored
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


def _all_variables(key: str, digests: Mapping[str, str]) -> str:
    return _digest(key, "variables", msgspec.json.encode(sorted(digests.items())), STAGES_DIGITS)


def _digest(key: str, what: str, data: bytes, digits: int) -> str:
    parts = (FORMAT.encode(), key.encode(), what.encode(), data)
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return hashlib.sha256(framed).hexdigest()[:digits]
