"""What a wait is told, checked where it is made: so before the run that is waited for is started."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..api.errors import ValidationError
from ..api.numbers import at_least_zero, whole_number
from .limits import POLL_SECONDS, READ_BUDGET

Shares = Literal["always", "many", "never"]


class WaitArguments(msgspec.Struct, frozen=True, kw_only=True):
    """How long a wait goes on, and how it looks. See ``OrchestrationHttpHook.wait`` for each.

    Attributes:
        timeout: seconds from the wait's beginning, None for no limit.
        deadline: epoch seconds, instead of ``timeout``.
        poll_interval: seconds.
        fail_after_attempts: attempts of one payment, None for no limit.
        row_grace: seconds, None for what the hook knows of the id.
        read_budget: seconds.
        shares: whether the wait may sleep with others that share one poll: it is told stages half a minute late then.
            ``always``, or where ``many`` wait, or ``never``. None: ``always`` if it tells nobody of stages, else
            ``never``.
        limit: names the limit that ``deadline`` comes of, as its user knows it. ``timeout`` names itself.
        gives_up: what the wait does when reads have failed for too long, for its log.

    Raises:
        ValidationError: one is wrong; ``path`` names it.
    """

    timeout: float | None = None
    deadline: float | None = None
    poll_interval: float = POLL_SECONDS
    fail_after_attempts: int | None = None
    row_grace: float | None = None
    read_budget: float = READ_BUDGET
    shares: Shares | None = None
    limit: str = ""
    gives_up: str = "gives up"

    def __post_init__(self) -> None:
        for name in ("timeout", "deadline", "poll_interval", "row_grace", "read_budget"):
            value = getattr(self, name)
            if value is not None or name in ("poll_interval", "read_budget"):
                msgspec.structs.force_setattr(self, name, at_least_zero(value, name))
        if self.timeout is not None and self.deadline is not None:
            raise ValidationError("timeout: give either timeout or deadline", path="timeout")
        if self.poll_interval == 0:
            raise ValidationError("poll_interval must be above 0 seconds", path="poll_interval")
        if self.fail_after_attempts is not None:
            whole_number(self.fail_after_attempts, "fail_after_attempts", least=1)

    @property
    def named_limit(self) -> str:
        """What ends the wait, by its name and in its unit; empty where nothing names it."""
        return self.limit if self.timeout is None else f"timeout={self.timeout:g} s"

    def ends_at(self, now: float) -> float | None:
        """Epoch seconds at which a wait that begins ``now`` is over; None for never."""
        return self.deadline if self.timeout is None else now + self.timeout


def check_on_timeout(value: object) -> None:
    """Refuse anything but ``cancel`` and ``leave``.

    Raises:
        ValidationError: it is neither.
    """
    if value not in ("cancel", "leave"):
        raise ValidationError(f"on_timeout must be cancel or leave, not {value!r}", path="on_timeout")
