"""Clear or retry, wanted or not, and how much time an end may take: pure, every row."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timezone
from typing import Any

import pytest

from orchestration_integrations.airflow.attempt import Attempt, asked, wish
from orchestration_integrations.airflow.limits import CANCEL_SECONDS, Limit, limit_of, limit_resumed
from orchestration_integrations.airflow.record_care import gone_of
from orchestration_integrations.ownership.record import RunRecord
from orchestration_integrations.procedures.content import Content

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


def attempt(**changes: Any) -> Attempt:
    given: dict[str, Any] = {
        "dag_id": "dag",
        "run_id": "scheduled__2030-01-01T00:00:00+00:00",
        "task_id": "pay",
        "map_index": -1,
        "try_number": 2,
        "max_tries": 2,
        "retries": 2,
        "clear_number": 0,
        "first_instant": NOW,
    }
    return Attempt(**{**given, **changes})


def record(attempt_name: str = "try 1", **facts: Any) -> RunRecord:
    return RunRecord(
        key="k",
        state="chosen",
        workflow_id="w",
        server="s",
        since=NOW,
        content=Content(stages="", variables={}),
        attempt=attempt_name,
        facts=facts,
    )


@pytest.mark.parametrize(
    ("now", "then", "wanted"),
    [
        ({}, {"max_tries": 2, "clear_number": 0}, "again"),
        ({"max_tries": 4, "clear_number": 1}, {"max_tries": 2, "clear_number": 0}, "new"),
        ({"max_tries": 1, "clear_number": 1}, {"max_tries": 2, "clear_number": 0}, "new"),  # retries were edited, too
        ({"clear_number": 1}, {"max_tries": 2, "clear_number": 0}, "again"),  # a sibling was cleared
        ({"max_tries": 3}, {"max_tries": 2, "clear_number": 0}, "again"),
        ({"retries": 1}, {"max_tries": 2, "clear_number": 0}, "again"),  # R2: an edited file is no clear
        ({"max_tries": 3, "clear_number": None}, {"max_tries": 2, "clear_number": None}, "new"),
        ({"clear_number": None}, {"max_tries": 2, "clear_number": None}, "again"),
        ({"max_tries": 3, "clear_number": 1}, {"max_tries": 2, "clear_number": None}, "new"),
        ({"max_tries": 3}, {}, "again"),
    ],
)
def test_a_clear_is_told_by_the_counters(now: dict[str, Any], then: dict[str, Any], wanted: str) -> None:
    one = attempt(**now)
    assert asked(one, record(**then)) == wanted
    assert asked(one, record(**then), rerun_on_clear=False) == "again"  # R11


@pytest.mark.parametrize(
    ("marked", "has_it", "wanted"),
    [
        (None, "try 1", "again"),
        (1, "try 1", "new"),
        (2, "try 1", "new"),  # it never came to take the record up
        (1, "try 2", "again"),  # that clear was answered
        (1, "", "again"),
        (1, "try one", "again"),
    ],
)
def test_a_mark_asks_once(marked: int | None, has_it: str, wanted: str) -> None:
    one = attempt(try_number=3, clear_number=None)
    assert asked(one, record(has_it, max_tries=2, clear_number=None), marked_try=marked) == wanted


def test_only_the_first_try_is_surely_the_first() -> None:
    assert asked(attempt(try_number=1), None) == "first"
    assert asked(attempt(try_number=2), None) == "again"
    assert asked(attempt(try_number=1), record(max_tries=2, clear_number=0)) == "again"


@pytest.mark.parametrize(
    ("state", "more", "wanted"),
    [
        ("running", {}, "yes"),
        ("deferred", {}, "yes"),
        ("running", {"run_state": "running"}, "yes"),
        ("running", {"run_state": "failed"}, "unwanted"),
        ("failed", {}, "unwanted"),
        ("restarting", {}, "unwanted"),
        ("skipped", {}, "unwanted"),
        ("upstream_failed", {}, "unwanted"),
        ("removed", {}, "unwanted"),
        ("success", {}, "superseded"),
        ("scheduled", {}, "superseded"),
        ("up_for_retry", {}, "superseded"),
        (None, {}, "superseded"),
        ("a state of a later Airflow", {}, "superseded"),
        ("running", {"try_number": 3}, "superseded"),
        ("failed", {"try_number": 3}, "superseded"),
        ("running", {"try_number": 2}, "yes"),
        ("running", {"other_process": True}, "superseded"),
    ],
)
def test_what_states_mean(state: str | None, more: dict[str, Any], wanted: str) -> None:
    assert wish(attempt(), state, **more) == wanted


def test_names_and_keys() -> None:
    assert attempt().name == "try 2"
    assert attempt().key == "dag/scheduled__2030-01-01T00:00:00+00:00/pay/-1"
    assert attempt(dag_id="a/b", task_id="c").key != attempt(dag_id="a", task_id="b/c").key
    assert attempt(map_index=1).key != attempt(map_index=11).key
    assert attempt().facts == {"max_tries": 2, "clear_number": 0}
    assert attempt().tries_left
    assert not attempt(try_number=3).tries_left
    assert not attempt(retries=0).tries_left


def test_it_needs_no_airflow() -> None:
    code = (
        "import sys; sys.modules['airflow'] = None; import orchestration_integrations.airflow.attempt,"
        " orchestration_integrations.airflow.limits; assert 'httpx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- limits (R8) -----------------------------------------------------------------------------------


def given(**changes: Any) -> Limit:
    return limit_of(
        **{
            "started": 1000.0,
            "began": 1000.0,
            "timeout": None,
            "execution_timeout": None,
            "deferrable": False,
            "applies_deferred": False,
            **changes,
        }
    )


def test_without_limits_nothing_ends_a_wait() -> None:
    assert given() == Limit(None)
    assert given().cancel_seconds(5.0) == CANCEL_SECONDS
    assert given(timeout=60) == Limit(1060.0)


@pytest.mark.parametrize("seconds", [2, 8, 60, 3600])
@pytest.mark.parametrize("deferrable", [False, True])
def test_ours_is_earlier_than_airflows_by_enough_for_the_cancel(seconds: float, deferrable: bool) -> None:
    limit = given(execution_timeout=seconds, deferrable=deferrable, applies_deferred=True)
    assert limit.by == "execution_timeout"
    assert limit.deadline is not None
    assert 1000 < limit.deadline < 1000 + seconds
    cancel = limit.cancel_seconds(0.0)
    assert cancel <= 15
    if seconds >= 8:
        assert limit.deadline + cancel <= 1000 + seconds - 1


def test_on_airflow_3_a_resumed_piece_has_the_limit_for_itself() -> None:
    limit = given(execution_timeout=8, deferrable=True)
    assert (limit.deadline, limit.by) == (1008.0, "execution_timeout")
    resumed = limit_resumed(
        1008.0, "execution_timeout", started=1000.0, began=1010.0, execution_timeout=8, applies_deferred=False
    )
    assert resumed.airflow_at == 1018.0
    assert resumed.cancel_seconds(1010.0) == 7.0
    late = limit_resumed(1003.2, "x", started=1000.0, began=1005.0, execution_timeout=8, applies_deferred=True)
    assert (late.by, late.cancel_seconds(1005.0)) == ("timeout", 2.0)


def test_the_earlier_limit_wins() -> None:
    assert given(timeout=5, execution_timeout=600).by == "timeout"
    assert given(timeout=599, execution_timeout=600).by == "execution_timeout"


def test_variables_of_dag_runs_that_are_gone() -> None:
    def of(run_id: str) -> str:
        return f'{{"of": ["dag", "{run_id}", "pay", -1], "is": 1}}'

    stored = [
        ("orchestration_run_aa", of("gone")),
        ("orchestration_choice_aa_0", of("gone")),
        ("orchestration_settled_aa", "0-123"),
        ("orchestration_run_bb", of("alive")),
        ("orchestration_settled_bb", "0-123"),
        ("orchestration_settled_cc", "0-123"),
        ("orchestration_default", "someone else's"),
        ("orchestration_run_dd", "unreadable"),
    ]
    found = gone_of(stored, {("dag", "alive")})
    assert found == {"orchestration_run_aa", "orchestration_choice_aa_0", "orchestration_settled_aa"}
