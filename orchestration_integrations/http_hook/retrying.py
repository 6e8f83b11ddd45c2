"""The one retry policy.

What may be repeated is a property of the call (its retry class) and of what went wrong, decided in
``may_repeat``. How long to wait is full jitter over a doubling ceiling, at least what the server
asked for; the whole is bounded by one budget on a monotonic clock, and a pause that would pass it
is not begun. Only this package's errors are ever caught, so an interrupt always goes through.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from ..api.calls import RetryClass
from ..api.errors import OrchestrationError, RateLimitedError, is_passing, is_unexplained, may_have_left
from ..clock import Clock

if TYPE_CHECKING:
    import tenacity  # loaded with the first call that fails: it takes long to import

Pausing = Callable[[float, "BaseException | None"], None]
FIRST_PAUSE = 0.25
"""Seconds: ceiling of the first pause; each further one doubles it."""
LONGEST_PAUSE = 10.0
"""Seconds: no ceiling is higher."""
UNEXPLAINED_TRIES = 4
"""A plain 500 is tried so often and no more: it may be a permanent answer."""


def may_repeat(retry: RetryClass, error: BaseException, tries: int) -> bool:
    """Whether a call of this class that ended with ``error`` at its ``tries``-th try may be sent again."""
    if not isinstance(error, OrchestrationError):
        return False
    if error.before_send:
        # Getting a token failed: the call itself never left.
        return is_passing(error) or (is_unexplained(error) and tries < UNEXPLAINED_TRIES)
    if retry is RetryClass.SUBMIT:
        return isinstance(error, RateLimitedError) or not may_have_left(error)
    return is_passing(error) or (is_unexplained(error) and tries < UNEXPLAINED_TRIES)


def pause_before(tries: int, error: BaseException) -> float:
    """Seconds to wait after the ``tries``-th try."""
    ceiling = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(tries - 1, 10))
    asked = getattr(error, "retry_after", None) or 0.0
    return max(random.uniform(0.0, ceiling), float(asked))  # noqa: S311


def policy(retry: RetryClass, clock: Clock, deadline: float, before_sleep: Pausing) -> dict[str, Any]:
    """The arguments of a tenacity ``Retrying`` or ``AsyncRetrying`` for one call.

    Args:
        retry: the class of the call.
        clock: gives monotonic time.
        deadline: monotonic seconds after which nothing is begun.
        before_sleep: told the length of each pause, in seconds, and why there is one.
    """

    left: OrchestrationError | None = None

    def failure(state: tenacity.RetryCallState) -> BaseException | None:
        return state.outcome.exception() if state.outcome else None

    def is_ours(state: tenacity.RetryCallState) -> bool:
        nonlocal left
        error = failure(state)
        if not isinstance(error, OrchestrationError):
            return False  # a result, or an interrupt
        if may_have_left(error):
            left = error
        return True

    def wait(state: tenacity.RetryCallState) -> float:
        error = failure(state)
        return pause_before(state.attempt_number, error) if error is not None else 0.0

    def stop(state: tenacity.RetryCallState) -> bool:
        error = failure(state)
        if error is None or not may_repeat(retry, error, state.attempt_number):
            return True
        return clock.monotonic() + state.upcoming_sleep >= deadline

    def told(state: tenacity.RetryCallState) -> None:
        before_sleep(state.upcoming_sleep, failure(state))

    def given_up(state: tenacity.RetryCallState) -> Any:
        # A last try that never left must not say that nothing was sent.
        last = cast("BaseException", failure(state))
        if left is None or left is last:
            raise last
        raise left from last

    return {
        "retry": is_ours,
        "wait": wait,
        "stop": stop,
        "before_sleep": told,
        "retry_error_callback": given_up,
        "reraise": True,
    }


def retrying(retry: RetryClass, clock: Clock, deadline: float, before_sleep: Pausing) -> tenacity.Retrying:
    """A fresh policy for one synchronous call."""
    import tenacity

    return tenacity.Retrying(sleep=clock.sleep, **policy(retry, clock, deadline, before_sleep))


def async_retrying(retry: RetryClass, clock: Clock, deadline: float, before_sleep: Pausing) -> tenacity.AsyncRetrying:
    """A fresh policy for one asynchronous call. Never share one: its iterator is itself."""
    import tenacity

    return tenacity.AsyncRetrying(sleep=clock.asleep, **policy(retry, clock, deadline, before_sleep))
