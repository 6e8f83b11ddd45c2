"""Running and stopping a payment from a shell: in a pipe and on a terminal."""

from __future__ import annotations

import json
import re
import signal

import pytest

from orchestration_integrations import OrchestrationHttpHook, SqliteRunStore, WaitTimeoutError
from orchestration_integrations.server import EmbeddedServer
from tests.commands import ROOT, Terminal, begun, ended, invoked, objects, piped
from tests.gates import variables_of
from tests.outside import eventually


def sending(amount, source="world"):
    return {
        "send": {
            "source": {"account": {"id": source}},
            "destination": {"account": {"id": "${merchant}"}},
            "amount": {"amount": amount, "asset": "EUR/2"},
        }
    }


NAME = "pay [bold]out[/]"
EVENT = "approve [red]"
TWO = {"name": NAME, "stages": [sending("1250"), {"wait_event": {"event": EVENT}}, sending("10")]}
ONE = {"name": "one", "stages": [sending("1250")]}


@pytest.fixture(params=[1, 2])
def server(request):
    with EmbeddedServer(request.param) as started:
        started.number = request.param
        yield started


@pytest.fixture
def hook(server):
    with OrchestrationHttpHook(base_url=server.url) as made:
        yield made


@pytest.fixture
def env(server, tmp_path):
    (tmp_path / "two.yaml").write_text(json.dumps(TWO))
    (tmp_path / "one.json").write_text(json.dumps(ONE))
    return {"ORCHESTRATION_URL": server.url, "ORCHESTRATION_STORE": str(tmp_path / "runs.db")}


@pytest.fixture
def two(tmp_path):
    return ["run", str(tmp_path / "two.yaml"), "--var", "merchant=m:1", "--run-key", "order [17]"]


@pytest.fixture
def one(tmp_path):
    return ["run", str(tmp_path / "one.json"), "--var", "merchant=m:1", "--run-key", "k"]


def paid(server):
    return server.balance("m:1", "EUR/2")


def test_a_payment_is_made_once_and_its_end_told_again(server, env, one):
    first, again = piped(*one, "--json", env=env), invoked(*one, "--json", env=env)
    assert (first.returncode, again.exit_code, paid(server)) == (0, 0, 1250)
    (end,) = objects(first)
    assert (end["type"], end["state"], end["run_key"], end["exit_status"]) == ("end", "succeeded", "k", 0)
    assert end["transactions"][0]["postings"][0]["destination"] == "m:1"
    assert json.loads(again.stdout)["instance_id"] == end["instance_id"]
    assert first.stderr == f"instance {end['instance_id']} of run key k\n", "no progress in a pipe"


def test_a_key_stands_for_one_payment(server, env, one):
    assert invoked(*one, env=env).exit_code == 0
    other = [text.replace("m:1", "m:2") for text in one]
    refused = invoked(*other, "--json", env=env)
    assert (refused.exit_code, server.balance("m:2", "EUR/2")) == (2, 0)
    told = json.loads(refused.stdout)
    assert (told["type"], told["error"], told["differs"]) == ("error", "KeyReusedError", "variables.merchant")
    assert invoked(*other, "--on-changed", "adopt", env=env).exit_code == 0
    assert server.balance("m:2", "EUR/2") == 0


def test_a_refused_command_makes_no_file_of_records(env, one, tmp_path):
    for wrong in (["--var", "merchant"], ["--on-timeout", "wait"], ["--url", "ftp://x"], ["--run-key", " "]):
        assert invoked(*one, *wrong, env=env).exit_code == 2
    refused = invoked("run", "no such workflow", "--run-key", "k", env=env)
    assert (refused.exit_code, "has the id or the name" in refused.stderr) == (2, True)
    refused = invoked(*one, *wrong, env={**env, "ORCHESTRATION_URL": ""})
    assert refused.exit_code == 2
    assert not (tmp_path / "runs.db").exists()


def test_without_a_key_each_call_is_a_payment_of_its_own_and_says_its_key(server, env, one):
    fresh = one[: one.index("--run-key")]
    for count in (1, 2):
        done = invoked(*fresh, env=env)
        assert done.exit_code == 0
        key = re.search(r"^run key (cli-[0-9a-f-]{36})$", done.stderr, re.MULTILINE)
        assert key is not None
        assert "the same command is another payment" in done.stderr
        assert invoked(*fresh, "--run-key", key[1], env=env).exit_code == 0
        assert paid(server) == 1250 * count


def test_a_run_is_left_and_taken_up_by_the_same_command(server, env, two, hook):
    begun_ = invoked(*two, "--no-wait", "--json", env=env)
    assert begun_.exit_code == 0
    instance_id = json.loads(begun_.stdout)["id"]
    late = invoked(*two, "--timeout", "0.5", "--on-timeout", "leave", env=env)
    assert late.exit_code == 4
    assert late.stdout.startswith(f"{instance_id}\ttimeout\t")
    assert EVENT in late.stdout
    sent = invoked("events", "send", instance_id, EVENT, env=env)
    assert (sent.exit_code, sent.stdout) == (0, f"{instance_id}\t{EVENT}\theard\n")
    done = invoked(*two, env=env)
    assert (done.exit_code, done.stdout) == (0, f"{instance_id}\tsucceeded\t\n")
    assert paid(server) == 1260
    late_event = invoked("events", "send", instance_id, EVENT, env=env)
    assert (late_event.exit_code, late_event.stdout) == (2, "")


def test_an_event_that_nobody_waits_for_is_not_sent(server, env, two):
    instance_id = json.loads(invoked(*two, "--no-wait", "--json", env=env).stdout)["id"]
    said = invoked("events", "send", instance_id, "other", "--timeout", "1", env=env)
    assert said.exit_code == 2
    assert said.stdout == ""
    assert [one["event"] for one in server.record().released if one["event"] == "other"] == []


def test_a_run_on_a_terminal_shows_its_stages_and_ctrl_c_leaves_it(server, env, two, hook):
    """What is in brackets is data."""
    with Terminal(*two, env=env) as terminal:
        text = terminal.until(f"waits for the event '{EVENT}'")
        assert "run key order [17]" in text
        assert "stage 0 (send) has ended" in text
        instance_id = re.search(r"instance ([0-9a-f-]{36})", text)[1]
        terminal.send("\x03")
        assert terminal.end() == 130
        assert f"interrupted: instance {instance_id}: it was left as it is" in terminal.text
        assert "call again with --run-key 'order" in terminal.text
        assert "Traceback" not in terminal.text
        assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l"), "the cursor is back"
    assert not hook.get_instance(instance_id).terminated
    with Terminal(*two, env=env) as terminal:
        terminal.until("waits for the event")
        assert f"instance {instance_id} of run key" in terminal.text, "the same run"
        hook.send_event_when_ready(instance_id, EVENT)
        assert terminal.end() == 0
        assert f"{instance_id}\tsucceeded" in terminal.text.expandtabs(1).replace(" succeeded", "\tsucceeded")
    assert paid(server) == 1260


@pytest.mark.parametrize("server", [1], indirect=True)
def test_ctrl_c_cancels_the_run_where_one_says_so(env, two, hook):
    with Terminal(*two, "--cancel-on-interrupt", env=env, columns=90) as terminal:
        text = terminal.until(f"waits for the event '{EVENT}'")
        instance_id = re.search(r"instance ([0-9a-f-]{36})", text)[1]
        terminal.send("\x03")
        assert terminal.end() == 130
        assert f"interrupted (KeyboardInterrupt); instance {instance_id}: it was cancelled" in terminal.text
    assert hook.get_instance(instance_id).state == "cancelled"


@pytest.mark.parametrize("server", [2], indirect=True)
def test_an_interrupt_says_what_became_of_the_run(server, env, two, hook):
    """Generation 2 stops nothing."""
    process = begun(*two, "--cancel-on-interrupt", "--json", env=env)
    assert process.stderr is not None
    instance_id = re.search(r"instance ([0-9a-f-]{36})", process.stderr.readline())[1]
    eventually(lambda: len(hook.get_instance(instance_id).status) > 2, "the payment is made", every=0.05)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    told = json.loads(out)
    assert (code, told["error"]) == (130, "Interrupted")
    for text in (told["message"], err):
        assert f"instance {instance_id}: its cancel is not confirmed" in text
        assert "asked the server to cancel it" not in text
    assert "call again with --run-key 'order [17]'" in told["message"]


@pytest.mark.parametrize("server", [1], indirect=True)
def test_an_interrupt_cancels_nothing_that_another_attempt_has(server, env, two, hook):
    process = begun(*two, "--cancel-on-interrupt", "--json", env=env)
    assert process.stderr is not None
    instance_id = re.search(r"instance ([0-9a-f-]{36})", process.stderr.readline())[1]
    eventually(lambda: len(hook.get_instance(instance_id).status) > 2, "the payment is made", every=0.05)
    other = invoked(*two, "--timeout", "0.5", "--on-timeout", "leave", env=env)
    assert other.exit_code == 4
    process.send_signal(signal.SIGINT)
    code, out, _ = ended(process)
    assert code == 130
    message = json.loads(out)["message"]
    assert f"instance {instance_id}: another attempt has it now, so it was not cancelled" in message
    assert not hook.get_instance(instance_id).terminated


def test_a_lost_answer_is_ambiguous_without_a_gate_and_says_what_to_do(server, env, hook):
    workflow_id = hook.create_workflow(ONE).id
    server.fault("run_workflow", "cut_after")
    run = ["run", workflow_id, "--var", "merchant=m:1", "--run-key", "k", "--first-attempt"]
    done = piped(*run, "--json", env=env)
    assert done.returncode == 3
    eventually(lambda: paid(server) == 1250, "the run was started, and pays", every=0.05)
    (told,) = objects(done)
    assert (told["error"], told["run_key"], told["workflow_id"]) == ("AmbiguousRunError", "k", workflow_id)
    assert [row.id for row in hook.list_instances(workflow_id)] == told["candidates"]
    assert f"reconcile {workflow_id} --run-key k --store " in done.stderr
    assert f"--settled {told['token']}" in done.stderr
    assert invoked(*run, env=env).exit_code == 3
    assert paid(server) == 1250


def test_a_run_with_checkpoints_is_not_left_alone(env, hook):
    workflow_id = hook.ensure_workflow(TWO, gate=True, checkpoints=True).workflow.id
    done = invoked("run", workflow_id, "--var", "merchant=m:1", "--run-key", "k", "--no-wait", env=env)
    assert done.exit_code == 2
    assert "checkpoints" in done.stderr
    assert hook.list_instances(workflow_id) == ()


def test_a_cancel_says_what_came_of_it(server, env, two, one, hook):
    instance_id = json.loads(invoked(*two, "--no-wait", "--json", env=env).stdout)["id"]
    # A payment that is under way is told of, with a status of its own.
    eventually(lambda: len(hook.get_instance(instance_id).status) > 2, "the payment is made", every=0.05)
    done = invoked("cancel", instance_id, "--timeout", "2", env=env)
    assert done.exit_code == (0 if server.number == 1 else 3)
    assert done.stdout.split("\t")[:2] == [instance_id, "cancelled" if server.number == 1 else "not_confirmed"]
    assert len(done.stderr.splitlines()) == 0, "it is said once"
    over = json.loads(invoked(*one, "--json", env=env).stdout)["instance_id"]
    done = invoked("cancel", over, "--json", env=env)
    assert (done.exit_code, json.loads(done.stdout)["status"]) == (6, "already_ended")
    assert invoked("cancel", "--run-key", "k", env=env).stdout.split("\t")[0] == over
    unknown = invoked("cancel", "8d2e0b4c-0f0a-4f0e-9d5c-3c1b1f5f0000", over, "--timeout", "1", env=env)
    assert over in unknown.stdout, "the others are cancelled all the same"
    assert unknown.exit_code == 3, "what is unknown counts"
    alone = invoked("cancel", "8d2e0b4c-0f0a-4f0e-9d5c-3c1b1f5f0000", "--timeout", "1", env=env)
    assert (alone.exit_code, alone.stdout.split("\t")[1]) == (3, "not_confirmed"), "its row may be late"


def test_what_opens_a_gate_or_a_checkpoint_is_sent_by_nobody_by_hand(server, env, hook):
    workflow = hook.ensure_workflow(TWO, gate=True, checkpoints=True).workflow
    variables = variables_of(workflow, "k", {"merchant": "m:1"})
    at_gate = hook.run_workflow(workflow.id, variables).id
    by_hand = hook.run_workflow(workflow.id, {"merchant": "m:1", "runGate": "any text"}).id
    for one in (at_gate, by_hand):
        eventually(lambda one=one: hook.get_instance_history(one), "it stands at its gate", every=0.05)
    event = f"go:{variables['runGate']}"
    for instance_id, name in ((at_gate, event), (at_gate, f"{event}:2"), (by_hand, "go:any text")):
        said = invoked("events", "send", instance_id, name, "--timeout", "1", env=env)
        assert (said.exit_code, said.stdout) == (2, "")
        assert "Run again with the same key" in said.stderr
        assert "runs resume KEY" in said.stderr
    shown = invoked("instances", "show", at_gate, "--json", env=env)
    assert "with run key k releases it" in json.loads(shown.stdout)["why"]
    server.fault("get_workflow", "status", -1, code=500)
    for one in (at_gate, by_hand):
        why = json.loads(invoked("instances", "show", one, "--json", "--retry-budget", "1", env=env).stdout)["why"]
        assert why.startswith("it stands at its gate")
        assert "go:" not in why
    server.clear_faults()
    hook.send_event(at_gate, event)  # the raw call goes through, and is nobody's advice

    def at_checkpoint():
        history = hook.get_instance_history(at_gate)
        return history[-1].name == "RunWaitEvent" and history[-1].input["event"] == EVENT

    eventually(at_checkpoint, "it has paid and waits", every=0.05)
    assert EVENT in json.loads(invoked("instances", "show", at_gate, "--json", env=env).stdout)["why"]
    assert server.balance("m:1", "EUR/2") == 1250


def test_a_run_that_was_cancelled_amid_a_payment_is_shown_so(server, env, hook):
    if server.number == 2:
        return  # it stops nothing
    instance_id = hook.run_workflow(
        hook.create_workflow({"name": "poor", "stages": [sending("5", "poor")]}).id, {"merchant": "m:1"}
    ).id
    eventually(lambda: hook.get_instance_history(instance_id), "it tries to pay", every=0.05)
    assert hook.cancel(instance_id).in_flight
    shown = json.loads(invoked("instances", "show", instance_id, "--json", env=env).stdout)
    assert shown["in_flight"] == ["CreateTransaction"]
    assert "CreateTransaction was under way then" in shown["why"]
    server.fault("get_stage_history", "status", -1, code=500)
    shown = json.loads(invoked("instances", "show", instance_id, "--json", "--retry-budget", "1", env=env).stdout)
    assert shown["complete"] is False
    assert "whether a payment is under way could not be read" in shown["why"]


def test_stages_are_counted_as_the_user_wrote_them(server, env, two, hook):
    """In the text and in the fields: the gate and checkpoints are no stages of the user's."""
    definition = {"name": "counted", "stages": [sending("1"), sending("2"), sending("5", "poor")]}
    store = SqliteRunStore(env["ORCHESTRATION_STORE"])
    with pytest.raises(WaitTimeoutError) as caught:
        hook.run_once(
            definition, {"merchant": "m:1"}, run_key="c", store=store, checkpoints=True, on_timeout="leave",
            timeout=6, poll_interval=0.2,
        )  # fmt: skip
    instance_id = caught.value.instance_id
    (end,) = objects(piped("wait", instance_id, "--timeout", "0.5", "--json", env=env))
    assert "after 2 completed stages and 2 transactions" in end["reason"]
    assert end["stages_completed"] == 2
    assert [(one["stage"], one["own_stage"]) for one in end["transactions"]] == [(1, 0), (3, 1)]
    assert (end["complete"], end["transactions_left_out"]) == (True, 0)
    shown = json.loads(invoked("instances", "show", instance_id, "--json", env=env).stdout)
    assert shown["stages_completed"] == 2
    (told,) = objects(invoked("cancel", instance_id, "--timeout", "1", "--json", env=env))
    assert told["stages_completed"] == 2


def test_a_run_that_has_ended_says_its_end_though_nobody_waits(server, env, tmp_path, one):
    fails = {"name": "fails", "stages": [sending("5")]}
    (tmp_path / "fails.json").write_text(json.dumps(fails))
    bad = ["run", str(tmp_path / "fails.json"), "--var", "merchant=not an account", "--run-key", "bad", "--json"]
    assert invoked(*bad, env=env).exit_code == 1
    again = invoked(*bad, "--no-wait", env=env)
    (end,) = objects(again)
    assert (again.exit_code, end["type"], end["state"], end["run_key"]) == (1, "end", "failed", "bad")
    assert invoked(*one, env=env).exit_code == 0
    again = invoked(*one, "--no-wait", "--json", env=env)
    assert (again.exit_code, objects(again)[0]["state"]) == (0, "succeeded")
    assert paid(server) == 1250


def test_a_run_is_watched_in_a_pipe_and_on_a_terminal(env, two, hook):
    instance_id = json.loads(invoked(*two, "--no-wait", "--json", env=env).stdout)["id"]
    process = begun("instances", "watch", instance_id, "--json", env=env)
    assert process.stdout is not None
    seen = []
    while not any(each["kind"] == "listening" and each["detail"] == EVENT for each in seen):
        seen.append(json.loads(process.stdout.readline()))
    with Terminal("instances", "watch", instance_id, env=env) as terminal:
        terminal.until("waits for the event")
        hook.send_event_when_ready(instance_id, EVENT)
        assert terminal.end() == 0
    code, out, err = ended(process)
    assert (code, err) == (0, "")
    last = json.loads(out.splitlines()[-1])
    assert (last["type"], last["state"]) == ("end", "succeeded")


def test_tables_cut_no_id_and_obey_nothing(env, two, hook):
    """On a terminal of any width."""
    nasty = "a[/]\x1b[2J[red]"
    hook.create_workflow({"name": nasty, "stages": [{"delay": {"duration": "1s"}}]})
    instance_id = json.loads(invoked(*two, "--no-wait", "--json", env=env).stdout)["id"]
    for columns in (50, 80, 200):
        with Terminal("instances", "list", "--keys", env=env, columns=columns) as terminal:
            assert terminal.end() == 0
            assert instance_id in terminal.text
            assert "order [17]" in terminal.text
        with Terminal("workflows", "list", env=env, columns=columns) as terminal:
            assert terminal.end() == 0
            assert r"a[/]\x1b[2J[red]" in terminal.text
            assert NAME in terminal.text
            assert "\x1b[2J" not in terminal.raw
            assert all(row.id in terminal.text for row in hook.list_workflows())
    piped_out = piped("workflows", "list", env={**env, "COLUMNS": "20"}).stdout
    assert r"a[/]\x1b[2J[red]" in piped_out
    assert "\x1b" not in piped_out


def test_a_stuck_payment_shows_why(env, hook):
    workflow_id = hook.create_workflow({"name": "poor", "stages": [sending("5", "poor")]}).id
    instance_id = hook.run_workflow(workflow_id, {"merchant": "m:1"}).id

    def look():
        shown = json.loads(invoked("instances", "show", instance_id, "--json", env=env).stdout)
        return shown if "insufficient funds" in (shown["why"] or "") else None

    shown = eventually(look, "it says why", every=0.1)
    assert [stage["kind"] for stage in shown["stages"]] == ["send"]
    assert shown["page"] is None
    ui = ["--ui-url", "https://console.example/i/{instance_id}"]
    page = json.loads(invoked("instances", "show", instance_id, "--json", *ui, env=env).stdout)["page"]
    assert page == f"https://console.example/i/{instance_id}"
    history = json.loads(invoked("instances", "history", instance_id, "--stage", "0", "--json", env=env).stdout)
    assert (history["name"], history["state"]) == ("CreateTransaction", "running")
    assert "insufficient funds" in history["last_failure"]


def test_a_definition_is_applied_once_compared_and_shown(env, tmp_path, hook):
    file = str(tmp_path / "one.json")
    missing = invoked("workflows", "diff", file, env=env)
    assert "no workflow on the server has the name 'one'" in missing.stderr
    made = [invoked("workflows", "apply", file, "--gate", env=env).stdout.split("\t") for _ in range(2)]
    assert [words[-1].strip() for words in made] == ["created", "found"]
    assert made[0][0] == made[1][0]
    assert "is what workflow" in invoked("workflows", "diff", file, env=env).stderr
    (tmp_path / "one.json").write_text(json.dumps({"name": "one", "stages": [sending("1251")]}))
    differs = invoked("workflows", "diff", file, env=env)
    assert (differs.exit_code, "-      amount: '1250'" in differs.stdout) == (0, True)
    assert "+      amount: '1251'" in differs.stdout
    shown = invoked("workflows", "show", "one", env=env)
    again = invoked("workflows", "show", made[0][0], "--json", env=env)
    assert "event: go:${runGate}" in shown.stdout
    assert len(json.loads(again.stdout)["stages"]) == 2
    hook.create_workflow(ONE)
    several = invoked("workflows", "show", "one", env=env)
    assert (several.exit_code, "2 workflows have the name 'one'" in several.stderr) == (2, True)


def test_records_are_forgotten_only_once_their_run_is_told(server, env, one, two, hook):
    store = SqliteRunStore(env["ORCHESTRATION_STORE"])
    assert invoked(*two, "--no-wait", env=env).exit_code == 0
    refused = invoked("runs", "forget", "order [17]", "--yes", env=env)
    assert (refused.exit_code, "may go on" in refused.stderr) == (2, True)
    for asked in ([], ["--unreadable"]):
        unasked = piped("runs", "forget", "order [17]", *asked, env=env, input="y\n")
        assert (unasked.returncode, "[y/N]" in unasked.stderr) == (2, False), "it refuses before it asks"
    assert store.load("order [17]") is not None
    assert invoked(*one, env=env).exit_code == 0
    before = store.complete_since
    assert invoked("runs", "forget", "k", "--yes", env=env).exit_code == 0
    assert store.load("k") is None
    assert store.complete_since > before, "the file vouches for nothing that was before"
    assert invoked(*one, env=env).exit_code == 0, "the gate of the run tells"
    assert paid(server) == 2500, "of the two runs, each once"


def test_triggers_where_the_server_has_them(server, env, hook):
    if server.number == 1:
        assert invoked("triggers", "list", env=env).exit_code == 3, "a 404 of a gateway would look the same"
        return
    workflow_id = hook.create_workflow(ONE).id
    create = [
        "triggers",
        "create",
        "SAVED_PAYMENT",
        "one",
        "--filter",
        "event.amount > 5",
        "--var",
        "merchant=event.id",
    ]
    made = [json.loads(invoked(*create, "--json", env=env).stdout) for _ in range(2)]
    assert [one["result"] for one in made] == ["created", "found"]
    assert (made[0]["workflow_id"], made[0]["variables"]) == (workflow_id, {"merchant": "event.id"})
    trigger_id = made[0]["id"]
    assert invoked("triggers", "list", env=env).stdout.startswith(trigger_id)
    tested = invoked("triggers", "test", trigger_id, '{"amount": 7, "id": "m:1"}', "--json", env=env)
    assert json.loads(tested.stdout)["type"] == "trigger_test"
    assert "has not fired" in invoked("triggers", "occurrences", trigger_id, env=env).stderr
    assert invoked("triggers", "delete", trigger_id, "--yes", env=env).exit_code == 0
    assert hook.list_triggers() == ()


def documented_fields():
    """By type: the fields that each object has, and those that some have besides, as docs/cli.md lists them."""
    page = (ROOT / "docs" / "cli.md").read_text()
    plain = re.sub(r"\([^()]*\)", "", page)
    (moved,) = re.findall(r"^What moved: (.*?)\n\n", plain, re.MULTILINE | re.DOTALL)

    def fields(text):
        more = set(re.findall(r"`(\w+)`", moved)) if "what moved" in text else set()
        return set(re.findall(r"`(\w+)`", text)) | more

    found = {}
    for line in plain.splitlines():
        row = re.fullmatch(r"\| `(\w+)` \| [^|]+ \| ([^|]+) \|", line)
        if row is not None and row[1] not in found and row[1] != "released":
            always, *adds = row[2].split(";")
            found[row[1]] = fields(always), set().union(*(fields(one.partition(" add")[2]) for one in adds))
    return found


FREE = {"record": "what else is on record", "trigger_test": "what the server says"}
"""Types whose fields are another one's."""


def test_every_object_is_documented(env, one, two, hook, server, tmp_path):
    """docs/cli.md lists each type with the fields that it has, all of them and no others."""
    documented = documented_fields()
    instance_id = json.loads(invoked(*two, "--no-wait", "--json", env=env).stdout)["id"]
    other = [*two[:-1], "another key"]
    commands = [
        ["info"], ["workflows", "list"], ["workflows", "show", NAME], ["workflows", "diff", one[1]], one,
        ["workflows", "apply", two[1], "--gate"], [*other, "--no-wait"],
        ["instances", "list"], ["instances", "list", "--keys"], ["instances", "show", instance_id],
        ["instances", "history", instance_id],
        ["instances", "history", instance_id, "--stage", "1"], ["wait", instance_id, "--timeout", "0.3"],
        ["instances", "watch", instance_id, "--timeout", "0.3"], ["reconcile", NAME], ["unreleased", NAME],
        ["runs", "list"], ["runs", "show", "k"], ["runs", "settle", "k", "--yes"],
        ["events", "send", instance_id, EVENT],
        ["cancel", instance_id, "--timeout", "1"], ["instances", "show", "nonsense"], ["runs", "show", "nonsense"],
    ]  # fmt: skip
    if server.number == 2:
        create = ["triggers", "create", "SAVED_PAYMENT", NAME, "--var", "merchant=event.id"]
        commands += [create, ["triggers", "list"]]
    workflow = hook.ensure_workflow({"name": "stands", "stages": [sending("1")]}, gate=True).workflow
    left = hook.run_workflow(workflow.id, variables_of(workflow, "left", {"merchant": "m:1"})).id
    eventually(lambda: hook.get_instance_history(left), "it stands at its gate", every=0.05)
    commands.append(["unreleased", "stands"])
    seen = set()
    for command in commands:
        done = invoked(*command, "--json", env=env)
        for line in done.stdout.splitlines():
            told = json.loads(line)
            seen.add(told["type"])
            if told["type"] in FREE:
                assert FREE[told["type"]] in (ROOT / "docs" / "cli.md").read_text()
                continue
            always, besides = documented[told["type"]]
            assert always - told.keys() == set(), (command, "missing")
            assert told.keys() - always - besides - {"type"} == set(), (command, "not documented")
    wanted = {
        "info", "workflow", "diff", "end", "instance", "stage", "activity", "stage_event", "finding", "record", "event",
        "cancel", "error", "standing",
    }  # fmt: skip
    assert seen >= wanted | ({"trigger"} if server.number == 2 else set())
