"""Ctrl-C, SIGTERM and SIGHUP while a command runs a payment: what it then says is what became of the run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import get_args

import pytest

from orchestration_integrations import OrchestrationHttpHook, SqliteRunStore
from orchestration_integrations.cli.next_call import after_cancel
from orchestration_integrations.cli.signals import Terminated, heard
from orchestration_integrations.http_hook.held_back import held_back
from orchestration_integrations.http_hook.interrupts import AfterInterrupt
from orchestration_integrations.server import EmbeddedServer
from tests.commands import begun, ended, environment
from tests.outside import eventually

WAITS = {"name": "waits", "stages": [{"wait_event": {"event": "go"}}]}


@pytest.fixture(scope="module")
def server():
    with EmbeddedServer(3) as started:
        yield started


@pytest.fixture
def run(server, tmp_path):
    """Begins `run` with more options; gives the process and its instance, which waits."""
    (tmp_path / "waits.json").write_text(json.dumps(WAITS))
    processes = []

    def begin(*options, key):
        where = {"ORCHESTRATION_URL": server.url, "ORCHESTRATION_STORE": str(tmp_path / "runs.db")}
        file = str(tmp_path / "waits.json")
        process = begun("run", file, "--run-key", key, "--json", *options, env=where)
        processes.append(process)
        instance_id = re.search(r"instance ([0-9a-f-]{36})", process.stderr.readline())[1]
        with OrchestrationHttpHook(base_url=server.url) as hook:
            eventually(lambda: len(hook.get_instance(instance_id).status) > 1, "it is released", every=0.02)
        return process, instance_id

    yield begin
    server.clear_faults()
    for process in processes:
        process.kill()
        process.wait()


def state_of(server, instance_id):
    with OrchestrationHttpHook(base_url=server.url) as hook:
        return hook.get_instance(instance_id).state


@pytest.mark.parametrize("gap", [0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.2])
def test_a_nervous_second_ctrl_c_does_not_lose_the_cancel(server, run, gap):
    process, instance_id = run("--cancel-on-interrupt", key=f"nervous {gap}")
    process.send_signal(signal.SIGINT)
    time.sleep(gap)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    told = json.loads(out)
    assert (code, state_of(server, instance_id)) == (130, "cancelled"), err
    assert (told["error"], told["outcome"], told["sure"]) == ("Interrupted", "cancelled", True)
    assert (told["instance_id"], told["run_key"]) == (instance_id, f"nervous {gap}")
    assert "it was cancelled" in told["message"]
    assert "Traceback" not in err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["SIGTERM", "SIGHUP"])
def test_each_signal_cancels_and_has_its_status(server, run, number, status):
    process, instance_id = run("--cancel-on-interrupt", key=f"signal {number}")
    process.send_signal(number)
    code, out, _ = ended(process)
    assert (code, json.loads(out)["outcome"], state_of(server, instance_id)) == (status, "cancelled", "cancelled")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)], ids=["SIGINT", "SIGHUP"])
def test_without_the_option_the_run_is_left(server, run, number, status):
    process, instance_id = run(key=f"left {number}")
    process.send_signal(number)
    code, out, err = ended(process)
    told = json.loads(out)
    assert (code, told["outcome"], told["instance_id"], told["sure"]) == (status, "left", instance_id, False)
    assert f"instance {instance_id}: it was left as it is" in err
    assert state_of(server, instance_id) == "running"


def test_a_second_interrupt_says_that_it_may_run_and_a_third_ends_the_command(server, run):
    server.fault("abort_instance", "status", -1, code=503)
    process, instance_id = run("--cancel-on-interrupt", key="third")
    process.send_signal(signal.SIGINT)
    time.sleep(0.8)
    process.send_signal(signal.SIGINT)
    line = process.stderr.readline()
    assert f"instance {instance_id} may still run: orchestration-integrations cancel {instance_id}" in line
    time.sleep(0.6)
    assert process.poll() is None, "its cancel goes on"
    at = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, out, _ = ended(process)
    told = json.loads(out)
    assert (code, time.monotonic() - at < 5) == (143, True)
    assert (told["outcome"], told["sure"], told["in_flight"]) == ("unknown", False, [])
    assert f"instance {instance_id} may still run" in told["message"]


def test_what_the_next_call_does_is_said_by_what_became_of_the_run(server, run, tmp_path):
    """Nothing of this run had begun but its gate: the same command starts a new one."""
    process, instance_id = run("--cancel-on-interrupt", key="over")
    process.send_signal(signal.SIGINT)
    _, out, _ = ended(process)
    told = json.loads(out)
    assert (told["outcome"], told["instance_id"]) == ("cancelled", instance_id)
    assert "goes on with the same run" not in told["message"]
    assert "the run is over" in told["message"]
    assert "where no stage of it had begun, starts a new run, which pays" in told["message"]
    process, instance_id = run(key="left to go on")
    process.send_signal(signal.SIGINT)
    _, out, _ = ended(process)
    assert json.loads(out)["message"].endswith(
        "call again with --run-key 'left to go on' and the same --store: that goes on with the same run"
    )
    process, again = run(key="left to go on")
    assert again == instance_id


def test_the_next_call_after_each_outcome_of_a_cancel():
    words = {*get_args(AfterInterrupt)}
    after = after_cancel("order 17", "of the night/runs.db")
    assert set(after) == words
    same = {word for word in words if "the same run" in after[word]}
    assert same == {"left"}
    anew = {word for word in words if "starts a new run, which pays" in after[word]}
    assert anew == {"cancelled", "never_started", "not_confirmed", "unknown", "being_started"}
    assert "runs resume 'order 17' --store 'of the night/runs.db'" in after["held"]


def test_a_cancel_that_fails_is_not_called_one(server, run):
    process, _ = run("--cancel-on-interrupt", key="fails")
    server.fault("any", "status", -1, code=403)
    process.send_signal(signal.SIGINT)
    _, out, _ = ended(process)
    told = json.loads(out)
    assert (told["outcome"], told["sure"]) == ("unknown", False)
    assert "its cancel failed, and it may still run" in told["message"]


def test_an_interrupt_of_the_cancel_at_the_deadline_does_not_say_that_the_run_goes_on(server, run):
    """That cancel may have been carried out."""
    before = server.record().requests.get("abort_instance", 0)
    server.fault("abort_instance", "status", -1, code=503)
    process, instance_id = run("--timeout", "1", key="late")
    with OrchestrationHttpHook(base_url=server.url) as hook:
        eventually(
            lambda: server.record().requests.get("abort_instance", 0) > before, "it is being cancelled", every=0.05
        )
        process.send_signal(signal.SIGINT)
        _, out, err = ended(process)
        assert hook.get_instance(instance_id).state in ("running", "cancelled")
    assert (json.loads(out)["outcome"], "it was left" in err) == ("unknown", False)


def test_a_hang_up_is_ignored_where_it_was_ignored_before(server, run, tmp_path):
    """As `nohup` has it."""
    program = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    with OrchestrationHttpHook(base_url=server.url) as hook:
        instance_id = hook.run_workflow(hook.create_workflow(WAITS).id).id
        watch = ["-m", "orchestration_integrations.cli", "instances", "watch", instance_id, "--json"]
        process = subprocess.Popen(
            [sys.executable, "-c", program, sys.executable, *watch, "--url", server.url, "--poll-interval", "0.2"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip
        assert "stage_event" in process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        hook.send_event_when_ready(instance_id, "go")
        assert ended(process)[0] == 0


def test_an_interrupt_before_a_command_begins_is_no_refusal():
    """Not "nothing was changed", and not the status of a wrong usage."""
    program = """
import sys
from orchestration_integrations.cli import main, session

def interrupted(*given):
    raise KeyboardInterrupt

session.Session = interrupted
sys.argv = ["orchestration-integrations", "info", "--json"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60, env=environment()
    )
    assert (done.returncode, "nothing was changed" in done.stderr) == (130, False)
    assert json.loads(done.stdout)["exit_status"] == 130


def test_what_a_handler_does_is_done_and_only_what_it_raises_is_held_back():
    seen = []
    told = []

    def handler(number, frame):
        seen.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with held_back(lambda: told.append(1)) as held:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGTERM)
            assert (len(seen), told) == (3, []), "the first moments"
            time.sleep(0.6)
            os.kill(os.getpid(), signal.SIGTERM)
            assert isinstance(held.raised, KeyboardInterrupt)
            assert told == [1]
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(seen) == 5


def test_what_a_handler_puts_in_its_own_place_stays_there():
    """The usual way to have the second one kill."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_IGN))
    try:
        with held_back(lambda: None):
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_an_interrupt_leaves_in_place_holds_nothing_back_any_more():
    """One that comes while the handlers are put back ends that: some of them stay."""

    def handler(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with held_back(lambda: None):
            left = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, left)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


class Cleared:
    """Is interrupted while it is cleared away."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(10))


def test_an_interrupt_that_python_drops_is_sent_again():
    """It would keep a command alive that its owner believes dead."""
    before = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    with heard():
        Cleared()
        with pytest.raises(Terminated):
            time.sleep(20)
    assert (signal.getsignal(signal.SIGTERM), sys.unraisablehook) == before


PROGRAM = """
import signal, sys
from orchestration_integrations import OrchestrationHttpHook, SqliteRunStore

class Stopped(BaseException):
    pass

def stop(*_):
    raise Stopped

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, stop)
with OrchestrationHttpHook(base_url=sys.argv[1]) as hook:
    try:
        hook.run_once(
            {"name": "waits", "stages": [{"wait_event": {"event": "go"}}]}, run_key=sys.argv[3],
            store=SqliteRunStore(sys.argv[2]), on_stage=lambda event: print(event.instance_id, event.kind, flush=True),
        )
    except BaseException as error:
        print(type(error).__name__, *error.__notes__)
"""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("gap", [0.001, 0.003, 0.01, 0.03])
def test_run_once_is_not_kept_from_its_cancel_either(server, tmp_path, gap, second):
    """A second interrupt of another class is raised once the run is cancelled."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url, str(tmp_path / "runs.db"), f"plain {gap} {second}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    line = ""
    while "listening" not in line:
        line = process.stdout.readline()
        assert line
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(gap)
    if process.poll() is None:
        process.send_signal(second)
    _, out, err = ended(process)
    assert state_of(server, line.split()[0]) == "cancelled", err
    assert "it was cancelled" in out
    assert SqliteRunStore(tmp_path / "runs.db").load(f"plain {gap} {second}").hold


@pytest.mark.parametrize("target", ["file", "name"])
def test_before_a_run_of_an_earlier_call_is_taken_up_it_is_said_that_it_may_run(server, run, tmp_path, target):
    """Nothing was cancelled, and no other attempt has it: it pays with nobody waiting, and its owner has to know."""
    first, instance_id = run(key=f"earlier by {target}")
    first.send_signal(signal.SIGINT)
    ended(first)
    server.fault("list_workflows", "stall", 1, seconds=4)
    options = ["--run-key", f"earlier by {target}", "--cancel-on-interrupt", "--json", "--url", server.url]
    what = str(tmp_path / "waits.json") if target == "file" else "waits"
    before = server.record().requests["list_workflows"]
    again = begun("run", what, *options, "--store", str(tmp_path / "runs.db"))
    eventually(lambda: server.record().requests["list_workflows"] > before, "it asks", every=0.02)
    time.sleep(0.2)
    again.send_signal(signal.SIGTERM)
    code, out, err = ended(again)
    (told,) = map(json.loads, out.splitlines())
    assert (code, told["sure"], told["run_key"]) == (143, False, f"earlier by {target}")
    assert told["outcome"] in ("unknown", "left")
    assert "may still run" in told["message"]
    assert "another attempt has it now" not in told["message"] + err
    assert state_of(server, instance_id) == "running"
