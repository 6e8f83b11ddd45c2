"""The workflow that a call asks for, before anything is on record: read, or put on the server.

A definition that the server does not have is put there only once a run of it is about to be submitted: after all that
can be checked was checked, and after the key was found to stand for no other payment. So a call that is refused leaves
no workflow behind, which would have the name of the right one and say something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..api.calls import get_workflow
from ..api.errors import (
    AmbiguousRunError,
    AmbiguousSubmitError,
    KeyReusedError,
    NotFoundError,
    OrchestrationError,
    ValidationError,
    is_gateways_404,
    is_inconclusive,
    is_mendable,
    retold,
    summary,
)
from ..api.models import Workflow
from ..procedures.content import Content, content_of
from ..procedures.define import ensure_wanted, find_wanted, may_be_kept_as, to_be_created, wanted_of
from ..procedures.effects import Now, Procedure, insist
from ..procedures.gate import FORMAT, checkpoints_of, has_gate, unguarded_stage
from ..procedures.listing import Versions
from ..procedures.named_workflow import (
    WorkflowName,
    label_of,
    no_such_name,
    several_of_name,
    several_text,
    workflows_of,
)
from ..procedures.start import Starting, no_token
from ..procedures.unbound_variables import check_placeholders, check_unused
from ..procedures.variables import GATE_VARIABLE
from .comparing import Comparing
from .keeping import Keeper
from .observing import is_refusal, unread_text
from .record import RunRecord
from .request import OwnedRequest
from .resolve import How


class AskedWorkflow:
    """Reads it.

    Args:
        request: what is asked for.
        keeper: of its record.
        starting: the steps that the start of a run is made of; is told the workflow's id.
        comparing: is told the workflow and the content that is asked for.
        versions: of the API, by call.
        now: the clocks.

    Attributes:
        gated: whether runs of it wait at a gate.
        has_checkpoints: whether they wait at checkpoints; None where the workflow could not be read.
        missing: what is asked for is not on the server yet, see ``create``.
    """

    def __init__(
        self,
        request: OwnedRequest,
        keeper: Keeper,
        starting: Starting,
        comparing: Comparing,
        versions: Versions,
        now: Now,
    ) -> None:
        self.gated = False
        self.has_checkpoints: bool | None = None
        self._comparing = comparing
        self._request = request
        self._keeper = keeper
        self._starting = starting
        self._versions = versions
        self._now = now
        self._wanted: Mapping[str, Any] | None = None
        self._told: OrchestrationError | None = None

    @property
    def missing(self) -> bool:
        """Whether ``create`` is to be called before a run is submitted."""
        return self._wanted is not None

    def read(self, record: RunRecord | None, how: How) -> Procedure[None]:
        """Read the workflow, digest the content, check what is to be sent.

        Raises:
            OrchestrationError: nothing was started by this call; the message says what else may have been.
        """
        yield from self._guarded(self._read_and_check(record, how), record, how)

    def create(self, record: RunRecord | None, how: How) -> Procedure[None]:
        """Put on the server what is ``missing``: a run of it is to be submitted. Raises as ``read``."""
        yield from self._guarded(self._create(record, how), record, how)
        self._wanted = None

    def _guarded(self, steps: Procedure[None], record: RunRecord | None, how: How) -> Procedure[None]:
        try:
            yield from steps
        except OrchestrationError as error:
            refused = self._refused(record, how, error)
            if record is not None and is_refusal(refused):
                refused.run_may_exist = True  # what is on record could not be looked at
            raise refused from refused.__cause__

    def _read_and_check(self, record: RunRecord | None, how: How) -> Procedure[None]:
        request, starting = self._request, self._starting
        chosen = record.instance_id if record is not None else None
        workflow = yield from self._workflow(record, chosen, how)
        if workflow is None:
            self._read_none(record)
            return
        text = self._note(workflow)
        if workflow.deleted_at is not None and chosen is None:
            raise NotFoundError(f"workflow {workflow.id} was deleted at {workflow.deleted_at.isoformat()}")
        if chosen is None or how == "new":
            self._check_checkpoints(workflow)
            texts = {**starting.texts, GATE_VARIABLE: text} if self.gated else starting.texts
            yield from check_placeholders(
                workflow, texts, request.allow_unbound, self._versions, self._now, starting.until
            )
            check_unused(workflow, request.texts, strict=request.strict_variables)
        store = self._keeper.store
        unsure = record is None and how != "first"
        if unsure and not self.gated and store is not None and store.complete_since is None:
            raise ValidationError(
                "store: it vouches for nothing, and the workflow has no gate: a retry could not tell whether it paid. "
                "Use SqliteRunStore, define the workflow with a gate, or say first_attempt=True for a key that was "
                "never used",
                path="store",
            )

    def _create(self, record: RunRecord | None, how: How) -> Procedure[None]:
        chosen = record.instance_id if record is not None else None
        workflow = yield from self._workflow(record, chosen, how)
        if workflow is None:
            raise NotFoundError(
                f"the workflow could not be put on the server; nothing was started for key {self._request.run_key}"
            )
        self._note(workflow)

    def _note(self, workflow: Workflow) -> str:
        """Take the workflow for the one that is asked for; the text of the gate of its runs."""
        request, comparing = self._request, self._comparing
        comparing.workflow, self._starting.workflow_id = workflow, workflow.id
        if workflow.id:
            self._versions.remembered.note_workflow(workflow)
        comparing.content = self._content_of(
            workflow.stages, None if isinstance(request.workflow, Mapping) else workflow.id
        )
        text = comparing.content.gate_text(request.run_key, 0).text
        self.gated = has_gate(label_of(workflow), workflow.stages, text)
        self.has_checkpoints = bool(checkpoints_of(workflow.stages))
        return text

    def _content_of(self, stages: Sequence[Mapping[str, Any]], workflow_id: str | None) -> Content:
        request = self._request
        ignored = request.fingerprint_ignores
        return content_of(request.run_key, stages, request.texts, ignored=ignored, workflow_id=workflow_id)

    def _check_checkpoints(self, workflow: Workflow) -> None:
        """Refuse a workflow that was to have checkpoints, and pays somewhere without one."""
        number = unguarded_stage(workflow.stages) if self._request.checkpoints else None
        if number is not None:
            raise ValidationError(
                f"checkpoints: workflow {workflow.id} has none before stage {number}, which moves money: create it "
                "with ensure_workflow(…, gate=True, checkpoints=True)",
                path="checkpoints",
            )

    def _read_none(self, record: RunRecord | None) -> None:
        """The server hides the workflow, whose run is known. The variables are compared all the same."""
        request = self._request
        self.gated = self._keeper.store is None or bool(record is not None and record.gate)
        self._comparing.content = content_of(
            request.run_key, (), request.texts, ignored=request.fingerprint_ignores
        ).without_stages()
        self._comparing.hidden = True
        if record is not None and record.workflow_id:
            self._starting.workflow_id = record.workflow_id

    def _workflow(self, record: RunRecord | None, chosen: str | None, how: How) -> Procedure[Workflow | None]:
        """The workflow; None where it was deleted meanwhile on a server that then hides it, and its run is known.

        Raises:
            KeyReusedError: the key has a run, and several workflows have the name that is asked for now.
            ValidationError: several workflows have the name.
            StateUnknownError: it cannot be read, and a run is on record: another attempt goes on from there.
            AmbiguousRunError: it cannot be read, an earlier call may have started a run of it, and no attempt comes
                again with this key.
            OrchestrationError: it cannot be read.
        """
        request, starting = self._request, self._starting
        try:
            if isinstance(request.workflow, str):
                call = get_workflow(request.workflow, self._versions.plain)
                return (yield from insist(call, self._now, starting.until))
            if isinstance(request.workflow, WorkflowName):
                return (yield from self._named(request.workflow, record, chosen, how))
            return (yield from self._defined(request.workflow, record))
        except NotFoundError as error:
            mine = record is not None and request.workflow == record.workflow_id
            if chosen is not None and (mine or self._keeper.store is None):
                return None
            if starting.fresh or not is_gateways_404(error):
                raise
            why = f"a gateway answered for the server ({summary(error)}): check base_url"
            raise self._unknown(record, why, error) from error
        except OrchestrationError as caught:
            trouble = self._of_creation(caught)
            if (starting.fresh and chosen is None) or not is_inconclusive(trouble):
                raise trouble from trouble.__cause__
            raise self._unknown(record, f"the workflow could not be read ({summary(trouble)})", trouble) from trouble

    def _defined(self, definition: Mapping[str, Any], record: RunRecord | None) -> Procedure[Workflow]:
        """The workflow of a definition: the one on the server, else what is to be created, else that, created."""
        versions, now = self._versions, self._now
        if self._wanted is not None:
            return (yield from ensure_wanted(self._wanted, versions, now)).workflow
        wanted = wanted_of(definition, gate=True, checkpoints=self._request.checkpoints)
        found = yield from find_wanted(wanted, versions)
        if found is not None:
            return found
        if not (yield from self._may_be_compared(wanted, record)):
            return (yield from ensure_wanted(wanted, versions, now)).workflow
        self._wanted = wanted
        return to_be_created(wanted)

    def _may_be_compared(self, wanted: Mapping[str, Any], record: RunRecord | None) -> Procedure[bool]:
        """Whether a definition can be compared with the run on record before the server has it.

        The stages on record are those that the server has kept, and a server drops fields that it does not know. So
        where other fields are all that differs, only a workflow that is created tells whether it is the same payment.
        """
        if record is None or record.instance_id is None:
            return True  # there is nothing to compare it with
        if record.content.format != FORMAT or not record.workflow_id:
            return False
        if record.content.stages in ("", self._content_of(wanted["stages"], None).stages):
            return True
        try:
            call = get_workflow(record.workflow_id, self._versions.plain)
            return not may_be_kept_as(wanted, (yield from insist(call, self._now, self._starting.until)))
        except NotFoundError as error:
            if is_gateways_404(error):
                raise
            return False

    def _of_creation(self, error: OrchestrationError) -> OrchestrationError:
        """That a workflow may have been created starts no run: another attempt finds it on the list, or creates it."""
        cause = error.__cause__
        lost = isinstance(error, AmbiguousSubmitError) and isinstance(cause, OrchestrationError) and is_mendable(cause)
        if not lost or not isinstance(cause, OrchestrationError) or not self._starting.comes_again:
            return error
        return retold(cause, f"{error}; no run of it was started, and an attempt with the same key looks again")

    def _named(
        self, name: WorkflowName, record: RunRecord | None, chosen: str | None, how: How
    ) -> Procedure[Workflow | None]:
        """The one workflow of that name. A run on record is bound to the workflow that had the name when it began.

        Where that one was deleted meanwhile and none has the name, the run goes on; another one of the name is other
        content, which the comparison finds; several could be either.
        """
        found = yield from workflows_of(name, self._versions)
        if len(found) == 1:
            return found[0]
        if record is None or chosen is None or (found and how == "new"):
            raise several_of_name(name, found) if found else no_such_name(name)
        if found and self._request.on_changed != "adopt":
            raise KeyReusedError(
                f"run key {self._request.run_key} names the run {chosen} of workflow {record.workflow_id}, and by now "
                f"{several_text(name, found)}; nothing was started. Give workflow_id; or on_changed='adopt' goes on "
                "with that instance",
                run_key=self._request.run_key,
                differs="workflow",
                instance_id=chosen,
            )
        if not record.workflow_id:
            raise no_such_name(name)
        try:
            call = get_workflow(record.workflow_id, self._versions.plain)
            begun = yield from insist(call, self._now, self._starting.until)
        except NotFoundError as error:
            if is_gateways_404(error):
                raise
            return None
        if begun.name != name.name:
            raise no_such_name(name)
        return begun

    def _refused(self, record: RunRecord | None, how: How, error: OrchestrationError) -> OrchestrationError:
        """What an error of the input or of the workflow comes to, where the record leaves a doubt.

        A submit without a gate may be on record whose fate nobody knows or has settled. Then a run may exist, whatever
        is wrong with what is asked for now.
        """
        submitted = record is not None and record.state == "intended" and not record.gate
        if not submitted or how == "first" or self._keeper.has_token():
            return error
        if isinstance(error, AmbiguousRunError | KeyReusedError) or error is self._told:
            return error
        return self._unknown(record, f"now: {summary(error)}", error)

    def _unknown(self, record: RunRecord | None, why: str, error: OrchestrationError) -> OrchestrationError:
        """The error where an earlier attempt may have started a run, and what is asked for could not be found out."""
        starting = self._starting
        if record is None:
            # Nothing says that there was an earlier attempt, so there is nothing to settle: the call is to be repeated.
            starting.token = no_token
            what = (
                f"this call started nothing; whether an earlier one started a run of key {starting.key} is not known. "
                "Check base_url and call again with the same key"
            )
            self._told = starting.unread(why, error, what=what)
        elif record.instance_id is not None and is_mendable(error) and starting.comes_again:
            self._told = starting.unread(unread_text(record, summary(error)), error, instance_id=record.instance_id)
        else:
            candidates = () if record.instance_id is None else (record.instance_id,)
            why = f"an earlier attempt may have started it, and {why}"
            self._told = starting.unread(why, error, candidates)
        return self._told
