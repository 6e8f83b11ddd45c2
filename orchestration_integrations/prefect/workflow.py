"""The job block: a workflow with its variables, stored and triggered as one; and the run it gives."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from prefect.blocks.abstract import JobBlock, JobRun
from pydantic import Field

from ..api.errors import ConfigurationError
from ..api.models import CancelOutcome
from ..http_hook import AsyncOrchestrationHttpHook, OrchestrationHttpHook
from ..procedures.define import KEY_VARIABLE
from ..settings import Settings
from .credentials import FACE, OrchestrationCredentials
from .owning import RunRequest
from .runs import WaitOptions, astart_run, await_run, described, start_run, stop_arguments, wait_run


class OrchestrationRun(JobRun[dict[str, Any]]):
    """A run of a workflow. Each method has a twin with the prefix ``a`` for asyncio.

    Attributes:
        instance_id: the run.
        workflow_id: what runs.
        run_key: its key.
    """

    def __init__(
        self,
        settings: Settings,
        instance_id: str,
        workflow_id: str,
        *,
        run_key: str | None = None,
        options: WaitOptions | None = None,
    ) -> None:
        self.instance_id = instance_id
        self.workflow_id = workflow_id
        self.run_key = run_key
        self._settings = settings
        self._options = options or WaitOptions()
        self._result: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.instance_id!r})"

    def wait_for_completion(self) -> dict[str, Any]:  # type: ignore[override]
        """Wait as the task ``wait_for_instance`` does, with its results and errors."""
        self._result = wait_run(self._settings, self.instance_id, self._options, self.run_key)
        return self._result

    async def await_for_completion(self) -> dict[str, Any]:
        """As ``wait_for_completion``, for asyncio."""
        self._result = await await_run(self._settings, self.instance_id, self._options, self.run_key)
        return self._result

    def fetch_result(self) -> dict[str, Any]:  # type: ignore[override]
        """The result of a run that has ended; one look where it was not waited for.

        Raises:
            WaitTimeoutError: it is still running.
            InstanceFailedError, InstanceCancelledError: how it ended.
        """
        if self._result is None:
            with OrchestrationHttpHook(self._settings, face=FACE) as hook:
                self._result = described(hook.wait(self.instance_id, timeout=0))
        return self._result

    async def afetch_result(self) -> dict[str, Any]:
        """As ``fetch_result``, for asyncio."""
        if self._result is None:
            async with AsyncOrchestrationHttpHook(self._settings, face=FACE) as hook:
                self._result = described(await hook.wait(self.instance_id, timeout=0))
        return self._result

    def cancel(self, *, timeout: float = 15.0) -> CancelOutcome:
        """Cancel the run and say what is true then; ``not_confirmed`` after ``timeout`` seconds (default 15)."""
        known = stop_arguments(self.instance_id, self.run_key)
        with OrchestrationHttpHook(self._settings, face=FACE) as hook:
            return hook.cancel(self.instance_id, timeout=timeout, **known)

    async def acancel(self, *, timeout: float = 15.0) -> CancelOutcome:
        """As ``cancel``, for asyncio."""
        known = await asyncio.to_thread(stop_arguments, self.instance_id, self.run_key)
        async with AsyncOrchestrationHttpHook(self._settings, face=FACE) as hook:
            return await hook.cancel(self.instance_id, timeout=timeout, **known)


class OrchestrationWorkflow(JobBlock[dict[str, Any]]):
    """A workflow to run on a Formance Orchestration server, with its variables and how to wait for it.

    Example:
        Load a stored workflow, run it and wait for it:
        ```python
        from orchestration_integrations.prefect import OrchestrationWorkflow

        workflow = OrchestrationWorkflow.load("BLOCK_NAME")
        run = workflow.trigger()
        result = run.wait_for_completion()
        ```
    """

    _block_type_name = "Orchestration Workflow"
    _block_type_slug = "orchestration-workflow"
    _documentation_url = "https://docs.formance.com/modules/flows"  # type: ignore[assignment]
    _description = "A workflow to run on a Formance Orchestration server, with its variables and how to wait for it."

    credentials: OrchestrationCredentials = Field(description="Where the server is.")
    workflow_id: str | None = Field(default=None, description="Id of the workflow; instead of a definition.")
    definition: dict[str, Any] | None = Field(
        default=None, description="Definition of the workflow, put on the server where it is missing."
    )
    variables: dict[str, Any] = Field(
        default_factory=dict, description="Variables of the run; those given to trigger come on top."
    )
    gate: bool = Field(
        default=True, description="Whether runs of the definition wait for their release, so that none starts twice."
    )
    step: str | None = Field(default=None, description="Name of this start within a flow, as in run_workflow.")
    run_key: str | None = Field(default=None, description="Key of the run: one run per key.")
    rerun_failed: bool = Field(
        default=False, description="Whether a retry of the flow starts anew where the run had failed."
    )
    on_changed: Literal["refuse", "adopt"] = Field(
        default="refuse", description="What to do where the key stands for other content: refuse, or adopt that run."
    )
    fingerprint_ignores: tuple[str, ...] = Field(
        default=(), description="Names of variables that may differ between attempts."
    )
    settled: str | None = Field(
        default=None, description="Token of an AmbiguousRunError whose fate is settled; none for none."
    )
    key_variable: str = Field(default=KEY_VARIABLE, description="Variable that carries the key of the run.")
    allow_unbound: bool = Field(default=False, description="Whether placeholders without a value may pass.")
    poll_interval: float = Field(default=5.0, description="Longest seconds between two reads.")
    timeout: float | None = Field(default=None, description="Seconds to wait for the end; none means no limit.")
    on_timeout: Literal["cancel", "leave"] = Field(
        default="cancel", description="What becomes of a run that is given up: cancel or leave."
    )
    cancel_on_interrupt: bool = Field(
        default=True, description="Whether the run is cancelled when its start or wait is interrupted."
    )
    fail_after_attempts: int | None = Field(
        default=None, description="Failures of a payment after which the run is given up; none means never."
    )
    show_progress: bool = Field(default=True, description="Whether artifacts are written and events emitted.")

    def trigger(self, variables: dict[str, Any] | None = None) -> OrchestrationRun:  # type: ignore[override]
        """Start the run, as the task ``run_workflow`` does. In a flow that is retried it comes back to the same run.

        Args:
            variables: on top of the block's.

        Raises:
            ConfigurationError: neither or both of ``workflow_id`` and ``definition`` are set.
            KeyReusedError, AmbiguousRunError, NotFoundError, ValidationError …: as ``run_workflow``.
        """
        self._one_of_both()
        settings = self.credentials.settings()
        workflow: str | dict[str, Any] = self.workflow_id or self.definition or ""
        if self.definition is not None and not self.gate:
            with OrchestrationHttpHook(settings, face=FACE) as hook:
                workflow = hook.ensure_workflow(self.definition, gate=False).workflow.id
        instance, key = start_run(
            settings,
            self._request(workflow, variables),
            cancel_on_interrupt=self.cancel_on_interrupt,
            show_progress=self.show_progress,
        )
        return self._run(settings, instance.id, instance.workflow_id, key)

    async def atrigger(self, variables: dict[str, Any] | None = None) -> OrchestrationRun:
        """As ``trigger``, for asyncio."""
        self._one_of_both()
        settings = await asyncio.to_thread(self.credentials.settings)
        workflow: str | dict[str, Any] = self.workflow_id or self.definition or ""
        if self.definition is not None and not self.gate:
            async with AsyncOrchestrationHttpHook(settings, face=FACE) as hook:
                workflow = (await hook.ensure_workflow(self.definition, gate=False)).workflow.id
        instance, key = await astart_run(
            settings,
            self._request(workflow, variables),
            cancel_on_interrupt=self.cancel_on_interrupt,
            show_progress=self.show_progress,
        )
        return self._run(settings, instance.id, instance.workflow_id, key)

    def _one_of_both(self) -> None:
        if (self.workflow_id is None) == (self.definition is None):
            raise ConfigurationError("workflow_id: set either workflow_id or definition", field="workflow_id")

    def _request(self, workflow: str | dict[str, Any], variables: dict[str, Any] | None) -> RunRequest:
        return RunRequest(
            workflow,
            {**self.variables, **(variables or {})},
            self.step,
            self.run_key,
            self.rerun_failed,
            self.on_changed,
            self.fingerprint_ignores,
            self.settled,
            self.key_variable,
            self.allow_unbound,
        )

    def _run(self, settings: Settings, instance_id: str, workflow_id: str, key: str | None) -> OrchestrationRun:
        options = WaitOptions(
            self.timeout,
            self.poll_interval,
            self.on_timeout,
            self.cancel_on_interrupt,
            self.fail_after_attempts,
            self.show_progress,
        )
        return OrchestrationRun(settings, instance_id, workflow_id, run_key=key, options=options)
