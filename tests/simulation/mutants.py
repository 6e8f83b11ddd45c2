"""The rules about money, broken on purpose: each mutant must be caught by the histories.

A mutant is a context manager that replaces one rule by the mistake that an integration would make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from orchestration_integrations.api.errors import AmbiguousRunError
from orchestration_integrations.procedures import cancel, events, start, waiting
from orchestration_integrations.procedures.effects import do, tell


@contextmanager
def retries_a_submit_on_timeout() -> Iterator[None]:
    """A run whose answer was lost is simply sent again."""
    with mock.patch.object(start, "is_ambiguous", return_value=False):
        yield


@contextmanager
def compares_keys_by_prefix() -> Iterator[None]:
    """``run-10`` is taken for ``run-1``."""
    with mock.patch.object(start, "is_same_key", lambda found, wanted: str(found).startswith(wanted)):
        yield


@contextmanager
def trusts_204() -> Iterator[None]:
    """An accepted abort is called a cancelled run."""
    real = cancel._outcome

    def outcome(status: Any, instance: Any, answer: str, versions: Any, now: Any) -> Any:
        return (yield from real("cancelled" if answer == "204" else status, instance, answer, versions, now))

    with mock.patch.object(cancel, "_outcome", outcome):
        yield


@contextmanager
def trusts_absence() -> Iterator[None]:
    """No row shows the run, so it is started again."""
    real = start._proof

    def proof(self: Any, why: str, provable: bool, cause: Any) -> Any:
        try:
            return (yield from real(self, why, provable, cause))
        except AmbiguousRunError as error:
            if error.candidates:
                raise
        instance = yield from start._submit(self)
        yield from tell(self.request.on_chosen, instance.id)
        return instance

    with mock.patch.object(start, "_proof", proof):
        yield


@contextmanager
def drops_the_last_look() -> Iterator[None]:
    """At the deadline the wait is over, whatever has happened since the last poll."""

    def read(self: waiting.Waiting, now: float) -> waiting.Next:
        if self.deadline is not None and now >= self.deadline:
            return self._timeout()
        return waiting.Read(self.deadline)

    with mock.patch.object(waiting.Waiting, "_read", read):
        yield


@contextmanager
def forgets_what_was_chosen() -> Iterator[None]:
    """An attempt chooses anew although an earlier one had stored its choice, and takes any of several."""
    real = start._gated

    def gated(self: start._Start) -> Any:
        self.request.chosen = None
        self.request.fresh = True
        return (yield from real(self))

    with mock.patch.object(start, "_gated", gated):
        yield


@contextmanager
def calls_the_absent_ended() -> Iterator[None]:
    """Not to be in the list of running instances is taken for having succeeded."""
    real = waiting.Waiting.feed

    def feed(self: waiting.Waiting, seen: waiting.Observation, now: float) -> waiting.Step:
        if isinstance(seen, waiting.Absent) and self.instance is not None:
            return waiting.Step(waiting.End("succeeded", self.instance))
        return real(self, seen, now)

    with mock.patch.object(waiting.Waiting, "feed", feed):
        yield


@contextmanager
def sends_events_blindly() -> Iterator[None]:
    """An event is sent to whatever stage runs, and 204 is believed."""

    def deliver(delivery: Any, stage: int, instance: Any, *, resend: bool) -> Any:
        yield from do(delivery.event_call, None)
        return instance

    with mock.patch.object(events, "_deliver", deliver):
        yield


@contextmanager
def always_gives_up() -> Iterator[None]:
    """A client that is never wrong because it never says anything."""
    real = start._gated

    def gated(self: start._Start) -> Any:
        yield from real(self)
        raise self.ambiguous("who knows", ())

    with mock.patch.object(start, "_gated", gated):
        yield


MUTANTS: tuple[Callable[[], Any], ...] = (
    retries_a_submit_on_timeout,
    compares_keys_by_prefix,
    trusts_204,
    trusts_absence,
    drops_the_last_look,
    forgets_what_was_chosen,
    calls_the_absent_ended,
    sends_events_blindly,
    always_gives_up,
)
