"""The job block: a workflow with its variables, stored and triggered as one; and the run it gives."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any, Literal

from prefect.blocks.abstract import JobBlock, JobRun
from pydantic import Field
from typing_extensions import Unpack

from ..api.errors import ConfigurationError, ValidationError
from ..api.models import CancelOutcome, Instance
from ..http_hook import AsyncOrchestrationHttpHook, OrchestrationHttpHook
from ..procedures.limits import CANCEL_SECONDS
from ..settings import Settings
from .block_links import DOCUMENTATION_URL, LOGO_URL
from .credentials import FACE, OrchestrationCredentials, settings_of, stored_name
from .known_fields import KnownFieldsOnly
from .options import DEFAULTS, RunAndWaitOptions, WaitOptions, option_field, start_options, takes, wait_options
from .owning import NAMES_OF_A_PAYMENT, RunRequest
from .runs import astart_run, await_run, described, start_run, stop_arguments, wait_run


class OrchestrationRun(JobRun[dict[str, Any]]):
    """A run of a workflow. Each method has a twin with the prefix ``a`` for asyncio.

    A pickled run holds no credentials: where it is unpickled, they are loaded from the block that was stored.

    Args:
        settings: of the server.
        instance_id: the run.
        workflow_id: what runs.
        run_key: its key.
        options: how to wait.
        stored_as: the name under which the credentials are stored; None where they are not.

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
        stored_as: str | None = None,
    ) -> None:
        self.instance_id = instance_id
        self.workflow_id = workflow_id
        self.run_key = run_key
        self._settings = settings
        self._lacks_secrets = False
        self._stored_as = stored_as
        self._options = wait_options(options or {})
        self._result: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        secret = bool(self._settings.secrets)
        settings = self._settings.without_secrets()
        return {**self.__dict__, "_settings": settings, "_lacks_secrets": self._lacks_secrets or secret}

    def __copy__(self) -> OrchestrationRun:
        # A copy stays in this process, so it keeps the credentials.
        again = type(self).__new__(type(self))
        again.__dict__.update(self.__dict__)
        return again

    def __deepcopy__(self, memo: dict[int, Any]) -> OrchestrationRun:
        again = self.__copy__()
        again.__dict__.update({name: deepcopy(value, memo) for name, value in self.__dict__.items()})
        return again

    def settings(self) -> Settings:
        """The settings of the server. Blocking where they have to be loaded.

        Raises:
            ConfigurationError: the run was pickled, and its credentials are not stored under a name.
        """
        if self._lacks_secrets:
            if self._stored_as is None:
                raise ConfigurationError(
                    "credentials: this run was pickled, which leaves its secrets out, and its credentials are not "
                    "stored: save the block and load it by name before the run is triggered",
                    field="credentials",
                )
            self._settings = settings_of(self._stored_as)
            self._lacks_secrets = False
        return self._settings

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.instance_id!r})"

    def wait_for_completion(self) -> dict[str, Any]:  # type: ignore[override]
        """Wait as the task ``wait_for_instance`` does, with its results and errors."""
        self._result = wait_run(self.settings(), self.instance_id, self._options, self.run_key)
        return self._result

    async def await_for_completion(self) -> dict[str, Any]:
        """As ``wait_for_completion``, for asyncio."""
        self._result = await await_run(
            await asyncio.to_thread(self.settings), self.instance_id, self._options, self.run_key
        )
        return self._result

    def fetch_result(self) -> dict[str, Any]:  # type: ignore[override]
        """The result of a run that has ended; one look where it was not waited for.

        Raises:
            WaitTimeoutError: it is still running.
            InstanceFailedError, InstanceCancelledError: how it ended.
        """
        if self._result is None:
            with OrchestrationHttpHook(self.settings(), face=FACE) as hook:
                self._result = described(hook.wait(self.instance_id, timeout=0))
        return self._result

    async def afetch_result(self) -> dict[str, Any]:
        """As ``fetch_result``, for asyncio."""
        if self._result is None:
            async with AsyncOrchestrationHttpHook(await asyncio.to_thread(self.settings), face=FACE) as hook:
                self._result = described(await hook.wait(self.instance_id, timeout=0))
        return self._result

    def cancel(self, *, timeout: float = CANCEL_SECONDS) -> CancelOutcome:
        """Cancel the run and say what is true then; ``not_confirmed`` after ``timeout`` seconds (default 15).

        ``held`` where it stands at a checkpoint and nobody lets it pass before ``resume_run``; ``checkpoint`` of the
        outcome is the stage behind. That takes 12 seconds.
        """
        known = stop_arguments(self.instance_id, self.run_key)
        with OrchestrationHttpHook(self.settings(), face=FACE) as hook:
            return hook.cancel(self.instance_id, timeout=timeout, **known)

    async def acancel(self, *, timeout: float = CANCEL_SECONDS) -> CancelOutcome:
        """As ``cancel``, for asyncio."""
        known = await asyncio.to_thread(stop_arguments, self.instance_id, self.run_key)
        async with AsyncOrchestrationHttpHook(await asyncio.to_thread(self.settings), face=FACE) as hook:
            return await hook.cancel(self.instance_id, timeout=timeout, **known)


class OrchestrationWorkflow(KnownFieldsOnly, JobBlock[dict[str, Any]]):
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
    _logo_url = LOGO_URL  # type: ignore[assignment]
    _documentation_url = DOCUMENTATION_URL  # type: ignore[assignment]
    _description = (
        "A workflow to run on a Formance Orchestration server, with its variables and how to wait for it. "
        "How to use it: `docs/prefect.md` of the package orchestration-integrations."
    )

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
    step: str | None = option_field("step")
    run_key: str | None = option_field("run_key")
    rerun_failed: bool = option_field("rerun_failed")
    on_changed: Literal["refuse", "adopt"] = option_field("on_changed")
    fingerprint_ignores: tuple[str, ...] = option_field("fingerprint_ignores")
    settled: str | None = option_field("settled")
    key_variable: str = option_field("key_variable")
    allow_unbound: bool = option_field("allow_unbound")
    strict_variables: bool = option_field("strict_variables")
    checkpoints: bool = option_field("checkpoints")
    poll_interval: float = option_field("poll_interval")
    timeout: float | None = option_field("timeout")
    on_timeout: Literal["cancel", "leave"] = option_field("on_timeout")
    cancel_on_interrupt: bool = option_field("cancel_on_interrupt")
    fail_after_attempts: int | None = option_field("fail_after_attempts")
    read_budget: float = option_field("read_budget")
    show_progress: bool = option_field("show_progress")

    @takes(RunAndWaitOptions)
    def trigger(  # type: ignore[override]
        self, variables: dict[str, Any] | None = None, **options: Unpack[RunAndWaitOptions]
    ) -> OrchestrationRun:
        """Start the run, as the task ``run_workflow`` does. In a flow that is retried it comes back to the same run.

        What is given here holds for this call alone; the block stays as it is. An option that is not given is as the
        block has it, and not as the default below. ``step`` and ``run_key`` both name the payment, so one of them
        given here takes the place of either of the block's. ``timeout`` is that of the wait.

        Args:
            variables: on top of the block's: a name that both have gets the value given here.
            {options}

        Raises:
            ConfigurationError: neither or both of ``workflow_id`` and ``definition`` are set.
            TypeError: an option is unknown. Nothing was sent.
            KeyReusedError, AmbiguousRunError, NotFoundError, ValidationError …: as ``run_workflow``.
        """
        request, how = self._asked(variables, options)
        settings = self.credentials.settings()
        if isinstance(request.workflow, Mapping) and not self.gate:
            with OrchestrationHttpHook(settings, face=FACE) as hook:
                request = replace(request, workflow=hook.ensure_workflow(request.workflow).workflow.id)
        instance, key = start_run(settings, request, how)
        return self._run(settings, instance, key, how)

    @takes(RunAndWaitOptions)
    async def atrigger(
        self, variables: dict[str, Any] | None = None, **options: Unpack[RunAndWaitOptions]
    ) -> OrchestrationRun:
        """As ``trigger``, for asyncio.

        Args:
            variables: on top of the block's.
            {options}
        """
        request, how = self._asked(variables, options)
        settings = await asyncio.to_thread(self.credentials.settings)
        if isinstance(request.workflow, Mapping) and not self.gate:
            async with AsyncOrchestrationHttpHook(settings, face=FACE) as hook:
                request = replace(request, workflow=(await hook.ensure_workflow(request.workflow)).workflow.id)
        instance, key = await astart_run(settings, request, how)
        return self._run(settings, instance, key, how)

    def _asked(self, variables: Mapping[str, Any] | None, given: Mapping[str, Any]) -> tuple[RunRequest, WaitOptions]:
        """What a call asks for, checked: the block's fields, and on top of them what the call gave."""
        if (self.workflow_id is None) == (self.definition is None):
            raise ConfigurationError("workflow_id: set either workflow_id or definition", field="workflow_id")
        if variables is not None and not isinstance(variables, Mapping):
            raise ValidationError(f"variables must be a mapping, not a {type(variables).__name__}", path="variables")
        options = {name: getattr(self, name) for name in DEFAULTS}
        if any(given.get(name) is not None for name in NAMES_OF_A_PAYMENT):
            options.update(dict.fromkeys(NAMES_OF_A_PAYMENT))
        options.update(given)
        workflow: str | Mapping[str, Any] = self.workflow_id or self.definition or ""
        if options["checkpoints"] and self.definition is not None and not self.gate:
            raise ValidationError("checkpoints: they need a gate; set gate of the block to True", path="checkpoints")
        request = RunRequest(workflow, {**self.variables, **(variables or {})}, start_options(options))
        return request, wait_options(options)

    def _run(self, settings: Settings, instance: Instance, key: str | None, how: WaitOptions) -> OrchestrationRun:
        return OrchestrationRun(
            settings,
            instance.id,
            instance.workflow_id,
            run_key=key,
            options=how,
            stored_as=stored_name(self.credentials),
        )
