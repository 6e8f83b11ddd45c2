"""The shared hook: every operation of the API and every procedure, retried safely, blocking or not.

``OrchestrationHttpHook`` may be used by many threads at once; ``AsyncOrchestrationHttpHook`` by many tasks,
on several event loops one after the other. Both perform the same calls and the same procedures; what
differs is only how they wait.

Submits go over fresh connections: a keep-alive connection that the server had closed meanwhile
would make a routine submit ambiguous.
"""

from __future__ import annotations

import inspect
import logging
import os
import random
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timezone
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast
from weakref import WeakKeyDictionary

import httpx
import msgspec

from .. import telemetry
from ..api import calls
from ..api.calls import Call, RetryClass
from ..api.definitions import validated_definition, variable_text, variable_texts
from ..api.errors import (
    AmbiguousRunError,
    AmbiguousSubmitError,
    ConfigurationError,
    OrchestrationError,
    StateUnknownError,
    TransportError,
    ValidationError,
    is_ambiguous,
    summary,
)
from ..api.models import (
    ActivityRun,
    CancelOutcome,
    EnsuredWorkflow,
    Instance,
    Moved,
    Occurrence,
    RunResult,
    ServerInfo,
    StageEvent,
    StageRun,
    Trigger,
    Workflow,
)
from ..clock import SYSTEM_CLOCK, Clock
from ..procedures.define import KEY_VARIABLE, ensure_workflow
from ..procedures.effects import Answer, Ask, Do, Effect, Pause, Procedure
from ..procedures.listing import PageCall, Versions, list_all
from ..procedures.wording import cancel_text
from ..settings import Settings
from .auth import ClientCredentialsAuth, auth_for
from .exchange import Deadline, Exchange, aread_body, read_body, ssl_context
from .retrying import async_retrying, may_repeat, retrying

if TYPE_CHECKING:
    import asyncio

    from ..ownership import keeping, owned_run, request
    from ..ownership.record import RunStore
    from ..procedures import events, waiting
    from ..procedures.cancel import cancel
    from ..procedures.moved import NOTHING_READ
    from ..procedures.start import unreleased

T = TypeVar("T")
logger = logging.getLogger("orchestration_integrations.hook")

INTERRUPT_SECONDS = 15.0
"""Seconds that a cancel gets after an interrupt."""
INTERRUPT_TIMEOUT = 4.0
"""Seconds that one exchange of it may take."""
_KNOWN_IDS = 10_000
"""Ids given by the server that a hook remembers."""


def _load_procedures() -> None:
    """Import what this module names of the procedures: with the first hook, not with the module.

    The module is imported wherever a DAG is parsed, where no procedure is performed. Later than a hook's
    making would be too late: a cancel after a kill is no moment to look for files.
    """
    from ..ownership import keeping, owned_run, request
    from ..procedures import events, waiting
    from ..procedures.cancel import cancel
    from ..procedures.moved import NOTHING_READ
    from ..procedures.start import unreleased

    globals().update(
        keeping=keeping,
        owned_run=owned_run,
        request=request,
        events=events,
        waiting=waiting,
        cancel=cancel,
        NOTHING_READ=NOTHING_READ,
        unreleased=unreleased,
    )


class _Hook:
    """What both hooks are made of: settings, requests, procedures. No I/O."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        base_url: str | None = None,
        token: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        token_url: str | None = None,
        api_version: str = "auto",
        verify: bool | str = True,
        timeout: float = 10.0,
        face: str | None = None,
        on_token: Callable[[str], None] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        transport: Any = None,
    ) -> None:
        given: dict[str, Any] = {
            "base_url": base_url,
            "token": token,
            "client_id": client_id,
            "client_secret": client_secret,
            "token_url": token_url,
        }
        given = {name: value for name, value in given.items() if value is not None}
        plain: dict[str, Any] = {"api_version": api_version, "verify": verify, "timeout": timeout}
        changed = {name: value for name, value in plain.items() if value != _DEFAULTS[name]}
        if settings is not None:
            if given or changed:
                name = next(iter({**given, **changed}))
                raise ConfigurationError(f"{name}: is given beside settings; put it into the settings", field=name)
        elif base_url is None:
            settings = Settings.from_env().with_changes(**given, **changed)
        else:
            settings = Settings(**given, **changed)
        self.settings: Settings = settings
        self._clock = clock
        self._transport = transport
        self._auth = auth_for(settings, clock, on_token)
        self._exchange = Exchange(settings, clock, face, self._secrets)
        self._versions = Versions(settings.api_version)
        self._ssl: Any = None
        self._given_ids: dict[str, None] = {}
        _load_procedures()
        self._prepare()

    def _prepare(self) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings!r})"

    def _secrets(self) -> tuple[str, ...]:
        fetched = self._auth.token if isinstance(self._auth, ClientCredentialsAuth) else None
        return (*self.settings.secrets, fetched) if fetched else self.settings.secrets

    # The clocks of procedures

    def monotonic(self) -> float:
        """Seconds for deadlines inside this process."""
        return self._clock.monotonic()

    def time(self) -> float:
        """Epoch seconds on this machine's clock."""
        return self._clock.time()

    def server_time(self) -> float:
        """Epoch seconds on the server's clock, by the Date of its latest answer; ours until it gave one."""
        return self._exchange.server_time()

    def jitter(self) -> float:
        """A random number from 0 to 1, for pauses."""
        return random.random()  # noqa: S311

    # Shared parts

    def _client_arguments(self, retry: RetryClass) -> dict[str, Any]:
        if self._ssl is None:
            self._ssl = ssl_context(self.settings)
        submit = retry is RetryClass.SUBMIT
        limits = httpx.Limits(
            max_connections=self.settings.max_connections,
            max_keepalive_connections=0 if submit else self.settings.max_connections,
            keepalive_expiry=0.0 if submit else 30.0,
        )
        return {
            "auth": self._auth,
            "verify": self._ssl,
            "limits": limits,
            "transport": self._transport,
            "follow_redirects": False,
        }

    def _deadline(self, call: Call[Any], until: float | None) -> Deadline:
        allowed = self.settings.timeout
        if call.holds:
            allowed = max(allowed, self.settings.retry_budget)
        now = self._clock.monotonic()
        if until is not None and now >= until:
            raise TransportError(f"{call.what}: not sent, its time was over", sent=False)
        at = now + allowed
        return Deadline(self._clock, at if until is None else min(at, until))

    def _until(self, call: Call[Any], deadline: float) -> float | None:
        """A submit is given its whole time-out also at the end of the budget: cut short it would be ambiguous."""
        return None if call.retry is RetryClass.SUBMIT else deadline

    def _retry_told(self, call: Call[Any]) -> Callable[[float], None]:
        def told(pause: float) -> None:
            telemetry.count("retries", operation=call.operation)
            logger.info("%s failed, next try in %.2f s", call.what, pause, extra={"operation": call.operation})

        return told

    def _submitted(self, call: Call[Any], error: OrchestrationError) -> OrchestrationError:
        """What a plain submit raises: an ambiguous answer by its name."""
        if call.retry is not RetryClass.SUBMIT or not is_ambiguous(error):
            return error
        telemetry.count("ambiguous_submits", operation=call.operation)
        message = f"{call.what} may have been carried out: {summary(error)}; it was not repeated"
        logger.warning("%s", message, extra={"operation": call.operation})
        return AmbiguousSubmitError(message)

    def expect(self, instance_id: str) -> None:
        """Tell this hook an id that the server once gave, as one that was stored by another process.

        A run stands behind it, so that its row may be late: ``wait``, ``cancel`` and
        ``send_event_when_ready`` then don't take "not found" for an answer for an hour, or their limit.
        """
        self._given_ids[instance_id] = None
        if len(self._given_ids) > _KNOWN_IDS:
            self._given_ids = dict.fromkeys(list(self._given_ids)[_KNOWN_IDS // 2 :])

    def _give(self, instance: Instance) -> Instance:
        self.expect(instance.id)
        return instance

    def _row_grace(self, instance_id: str, short: float, long: float) -> float:
        return long if instance_id in self._given_ids else short

    # Procedures, as both hooks perform them

    def _listing(self, page: PageCall) -> Procedure[tuple[Any, ...]]:
        return list_all(page, self._versions)

    def _list_instances(self, workflow_id: str | None, running: bool | None) -> Procedure[tuple[Instance, ...]]:
        def page(version: calls.Version, cursor: str | None) -> Call[Any]:
            return calls.list_instances(version, cursor, workflow_id=workflow_id, running=running is True)

        page("v1", None)  # refuses a bad id before anything is sent
        rows = yield from self._listing(page)
        return tuple(row for row in rows if running is None or row.terminated is not running)

    def _run(self, workflow_id: str, variables: Mapping[str, Any] | None, wait: bool) -> Procedure[Instance]:
        call = calls.run_workflow(workflow_id, variable_texts(variables), wait=wait, version=self._versions.plain)
        begun = self._clock.time()
        try:
            instance: Instance = yield Do(call, retried=True)
        except OrchestrationError as error:
            # Where the server holds the request, its error can come from the wait after the start.
            if not is_ambiguous(error) and not (wait and (getattr(error, "status_code", None) or 0) >= 500):
                raise
            telemetry.count("ambiguous_submits", operation=call.operation)
            candidates = yield from self._started_since(workflow_id, begun)
            window = tuple(datetime.fromtimestamp(at, timezone.utc) for at in (begun, self._clock.time()))
            raise AmbiguousRunError(
                f"a run of workflow {workflow_id} may have started: {summary(error)}; it was not repeated",
                workflow_id=workflow_id,
                run_key=None,
                window=cast("tuple[datetime, datetime]", window),
                candidates=candidates,
            ) from error
        self._give(instance)
        if not wait:
            return instance
        # The answer of a waiting run can come early and can hide a failure: only a GET by id decides.
        try:
            read: Instance = yield Do(calls.get_instance(instance.id, self._versions.plain), retried=True)
        except OrchestrationError as error:
            raise StateUnknownError(
                f"instance {instance.id} was started, and could not be read afterwards: {summary(error)}",
                instance_id=instance.id,
                instance=None,
                moved=NOTHING_READ,
            ) from error
        return read

    def _started_since(self, workflow_id: str, begun: float) -> Procedure[tuple[str, ...]]:
        """Best effort, one read: runs that may be the one whose answer was lost."""
        earliest = datetime.fromtimestamp(begun + (self.server_time() - self._clock.time()) - 5.0, timezone.utc)
        try:
            page = yield Do(calls.list_instances(workflow_id=workflow_id))
        except OrchestrationError:
            return ()
        return tuple(row.id for row in page.rows if row.created_at >= earliest)

    def _start(
        self,
        workflow_id: str,
        variables: Mapping[str, Any] | None,
        run_key: str | None,
        on_chosen: Callable[[str], object] | None,
        wants: Callable[[], bool] | None,
        **options: Any,
    ) -> Procedure[Instance]:
        calls.get_workflow(workflow_id)  # refuses a bad id before anything is sent
        key_variable = options["key_variable"]
        given = dict(variables) if isinstance(variables, Mapping) else variables
        if run_key is None and isinstance(given, dict) and key_variable in given:
            run_key = variable_text(key_variable, given.pop(key_variable))
            if not run_key:
                where = f"variables.{key_variable}"
                raise ValidationError(f"{where} must not be empty: it is the key of the run", path=where)
        first_attempt = options.pop("first_attempt")
        fresh = run_key is None or first_attempt
        if run_key is None and options["chosen"] is not None:
            raise ValidationError("chosen needs the run_key that it was chosen for", path="run_key")
        wanted = request.OwnedRequest(
            workflow=workflow_id,
            variables=given,
            run_key=uuid.uuid4().hex if run_key is None else run_key,
            how="first" if fresh else "again",
            wait_for_key=True,
            may_say_first=True,
            **{**options, "timeout": _at_least_zero(options["timeout"], "timeout")},
        )
        run = self.owning(wanted, on_chosen=on_chosen, owner=self._owner_of(wants))
        try:
            instance = yield from run.begin()
        finally:
            run.close()
        self._give(instance)
        ids = {"workflow_id": workflow_id, "instance_id": instance.id, "run_key": wanted.run_key}
        logger.info("run key %s of workflow %s: instance %s", wanted.run_key, workflow_id, instance.id, extra=ids)
        return instance

    def owning(
        self,
        wanted: request.OwnedRequest,
        *,
        store: RunStore | None = None,
        owner: Any = None,
        on_chosen: Callable[[str], object] | None = None,
    ) -> owned_run.OwnedRun:
        """One attempt's work on one key, for whoever performs its procedures with this hook. Sends nothing.

        Args:
            wanted: what the caller wants.
            store: where the record of the key is kept; None: nowhere.
            owner: asked before each release: ``yes``, ``unwanted`` or ``superseded``; None: it always wants the run.
            on_chosen: told the id before the release of a run that this attempt chose.
        """

        def told(instance_id: str) -> object:
            self.expect(instance_id)
            return on_chosen(instance_id) if on_chosen is not None else None

        return owned_run.OwnedRun(
            wanted,
            server=self.settings.base_url,
            store=store,
            owner=owner,
            on_chosen=told,
            versions=self._versions,
            now=self,
        )

    def _once(
        self,
        workflow: str | Mapping[str, Any],
        variables: Mapping[str, Any] | None,
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
        key_variable: str = KEY_VARIABLE,
        allow_unbound: bool = False,
        since: datetime | None = None,
        start_timeout: float = 60.0,
        on_chosen: Callable[[str], object] | None = None,
        poll_interval: float = 5.0,
        on_stage: Callable[[StageEvent], object] | None = None,
        fail_after_attempts: int | None = None,
    ) -> OnceOptions:
        """The checked arguments of ``run_once``, as what performs it needs them."""
        if checkpoints:
            raise ValidationError("checkpoints: this version does not insert checkpoints yet", path="checkpoints")
        if on_timeout not in ("cancel", "leave"):
            raise ValidationError(f"on_timeout must be cancel or leave, not {on_timeout!r}", path="on_timeout")
        if not all(hasattr(store, name) for name in ("load", "save", "choose", "settle")):
            raise ValidationError(f"store must be a RunStore, not a {type(store).__name__}", path="store")
        deadline = None if timeout is None else self._clock.time() + _at_least_zero(timeout, "timeout")
        self.waiting("unknown", poll_interval=poll_interval, fail_after_attempts=fail_after_attempts)
        wanted = request.OwnedRequest(
            workflow=workflow,
            variables=variables,
            run_key=run_key,
            key_variable=key_variable,
            how="first" if first_attempt else None,
            shared_key=not first_attempt,
            may_say_first=True,
            since=since,
            settled=settled,
            rerun_failed=rerun_failed,
            on_changed=on_changed,
            fingerprint_ignores=tuple(fingerprint_ignores)
            if not isinstance(fingerprint_ignores, str)
            else fingerprint_ignores,
            attempt=uuid.uuid4().hex,
            allow_unbound=allow_unbound,
            timeout=_at_least_zero(start_timeout, "start_timeout"),
        )
        if isinstance(workflow, str):
            calls.get_workflow(workflow)  # refuses a bad id before anything is sent

        def waiting_for(instance_id: str) -> Procedure[RunResult]:
            listener = None if on_stage is None else _noting(on_stage, once)
            return self._wait(instance_id, None, poll_interval, listener, fail_after_attempts, deadline, None)

        once = OnceOptions(
            run=self.owning(wanted, store=store, owner=self._owner_of(wants), on_chosen=on_chosen),
            waiting_for=waiting_for,
            on_timeout=on_timeout,
            cancel_on_interrupt=cancel_on_interrupt,
            process=os.getpid(),
        )
        return once

    def _owner_of(self, wants: Callable[[], object] | None) -> Callable[[], Any] | None:
        """A caller's yes or no, as the owner protocol asks for it."""
        if wants is None:
            return None
        asynchronous = inspect.iscoroutinefunction(wants)
        if not callable(wants) or (asynchronous and isinstance(self, OrchestrationHttpHook)):
            raise ValidationError(
                "wants must be a plain function that returns whether the run is still wanted", path="wants"
            )
        if asynchronous:

            async def awaited() -> str:
                return "yes" if await cast("Any", wants)() else "unwanted"

            return awaited
        return lambda: "yes" if _plain(wants()) else "unwanted"

    def _interrupted(self, run: owned_run.OwnedRun, error: BaseException) -> None:
        """After an interrupt: cancel the run if it is this attempt's, by a fresh blocking hook with short time-outs.

        What was interrupted is not used again. An interrupt that comes meanwhile goes through.
        """
        why = type(error).__name__
        if run.instance_id is None:
            if run.record is not None:
                logger.warning(
                    "run key %s: interrupted (%s) while the run was being started: a gated one is not released; an "
                    "ungated one may have started",
                    run.request.run_key,
                    why,
                )
            return
        settings = self.settings.with_changes(timeout=min(self.settings.timeout, INTERRUPT_TIMEOUT), retry_budget=5.0)
        with OrchestrationHttpHook(settings, clock=self._clock, transport=self._stop_transport()) as hook:
            hook._given_ids = self._given_ids
            again = hook.owning(run.request, store=run.keeper.store)
            again.take_over(run)
            try:
                outcome = hook.perform(again.stop(INTERRUPT_SECONDS))
            except OrchestrationError as failed:
                logger.error(
                    "run key %s: interrupted (%s); instance %s was not cancelled and may still run: %s",
                    run.request.run_key,
                    why,
                    run.instance_id,
                    summary(failed),
                )
                return
        if outcome is not None:
            level = logging.WARNING if outcome.status in ("cancelled", "already_ended") else logging.ERROR
            logger.log(
                level,
                "run key %s: interrupted (%s); instance %s: %s",
                run.request.run_key,
                why,
                run.instance_id,
                cancel_text(outcome),
            )

    def _stop_transport(self) -> Any:
        return self._transport

    def _wait(
        self,
        instance_id: str,
        timeout: float | None,
        poll_interval: float,
        on_stage: Callable[[StageEvent], object] | None,
        fail_after_attempts: int | None,
        deadline: float | None,
        row_grace: float | None,
    ) -> Procedure[RunResult]:
        state = self.waiting(
            instance_id,
            timeout=timeout,
            poll_interval=poll_interval,
            detail=on_stage is not None or fail_after_attempts is not None,
            fail_after_attempts=fail_after_attempts,
            deadline=deadline,
            row_grace=row_grace,
        )
        outcome = "error"
        try:
            result = yield from waiting.wait(state, self._versions, self, on_stage)
            outcome = "succeeded"
        except OrchestrationError as error:
            outcome = type(error).__name__
            _warn_of_repeats(instance_id, getattr(error, "moved", NOTHING_READ))
            raise
        finally:
            telemetry.count("waits", outcome=outcome)
        _warn_of_repeats(instance_id, result.moved)
        return result

    def waiting_for(
        self,
        instance_id: str,
        *,
        timeout: float | None = None,
        poll_interval: float = 5.0,
        on_stage: Callable[[StageEvent], object] | None = None,
        fail_after_attempts: int | None = None,
        deadline: float | None = None,
        row_grace: float | None = None,
    ) -> Procedure[RunResult]:
        """The wait for an instance as a procedure, to be performed within another one. Arguments as for ``wait``."""
        return self._wait(instance_id, timeout, poll_interval, on_stage, fail_after_attempts, deadline, row_grace)

    def waiting(
        self,
        instance_id: str,
        *,
        timeout: float | None = None,
        poll_interval: float = 5.0,
        detail: bool = True,
        fail_after_attempts: int | None = None,
        deadline: float | None = None,
        row_grace: float | None = None,
    ) -> waiting.Waiting:
        """The state of a wait, checked, for whoever feeds it. Sends nothing. Arguments as for ``wait``."""
        calls.get_instance(instance_id)  # refuses a bad id
        if timeout is not None:
            timeout = _at_least_zero(timeout, "timeout")
            if deadline is not None:
                raise ValidationError("timeout: give either timeout or deadline", path="timeout")
            deadline = self._clock.time() + timeout
        if _at_least_zero(poll_interval, "poll_interval") == 0:
            raise ValidationError("poll_interval must be above 0 seconds", path="poll_interval")
        if fail_after_attempts is not None and (
            not isinstance(fail_after_attempts, int) or isinstance(fail_after_attempts, bool) or fail_after_attempts < 1
        ):
            raise ValidationError("fail_after_attempts must be a whole number from 1", path="fail_after_attempts")
        if row_grace is None:
            row_grace = self._row_grace(instance_id, waiting.ROW_GRACE, waiting.ROW_PATIENCE)
        return waiting.Waiting(
            instance_id,
            deadline=deadline,
            poll_interval=poll_interval,
            detail=detail,
            fail_after_attempts=fail_after_attempts,
            row_grace=row_grace,
        )

    def _send_when_ready(
        self,
        instance_id: str,
        name: str,
        stage: int | None,
        timeout: float | None,
        before_send: Callable[[], object] | None,
    ) -> Procedure[Instance]:
        calls.send_event(instance_id, name)  # refuses bad input before anything is sent
        if stage is not None and (not isinstance(stage, int) or isinstance(stage, bool) or stage < 0):
            raise ValidationError(f"stage must be a whole number from 0, not {stage!r}", path="stage")
        return events.send_event_when_ready(
            instance_id,
            name,
            stage=stage,
            timeout=None if timeout is None else _at_least_zero(timeout, "timeout"),
            versions=self._versions,
            now=self,
            row_grace=self._row_grace(instance_id, waiting.ROW_GRACE, waiting.ROW_PATIENCE),
            before_send=before_send,
        )

    def _cancel(
        self, instance_id: str, timeout: float, store: RunStore | None, run_key: str | None
    ) -> Procedure[CancelOutcome]:
        if (store is None) != (run_key is None):
            raise ValidationError("run_key: give store and run_key together", path="run_key")
        if store is not None and run_key is not None:
            yield from keeping.put_hold(store, run_key, instance_id)
        outcome = yield from cancel(
            instance_id,
            timeout=_at_least_zero(timeout, "timeout"),
            versions=self._versions,
            now=self,
            row_grace=self._row_grace(instance_id, waiting.ROW_GRACE, waiting.ROW_PATIENCE),
        )
        _warn_of_repeats(instance_id, outcome.moved)
        sure = outcome.status != "not_confirmed" and not outcome.in_flight and outcome.moved.complete
        logger.log(
            logging.INFO if sure else logging.WARNING,
            "cancel of instance %s: %s (the abort was answered %s)%s",
            instance_id,
            outcome.status,
            outcome.abort_answer,
            "; a payment was under way and may arrive: check the ledger" if outcome.in_flight else "",
            extra={"instance_id": instance_id, "outcome": outcome.status},
        )
        return outcome

    def _unreleased(self, workflow_id: str) -> Procedure[tuple[tuple[Instance, str], ...]]:
        calls.get_workflow(workflow_id)  # refuses a bad id before anything is sent
        return unreleased(workflow_id, self._versions, self, self._clock.monotonic() + self.settings.retry_budget)

    def _ensure(self, definition: Mapping[str, Any], gate: bool) -> Procedure[EnsuredWorkflow]:
        return ensure_workflow(definition, gate=gate, versions=self._versions, now=self)


_DEFAULTS: Mapping[str, Any] = {"api_version": "auto", "verify": True, "timeout": 10.0}


def _warn_of_repeats(instance_id: str, moved: Moved) -> None:
    for transaction in moved.transactions:
        if transaction.maybe_repeated:
            logger.warning(
                "instance %s: transaction %s of stage %d may have been made twice: check the ledger",
                instance_id,
                transaction.id,
                transaction.stage,
                extra={"instance_id": instance_id, "stage": transaction.stage},
            )


@contextmanager
def _proxies_checked() -> Iterator[None]:
    """httpx reads the proxies of the environment when a client is made."""
    try:
        yield
    except (ValueError, httpx.InvalidURL):
        raise ConfigurationError(
            "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY is no address of a proxy", field="proxy"
        ) from None


def _at_least_zero(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e10:
        raise ValidationError(f"{name} must be a number of seconds from 0, not {value!r}", path=name)
    return float(value)


def _plain(answer: Any) -> Any:
    """What a plain function returned."""
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError("a callback of the blocking hook must be a plain function, not an asynchronous one")
    return answer


def _running_loop() -> asyncio.AbstractEventLoop:
    from asyncio import get_running_loop  # not needed by the blocking hook, and slow to import

    return get_running_loop()


def _noting(listener: Callable[[StageEvent], object], once: OnceOptions) -> Callable[[StageEvent], object]:
    """The caller's listener; that it raised is noted, whatever it raised: its errors say nothing of the run."""

    async def awaited(answer: Any) -> object:
        try:
            return await answer
        except BaseException:
            once.listener_raised = True
            raise

    def told(event: StageEvent) -> object:
        try:
            answer = listener(event)
        except BaseException:
            once.listener_raised = True
            raise
        return awaited(answer) if inspect.isawaitable(answer) else answer

    return told


class OwnedRunHandle(msgspec.Struct):
    """A run under ``with hook.owned_run(…)``.

    Attributes:
        instance_id: the run.
        result: the instance and what it moved, once the block has ended well; None before.
    """

    instance_id: str
    result: RunResult | None = None


class OnceOptions(msgspec.Struct):
    """What ``run_once`` was asked to do."""

    run: owned_run.OwnedRun
    waiting_for: Callable[[str], Procedure[RunResult]]
    on_timeout: Literal["cancel", "leave"]
    cancel_on_interrupt: bool
    process: int
    listener_raised: bool = False

    def is_interrupt(self, error: BaseException) -> bool:
        """Whether an exception says nothing of the run, so that it is the caller's wish to end; not in a forked
        child, whose parent has the run."""
        if self.process != os.getpid():
            return False
        return self.listener_raised or not isinstance(error, OrchestrationError)


class _Ended(msgspec.Struct, frozen=True):
    """A procedure has returned."""

    value: object


def _advance(procedure: Procedure[Any], result: object, error: OrchestrationError | None) -> Effect | _Ended:
    """The next effect. Only a procedure's own end is one: a callback may raise StopIteration too."""
    try:
        return procedure.send(result) if error is None else procedure.throw(error)
    except StopIteration as end:
        return _Ended(end.value)


async def _in_a_thread(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Call what may block without blocking the loop; an asynchronous function is awaited on it."""
    from asyncio import to_thread  # not needed by the blocking hook, and slow to import

    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    answer = await to_thread(function, *arguments)
    return await answer if inspect.isawaitable(answer) else answer


class OrchestrationHttpHook(_Hook):
    """Talks to an orchestration server, blocking. Safe to share between threads; a context manager.

    Args:
        settings: where the server is; or give the fields one by one, or nothing and set ``ORCHESTRATION_URL``.
        base_url, token, client_id, client_secret, token_url, api_version, verify, timeout: as in ``Settings``.
        face: what calls this hook, for the User-Agent: ``airflow/3.3.2``.
        on_token: told each access token that is fetched, so that it can be masked in logs.
        clock, transport: time and httpx transport, for tests.

    Raises:
        ConfigurationError: a setting is wrong or missing.

    All methods raise AuthenticationError, RateLimitedError, ServerError or TransportError where the
    server refuses or does not answer within the retry budget.
    """

    def _prepare(self) -> None:
        self._clients: dict[RetryClass, httpx.Client] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> OrchestrationHttpHook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. May be called twice; a later call opens new ones."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    # The driver

    def _client(self, retry: RetryClass) -> httpx.Client:
        client = self._clients.get(retry)
        if client is None:
            with self._lock:
                client = self._clients.get(retry)
                if client is None:
                    with _proxies_checked():
                        client = self._clients[retry] = httpx.Client(**self._client_arguments(retry))
        return client

    def _attempt(self, call: Call[T], until: float | None) -> T:
        """One exchange. Raises only this package's errors (and whatever interrupts it)."""
        deadline = self._deadline(call, until)
        request = self._exchange.request(call, deadline)
        try:
            response = self._client(call.retry).send(request, stream=True)
            try:
                body = read_body(response, deadline)
            finally:
                response.close()
            result = self._exchange.result(call, response, body)
        except OrchestrationError as error:
            telemetry.count("calls", operation=call.operation, outcome=type(error).__name__)
            raise
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            telemetry.count("calls", operation=call.operation, outcome=type(error).__name__)
            raise self._exchange.failure(call, request, error) from error
        telemetry.count("calls", operation=call.operation, outcome="ok")
        return result

    def _retried(self, call: Call[T]) -> T:
        deadline = self._clock.monotonic() + self.settings.retry_budget
        try:
            return self._attempt(call, self._until(call, deadline))
        except OrchestrationError as error:
            if not may_repeat(call.retry, error, 1):
                raise
            first: OrchestrationError | None = error

        def again() -> T:
            # The first try is made outside: where all goes well, no policy needs to be built.
            nonlocal first
            if first is not None:
                error, first = first, None
                raise error
            return self._attempt(call, self._until(call, deadline))

        return retrying(call.retry, self._clock, deadline, self._retry_told(call))(again)

    def _call(self, call: Call[T]) -> T:
        try:
            return self._retried(call)
        except OrchestrationError as error:
            raised = self._submitted(call, error)
            if raised is error:
                raise
            raise raised from error

    def perform(self, procedure: Procedure[T]) -> T:
        """Perform a procedure to its end. What interrupts it goes through at once; nothing is performed after it."""
        try:
            step = _advance(procedure, None, None)
            while not isinstance(step, _Ended):
                try:
                    result, error = self._effect(step), None
                except OrchestrationError as caught:
                    if not isinstance(step, Do):
                        raise  # a callback's error says nothing of the server
                    result, error = None, caught
                step = _advance(procedure, result, error)
            return cast("T", step.value)
        finally:
            procedure.close()

    def _effect(self, effect: Effect) -> Any:
        if isinstance(effect, Do):
            return self._retried(effect.call) if effect.retried else self._attempt(effect.call, effect.until)
        if isinstance(effect, Pause):
            return self._clock.sleep(effect.seconds)
        if isinstance(effect, Ask):
            try:
                return Answer(_plain(effect.function(*effect.arguments)))
            except Exception as error:
                return Answer(error=error)
        answer = effect.function(effect.what)
        return _plain(answer)

    # The API's operations

    def get_server_info(self) -> ServerInfo:
        """Operation OrchestrationgetServerInfo: the version of the server."""
        return self._call(calls.get_server_info())

    def list_workflows(self) -> Sequence[Workflow]:
        """Operation ListWorkflows: all of them, each once.

        Raises:
            ServerError: also where the list repeats its cursor and would never end.
        """
        return self.perform(self._listing(calls.list_workflows))

    def create_workflow(self, definition: Mapping[str, Any]) -> Workflow:
        """Operation CreateWorkflow. See ``ensure_workflow`` for one that does not add a copy at each call.

        Args:
            definition: ``{"name": …, "stages": [{<kind>: {…}}, …]}``; checked first. Integers from 2**53 go as text.

        Raises:
            ValidationError: ``path`` names the place; nothing was sent.
            AmbiguousSubmitError: the answer was lost; it may have been created.
        """
        return self._call(calls.create_workflow(validated_definition(definition), self._versions.plain))

    def get_workflow(self, workflow_id: str) -> Workflow:
        """Operation GetWorkflow. A deleted one may still be answered, with ``deleted_at``.

        Raises:
            NotFoundError: there is no such workflow.
        """
        return self._call(calls.get_workflow(workflow_id, self._versions.plain))

    def delete_workflow(self, workflow_id: str) -> None:
        """Operation DeleteWorkflow. Its instances go on.

        Raises:
            NotFoundError: there is no such workflow.
            ValidationError: the id is no UUID.
            AmbiguousSubmitError: the answer was lost; it may have been deleted.
        """
        self._call(calls.delete_workflow(workflow_id, self._versions.plain))

    def run_workflow(
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
        return self.perform(self._run(workflow_id, variables, wait))

    def list_instances(self, workflow_id: str | None = None, running: bool | None = None) -> Sequence[Instance]:
        """Operation ListInstances: all of them, each once, in no order; those of deleted workflows are hidden.

        Args:
            workflow_id: only of this workflow.
            running: True for running ones only, False for ended ones only, None for both.
        """
        return self.perform(self._list_instances(workflow_id, running))

    def get_instance(self, instance_id: str) -> Instance:
        """Operation GetInstance. Only this decides whether an instance exists and how it ended.

        Raises:
            NotFoundError: there is no such instance, or its row is not there yet.
        """
        return self._call(calls.get_instance(instance_id, self._versions.plain))

    def get_instance_history(self, instance_id: str) -> Sequence[StageRun]:
        """Operation GetInstanceHistory: the stages whose work was launched. Ten times as dear as ``get_instance``.

        Raises:
            NotFoundError: the engine knows no such run, or no longer.
        """
        return self._call(calls.get_instance_history(instance_id, self._versions.plain))

    def get_stage_history(self, instance_id: str, number: int) -> Sequence[ActivityRun]:
        """Operation GetInstanceStageHistory: what a stage did; empty for a ``delay`` or ``wait_event``.

        Args:
            instance_id: the instance.
            number: of the stage, from 0.

        Raises:
            NotFoundError: no such instance or stage, or the stage failed before its work.
        """
        return self._call(calls.get_stage_history(instance_id, number, self._versions.plain))

    def send_event(self, instance_id: str, name: str) -> None:
        """Operation SendEvent: one plain submit. That it was taken does not mean that a stage heard it: see
        ``send_event_when_ready``.

        Raises:
            NotFoundError: no such instance, or no stage of it can take an event now.
            ServerError: the stage begun last has ended.
            AmbiguousSubmitError: the answer was lost; it may have been delivered. It was not repeated.
        """
        self._call(calls.send_event(instance_id, name, self._versions.plain))

    def abort_instance(self, instance_id: str) -> None:
        """Operation CancelEvent: a request, not a result. See ``cancel``, which says what came of it.

        Raises:
            NotFoundError: no such instance, or it has ended (on some servers), or it never started.
            ServerError: on some servers, also where the instance goes on.
        """
        self._call(calls.abort_instance(instance_id, self._versions.plain))

    def list_triggers(self) -> Sequence[Trigger]:
        """Operation ListTriggers: all of them, each once."""
        return self.perform(self._listing(calls.list_triggers))

    def create_trigger(
        self, event: str, workflow_id: str, *, filter: str | None = None, variables: Mapping[str, str] | None = None
    ) -> Trigger:
        """Operation CreateTrigger.

        Args:
            event: type of the broker event, ``SAVED_PAYMENT``.
            workflow_id: what to run on it.
            filter: expression over ``event``; None for all.
            variables: expression by variable name.

        Raises:
            ValidationError: an expression or a name is bad.
            NotFoundError: there is no such workflow.
            AmbiguousSubmitError: the answer was lost; it may have been created.
        """
        return self._call(
            calls.create_trigger(event, workflow_id, filter=filter, variables=variables, version=self._versions.plain)
        )

    def get_trigger(self, trigger_id: str) -> Trigger:
        """Operation ReadTrigger.

        Raises:
            NotFoundError: there is no such trigger.
        """
        return self._call(calls.get_trigger(trigger_id, self._versions.plain))

    def delete_trigger(self, trigger_id: str) -> None:
        """Operation DeleteTrigger.

        Raises:
            NotFoundError: there is no such trigger.
            AmbiguousSubmitError: the answer was lost; it may have been deleted.
        """
        self._call(calls.delete_trigger(trigger_id, self._versions.plain))

    def list_trigger_occurrences(self, trigger_id: str) -> Sequence[Occurrence]:
        """Operation ListTriggersOccurrences: each firing of a trigger; empty for an unknown one."""

        def page(version: calls.Version, cursor: str | None) -> Call[Any]:
            return calls.list_trigger_occurrences(trigger_id, version, cursor)

        page("v1", None)  # refuses a bad id before anything is sent
        return self.perform(self._listing(page))

    def test_trigger(self, trigger_id: str, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Operation TestTrigger (v2 only): what filter and variables evaluate to for an event; starts nothing.

        Raises:
            NotFoundError: there is no such trigger, or the server has no v2.
        """
        return self._call(calls.test_trigger(trigger_id, event))

    # Procedures

    def start(
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
        timeout: float = 60.0,
        on_changed: Literal["refuse", "adopt"] = "refuse",
        fingerprint_ignores: Sequence[str] = (),
        wants: Callable[[], bool] | None = None,
    ) -> Instance:
        """Start the one run of a key, or go on with it: operations GetWorkflow, ListInstances, RunWorkflow, SendEvent.

        On a gated definition (``ensure_workflow(gate=True)``) never two released runs for one key, for callers one
        after another; on any other never two submits.

        Args:
            workflow_id: what to run.
            variables: as for ``run_workflow``.
            run_key: names the run; the same key again finds the same run. None: a fresh one.
            first_attempt: the caller knows that this key was never used before: nothing earlier is looked for.
            since: aware; the key is not older than this (5 minutes are subtracted). Bounds what is looked through; None
                (default): seven days. A run of the key that is older than that is not found.
            chosen: the instance that an earlier attempt had chosen: that one is released and no other.
            on_chosen: told the instance's id before its release; it should store it where it outlives this process.
            key_variable: the variable that carries the key.
            allow_unbound: let placeholders without a value pass; the server fills in nothing or a default.
            timeout: seconds, default 60.
            on_changed: what to do where the key stands for other variables: ``refuse`` (default), or ``adopt`` the run
                that has the key.
            fingerprint_ignores: names of variables that may differ between attempts.
            wants: asked right before the release whether the run is still wanted.

        Returns:
            The released instance; it may have ended already.

        Raises:
            NotFoundError: no such workflow, or it is deleted; nothing was sent.
            ValidationError: bad input, or a placeholder without a value; nothing was sent.
            KeyReusedError: the key stands for a run with other variables. Told from the gate of that run, so from any
                process; not told for a workflow without a gate, or for a run of another workflow.
            OwnerGoneError: ``wants`` returned False; nothing was released.
            OwnerUnreachableError: ``wants`` raised for 30 s; nothing was released.
            AmbiguousRunError: a run may exist; its attributes say what is known. Do not use a new key.
        """
        with telemetry.span("start", workflow_id=workflow_id):
            return self.perform(
                self._start(
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
                )
            )

    def wait(
        self,
        instance_id: str,
        *,
        timeout: float | None = None,
        poll_interval: float = 5.0,
        on_stage: Callable[[StageEvent], object] | None = None,
        fail_after_attempts: int | None = None,
        deadline: float | None = None,
        row_grace: float | None = None,
    ) -> RunResult:
        """Wait until an instance has ended: operations GetInstance, GetInstanceHistory, GetInstanceStageHistory.

        Args:
            instance_id: whom to wait for.
            timeout: seconds, None for no limit. One last look of at most 5 s follows and decides.
            poll_interval: seconds between polls, once they have slowed down to it; default 5.
            on_stage: told begin and end of each stage once and in order, what it listens for, why it fails.
            fail_after_attempts: give up once a payment has failed so often; the instance goes on until it is cancelled.
            deadline: epoch seconds, instead of ``timeout``.
            row_grace: seconds for which the id may be unknown before it was ever seen; default 10, and an hour
                for an id that this hook was given by the server.

        Returns:
            The instance, which succeeded, and what it moved.

        Raises:
            InstanceFailedError, InstanceCancelledError: how it ended.
            InstanceStuckError: it never started, or failed ``fail_after_attempts`` times.
            WaitTimeoutError: it was still running at the deadline, or could not be read then.
            StateUnknownError: it could not be read for two minutes.
            NotFoundError: there is no such instance.
        """
        with telemetry.span("wait", instance_id=instance_id):
            return self.perform(
                self._wait(instance_id, timeout, poll_interval, on_stage, fail_after_attempts, deadline, row_grace)
            )

    def run_once(
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
        how it ended. Operations as of ``ensure_workflow``, ``start``, ``wait`` and ``cancel``.

        Args:
            workflow: id of a workflow, or a definition, which is put on the server with a gate.
            variables: as for ``run_workflow``.
            run_key: names the payment. The same key with other content is an error.
            store: where the record of the key is kept: ``SqliteRunStore(path)``. ``MemoryRunStore`` ends with the
                process, so it is refused for a workflow without a gate.
            timeout: seconds from the call after which waiting ends; None for no limit.
            rerun_failed: a call after one that raised a bad end starts a new run. Its first stages move money again.
            on_changed: ``refuse`` (default) other content under the key, or ``adopt`` the run that has it.
            fingerprint_ignores: names of variables that may differ between calls.
            settled: the token that an AmbiguousRunError printed: that fate is settled, and a new run may start.
            first_attempt: the caller knows that the key was never used before.
            wants: asked right before the release whether the run is still wanted.
            checkpoints: not available in this version.
            cancel_on_interrupt: cancel the run where this call is interrupted: by Ctrl-C, by a signal that raises, by
                the end of its asyncio task, or by an exception of ``on_stage``.
            on_timeout: ``cancel`` (default) or ``leave`` a run that is given up.
            as_for_start_and_wait: ``since``, ``key_variable``, ``allow_unbound``, ``on_chosen``, ``start_timeout``
                (seconds, default 60), ``poll_interval``, ``on_stage``, ``fail_after_attempts``.

        Returns:
            The instance, which succeeded, and what it moved.

        Raises:
            KeyReusedError: the key stands for other content, or another call of this process has it.
            InstanceFailedError, InstanceCancelledError, InstanceStuckError: how it ended; told again by later calls.
            WaitTimeoutError: it had not ended in time; the message says what became of it.
            AmbiguousRunError: a run may exist; ``token`` settles that once you know how it ended.
            RecordConflictError: another process has the key; nothing was released.
            OwnerGoneError, OwnerUnreachableError, UnreadableRecordError, WrongServerError, NotFoundError,
            ValidationError: nothing was released.
        """
        once = self._once(
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
        with telemetry.span("run_once", run_key=run_key), self._owning_interrupts(once):
            return self.perform(once.run.run(once.waiting_for, on_timeout=once.on_timeout))

    @contextmanager
    def _owning_interrupts(self, once: OnceOptions) -> Iterator[None]:
        """One ``try`` from the first submit to the return: an interrupt anywhere in it cancels the run."""
        try:
            yield
        except BaseException as error:
            if once.cancel_on_interrupt and once.is_interrupt(error):
                self._interrupted(once.run, error)
            raise
        finally:
            once.run.close()

    @contextmanager
    def owned_run(
        self, workflow: str | Mapping[str, Any], variables: Mapping[str, Any] | None = None, **as_for_run_once: Any
    ) -> Iterator[OwnedRunHandle]:
        """As ``run_once``, around a block: the run is started on entry, cancelled where the block raises, and waited
        for where it ends without an exception.

            with hook.owned_run(definition, {"amount": 100}, run_key="order-17", store=store) as run:
                tell_somebody(run.instance_id)
            print(run.result.moved)

        Args:
            workflow, variables, as_for_run_once: as for ``run_once``.

        Returns:
            ``instance_id``, and after the block ``result``.
        """
        once = self._once(workflow, variables, **as_for_run_once)
        with self._owning_interrupts(once):
            instance = self.perform(once.run.begin())
            handle = OwnedRunHandle(instance_id=instance.id)
            try:
                yield handle
            except BaseException as error:
                if once.cancel_on_interrupt and once.process == os.getpid():
                    self._interrupted(once.run, error)
                once.cancel_on_interrupt = False  # that is done
                raise
            handle.result = self.perform(once.run.attend(instance.id, once.waiting_for, on_timeout=once.on_timeout))

    def send_event_when_ready(
        self,
        instance_id: str,
        name: str,
        *,
        stage: int | None = None,
        timeout: float | None = None,
        before_send: Callable[[], object] | None = None,
    ) -> Instance:
        """Wait until a stage listens for the event, send it, and see that this stage ended: operations GetInstance,
        GetWorkflow, GetInstanceHistory, SendEvent.

        Other senders can't be kept out: two of them may release two stages of the same event.

        Args:
            instance_id: the instance.
            name: of the event.
            stage: which stage is meant, from 0; needed where several stages wait for the name.
            timeout: seconds, None for no limit.
            before_send: called right before the event is sent, each time; what it raises keeps it from being sent.

        Returns:
            The instance, that stage behind it.

        Raises:
            EventNotDeliveredError: ``reason`` says why; ``unknown`` where it was sent and the stage still waits.
            NotFoundError: there is no such instance.
        """
        with telemetry.span("send_event", instance_id=instance_id):
            return self.perform(self._send_when_ready(instance_id, name, stage, timeout, before_send))

    def cancel(
        self, instance_id: str, *, timeout: float = 15.0, store: RunStore | None = None, run_key: str | None = None
    ) -> CancelOutcome:
        """Abort an instance and read it until it has ended: operations CancelEvent, GetInstance, and both histories.
        Harmless to repeat.

        Args:
            instance_id: the instance.
            timeout: seconds until the outcome is ``not_confirmed``, default 15.
            store, run_key: where the record of the run is kept, and its key: the stop is put on record first, so that
                a later attempt knows that the run was cancelled by its own side.

        Returns:
            What is true: ``cancelled`` (by this or an earlier cancel), ``already_ended`` by itself, ``never_started``
            (a row without a run), or ``not_confirmed``: it was not seen to end and may run on. ``in_flight`` holds
            payments that were under way: their money may arrive all the same.

        Raises:
            NotFoundError: there is no such instance.
        """
        with telemetry.span("cancel", instance_id=instance_id):
            return self.perform(self._cancel(instance_id, timeout, store, run_key))

    def ensure_workflow(self, definition: Mapping[str, Any], *, gate: bool = False) -> EnsuredWorkflow:
        """Find the oldest workflow with this name and an equal config, or create it.

        Operations ListWorkflows, CreateWorkflow.

        Args:
            definition: as for ``create_workflow``.
            gate: have runs wait for their release before their first stage, so that ``start`` never runs a key twice.

        Raises:
            ValidationError: ``path`` names the place; nothing was sent.
            AmbiguousSubmitError: it may have been created, and no list shows it.
        """
        with telemetry.span("ensure"):
            return self.perform(self._ensure(definition, gate))

    def list_unreleased(self, workflow_id: str) -> Sequence[tuple[Instance, str]]:
        """The runs of a gated workflow that still wait for their release: what lost submits leave. They move nothing.

        Operations ListInstances, GetInstanceHistory (one call per running instance).

        Returns:
            (instance, run key), oldest first.
        """
        return self.perform(self._unreleased(workflow_id))


class AsyncOrchestrationHttpHook(_Hook):
    """Talks to an orchestration server without blocking. Same methods as OrchestrationHttpHook, each awaitable.

    One hook may be used from several event loops in turn: each loop gets connections of its own.
    Callbacks (``on_stage``, ``on_chosen``, ``wants``) may be plain or asynchronous functions.
    """

    def _prepare(self) -> None:
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[RetryClass, httpx.AsyncClient]] = (
            WeakKeyDictionary()
        )

    async def __aenter__(self) -> AsyncOrchestrationHttpHook:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections of the running loop. May be called twice; a later call opens new ones."""
        for client in self._loops.pop(_running_loop(), {}).values():
            await client.aclose()

    # The driver

    def _client(self, retry: RetryClass) -> httpx.AsyncClient:
        for loop in [loop for loop in self._loops if loop.is_closed()]:
            del self._loops[loop]
        clients = self._loops.setdefault(_running_loop(), {})
        client = clients.get(retry)
        if client is None:
            with _proxies_checked():
                client = clients[retry] = httpx.AsyncClient(**self._client_arguments(retry))
        return client

    async def _attempt(self, call: Call[T], until: float | None) -> T:
        """One exchange. Raises only this package's errors (and whatever interrupts it)."""
        if self._ssl is None:
            # Reading CA bundles takes tens of milliseconds: not on the loop.
            self._ssl = await _running_loop().run_in_executor(None, ssl_context, self.settings)
        deadline = self._deadline(call, until)
        request = self._exchange.request(call, deadline)
        try:
            response = await self._client(call.retry).send(request, stream=True)
            try:
                body = await aread_body(response, deadline)
            finally:
                await response.aclose()
            result = self._exchange.result(call, response, body)
        except OrchestrationError as error:
            telemetry.count("calls", operation=call.operation, outcome=type(error).__name__)
            raise
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            telemetry.count("calls", operation=call.operation, outcome=type(error).__name__)
            raise self._exchange.failure(call, request, error) from error
        telemetry.count("calls", operation=call.operation, outcome="ok")
        return result

    async def _retried(self, call: Call[T]) -> T:
        deadline = self._clock.monotonic() + self.settings.retry_budget
        try:
            return await self._attempt(call, self._until(call, deadline))
        except OrchestrationError as error:
            if not may_repeat(call.retry, error, 1):
                raise
            first: OrchestrationError | None = error

        async def again() -> T:
            nonlocal first
            if first is not None:
                error, first = first, None
                raise error
            return await self._attempt(call, self._until(call, deadline))

        return await async_retrying(call.retry, self._clock, deadline, self._retry_told(call))(again)

    async def _call(self, call: Call[T]) -> T:
        try:
            return await self._retried(call)
        except OrchestrationError as error:
            raised = self._submitted(call, error)
            if raised is error:
                raise
            raise raised from error

    async def perform(self, procedure: Procedure[T]) -> T:
        """Perform a procedure to its end. What interrupts it goes through at once; nothing is performed after it."""
        try:
            step = _advance(procedure, None, None)
            while not isinstance(step, _Ended):
                try:
                    result, error = await self._effect(step), None
                except OrchestrationError as caught:
                    if not isinstance(step, Do):
                        raise  # a callback's error says nothing of the server
                    result, error = None, caught
                step = _advance(procedure, result, error)
            return cast("T", step.value)
        finally:
            procedure.close()

    async def _effect(self, effect: Effect) -> Any:
        if isinstance(effect, Do):
            if effect.retried:
                return await self._retried(effect.call)
            return await self._attempt(effect.call, effect.until)
        if isinstance(effect, Pause):
            return await self._clock.asleep(effect.seconds)
        if isinstance(effect, Ask):
            try:
                return Answer(await _in_a_thread(effect.function, effect.arguments))
            except Exception as error:
                return Answer(error=error)
        answer = effect.function(effect.what)
        return await answer if inspect.isawaitable(answer) else answer

    # The API's operations

    async def get_server_info(self) -> ServerInfo:
        """As ``OrchestrationHttpHook.get_server_info``."""
        return await self._call(calls.get_server_info())

    async def list_workflows(self) -> Sequence[Workflow]:
        """As ``OrchestrationHttpHook.list_workflows``."""
        return await self.perform(self._listing(calls.list_workflows))

    async def create_workflow(self, definition: Mapping[str, Any]) -> Workflow:
        """As ``OrchestrationHttpHook.create_workflow``."""
        return await self._call(calls.create_workflow(validated_definition(definition), self._versions.plain))

    async def get_workflow(self, workflow_id: str) -> Workflow:
        """As ``OrchestrationHttpHook.get_workflow``."""
        return await self._call(calls.get_workflow(workflow_id, self._versions.plain))

    async def delete_workflow(self, workflow_id: str) -> None:
        """As ``OrchestrationHttpHook.delete_workflow``."""
        await self._call(calls.delete_workflow(workflow_id, self._versions.plain))

    async def run_workflow(
        self, workflow_id: str, variables: Mapping[str, Any] | None = None, *, wait: bool = False
    ) -> Instance:
        """As ``OrchestrationHttpHook.run_workflow``."""
        return await self.perform(self._run(workflow_id, variables, wait))

    async def list_instances(self, workflow_id: str | None = None, running: bool | None = None) -> Sequence[Instance]:
        """As ``OrchestrationHttpHook.list_instances``."""
        return await self.perform(self._list_instances(workflow_id, running))

    async def get_instance(self, instance_id: str) -> Instance:
        """As ``OrchestrationHttpHook.get_instance``."""
        return await self._call(calls.get_instance(instance_id, self._versions.plain))

    async def get_instance_history(self, instance_id: str) -> Sequence[StageRun]:
        """As ``OrchestrationHttpHook.get_instance_history``."""
        return await self._call(calls.get_instance_history(instance_id, self._versions.plain))

    async def get_stage_history(self, instance_id: str, number: int) -> Sequence[ActivityRun]:
        """As ``OrchestrationHttpHook.get_stage_history``."""
        return await self._call(calls.get_stage_history(instance_id, number, self._versions.plain))

    async def send_event(self, instance_id: str, name: str) -> None:
        """As ``OrchestrationHttpHook.send_event``."""
        await self._call(calls.send_event(instance_id, name, self._versions.plain))

    async def abort_instance(self, instance_id: str) -> None:
        """As ``OrchestrationHttpHook.abort_instance``."""
        await self._call(calls.abort_instance(instance_id, self._versions.plain))

    async def list_triggers(self) -> Sequence[Trigger]:
        """As ``OrchestrationHttpHook.list_triggers``."""
        return await self.perform(self._listing(calls.list_triggers))

    async def create_trigger(
        self, event: str, workflow_id: str, *, filter: str | None = None, variables: Mapping[str, str] | None = None
    ) -> Trigger:
        """As ``OrchestrationHttpHook.create_trigger``."""
        return await self._call(
            calls.create_trigger(event, workflow_id, filter=filter, variables=variables, version=self._versions.plain)
        )

    async def get_trigger(self, trigger_id: str) -> Trigger:
        """As ``OrchestrationHttpHook.get_trigger``."""
        return await self._call(calls.get_trigger(trigger_id, self._versions.plain))

    async def delete_trigger(self, trigger_id: str) -> None:
        """As ``OrchestrationHttpHook.delete_trigger``."""
        await self._call(calls.delete_trigger(trigger_id, self._versions.plain))

    async def list_trigger_occurrences(self, trigger_id: str) -> Sequence[Occurrence]:
        """As ``OrchestrationHttpHook.list_trigger_occurrences``."""

        def page(version: calls.Version, cursor: str | None) -> Call[Any]:
            return calls.list_trigger_occurrences(trigger_id, version, cursor)

        page("v1", None)  # refuses a bad id before anything is sent
        return await self.perform(self._listing(page))

    async def test_trigger(self, trigger_id: str, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """As ``OrchestrationHttpHook.test_trigger``."""
        return await self._call(calls.test_trigger(trigger_id, event))

    # Procedures

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
        timeout: float = 60.0,
        on_changed: Literal["refuse", "adopt"] = "refuse",
        fingerprint_ignores: Sequence[str] = (),
        wants: Callable[[], bool] | None = None,
    ) -> Instance:
        """As ``OrchestrationHttpHook.start``."""
        with telemetry.span("start", workflow_id=workflow_id):
            return await self.perform(
                self._start(
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
                )
            )

    async def wait(
        self,
        instance_id: str,
        *,
        timeout: float | None = None,
        poll_interval: float = 5.0,
        on_stage: Callable[[StageEvent], object] | None = None,
        fail_after_attempts: int | None = None,
        deadline: float | None = None,
        row_grace: float | None = None,
    ) -> RunResult:
        """As ``OrchestrationHttpHook.wait``."""
        with telemetry.span("wait", instance_id=instance_id):
            return await self.perform(
                self._wait(instance_id, timeout, poll_interval, on_stage, fail_after_attempts, deadline, row_grace)
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
        """As ``OrchestrationHttpHook.run_once``. The store is asked in threads."""
        once = self._once(
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
    async def _owning_interrupts(self, once: OnceOptions) -> AsyncIterator[None]:
        """One ``try`` from the first submit to the return: an interrupt anywhere in it cancels the run."""
        try:
            yield
        except BaseException as error:
            if once.cancel_on_interrupt and once.is_interrupt(error):
                await self._stopped(once.run, error)
            raise
        finally:
            once.run.close()

    async def _stopped(self, run: owned_run.OwnedRun, error: BaseException) -> None:
        """Cancel in a thread, which a second cancellation of this task does not reach."""
        from asyncio import shield

        await shield(_running_loop().run_in_executor(None, self._interrupted, run, error))

    @asynccontextmanager
    async def owned_run(
        self, workflow: str | Mapping[str, Any], variables: Mapping[str, Any] | None = None, **as_for_run_once: Any
    ) -> AsyncIterator[OwnedRunHandle]:
        """As ``OrchestrationHttpHook.owned_run``, under ``async with``."""
        once = self._once(workflow, variables, **as_for_run_once)
        async with self._owning_interrupts(once):
            instance = await self.perform(once.run.begin())
            handle = OwnedRunHandle(instance_id=instance.id)
            try:
                yield handle
            except BaseException as error:
                if once.cancel_on_interrupt and once.process == os.getpid():
                    await self._stopped(once.run, error)
                once.cancel_on_interrupt = False  # that is done
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
        """As ``OrchestrationHttpHook.send_event_when_ready``. ``before_send`` is called in a thread."""
        with telemetry.span("send_event", instance_id=instance_id):
            return await self.perform(self._send_when_ready(instance_id, name, stage, timeout, before_send))

    async def cancel(
        self, instance_id: str, *, timeout: float = 15.0, store: RunStore | None = None, run_key: str | None = None
    ) -> CancelOutcome:
        """As ``OrchestrationHttpHook.cancel``."""
        with telemetry.span("cancel", instance_id=instance_id):
            return await self.perform(self._cancel(instance_id, timeout, store, run_key))

    async def ensure_workflow(self, definition: Mapping[str, Any], *, gate: bool = False) -> EnsuredWorkflow:
        """As ``OrchestrationHttpHook.ensure_workflow``."""
        with telemetry.span("ensure"):
            return await self.perform(self._ensure(definition, gate))

    async def list_unreleased(self, workflow_id: str) -> Sequence[tuple[Instance, str]]:
        """As ``OrchestrationHttpHook.list_unreleased``."""
        return await self.perform(self._unreleased(workflow_id))
