"""`reconcile`: each finding on a real server, and what may never be called a duplicate."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as some

from orchestration_integrations import OrchestrationHttpHook, SqliteRunStore
from orchestration_integrations.api.models import Instance
from orchestration_integrations.cli.reconciling import Seen, findings_of
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
    hook.send_event_when_ready(made, f"go:{gate(key, number)}", timeout=30)
    return made


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

    assert eventually(listening, "it listens", every=0.1)["advice"] == f"events send {instance_id} 'go on'"
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
        found = reconciled(server, workflow_id, *file, "--retry-budget", "0.2")[1]
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


# ---- whatever is read ----------------------------------------------------------------------------------

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


@some.composite
def things(draw):
    """Runs of few keys and rounds, and records of them."""
    runs = []
    for number in range(draw(some.integers(0, 6))):
        key, turn = draw(some.sampled_from("ab")), draw(some.integers(0, 1))
        ended = draw(some.booleans())
        runs.append(
            Seen(
                instance=Instance(
                    id=f"i{number}", workflow_id="w", created_at=EPOCH, updated_at=EPOCH, terminated=ended,
                    terminated_at=None, error=None, status=(), raw={},
                ),
                gate=draw(some.sampled_from([GateText(key=key, stages="0" * 8, variables="0" * 8, round=turn), None])),
                released=draw(some.booleans()),
                checkpoint=draw(some.sampled_from([None, 1])),
                failing=draw(some.sampled_from(["", "it failed"])),
                trouble=draw(some.sampled_from(["", "503"])),
            )
        )  # fmt: skip
    for run in runs:
        run.released = run.released and run.gate is not None
    records = [
        RunRecord(
            key=key, state="chosen", workflow_id="w", server="s", since=EPOCH,
            content=Content(stages="", variables={}), round=draw(some.integers(0, 1)),
            instance_id=draw(some.sampled_from([None, *(run.instance.id for run in runs), "elsewhere"])),
            settled=draw(some.booleans()), hold=draw(some.booleans()), end=draw(some.sampled_from([None, "failed"])),
        )
        for key in draw(some.sets(some.sampled_from("ab")))
    ]  # fmt: skip
    return runs, records


@given(things())
def test_what_may_be_the_payment_itself_is_never_called_a_duplicate(drawn):
    runs, records = drawn
    found = findings_of(runs, records, "", None)
    by_id = {run.instance.id: run for run in runs}
    for one in found:
        if one.finding != "duplicate":
            continue
        run = by_id[one.instances[0]]
        assert run.waits_at_gate
        chosen = {record.instance_id for record in records if (record.key, record.round) == (one.run_key, one.round)}
        assert run.instance.id not in chosen
        rivals = [
            other for other in runs if other is not run and other.gate == run.gate
            and (other.released or other.instance.id in chosen)
        ]  # fmt: skip
        assert rivals or chosen - {None}
    for run in runs:
        if run.released:
            assert any(run.instance.id in one.instances for one in found), "no released run goes untold"


@pytest.mark.parametrize("days", ["inf", "1e9", "nan"])
def test_days_that_reach_back_to_no_date_are_refused(days):
    done = invoked("reconcile", "w", "--days", days, "--url", "http://127.0.0.1:9", "--json")
    assert done.exit_code == 2
    assert "--days" in done.output
    assert "Traceback" not in done.output
