"""Checkpoints in a wait: when it tries, what each answer leads to, what is told, and what a checkpoint costs."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration_integrations import (
    Instance,
    InstanceStuckError,
    MemoryRunStore,
    NotFoundError,
    OrchestrationHttpHook,
    OwnerGoneError,
    ServerError,
    Settings,
    StageStatus,
    StateUnknownError,
    WaitTimeoutError,
)
from orchestration_integrations.procedures.checkpoint_watch import (
    HELD_SECONDS,
    LOST_ROW_SECONDS,
    NEAR_INTERVAL,
    NEAR_SECONDS,
    UNSURE_SECONDS,
)
from orchestration_integrations.procedures.checkpoints import PassTried, Standing
from orchestration_integrations.procedures.gate import checkpointed, has_gate
from orchestration_integrations.procedures.waiting import (
    DefinitionRead,
    DetailFailed,
    End,
    LookAt,
    Read,
    ReadDefinition,
    Seen,
    TryToPass,
    Waiting,
)
from orchestration_integrations.server import Core, InProcessTransport, VirtualClock
from orchestration_integrations.server.exchange import Request

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
NOW = START.timestamp()


def sending(amount: int = 1) -> dict[str, Any]:
    return {
        "send": {
            "source": {"account": {"id": "world"}},
            "destination": {"account": {"id": "shop"}},
            "amount": {"amount": str(amount), "asset": "USD/2"},
        }
    }


PAYS_TWICE = checkpointed({"stages": [sending(1), sending(2)]})["stages"]
"""The gate 0, a payment 1, the checkpoint 2 before the user's stage 1, a payment 3."""
AT = Standing(stage=2, number=1, event="go:k~10000000000000000~0:1", since=NOW)


def seen(*open_or_over: bool) -> Seen:
    rows = tuple(
        StageStatus(stage=n, started_at=START, terminated_at=START if over else None, error=None, raw={})
        for n, over in enumerate(open_or_over)
    )
    about = {"id": "i", "workflow_id": "w", "created_at": START, "updated_at": START, "raw": {}}
    return Seen(Instance(terminated=False, terminated_at=None, error=None, status=rows, **about), NOW)


def waiting(definition=PAYS_TWICE, **changes) -> Waiting:
    """A wait that knows the definition and stands in the payment before the checkpoint."""
    wait = Waiting("i", **{"detail": False, "poll_interval": 5.0, **changes})
    wait.begin(NOW)
    assert wait.feed(seen(True, False), NOW).next == ReadDefinition("w")
    wait.feed(DefinitionRead(definition), NOW)
    return wait


def standing(**changes) -> Waiting:
    """A wait whose run stands at the checkpoint."""
    wait = waiting(**changes)
    assert wait.feed(seen(True, True, False), NOW + 1).next == TryToPass(1)
    return wait


# ---- the reducer ---------------------------------------------------------------------------------------


def test_it_polls_often_while_a_checkpoint_is_near_and_for_ten_minutes_at_most():
    wait = waiting()
    for _ in range(20):
        step = wait.feed(seen(True, False), NOW + 60)
        assert step.next.at - (NOW + 60) <= NEAR_INTERVAL
    for _ in range(20):
        step = wait.feed(seen(True, False), NOW + NEAR_SECONDS + 1)
    assert step.next.at - (NOW + NEAR_SECONDS + 1) == pytest.approx(5.0)


def test_without_a_checkpoint_near_it_polls_as_its_caller_asked():
    stages = checkpointed({"stages": [sending(), {"delay": {"duration": "1h"}}, {"delay": {"duration": "1s"}}]})[
        "stages"
    ]
    wait = waiting(stages)
    for _ in range(20):
        step = wait.feed(seen(True, False), NOW)
    assert step.next.at - NOW == pytest.approx(5.0)


def test_behind_its_checkpoint_a_run_is_waited_for_again():
    wait = standing()
    assert isinstance(wait.feed(PassTried("sent", standing=AT), NOW + 1).next, LookAt)
    step = wait.feed(seen(True, True, True, False), NOW + 2)
    assert isinstance(step.next, LookAt)
    assert step.next.at - (NOW + 2) == pytest.approx(0.2)


@pytest.mark.parametrize("outcome", ["sent", "lost"])
def test_a_pass_that_shows_no_effect_is_sent_again_and_ever_more_rarely(outcome):
    wait = standing()
    now, sent = NOW + 1, []
    step = wait.feed(PassTried(outcome, standing=AT), now)
    while now < NOW + 120:
        assert isinstance(step.next, LookAt)
        now = max(step.next.at, now + 0.01)
        step = wait.feed(seen(True, True, False), now)
        if step.next == TryToPass(1):
            sent.append(now)
            step = wait.feed(PassTried(outcome, standing=AT), now)
    pauses = [later - earlier for earlier, later in zip([NOW + 1, *sent], sent, strict=False)]
    assert 0.7 <= pauses[0] < 1.7
    assert max(pauses) <= 16.1
    assert 8 <= len(sent) <= 14


@pytest.mark.parametrize("outcome", ["not ready", "refused", "unasked"])
def test_what_was_not_sent_is_tried_again_soon_until_the_deadline(outcome):
    wait = standing(deadline=NOW + 60)
    now = NOW + 1
    tries = 1
    step = wait.feed(PassTried(outcome, standing=AT, detail="not now"), now)
    while isinstance(step.next, LookAt) and step.next.at < NOW + 60:
        assert step.next.at - now <= 5.0
        now = step.next.at
        step = wait.feed(seen(True, True, False), now)
        assert step.next == TryToPass(1)
        tries += 1
        step = wait.feed(PassTried(outcome, standing=AT, detail="not now"), now)
    assert tries > 10
    assert step.next == LookAt(NOW + 60)
    following = wait.feed(seen(True, True, False), NOW + 60).next
    if following == TryToPass(1):
        following = wait.feed(PassTried(outcome, standing=AT, detail="not now"), NOW + 60).next
    assert isinstance(following, Read)
    assert following.last
    end = wait.feed(seen(True, True, False), NOW + 61).next
    assert isinstance(end, End)
    assert (end.kind, end.detail) == ("timeout", "not now")


def test_a_server_that_asks_for_a_pause_gets_it():
    wait = standing()
    step = wait.feed(PassTried("refused", standing=AT, retry_after=30.0), NOW + 1)
    assert step.next.at == pytest.approx(NOW + 31)


def test_a_stop_amid_a_pass_is_watched_for_thirty_seconds_and_then_unknown():
    wait = standing()
    step = wait.feed(PassTried("held amid pass", standing=AT), NOW + 1)
    for second in range(2, 31):
        assert isinstance(step.next, LookAt)
        wait.feed(seen(True, True, False), NOW + second)
        step = wait.feed(PassTried("held amid pass", standing=AT), NOW + second)
    step = wait.feed(PassTried("held amid pass", standing=AT), NOW + 1 + UNSURE_SECONDS)
    assert isinstance(step.next, End)
    assert step.next.kind == "unsure"
    assert "may still go on" in step.next.detail


def test_a_run_that_nobody_may_let_pass_ends_the_wait_at_once():
    end = standing().feed(PassTried("unguarded", standing=AT), NOW + 1).next
    assert isinstance(end, End)
    assert end.kind == "held"
    assert "at_checkpoint" in end.detail
    assert "before stage 1" in end.detail


def test_a_held_run_is_watched_while_its_stop_may_still_cancel_it():
    """Generations 1 and 3 end it a moment later, and then it was cancelled."""
    wait = standing()
    step = wait.feed(PassTried("held", standing=AT), NOW + 1)
    assert isinstance(step.next, LookAt)
    assert isinstance(wait.feed(seen(True, True, False), NOW + 2).next, LookAt)
    assert wait.feed(seen(True, True, False), NOW + 1 + HELD_SECONDS).next == TryToPass(1)
    end = wait.feed(PassTried("held", standing=AT), NOW + 1 + HELD_SECONDS).next
    assert isinstance(end, End)
    assert end.kind == "held"
    assert "held by a stop" in end.detail


def test_a_definition_that_could_not_be_read_is_read_again():
    wait = Waiting("i", detail=False)
    wait.begin(NOW)
    assert isinstance(wait.feed(seen(True, True, False), NOW).next, ReadDefinition)
    step = wait.feed(DetailFailed(ServerError("x", status_code=503)), NOW)
    assert isinstance(step.next, LookAt)
    assert isinstance(wait.feed(seen(True, True, False), NOW + 4).next, LookAt)
    assert isinstance(wait.feed(seen(True, True, False), NOW + 6).next, ReadDefinition)
    assert wait.feed(DefinitionRead(PAYS_TWICE), NOW + 6).next == TryToPass(1)


def test_where_the_definition_is_hidden_the_engine_is_asked():
    wait = Waiting("i", detail=False)
    wait.begin(NOW)
    wait.feed(seen(True, True, False), NOW)
    hidden = NotFoundError("workflow w: 404 NOT_FOUND", status_code=404, error_code="NOT_FOUND")
    assert wait.feed(DetailFailed(hidden), NOW).next == TryToPass(None)


def test_a_checkpoint_whose_row_was_lost_is_tried_after_five_seconds():
    wait = waiting()
    assert isinstance(wait.feed(seen(True, True), NOW + 1).next, LookAt)
    assert isinstance(wait.feed(seen(True, True), NOW + LOST_ROW_SECONDS).next, LookAt)
    assert wait.feed(seen(True, True), NOW + 1 + LOST_ROW_SECONDS).next == TryToPass(1)


def test_the_event_that_a_checkpoint_listens_for_is_told_once():
    wait = waiting(detail=True)
    wait.feed(seen(True, True, False), NOW + 1)
    told = wait.feed(PassTried("unasked", standing=AT), NOW + 1).tell
    assert [(one.stage, one.kind, one.checkpoint, one.own_stage, one.detail) for one in told] == [
        (2, "listening", 1, None, AT.event)
    ]
    assert wait.feed(PassTried("sent", standing=AT), NOW + 3).tell == ()


OUTCOMES = ("sent", "lost", "refused", "not ready", "unasked", "held amid pass")


@given(st.lists(st.tuples(st.sampled_from(OUTCOMES), st.floats(0, 40), st.booleans()), max_size=40))
def test_whatever_comes_of_the_tries_a_wait_looks_on_and_ends_by_its_deadline(steps):
    """No answer leads to a busy loop, to a silence longer than the caller asked for or to a wait without an end."""
    wait = standing(deadline=NOW + 300)
    now = NOW + 1
    following = TryToPass(1)
    for outcome, late, extra in steps:
        if isinstance(following, End):
            break
        if isinstance(following, TryToPass):
            following = wait.feed(PassTried(outcome, standing=None if extra else AT), now).next
        if isinstance(following, LookAt):
            assert now <= following.at <= now + 15.0
            now = max(now + 0.01, following.at) + (late if extra else 0.0)
        following = wait.feed(seen(True, True, False), now).next
        assert isinstance(following, LookAt | TryToPass | End) or now >= NOW + 300
    if isinstance(following, End):
        assert following.kind in ("unknown", "timeout")


# ---- performed on a server -----------------------------------------------------------------------------


class World:
    """A server on a virtual clock, and a hook."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.clock = VirtualClock()
        self.core = Core(generation, clock=self.clock, seed=1, faults=False)
        settings = Settings(base_url="http://orchestration")
        transport = InProcessTransport(self.core, self.clock)
        self.hook = OrchestrationHttpHook(settings, clock=self.clock, transport=transport)

    def started(self, *stages: dict[str, Any]) -> str:
        """A released run of a workflow with checkpoints. Returns its id."""
        definition = {"name": "payout", "stages": list(stages)}
        self.workflow = self.hook.ensure_workflow(definition, gate=True, checkpoints=True).workflow
        return self.hook.start(self.workflow.id, run_key="k", first_attempt=True).id

    def payments(self) -> int:
        return len(self.core.record().money)


@pytest.fixture(params=[1, 2, 3])
def world(request):
    return World(request.param)


def test_a_wait_without_a_guard_ends_at_the_checkpoint(world):
    one = world.started(sending(), sending())
    begun = world.clock.time()
    with pytest.raises(InstanceStuckError, match="give at_checkpoint=") as caught:
        world.hook.wait(one, timeout=60)
    assert caught.value.reason == "held"
    assert world.clock.time() - begun < 5
    world.clock.sleep(600)
    assert world.payments() == 1


def test_the_callers_word_lets_it_pass_and_is_asked_before_each(world):
    asked = []

    def at_checkpoint(number):
        asked.append((number, world.payments()))
        return True

    one = world.started(sending(), sending(), {"delay": {"duration": "1s"}}, sending())
    result = world.hook.wait(one, timeout=60, at_checkpoint=at_checkpoint)
    assert (result.instance.state, world.payments()) == ("succeeded", 3)
    assert asked == [(1, 1), (3, 2)]


def test_the_callers_no_ends_the_wait_and_cancels_nothing(world):
    one = world.started(sending(), sending())
    with pytest.raises(OwnerGoneError, match="stage 1"):
        world.hook.wait(one, timeout=60, at_checkpoint=lambda number: False)
    assert world.core.record().aborts == []
    assert world.hook.wait(one, timeout=60, at_checkpoint=lambda number: True).instance.state == "succeeded"


def test_a_deadline_at_a_checkpoint_says_why_it_stands_there(world):
    def away(number):
        raise OSError("no answer")

    one = world.started(sending(), sending())
    with pytest.raises(WaitTimeoutError, match="no answer"):
        world.hook.wait(one, timeout=20, at_checkpoint=away)
    assert world.payments() == 1


def test_an_owner_that_takes_too_long_to_answer_lets_nothing_pass(world):
    slow = [11.0, 0.0]

    def at_checkpoint(number):
        world.clock.sleep(slow.pop(0) if slow else 0.0)
        sent.append(world.core.record().requests.get("send_event", 0))
        return True

    sent: list[int] = []
    one = world.started(sending(), sending())
    world.hook.wait(one, timeout=60, at_checkpoint=at_checkpoint)
    assert len(sent) == 2
    assert sent[0] == sent[1]  # the first answer was too old to be used


def test_what_is_told_of_a_checkpoint(world):
    heard = []
    one = world.started(sending(), sending())
    world.hook.wait(one, timeout=60, on_stage=heard.append, at_checkpoint=lambda number: True)
    told = [(event.kind, event.own_stage) for event in heard if event.checkpoint == 1]
    assert told[0] == ("begun", None)
    assert ("listening", None) in told
    assert told[-1] == ("ended", None)


@pytest.mark.parametrize("kind", ["cut_after", "cut_before", "html", "late"])
def test_a_pass_whose_answer_is_lost_is_passed_once(world, kind):
    one = world.started(sending(), sending())
    world.clock.sleep(2)
    options = {"work": True} if kind == "html" else {}
    if kind == "late":
        kind, options = "stall", {"seconds": 20}
    world.core.fault("send_event", kind, 1, **options)
    result = world.hook.wait(one, timeout=120, at_checkpoint=lambda number: True)
    assert result.instance.state == "succeeded"
    assert [event["stage"] for event in world.core.record().released] == [0, 2]


def test_a_run_of_a_deleted_workflow_passes_its_checkpoints(world):
    """Generation 3 hides the definition of a deleted workflow: only the engine tells where its runs stand."""
    one = world.started(sending(), sending(), sending())
    world.clock.sleep(2)
    world.hook.delete_workflow(world.workflow.id)
    result = world.hook.wait(one, timeout=120, at_checkpoint=lambda number: True)
    assert (result.instance.state, world.payments()) == ("succeeded", 3)


def test_a_pass_that_lies_in_the_queue_is_taken_out_by_the_next(world):
    """Two wrong events arrive with the pass. Up to generation 2 the pass lies there until a further event comes."""
    one = world.started(sending(), sending())
    world.clock.sleep(2)
    body = json.dumps({"name": "who knows"}).encode()
    headers = {"content-length": str(len(body)), "content-type": "application/json"}
    asked = []

    def at_checkpoint(number):
        asked.append(world.clock.time())
        if len(asked) == 1:
            for _ in range(2):
                world.core.handle(Request("POST", f"/instances/{one}/events", "", headers, body))
        return True

    result = world.hook.wait(one, timeout=60, at_checkpoint=at_checkpoint)
    assert result.instance.state == "succeeded"
    assert len(asked) == (1 if world.generation == 3 else 2)
    assert asked[-1] - asked[0] < 2


def test_a_run_that_was_lost_to_the_server_at_its_checkpoint_is_not_called_held():
    """Generation 1 loses the row of a stage while its database is away: no event can reach that stage then."""
    world = World(1)
    one = world.started(sending(), {"delay": {"duration": "5s"}}, sending())
    world.clock.sleep(4)
    world.core.world("database stopped")
    world.clock.sleep(3)
    world.core.world("database started")
    with pytest.raises((WaitTimeoutError, StateUnknownError)):
        world.hook.wait(one, timeout=60, at_checkpoint=lambda number: True)
    assert world.payments() == 1


def costs(world: World, stages: int, *, checkpoints: bool, poll: float = 5.0) -> tuple[float, dict[str, int]]:
    """(seconds, requests) of a whole run that makes so many payments."""
    definition = {"name": f"{stages} {checkpoints}", "stages": [sending()] * stages}
    begun, before = world.clock.time(), dict(world.core.record().requests)
    world.hook.run_once(
        definition, run_key=definition["name"], store=MemoryRunStore(), checkpoints=checkpoints, poll_interval=poll
    )
    after = world.core.record().requests
    return world.clock.time() - begun, {name: after[name] - before.get(name, 0) for name in after}


def test_what_a_checkpoint_costs(world):
    """At the default interval: a second at most over the stage itself, and a handful of requests."""
    few, many = costs(world, 2, checkpoints=True), costs(world, 12, checkpoints=True)
    plain = costs(world, 2, checkpoints=False), costs(world, 12, checkpoints=False)
    stage = (plain[1][0] - plain[0][0]) / 10
    seconds = (many[0] - few[0]) / 10
    requests = {
        name: (many[1].get(name, 0) - few[1].get(name, 0)) / 10 for name in many[1] if many[1][name] != few[1].get(name)
    }
    print(
        f"generation {world.generation}: {seconds:.2f} s a stage with its checkpoint, {stage:.2f} s without; {requests}"
    )
    assert seconds - stage <= 1.0
    assert requests["send_event"] == 1
    assert requests["get_instance_history"] <= 2
    assert requests["get_instance"] <= 8
    assert sum(requests.values()) <= 12


@pytest.mark.parametrize("length", [3, 47, 301])
def test_how_long_a_run_stands_at_a_checkpoint(world, length):
    """However long the stage before it takes, up to ten minutes: at the default interval a second at most."""
    one = world.started(sending(), *[{"delay": {"duration": f"{length}s"}}, sending()] * 4)
    before = dict(world.core.record().requests)
    world.hook.wait(one, at_checkpoint=lambda number: True)
    after = world.core.record().requests
    runs = world.core.engine.instances[one].runs
    stood = [
        event["at"] - runs[event["stage"]].started_ns / 1e9 for event in world.core.record().released if event["stage"]
    ]
    requests = sum(after[name] - before.get(name, 0) for name in after) / 4
    longest, mean = max(stood), sum(stood) / len(stood)
    print(
        f"generation {world.generation}, {length} s before it: {mean:.2f} s, at most {longest:.2f}; {requests} requests"
    )
    assert len(stood) == 4
    assert longest <= 1.0


def test_a_long_definition_is_checked_in_one_pass():
    paying = {"send": {"source": {"account": {"id": "world"}}}}
    stages = checkpointed({"stages": [paying] * 8_000})["stages"]
    begun = time.process_time()
    assert has_gate("w", stages, "order-17")
    assert time.process_time() - begun < 5  # one pass for each stage takes a minute
