"""What a procedure asks of its driver, and the small steps that procedures share."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from ..api.calls import Call
from ..api.errors import OrchestrationError, is_gateways_404, is_inconclusive, is_passing

T = TypeVar("T")


class Now(Protocol):
    """The clocks that a procedure reads. Reading them is all it does with the outside."""

    def monotonic(self) -> float:
        """Seconds for deadlines inside this process."""
        ...

    def time(self) -> float:
        """Epoch seconds, ours."""
        ...

    def server_time(self) -> float:
        """Epoch seconds, the server's, as far as its answers told."""
        ...

    def jitter(self) -> float:
        """A random number from 0 to 1."""
        ...


class Do(msgspec.Struct, Generic[T], frozen=True):
    """Perform a call: a single attempt, over by ``until`` (monotonic seconds), unless ``retried``.

    Inside a procedure or a wait the procedure itself is the retry; a retried call in there would
    multiply two budgets. The driver sends back the result or throws the OrchestrationError in.
    """

    call: Call[T]
    until: float | None = None
    retried: bool = False


class Pause(msgspec.Struct, frozen=True):
    """Let ``seconds`` pass."""

    seconds: float


class Tell(msgspec.Struct, frozen=True):
    """Call a function of the caller's; an asynchronous driver awaits what it returns."""

    function: Callable[[Any], object]
    what: object


class Ask(msgspec.Struct, frozen=True):
    """Call a function of the caller's that may block or fail: a store of records, the owner of a run.

    An asynchronous driver calls it in a thread. The driver sends back an ``Answer``, also where the function
    raised an Exception: what that means is for the procedure to say.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """What a function of the caller's returned, or the exception that it raised."""

    value: Any = None
    error: Exception | None = None


Effect = Do[Any] | Pause | Tell | Ask
Procedure = Generator[Effect, Any, T]


def do(call: Call[T], until: float | None = None, *, retried: bool = False) -> Procedure[T]:
    """Perform a call."""
    result: T = yield Do(call, until, retried)
    return result


def pause(seconds: float) -> Procedure[None]:
    """Let time pass."""
    if seconds > 0:
        yield Pause(seconds)


def ask(function: Callable[..., Any], *arguments: Any) -> Procedure[Answer]:
    """Call a function of the caller's; what it raises is part of the answer."""
    answer: Answer = yield Ask(function, arguments)
    return answer


def ask_or_raise(function: Callable[..., Any], *arguments: Any) -> Procedure[Any]:
    """Call a function of the caller's and raise what it raises."""
    answer = yield from ask(function, *arguments)
    if answer.error is not None:
        raise answer.error
    return answer.value


def tell(function: Callable[[Any], object] | None, what: object) -> Procedure[None]:
    """Tell the caller, if it wants to be told."""
    if function is not None:
        yield Tell(function, what)


class Backoff:
    """Growing pauses with some jitter: 0.1 s to ``longest`` seconds."""

    def __init__(self, now: Now, first: float = 0.1, longest: float = 2.0) -> None:
        self._now = now
        self._next = first
        self._longest = longest

    def seconds(self, error: OrchestrationError | None = None) -> float:
        """The next pause; at least what the server asked for."""
        seconds = self._next * (0.75 + 0.5 * self._now.jitter())
        self._next = min(self._next * 1.7, self._longest)
        return max(seconds, (error.retry_after or 0.0) if error is not None else 0.0)


def insist(call: Call[T], now: Now, until: float, *, unexplained: int = 4, may_be_absent: bool = False) -> Procedure[T]:
    """A read repeated until it answers.

    Args:
        until: monotonic seconds after which it is not repeated.
        unexplained: how often it is tried at most where the answer explains nothing: a plain 500, an unreadable
            answer, a 404 that may be a gateway's.
        may_be_absent: such a 404 is an answer too: it tells that the server has no such path.

    Raises:
        OrchestrationError: the first that time cannot mend, or the last before ``until``.
    """
    backoff = Backoff(now)
    tries = 0
    while True:
        try:
            return (yield from do(call, until))
        except OrchestrationError as error:
            if not is_inconclusive(error) or (may_be_absent and is_gateways_404(error)):
                raise
            tries += not is_passing(error)
            wait = backoff.seconds(error)
            if tries >= unexplained or now.monotonic() + wait >= until:
                raise
        yield from pause(wait)
