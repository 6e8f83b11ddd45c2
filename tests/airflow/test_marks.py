"""Marks as Variables: one that could not be read is not missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from orchestration_integrations.airflow import variables
from orchestration_integrations.airflow.marks import VariableMarks, waiter_mark

STANDS = {"orchestration_waiter_i": json.dumps({"is": "{}"}), "orchestration_hold_i": json.dumps({"is": "stop"})}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str | None]], list[str]]:
    """Has Airflow give these answers, as its API does where a query of its database fails; records what was asked."""

    def give(answers: list[str | None]) -> list[str]:
        asked: list[str] = []
        left: Iterator[str | None] = iter(answers)

        def read(name: str) -> str | None:
            asked.append(name)
            return next(left)

        monkeypatch.setattr(variables, "read_surely", read)
        return asked

    return give


def test_one_failing_query_hides_no_stop(reads: Callable[[list[str | None]], list[str]]) -> None:
    asked = reads([None, STANDS["orchestration_waiter_i"], STANDS["orchestration_hold_i"]])
    assert VariableMarks().read("hold/i") == "stop"
    assert asked == ["orchestration_hold_i", "orchestration_waiter_i", "orchestration_hold_i"]


def test_a_database_that_is_away_says_nothing_of_marks(reads: Callable[[list[str | None]], list[str]]) -> None:
    marks = VariableMarks()
    reads([STANDS["orchestration_waiter_i"]])
    assert marks.read(waiter_mark("i")) == "{}"
    reads([None, None])
    with pytest.raises(LookupError, match="orchestration_waiter_i is missing"):
        marks.read("passing/i/2")


def test_a_mark_is_missing_where_the_waiters_was_read_in_between(
    reads: Callable[[list[str | None]], list[str]],
) -> None:
    reads([None, STANDS["orchestration_waiter_i"], None])
    assert VariableMarks().read("passing/i/2") is None


def test_a_run_without_a_waiter_has_no_marks(reads: Callable[[list[str | None]], list[str]]) -> None:
    reads([None, None, None, None, None])
    marks = VariableMarks()
    assert marks.read("hold/i") is None
    assert marks.read(waiter_mark("i")) is None
