"""The tasks that create, delete and abort; ``tasks`` has those that run workflows and send events.

By default those whose repetition would change something have no retries. With retries that you give them, a change
whose answer was lost is not repeated: its AmbiguousSubmitError ends the task run. Each has a twin (``…_async``) for
asyncio.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..api.models import CancelOutcome, EnsuredTrigger, EnsuredWorkflow
from ..definition_files import read_definition
from ..http_hook import OrchestrationHttpHook
from ..procedures.limits import CANCEL_SECONDS
from ..procedures.verdicts import cancel_text
from ..procedures.wording import cancel_summary
from .api_tasks import Asked, changing, repeatable
from .credentials import Credentials
from .place import run_logger
from .plain_values import trigger_row
from .runs import stop_arguments
from .subjects import Subject, id_in, instance_id_of, run_key_of

# ---- workflows -------------------------------------------------------------------------------------


@repeatable("create-workflow")
def _create_workflow(
    credentials: Credentials,
    definition: Mapping[str, Any] | str | None = None,
    *,
    path: str | None = None,
    gate: bool = False,
    checkpoints: bool = False,
) -> Asked[str]:
    """Make sure that a definition is on the server; an equal one that is there already is used.

    You may give it retries: a try finds what an earlier one had created, and a second equal definition moves nothing.

    Args:
        credentials: the block, or the name of the stored block.
        definition: ``{"name": …, "stages": […]}``, or YAML text of the same.
        path: of a YAML or JSON file, instead of ``definition``.
        gate: have runs wait for their release before their first stage, so that no run is ever started
            twice for one key. Default False: the definition is sent as it is.
        checkpoints: with a gate, have runs wait before each further stage that moves money too, until whoever waits
            for the run lets it go on; so a stop holds before the next payment, on every server. Default False.

    Returns:
        The workflow's id.

    Raises:
        ValidationError: the definition is wrong; nothing was sent.
        AmbiguousSubmitError: it may have been created, and no list shows it.
    """
    given = read_definition(definition, path)

    def ensured(hook: OrchestrationHttpHook) -> EnsuredWorkflow:
        return hook.ensure_workflow(given, gate=gate, checkpoints=checkpoints)

    return Asked(credentials, ensured, lambda found: found.workflow.id)


@changing("delete-workflow")
def _delete_workflow(credentials: Credentials, workflow_id: Subject) -> Asked[str]:
    """Delete a workflow. Its instances go on.

    A retry after an error that leaves no doubt is harmless. After a delete, another one is a NotFoundError.

    Args:
        credentials: the block, or the name of the stored block.
        workflow_id: the id, or what another task returned that holds it.

    Returns:
        The id.

    Raises:
        NotFoundError: there is no such workflow, or it is deleted already.
        AmbiguousSubmitError: the answer was lost; it may have been deleted. No retry repeats it:
            ``get_workflow`` tells.
    """
    found = id_in(workflow_id, "workflow_id")
    return Asked(credentials, lambda hook: hook.delete_workflow(found), lambda _: found)


# ---- instances -------------------------------------------------------------------------------------


@repeatable("abort-instance")
def _abort_instance(credentials: Credentials, instance_id: Subject) -> Asked[dict[str, Any]]:
    """Ask the server to abort an instance, and do not look what comes of it: ``cancel_instance`` does.

    You may give it retries: a second request harms nothing.

    Args:
        credentials: the block, or the name of the stored block.
        instance_id: the id, or what ``run_workflow`` returned.

    Returns:
        ``{"instance_id", "abort_answer"}``. The answer ``204`` says that the server took the request. It does not say
        that the instance ended or will end.

    Raises:
        NotFoundError: there is no such instance, or it has ended (on some servers), or it never started.
        ServerError: some servers answer so, also where the instance goes on.
    """
    found = instance_id_of(instance_id)
    answer = {"instance_id": found, "abort_answer": "204"}
    return Asked(credentials, lambda hook: hook.abort_instance(found), lambda _: answer)


@repeatable("cancel-instance")
def _cancel_instance(
    credentials: Credentials, instance_id: Subject, *, timeout: float = CANCEL_SECONDS
) -> Asked[dict[str, Any]]:
    """Cancel an instance and say what is true then. You may give it retries: a repeated cancel harms nothing.

    Args:
        credentials: the block, or the name of the stored block.
        instance_id: the id, or what ``run_workflow`` returned.
        timeout: seconds until the outcome is ``not_confirmed``, default 15. In less than 12 nothing is said to be held.

    Returns:
        ``{"instance_id", "status", "state", "abort_answer", "in_flight", "stages_completed", "transactions",
        "maybe_repeated"}``; ``status`` is ``cancelled``, ``already_ended``, ``never_started``, ``held`` (it stands at
        the checkpoint before the stage ``checkpoint``, and nobody lets it pass before ``resume_run``) or
        ``not_confirmed`` (the instance may still run). ``held`` needs the run's record: give what ``run_workflow``
        returned, or call it in the flow that started the run. ``in_flight`` names the activities that were under way:
        their money may arrive all the same.

    Raises:
        NotFoundError: there is no such instance.
    """
    found = instance_id_of(instance_id)
    known = stop_arguments(found, run_key_of(instance_id))

    def shown(outcome: CancelOutcome) -> dict[str, Any]:
        if outcome.status == "not_confirmed":
            run_logger().error("instance %s: %s", found, cancel_text(outcome))
        elif outcome.status == "held":
            run_logger().warning("instance %s: %s", found, cancel_text(outcome))
        where = {} if outcome.checkpoint is None else {"checkpoint": outcome.checkpoint}
        return {**cancel_summary(found, outcome), **where}

    return Asked(credentials, lambda hook: hook.cancel(found, timeout=timeout, **known), shown)


# ---- triggers --------------------------------------------------------------------------------------


@changing("create-trigger")
def _create_trigger(
    credentials: Credentials,
    event: str,
    workflow_id: Subject,
    *,
    filter: str | None = None,
    variables: Mapping[str, str] | None = None,
    allow_unbound: bool = False,
) -> Asked[dict[str, Any]]:
    """Make sure that a trigger is on the server; an equal one that is there already is used.

    Two equal triggers would start two runs for each event. So a flow that is retried gets the trigger that its first
    attempt had created, and you may give the task retries. Two calls at the very same moment are not told apart.
    A warning says where the workflow has a gate, at which the runs of a trigger stand for ever, and where no
    placeholder asks for a variable.

    Args:
        credentials: the block, or the name of the stored block.
        event: type of the broker event, ``SAVED_PAYMENT``.
        workflow_id: what to run on it: the id, or what another task returned that holds it.
        filter: expression over ``event``, such as ``event.amount > 500``; None (default) for all events. A name without
            ``event.`` is nil, and ``amount > 500`` never fires.
        variables: expression by variable name, such as ``event.id``; a text has quotes of its own:
            ``'"merchants:m1"'``. Default none.
        allow_unbound: let placeholders without an expression pass; the server fills in nothing or a default. Default
            False.

    Returns:
        ``{"trigger_id", "event", "workflow_id", "filter", "variables", "created_at"}``.

    Raises:
        ValidationError: an expression or a name is bad, or a placeholder has no expression.
        NotFoundError: there is no such workflow, or the server has no triggers.
        AmbiguousSubmitError: it may have been created, and no list shows it. No retry repeats it: look at
            ``list_triggers`` before you create it again.
    """
    found = id_in(workflow_id, "workflow_id")

    def shown(ensured: EnsuredTrigger) -> dict[str, Any]:
        for warning in ensured.warnings:
            run_logger().warning("%s", warning)
        return trigger_row(ensured.trigger)

    return Asked(
        credentials,
        lambda hook: hook.ensure_trigger(event, found, filter=filter, variables=variables, allow_unbound=allow_unbound),
        shown,
    )


@changing("delete-trigger")
def _delete_trigger(credentials: Credentials, trigger_id: Subject) -> Asked[str]:
    """Delete a trigger: events start no more runs by it. Runs that it started go on.

    A retry after an error that leaves no doubt is harmless. After a delete, another one is a NotFoundError.

    Args:
        credentials: the block, or the name of the stored block.
        trigger_id: the id, or what ``create_trigger`` returned.

    Returns:
        The id.

    Raises:
        NotFoundError: there is no such trigger, or it is deleted already.
        AmbiguousSubmitError: the answer was lost; it may have been deleted, and may still start runs. No retry repeats
            it: ``get_trigger`` tells.
    """
    found = id_in(trigger_id, "trigger_id")
    return Asked(credentials, lambda hook: hook.delete_trigger(found), lambda _: found)


create_workflow, create_workflow_async = _create_workflow
delete_workflow, delete_workflow_async = _delete_workflow
abort_instance, abort_instance_async = _abort_instance
cancel_instance, cancel_instance_async = _cancel_instance
create_trigger, create_trigger_async = _create_trigger
delete_trigger, delete_trigger_async = _delete_trigger
