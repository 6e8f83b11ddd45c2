"""Waiting, telling and cancelling on each generation, by either hook: what is said is true."""

import threading
import time

import pytest

from orchestration_integrations import (
    AmbiguousSubmitError,
    EventNotDeliveredError,
    InstanceCancelledError,
    InstanceFailedError,
    InstanceStuckError,
    NotFoundError,
    Settings,
    StateUnknownError,
    TransportError,
    ValidationError,
    WaitTimeoutError,
)
from orchestration_integrations.server import EmbeddedServer
from tests.conftest import open_hook
from tests.procedures.test_start import many
from tests.scripted import ScriptedServer, cut, drip, instance, respond, stall


def payment(source="world", destination="shop", amount="100"):
    return {
        "send": {
            "source": {"account": {"id": source}},
            "destination": {"account": {"id": destination}},
            "amount": {"amount": amount, "asset": "USD/2"},
        }
    }


def approval(event="approve"):
    return {"wait_event": {"event": event}}


def delay(duration="1s"):
    return {"delay": {"duration": duration}}


@pytest.fixture(params=[1, 2, 3])
def server(request):
    with EmbeddedServer(request.param) as running:
        running.generation = request.param
        yield running


@pytest.fixture
def hook(kind, server):
    return open_hook(kind, base_url=server.url)


def running(hook, *stages):
    workflow = hook.create_workflow({"name": "w", "stages": list(stages)})
    return hook.run_workflow(workflow.id).id


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def listens(hook, instance_id, stage):
    def check():
        history = hook.get_instance_history(instance_id)
        return len(history) == stage + 1 and history[stage].name == "RunWaitEvent"

    return check


# ---- wait ------------------------------------------------------------------------------------------


def test_a_success_tells_its_stages_in_order_and_what_moved(server, hook):
    heard = []
    one = running(hook, payment(), delay("7h"), payment(amount="5"))
    until(lambda: len(hook.get_instance(one).status) == 2)
    server.advance(7 * 3600)
    result = hook.wait(one, timeout=20, on_stage=heard.append)
    assert result.instance.state == "succeeded"
    assert [(e.stage, e.kind) for e in heard if e.kind in ("begun", "ended")] == [
        (stage, kind) for stage in range(3) for kind in ("begun", "ended")
    ]
    assert [e.name for e in heard if e.kind == "begun"] == ["RunSend", "RunDelay", "RunSend"]
    assert result.moved.stages_completed == 3
    assert result.moved.complete
    assert [t.stage for t in result.moved.transactions] == [0, 2]
    assert all(t.id is not None and t.ledger == "default" and not t.maybe_repeated for t in result.moved.transactions)


def test_a_run_without_stages_succeeds(server, hook):
    workflow = hook.create_workflow({"name": "none", "stages": []})
    result = hook.wait(hook.run_workflow(workflow.id).id, timeout=10)
    assert (result.instance.state, result.instance.status) == ("succeeded", ())


def test_a_failure_says_where_and_what_had_moved(server, hook):
    one = running(hook, payment(), payment(destination="bad account!"))
    with pytest.raises(InstanceFailedError, match="stage 1") as caught:
        hook.wait(one, timeout=20)
    assert caught.value.instance.id == one
    assert one in str(caught.value)
    assert [t.stage for t in caught.value.moved.transactions] == [0]
    assert caught.value.moved.stages_completed == 1


def test_a_failing_payment_is_told_and_can_end_the_wait(server, hook):
    heard = []
    one = running(hook, payment(source="poor"))
    with pytest.raises(InstanceStuckError, match="insufficient funds") as caught:
        hook.wait(one, timeout=60, poll_interval=0.3, on_stage=heard.append, fail_after_attempts=2)
    assert caught.value.reason == "attempts"
    failing = [e for e in heard if e.kind == "failing"]
    assert failing
    assert "attempt" in failing[0].detail
    assert "insufficient funds" in failing[0].detail
    assert hook.get_instance(one).state == "running"


def test_what_a_stage_listens_for_is_told(server, hook):
    heard = []
    one = running(hook, approval("sign"))
    with pytest.raises(WaitTimeoutError):
        hook.wait(one, timeout=1.5, poll_interval=0.2, on_stage=heard.append)
    assert ("listening", "sign") in [(e.kind, e.detail) for e in heard]


def test_the_last_look_decides(server, hook):
    one = running(hook, approval())
    with pytest.raises(WaitTimeoutError) as caught:
        hook.wait(one, timeout=0)
    assert caught.value.instance.id == one
    until(listens(hook, one, 0))
    hook.send_event(one, "approve")
    until(lambda: hook.get_instance(one).terminated)
    assert hook.wait(one, timeout=0).instance.state == "succeeded"


def test_a_ghost_is_told_long_before_the_deadline(kind):
    with EmbeddedServer(1) as server:
        hook = open_hook(kind, base_url=server.url)
        workflow = hook.create_workflow({"name": "w", "stages": [approval()]})
        server.fault("run_workflow", "ghost", 1)
        with pytest.raises(Exception, match="may have started"):
            hook.run_workflow(workflow.id)
        (ghost,) = hook.list_instances(workflow.id, running=True)
        with pytest.raises(WaitTimeoutError):
            hook.wait(ghost.id, timeout=0.5)
        server.advance(61)
        with pytest.raises(InstanceStuckError) as caught:
            hook.wait(ghost.id, timeout=600)
        assert caught.value.reason == "never_started"
        assert hook.cancel(ghost.id, timeout=5).status == "never_started"


def test_an_unknown_id_is_told(kind, clock):
    for generation in (1, 3):
        with EmbeddedServer(generation) as server:
            hook = open_hook(kind, base_url=server.url, clock=clock)
            with pytest.raises(NotFoundError, match="unknown"):
                hook.wait("00000000-0000-4000-8000-000000000000")


def test_an_id_that_was_there_before_is_another_server(kind, clock):
    answers = [respond(200, instance()), respond(500, {"errorCode": "INTERNAL", "errorMessage": "Instance not found"})]
    with ScriptedServer(lambda got: answers.pop(0) if len(answers) > 1 else answers[0]) as server:
        with pytest.raises(NotFoundError, match="another server"):
            open_hook(kind, base_url=server.url, clock=clock).wait("i")


def test_trouble_while_polling_costs_nothing(kind, clock):
    answers = [
        respond(200, instance()),
        respond(502, b"<html>"),
        cut,
        respond(200, b'{"data": {"id"'),
        respond(429, Retry_After="1"),
        respond(500),
        respond(200, instance(terminated=True)),
    ]
    with ScriptedServer(lambda got: answers.pop(0) if len(answers) > 1 else answers[0]) as server:
        result = open_hook(kind, base_url=server.url, clock=clock).wait("i", timeout=600)
        assert result.instance.state == "succeeded"
        assert all(got.method == "GET" for got in server.got)


@pytest.mark.parametrize("error", ["", "boom", "canceled"])
def test_an_end_at_the_first_look(kind, error):
    with ScriptedServer(lambda got: respond(200, instance(terminated=True, error=error))) as server:
        hook = open_hook(kind, base_url=server.url)
        if error == "":
            assert hook.wait("i").instance.state == "succeeded"
        else:
            with pytest.raises(InstanceCancelledError if error == "canceled" else InstanceFailedError):
                hook.wait("i")


def test_an_endless_503_says_that_the_state_is_unknown(kind, clock):
    with ScriptedServer(lambda got: respond(503)) as server:
        with pytest.raises(StateUnknownError, match="instance i") as caught:
            open_hook(kind, base_url=server.url, clock=clock).wait("i")
        assert caught.value.instance_id == "i"
        assert 10 <= len(server.got) < 200


def test_an_endless_503_ends_at_the_deadline(kind, clock):
    with ScriptedServer(lambda got: respond(503)) as server:
        with pytest.raises(WaitTimeoutError, match="could not be read"):
            open_hook(kind, base_url=server.url, clock=clock).wait("i", timeout=30)


@pytest.mark.parametrize("trouble", [stall(20), drip(0.05, 400)])
def test_the_deadline_holds_on_stalls_and_dripping_bodies(kind, trouble):
    with ScriptedServer(lambda got: trouble) as server:
        hook = open_hook(kind, Settings(base_url=server.url, timeout=0.5))
        begun = time.monotonic()
        with pytest.raises(WaitTimeoutError):
            hook.wait("i", timeout=0.7, poll_interval=0.2)
        assert time.monotonic() - begun < 0.7 + 5.1


def test_a_moved_monotonic_clock_means_nothing(kind, clock):
    with ScriptedServer(lambda got: respond(200, instance(terminated=True))) as server:
        deadline = time.time() + 60
        clock.monotonic = lambda: time.monotonic() + 1e6
        result = open_hook(kind, base_url=server.url, clock=clock).wait("i", deadline=deadline)
        assert result.instance.terminated


def test_generation_1_may_pay_twice_and_it_is_told(kind, caplog):
    with EmbeddedServer(1) as server:
        hook = open_hook(kind, base_url=server.url)
        server.world("ledger stopped")
        one = running(hook, payment())
        until(lambda: len(hook.get_instance_history(one)) == 1)
        server.advance(14)
        server.world("ledger started")
        result = hook.wait(one, timeout=60)
        assert server.balance("shop", "USD/2") == 200
        (transaction,) = result.moved.transactions
        assert transaction.maybe_repeated
        assert "check the ledger" in caplog.text


@pytest.mark.parametrize("generation", [2, 3])
def test_later_generations_pay_once_and_nothing_is_told(kind, generation):
    with EmbeddedServer(generation) as server:
        hook = open_hook(kind, base_url=server.url)
        server.world("ledger stopped")
        one = running(hook, payment())
        until(lambda: len(hook.get_instance_history(one)) == 1)
        server.advance(14)
        server.world("ledger started")
        result = hook.wait(one, timeout=60)
        assert server.balance("shop", "USD/2") == 100
        assert [t.maybe_repeated for t in result.moved.transactions] == [False]


def test_histories_that_are_gone_never_fail_a_wait(server, hook):
    one = running(hook, payment())
    until(lambda: hook.get_instance(one).terminated)
    for history in ("get_instance_history", "get_stage_history"):
        server.fault(history, "status", 50, code=500)
    result = hook.wait(one, timeout=10)
    assert result.instance.state == "succeeded"
    assert (result.moved.complete, result.moved.stages_completed) == (False, 1)


# ---- events ----------------------------------------------------------------------------------------


def events_sent(server):
    return server.record().requests.get("send_event", 0)


def test_an_event_waits_for_its_stage(server, hook):
    one = running(hook, delay("1ms"), approval(), payment())
    told = hook.send_event_when_ready(one, "approve", timeout=20)
    assert told.id == one
    assert [(e["stage"], e["event"]) for e in server.record().released] == [(1, "approve")]
    assert events_sent(server) == 1
    assert hook.wait(one, timeout=20).instance.state == "succeeded"


def test_an_event_that_lies_in_the_queue_is_nudged_out(kind):
    for generation in (1, 2):
        with EmbeddedServer(generation) as server:
            hook = open_hook(kind, base_url=server.url)
            one = running(hook, approval(), payment())
            until(listens(hook, one, 0))
            server.world("workers stopped")
            hook.send_event(one, "wrong")
            timer = threading.Timer(1.0, server.world, ["workers started"])
            timer.start()
            hook.send_event_when_ready(one, "approve", timeout=30)
            timer.join()
            taken = [e["event"] for e in server.record().events]
            assert taken.count("approve") == 1
            assert [e["stage"] for e in server.record().released] == [0]


@pytest.mark.parametrize("trouble", ["cut_before", "cut_after", "status"])
def test_a_lost_event_reaches_its_stage_once(server, hook, trouble):
    one = running(hook, approval(), payment())
    until(listens(hook, one, 0))
    server.fault("send_event", trouble, 1)
    hook.send_event_when_ready(one, "approve", timeout=30)
    assert [(e["stage"], e["event"]) for e in server.record().released] == [(0, "approve")]
    assert server.balance("shop", "USD/2") in (0, 100)
    assert hook.wait(one, timeout=20).instance.state == "succeeded"


def test_a_repeated_name_needs_its_stage(server, hook):
    one = running(hook, approval(), payment(), approval(), payment())
    with pytest.raises(EventNotDeliveredError) as caught:
        hook.send_event_when_ready(one, "approve", timeout=5)
    assert caught.value.reason == "repeated_name"
    assert events_sent(server) == 0
    hook.send_event_when_ready(one, "approve", stage=0, timeout=20)
    with pytest.raises(EventNotDeliveredError) as caught:
        hook.send_event_when_ready(one, "approve", stage=0, timeout=20)
    assert caught.value.reason == "stage_over"
    assert [e["stage"] for e in server.record().released] == [0]
    hook.send_event_when_ready(one, "approve", stage=2, timeout=20)
    assert [e["stage"] for e in server.record().released] == [0, 2]


def test_a_lost_event_to_a_repeated_name_is_never_sent_again(server, hook):
    one = running(hook, approval(), approval(), payment())
    until(listens(hook, one, 0))
    server.fault("send_event", "cut_before", 1)
    with pytest.raises(EventNotDeliveredError) as caught:
        hook.send_event_when_ready(one, "approve", stage=0, timeout=4)
    assert caught.value.reason == "unknown"
    assert "approve" not in [e["event"] for e in server.record().events]
    assert hook.get_instance(one).state == "running"


def test_events_that_can_never_arrive(server, hook):
    one = running(hook, delay("1h"), approval())
    with pytest.raises(EventNotDeliveredError) as caught:
        hook.send_event_when_ready(one, "unheard", timeout=5)
    assert caught.value.reason == "no_such_stage"
    with pytest.raises(EventNotDeliveredError) as caught:
        hook.send_event_when_ready(one, "approve", stage=0, timeout=5)
    assert caught.value.reason == "no_such_stage"
    with pytest.raises(EventNotDeliveredError) as caught:
        hook.send_event_when_ready(one, "approve", timeout=0.5)
    assert caught.value.reason == "not_ready"
    ended = running(hook, payment())
    until(lambda: hook.get_instance(ended).terminated)
    other = running(hook, payment(destination="bad account!"), approval())
    until(lambda: hook.get_instance(other).terminated)
    with pytest.raises(EventNotDeliveredError) as caught:
        hook.send_event_when_ready(other, "approve", timeout=5)
    assert caught.value.reason == "instance_ended"
    assert other in str(caught.value)
    assert events_sent(server) == 0


# ---- cancel ----------------------------------------------------------------------------------------


def test_a_cancel_says_what_is_true(server, hook):
    one = running(hook, payment(), approval(), payment())
    until(listens(hook, one, 1))
    outcome = hook.cancel(one, timeout=2)
    if server.generation == 2:
        assert outcome.status == "not_confirmed"
        assert outcome.instance.state == "running"
        assert hook.get_instance(one).state == "running"
    else:
        assert outcome.status == "cancelled"
        assert outcome.abort_answer == "204"
        assert hook.cancel(one, timeout=2).status == "cancelled"
    assert [t.stage for t in outcome.moved.transactions] == [0]
    assert server.balance("shop", "USD/2") == 100


def test_what_has_ended_by_itself_is_told(server, hook):
    one = running(hook, payment())
    hook.wait(one, timeout=20)
    outcome = hook.cancel(one, timeout=5)
    assert outcome.status == "already_ended"
    assert outcome.instance.state == "succeeded"
    failed = running(hook, payment(destination="bad account!"))
    until(lambda: hook.get_instance(failed).terminated)
    assert hook.cancel(failed, timeout=5).status == "already_ended"


@pytest.mark.parametrize("generation", [1, 3])
def test_a_payment_under_way_is_told_and_arrives(kind, generation):
    with EmbeddedServer(generation) as server:
        hook = open_hook(kind, base_url=server.url)
        server.world("ledger stopped")
        one = running(hook, payment())
        until(lambda: hook.get_instance_history(one))
        until(lambda: hook.get_stage_history(one, 0))
        outcome = hook.cancel(one, timeout=10)
        assert outcome.status == "cancelled"
        assert [activity.name for activity in outcome.in_flight] == ["CreateTransaction"]
        server.world("ledger started")
        until(lambda: server.balance("shop", "USD/2") == 100)


@pytest.mark.parametrize("trouble", ["cut_before", "cut_after", "status", "html"])
def test_a_lost_abort_is_repeated(kind, trouble):
    with EmbeddedServer(3) as server:
        hook = open_hook(kind, base_url=server.url)
        one = running(hook, approval())
        until(listens(hook, one, 0))
        server.fault("abort_instance", trouble, 1)
        outcome = hook.cancel(one, timeout=10)
        assert outcome.status == "cancelled"
        assert outcome.abort_answer != "204"


def test_an_unknown_id_cannot_be_cancelled(kind, clock):
    for generation in (1, 2, 3):
        with EmbeddedServer(generation) as server:
            hook = open_hook(kind, base_url=server.url, clock=clock)
            with pytest.raises(NotFoundError):
                hook.cancel("00000000-0000-4000-8000-000000000000")


def test_a_server_that_is_away_leaves_it_unconfirmed(kind, clock):
    with ScriptedServer(lambda got: cut) as server:
        outcome = open_hook(kind, base_url=server.url, clock=clock).cancel("i")
    assert (outcome.status, outcome.instance) == ("not_confirmed", None)
    assert outcome.abort_answer.startswith("TransportError")
    assert not outcome.moved.complete


def test_an_interrupt_during_a_wait_sends_nothing_more(clock):
    class Interrupt(BaseException):
        pass

    def interrupt(seconds):
        raise Interrupt

    clock.sleep = interrupt
    with ScriptedServer(lambda got: respond(200, instance())) as server:
        with pytest.raises(Interrupt):
            open_hook("sync", base_url=server.url, clock=clock).wait("i")
        assert {got.method for got in server.got} == {"GET"}


# ---- ensure ----------------------------------------------------------------------------------------


def test_a_redeploy_creates_nothing(server, hook):
    definition = {"name": "pay", "stages": [payment(amount=10**20), approval()]}
    first = hook.ensure_workflow(definition, gate=True)
    assert first.created
    again = hook.ensure_workflow(definition, gate=True)
    assert (again.created, again.workflow.id) == (False, first.workflow.id)
    gated = {"name": "pay", "stages": list(first.workflow.stages)}
    assert hook.ensure_workflow(gated, gate=True).workflow.id == first.workflow.id
    assert hook.ensure_workflow(definition).workflow.id != first.workflow.id
    assert first.workflow.stages[0] == {"wait_event": {"event": "go:${runGate}"}}


def test_an_equal_definition_is_found_on_any_page(server, hook):
    many(server, "/workflows", [{"name": f"other-{number}", "stages": [approval()]} for number in range(110)])
    first = hook.ensure_workflow({"name": "x", "stages": [approval()]})
    many(server, "/workflows", [{"name": f"more-{number}", "stages": [approval()]} for number in range(110)])
    assert hook.ensure_workflow({"stages": [approval()], "name": "x"}).workflow.id == first.workflow.id
    assert len(hook.list_workflows()) == 221


@pytest.mark.parametrize("trouble", ["cut_before", "cut_after", "status"])
def test_a_lost_create_is_found_or_repeated(server, hook, trouble):
    server.fault("create_workflow", trouble, 1)
    ensured = hook.ensure_workflow({"name": "x", "stages": [approval()]})
    assert ensured.created
    assert len([row for row in hook.list_workflows() if row.name == "x"]) == 1


def test_repeated_names_are_warned_of(server, hook, caplog):
    hook.ensure_workflow({"name": "x", "stages": [approval(), approval()]})
    assert "same event 'approve'" in caplog.text


def test_a_transport_error_names_the_operation(kind, clock):
    with ScriptedServer(lambda got: cut) as server:
        with pytest.raises(TransportError, match="instance i"):
            open_hook(kind, base_url=server.url, clock=clock).get_instance("i")


def ensured(hook, workflow_id, **changes):
    given = {"filter": "event.amount > 0", "variables": {"to": "event.to"}, **changes}
    return hook.ensure_trigger("SAVED_PAYMENT", workflow_id, **given)


@pytest.mark.parametrize("server", [2, 3], indirect=True)
def test_an_equal_trigger_is_used_again(server, hook):
    """A second one would start a second run for each event."""
    workflow_id = hook.create_workflow({"name": "w", "stages": [approval()]}).id
    first = ensured(hook, workflow_id)
    assert first.created
    again = ensured(hook, workflow_id.upper())
    assert (again.created, again.trigger.id) == (False, first.trigger.id)
    others = [
        ensured(hook, workflow_id, filter=None),
        ensured(hook, workflow_id, variables=None),
        ensured(hook, workflow_id, variables={"to": "event.other"}),
        ensured(hook, hook.create_workflow({"name": "x", "stages": [approval()]}).id),
        hook.ensure_trigger("OTHER", workflow_id),
    ]
    assert all(one.created for one in others)
    assert not hook.ensure_trigger("OTHER", workflow_id, filter="", variables={}).created
    assert len(hook.list_triggers()) == 6


@pytest.mark.parametrize("server", [2, 3], indirect=True)
def test_a_lost_create_of_a_trigger_is_found_and_never_repeated(server, hook, clock):
    workflow_id = hook.create_workflow({"name": "w", "stages": [approval()]}).id
    server.fault("create_trigger", "cut_after", 1)
    assert ensured(hook, workflow_id).created
    assert len(hook.list_triggers()) == 1
    server.fault("create_trigger", "cut_before", 1)
    with pytest.raises(AmbiguousSubmitError, match="not sent again"):
        ensured(hook, workflow_id, filter=None)
    assert len(hook.list_triggers()) == 1
    with pytest.raises(ValidationError) as caught:
        hook.ensure_trigger("", workflow_id)
    assert caught.value.path == "event"


PAYS = {
    "send": {
        "source": {"account": {"id": "world"}},
        "destination": {"account": {"id": "inv:${who}"}},
        "amount": {"amount": "${amount}", "asset": "EUR/2"},
    }
}
EXPRESSIONS = {"who": "event.id", "amount": "event.amount"}


@pytest.mark.parametrize("server", [2, 3], indirect=True)
def test_a_trigger_with_a_placeholder_that_has_no_expression_is_refused_before_anything_is_sent(server, hook):
    """Each of its runs would fail, or pay another account."""
    workflow_id = hook.create_workflow({"name": "w", "stages": [PAYS]}).id
    with pytest.raises(ValidationError, match="is 'whoo' meant") as caught:
        hook.ensure_trigger("E", workflow_id, variables={"whoo": "event.id", "amount": "event.amount"})
    assert caught.value.path == "variables.who"
    assert hook.list_triggers() == ()
    assert hook.ensure_trigger("E", workflow_id, variables={"amount": "event.amount"}, allow_unbound=True).created
    assert hook.ensure_trigger("E", workflow_id, variables=EXPRESSIONS).created


@pytest.mark.parametrize("server", [2, 3], indirect=True)
def test_a_trigger_tells_of_a_gate_and_of_a_variable_that_nobody_asks_for(server, hook, caplog):
    plain = hook.ensure_workflow({"name": "w", "stages": [PAYS]}).workflow
    hook.ensure_trigger("E", plain.id, variables=EXPRESSIONS)
    assert caplog.text == ""
    hook.ensure_trigger("E", plain.id, variables={**EXPRESSIONS, "more": "event.id"})
    assert "no placeholder for variables.more" in caplog.text
    caplog.clear()
    gated = hook.ensure_workflow({"name": "w", "stages": [PAYS]}, gate=True).workflow
    ensured = hook.ensure_trigger("E", gated.id, variables=EXPRESSIONS)
    assert ensured.created
    assert [warning in caplog.text for warning in ensured.warnings] == [True]
    assert "nobody releases the runs of a trigger" in caplog.text
    caplog.clear()
    assert not hook.ensure_trigger("E", gated.id, variables=EXPRESSIONS).created
    assert "nobody releases the runs of a trigger" in caplog.text  # of one that is there already too
    caplog.clear()
    assert hook.ensure_trigger("E", gated.id, variables={**EXPRESSIONS, "runGate": "event.id"}).created
    assert "no placeholder" not in caplog.text
