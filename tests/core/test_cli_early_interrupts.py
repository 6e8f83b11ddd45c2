"""A signal at any moment of a command: its exit status is that of the signal, never that of a run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from orchestration_integrations.cli import signals
from tests.commands import interruptible

AT = "import sys, signal, os\nfrom orchestration_integrations.cli import application, group, signals\n"
KILL = "os.kill(os.getpid(), signal.{0})"


def ended(script: str, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", AT + script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=interruptible,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
@pytest.mark.parametrize(
    "moment",
    [
        "before = application.typer.main.get_command\n"
        "application.typer.main.get_command = lambda *a: ({0}, before(*a))[1]\n",
        "before = group.TyperGroup.make_context\n"
        "group.TyperGroup.make_context = lambda *a, **k: ({0}, before(*a, **k))[1]\n",
        "before = group.TyperGroup.invoke\ngroup.TyperGroup.invoke = lambda *a, **k: ({0}, before(*a, **k))[1]\n",
    ],
    ids=["as it is built", "as it reads its arguments", "as it begins"],
)
def test_before_a_command_has_begun(name: str, status: int, moment: str) -> None:
    script = moment.format(KILL.format(name)) + "application.main()\n"
    code, out, err = ended(script, "runs", "list", "--json")
    (told,) = map(json.loads, out.splitlines())
    assert (code, told["error"], told["exit_status"]) == (status, "Interrupted", status)
    assert "Traceback" not in err


def test_after_a_command_has_told_all() -> None:
    """What is not written yet may be lost, and no object says twice how it ended."""
    script = f"group._flush = lambda: {KILL.format('SIGTERM')}\napplication.main()\n"
    code, out, err = ended(script, "--version")
    assert (code, "Traceback" in err, out.count("error")) == (143, False, 0)


def test_an_output_that_takes_nothing_keeps_no_command_alive() -> None:
    """Whoever reads has stopped reading: the command ends all the same, a moment after the signal."""
    script = (
        "def full(*a, **k):\n"
        "    sys.stdout.write('x' * 10_000_000)\n"
        "    sys.stdout.flush()\n"
        "group.TyperGroup.invoke = full\n"
        "application.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", AT + script, "runs", "list", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=interruptible,
    )
    assert process.stdout is not None
    process.stdout.read(1000)  # it has begun to write, and nobody reads on
    time.sleep(0.3)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(20) == 143
    finally:
        process.kill()
    assert time.monotonic() - begun < 10


def test_a_command_inside_another_program_ends_that_program_never(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last word has a time limit only where the process ends with the command."""
    monkeypatch.setattr(signals, "LAST_WORD_SECONDS", 0.05)
    monkeypatch.setattr(signals._Heard, "deaf_until", 0.0)
    ends: list[int] = []
    monkeypatch.setattr(signals.os, "_exit", ends.append)
    signals.last_word(130)
    time.sleep(0.3)
    assert ends == []
    monkeypatch.setattr(signals._Heard, "to_the_end", True)
    signals.last_word(130)
    time.sleep(0.3)
    assert ends == [130]
