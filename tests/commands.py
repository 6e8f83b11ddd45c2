"""The command as a shell starts it: behind a pipe, and on a pseudo-terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from orchestration_integrations.cli import app

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "orchestration_integrations.cli"]
PATIENCE = 60.0
"""Seconds after which a test gives a command up."""
_NOT_GIVEN = ("ORCHESTRATION_", "COLUMNS", "LINES")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]")


def environment(**given: str) -> dict[str, str]:
    """The environment of a command: nothing of the settings but what is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_GIVEN)}
    path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, "TERM": "xterm-256color", **given}


def piped(*arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command in a pipe, to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env=environment(**(env or {})),
        **options,
    )


def invoked(*arguments: str, env: Mapping[str, str] | None = None) -> Any:
    """The command in this process, where a shell adds nothing."""
    clean = {name: None for name in os.environ if name.startswith("ORCHESTRATION_")}
    return CliRunner().invoke(app, list(arguments), env={**clean, **(env or {})})


def objects(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The objects that a command with --json has written."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def begun(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """The command in a pipe, while it runs."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**(env or {})),
        start_new_session=True,
        preexec_fn=interruptible,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Status, standard output and standard error of a command that was begun."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def interruptible() -> None:
    """Whoever starts the tests may have them ignore SIGINT (a shell, in the background) or SIGHUP (``nohup``). Their
    children would inherit that."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _take_terminal() -> None:
    interruptible()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches the command


class Terminal:
    """The command on a pseudo-terminal of its own; a context manager.

    Attributes:
        raw: all that it has written.
    """

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None, columns: int = 120) -> None:
        self.raw = ""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(**(env or {})),
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    @property
    def text(self) -> str:
        """What it has written, without what moves the cursor or colours."""
        return _ESCAPES.sub("", self.raw).replace("\r", "")

    def until(self, shows: str | Callable[[str], bool]) -> str:
        """Read until a text shows."""
        wanted = shows if callable(shows) else lambda text: shows in text
        self._read(wanted)
        assert wanted(self.text), self.text
        return self.text

    def send(self, keys: str) -> None:
        """Press keys; ``\\x03`` is Ctrl-C."""
        os.write(self._master, keys.encode())

    def end(self) -> int:
        """Read to the end; the exit status."""
        self._read(lambda _: False)
        return self.process.wait(PATIENCE)

    def _read(self, enough: Callable[[str], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not enough(self.text) and time.monotonic() < until:
            ready, _, _ = select.select([self._master], [], [], 0.1)
            if not ready:
                continue
            try:
                read = os.read(self._master, 65536)
            except OSError:  # the command has ended
                return
            if not read:
                return
            self.raw += read.decode("utf-8", "replace")
