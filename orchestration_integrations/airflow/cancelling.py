"""Cancelling many instances in one span of time: all aborts first, then look what came of them.

An abort costs one call, and seeing that it had an effect can take as long as one lets it, on generation 2 of the
server for ever. So no instance waits for its abort until another one has been seen to end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from ..api.errors import NotFoundError, OrchestrationError, is_gateways_404, is_passing, is_unexplained, summary
from ..api.models import CancelOutcome, Instance
from ..procedures.cancel import Holding
from ..procedures.checkpoints import Standing, standing_at
from ..procedures.moved import NOTHING_READ, Reading, read_moved
from ..procedures.verdicts import cancel_verdict
from .marks import VariableMarks, put_up_hold

if TYPE_CHECKING:
    from ..http_hook import OrchestrationHttpHook

logger = logging.getLogger("orchestration_integrations.airflow")

AT_ONCE = 16
"""Calls under way at a time."""
LOOK_EVERY = 0.5
RETRY_SECONDS = 1.0
"""Seconds for repeating one call: no instance may keep the others from their abort."""
END_SECONDS = 3.0
"""Seconds for reading what one instance has moved, and for all of them after the limit."""


class Told(msgspec.Struct, frozen=True):
    """What came of an instance.

    Attributes:
        outcome: of its cancel, with what it has moved.
        unseen: why nobody knows whether it still runs; empty where that is known.
    """

    outcome: CancelOutcome
    unseen: str = ""


def cancel_all(
    hooks: Mapping[str, OrchestrationHttpHook],
    instance_ids: Sequence[tuple[str, str]],
    seconds: float,
    marks: VariableMarks,
    by: str,
    *,
    read_running: bool = True,
) -> dict[tuple[str, str], Told]:
    """Stop and abort all, then read each until it has ended, all within one limit.

    A run with checkpoints that its task waits for gets a hold, so that it is let pass no further one. Where it then
    stands at a checkpoint, it is told as ``held`` once its waiter cannot have missed the hold. What those have moved
    that were not seen to end is read last, for three more seconds at most.

    Args:
        hooks: by the id of their connection.
        instance_ids: ids of connection and instance.
        seconds: for all of them together.
        marks: where holds are put up.
        by: who stops them, in words.
        read_running: read what those have moved that were not seen to end. Default True.

    Returns:
        What came of each. None is left out.
    """
    until = time.monotonic() + seconds
    over = until + END_SECONDS
    wanted = list(dict.fromkeys(instance_ids))
    told: dict[tuple[str, str], Told] = {}
    answers: dict[tuple[str, str], str] = {}
    seen: dict[tuple[str, str], Instance] = {}
    unseen: dict[tuple[str, str], str] = {}
    holdings: dict[tuple[str, str], Holding] = {}
    standings: dict[tuple[str, str], tuple[Instance, Standing]] = {}
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:

        def each(work: Callable[[tuple[str, str]], None], of: Sequence[tuple[str, str]]) -> None:
            list(pool.map(work, of))

        def abort(one: tuple[str, str]) -> None:
            if time.monotonic() >= until:
                unseen[one] = "no abort was sent: the time was over"
                return
            http = hooks[one[0]]
            try:
                instance = seen[one] = http.get_instance(one[1])
            except OrchestrationError:
                pass  # an abort needs no look
            else:
                if instance.terminated:
                    return
            try:
                http.abort_instance(one[1])
                answers[one] = "204"
            except OrchestrationError as error:
                answers[one] = summary(error)

        def look(one: tuple[str, str]) -> None:
            if time.monotonic() >= until:
                return
            instance = seen.get(one)
            if instance is None or not instance.terminated:
                try:
                    instance = seen[one] = hooks[one[0]].get_instance(one[1])
                except OrchestrationError as error:
                    passing = is_passing(error) or is_unexplained(error) or is_gateways_404(error)
                    if not passing and not isinstance(error, NotFoundError):
                        unseen[one] = f"it could not be read: {summary(error)}"
                    elif time.monotonic() >= until:
                        unseen[one] = f"it could not be read in time: {summary(error)}"
                    return
            if instance.terminated:
                told[one] = Told(_end(hooks[one[0]], instance, answers.get(one, ""), over))
            elif one in holdings and time.monotonic() >= holdings[one].since:
                try:
                    standing = hooks[one[0]].perform(standing_at(instance, hooks[one[0]].plans.versions, until))
                except OrchestrationError:
                    return  # the next round looks again
                if standing is not None:
                    standings[one] = instance, standing

        def tell_held(one: tuple[str, str]) -> None:
            instance, standing = standings[one]
            told[one] = Told(_held(hooks[one[0]], instance, standing, answers.get(one, ""), until))

        def tell_left(one: tuple[str, str]) -> None:
            http, instance, answer = hooks[one[0]], seen.get(one), answers.get(one, "")
            if instance is not None and instance.terminated:
                told[one] = Told(_end(http, instance, answer, over))
                return
            why = unseen.get(one, f"not seen to end: the abort was answered with {answer or 'nothing'}")
            said = why if one in unseen else answer
            told[one] = Told(_not_confirmed(http, instance, said, over if read_running else None), why)

        # Airflow is asked by this thread alone, while the others talk to the server.
        aborting = pool.map(abort, wanted)
        for conn_id, instance_id in wanted:
            if time.monotonic() < until:
                http = hooks[conn_id]
                holding = http.perform(put_up_hold(marks, instance_id, by, http.plans.clock))
                if holding is not None:
                    holdings[conn_id, instance_id] = holding
        list(aborting)
        while time.monotonic() < until:
            left = [one for one in wanted if one not in told and one not in unseen]
            if not left:
                break
            standings.clear()
            each(look, left)
            held = []
            for one, (_, standing) in standings.items():
                http = hooks[one[0]]
                in_time = time.monotonic() < until
                if in_time and http.perform(holdings[one].excludes(standing, http.plans.clock)):
                    held.append(one)
            each(tell_held, held)
            if any(one not in told and one not in unseen for one in wanted):
                time.sleep(min(LOOK_EVERY, max(0.0, until - time.monotonic())))
        each(tell_left, [one for one in wanted if one not in told])
    return {one: told[one] for one in wanted}


def _held(
    http: OrchestrationHttpHook, instance: Instance, standing: Standing, answer: str, until: float
) -> CancelOutcome:
    """The outcome of an instance that its stop holds at a checkpoint, with what it has moved, read by ``until``."""
    reading = http.perform(read_moved(instance, http.plans.versions, http.plans.clock, until))
    return CancelOutcome(
        status="held",
        instance=instance,
        abort_answer=answer,
        moved=reading.moved,
        in_flight=(),
        checkpoint=standing.number,
    )


def _reading(http: OrchestrationHttpHook, instance: Instance, over: float) -> Reading:
    """What an instance has moved, read by ``over`` (monotonic seconds)."""
    until = min(time.monotonic() + END_SECONDS, over)
    return http.perform(read_moved(instance, http.plans.versions, http.plans.clock, until))


def _not_confirmed(
    http: OrchestrationHttpHook, instance: Instance | None, answer: str, over: float | None
) -> CancelOutcome:
    """The outcome of an instance that was not seen to end, with what it had moved, read by ``over``; None: unread."""
    moved = NOTHING_READ if instance is None or over is None else _reading(http, instance, over).moved
    return CancelOutcome(status="not_confirmed", instance=instance, abort_answer=answer, moved=moved, in_flight=())


def _end(http: OrchestrationHttpHook, instance: Instance, answer: str, over: float) -> CancelOutcome:
    """The outcome of an instance that was seen to have ended, with what it has moved. What cannot be read of that does
    not take back that it has ended."""
    reading = _reading(http, instance, over)
    outcome = CancelOutcome(
        status="cancelled" if instance.state == "cancelled" else "already_ended",
        instance=instance,
        abort_answer=answer,
        moved=reading.moved,
        in_flight=reading.in_flight,
    )
    verdict = cancel_verdict(outcome)
    unwelcome = verdict.means == "had succeeded"
    repeated = any(one.maybe_repeated for one in reading.moved.transactions)
    logger.log(
        logging.INFO if verdict.sure and not unwelcome and not repeated else logging.WARNING,
        "instance %s: %s (the abort was answered %s)%s%s",
        instance.id,
        verdict.text,
        answer or "nothing",
        "; its money was not rolled back" if unwelcome else "",
        "; money may have moved twice: check the ledger" if repeated else "",
        extra={"instance_id": instance.id, "outcome": outcome.status},
    )
    return outcome
