"""The facts of an attempt: keys, numbers, how two calls relate, what an owner says. No Prefect in any of it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

import pytest

from orchestration_integrations.ownership.record import RunRecord
from orchestration_integrations.prefect.attempt import (
    AttemptFacts,
    Enclosure,
    FlowState,
    claim_call,
    claim_step,
    not_come_back_to,
    owner_says,
)
from orchestration_integrations.procedures.content import Content


def at(*path: tuple[str, int], root: str = "", names: dict[str, str] | None = None, process: str = "p") -> AttemptFacts:
    """Facts of a call: ids that begin with F are flow runs."""
    named = names or {}
    return AttemptFacts(
        tuple(Enclosure(one + root, count, one.startswith("F"), named.get(one, "")) for one, count in path), process
    )


def record(facts: AttemptFacts, *, returned: bool = False, call: str = "", key: str = "k", **more: Any) -> RunRecord:
    return RunRecord(
        key=key,
        state="chosen",
        workflow_id="w",
        server="s",
        since=datetime.now(timezone.utc),
        content=Content(stages="", variables={}),
        instance_id="i",
        returned=returned,
        facts=facts.on_record(call),
        **more,
    )


def test_it_needs_no_prefect() -> None:
    code = "import sys; sys.modules['prefect'] = None; import orchestration_integrations.prefect.attempt"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("mine", "theirs", "how"),
    [
        ([("F", 1), ("T", 1)], [("F", 1), ("T", 1)], "same"),
        ([("F", 2), ("U", 1)], [("F", 1), ("T", 1)], "again"),  # the flow was retried
        ([("F", 1), ("T", 2), ("R", 1)], [("F", 1), ("T", 1), ("Q", 1)], "again"),  # the task around was
        ([("F", 1), ("T", 1), ("G", 2)], [("F", 1), ("T", 1), ("G", 1), ("R", 1)], "again"),  # a subflow was
        ([("F", 1), ("U", 1)], [("F", 1), ("T", 1)], "beside"),
        ([("F", 1), ("U", 2)], [("F", 1), ("T", 1)], "beside"),  # a retry of its own makes it no heir of another
        ([("F", 1)], [("F", 1), ("T", 1)], "beside"),
        ([("G", 1)], [("F", 1)], "apart"),
    ],
)
def test_how_two_calls_relate(mine: list[tuple[str, int]], theirs: list[tuple[str, int]], how: str) -> None:
    assert at(*mine).relation(at(*theirs).on_record()) == how
    rival = how in ("same", "beside")
    assert at(*mine).is_rival(record(at(*theirs), returned=True)) is rival
    assert at(*mine).is_rival(record(at(*theirs, process="other"))) is rival
    assert not at(*mine).is_rival(record(at(*theirs)))  # it raised, in this process


def test_a_task_that_is_executed_anew_comes_back_to_its_run() -> None:
    """As Dask does where a worker died: the same task run, no further attempt, in whatever process."""
    root = uuid4().hex
    first = replace(at(("F", 1), ("T", 1), root=root), whole=True)
    for anew in (replace(first, process="other"), first):
        assert not anew.is_rival(record(first, returned=True))
        assert not anew.is_rival(record(first))
    beside = replace(at(("F", 1), ("U", 1), root=root), whole=True)
    assert beside.is_rival(record(first, returned=True))
    assert beside.is_rival(record(replace(first, process="other")))
    assert numbers(first, beside, first, beside, first) == [0, 1, 0, 1, 0]


def test_a_resumed_flow_run_is_not_counted_and_comes_again() -> None:
    first, resumed = (
        AttemptFacts((Enclosure("F", 1, True, began=began, resumed=began == "11:00"), Enclosure(began, 1)), began)
        for began in ("10:00", "11:00")
    )
    assert resumed.relation(first.on_record()) == "again"
    assert resumed.later
    assert not first.later
    assert first.is_overtaken_by(record(resumed))
    assert not resumed.is_overtaken_by(record(first))


def test_a_later_attempt_has_overtaken() -> None:
    assert at(("F", 1), ("W", 1)).is_overtaken_by(record(at(("F", 2), ("T", 1))))
    assert not at(("F", 2), ("W", 1)).is_overtaken_by(record(at(("F", 1), ("T", 1))))
    assert not at(("F", 1), ("W", 1)).is_overtaken_by(record(at(("F", 1), ("T", 1))))


def test_keys_hold_what_stays() -> None:
    """Neither task runs nor attempts, nor runs of subflows; and no two lists of parts give one key."""
    first = at(("F", 1), ("G1", 1), ("T", 1), names={"G1": "below-0"})
    again = at(("F", 2), ("G2", 1), ("U", 3), names={"G2": "below-0"})
    assert claim_step(first, "pay").key == claim_step(again, "pay").key == "F/flow:below-0/step:pay"
    assert claim_step(at(("F", 1)), "a/step:b").key != claim_step(at(("F", 1), ("G", 1), names={"G": "a"}), "b").key
    assert claim_step(at(("F", 1)), "call:x").key.startswith("F/step:")


def numbers(*calls: AttemptFacts) -> list[int]:
    return [int(claim_call(one, "w", {}).key.rpartition("/")[2]) for one in calls]


def test_numbers_of_equal_calls() -> None:
    root = uuid4().hex
    assert numbers(*[at(("F", 1), (f"T{number}", 1), root=root) for number in range(3)]) == [0, 1, 2]
    assert numbers(*[at(("F", 2), (f"U{number}", 1), root=root) for number in range(4)]) == [0, 1, 2, 3]


def test_a_retry_comes_back_to_its_own_numbers() -> None:
    root = uuid4().hex
    assert numbers(at(("F", 1), ("T", 1), ("a", 1), root=root), at(("F", 1), ("U", 1), ("b", 1), root=root)) == [0, 1]
    assert numbers(at(("F", 1), ("U", 2), ("c", 1), root=root), at(("F", 1), ("U", 2), ("d", 1), root=root)) == [1, 2]
    assert numbers(at(("F", 1), ("T", 2), ("e", 1), root=root)) == [0]


def test_a_retry_of_what_had_not_called_yet_gets_a_new_number() -> None:
    """Two subflows in one task; the second one fails before its call, and is retried: it must not get the first's."""
    root = uuid4().hex
    assert numbers(at(("F", 1), ("T", 1), ("G1", 1), ("a", 1), root=root)) == [0]
    assert numbers(at(("F", 1), ("T", 1), ("G2", 2), ("b", 1), root=root)) == [1]
    again = [at(("F", 1), ("T", 2), ("G3", 1), ("c", 1), root=root), at(("F", 1), ("T", 2), ("G4", 1), root=root)]
    assert numbers(*again) == [0, 1]


def test_a_number_that_was_given_back_is_given_next() -> None:
    root = uuid4().hex
    calls = [claim_call(at(("F", 1), (one, 1), root=root), "w", {}) for one in ("a", "b")]
    calls[0].give_back()
    calls[0].give_back()
    taken_up = claim_call(at(("F", 1), ("c", 1), root=root), "w", {})
    assert taken_up.key == calls[0].key
    own_retry = claim_call(at(("F", 1), ("a", 2), root=root), "w", {})
    assert own_retry.key not in (calls[0].key, calls[1].key)


def test_other_content_has_numbers_of_its_own() -> None:
    root = uuid4().hex
    keys = [claim_call(at(("F", 1), root=root), *what).key for what in (("w", {}), ("w", {"a": "1"}), ("x", {}))]
    assert len({key.rpartition("/")[0] for key in keys}) == 3
    assert {key.rpartition("/")[2] for key in keys} == {"0"}


def test_earlier_calls_that_were_not_come_back_to() -> None:
    root = uuid4().hex
    before = claim_call(at(("F", 1), ("a", 1), root=root), "w", {"amount": "1"})
    on_record = [record(at(("F", 1), ("a", 1), root=root), call=before.call, key=before.key)]
    now = at(("F", 2), ("b", 1), root=root)
    changed = claim_call(now, "w", {"amount": "2"})
    assert not_come_back_to(now, changed, on_record) == on_record
    changed.give_back()
    claim_call(now, "w", {"amount": "1"})
    assert not_come_back_to(now, claim_call(now, "w", {"amount": "2"}), on_record) == []
    assert not_come_back_to(now, claim_call(now, "other", {}), on_record) == []


def test_an_edited_definition_may_be_the_earlier_call() -> None:
    """Its workflow has another id; one that an earlier attempt had used as well is another call."""
    root = uuid4().hex
    facts = at(("F", 1), ("a", 1), root=root)
    one, two = claim_call(facts, "w", {"amount": "1"}), claim_call(facts, "v", {"amount": "1"})
    on_record = [record(facts, call=claim.call, key=claim.key) for claim in (one, two)]
    now = at(("F", 2), ("b", 1), root=root)
    assert not_come_back_to(now, claim_call(now, "edited", {"amount": "1"}), on_record) == on_record
    assert not_come_back_to(now, claim_call(now, "v", {"amount": "2"}), on_record) == on_record[1:]


RUNNING = FlowState("RUNNING", 1)


@pytest.mark.parametrize(
    ("now", "left", "says"),
    [
        ([RUNNING, RUNNING], False, "yes"),
        ([FlowState("COMPLETED", 1), RUNNING], False, "yes"),
        ([FlowState("PAUSED", 1), RUNNING], False, "yes"),
        *[
            ([FlowState(one, 1), RUNNING], False, "unwanted")
            for one in ("CANCELLING", "CANCELLED", "CRASHED", "FAILED")
        ],
        *[([RUNNING, FlowState(one, 1)], False, "unwanted") for one in ("CANCELLING", "FAILED")],
        ([None, RUNNING], False, "unwanted"),
        ([FlowState("RUNNING", 2), FlowState("FAILED", 1)], False, "superseded"),
        ([FlowState("SCHEDULED", 1), RUNNING], False, "superseded"),
        ([FlowState("CANCELLING", 1), FlowState("SCHEDULED", 1)], False, "unwanted"),
        ([RUNNING, RUNNING], True, "unwanted"),
        ([RUNNING, FlowState("PAUSED", 1)], True, "superseded"),
        ([RUNNING, FlowState("COMPLETED", 1)], True, "yes"),
    ],
)
def test_what_the_owner_says(now: list[FlowState | None], left: bool, says: str) -> None:
    assert owner_says([Enclosure("F", 1, True), Enclosure("G", 1, True)], now, left=left) == says
