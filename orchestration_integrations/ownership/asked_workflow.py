"""The workflow that a call asks for, read or put on the server, before anything is on record."""

from __future__ import annotations

from ..api.calls import get_workflow
from ..api.errors import AmbiguousRunError, NotFoundError, OrchestrationError, is_gateways_404, is_inconclusive, summary
from ..api.models import Workflow
from ..procedures.define import ensure_workflow
from ..procedures.effects import Now, Procedure, insist
from ..procedures.listing import Versions
from ..procedures.start import Starting
from .keeping import Keeper
from .record import RunRecord
from .request import OwnedRequest


class AskedWorkflow:
    """Reads it. Arguments as of ``Beginning``."""

    def __init__(self, request: OwnedRequest, keeper: Keeper, starting: Starting, versions: Versions, now: Now) -> None:
        self._request = request
        self._keeper = keeper
        self._starting = starting
        self._versions = versions
        self._now = now

    def read(self, record: RunRecord | None, chosen: str | None) -> Procedure[Workflow | None]:
        """The workflow; None where it was deleted meanwhile on a server that then hides it, and its run is known.

        Raises:
            AmbiguousRunError: it cannot be read, and an earlier attempt may have started a run of it.
            OrchestrationError: it cannot be read, and nobody can have started anything.
        """
        request, starting = self._request, self._starting
        try:
            if isinstance(request.workflow, str):
                call = get_workflow(request.workflow, self._versions.plain)
                return (yield from insist(call, self._now, starting.until))
            ensured = yield from ensure_workflow(request.workflow, gate=True, versions=self._versions, now=self._now)
        except NotFoundError as error:
            mine = record is not None and request.workflow in (record.workflow_id, "")
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
