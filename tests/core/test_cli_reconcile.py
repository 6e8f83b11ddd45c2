"""`reconcile`: each finding on a real server, and what may never be called a duplicate."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as some

from orchestration_integrations import OrchestrationHttpHook, SqliteRunStore
from orchestration_integrations.api.models import Instance
from orchestration_integrations.cli.findings import ATTENTION, Seen
from orchestration_integrations.cli.reconciling import Wanted, findings_of
from orchestration_integrations.ownership.record import RunRecord
from orchestration_integrations.procedures.content import Content
from orchestration_integrations.procedures.gate import GateText
from orchestration_integrations.server import EmbeddedServer
from tests.commands import Terminal, invoked
from tests.outside import eventually


def sending(source="world"):
    return {
        "send": {
            "source": {"account": {"id": source}},
            "destination": {"account": {"id": "shop"}},
            "amount": {"amount": "5", "asset": "USD/2"},
        }
    }


TWO = {"name": "two", "stages": [sending(), {"wait_event": {"event": "go on"}}, sending("${source}")]}


@pytest.fixture(params=[1, 2, 3])
def server(request):
    with EmbeddedServer(request.param) as started:
        started.number = request.param
        yield started


@pytest.fixture
def hook(server):
    with OrchestrationHttpHook(base_url=server.url) as made:
        yield made


def gate(key, number=0):
    return GateText(key=key, stages="0" * 8, variables="0" * 8, round=number).text


def left(hook, workflow_id, key, number=0):
    """A run that was submitted and never released."""
    return hook.run_workflow(workflow_id, {"runKey": key, "runGate": gate(key, number), "source": "world"}).id


def released(hook, workflow_id, key, number=0):
    """A run that somebody released."""
    made = left(hook, workflow_id, key, number)
    release(hook, made, key, number)
    return made


def release(hook, instance_id, key, number=0):
    """What only the owner of a run does: open its gate."""
    eventually(lambda: hook.get_instance_history(instance_id), "it stands at its gate", every=0.05)
    hook.send_event(instance_id, f"go:{gate(key, number)}")
    eventually(lambda: hook.get_instance_history(instance_id)[0].terminated, "its gate is behind it", every=0.05)


def reconciled(server, *arguments):
    done = invoked("reconcile", *arguments, "--url", server.url, "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return done.exit_code, found


def words(found):
    return sorted((one["run_key"], one["finding"], *one["instances"]) for one in found if one["type"] == "finding")


def test_runs_of_keys_are_told_apart_and_duplicates_are_aborted(server, hook):
    workflow_id = hook.ensure_workflow(TWO, gate=True).workflow.id
    kept, twin = released(hook, workflow_id, "a [1]"), left(hook, workflow_id, "a [1]")
    alone = left(hook, workflow_id, "b")
    many = [left(hook, workflow_id, "c") for _ in range(2)]
    rounds = [released(hook, workflow_id, "d", 0), released(hook, workflow_id, "d", 1)]
    twice = [released(hook, workflow_id, "e") for _ in range(2)]
    eventually(lambda: len(hook.list_unreleased(workflow_id)) == 4, "they stand at their gates", every=0.1)
    code, found = reconciled(server, "two")
    assert code == 3
    assert words(found) == sorted(
        [
            ("a [1]", "duplicate", twin), ("a [1]", "released", kept), ("b", "unreleased", alone),
            ("c", "ambiguous", *next(one["instances"] for one in found if one["run_key"] == "c")),
            *[("d", "released", one) for one in rounds], *[("e", "released", one) for one in twice],
            ("e", "double", *next(one["instances"] for one in found if one["finding"] == "double")),
        ]
    )  # fmt: skip
    assert set(next(one["instances"] for one in found if one["run_key"] == "c")) == set(many)
    assert all(one["advice"] for one in found if one["attention"])
    assert reconciled(server, "--key-prefix", "d")[0] == 0
    assert {one["run_key"] for one in reconciled(server, "--key-prefix", "a ")[1]} == {"a [1]"}
    code, found = reconciled(server, workflow_id, "--key-prefix", "a", "--abort-duplicates", "--yes")
    (outcome,) = [one for one in found if one["type"] == "cancel"]
    assert outcome["instance_id"] == twin
    assert outcome["status"] == ("not_confirmed" if server.number == 2 else "cancelled")
    assert not hook.get_instance(kept).terminated
    assert [one["instance_id"] for one in server.record().released if one["instance_id"] == twin] == []
    for one in (alone, *many, *twice):
        assert not hook.get_instance(one).terminated, "only the duplicate is aborted"


@pytest.mark.parametrize("server", [2], indirect=True)
def test_the_record_says_which_run_is_the_one_and_what_is_stuck_or_held(server, hook, tmp_path):
    store = SqliteRunStore(tmp_path / "runs.db")
    file = ["--store", store.path]
    definition = {**TWO, "name": "three"}
    env = {"ORCHESTRATION_URL": server.url, "ORCHESTRATION_STORE": store.path}
    (tmp_path / "three.json").write_text(json.dumps(definition))
    run = ["run", str(tmp_path / "three.json"), "--var", "source=poor", "--run-key", "poor", "--no-wait", "--json"]
    instance_id = json.loads(invoked(*run, env=env).stdout)["id"]
    workflow_id = hook.get_instance(instance_id).workflow_id

    def listening():
        _, (waits,) = reconciled(server, workflow_id, *file)
        assert (waits["finding"], waits["state"]) == ("released", "running")
        return waits if waits["reason"] else None

    assert eventually(listening, "it listens", every=0.1)["advice"].endswith(
        f"sends the event (events send {instance_id} 'go on')"
    )
    hook.send_event_when_ready(instance_id, "go on")

    def stuck():
        found = reconciled(server, workflow_id, *file)[1]
        return next((one for one in found if one["finding"] == "stuck"), None)

    told = eventually(stuck, "the payment fails", every=0.2)
    assert "insufficient funds" in told["reason"]
    assert told["attention"]

    chosen = left(hook, workflow_id, "chosen")
    other = left(hook, workflow_id, "chosen")
    content = Content(stages="", variables={})
    store.save(
        RunRecord(
            key="chosen", state="chosen", workflow_id=workflow_id, server=server.url, since=datetime.now(timezone.utc),
            content=content, gate=gate("chosen"), instance_id=chosen, revision=1,
        )
    )  # fmt: skip
    store.save(
        RunRecord(
            key="intended", state="intended", workflow_id=workflow_id, server=server.url,
            since=datetime.now(timezone.utc), content=content, revision=1,
        )
    )  # fmt: skip
    eventually(lambda: len(hook.list_unreleased(workflow_id)) == 2, "they stand at their gates", every=0.1)
    found = {(one["run_key"], one["finding"]): one["instances"] for one in reconciled(server, workflow_id, *file)[1]}
    assert found[("chosen", "unreleased")] == [chosen]
    assert found[("chosen", "duplicate")] == [other]
    assert found[("intended", "ambiguous")] == []
    without = {(one["run_key"], one["finding"]) for one in reconciled(server, workflow_id)[1]}
    assert ("chosen", "ambiguous") in without, "nothing but the record says which of them it is"

    server.fault("get_instance_history", "status", -1, code=503)
    try:
        found = reconciled(server, workflow_id, *file, "--retry-budget", "1")[1]
    finally:
        server.clear_faults()
    assert {one["finding"] for one in found} == {"unknown", "ambiguous"}


@pytest.mark.parametrize("server", [2], indirect=True)
def test_a_run_that_is_held_is_resumed_as_the_finding_says(server, hook, tmp_path):
    store = SqliteRunStore(tmp_path / "runs.db")
    asked = []
    definition = {"name": "held", "stages": [sending(), sending()]}
    with pytest.raises(Exception, match="held"):
        hook.run_once(
            definition, run_key="h", store=store, checkpoints=True,
            wants=lambda: asked.append(1) or len(asked) < 2, poll_interval=0.2,
        )  # fmt: skip
    code, (held,) = reconciled(server, "held", "--store", store.path)
    assert (code, held["finding"], held["run_key"]) == (3, "held", "h")
    assert f"runs resume h --store {store.path}" in held["advice"]
    assert invoked("runs", "resume", "h", "--store", store.path).exit_code == 0
    code, (waits,) = reconciled(server, "held", "--store", store.path)
    assert (code, waits["finding"]) == (3, "waits")
    assert hook.run_once(definition, run_key="h", store=store, checkpoints=True).instance.id == held["instances"][0]
    assert server.balance("shop", "USD/2") == 10


@pytest.mark.parametrize("server", [2], indirect=True)
def test_nothing_is_aborted_without_a_yes(server, hook):
    workflow_id = hook.ensure_workflow(TWO, gate=True).workflow.id
    released(hook, workflow_id, "a"), left(hook, workflow_id, "a")
    eventually(lambda: hook.list_unreleased(workflow_id), "it stands at its gate", every=0.1)
    with Terminal("reconcile", workflow_id, "--abort-duplicates", "--url", server.url) as terminal:
        terminal.until("[y/N]")
        terminal.send("n\n")
        assert terminal.end() == 2
        assert "nothing was changed: the answer was no" in terminal.text
    done = invoked("reconcile", workflow_id, "--abort-duplicates", "--url", server.url)
    assert (done.exit_code, "nobody answered" in done.stderr) == (2, True)


def findings(server, *arguments):
    code, found = reconciled(server, *arguments, "--retry-budget", "1")
    return code, {(one["instances"][0] if one["instances"] else one["run_key"]): one["finding"] for one in found}


@pytest.mark.parametrize("server", [1, 2], indirect=True)
@pytest.mark.parametrize("asked", [["--key-prefix", "order-17"], ["--run-key", "order-17"], ["two"]], ids=" ".join)
def test_what_could_not_be_read_is_told_whatever_is_asked_for(server, hook, asked):
    workflow_id = hook.ensure_workflow(TWO, gate=True).workflow.id
    made = released(hook, workflow_id, "order-17")
    assert findings(server, *asked) == (0, {made: "released"})
    server.fault("get_instance_history", "status", -1, code=500)
    assert findings(server, *asked) == (3, {made: "unknown"})


@pytest.mark.parametrize("server", [1], indirect=True)
def test_a_read_that_decides_is_strict(server, hook):
    """Amid a payment, the history of its stage tells `stuck` and `ambiguous` from `released`."""
    poor = {"name": "poor", "stages": [sending("nobody")]}
    workflow_id = hook.ensure_workflow(poor, gate=True).workflow.id
    ids = [released(hook, workflow_id, key) for key in ("tried", "cancelled")]
    eventually(lambda: findings(server, "poor")[1] == dict.fromkeys(ids, "stuck"), "both are tried again", every=0.2)
    assert hook.cancel(ids[1]).in_flight
    assert findings(server, "poor") == (3, {ids[0]: "stuck", ids[1]: "ambiguous"})
    server.fault("get_stage_history", "status", -1, code=500)
    assert findings(server, "poor") == (3, dict.fromkeys(ids, "unknown"))


def test_a_run_is_released_only_where_its_gate_was_seen_behind_it(server, hook):
    workflow_id = hook.ensure_workflow(TWO, gate=True).workflow.id
    by_hand = hook.run_workflow(workflow_id, {"runGate": "order-17"}).id
    ungated = hook.run_workflow(hook.create_workflow({**TWO, "name": "free"}).id, {"source": "world"}).id
    ours_by_name = hook.run_workflow(
        hook.create_workflow({"name": "own event", "stages": [{"wait_event": {"event": "go:live"}}]}).id
    ).id
    for one in (by_hand, ungated, ours_by_name):
        eventually(lambda one=one: hook.get_instance_history(one), "its first stage has begun", every=0.05)
    assert findings(server, "two") == (3, {by_hand: "at_gate"})
    assert findings(server, "--run-key", "order-17") == (3, {by_hand: "at_gate"})
    assert findings(server, "--run-key", "order-1") == (0, {})
    assert findings(server, "free") == (0, {ungated: "ungated"})
    code, (own,) = reconciled(server, "own event")
    assert (code, own["finding"]) == (0, "ungated")
    assert f"events send {ours_by_name} go:live" in own["advice"]
    assert [one.run_key for one in hook.list_standing(workflow_id)] == ["order-17"]
    if server.number != 2:
        hook.cancel(by_hand)
        assert findings(server, "two") == (0, {by_hand: "never_started"})


def test_a_run_that_has_not_begun_may_be_anybodys():
    run = Seen(instance=instance("i"), begun=False)
    for wanted in (Wanted(), Wanted(key="k"), Wanted(prefix="o")):
        (found,) = findings_of([run], (), wanted, None)
        assert (found.finding, found.run_key) == ("not_begun", None)
    assert "not_begun" in ATTENTION


@pytest.mark.parametrize("server", [2], indirect=True)
def test_a_run_key_is_one_key_and_a_prefix_is_a_prefix(server, hook):
    workflow_id = hook.ensure_workflow(TWO, gate=True).workflow.id
    one, other = released(hook, workflow_id, "order-17"), released(hook, workflow_id, "order-170")
    assert findings(server, "--run-key", "order-17") == (0, {one: "released"})
    assert findings(server, "--run-key", "order-1") == (0, {})
    assert findings(server, "--key-prefix", "order-17") == (0, {one: "released", other: "released"})


@pytest.mark.parametrize("server", [1], indirect=True)
def test_a_key_in_several_workflows_is_no_duplicate_and_is_never_aborted(server, hook):
    payout = hook.ensure_workflow(TWO, gate=True).workflow.id
    refund = hook.ensure_workflow({**TWO, "name": "refund"}, gate=True).workflow.id
    paid, back = released(hook, payout, "order-17"), left(hook, refund, "order-17")
    eventually(lambda: hook.list_unreleased(refund), "it stands at its gate", every=0.05)
    code, found = reconciled(server, "--run-key", "order-17", "--abort-duplicates", "--yes")
    assert (code, {one["finding"] for one in found}) == (3, {"released", "unreleased", "key_in_several"})
    several = next(one for one in found if one["finding"] == "key_in_several")
    assert set(several["instances"]) == {paid, back}
    assert not hook.get_instance(back).terminated
    assert findings(server, refund)[1] == {back: "unreleased"}


# ---- the abort of a duplicate ------------------------------------------------------------------------


@pytest.fixture
def duplicate(server, hook):
    workflow_id = hook.ensure_workflow({"name": "pays", "stages": [sending()]}, gate=True).workflow.id
    kept, twin = released(hook, workflow_id, "k"), left(hook, workflow_id, "k")
    eventually(lambda: hook.list_unreleased(workflow_id), "it stands at its gate", every=0.05)
    return kept, twin


ABORT = ["--run-key", "k", "--abort-duplicates", "--yes", "--retry-budget", "1"]


@pytest.mark.parametrize("server", [1], indirect=True)
def test_a_duplicate_that_is_released_before_its_abort_is_a_double(server, hook, duplicate, monkeypatch):
    kept, twin = duplicate
    cancel = OrchestrationHttpHook.cancel

    def late(self, instance_id, **options):
        release(hook, instance_id, "k")
        eventually(lambda: hook.get_instance(instance_id).terminated, "it has paid", every=0.05)
        return cancel(self, instance_id, **options)

    monkeypatch.setattr(OrchestrationHttpHook, "cancel", late)
    code, found = reconciled(server, *ABORT)
    assert server.balance("shop", "USD/2") == 10
    (aborted,) = [one for one in found if one["type"] == "cancel"]
    assert (code, aborted["status"], aborted["exit_status"]) == (3, "already_ended", 3)
    assert (found[-1]["finding"], found[-1]["instances"]) == ("double", [kept, twin])


@pytest.mark.parametrize("server", [1], indirect=True)
def test_a_duplicate_that_was_released_before_the_second_look_is_a_double(server, hook, duplicate, monkeypatch):
    kept, twin = duplicate
    get_instance = OrchestrationHttpHook.get_instance

    def late(self, instance_id):
        monkeypatch.undo()
        release(hook, instance_id, "k")
        return get_instance(self, instance_id)

    monkeypatch.setattr(OrchestrationHttpHook, "get_instance", late)
    code, found = reconciled(server, *ABORT)
    assert (code, found[-1]["finding"], found[-1]["instances"]) == (3, "double", [kept, twin])
    assert not [one for one in found if one["type"] == "cancel"]


@pytest.mark.parametrize("server", [1], indirect=True)
@pytest.mark.parametrize("operation", ["get_instance", "abort_instance", "get_instance_history"])
def test_an_abort_that_fails_counts(server, hook, duplicate, monkeypatch, operation):
    """Nothing of it is told as "it no longer stands at its gate"."""
    get_instance = OrchestrationHttpHook.get_instance

    def faulty(self, instance_id):
        monkeypatch.undo()
        server.fault(operation, "status", -1, code=503)
        return get_instance(self, instance_id)

    monkeypatch.setattr(OrchestrationHttpHook, "get_instance", faulty)
    done = invoked("reconcile", *ABORT, "--url", server.url, "--json")
    server.clear_faults()
    assert done.exit_code == 3
    assert "no longer stands" not in done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last.get("exit_status", 3) == 3
    assert last["type"] == {"get_instance": "error", "abort_instance": "cancel"}.get(operation, "finding")
    assert last.get("finding", "unknown") == "unknown"


@pytest.mark.parametrize("server", [1, 2], indirect=True)
def test_each_abort_counts_in_the_exit_status(server, hook, duplicate):
    code, found = reconciled(server, *ABORT)
    (aborted,) = [one for one in found if one["type"] == "cancel"]
    assert code == aborted["exit_status"] == (3 if server.number == 2 else 0)


@pytest.mark.parametrize("server", [2], indirect=True)
def test_a_record_that_cannot_be_read_is_a_finding_of_its_key_and_of_no_other(server, hook, tmp_path):
    store = SqliteRunStore(tmp_path / "runs.db")
    with sqlite3.connect(store.path) as connection:
        connection.execute("INSERT INTO runs VALUES ('odd', 'no record')")
    workflow_id = hook.ensure_workflow(TWO, gate=True).workflow.id
    made = released(hook, workflow_id, "k")
    assert findings(server, "--run-key", "k", "--store", store.path) == (0, {made: "released"})
    assert findings(server, "--run-key", "odd", "--store", store.path) == (3, {"odd": "unknown"})
    listed = invoked("runs", "list", "--store", store.path, "--json")
    assert [(one["key"], one["state"]) for one in map(json.loads, listed.stdout.splitlines())] == [
        ("odd", "unreadable")
    ]
    assert listed.exit_code == 3
    cancelled = invoked("cancel", made, "--store", store.path, "--url", server.url, "--timeout", "0.2", "--json")
    assert json.loads(cancelled.stdout)["instance_id"] == made
    assert "the record of run key odd cannot be read" in cancelled.stderr


# ---- whatever is read ----------------------------------------------------------------------------------

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


@some.composite
def things(draw):
    """Runs of few keys, rounds, workflows and contents, and records of them."""
    runs = []
    for number in range(draw(some.integers(0, 6))):
        key, turn = draw(some.sampled_from("ab")), draw(some.integers(0, 1))
        ended = draw(some.booleans())
        runs.append(
            Seen(
                instance=instance(f"i{number}", draw(some.sampled_from("wv")), ended),
                gate=draw(some.sampled_from([None, *(content(key, turn, digit) for digit in "01")])),
                released=draw(some.booleans()),
                checkpoint=draw(some.sampled_from([None, 1])),
                failing=draw(some.sampled_from(["", "it failed"])),
                trouble=draw(some.sampled_from(["", "503"])),
                listens=draw(some.sampled_from(["", "approve"])),
            )
        )  # fmt: skip
    for run in runs:
        run.released = run.released and run.gate is not None
    records = [
        RunRecord(
            key=key, state="chosen", workflow_id=draw(some.sampled_from("wv")), server="s", since=EPOCH,
            gate=draw(some.sampled_from(["", content(key, 0, "0").text, content(key, 0, "1").text])),
            content=Content(stages="", variables={}), round=draw(some.integers(0, 1)),
            instance_id=draw(some.sampled_from([None, *(run.instance.id for run in runs), "elsewhere"])),
            settled=draw(some.booleans()), hold=draw(some.booleans()), end=draw(some.sampled_from([None, "failed"])),
        )
        for key in draw(some.sets(some.sampled_from("ab")))
    ]  # fmt: skip
    return runs, records


def instance(name, workflow_id="w", ended=False):
    return Instance(
        id=name, workflow_id=workflow_id, created_at=EPOCH, updated_at=EPOCH, terminated=ended, terminated_at=None,
        error=None, status=(), raw={},
    )  # fmt: skip


def content(key, turn, digit):
    return GateText(key=key, stages=digit * 8, variables="0" * 8, round=turn)


@given(things())
def test_what_may_be_the_payment_itself_is_never_called_a_duplicate(drawn):
    runs, records = drawn
    found = findings_of(runs, records, Wanted(), None)
    by_id = {run.instance.id: run for run in runs}
    for one in found:
        if one.finding != "duplicate":
            continue
        run = by_id[one.instances[0]]
        assert run.waits_at_gate
        of_round = [record for record in records if (record.key, record.round) == (one.run_key, one.round)]
        chosen = {record.instance_id for record in of_round}
        assert run.instance.id not in chosen
        rivals = {
            other.instance.id for other in runs if other is not run and other.payment == run.payment
            and (other.released or other.instance.id in chosen)
        }  # fmt: skip
        rivals |= {
            record.instance_id for record in of_round
            if record.instance_id and (record.workflow_id, record.gate) == run.payment
        }  # fmt: skip
        assert one.other in rivals, "it is of one workflow and one content with the run that has the key"
    for run in runs:
        if run.released or run.waits_at_gate:
            assert any(run.instance.id in one.instances for one in found), "no released run goes untold"


@given(things())
def test_no_advice_contradicts_the_record(drawn):
    """What a stop holds is not let go on, and of a settled key nothing is resumed or released."""
    runs, records = drawn
    by_id = {run.instance.id: run for run in runs}
    for one in findings_of(runs, records, Wanted(), "runs.db"):
        for record in records:
            run = by_id.get(one.instances[0]) if len(one.instances) == 1 else None
            if run is None or (record.key, record.round) != (one.run_key, one.round) or run.trouble:
                continue
            if record.instance_id != run.instance.id or run.instance.terminated:
                continue
            if record.settled:
                assert not re.search("resume|start again|events send|settle", one.advice)
            elif record.hold:
                assert "events send" not in one.advice
                assert "mend the cause" not in one.advice
                assert "no stop is on record" not in one.reason
                assert one.finding in ATTENTION
                assert ("runs resume" in one.advice) == (one.finding in ("held", "stopped"))


@pytest.mark.parametrize("server", [2], indirect=True)
def test_a_run_that_was_stopped_is_not_to_be_approved(server, hook, tmp_path):
    """Generation 2 does not end it: it waits for an approval, and pays by it."""
    store = SqliteRunStore(tmp_path / "runs.db")
    env = {"ORCHESTRATION_URL": server.url, "ORCHESTRATION_STORE": store.path}
    (tmp_path / "two.json").write_text(json.dumps(TWO))
    run = ["run", str(tmp_path / "two.json"), "--var", "source=world", "--run-key", "k"]
    instance_id = json.loads(invoked(*run, "--no-wait", "--json", env=env).stdout)["id"]
    file = ["--store", store.path]
    waits = eventually(lambda: reconciled(server, "two", *file)[1][0]["advice"], "it listens", every=0.1)
    assert f"events send {instance_id} 'go on'" in waits
    assert invoked("cancel", "--run-key", "k", "--timeout", "0.2", env=env).exit_code == 3
    code, (told,) = reconciled(server, "two", *file)
    assert (code, told["finding"]) == (3, "stopped")
    assert "it waits for event 'go on'; a stop was asked for by a cancel from outside" in told["reason"]
    assert f"wait {instance_id} --timeout 60" in told["advice"], "nobody will send that event"
    assert "events send" not in told["advice"]
    resume = re.search(r"runs resume \S+ --store \S+(?=,)", told["advice"])[0]
    assert invoked(*shlex.split(resume), env=env).exit_code == 0
    assert reconciled(server, "two", *file)[1][0]["advice"] == waits, "nothing of a stop is left"
    assert invoked(*shlex.split(waits.partition("(")[2].rstrip(")")), env=env).exit_code == 0
    assert invoked(*run, env=env).exit_code == 0
    assert server.balance("shop", "USD/2") == 10


# ---- several workflows of one name ---------------------------------------------------------------------


@pytest.fixture
def twins(hook):
    """What two first calls of one file make at the same moment."""
    ids = [hook.create_workflow({"name": "pays", "stages": stages_of(hook)}).id for _ in range(2)]
    return sorted(ids, key=lambda one: (hook.get_workflow(one).created_at, one))


def stages_of(hook):
    made = hook.ensure_workflow({"name": "like it", "stages": [sending("${source}")]}, gate=True).workflow
    return [dict(stage) for stage in made.stages]


RUN_BY_NAME = ["run", "pays", "--var", "source=world", "--run-key", "k", "--json"]


@pytest.mark.parametrize("server", [1, 2, 3], indirect=True)
def test_equal_workflows_of_one_name_are_one_to_every_command(server, hook, twins, tmp_path):
    old, young = twins
    store = SqliteRunStore(tmp_path / "runs.db")
    env = {"ORCHESTRATION_URL": server.url, "ORCHESTRATION_STORE": store.path}
    inside = [left(hook, one, key) for one, key in ((old, "a"), (young, "b"))]
    eventually(lambda: all(hook.list_unreleased(one) for one in twins), "they stand at their gates", every=0.05)
    assert set(findings(server, "pays", "--store", store.path)[1]) == set(inside), "both are looked at"
    assert len(invoked("unreleased", "pays", env=env).stdout.splitlines()) == 2
    assert len(invoked("instances", "list", "--workflow", "pays", env=env).stdout.splitlines()) == 2
    shown = invoked("workflows", "show", "pays", "--json", env=env)
    assert json.loads(shown.stdout)["id"] == old
    assert f"the oldest is meant: {old}" in shown.stderr
    refused = invoked("workflows", "delete", "pays", "--yes", env=env)
    assert (refused.exit_code, old in refused.stderr and young in refused.stderr) == (2, True)
    ended = invoked(*RUN_BY_NAME, env=env)
    assert (ended.exit_code, json.loads(ended.stdout)["workflow_id"]) == (0, old)
    hook.create_workflow({"name": "pays", "stages": [sending()]})
    refused = invoked("reconcile", "pays", env=env)
    assert (refused.exit_code, old in refused.stderr, "they differ: give the id" in refused.stderr) == (2, True, True)


@pytest.mark.parametrize("server", [2], indirect=True)
@pytest.mark.parametrize("known", ["by the record", "by its gate"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_name_goes_on_with_the_run_of_the_key_in_whichever_of_them_it_is(
    server, hook, twins, tmp_path, known, number
):
    """Whoever looked into the oldest alone would pay again."""
    env = {"ORCHESTRATION_URL": server.url, "ORCHESTRATION_STORE": str(tmp_path / "runs.db")}
    first = invoked("run", twins[number], *RUN_BY_NAME[2:], env=env)
    assert first.exit_code == 0
    if known == "by its gate":
        env["ORCHESTRATION_STORE"] = str(tmp_path / "another.db")
    again = invoked(*RUN_BY_NAME, env=env)
    assert (again.exit_code, json.loads(again.stdout)["instance_id"]) == (0, json.loads(first.stdout)["instance_id"])
    assert server.balance("shop", "USD/2") == 5
    if known == "by its gate":
        (tmp_path / "another.db").unlink()
        server.fault("get_instance_history", "status", -1, code=503)
        unread = invoked(*RUN_BY_NAME, "--retry-budget", "1", env=env)
        assert (unread.exit_code, "nothing was started" in unread.stderr.lower()) == (3, True)
        assert len(server.record().started) == 1


@pytest.mark.parametrize("days", ["inf", "1e9", "nan"])
def test_days_that_reach_back_to_no_date_are_refused(days):
    done = invoked("reconcile", "w", "--days", days, "--url", "http://127.0.0.1:9", "--json")
    assert done.exit_code == 2
    assert "--days" in done.output
    assert "Traceback" not in done.output
