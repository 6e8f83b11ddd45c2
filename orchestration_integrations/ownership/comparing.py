"""The same key with other content is an error: never a second payment, and never the first one's success.

What a key stands for is known from the record, from the text of the run's gate, or, of a run without both, from what
its history shows of it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..api.calls import get_instance_history, get_workflow
from ..api.errors import (
    AmbiguousRunError,
    KeyReusedError,
    OrchestrationError,
    StateUnknownError,
    is_mendable,
    summary,
)
from ..api.models import Instance, Workflow
from ..procedures.content import UNKNOWN, Content, differences, differs_from_gate, differs_from_history
from ..procedures.effects import Now, Procedure, insist
from ..procedures.gate import parsed_text
from ..procedures.listing import Versions
from ..procedures.moved import NOTHING_READ
from ..procedures.wording import difference_text
from .keeping import Keeper
from .observing import Seen
from .resolve import Kind

logger = logging.getLogger("orchestration_integrations.ownership")

VERIFY_SECONDS = 10.0
"""Seconds for reading what a run that was adopted without a record has paid."""
_ENDED = {"succeeded": "succeeded", "failed": "failed", "cancelled": "been cancelled", "running": "not ended"}
_GOES_ON: tuple[Kind, ...] = ("adopt", "choose", "key reused", "continue", "resume", "report", "report held")


class Comparing:
    """Compares what is asked for with what the key stands for.

    Attributes:
        workflow: what is to run; None where the server hides it.
        content: what is asked for.
        hidden: the server hides the workflow, so that its stages cannot be compared.
    """

    def __init__(self, keeper: Keeper, versions: Versions, now: Now) -> None:
        self.workflow: Workflow | None = None
        self.content = Content(stages="", variables={})
        self.hidden = False
        self._keeper = keeper
        self._request = keeper.request
        self._versions = versions
        self._now = now

    def check(self, kind: Kind, seen: Seen) -> None:
        """Refuse what the table decided for, where it would take one payment for another.

        Raises:
            KeyReusedError: unless the caller adopts what the key stands for, or a new run takes new content.
        """
        if self._request.checkpoints and kind in ("continue", "adopt") and self.is_of_another(seen):
            logger.warning(
                "run key %s: instance %s goes on as it was started, in another workflow than the one with checkpoints "
                "that is asked for now: it waits at those that it has, which may be none",
                self._request.run_key,
                self._keeper.instance_id,
            )
        fixed = kind == "cancel first" and self._request.fixed_content  # before anything is done to the old run
        if (self.workflow is not None or self.hidden) and (fixed or kind in (*_GOES_ON, "new round")):
            self._refuse("new round" if fixed else kind, seen, self._differs(seen))

    def is_of_another(self, seen: Seen) -> bool:
        """Whether the run that was seen belongs to another workflow than the one that is asked for now."""
        if self.workflow is None or seen.instance is None:
            return False
        return seen.instance.workflow_id != self.workflow.id

    def _differs(self, seen: Seen) -> Sequence[str]:
        record = self._keeper.record
        by_record: Sequence[str] = ()
        gate = seen.found[0].gate if seen.found else None
        if record is not None and record.workflow_id:
            by_record = differences(record.content, self.content, self._request.fingerprint_ignores)
            if gate is None and record.content == UNKNOWN:
                gate = parsed_text(record.gate)
        if gate is None:
            stages = self.workflow.stages if self.workflow is not None else ()
            return by_record or differs_from_history(stages, self._texts(), seen.history)
        by_gate = differs_from_gate(gate, self.content)
        # The gate decides, since it is what was paid; the record names the variable where it knows it.
        return (by_record or by_gate) if by_gate else ()

    def _texts(self) -> dict[str, str]:
        return {name: text for name, text in self._request.texts.items() if name in self.content.variables}

    def _refuse(self, kind: Kind, seen: Seen, differs: Sequence[str]) -> None:
        if not differs:
            return
        request = self._request
        instance_id = seen.found[0].instance.id if seen.found else self._keeper.instance_id
        if instance_id is None and seen.instance is not None:
            instance_id = seen.instance.id
        what = difference_text(differs)
        ended = kind == "report" and seen.instance is not None and seen.instance.terminated
        state = f", which has {_ENDED[seen.instance.state]}" if seen.instance is not None else ""
        if kind == "new round":
            if not request.fixed_content:
                logger.warning("run key %s: the new run has other content than the last: %s", request.run_key, what)
                return
        elif request.on_changed == "adopt":
            logger.warning(
                "run key %s: going on with instance %s although %s (on_changed=adopt)",
                request.run_key,
                instance_id,
                what,
            )
            return
        remedy = "on_changed='adopt' goes on with that instance"
        if ended and seen.instance is not None and seen.instance.state != "succeeded":
            remedy = "rerun_failed=True starts a new run of this key"
        raise KeyReusedError(
            f"run key {request.run_key} names another payment (instance {instance_id}{state}): {what}; nothing was "
            f"started. Give this payment a key of its own; or {remedy}",
            run_key=request.run_key,
            differs=differs[0],
            instance_id=instance_id,
        )

    def verify(self, instance: Instance) -> Procedure[None]:
        """Before a success is told: what a run without a gate, adopted without a record, has paid.

        Raises:
            KeyReusedError: something else.
            StateUnknownError: that could not be read now; an attempt with the same key reads it again.
            AmbiguousRunError: its history cannot be read.
        """
        record, request = self._keeper.record, self._request
        if record is None or record.content != UNKNOWN or record.gate or self._keeper.store is None:
            return
        until = self._now.monotonic() + VERIFY_SECONDS
        try:
            workflow_call = get_workflow(instance.workflow_id, self._versions.plain)
            stages = (yield from insist(workflow_call, self._now, until)).stages
            call = get_instance_history(instance.id, self._versions.plain, strict=True)
            history = yield from insist(call, self._now, until)
        except OrchestrationError as error:
            succeeded = f"instance {instance.id} has run key {request.run_key} and succeeded"
            if is_mendable(error):
                raise StateUnknownError(
                    f"{succeeded}, and what it paid could not be read ({summary(error)}); an attempt with the same key "
                    "reads it again",
                    instance_id=instance.id,
                    instance=instance,
                    moved=NOTHING_READ,
                ) from error
            raise AmbiguousRunError(
                f"{succeeded}, and what it paid cannot be read ({summary(error)})",
                workflow_id=instance.workflow_id,
                run_key=request.run_key,
                window=(record.since, self._keeper.instant()),
                candidates=(instance.id,),
                token=self._keeper.token(),
            ) from error
        texts = {name: text for name, text in request.texts.items() if name not in request.fingerprint_ignores}
        self._refuse("report", Seen("ended well", instance=instance), differs_from_history(stages, texts, history))
