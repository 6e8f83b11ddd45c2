"""The reducer of a wait, fed by hand: what it does next depends on what it saw and on nothing else."""

from __future__ import annotations

import sys
import types
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration_integrations import Instance, ServerError, StageStatus, TransportError, telemetry
from orchestration_integrations.procedures.waiting import (
    LAST_LOOK,
    READ_BUDGET,
    Absent,
    DefinitionRead,
    DetailFailed,
    End,
    Hinted,
    LookAt,
    Paused,
    Read,
    ReadDefinition,
    ReadFailed,
    ReadHistory,
    Seen,
    Waiting,
)

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
NOW = START.timestamp()


def instance(terminated=False, error=None, stages=()):
    rows = tuple(
        StageStatus(stage=n, started_at=START, terminated_at=START if over else None, error=None, raw={})
        for n, over in enumerate(stages)
    )
    return Instance(
        id="i",
        workflow_id="w",
        created_at=START,
        updated_at=START,
        terminated=terminated,
        terminated_at=START if terminated else None,
        error=error,
        status=rows,
        raw={},
    )


def seen(**changes):
    return Seen(instance(**changes), NOW)


def waiting(**changes):
    return Waiting("i", **{"detail": False, **changes})


def test_polls_begin_quickly_and_slow_down_to_the_interval():
    wait = waiting(poll_interval=5.0)
    assert wait.begin(NOW).next == Read(None)
    pauses = []
    for _ in range(12):
        step = wait.feed(seen(stages=[False]), NOW)
        assert isinstance(step.next, LookAt)
        pauses.append(step.next.at - NOW)
    assert pauses[0] == pytest.approx(0.2)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(5.0)


def test_being_absent_from_a_list_means_nothing():
    wait = waiting()
    wait.begin(NOW)
    assert wait.feed(Absent(), NOW + 1).next == Read(None)
    step = wait.feed(seen(stages=[False]), NOW + 1)
    assert isinstance(step.next, LookAt)
    assert wait.feed(seen(terminated=True), NOW + 2).next == End("succeeded", instance(terminated=True))


def after_hint(wait, now):
    """The pauses of a wait that was hinted at, until it is as patient as before, with the instance still running."""
    step = wait.feed(Hinted(), now)
    pauses = []
    while wait.hurries:
        at = step.next.at if isinstance(step.next, LookAt) else now
        pauses.append(at - now)
        now = at
        step = wait.feed(Paused(), now) if isinstance(step.next, LookAt) else step
        assert step.next == Read(None)
        step = wait.feed(seen(stages=[False]), now)
    return pauses, step.next.at - now


def test_after_a_hint_that_came_too_early_it_looks_a_few_times_more():
    wait = waiting(poll_interval=60.0)
    wait.begin(NOW)
    for _ in range(20):
        wait.feed(seen(stages=[False]), NOW)
    pauses, then = after_hint(wait, NOW + 30)
    assert pauses[0] == 0
    assert pauses[1] == pytest.approx(0.2)
    assert 4 < sum(pauses) < 10
    assert then > 1
    assert wait.is_settled
    assert not wait.hurries


def test_hints_in_a_flood_make_no_more_than_five_looks_a_second():
    wait = waiting(poll_interval=60.0)
    wait.begin(NOW)
    step = wait.feed(seen(stages=[False]), NOW)
    looks = 0
    for number in range(100):  # 10 ms apart
        now = NOW + 1 + number / 100
        step = wait.feed(Hinted(), now)
        if isinstance(step.next, Read):
            looks += 1
            wait.feed(seen(stages=[False]), now)
        else:
            assert step.next.at <= now + 0.2
    assert looks <= 6


def test_the_deadline_ends_in_exactly_one_last_look():
    wait = waiting(deadline=NOW + 10, poll_interval=60.0)
    wait.begin(NOW)
    step = wait.feed(seen(), NOW + 9)
    assert isinstance(step.next, LookAt)
    assert step.next.at <= NOW + 10
    step = wait.feed(Absent(), NOW + 10)
    assert step.next == Read(NOW + 10 + LAST_LOOK, last=True)
    assert wait.feed(seen(), NOW + 11).next == End("timeout", instance())


def test_the_last_look_decides():
    wait = waiting(deadline=NOW)
    assert wait.begin(NOW).next == Read(NOW + LAST_LOOK, last=True)
    end = wait.feed(seen(terminated=True, error="boom"), NOW + 1).next
    assert isinstance(end, End)
    assert end.kind == "failed"


def test_a_wait_goes_on_on_another_host_from_its_id_and_deadline():
    first = waiting(deadline=NOW + 100)
    first.begin(NOW)
    first.feed(seen(stages=[True]), NOW + 40)
    second = waiting(deadline=first.deadline)
    assert second.begin(NOW + 99).next == Read(NOW + 100)
    assert second.feed(Absent(), NOW + 100.5).next == Read(NOW + 100 + LAST_LOOK, last=True)


def test_failures_must_last_in_number_and_in_time():
    wait = waiting()
    wait.begin(NOW)
    for number in range(200):
        step = wait.feed(ReadFailed(ServerError("x", status_code=503)), NOW + number * 0.1)
        assert isinstance(step.next, LookAt)
    wait.feed(seen(), NOW + 30)
    for number in range(5):
        at = NOW + 31 + number * READ_BUDGET
        assert isinstance(wait.feed(ReadFailed(TransportError("x")), at).next, LookAt)
    end = None
    for number in range(6):
        end = wait.feed(ReadFailed(TransportError("x")), at + number).next
    assert isinstance(end, End)
    assert end.kind == "unknown"


def test_what_only_informs_never_ends_a_wait():
    wait = waiting(detail=True)
    wait.begin(NOW)
    assert wait.feed(seen(stages=[False]), NOW).next == ReadDefinition("w")
    step = wait.feed(DetailFailed(ServerError("x", status_code=500)), NOW)
    assert [(e.stage, e.kind, e.name) for e in step.tell] == [(0, "begun", None)]
    assert step.next == ReadHistory()
    assert isinstance(wait.feed(DetailFailed(ServerError("x", status_code=404)), NOW).next, LookAt)


def test_stages_are_named_by_the_definition():
    wait = waiting(detail=True)
    wait.begin(NOW)
    wait.feed(seen(stages=[True, False]), NOW)
    step = wait.feed(DefinitionRead([{"send": {}}, {"delay": {}}, {"brand_new": {}}]), NOW)
    assert [(e.stage, e.kind, e.name) for e in step.tell] == [
        (0, "begun", "RunSend"),
        (0, "ended", "RunSend"),
        (1, "begun", "RunDelay"),
    ]
    assert wait.stage_count == 3


@given(st.lists(st.lists(st.booleans(), max_size=5), max_size=8), st.booleans())
def test_each_stage_begins_and_ends_once_and_in_order(observations, ends):
    wait = waiting()
    wait.begin(NOW)
    heard = []
    stages = [False]
    for wanted in observations:
        # What a server can show next: stages end and follow, none goes back.
        grown = [True] * len(wanted) + [False] if len(wanted) >= len(stages) else stages
        stages = grown
        heard += wait.feed(seen(stages=stages), NOW).tell
    if ends:
        heard += wait.feed(seen(terminated=True, stages=stages), NOW).tell
    told = [(e.stage, e.kind) for e in heard]
    assert len(told) == len(set(told))
    assert told == sorted(told, key=lambda one: (one[0], one[1] == "ended"))
    if ends:
        assert told == [(n, kind) for n in range(len(stages)) for kind in ("begun", "ended")]


def test_spans_are_made_where_opentelemetry_is_in_use(monkeypatch):
    spans = []

    class Tracer:
        def start_as_current_span(self, name, attributes):
            spans.append((name, attributes))
            return telemetry.span("inner")

    module = types.ModuleType("opentelemetry.trace")
    module.get_tracer = lambda name: Tracer()
    with telemetry.span("wait", instance_id="i"):
        pass
    assert spans == []
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", module)
    tracer_of_inner = telemetry.span("wait", instance_id="i", workflow_id=None)
    module.get_tracer = lambda name: types.SimpleNamespace(
        start_as_current_span=lambda name, attributes: (spans.append((name, attributes)), _Nothing())[1]
    )
    with tracer_of_inner:
        pass
    assert spans == [("orchestration wait", {"orchestration.instance_id": "i"})]


class _Nothing:
    def __enter__(self):
        return None

    def __exit__(self, *exc):
        return None


def test_ghosts_are_asked_for_twice():
    from orchestration_integrations import NotFoundError

    wait = waiting()
    wait.begin(NOW)
    old = Seen(instance(), (START + timedelta(seconds=61)).timestamp())
    young = Seen(instance(), (START + timedelta(seconds=59)).timestamp())
    assert isinstance(wait.feed(young, NOW).next, LookAt)
    assert wait.feed(old, NOW).next == ReadHistory()
    gateway, unknown = NotFoundError("x"), NotFoundError("x", error_code="INTERNAL")
    for _ in range(3):
        assert isinstance(wait.feed(DetailFailed(gateway), NOW).next, LookAt)
        wait.feed(old, NOW)
    assert isinstance(wait.feed(DetailFailed(unknown), NOW).next, LookAt)
    wait.feed(old, NOW)
    end = wait.feed(DetailFailed(unknown), NOW).next
    assert isinstance(end, End)
    assert end.kind == "never_started"
