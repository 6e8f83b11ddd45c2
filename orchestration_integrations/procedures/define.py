"""Making sure that a definition is on the server, without adding another copy at each deployment."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..api.calls import create_workflow, list_workflows
from ..api.definitions import awaited_event, canonical, validated_definition
from ..api.errors import AmbiguousSubmitError, OrchestrationError, ValidationError, is_ambiguous, summary
from ..api.models import EnsuredWorkflow, Workflow
from ..api.numbers import checked_flag
from .effects import Backoff, Now, Procedure, do, pause
from .gate import checkpointed, gated
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
    wanted = validated_definition(definition)
    checked_flag(gate, "gate")
    checked_flag(checkpoints, "checkpoints")
    if checkpoints and not gate:
        raise ValidationError("checkpoints: they need a gate; give gate=True too", path="checkpoints")
    _warn_repeated(wanted)
    if gate:
        wanted = checkpointed(wanted) if checkpoints else gated(wanted)
    target = canonical(wanted)
    lost: OrchestrationError | None = None
    for _ in range(CREATES):
        backoff = Backoff(now, first=0.2)
        for look in range(LOOKS if lost else 1):
            if look:
                yield from pause(backoff.seconds())
            try:
                found = yield from _find(target, versions)
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
        return EnsuredWorkflow(workflow=created, created=True)
    raise _maybe_created(wanted, summary(lost) if lost is not None else "") from lost


def _maybe_created(definition: Mapping[str, Any], why: str) -> AmbiguousSubmitError:
    name = definition.get("name") or "(unnamed)"
    return AmbiguousSubmitError(f"workflow {name} may have been created, but no list shows it: {why}")


def _find(target: Any, versions: Versions) -> Procedure[Workflow | None]:
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
