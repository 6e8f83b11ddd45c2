"""Processes of a cluster: each in a group of its own, its output in a file, killed like a machine or ended politely."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import psutil
import pytest

T = TypeVar("T")


class StillAlive(Exception):
    """Processes that SIGKILL did not end in time."""


class Standing(Protocol):
    """A cluster that can be started and stopped."""

    home: Path

    def start(self) -> None: ...

    def stop(self) -> None: ...


StandingT = TypeVar("StandingT", bound=Standing)


@contextlib.contextmanager
def standing(cluster: StandingT, session: pytest.Session) -> Iterator[StandingT]:
    """Start a cluster and stop it afterwards. Its folder with all logs stays, and is named, where something failed."""
    before = session.testsfailed
    well = False
    try:
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
        well = session.testsfailed == before
    finally:
        if well:
            shutil.rmtree(cluster.home, ignore_errors=True)
        else:
            print(f"\nthe logs of all parts are kept in {cluster.home}")


class Machine:
    """One program with all that it starts, as if it ran on a machine of its own."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        env: Mapping[str, str],
        *,
        ended_by: signal.Signals = signal.SIGTERM,
        **options: Any,
    ) -> None:
        self.name = name
        self.ended_by = ended_by
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                list(command), env=dict(env), stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **options
            )
        self._seen: dict[int, psutil.Process] = {}
        self.look()

    def look(self) -> list[psutil.Process]:
        """All its processes that live now. It remembers them, also for when their parents have ended."""
        with contextlib.suppress(psutil.Error):
            top = psutil.Process(self.popen.pid)
            for one in (top, *top.children(recursive=True)):
                self._seen[one.pid] = one
        for one in list(self._seen.values()):
            with contextlib.suppress(psutil.Error):
                for child in one.children(recursive=True):
                    self._seen[child.pid] = child
        return [one for one in self._seen.values() if _lives(one)]

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def power_off(self, seconds: float = 30.0) -> int:
        """SIGKILL to all its processes, as when a machine loses its power; how many they were.

        Raises ``StillAlive`` if some of them live on after so many seconds.
        """
        killed = set()
        until = time.monotonic() + seconds
        while living := self.look():
            if time.monotonic() > until:
                raise StillAlive(f"{self.name}: {living} live {seconds:.0f} s after SIGKILL")
            for one in living:  # those that could start another are stopped first
                with contextlib.suppress(psutil.Error):
                    one.suspend()
            for one in living:
                with contextlib.suppress(psutil.Error):
                    one.kill()
                    killed.add(one.pid)
            self.popen.poll()
            time.sleep(0.05)
        self.popen.wait(10)
        return len(killed)

    def drain(self) -> None:
        """The signal to the program itself that asks it to end: SIGTERM, where nothing else was said."""
        self.look()
        self.popen.send_signal(self.ended_by)

    def end(self, seconds: float = 10.0) -> None:
        """Ask it to end, wait so many seconds, then send SIGKILL to all that is left."""
        end_all([self], seconds)


def end_all(machines: Sequence[Machine], seconds: float = 10.0) -> None:
    """End machines together. Raises ``StillAlive`` at the end, if one of them cannot be ended."""
    for one in machines:
        if one.running:
            one.drain()
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(one.look() for one in machines):
        for one in machines:
            one.popen.poll()
        time.sleep(0.2)
    alive = []
    for one in machines:
        try:
            one.power_off()
        except (StillAlive, subprocess.TimeoutExpired) as error:  # the others must end all the same
            alive.append(str(error))
    if alive:
        raise StillAlive("; ".join(alive))


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def environment(**values: str) -> dict[str, str]:
    """This process's environment without settings of Airflow and Prefect, and with these values."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "PREFECT", "ORCHESTRATION", "PG"))
    }
    return {**kept, **values}
