"""Making sure that a definition is on the server, without adding another copy at each deployment."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..api.calls import create_workflow, list_workflows
from ..api.definitions import awaited_event, canonical, validated_definition
from ..api.errors import AmbiguousSubmitError, OrchestrationError, ValidationError, is_ambiguous, summary
from ..api.instants import UNKNOWN_INSTANT
from ..api.models import EnsuredWorkflow, Workflow
from ..api.numbers import checked_flag
from .effects import Backoff, Now, Procedure, do, pause
from .gate import checkpointed, gated, own_stages
from .listing import Versions, list_all
from .named_workflow import meaning_of, oldest

logger = logging.getLogger("orchestration_integrations.procedures")

LOOKS = 4
"""Readings of the list after a create whose answer was lost, before it is sent again."""
CREATES = 3


def ensure_workflow(
    definition: Mapping[str, Any], *, gate: bool, checkpoints: bool = False, versions: Versions, now: Now
) -> Procedure[EnsuredWorkflow]:
    """Reuse the oldest workflow with this name and an equal config, else create one.

    A definition moves nothing by itself and the oldest equal one is used from then on, so a create
    whose answer was lost may be sent again once the list does not show it.

    Raises:
        ValidationError: the definition is wrong; nothing was sent.
        AmbiguousSubmitError: it may have been created, and no list says so.
    """
    return (yield from ensure_wanted(wanted_of(definition, gate=gate, checkpoints=checkpoints), versions, now))


def wanted_of(definition: Mapping[str, Any], *, gate: bool, checkpoints: bool = False) -> dict[str, Any]:
    """What is to be on the server for a definition: with the gate and the checkpoints that are asked for.

    Raises:
        ValidationError: the definition is wrong.
    """
    wanted = validated_definition(definition)
    checked_flag(gate, "gate")
    checked_flag(checkpoints, "checkpoints")
    if checkpoints and not gate:
        raise ValidationError("checkpoints: they need a gate; give gate=True too", path="checkpoints")
    _warn_repeated(wanted)
    if not gate:
        return wanted
    return checkpointed(wanted) if checkpoints else gated(wanted)


def to_be_created(wanted: Mapping[str, Any]) -> Workflow:
    """A definition that is on no server yet, as the workflow that it will be: it has no id."""
    return Workflow(
        id="",
        name=wanted.get("name") or "",
        stages=wanted["stages"],
        created_at=UNKNOWN_INSTANT,
        updated_at=UNKNOWN_INSTANT,
        deleted_at=None,
        raw={},
    )


def ensure_wanted(wanted: Mapping[str, Any], versions: Versions, now: Now) -> Procedure[EnsuredWorkflow]:
    """As ``ensure_workflow``, of what ``wanted_of`` gave."""
    target = canonical(wanted)
    lost: OrchestrationError | None = None
    for _ in range(CREATES):
        backoff = Backoff(now, first=0.2)
        for look in range(LOOKS if lost else 1):
            if look:
                yield from pause(backoff.seconds())
            try:
                found = yield from find_wanted(wanted, versions)
            except OrchestrationError as error:
                if lost is None:
                    raise
                raise _maybe_created(wanted, f"{summary(lost)}; then: {summary(error)}") from error
            if found is not None:
                return EnsuredWorkflow(workflow=found, created=lost is not None)
        try:
            created = yield from do(create_workflow(wanted, versions.plain), retried=True)
        except OrchestrationError as error:
            if not is_ambiguous(error):
                raise
            lost = error
            continue
        if created.deleted_at is not None or _contradicts(target, created):
            name = wanted.get("name") or "(unnamed)"
            raise AmbiguousSubmitError(
                f"workflow {name} may have been created, but the server answered with workflow {created.id}, which has "
                "another definition"
            )
        _warn_dropped(wanted, created)
        first = yield from _first(created, wanted, versions)
        return EnsuredWorkflow(workflow=first, created=first.id == created.id)
    raise _maybe_created(wanted, summary(lost) if lost is not None else "") from lost


def _first(created: Workflow, wanted: Mapping[str, Any], versions: Versions) -> Procedure[Workflow]:
    """The oldest equal workflow. Another call may have created one at the same moment: whoever comes later uses the
    oldest, and would not see the runs of the other."""
    try:
        found = yield from find_wanted(wanted, versions)
    except OrchestrationError as error:
        logger.warning("whether workflow %s is the only one of its kind was not read: %s", created.id, summary(error))
        return created
    return created if found is None else found


def _maybe_created(definition: Mapping[str, Any], why: str) -> AmbiguousSubmitError:
    name = definition.get("name") or "(unnamed)"
    return AmbiguousSubmitError(f"workflow {name} may have been created, but no list shows it: {why}")


def find_wanted(wanted: Mapping[str, Any], versions: Versions) -> Procedure[Workflow | None]:
    """The oldest workflow on the server that is what ``wanted_of`` gave; None where there is none."""
    target = canonical(wanted)
    # Strict: a second copy of the definition would hide the runs of the first one from every look.
    rows = yield from list_all(partial(list_workflows, strict=True), versions)
    equal = [row for row in rows if row.id and row.deleted_at is None and meaning_of(row) == target]
    return oldest(equal) if equal else None


def _warn_repeated(definition: Mapping[str, Any]) -> None:
    seen: dict[str, int] = {}
    for number, stage in enumerate(definition["stages"]):
        event = awaited_event(stage) if isinstance(stage, Mapping) else None
        if event is None:
            continue
        if event in seen:
            logger.warning(
                "stages %d and %d wait for the same event %r: a repeated event can release the later one",
                seen[event],
                number,
                event,
            )
        seen[event] = number


def may_be_kept_as(wanted: Mapping[str, Any], stored: Workflow) -> bool:
    """Whether a workflow may be what a server keeps of a definition, apart from its name: a server drops fields that it
    does not know, and changes and adds none."""
    sent, kept = (canonical({"stages": own_stages(stages)})["stages"] for stages in (wanted["stages"], stored.stages))
    return _is_left_of(sent, kept)


def _is_left_of(sent: Any, kept: Any) -> bool:
    if isinstance(sent, dict) and isinstance(kept, dict):
        return kept.keys() <= sent.keys() and all(_is_left_of(sent[key], kept[key]) for key in kept)
    if isinstance(sent, list) and isinstance(kept, list):
        return len(sent) == len(kept) and all(_is_left_of(*pair) for pair in zip(sent, kept, strict=True))
    return bool(sent == kept)


def _contradicts(target: Any, created: Workflow) -> bool:
    """Whether the stages that came back say something else than those that were sent. A server may drop fields."""
    if not created.stages:
        return False
    return _differs(target, meaning_of(created))


def _differs(sent: Any, stored: Any) -> bool:
    if isinstance(sent, dict) and isinstance(stored, dict):
        return any(_differs(sent[key], stored[key]) for key in sent.keys() & stored.keys())
    if isinstance(sent, list) and isinstance(stored, list):
        return len(sent) != len(stored) or any(_differs(*pair) for pair in zip(sent, stored, strict=True))
    return bool(sent != stored)


def _warn_dropped(sent: Mapping[str, Any], created: Workflow) -> None:
    if created.stages and meaning_of(created) != canonical(sent):
        logger.warning(
            "workflow %s was not stored as it was sent: the server drops fields that it does not know; "
            "compare its stages before running it",
            created.id,
        )
