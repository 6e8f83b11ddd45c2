"""What both hooks have in common, none of which does I/O."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote_plus

from .. import telemetry
from ..api.calls import Call, RetryClass
from ..api.errors import (
    AmbiguousSubmitError,
    ConfigurationError,
    OrchestrationError,
    TransportError,
    is_ambiguous,
    summary,
)
from ..api.models import CancelOutcome, RunResult, StageEvent
from ..clock import SYSTEM_CLOCK, Clock, SystemClock
from ..procedures.effects import Procedure
from ..procedures.outages import OutageNews
from ..procedures.wait_arguments import Shares, WaitArguments
from ..settings import Settings
from .deadline import Deadline
from .exchange import Exchange

if TYPE_CHECKING:
    from ..ownership.marks import MarkPlace
    from ..ownership.owned_run import OwnedRun
    from ..ownership.record import RunStore
    from ..ownership.request import OwnedRequest
    from ..procedures.cancel import Holding
    from ..procedures.checkpoints import Guard
    from .connections import Connections
    from .once import Once
    from .plans import Plans
    from .token_listeners import TokenListener
    from .waits import Place

T = TypeVar("T")
H = TypeVar("H", bound="HookBase")
logger = logging.getLogger("orchestration_integrations.hook")


class _NotGiven:
    """Stands for an argument that was left out, so that a default that is given explicitly is told from it."""

    def __repr__(self) -> str:
        return "as in Settings"


NOT_GIVEN: Final[Any] = _NotGiven()
SHORTEST_SECRET = 4
"""Characters: what is shorter stands in texts by chance."""
READER_SECONDS = 10.0
"""Seconds for which an exchange may last that is made on behalf of many hooks."""
WAITS_FOR_EVER: Final = WaitArguments()


def settings_of(settings: Settings | None, given: dict[str, Any]) -> Settings:
    """The settings of a hook. What is given by name wins over the environment.

    Raises:
        ConfigurationError: a value is wrong or missing, or both ways are used at once.
    """
    given = {name: value for name, value in given.items() if value is not NOT_GIVEN}
    if settings is not None:
        if not isinstance(settings, Settings):
            raise ConfigurationError(
                f"settings: must be Settings, not a {type(settings).__name__}; give an address as base_url=",
                field="settings",
            )
        for name in given:
            raise ConfigurationError(f"{name}: is given beside settings; put it into the settings", field=name)
        return settings
    if given.get("base_url") is not None:
        return Settings(**given)
    return Settings.from_env(**given)


class HookBase:
    """Settings, connections and procedures of a hook.

    Args:
        asynchronous: what users give this hook may be awaited.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        asynchronous: bool,
        face: str | None = None,
        on_token: Callable[[str], object] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        transport: Any = None,
        own_connections: bool = False,
        **given: Any,
    ) -> None:
        from .plans import Plans  # the procedures: not wherever a DAG is parsed
        from .procedure_clock import ProcedureClock

        self.settings: Settings = settings_of(settings, given)
        self._clock = clock
        self._face = face
        self._on_token = on_token
        self._token_listener: TokenListener | None = None
        self._transport = transport
        self._own_connections = own_connections
        self._shares = not own_connections and transport is None and isinstance(clock, SystemClock)
        self._connections: Connections | None = None
        self._exchange = Exchange(self.settings, clock, face, self._secrets)
        self.plans: Plans = Plans(
            self.settings,
            ProcedureClock(clock, self._exchange),
            asynchronous=asynchronous,
            place_of_wait=self.place_of_wait,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # What makes another hook that reaches the same server, credentials included. Connections stay here.
        options = {
            "face": self._face,
            "on_token": self._on_token,
            "transport": self._transport,
            "own_connections": self._own_connections,
        }
        if self._clock is not SYSTEM_CLOCK:
            options["clock"] = self._clock
        return _made_again, (type(self), self.settings, options, self.plans.given_ids)

    def _secrets(self) -> tuple[str, ...]:
        fetched = self._connections.tokens.fetched if self._connections is not None else ()
        plain = tuple(one for one in (*self.settings.secrets, *fetched) if len(one) >= SHORTEST_SECRET)
        return (*plain, *(quoted for quoted in map(quote_plus, plain) if quoted not in plain))  # as in a form

    def _reach(self) -> Connections:
        """The connections, which are this process's own."""
        connections = self._connections
        if connections is None or not connections.usable:
            from .connections import Connections, shared_connections  # with the first call, as all that opens sockets

            if self._shares:
                connections = shared_connections(self.settings)
            else:
                connections = Connections(self.settings, self._clock, self._transport)
            self._connections = connections
            if self._on_token is not None:
                self._token_listener = connections.tokens.listeners.of(self._on_token)
        return connections

    @property
    def reach(self) -> Connections:
        """The connections. Hooks that share them reach the same server in the same way."""
        return self._reach()

    @property
    def clock(self) -> Clock:
        """The time as this hook sees it."""
        return self._clock

    def place_of_wait(self, instance_id: str, shares: Shares) -> Place | None:
        """The place where a wait sleeps that begins; None: by itself."""
        return None

    @property
    def shares(self) -> bool:
        """Whether this hook shares its connections with others of the process."""
        return self._shares

    def another(self, kind: type[H], adapt: Callable[[Any], Any] | None = None) -> H:
        """An asynchronous driver with the same settings that shares what this one shares.

        Args:
            kind: of driver.
            adapt: makes an asynchronous transport of the one that this hook was given.
        """
        return kind(
            self.settings,
            asynchronous=True,
            face=self._face,
            on_token=self._on_token,
            clock=self._clock,
            transport=adapt(self._transport) if adapt is not None and self._transport is not None else self._transport,
            own_connections=self._own_connections,
        )

    def reader(self, kind: type[H]) -> H:
        """An asynchronous driver that reads on behalf of all hooks that reach the same server by the same version of
        the API. Who is told of its tokens, and the name that it gives itself, are those of this one."""
        if not self._shares:
            return self.another(kind)
        settings = self.settings.with_changes(timeout=READER_SECONDS)
        return kind(settings, asynchronous=True, face=self._face, on_token=self._on_token)

    def like_this(self, kind: type[H], settings: Settings) -> H:
        """Another driver, with other settings, the same clock and transport, and connections of its own."""
        return kind(
            settings,
            asynchronous=False,
            face=self._face,
            on_token=self._on_token,
            clock=self._clock,
            transport=self._transport,
            own_connections=True,
        )

    # Shared parts of the drivers

    def _deadline(self, call: Call[Any], until: float | None) -> Deadline:
        allowed = self.settings.timeout
        if call.holds:
            allowed = max(allowed, self.settings.retry_budget)
        now = self._clock.monotonic()
        if until is not None and now >= until:
            raise TransportError(f"{call.what}: not sent, its time was over", sent=False)
        end = inf if until is None else until
        at = min(now + allowed, end)
        # A read may wait longer for a connection than a submit, which its caller takes for sent.
        place_by = at if call.retry is RetryClass.SUBMIT else min(now + max(allowed, self.settings.retry_budget), end)
        return Deadline(self._clock, at, seconds=allowed, until=end, place_by=place_by)

    def _until(self, call: Call[Any], deadline: float) -> float | None:
        """A submit is given its whole time-out also at the end of the budget: cut short it would be ambiguous."""
        return None if call.retry is RetryClass.SUBMIT else deadline

    def _retry_told(self, call: Call[Any]) -> Callable[[float, BaseException | None], None]:
        def told(pause: float, error: BaseException | None) -> None:
            telemetry.count("retries", operation=call.operation)
            why, server = "no reason is known" if error is None else summary(error), self.settings.base_url
            where = why if server in why else f"{why}; server {server}"
            logger.info(
                "%s failed (%s), next try in %.2f s", call.what, where, pause, extra={"operation": call.operation}
            )

        return told

    def _submitted(self, call: Call[Any], error: OrchestrationError) -> OrchestrationError:
        """What a plain submit raises: an ambiguous answer by its name."""
        if call.retry is not RetryClass.SUBMIT or not is_ambiguous(error):
            return error
        telemetry.count("ambiguous_submits", operation=call.operation)
        message = f"{call.what} may have been carried out: {summary(error)}; it was not repeated"
        logger.warning("%s", message, extra={"operation": call.operation})
        return AmbiguousSubmitError(message)

    # For those who perform procedures with a hook

    def once(self, workflow: str | Mapping[str, Any], variables: Mapping[str, Any] | None, **options: Any) -> Once:
        """What ``run_once`` and ``owned_run`` do. Arguments as for ``run_once``."""
        from .once import once_of

        return once_of(self.plans, workflow, variables, **options)

    def expect(self, instance_id: str) -> None:
        """Tell this hook an id that the server once gave, for instance one that another process has stored.

        The row of such an instance may be late: for an hour, or their limit, ``wait``, ``cancel`` and
        ``send_event_when_ready`` don't take "not found" for an answer.
        """
        self.plans.expect(instance_id)

    def owning(
        self,
        wanted: OwnedRequest,
        *,
        store: RunStore | None = None,
        owner: Any = None,
        at_checkpoint: Any = None,
        on_chosen: Callable[[str], object] | None = None,
        mark_place: MarkPlace | None = None,
    ) -> OwnedRun:
        """One attempt's work on one key, for whoever performs its procedures with this hook. Sends nothing.

        Args:
            wanted: what the caller wants.
            store: where the record of the key is kept; None: nowhere.
            owner: asked before each release and each pass of a checkpoint: ``yes``, ``unwanted`` or ``superseded``;
                None: it always wants the run.
            at_checkpoint: asked besides before each pass, with the user's number of the stage behind the checkpoint.
            on_chosen: told the id before the release of a run that this attempt chose.
            mark_place: where the marks of the run are; None: where the store says, else in the record.
        """
        return self.plans.owning(
            wanted,
            store=store,
            owner=owner,
            at_checkpoint=at_checkpoint,
            on_chosen=on_chosen,
            mark_place=mark_place,
        )

    def waiting_for(
        self,
        instance_id: str,
        arguments: WaitArguments = WAITS_FOR_EVER,
        on_stage: Callable[[StageEvent], object] | None = None,
        guard: Guard | None = None,
        on_outage: Callable[[OutageNews], object] | None = None,
    ) -> Procedure[RunResult]:
        """The wait for an instance as a procedure, to be performed within another one.

        Args:
            instance_id: whom to wait for.
            arguments: how; default: without a limit.
            on_stage: as for ``wait``.
            guard: asked before the instance is let pass a checkpoint; None: nobody may let it pass.
            on_outage: called when reads begin to fail, and when they work again; None: the log is told.
        """
        return self.plans.waiting_for(instance_id, arguments, on_stage, guard, on_outage)

    def cancelling(
        self, instance_id: str, timeout: float, stop: Procedure[Holding | None] | None = None
    ) -> Procedure[CancelOutcome]:
        """The cancel of an instance as a procedure, by whoever puts up a stop for its waiter in a place of its own.

        Args:
            instance_id: what to cancel.
            timeout: seconds, as for ``cancel``; the stop counts among them.
            stop: puts up the stop; what it returns tells whether the instance is held at a checkpoint.
        """
        return self.plans.cancelling(instance_id, timeout, stop)


def _made_again(
    kind: Callable[..., HookBase], settings: Settings, options: Mapping[str, Any], given_ids: Sequence[str]
) -> HookBase:
    hook = kind(settings, **options)
    for instance_id in given_ids:
        hook.expect(instance_id)
    return hook
