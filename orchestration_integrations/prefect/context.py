"""A run that does not outlive the block of code that it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal

from prefect.exceptions import Pause

from ..procedures.define import KEY_VARIABLE
from .cancelling import Target, acancel_instances_now, cancel_instances_now
from .credentials import OrchestrationCredentials, settings_of
from .errors import FlowRunCancelledError
from .owning import RunRequest, record_of
from .place import here
from .runs import WaitOptions, astart_run, start_run
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
    return Target(run._settings, run.instance_id, record=record)


class workflow_instance:
    """Start a run; cancel it if the block under ``with`` (or ``async with``) raises anything, signals included.

        with workflow_instance(credentials, workflow_id, {"amount": "100"}) as run:
            check_something()
            run.wait_for_completion()

    A block that ends without an exception leaves the run as it is: wait for it inside. So does the suspension of the
    flow run, which is resumed. Works in flows, in tasks and in plain code.

    Args:
        credentials: the block, or the name of the stored block.
        workflow_id, variables, step, run_key, rerun_failed, on_changed, fingerprint_ignores, settled, key_variable,
            allow_unbound: as for ``run_workflow``.
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
        on_changed: Literal["refuse", "adopt"] = "refuse",
        fingerprint_ignores: Sequence[str] = (),
        settled: str | None = None,
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
        self._request = RunRequest(
            workflow_id,
            variables,
            step,
            run_key,
            rerun_failed,
            on_changed,
            fingerprint_ignores,
            settled,
            key_variable,
            allow_unbound,
        )
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
            cancel_instances_now([_target(self._run)], f"left by {type(error).__name__}")

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
            await acancel_instances_now([_target(self._run)], why)
