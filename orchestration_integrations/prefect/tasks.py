"""The tasks that run workflows, wait for runs and send them events. Each has a twin (``…_async``) for asyncio.

Credentials come first: the block, or the name under which it is stored. All of them return small plain
values. None is cached: a cached answer would be a payment not made, or a state long past.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from prefect.cache_policies import NO_CACHE
from typing_extensions import Unpack

from ..api.errors import EventNotDeliveredError
from ..api.models import Instance
from ..http_hook import AsyncOrchestrationHttpHook, OrchestrationHttpHook
from ..procedures.limits import START_SECONDS
from .credentials import FACE, OrchestrationCredentials, settings_of
from .events import EventRecord
from .mapping import credentials_task
from .options import RunOptions, WaitOptions, start_options, takes, wait_options
from .owner import WatchingClock
from .owning import RunRequest
from .runs import (
    astart_run,
    await_run,
    describe_start,
    start_run,
    wait_run,
)
from .subjects import instance_id_of, run_key_of
from .task_names import named

# ---- runs ------------------------------------------------------------------------------------------


@credentials_task(name="run-workflow", task_run_name=named("run-workflow"), cache_policy=NO_CACHE, retries=0)
@takes(RunOptions)
def run_workflow(
    credentials: OrchestrationCredentials | str,
    workflow_id: str,
    variables: Mapping[str, Any] | None = None,
    *,
    timeout: float = START_SECONDS,
    **options: Unpack[RunOptions],
) -> dict[str, Any]:
    """Start a run of a workflow, and do not wait for it. A retry of whatever encloses the call comes back to the run.

    Nor does it let a run pass checkpoints: a run that nobody waits for stands at its first one.

    The run is on record before it is released, and known to the transaction around, which cancels it if it is rolled
    back.

    Args:
        credentials: the block, or the name of the stored block.
        workflow_id: what to run; best one with a gate (``create_workflow(…, gate=True)``).
        variables: strings, booleans, integers, Decimals, dates and aware datetimes.
        timeout: seconds for all of the start, default 60. When they are over, it raises StateUnknownError if a run is
            on record, AmbiguousRunError if one may exist and nobody can find out, else the last error.
        {options}

    Returns:
        ``{"instance_id", "workflow_id", "state", "run_key"}``.

    Raises:
        KeyReusedError: the key stands for other content, or another call of this attempt has it; nothing was started.
        StateUnknownError: the run on record could not be read; a retry goes on with it.
        AmbiguousRunError: a run may exist, and nothing proves that it does or does not.
        OwnerGoneError: the flow run is over, or another attempt of it is at work; nothing was released.
        RecordConflictError, OwnerUnreachableError, WrongServerError, UnreadableRecordError: nothing was released.
        NotFoundError: there is no such workflow, or it is deleted. Nothing was sent.
        ValidationError: a placeholder has no value, or the input is wrong. Nothing was sent.
    """
    request = RunRequest(workflow_id, variables, start_options(options), timeout)
    instance, key = start_run(settings_of(credentials), request, wait_options(options))
    return describe_start(instance, key)


@credentials_task(name="run-workflow", task_run_name=named("run-workflow"), cache_policy=NO_CACHE, retries=0)
@takes(RunOptions)
async def run_workflow_async(
    credentials: OrchestrationCredentials | str,
    workflow_id: str,
    variables: Mapping[str, Any] | None = None,
    *,
    timeout: float = START_SECONDS,
    **options: Unpack[RunOptions],
) -> dict[str, Any]:
    """As ``run_workflow``, for asyncio."""
    request = RunRequest(workflow_id, variables, start_options(options), timeout)
    settings = await asyncio.to_thread(settings_of, credentials)
    instance, key = await astart_run(settings, request, wait_options(options))
    return describe_start(instance, key)


@credentials_task(name="wait-for-instance", task_run_name=named("wait"), cache_policy=NO_CACHE)
@takes(WaitOptions)
def wait_for_instance(
    credentials: OrchestrationCredentials | str,
    instance_id: str | Mapping[str, Any],
    **options: Unpack[WaitOptions],
) -> dict[str, Any]:
    """Wait until an instance has ended, and let it pass its checkpoints as long as the flow run wants it.

    You may retry it: it starts nothing.

    Args:
        credentials: the block, or the name of the stored block.
        instance_id: the id, or what ``run_workflow`` returned.
        {options}

    Returns:
        ``{"instance_id", "workflow_id", "state", "stages_completed", "transactions", "maybe_repeated"}``.

    Raises:
        InstanceFailedError, InstanceCancelledError: how it ended.
        WaitTimeoutError: it had not ended in time; the message says what became of it.
        InstanceStuckError: it never started, failed ``fail_after_attempts`` times, or is held at a checkpoint
            (``reason`` is ``held``): ``resume_run`` lets it go on.
        StateUnknownError: it could not be read for ``read_budget`` seconds; it may run.
        FlowRunCancelledError: the flow run is over (then the instance was cancelled), or is tried again.
        NotFoundError: there is no such instance.
    """
    found = instance_id_of(instance_id)
    return wait_run(settings_of(credentials), found, wait_options(options), run_key_of(instance_id))


@credentials_task(name="wait-for-instance", task_run_name=named("wait"), cache_policy=NO_CACHE)
@takes(WaitOptions)
async def wait_for_instance_async(
    credentials: OrchestrationCredentials | str,
    instance_id: str | Mapping[str, Any],
    **options: Unpack[WaitOptions],
) -> dict[str, Any]:
    """As ``wait_for_instance``, for asyncio."""
    found = instance_id_of(instance_id)
    how = wait_options(options)
    settings = await asyncio.to_thread(settings_of, credentials)
    return await await_run(settings, found, how, run_key_of(instance_id))


# ---- events ----------------------------------------------------------------------------------------


@credentials_task(name="send-event", task_run_name=named("send-event"), cache_policy=NO_CACHE, retries=0)
def send_event(
    credentials: OrchestrationCredentials | str,
    instance_id: str | Mapping[str, Any],
    event: str,
    *,
    stage: int | None = None,
    timeout: float | None = None,
) -> dict[str, Any]:
    """Wait until a stage listens for an event, send it, and see that the stage ended.

    A retry of whatever encloses the call does not send again what an earlier attempt had delivered. A second call in
    the same attempt is another one: it is sent, or refused where no stage listens any more.

    Args:
        credentials: the block, or the name of the stored block.
        instance_id: the id, or what ``run_workflow`` returned.
        event: its name.
        stage: which stage is meant, from 0, a gate included; needed where several wait for the name.
        timeout: seconds, None (default) for no limit.

    Returns:
        ``{"instance_id", "event", "state"}``.

    Raises:
        EventNotDeliveredError: ``reason`` says why.
        OwnerGoneError, OwnerUnreachableError, FlowRunCancelledError: the flow run is over; nothing was sent.
        NotFoundError: there is no such instance.
    """
    found = instance_id_of(instance_id)
    settings = settings_of(credentials)
    record = EventRecord(settings, found, event, stage)
    come_back = record.begin()
    with OrchestrationHttpHook(settings, face=FACE, clock=WatchingClock(record.owner)) as hook:
        if come_back:
            return _sent(hook.get_instance(found), event)
        try:
            instance = hook.send_event_when_ready(
                found, event, stage=stage, timeout=timeout, before_send=record.before_send
            )
        except EventNotDeliveredError as error:
            raise record.judged(error) from error
    record.delivered()
    return _sent(instance, event)


@credentials_task(name="send-event", task_run_name=named("send-event"), cache_policy=NO_CACHE, retries=0)
async def send_event_async(
    credentials: OrchestrationCredentials | str,
    instance_id: str | Mapping[str, Any],
    event: str,
    *,
    stage: int | None = None,
    timeout: float | None = None,
) -> dict[str, Any]:
    """As ``send_event``, for asyncio."""
    found = instance_id_of(instance_id)
    settings = await asyncio.to_thread(settings_of, credentials)
    record = EventRecord(settings, found, event, stage)
    come_back = await asyncio.to_thread(record.begin)
    async with AsyncOrchestrationHttpHook(settings, face=FACE, clock=WatchingClock(record.owner)) as hook:
        if come_back:
            return _sent(await hook.get_instance(found), event)
        try:
            instance = await hook.send_event_when_ready(
                found, event, stage=stage, timeout=timeout, before_send=record.before_send
            )
        except EventNotDeliveredError as error:
            raise record.judged(error) from error
    await asyncio.to_thread(record.delivered)
    return _sent(instance, event)


def _sent(instance: Instance, event: str) -> dict[str, Any]:
    return {"instance_id": instance.id, "event": event, "state": instance.state}
