"""The hook that users have: the operations, the procedures, and runs that are owned."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from ... import telemetry
from ...api.models import CancelOutcome, EnsuredTrigger, EnsuredWorkflow, Instance, RunResult
from ...clock import SYSTEM_CLOCK, Clock
from ...procedures.limits import CANCEL_SECONDS, START_SECONDS
from ...procedures.variables import KEY_VARIABLE
from ...settings import Settings
from ..base import NOT_GIVEN
from .waits import AsyncWaits

if TYPE_CHECKING:
    from ...ownership.record import RunStore
    from ..once import Once, OwnedRunHandle


class AsyncOrchestrationHttpHook(AsyncWaits):
    """Talks to an orchestration server without blocking the event loop. Use it as an async context manager.

    The tasks of an event loop may share it; it may be used on several loops in turn. Hooks of a process that reach the
    same server in the same way share one access token, one TLS context and one set of connections for each loop. A
    forked child makes its own.

    A pickled hook holds its credentials, and opens connections of its own where it is unpickled. Its ``on_token`` has
    to be picklable: a function of a module, no lambda.

    Args:
        settings: where the server is; or give the fields one by one; or nothing, and set ``ORCHESTRATION_URL``.
        base_url, token, client_id, client_secret, token_url, scope, api_version, verify, cert, timeout, retry_budget,
            max_connections: as in ``Settings``. What is given here wins over the environment.
        face: what calls this hook, for the User-Agent: ``airflow/3.3.2``.
        on_token: told each access token that is fetched, before this hook first sends it, so that it can be masked in
            logs. It may block: only calls that need the token for a hook with this listener wait, on an event loop
            until their deadline. What it raises is logged by its kind.
        clock, transport: time and httpx transport, for tests.
        own_connections: share nothing with other hooks.

    Callbacks (``on_stage``, ``on_chosen``, ``wants``, ``on_token``) may be plain or asynchronous functions.

    Raises:
        ConfigurationError: a setting is wrong or missing.

    All methods raise AuthenticationError, RateLimitedError, ServerError or TransportError where the server refuses or
    does not answer within the retry budget.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        base_url: str | None = NOT_GIVEN,
        token: str | None = NOT_GIVEN,
        client_id: str | None = NOT_GIVEN,
        client_secret: str | None = NOT_GIVEN,
        token_url: str | None = NOT_GIVEN,
        scope: str | None = NOT_GIVEN,
        api_version: str = NOT_GIVEN,
        verify: bool | str = NOT_GIVEN,
        cert: str | tuple[str, str] | None = NOT_GIVEN,
        timeout: float = NOT_GIVEN,
        retry_budget: float = NOT_GIVEN,
        max_connections: int = NOT_GIVEN,
        face: str | None = None,
        on_token: Callable[[str], object] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        transport: Any = None,
        own_connections: bool = False,
    ) -> None:
        super().__init__(
            settings,
            asynchronous=True,
            face=face,
            on_token=on_token,
            clock=clock,
            transport=transport,
            own_connections=own_connections,
            base_url=base_url,
            token=token,
            client_id=client_id,
            client_secret=client_secret,
            token_url=token_url,
            scope=scope,
            api_version=api_version,
            verify=verify,
            cert=cert,
            timeout=timeout,
            retry_budget=retry_budget,
            max_connections=max_connections,
        )

    async def start(
        self,
        workflow_id: str,
        variables: Mapping[str, Any] | None = None,
        *,
        run_key: str | None = None,
        first_attempt: bool = False,
        since: datetime | None = None,
        chosen: str | None = None,
        on_chosen: Callable[[str], object] | None = None,
        key_variable: str = KEY_VARIABLE,
        allow_unbound: bool = False,
        timeout: float = START_SECONDS,
        on_changed: Literal["refuse", "adopt"] = "refuse",
        fingerprint_ignores: Sequence[str] = (),
        wants: Callable[[], bool] | None = None,
        strict_variables: bool = False,
    ) -> Instance:
        """Start the one run of a key, or go on with it. It calls GetWorkflow, ListInstances, RunWorkflow, SendEvent.

        On a gated definition (``ensure_workflow(gate=True)``) callers one after another never release two runs of one
        key. On any other definition they never submit twice.

        Args:
            workflow_id: what to run.
            variables: as for ``run_workflow``.
            run_key: names the run; the same key again finds the same run. None (default): the hook makes a fresh key.
            first_attempt: True says that this key was never used before, so the hook looks for no earlier run. Default
                False.
            since: an aware datetime; the key is not older than this (the hook subtracts 5 minutes). The hook looks at
                no older runs, so it does not find a run of the key that is older. None (default): seven days ago.
            chosen: id of the instance that an earlier attempt had chosen, as its ``on_chosen`` was told: the hook
                releases that one and no other. None (default): the hook looks for a run of the key itself.
            on_chosen: told the instance's id before its release; it should store it where it outlives this process.
            key_variable: the variable that carries the key; default ``runKey``.
            allow_unbound: let placeholders without a value pass; the server fills in nothing or a default. Default
                False: they are a ValidationError.
            timeout: seconds for all of the start, default 60. When they are over, it raises AmbiguousRunError if a run
                may exist, else the last error.
            on_changed: what to do where the key stands for other variables: ``refuse`` (default), or ``adopt`` the run
                that has the key.
            fingerprint_ignores: names of variables that may differ between attempts.
            wants: asked right before the release whether the run is still wanted; True is yes, and nothing else is.
            strict_variables: refuse a variable that no placeholder asks for, with a ValidationError. Default False: a
                warning names it.

        Returns:
            The released instance; it may have ended already.

        Raises:
            NotFoundError: there is no such workflow, or it is deleted; nothing was sent.
            ValidationError: the input is wrong, or a placeholder has no value; nothing was sent.
            KeyReusedError: the key stands for a run with other variables. The gate of that run says so, to any process.
                Nothing says so for a workflow without a gate, or for a run of another workflow.
            OwnerGoneError: ``wants`` returned False; nothing was released.
            OwnerUnreachableError: ``wants`` raised for 30 s; nothing was released.
            AmbiguousRunError: a run may exist; its attributes say what is known. Do not use a new key.
        """
        with telemetry.span("start", workflow_id=workflow_id):
            return await self.perform(
                self.plans.start(
                    workflow_id,
                    variables,
                    run_key,
                    on_chosen,
                    wants,
                    first_attempt=first_attempt,
                    since=since,
                    chosen=chosen,
                    key_variable=key_variable,
                    allow_unbound=allow_unbound,
                    timeout=timeout,
                    on_changed=on_changed,
                    fingerprint_ignores=fingerprint_ignores,
                    strict_variables=strict_variables,
                )
            )

    async def run_once(
        self,
        workflow: str | Mapping[str, Any],
        variables: Mapping[str, Any] | None = None,
        *,
        run_key: str,
        store: RunStore,
        timeout: float | None = None,
        rerun_failed: bool = False,
        on_changed: Literal["refuse", "adopt"] = "refuse",
        fingerprint_ignores: Sequence[str] = (),
        settled: str | None = None,
        first_attempt: bool = False,
        wants: Callable[[], bool] | None = None,
        checkpoints: bool = False,
        cancel_on_interrupt: bool = True,
        on_timeout: Literal["cancel", "leave"] = "cancel",
        **as_for_start_and_wait: Any,
    ) -> RunResult:
        """Run a payment once and wait for its end, over any number of calls, processes and crashes.

        Call it again with the same key after whatever happened: it goes on with the run that stands there, or tells
        how it ended. It calls what ``ensure_workflow``, ``start``, ``wait`` and ``cancel`` call.

        Args:
            workflow: id of a workflow, or a definition, which is put on the server with a gate.
            variables: as for ``run_workflow``.
            run_key: names the payment. The same key with other content is an error.
            store: where the record of the key is kept: ``SqliteRunStore(path)``. ``MemoryRunStore`` ends with the
                process, so it is refused for a workflow without a gate.
            timeout: seconds from the call after which waiting ends; None (default) for no limit. It does not bound the
                start, which ``start_timeout`` does where the server does not answer.
            rerun_failed: a call after one that raised a bad end starts a new run. Its first stages move money again.
                If the last run was cancelled while a payment was under way, you must give ``settled`` first. Default
                False: the call raises that end again.
            on_changed: ``refuse`` (default) other content under the key, or ``adopt`` the run that has it.
            fingerprint_ignores: names of variables that may differ between calls.
            settled: the ``token`` of an AmbiguousRunError, default None. Give it once you know that that run did
                not pay and will not; the call may then start a new run, which moves money again.
            first_attempt: True says that the key was never used before. Default False.
            wants: asked right before the release, and before each checkpoint is passed, whether the run is still
                wanted; True is yes, and nothing else is.
            checkpoints: put a checkpoint before each stage that moves money and is not the first one. The run waits
                there until this call has asked ``wants`` and let it go on, so that a stop holds on every version of the
                server. A workflow that is given by its id must have them. Default False. A workflow that has
                checkpoints is let pass them in any case.
            cancel_on_interrupt: cancel the run if this call is interrupted: by Ctrl-C, by a signal whose handler raises
                anything, by the cancellation of its asyncio task or scope, or by an exception of ``on_stage``. Default
                True. What came of it is logged and stands in the notes of the interrupt. A second one is held back
                until then, a third goes through and says that the run may still run.
            on_timeout: ``cancel`` (default) or ``leave`` a run that is given up: at the end of ``timeout``, or because
                its state could not be read for ``read_budget`` seconds, or may not be read any more.
            as_for_start_and_wait: ``since``, ``key_variable``, ``allow_unbound``, ``strict_variables``, ``on_chosen``,
                ``start_timeout`` (seconds, default 60), ``poll_interval``, ``on_stage``, ``fail_after_attempts``,
                ``read_budget``, ``at_checkpoint`` (asked besides ``wants``, with the number of the stage).

        Returns:
            The instance, which succeeded, and what it moved.

        Raises:
            KeyReusedError: the key stands for other content, or another call of this process has it.
            InstanceFailedError, InstanceCancelledError, InstanceStuckError: how it ended; told again by later calls.
            WaitTimeoutError: it had not ended in time; the message says what became of it.
            StateUnknownError: the run on record could not be read; the same call goes on with it later.
            AuthenticationError: the server refuses the call. Where a run is begun, the message says what became of it.
            AmbiguousRunError: a run may exist, and the server's answers do not tell; ``token`` settles that once you
                know how it ended.
            RecordConflictError: another process has the key; nothing was released.
            OwnerGoneError, OwnerUnreachableError, UnreadableRecordError, WrongServerError, NotFoundError,
            ValidationError: nothing was released, unless ``run_may_exist`` is True: then the message tells of the run.
        """
        once = self.once(
            workflow,
            variables,
            run_key=run_key,
            store=store,
            timeout=timeout,
            rerun_failed=rerun_failed,
            on_changed=on_changed,
            fingerprint_ignores=fingerprint_ignores,
            settled=settled,
            first_attempt=first_attempt,
            wants=wants,
            checkpoints=checkpoints,
            cancel_on_interrupt=cancel_on_interrupt,
            on_timeout=on_timeout,
            **as_for_start_and_wait,
        )
        with telemetry.span("run_once", run_key=run_key):
            async with self._owning_interrupts(once):
                return await self.perform(once.run.run(once.waiting_for, on_timeout=once.on_timeout))

    @asynccontextmanager
    async def _owning_interrupts(self, once: Once) -> AsyncIterator[None]:
        """From the first submit to the return: an interrupt anywhere in it cancels the run.

        A second one may come on the way to the cancel of the first, when nothing holds it back yet. So there is more
        than one ``try``: the next one cancels then.
        """
        try:
            async with self._owning(once), self._owning(once), self._owning(once):
                yield
        finally:
            once.run.close()

    @asynccontextmanager
    async def _owning(self, once: Once) -> AsyncIterator[None]:
        from ..interrupts import acancel_interrupted  # now: an interrupt is no moment to look for files

        try:
            yield
        except BaseException as error:
            if once.cancel_on_interrupt and once.is_interrupt(error):
                await acancel_interrupted(self, once.run, error, once.begins_cancel)
            raise

    @asynccontextmanager
    async def owned_run(
        self, workflow: str | Mapping[str, Any], variables: Mapping[str, Any] | None = None, **as_for_run_once: Any
    ) -> AsyncIterator[OwnedRunHandle]:
        """As ``run_once``, around a block. The run is started on entry. Where the block raises it is cancelled; where
        the block ends without an exception it is waited for.

            async with hook.owned_run(definition, {"amount": 100}, run_key="order-17", store=store) as run:
                tell_somebody(run.instance_id)
            print(run.result.moved)

        Args:
            workflow, variables, as_for_run_once: as for ``run_once``.

        Returns:
            ``instance_id``, and after the block ``result``.
        """
        once = self.once(workflow, variables, **as_for_run_once)
        from ..interrupts import acancel_interrupted
        from ..once import OwnedRunHandle

        async with self._owning_interrupts(once):
            instance = await self.perform(once.run.begin())
            handle = OwnedRunHandle(instance_id=instance.id)
            try:
                yield handle
            except BaseException as error:
                if once.cancel_on_interrupt and once.is_own_process:
                    await acancel_interrupted(self, once.run, error, once.begins_cancel)
                raise
            handle.result = await self.perform(
                once.run.attend(instance.id, once.waiting_for, on_timeout=once.on_timeout)
            )

    async def send_event_when_ready(
        self,
        instance_id: str,
        name: str,
        *,
        stage: int | None = None,
        timeout: float | None = None,
        before_send: Callable[[], object] | None = None,
    ) -> Instance:
        """Wait until a stage listens for the event, send it, and see that this stage ended. It calls GetInstance,
        GetWorkflow, GetInstanceHistory and SendEvent.

        The hook cannot keep other senders out: two of them may release two stages of the same event.

        Args:
            instance_id: the instance.
            name: of the event.
            stage: which stage is meant, from 0, a gate included; needed where several stages wait for the name.
            timeout: seconds, None (default) for no limit.
            before_send: called right before the event is sent, each time; what it raises keeps it from being sent.

        Returns:
            The instance, read after that stage had ended.

        Raises:
            ValidationError: the event opens a gate or a checkpoint, which only a start with the run key may do; nothing
                was sent.
            EventNotDeliveredError: ``reason`` says why; ``unknown`` where it was sent and the stage still waits.
            NotFoundError: there is no such instance.
        """
        with telemetry.span("send_event", instance_id=instance_id):
            return await self.perform(self.plans.send_event_when_ready(instance_id, name, stage, timeout, before_send))

    async def cancel(
        self,
        instance_id: str,
        *,
        timeout: float = CANCEL_SECONDS,
        store: RunStore | None = None,
        run_key: str | None = None,
    ) -> CancelOutcome:
        """Abort an instance and read it until it has ended. You may repeat it: that harms nothing.

        It calls CancelEvent, GetInstance, GetInstanceHistory and GetInstanceStageHistory.

        Args:
            instance_id: the instance.
            timeout: seconds until the outcome is ``not_confirmed``, default 15.
            store, run_key: where the record of the run is kept, and its key. The hook puts the stop on record first, so
                that a later attempt knows that its own side cancelled the run, and that whoever waits for it lets it
                pass no further checkpoint. Default None: there is no record.

        Returns:
            What is true. ``status`` is ``cancelled`` (by this or an earlier cancel), ``already_ended`` (by itself),
            ``never_started`` (a row without a run), ``held`` (it stands at a checkpoint that nobody will let it pass;
            said with a record only, ten seconds after the stop was put there), or ``not_confirmed``: nobody saw it
            end, and it may run on. ``checkpoint``: the stage behind the checkpoint at which it stood.
            ``in_flight`` holds payments that were under way: their money may arrive all the same.

        Raises:
            NotFoundError: there is no such instance.
            AuthenticationError, ValidationError: the abort or the reads were refused. ``run_may_exist`` of an error is
                True where the instance may still run: the abort may have been taken, or the instance is on record.
                The message then says whether the stop is on record too.
        """
        with telemetry.span("cancel", instance_id=instance_id):
            return await self.perform(self.plans.cancel(instance_id, timeout, store, run_key))

    async def ensure_workflow(
        self, definition: Mapping[str, Any], *, gate: bool = False, checkpoints: bool = False
    ) -> EnsuredWorkflow:
        """Find the oldest workflow with this name and an equal config, or create it.

        It calls ListWorkflows and CreateWorkflow.

        Args:
            definition: as for ``create_workflow``.
            gate: have runs wait for their release before their first stage, so that ``start`` never runs a key twice.
                Default False.
            checkpoints: have runs wait before each further stage that moves money too, until whoever waits for the run
                lets it go on. They need a gate. Default False.

        Returns:
            The workflow, and whether this call created it.

        Raises:
            ValidationError: ``path`` names the place; nothing was sent.
            AmbiguousSubmitError: it may have been created, and no list shows it.
        """
        with telemetry.span("ensure"):
            return await self.perform(self.plans.ensure_workflow(definition, gate, checkpoints))

    async def ensure_trigger(
        self,
        event: str,
        workflow_id: str,
        *,
        filter: str | None = None,
        variables: Mapping[str, str] | None = None,
        allow_unbound: bool = False,
    ) -> EnsuredTrigger:
        """Find the oldest trigger with this event, workflow, filter and variables, or create it.

        Two equal triggers would start two runs for each event. It calls ReadWorkflow, ListTriggers and CreateTrigger.
        A warning says where the workflow has a gate, at which the runs of a trigger stand for ever, and where no
        placeholder asks for a variable.

        Args:
            event, workflow_id, filter, variables: as for ``create_trigger``.
            allow_unbound: let placeholders without an expression pass; the server fills in nothing or a default.
                Default False.

        Returns:
            The trigger, and whether this call created it.

        Raises:
            ValidationError: an expression or a name is bad, or a placeholder has no expression.
            NotFoundError: there is no such workflow.
            AmbiguousSubmitError: it may have been created, and no list shows it. It was not sent again.
        """
        with telemetry.span("ensure_trigger"):
            plan = self.plans.ensure_trigger(event, workflow_id, filter, variables, allow_unbound)
            return await self.perform(plan)
