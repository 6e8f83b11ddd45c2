"""The operations of the API, each one call with its retries, and what is read by several of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...api import calls
from ...api.calls import Call
from ...api.models import ActivityRun, Instance, Occurrence, ServerInfo, StageRun, StandingRun, Trigger, Workflow
from ..asynchronous_driver import AsyncDriver


class AsyncOperations(AsyncDriver):
    """The operations of the API."""

    async def get_server_info(self) -> ServerInfo:
        """Operation OrchestrationgetServerInfo: the version of the server."""
        return await self._call(calls.get_server_info())

    async def list_workflows(self) -> Sequence[Workflow]:
        """Operation ListWorkflows: all of them, each once.

        Raises:
            ServerError: also where the list repeats its cursor and would never end.
        """
        return await self.perform(self.plans.listing(calls.list_workflows))

    async def create_workflow(self, definition: Mapping[str, Any]) -> Workflow:
        """Operation CreateWorkflow. See ``ensure_workflow`` for one that does not add a copy at each call.

        Args:
            definition: ``{"name": …, "stages": [{<kind>: {…}}, …]}``; checked first. Integers from 2**53 are sent
                as text.

        Raises:
            ValidationError: ``path`` names the place; nothing was sent.
            AmbiguousSubmitError: the answer was lost; it may have been created.
        """
        return await self._call(self.plans.create_workflow(definition))

    async def get_workflow(self, workflow_id: str) -> Workflow:
        """Operation GetWorkflow. A deleted one may still be answered, with ``deleted_at``.

        Raises:
            NotFoundError: there is no such workflow.
        """
        return await self._call(calls.get_workflow(workflow_id, self.plans.versions.plain))

    async def delete_workflow(self, workflow_id: str) -> None:
        """Operation DeleteWorkflow. Its instances go on.

        Raises:
            NotFoundError: there is no such workflow.
            ValidationError: the id is no UUID.
            AmbiguousSubmitError: the answer was lost; it may have been deleted.
        """
        await self._call(calls.delete_workflow(workflow_id, self.plans.versions.plain))

    async def run_workflow(
        self, workflow_id: str, variables: Mapping[str, Any] | None = None, *, wait: bool = False
    ) -> Instance:
        """Operation RunWorkflow: one plain submit, without a key. See ``start`` for one that survives a lost answer.

        Args:
            workflow_id: what to run.
            variables: by name; str, bool, int, Decimal, date, aware datetime become the strings that the API takes.
            wait: ask the server to hold the request until the run ends. It may answer early all the same: look at
                ``state`` of the instance, which is read again after the answer.

        Raises:
            ValidationError: a value has no unambiguous text; ``path`` names it; nothing was sent.
            NotFoundError: there is no such workflow.
            AmbiguousRunError: the answer was lost; a run may have started. It was not repeated.
            StateUnknownError: with ``wait``: it was started, and could not be read afterwards.
        """
        return await self.perform(self.plans.run_workflow(workflow_id, variables, wait))

    async def list_instances(self, workflow_id: str | None = None, running: bool | None = None) -> Sequence[Instance]:
        """Operation ListInstances: all of them, each once, in no order; those of deleted workflows are hidden.

        Args:
            workflow_id: only of this workflow.
            running: True for running ones only, False for ended ones only, None for both.
        """
        return await self.perform(self.plans.list_instances(workflow_id, running))

    async def get_instance(self, instance_id: str) -> Instance:
        """Operation GetInstance. Only this decides whether an instance exists and how it ended.

        Raises:
            NotFoundError: there is no such instance, or its row is not there yet.
        """
        return await self._call(calls.get_instance(instance_id, self.plans.versions.plain))

    async def get_instance_history(self, instance_id: str) -> Sequence[StageRun]:
        """Operation GetInstanceHistory: the stages whose work was launched. It costs about ten
        times as much as ``get_instance``.

        Raises:
            NotFoundError: the engine knows no such run, or no longer.
        """
        return await self._call(calls.get_instance_history(instance_id, self.plans.versions.plain))

    async def get_stage_history(self, instance_id: str, number: int) -> Sequence[ActivityRun]:
        """Operation GetInstanceStageHistory: what a stage did; empty for a ``delay`` or ``wait_event``.

        Args:
            instance_id: the instance.
            number: of the stage, from 0.

        Raises:
            NotFoundError: there is no such instance or stage, or the stage failed before its work.
        """
        return await self._call(calls.get_stage_history(instance_id, number, self.plans.versions.plain))

    async def send_event(self, instance_id: str, name: str) -> None:
        """Operation SendEvent: one plain submit. That it was taken does not mean that a stage heard it: see
        ``send_event_when_ready``.

        Raises:
            NotFoundError: there is no such instance, or no stage of it can take an event now.
            ServerError: the stage begun last has ended.
            AmbiguousSubmitError: the answer was lost; it may have been delivered. It was not repeated.
        """
        await self._call(calls.send_event(instance_id, name, self.plans.versions.plain))

    async def abort_instance(self, instance_id: str) -> None:
        """Operation CancelEvent: a request, not a result. See ``cancel``, which says what came of it.

        Raises:
            NotFoundError: there is no such instance, or it has ended (on some servers), or it never started.
            ServerError: some servers answer so, also where the instance goes on.
        """
        await self._call(calls.abort_instance(instance_id, self.plans.versions.plain))

    async def list_triggers(self) -> Sequence[Trigger]:
        """Operation ListTriggers: all of them, each once."""
        return await self.perform(self.plans.listing(calls.list_triggers))

    async def create_trigger(
        self, event: str, workflow_id: str, *, filter: str | None = None, variables: Mapping[str, str] | None = None
    ) -> Trigger:
        """Operation CreateTrigger.

        It does not look at the workflow; ``ensure_trigger`` tells of a gate and of variables that do not fit.

        Args:
            event: type of the broker event, ``SAVED_PAYMENT``.
            workflow_id: what to run on it.
            filter: expression over ``event``, such as ``event.amount > 500``; None for all. A name without
                ``event.`` is nil, and ``amount > 500`` never fires.
            variables: expression by variable name, such as ``event.id``; a text has quotes of its own:
                ``'"merchants:m1"'``.

        Raises:
            ValidationError: an expression or a name is bad.
            NotFoundError: there is no such workflow.
            AmbiguousSubmitError: the answer was lost; it may have been created.
        """
        version = self.plans.versions.plain
        call = calls.create_trigger(event, workflow_id, filter=filter, variables=variables, version=version)
        return await self._call(call)

    async def get_trigger(self, trigger_id: str) -> Trigger:
        """Operation ReadTrigger.

        Raises:
            NotFoundError: there is no such trigger.
        """
        return await self._call(calls.get_trigger(trigger_id, self.plans.versions.plain))

    async def delete_trigger(self, trigger_id: str) -> None:
        """Operation DeleteTrigger.

        Raises:
            NotFoundError: there is no such trigger.
            AmbiguousSubmitError: the answer was lost; it may have been deleted.
        """
        await self._call(calls.delete_trigger(trigger_id, self.plans.versions.plain))

    async def list_trigger_occurrences(self, trigger_id: str) -> Sequence[Occurrence]:
        """Operation ListTriggersOccurrences: each firing of a trigger; empty for an unknown one."""

        def page(version: calls.Version, cursor: str | None) -> Call[Any]:
            return calls.list_trigger_occurrences(trigger_id, version, cursor)

        page("v1", None)  # refuses a bad id before anything is sent
        return await self.perform(self.plans.listing(page))

    async def test_trigger(self, trigger_id: str, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Operation TestTrigger (v2 only): what filter and variables evaluate to for an event; starts nothing.

        Raises:
            NotFoundError: there is no such trigger, or the server has no v2.
        """
        return await self._call(calls.test_trigger(trigger_id, event))

    # Made of several operations

    async def list_standing(self, workflow_id: str) -> Sequence[StandingRun]:
        """List the runs of a gated workflow that stand still: at their gate, or at a checkpoint.

        A lost submit leaves a run at its gate. A stop, or the end of whoever waited for it, leaves one at a checkpoint.
        None of them moves money. It calls GetWorkflow, ListInstances, and GetInstanceHistory once for each running
        instance.

        Returns:
            The oldest first.

        Raises:
            NotFoundError: there is no such workflow.
        """
        return await self.perform(self.plans.list_standing(workflow_id))

    async def list_unreleased(self, workflow_id: str) -> Sequence[tuple[Instance, str]]:
        """List the runs of a gated workflow that still wait for their release.

        Lost submits leave such runs behind; they move nothing.
        It calls ListInstances, and GetInstanceHistory once for each running instance.

        Returns:
            (instance, run key), oldest first.
        """
        return await self.perform(self.plans.list_unreleased(workflow_id))
