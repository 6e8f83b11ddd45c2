"""What a script may conclude from the exit status: 1 says that a run failed, and nothing else says so."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime, timezone

import pytest

from orchestration_integrations import OrchestrationError, OrchestrationHttpHook, RunRecord, SqliteRunStore
from orchestration_integrations.cli import outage, session
from orchestration_integrations.procedures.content import Content
from orchestration_integrations.server import EmbeddedServer
from tests.commands import COMMAND, ROOT, begun, ended, environment, invoked, objects, piped
from tests.outside import eventually, free_port

WAITS = {"name": "waits", "stages": [{"wait_event": {"event": "go"}}]}
FAILS = {
    "name": "fails",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "not an account"}},
                "amount": {"amount": "5", "asset": "USD/2"},
            }
        }
    ],
}


@pytest.fixture(scope="module")
def server():
    with EmbeddedServer(1) as started:
        yield started


@pytest.fixture
def hook(server):
    with OrchestrationHttpHook(base_url=server.url) as made:
        yield made


@pytest.fixture
def runs(hook):
    """A run that waits, one that failed and one that was cancelled."""
    waits, fails = hook.create_workflow(WAITS).id, hook.create_workflow(FAILS).id
    ids = {"waits": hook.run_workflow(waits).id, "failed": hook.run_workflow(fails).id}
    ids["cancelled"] = hook.run_workflow(waits).id
    hook.cancel(ids["cancelled"])
    eventually(lambda: hook.get_instance(ids["failed"]).terminated, "it failed", every=0.05)
    return ids


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"ORCHESTRATION_URL": "ftp://x"},
        {"ORCHESTRATION_URL": "http://127.0.0.1:9", "ORCHESTRATION_TIMEOUT": "soon"},
        {"ORCHESTRATION_URL": "http://127.0.0.1:9", "ORCHESTRATION_TOKEN": "t", "ORCHESTRATION_CLIENT_ID": "c"},
        {"ORCHESTRATION_URL": "http://127.0.0.1:9", "ORCHESTRATION_VERIFY": "/no/such/file"},
    ],
    ids=["no address", "ftp", "timeout", "credentials", "verify"],
)
@pytest.mark.parametrize("command", [["wait", "i"], ["cancel", "i"], ["instances", "watch", "i"]], ids=" ".join)
def test_a_wrong_setting_is_no_failed_payment(env, command):
    done = invoked(*command, env=env)
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["wait"],
        ["wait", "i", "--timeout", "-1"],
        ["wait", "i", "--poll-interval", "0"],
        ["wait", "i", "--fail-after-attempts", "0"],
        ["wait", "i", "--hints", "70000"],
        ["wait", "a,b"],
        ["wait", "a b"],
        ["wait", "a;b", "c"],
        ["wait", ""],
        ["cancel"],
        ["cancel", "i", "--run-key", "k"],
        ["run", "no-such-file.yaml", "--store", "/tmp/never.db"],
        ["run", "w"],
        ["run", "w", "--store", "/tmp/never.db", "--no-wait", "--checkpoints"],
        ["run", "w", "--store", "/tmp/never.db", "--settled", "0-abc"],
        ["run", "w", "--store", "/tmp/never.db", "--run-key", "order-17 "],
        ["run", "w", "--store", "/tmp/never.db", "--run-key", "order\n17"],
        ["run", "w", "--store", "/tmp/never.db", "--no-wait", "--timeout", "5"],
        ["run", "w", "--store", "/tmp/never.db", "--no-wait", "--on-timeout", "leave"],
        ["run", "w", "--store", "/tmp/never.db", "--no-wait", "--cancel-on-interrupt"],
        ["run", "w", "--store", "/tmp/never.db", "--no-wait", "--fail-after-attempts", "3"],
        ["run", "w", "--store", "/tmp/never.db", "--no-wait", "--read-budget", "3"],
        ["run", "w", "--store", "/tmp/never.db", "--no-wait", "--poll-interval", "3"],
        ["reconcile", "--run-key", " order-17"],
        ["reconcile", "--run-key", "k", "--key-prefix", "k"],
        ["run", "w", "--store", "/tmp/never.db", "--var", "amount"],
        ["run", "w", "--store", "/tmp/never.db", "--var", "a=1", "--var", "a=2"],
        ["reconcile"],
        ["instances", "list", "--state", "gone"],
        ["triggers", "test", "t", "{"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_no_failed_payment(arguments):
    """Refused at once, also where nothing would answer."""
    done = invoked(*arguments, env={"ORCHESTRATION_URL": f"http://127.0.0.1:{free_port()}"})
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    assert done.stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["wait", "i", "--timeout", "soon"], "BadParameter"),
        (["wait"], "MissingParameter"),
        (["nonsense"], ("UsageError", "NoSuchCommand")),  # as typer's version calls it
        (["wait", "i", "--nonsense"], "NoSuchOption"),
        (["serve", "--db", "/no/such/directory/x.db"], "ConfigurationError"),
        (["serve", "--host", "no.such.host.invalid"], "ConfigurationError"),
        (["ui", "--url", "http://127.0.0.1:9", "--host", "no.such.host.invalid", "--page-token", "t" * 20], None),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else given,
)
def test_with_json_wrong_usage_is_an_object_too(arguments, error):
    done = piped(
        *arguments, "--json", env={"ORCHESTRATION_URL": f"http://127.0.0.1:{free_port()}"}, stdin=subprocess.DEVNULL
    )
    (told,) = objects(done)
    assert (done.returncode, told["type"], told["exit_status"]) == (2, "error", 2)
    assert error is None or told["error"] in ((error,) if isinstance(error, str) else error)
    assert told["message"]
    assert done.stderr
    lost = subprocess.run(
        ["bash", "-c", '"$@" >/dev/full', "bash", *COMMAND, *arguments, "--json"], capture_output=True, text=True,
        env=environment(ORCHESTRATION_URL="http://127.0.0.1:9"), check=False, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert lost.returncode in (2, 5)


def test_a_run_that_was_cancelled_amid_a_payment_may_still_pay(server, hook):
    """A script that pays by other means on 1 would pay twice if the payment arrived."""
    instance_id = under_retry(hook)
    assert hook.cancel(instance_id).in_flight
    done = piped("wait", instance_id, "--url", server.url, "--json")
    assert done.returncode == 3
    assert [(one["state"], one["exit_status"]) for one in objects(done)] == [("cancelled", 3)]


def under_retry(hook):
    """A run whose payment fails and is tried again."""
    poor = {"id": "nobody:has:paid:in"}
    send = {
        "send": {**FAILS["stages"][0]["send"], "source": {"account": poor}, "destination": {"account": {"id": "a"}}}
    }
    instance_id = hook.run_workflow(hook.create_workflow({"name": "poor", "stages": [send]}).id).id

    def is_tried() -> bool:
        try:
            return any(one.attempt > 1 for one in hook.get_stage_history(instance_id, 0))
        except OrchestrationError:  # the stage has not begun
            return False

    eventually(is_tried, "its payment is tried again", every=0.05)
    return instance_id


@pytest.fixture
def unreadable(server):
    """Has a kind of read fail, until the test is over."""
    yield lambda operation: server.fault(operation, "status", -1, code=500)
    server.clear_faults()


@pytest.mark.parametrize("operation", ["get_instance_history", "get_stage_history"])
def test_a_cancel_that_could_not_read_whether_a_payment_is_under_way_is_unsure(server, hook, unreadable, operation):
    instance_id = under_retry(hook)
    unreadable(operation)
    done = invoked("cancel", instance_id, "--url", server.url, "--retry-budget", "1", "--json")
    (told,) = objects(done)
    assert (done.exit_code, told["status"], told["exit_status"], told["complete"]) == (3, "cancelled", 3, False)
    assert "whether a payment is under way could not be read" in told["text"]
    waited = invoked("wait", instance_id, "--url", server.url, "--retry-budget", "1", "--json")
    (end,) = objects(waited)
    assert (waited.exit_code, end["state"]) == (3, "cancelled")
    assert "whether a payment is under way could not be read" in end["reason"]


@pytest.mark.parametrize("operation", ["get_instance_history", "get_stage_history"])
def test_a_failed_run_is_1_only_where_what_it_moved_is_known(server, hook, runs, unreadable, operation):
    sends = {**FAILS["stages"][0]["send"], "destination": {"account": {"id": "shop"}}}
    workflow = hook.create_workflow({"name": "pays, then fails", "stages": [{"send": sends}, *FAILS["stages"]]})
    paid = hook.run_workflow(workflow.id).id
    eventually(lambda: hook.get_instance(paid).terminated, "it failed", every=0.05)
    assert invoked("wait", paid, "--url", server.url).exit_code == 1
    unreadable(operation)
    done = invoked("wait", paid, "--url", server.url, "--retry-budget", "1", "--json")
    (end,) = objects(done)
    assert (done.exit_code, end["state"], end["complete"], end["exit_status"]) == (3, "failed", False, 3)


@pytest.mark.parametrize("ends", ["failed", "cancelled"])
def test_an_event_for_a_run_that_ended_badly_has_the_status_that_wait_gives(server, hook, runs, unreadable, ends):
    ended_so = runs["cancelled"]
    if ends == "failed":
        both = {"name": "fails, never waits", "stages": [*FAILS["stages"], *WAITS["stages"]]}
        ended_so = hook.run_workflow(hook.create_workflow(both).id).id
        eventually(lambda: hook.get_instance(ended_so).terminated, "it failed", every=0.05)
    send = ["events", "send", ended_so, "go", "--url", server.url, "--retry-budget", "1", "--json"]
    done = invoked(*send)
    (told,) = objects(done)
    assert (done.exit_code, told["error"], told["reason"]) == (1, "EventNotDeliveredError", "instance_ended")
    unreadable("get_instance_history")
    done = invoked(*send)
    assert (done.exit_code, objects(done)[0]["exit_status"]) == (3, 3)
    assert "whether a payment is under way could not be read" in done.stderr


def test_an_event_for_a_run_that_was_cancelled_amid_a_payment_is_not_called_a_known_end(server, hook):
    send = {"send": {**FAILS["stages"][0]["send"], "source": {"account": {"id": "nobody:has:paid:in"}}}}
    send["send"]["destination"] = {"account": {"id": "a"}}
    stages = [send, {"wait_event": {"event": "go"}}]
    instance_id = hook.run_workflow(hook.create_workflow({"name": "poor", "stages": stages}).id).id
    eventually(lambda: hook.get_instance_history(instance_id), "it tries to pay", every=0.05)
    assert hook.cancel(instance_id).in_flight
    done = invoked("events", "send", instance_id, "go", "--url", server.url, "--json")
    assert (done.exit_code, "CreateTransaction was under way" in done.stderr) == (3, True)


def test_no_error_of_a_read_after_an_abort_is_a_refusal(server, hook, runs, unreadable):
    """The abort was taken, and what came of it may not be read: not 2, which says that nothing was changed."""
    server.fault("get_instance", "status", -1, code=403)
    done = invoked("cancel", runs["waits"], "--timeout", "1", "--url", server.url, "--json")
    (told,) = objects(done)
    assert (done.exit_code, told["exit_status"], told["instance_id"]) == (3, 3, runs["waits"])
    assert "the abort was answered 204" in told["message"]
    server.clear_faults()
    server.fault("any", "status", -1, code=401)
    done = invoked("cancel", runs["failed"], "--timeout", "1", "--url", server.url, "--json")
    assert done.exit_code == 2, "the abort was refused too, so nothing was changed"
    server.clear_faults()
    eventually(lambda: hook.get_instance(runs["waits"]).terminated, "it was cancelled", every=0.05)


def test_of_several_what_is_unknown_outranks_what_had_succeeded(server, hook, runs):
    hook.send_event_when_ready(runs["waits"], "go")
    eventually(lambda: hook.get_instance(runs["waits"]).terminated, "it succeeded", every=0.05)
    url = ["--url", server.url, "--timeout", "0.3"]
    nowhere = "8d2e0b4c-0f0a-4f0e-9d5c-3c1b1f5f0000"
    assert invoked("cancel", runs["waits"], nowhere, *url).exit_code == 3
    assert invoked("cancel", runs["waits"], runs["failed"], *url).exit_code == 6


def test_a_run_that_could_not_be_read_at_the_deadline_has_not_timed_out(server, hook, runs):
    """It was seen to run once, and nobody knows what it has done since."""
    watch = begun("instances", "watch", runs["waits"], "--url", server.url, "--timeout", "4", "--json")
    assert watch.stdout is not None
    assert "stage_event" in watch.stdout.readline()
    server.fault("any", "html", -1, code=200)
    try:
        code, out, _ = ended(watch)
    finally:
        server.clear_faults()
    end = json.loads(out.splitlines()[-1])
    assert (code, end["state"], end["exit_status"]) == (3, "unknown", 3)
    assert "could not be read at the deadline" in end["reason"]


def test_a_cancel_of_what_had_succeeded_has_a_status_of_its_own(server, hook, runs):
    hook.send_event_when_ready(runs["waits"], "go")
    assert invoked("cancel", runs["waits"], "--url", server.url).exit_code == 6
    assert invoked("cancel", runs["failed"], "--url", server.url).exit_code == 1
    assert invoked("cancel", runs["cancelled"], "--url", server.url).exit_code == 0


def test_a_key_without_an_instance_may_have_a_run_all_the_same(server, hook, tmp_path):
    store = SqliteRunStore(tmp_path / "runs.db")
    intended = RunRecord(
        key="k", state="intended", workflow_id="w", server=server.url, since=datetime.now(timezone.utc),
        content=Content(stages="", variables={}), revision=1,
    )  # fmt: skip
    store.save(intended)
    cancel = ["cancel", "--run-key", "k", "--store", store.path, "--url", server.url]
    done = invoked(*cancel)
    assert (done.exit_code, "a run may exist all the same" in done.stderr) == (3, True)
    store.settle("k")
    assert invoked(*cancel).exit_code == 2, "somebody knows what became of it"


@pytest.mark.parametrize("place", ["2>/dev/full", "2>&-"], ids=["full", "closed"])
@pytest.mark.parametrize("status", [0, 1, 2, "2 by usage", "2 unknown command", "2 unconfirmed", 3, 4, 5, 6])
def test_a_standard_error_that_takes_nothing_changes_no_status(server, hook, runs, status, place):
    done = hook.run_workflow(hook.create_workflow({"name": "quick", "stages": []}).id).id
    eventually(lambda: hook.get_instance(done).terminated, "it succeeded", every=0.05)
    url = ["--url", server.url]
    arguments = {
        0: ["cancel", runs["cancelled"], *url],
        1: ["wait", runs["failed"], *url],
        2: ["cancel", "i", "--url", "ftp://x"],
        "2 by usage": ["wait", "i", "--timeout", "-1"],
        "2 unknown command": ["nonsense"],
        "2 unconfirmed": ["workflows", "delete", "i", *url],
        3: ["wait", "i", "--url", f"http://127.0.0.1:{free_port()}", "--timeout", "0.3"],
        4: ["wait", runs["waits"], *url, "--timeout", "0.3"],
        5: ["wait", runs["failed"], *url],
        6: ["cancel", done, *url],
    }[status]
    line = f'"$@" {place}' + (" >/dev/full" if status == 5 else "")
    shell = ["bash", "-c", line, "bash", *COMMAND, *arguments]
    ended = subprocess.run(
        shell, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=environment(), check=False, timeout=60
    )
    assert ended.returncode == int(str(status)[0])
    assert "Usage" not in ended.stdout or status == 0, "what is no result is not written as one"


@pytest.mark.parametrize(("number", "status"), [(2, 130), (15, 143)], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("place", ["2>/dev/full", "2>&-"], ids=["full", "closed"])
def test_an_interrupt_has_its_status_where_the_standard_error_takes_nothing(server, runs, number, status, place):
    shell = ["bash", "-c", f'exec "$@" {place}', "bash", *COMMAND, "instances", "watch", runs["waits"], "--json"]
    process = subprocess.Popen(
        [*shell, "--url", server.url, "--poll-interval", "0.2"], stdout=subprocess.PIPE, text=True,
        env=environment(), preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert "stage_event" in process.stdout.readline()
        process.send_signal(number)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == status


def test_each_end_has_its_status(server, runs, hook):
    def waited(*ids, **more):
        done = piped("wait", *ids, "--url", server.url, "--timeout", "1", "--json")
        return done.returncode, {one["instance_id"]: (one["state"], one["exit_status"]) for one in objects(done)}

    assert waited(runs["waits"]) == (4, {runs["waits"]: ("timeout", 4)})
    assert waited(runs["failed"]) == (1, {runs["failed"]: ("failed", 1)})
    assert waited(runs["cancelled"]) == (1, {runs["cancelled"]: ("cancelled", 1)})
    assert waited(runs["cancelled"], runs["waits"])[0] == 4
    hook.send_event_when_ready(runs["waits"], "go")
    assert waited(runs["waits"]) == (0, {runs["waits"]: ("succeeded", 0)})
    assert waited("8d2e0b4c-0f0a-4f0e-9d5c-3c1b1f5f0000")[0] == 3


def test_a_wrong_address_is_unknown_and_no_time_out():
    """Nothing was ever read."""
    done = piped("wait", "i", "--url", f"http://127.0.0.1:{free_port()}", "--timeout", "1")
    assert done.returncode == 3
    assert done.stdout.startswith("i\tunknown\t")
    assert "could not be reached" in done.stdout


@pytest.mark.parametrize("place", ["a closed pipe", "/dev/full", "nowhere"])
def test_an_output_that_is_lost_has_a_status_of_its_own(server, runs, place):
    line = {
        "a closed pipe": '"$@" | true; exit ${PIPESTATUS[0]}',
        "/dev/full": '"$@" > /dev/full',
        "nowhere": '"$@" >&-',
    }[place]
    arguments = ["wait", runs["failed"], runs["cancelled"], "--url", server.url]
    shell = ["bash", "-c", line, "bash", *COMMAND, *arguments]
    done = subprocess.run(shell, capture_output=True, text=True, env=environment(), check=False, timeout=60)
    assert done.returncode == 5, done.stderr
    assert "output could not be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistake_of_the_command_has_that_status_too_and_tells_no_secret():
    program = """
import sys
from orchestration_integrations import http_hook

class Broken:
    def __init__(self, *args, **kwargs):
        raise RuntimeError("broken by " + args[0].token)

http_hook.OrchestrationHttpHook = Broken
from orchestration_integrations.cli import main
sys.argv = ["orchestration-integrations", *sys.argv[1:]]
main()
"""
    for given, env in ((["--token", "geheimnis-4711"], {}), ([], {"ORCHESTRATION_TOKEN": "geheimnis-4711"})):
        done = subprocess.run(
            [sys.executable, "-c", program, "wait", "i", "--url", "http://127.0.0.1:9", "--json", *given],
            capture_output=True, text=True, check=False, timeout=60, cwd=ROOT, env=environment(**env),
        )  # fmt: skip
        assert done.returncode == 5
        assert "RuntimeError: broken by ****" in done.stderr
        assert "geheimnis" not in done.stderr + done.stdout
        (told,) = objects(done)
        assert (told["type"], told["error"], told["exit_status"]) == ("error", "RuntimeError", 5)


@pytest.mark.parametrize(("number", "status"), [(2, 130), (15, 143)], ids=["SIGINT", "SIGTERM"])
def test_an_interrupt_leaves_the_runs(server, runs, hook, number, status):
    process = begun("wait", runs["waits"], "--url", server.url, "--hints", "0")
    assert process.stderr is not None
    assert "hints" in process.stderr.readline()
    process.send_signal(number)
    code, out, err = ended(process)
    assert (code, out) == (status, "")
    assert "interrupted: those that were not told of were left as they are" in err
    assert "Traceback" not in err
    assert not hook.get_instance(runs["waits"]).terminated


def test_an_outage_is_told_when_it_begins_and_when_it_is_over(server, runs, hook):
    """Not once a poll, and not once for each instance."""
    others = [hook.run_workflow(hook.get_instance(runs["waits"]).workflow_id).id for _ in range(3)]
    process = begun("wait", runs["waits"], *others, "--url", server.url, "--poll-interval", "0.2", "--timeout", "60")
    assert process.stderr is not None
    time.sleep(1)
    server.fault("any", "status", -1, code=503)
    try:
        assert f"{server.url} cannot be read since " in process.stderr.readline()
        time.sleep(2)
    finally:
        server.clear_faults()
    assert "can be read again" in process.stderr.readline()
    for one in (runs["waits"], *others):
        hook.send_event_when_ready(one, "go")
    code, out, err = ended(process)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 4


def test_reads_may_fail_as_long_as_one_says(server, runs):
    """Ten reads in a row and the seconds that are given."""
    server.fault("any", "status", -1, code=503)
    try:
        done = piped("wait", runs["waits"], "--url", server.url, "--read-budget", "0.5", "--poll-interval", "0.2")
    finally:
        server.clear_faults()
    assert done.returncode == 3
    assert "unknown" in done.stdout


def test_a_payment_that_fails_for_ever_can_be_given_up(server, hook):
    poor = {
        **FAILS["stages"][0]["send"],
        "source": {"account": {"id": "poor"}},
        "destination": {"account": {"id": "a"}},
    }
    instance_id = hook.run_workflow(hook.create_workflow({"name": "poor", "stages": [{"send": poor}]}).id).id
    arguments = ["--url", server.url, "--fail-after-attempts", "2", "--poll-interval", "0.5"]
    for command in ("watch", "wait"):
        group = ["instances"] if command == "watch" else []
        done = piped(*group, command, instance_id, *arguments)
        assert done.returncode == 3
        last = done.stdout.splitlines()[-1]
        assert last.startswith(f"{instance_id}\tstuck\t")
        assert "insufficient funds" in last


def test_whoever_does_not_confirm_changes_nothing(server, hook):
    workflow_id = hook.create_workflow(WAITS).id
    for answer in ("n\n", ""):
        done = piped("workflows", "delete", workflow_id, "--url", server.url, input=answer)
        assert done.returncode == 2
        assert "nothing was changed" in done.stderr
    assert hook.get_workflow(workflow_id).deleted_at is None
    assert piped("workflows", "delete", workflow_id, "--url", server.url, input="y\n").returncode == 0
    assert hook.get_workflow(workflow_id).deleted_at is not None


def test_a_workflow_that_is_deleted_already_is_not_deleted_again(hook, server):
    """The server answers a second delete as it did the first."""
    workflow_id = hook.create_workflow(WAITS).id
    delete = ["workflows", "delete", workflow_id, "--yes", "--url", server.url]
    assert invoked(*delete).exit_code == 0
    again = invoked(*delete)
    assert (again.exit_code, again.stdout) == (2, "")
    assert f"the server knows no such workflow any more: {workflow_id} was deleted at" in again.stderr


def test_whoever_may_not_look_at_a_workflow_may_delete_it(hook, server):
    workflow_id = hook.create_workflow(WAITS).id
    with server.fault("get_workflow", "status", -1, code=403):
        done = invoked("workflows", "delete", workflow_id, "--yes", "--json", "--url", server.url)
    assert (done.exit_code, json.loads(done.stdout)["result"]) == (0, "deleted")
    assert hook.get_workflow(workflow_id).deleted_at is not None


def test_help_loads_nothing_that_is_slow():
    """It comes at once, and what is in brackets is text."""
    program = (
        "import sys; from orchestration_integrations.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "assert not {'httpx', 'starlette', 'msgspec', 'yaml'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "[OPTIONS] COMMAND" in done.stdout
    assert "Exit status: 0 well; 1 the instance failed" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_the_command(shell):
    variable = "_ORCHESTRATION_INTEGRATIONS_COMPLETE"
    program = (
        "import sys; sys.argv[0] = 'orchestration-integrations'; "
        "from orchestration_integrations.cli import main; main()"
    )
    asked = {
        "bash": {"COMP_WORDS": "orchestration-integrations inst", "COMP_CWORD": "1"},
        "zsh": {"_TYPER_COMPLETE_ARGS": "orchestration-integrations inst"},
        "fish": {"_TYPER_COMPLETE_ARGS": "orchestration-integrations inst", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60,
        env=environment(**{variable: f"complete_{shell}", **asked}),
    )  # fmt: skip
    assert "instances" in done.stdout, done.stderr


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "refused"])
@pytest.mark.parametrize("command", ["info", "run"])
def test_a_server_that_does_not_answer_is_told_of_at_once(monkeypatch, tmp_path, command, silent):
    """And a time limit bounds the calls before anything was submitted."""
    monkeypatch.setattr(outage, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(outage, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(session, "LEAST_BUDGET", 1.5)
    (tmp_path / "waits.json").write_text(json.dumps(WAITS))
    run = ["run", str(tmp_path / "waits.json"), "--store", str(tmp_path / "runs.db"), "--timeout", "1"]
    arguments = run if command == "run" else ["info", "--retry-budget", "1.5"]
    with socket.create_server(("127.0.0.1", 0)) as listener:  # it takes connections, and says nothing
        url = f"http://127.0.0.1:{listener.getsockname()[1] if silent else free_port()}"
        begun_at = time.monotonic()
        done = invoked(*arguments, "--url", url, "--json")
    assert time.monotonic() - begun_at < 20
    assert done.exit_code == 3
    told = f"{url} has not answered for" if silent else f"{url} cannot be read since "
    (line,) = [one for one in done.stderr.splitlines() if one.startswith(told)]
    assert line.endswith("; the command goes on trying")
