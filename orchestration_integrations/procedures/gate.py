"""The gate and the checkpoints: what they look like in a definition, and the texts that open them.

A gated definition begins with a stage that waits for the event ``go:${runGate}``. The start of a run fills in
``runGate``, so every run waits for an event of its own, and the engine's history shows that text for as long as it
keeps the run. The text therefore says whose run it is, readable by any later process without a record::

    <key>~<version><8 hex: stages><8 hex: variables>~<round>

It is read from the right, since a key may contain anything. One variable stands in the string and no more:
generation 1 of the server empties a string with two of them. What is sent to open a gate is always a text that was
recorded or read from the run itself, never one that was computed anew: a computed text could differ, and would then
open nothing, or the gate of another run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..api.definitions import awaited_event, may_become
from ..api.errors import ValidationError
from ..api.models import StageRun
from .variables import GATE_VARIABLE

OPENING = "go:"
GATE_EVENT = f"{OPENING}${{{GATE_VARIABLE}}}"
"""The event that a gate waits for, as it stands in a definition."""
FORMAT = "1"
"""Version of the text. A reader that meets another one cannot compare contents."""

MOVES_NOTHING = ("delay", "wait_event", "update")
"""Kinds of stage before which no checkpoint is needed. A kind that is not known here counts as moving money."""

_TEXT = re.compile(r"(.+)~(\w)([0-9a-f]{8})([0-9a-f]{8})~([0-9]{1,9})", re.DOTALL)
_OURS = re.compile(re.escape(GATE_EVENT) + r"(?::([0-9]{1,9}))?")
_BEHIND = re.compile(r"(.+):([0-9]{1,9})", re.DOTALL)


class GateText(msgspec.Struct, frozen=True):
    """What the text of a gate says.

    Attributes:
        key: whose run it is.
        stages: eight hexadecimal digits of the digest of the stages.
        variables: eight hexadecimal digits of the digest of the variables.
        round: the number of the run among those of its key, from 0.
        format: version of the text; empty where somebody else wrote it.
    """

    key: str
    stages: str
    variables: str
    round: int
    format: str = FORMAT

    @property
    def is_ours(self) -> bool:
        """Whether this package wrote it. Of another text nothing is known but itself: it is the key."""
        return self.format != ""

    @property
    def text(self) -> str:
        """The value of the variable ``runGate``."""
        if not self.is_ours:
            return self.key
        return f"{self.key}~{self.format}{self.stages}{self.variables}~{self.round}"


def parsed_text(text: object) -> GateText | None:
    """What a gate's text says; None where it is none of ours."""
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    return GateText(key=match[1], format=match[2], stages=match[3], variables=match[4], round=int(match[5]))


def opening_event(text: str) -> str:
    """The event that opens the gate of the run with this text."""
    return f"{OPENING}{text}"


def parsed_event(event: object) -> GateText | None:
    """What the event that a run's first stage waits for says of the run; None where that stage is no gate of ours."""
    if not isinstance(event, str) or not event.startswith(OPENING):
        return None
    return parsed_text(event[len(OPENING) :])


def gate_of(history: Sequence[StageRun]) -> GateText | None:
    """What the gate of a run says of it; None where its first stage is no gate, or the engine does not show it.

    A gate whose text somebody else wrote has that text for its key, which may be empty, and is not ``is_ours``.
    """
    event = history[0].input.get("event") if history and history[0].name == "RunWaitEvent" else None
    if not isinstance(event, str) or not event.startswith(OPENING):
        return None
    text = event.removeprefix(OPENING)
    return parsed_text(text) or GateText(key=text, stages="", variables="", round=0, format="")


def has_opened(history: Sequence[StageRun]) -> bool:
    """Whether the gate of a run was seen behind it."""
    return gate_of(history) is not None and history[0].terminated and history[0].error is None


def checkpoint_of(history: Sequence[StageRun]) -> int | None:
    """The user's number of the stage before which a run stands; None where it stands at no checkpoint of its own."""
    if len(history) < 2 or history[-1].name != "RunWaitEvent" or history[-1].terminated:
        return None
    gate, event = gate_of(history), history[-1].input.get("event")
    found = _BEHIND.fullmatch(event) if isinstance(event, str) else None
    # A text of the user's may look like one of ours, but not like those of this run.
    return int(found[2]) if gate is not None and found is not None and found[1] == opening_event(gate.text) else None


def stands_at_gate(history: Sequence[StageRun]) -> bool:
    """Whether a run stands at its gate, as far as the engine shows: the row says whether it still runs."""
    return gate_of(history) is not None and len(history) == 1 and not history[0].terminated


def checkpoint_event(text: str, number: int) -> str:
    """The event that lets the run with this text go on to the user's stage ``number``."""
    return f"{opening_event(text)}:{number}"


def parsed_checkpoint(event: object) -> tuple[GateText, int] | None:
    """(what the run's text says, the user's number of the stage behind it); None where no checkpoint waits for this."""
    match = _BEHIND.fullmatch(event) if isinstance(event, str) else None
    gate = parsed_event(match[1]) if match is not None else None
    return None if match is None or gate is None else (gate, int(match[2]))


def is_own_event(event: str) -> bool:
    """Whether an event opens a gate or a checkpoint of a run that this package submitted."""
    return parsed_event(event) is not None or parsed_checkpoint(event) is not None


def is_gate(stage: Mapping[str, Any]) -> bool:
    """Whether a stage of a definition is a gate."""
    return awaited_event(stage) == GATE_EVENT


def gated(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The definition with a gate before its stages, added once."""
    stages = list(definition["stages"])
    if not stages or not is_gate(stages[0]):
        stages.insert(0, {"wait_event": {"event": GATE_EVENT}})
    return {**definition, "stages": stages}


def checkpointed(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The definition with a gate, and with a checkpoint before each stage that moves money and has none before it."""
    stages: list[Mapping[str, Any]] = [{"wait_event": {"event": GATE_EVENT}}]
    for number, stage in enumerate(own_stages(definition["stages"])):
        if _moves_money(stage) and not is_own_stage(stages[-1]):
            stages.append({"wait_event": {"event": checkpoint_event(f"${{{GATE_VARIABLE}}}", number)}})
        stages.append(stage)
    return {**definition, "stages": stages}


def checkpoints_of(stages: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """The checkpoints of a workflow: by the server's number, the user's number of the stage behind."""
    found = {}
    for number, stage in enumerate(stages):
        ours = _OURS.fullmatch(awaited_event(stage) or "")
        if ours is not None and ours[1] is not None:
            found[number] = int(ours[1])
    return found


def unguarded_stage(stages: Sequence[Mapping[str, Any]]) -> int | None:
    """The user's number of the first stage that moves money and stands behind neither the gate nor a checkpoint."""
    for number, stage in enumerate(stages):
        if _moves_money(stage) and (number == 0 or not is_own_stage(stages[number - 1])):
            return own_number(stages, number)
    return None


def own_stages(stages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The stages that the user wrote: without the gate and without checkpoints."""
    return [stage for stage in stages if not is_own_stage(stage)]


def own_number(stages: Sequence[Mapping[str, Any]], number: int) -> int | None:
    """The user's number of the stage that the server calls ``number``; None for a stage that is not the user's."""
    if not 0 <= number < len(stages) or is_own_stage(stages[number]):
        return None
    return number - sum(is_own_stage(stage) for stage in stages[:number])


def is_own_stage(stage: Mapping[str, Any]) -> bool:
    """Whether a stage of a definition is a gate or a checkpoint."""
    event = awaited_event(stage)
    return event is not None and _OURS.fullmatch(event) is not None


def _moves_money(stage: Mapping[str, Any]) -> bool:
    return next(iter(stage), "") not in MOVES_NOTHING


def has_gate(workflow_id: str, stages: Sequence[Mapping[str, Any]], text: str) -> bool:
    """Whether runs of a workflow wait at a gate.

    Args:
        workflow_id: for messages.
        stages: of the workflow, as the server keeps them.
        text: of the gate of the run that is to be started; no other stage may wait for its event.

    Raises:
        ValidationError: the first stage is a gate of another form, or a later stage may wait for the gate's event.
    """
    first = awaited_event(stages[0]) if stages else None
    if first is None or not first.startswith(f"{OPENING}${{"):
        return False
    if first != GATE_EVENT:
        raise ValidationError(
            f"the first stage of workflow {workflow_id} waits for {first!r}, which is no gate that this version can "
            f"open; a gate waits for {GATE_EVENT!r}: create the workflow again with ensure_workflow(…, gate=True)",
            path="stages[0].wait_event.event",
        )
    checkpoints = checkpoints_of(stages)
    passes = {checkpoint_event(text, number) for number in checkpoints.values()}
    ours = 1
    for number, stage in enumerate(stages[1:], start=1):
        ours += is_own_stage(stage)
        event = awaited_event(stage)
        if event is None or not event.startswith(OPENING):
            continue
        where = f"stages[{number}].wait_event.event"
        if not is_own_stage(stage):
            if any(may_become(event, one) for one in (opening_event(text), *passes)):
                raise ValidationError(
                    f"stages[{number}] of workflow {workflow_id} may wait for the event of the gate or of a "
                    "checkpoint: a release could skip it",
                    path=where,
                )
            continue
        guarded = number + 1 < len(stages) and not is_own_stage(stages[number + 1])
        if checkpoints.get(number) != (number + 1 - ours if guarded else None):
            raise ValidationError(
                f"stages[{number}] of workflow {workflow_id} is a gate or a checkpoint that does not belong there: "
                "create the workflow again with ensure_workflow(…, gate=True, checkpoints=True)",
                path=where,
            )
    return True
