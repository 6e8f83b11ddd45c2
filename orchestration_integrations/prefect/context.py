"""A run that does not outlive the block of code that it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from prefect.exceptions import Pause
from typing_extensions import Unpack

from ..api.models import Instance
from ..settings import Settings
from .cancelling import Target, acancel_instances_now, cancel_instances_now
from .credentials import OrchestrationCredentials, settings_of, stored_name
from .errors import FlowRunCancelledError
from .options import RunAndWaitOptions, start_options, wait_options
from .owning import RunRequest, record_of
from .place import here
from .runs import astart_run, start_run
from .workflow import OrchestrationRun


def _left_for_good(error: BaseException | None) -> bool:
    """Not where the flow run is suspended or tried again: it comes back to its run."""
    superseded = isinstance(error, FlowRunCancelledError) and error.superseded
    return error is not None and not isinstance(error, Pause) and not superseded


def _target(run: OrchestrationRun) -> Target:
    """What to cancel, with its record where that can be read. Blocking."""
    try:
        record = record_of(here(), run.instance_id, run.run_key)
    except Exception:  # the cancel matters more
        record = None
    return Target(run.settings(), run.instance_id, record=record)


class workflow_instance:
    """Start a run; cancel it if the block under ``with`` (or ``async with``) raises anything, signals included.

        with workflow_instance(credentials, workflow_id, {"amount": "100"}) as run:
            check_something()
            run.wait_for_completion()

    A block that ends without an exception leaves the run as it is: wait for it inside. So does the suspension of the
    flow run, which is resumed. Works in flows, in tasks and in plain code.

    Args:
        credentials: the block, or the name of the stored block.
        workflow_id: what to run.
        variables: as for ``run_workflow``.
        options: as keywords, those of ``run_workflow`` and of ``wait_for_instance``; ``timeout`` is that of the wait.
    """

    def __init__(
        self,
        credentials: OrchestrationCredentials | str,
        workflow_id: str,
        variables: Mapping[str, Any] | None = None,
        **options: Unpack[RunAndWaitOptions],
    ) -> None:
        self._credentials = credentials
        self._request = RunRequest(workflow_id, variables, start_options(options))
        self._options = wait_options(options)
        self._run: OrchestrationRun | None = None

    def _made(self, settings: Settings, instance: Instance, key: str | None) -> OrchestrationRun:
        return OrchestrationRun(
            settings,
            instance.id,
            instance.workflow_id,
            run_key=key,
            options=self._options,
            stored_as=stored_name(self._credentials),
        )

    def __enter__(self) -> OrchestrationRun:
        settings = settings_of(self._credentials)
        instance, key = start_run(settings, self._request, {**self._options, "cancel_on_interrupt": True})
        self._run = self._made(settings, instance, key)
        return self._run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None and _left_for_good(error):
            cancel_instances_now([_target(self._run)], f"left by {type(error).__name__}")

    async def __aenter__(self) -> OrchestrationRun:
        settings = await asyncio.to_thread(settings_of, self._credentials)
        instance, key = await astart_run(settings, self._request, {**self._options, "cancel_on_interrupt": True})
        self._run = self._made(settings, instance, key)
        return self._run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None and _left_for_good(error):
            why = f"left by {type(error).__name__}"
            await acancel_instances_now([_target(self._run)], why)
