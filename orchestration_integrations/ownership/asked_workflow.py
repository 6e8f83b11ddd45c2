"""The workflow that a call asks for, read or put on the server, before anything is on record."""

from __future__ import annotations

from ..api.calls import get_workflow
from ..api.errors import (
    AmbiguousRunError,
    KeyReusedError,
    NotFoundError,
    OrchestrationError,
    is_gateways_404,
    is_inconclusive,
    summary,
)
from ..api.models import Workflow
from ..procedures.define import ensure_workflow
from ..procedures.effects import Now, Procedure, insist
from ..procedures.listing import Versions
from ..procedures.named_workflow import (
    WorkflowName,
    no_such_name,
    several_of_name,
    several_text,
    workflows_of,
)
from ..procedures.start import Starting
from .keeping import Keeper
from .record import RunRecord
from .request import OwnedRequest
from .resolve import How


class AskedWorkflow:
    """Reads it.

    Args:
        request: what is asked for.
        keeper: of its record.
        starting: the steps that the start of a run is made of.
        versions: of the API, by call.
        now: the clocks.
    """

    def __init__(self, request: OwnedRequest, keeper: Keeper, starting: Starting, versions: Versions, now: Now) -> None:
        self._request = request
        self._keeper = keeper
        self._starting = starting
        self._versions = versions
        self._now = now

    def read(self, record: RunRecord | None, chosen: str | None, how: How) -> Procedure[Workflow | None]:
        """The workflow; None where it was deleted meanwhile on a server that then hides it, and its run is known.

        Raises:
            KeyReusedError: the key has a run, and several workflows have the name that is asked for now.
            ValidationError: several workflows have the name.
            AmbiguousRunError: it cannot be read or is not there, and an earlier attempt may have started a run of it.
            OrchestrationError: it cannot be read, and nobody can have started anything.
        """
        request, starting = self._request, self._starting
        try:
            if isinstance(request.workflow, str):
                call = get_workflow(request.workflow, self._versions.plain)
                return (yield from insist(call, self._now, starting.until))
            if isinstance(request.workflow, WorkflowName):
                return (yield from self._named(request.workflow, record, chosen, how))
            ensured = yield from ensure_workflow(request.workflow, gate=True, versions=self._versions, now=self._now)
        except NotFoundError as error:
            mine = record is not None and request.workflow == record.workflow_id
            if chosen is not None and (mine or self._keeper.store is None):
                return None
            if starting.fresh or not is_gateways_404(error):
                raise
            why = f"a gateway answered for the server ({summary(error)}): check base_url"
            raise self._unknown(record, why, error) from error
        except OrchestrationError as error:
            if (starting.fresh and chosen is None) or not is_inconclusive(error):
                raise
            raise self._unknown(record, f"the workflow could not be read ({summary(error)})", error) from error
        return ensured.workflow

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

    def refused(self, record: RunRecord | None, how: How, error: OrchestrationError) -> OrchestrationError:
        """What an error of the input or of the workflow comes to, where the record leaves a doubt.

        A submit without a gate may be on record whose fate nobody knows or has settled. Then a run may exist, whatever
        is wrong with what is asked for now.
        """
        submitted = record is not None and record.state == "intended" and not record.gate
        if not submitted or how == "first" or self._keeper.has_token():
            return error
        if isinstance(error, AmbiguousRunError | KeyReusedError):
            return error
        return self._unknown(record, f"now: {summary(error)}", error)

    def _unknown(self, record: RunRecord | None, why: str, error: OrchestrationError) -> AmbiguousRunError:
        starting = self._starting
        if record is None:
            # Nothing says that there was an earlier attempt, so there is nothing to settle: the call is to be repeated.
            starting.token = None
            what = (
                f"this call started nothing; whether an earlier one started a run of key {starting.key} is not known. "
                "Check base_url and call again with the same key"
            )
            return starting.ambiguous(why, (), error, what=what)
        candidates = () if record.instance_id is None else (record.instance_id,)
        return starting.ambiguous(f"an earlier attempt may have started it, and {why}", candidates, error)
