"""A run that does not outlive the block of code that it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal

from prefect.exceptions import Pause

from ..procedures.define import KEY_VARIABLE
from .cancelling import acancel_instances_now, cancel_instances_now
from .credentials import OrchestrationCredentials, settings_of
from .runs import WaitOptions, astart_run, start_run
from .steps import RunRequest
from .workflow import OrchestrationRun


def _left_for_good(error: BaseException | None) -> bool:
    """Not where the flow run is suspended: it will be resumed, and comes back to its run."""
    return error is not None and not isinstance(error, Pause)


class workflow_instance:
    """Start a run; cancel it if the block under ``with`` (or ``async with``) raises anything, signals included.

        with workflow_instance(credentials, workflow_id, {"amount": "100"}) as run:
            check_something()
            run.wait_for_completion()

    A block that ends without an exception leaves the run as it is: wait for it inside. So does the suspension of the
    flow run, which is resumed. Works in flows, in tasks and in plain code.

    Args:
        credentials: the block, or the name of the stored block.
        workflow_id, variables, step, run_key, rerun_failed, key_variable, allow_unbound: as for ``run_workflow``.
        timeout, poll_interval, on_timeout, cancel_on_interrupt, fail_after_attempts, show_progress: of waiting, as for
            ``wait_for_instance``.
    """

    def __init__(
        self,
        credentials: OrchestrationCredentials | str,
        workflow_id: str,
        variables: Mapping[str, Any] | None = None,
        *,
        step: str | None = None,
        run_key: str | None = None,
        rerun_failed: bool = False,
        key_variable: str = KEY_VARIABLE,
        allow_unbound: bool = False,
        timeout: float | None = None,
        poll_interval: float = 5.0,
        on_timeout: Literal["cancel", "leave"] = "cancel",
        cancel_on_interrupt: bool = True,
        fail_after_attempts: int | None = None,
        show_progress: bool = True,
    ) -> None:
        self._credentials = credentials
        self._request = RunRequest(workflow_id, variables, step, run_key, rerun_failed, key_variable, allow_unbound)
        self._options = WaitOptions(
            timeout, poll_interval, on_timeout, cancel_on_interrupt, fail_after_attempts, show_progress
        )
        self._run: OrchestrationRun | None = None

    def __enter__(self) -> OrchestrationRun:
        settings = settings_of(self._credentials)
        instance, key = start_run(settings, self._request, show_progress=self._options.show_progress)
        self._run = OrchestrationRun(settings, instance.id, instance.workflow_id, run_key=key, options=self._options)
        return self._run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None and _left_for_good(error):
            cancel_instances_now(self._run._settings, [self._run.instance_id], f"left by {type(error).__name__}")

    async def __aenter__(self) -> OrchestrationRun:
        settings = await asyncio.to_thread(settings_of, self._credentials)
        instance, key = await astart_run(settings, self._request, show_progress=self._options.show_progress)
        self._run = OrchestrationRun(settings, instance.id, instance.workflow_id, run_key=key, options=self._options)
        return self._run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None and _left_for_good(error):
            why = f"left by {type(error).__name__}"
            await acancel_instances_now(self._run._settings, [self._run.instance_id], why)
