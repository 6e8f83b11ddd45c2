"""What came of a run is judged in one place, and what could not be read is never "none"."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as some

from orchestration_integrations.api.errors import (
    EventNotDeliveredError,
    InstanceCancelledError,
    InstanceFailedError,
    WaitTimeoutError,
)
from orchestration_integrations.api.models import ActivityRun, CancelOutcome, Instance, Moved
from orchestration_integrations.cli.exit_codes import SEVERITY, status_of, status_of_verdict, worst_of
from orchestration_integrations.procedures.verdicts import cancel_verdict, end_verdict

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)
PAYMENT = ActivityRun(
    name="CreateTransaction", input={}, output=None, error=None, terminated=False, started_at=EPOCH,
    terminated_at=None, last_failure=None, attempt=1, next_execution=None, raw={},
)  # fmt: skip


def instance(error):
    return Instance(
        id="i", workflow_id="w", created_at=EPOCH, updated_at=EPOCH, terminated=True, terminated_at=EPOCH, error=error,
        status=(), raw={},
    )  # fmt: skip


def moved(complete):
    return Moved(stages_completed=0, transactions=(), complete=complete)


outcomes = some.builds(
    CancelOutcome,
    status=some.sampled_from(["cancelled", "already_ended", "never_started", "held", "not_confirmed"]),
    instance=some.sampled_from([None, instance(None), instance("canceled"), instance("no such account")]),
    abort_answer=some.just("204"),
    moved=some.builds(moved, some.booleans()),
    in_flight=some.sampled_from([(), (PAYMENT,)]),
    checkpoint=some.sampled_from([None, 1]),
)


@given(outcomes)
def test_a_cancel_is_sure_only_where_all_was_read(outcome):
    verdict = cancel_verdict(outcome)
    status = status_of_verdict(verdict)
    assert verdict.sure is (status != 3)
    assert status in (0, 1, 3, 6)
    if outcome.status == "never_started":
        assert status == 0
    elif outcome.in_flight or outcome.status == "not_confirmed":
        assert status == 3
    elif outcome.status == "already_ended" and outcome.instance is not None and outcome.instance.state == "succeeded":
        assert status == 6, "what was to be stopped had succeeded"
    elif not outcome.moved.complete or outcome.instance is None:
        assert status == 3
    if outcome.status == "cancelled" and not outcome.moved.complete and not outcome.in_flight:
        assert "whether a payment is under way could not be read" in verdict.text


@pytest.mark.parametrize("kind", [InstanceFailedError, InstanceCancelledError])
@pytest.mark.parametrize(("complete", "status"), [(True, 1), (False, 3)])
def test_a_bad_end_is_sure_only_where_what_moved_is_known(kind, complete, status):
    error = kind("it ended", instance_id="i", instance=instance("x"), moved=moved(complete))
    assert status_of_verdict(end_verdict(error)) == status_of(error) == status


@pytest.mark.parametrize(("seen", "status", "word"), [(True, 4, "timeout"), (False, 3, "unknown")])
def test_a_time_out_is_one_only_where_the_last_look_saw_the_run(seen, status, word):
    """That it was seen before says nothing of now."""
    error = WaitTimeoutError("late", instance_id="i", instance=instance(None), moved=moved(True))
    error.seen_running = seen
    assert (status_of(error), end_verdict(error).word) == (status, word)


@given(some.lists(some.sampled_from(SEVERITY)))
def test_what_is_not_known_counts_before_all_else(statuses):
    worst = worst_of(statuses)
    assert worst in (statuses or [0])
    if 3 in statuses:
        assert worst == 3
    elif 6 in statuses:
        assert worst == 6, "whoever pays anew on a failure would pay that twice"
    assert worst != 1 or set(statuses) <= {0, 1}, "1 lets a script pay by other means"
    assert worst != 0 or set(statuses) <= {0}


@pytest.mark.parametrize("error", [None, "canceled", "no such account"])
def test_an_event_that_came_too_late_does_not_say_what_the_run_has_moved(error):
    late = EventNotDeliveredError("late", reason="instance_ended", instance_id="i", instance=instance(error))
    assert status_of(late) == (2 if error is None else 3)
