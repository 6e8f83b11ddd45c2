"""Taking turns, middles and spreads; processes that are told what to do and say what they used."""

from __future__ import annotations

import gc
import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

Call = Callable[[], object]

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Options:
    """How much is measured.

    Attributes:
        quick: a few seconds for each table: whether it works, not what it shows. Default False.
    """

    quick: bool = False


@dataclass(frozen=True)
class Spread:
    """The middle of some values, and the lowest and the highest."""

    middle: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """ValueError: there is no value."""
        return cls(statistics.median(values), min(values), max(values))

    def scaled(self, factor: float) -> Spread:
        """The same in another unit."""
        return Spread(self.middle * factor, self.lowest * factor, self.highest * factor)

    def __str__(self) -> str:
        return f"{figure(self.middle)} ({figure(self.lowest)}–{figure(self.highest)})"


@dataclass(frozen=True)
class Pair:
    """Ours and theirs, measured in turns: seconds (or whatever it is) of each turn."""

    ours: Sequence[float]
    theirs: Sequence[float]

    @property
    def ratio(self) -> Spread:
        """Ours divided by theirs, of each turn."""
        return Spread.of([ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)])


def figure(value: float) -> str:
    """A number with three digits that count, and no exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 if abs(value) >= 1 else 3
    return f"{value:.{digits if abs(value) < 10 else 1}f}"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that a share (0 to 1) of all is not above. ValueError: there is no value."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * share // 1).__int__() - 1))]


def cost(call: Call, count: int) -> tuple[float, float]:
    """Seconds of this process's CPU, and of the clock, for one of a number of calls."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        call()
    return (time.process_time() - cpu) / count, (time.perf_counter() - wall) / count


def in_turns(ours: Call, theirs: Call, *, rounds: int, count: int) -> tuple[Pair, Pair]:
    """CPU and wall of one call of each; whoever begins a round changes with each round."""
    for call in (ours, theirs):
        cost(call, max(2, count // 3))
    taken: dict[Call, list[tuple[float, float]]] = {ours: [], theirs: []}
    for number in range(rounds):
        for call in (ours, theirs) if number % 2 else (theirs, ours):
            taken[call].append(cost(call, count))
    cpu, wall = (Pair([one[at] for one in taken[ours]], [one[at] for one in taken[theirs]]) for at in (0, 1))
    return cpu, wall


def environment(**more: str) -> dict[str, str]:
    """This process's environment, for a child: its modules come from here, and compiled files are kept (compiling is
    not importing)."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPATH"] = str(ROOT)
    for name in ("NO_PROXY", "no_proxy"):
        env[name] = ",".join(filter(None, [env.get(name, ""), "127.0.0.1"]))
    return {**env, **more}


class Child:
    """A process that answers JSON lines: a module of this package that calls ``obey``. A context manager.

    Args:
        module: its name within ``benchmarks``.
        arguments: its arguments.
        python: the interpreter; default: this one.
    """

    def __init__(self, module: str, *arguments: str, python: str = sys.executable) -> None:
        self._process = subprocess.Popen(
            [python, "-m", f"benchmarks.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
            cwd=ROOT,
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def ask(self, do: str, timeout: float = 120, **arguments: Any) -> Any:
        """Let it do something; its answer. RuntimeError: it has ended. queue.Empty: it took too long."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._answers.get(timeout=timeout)
        if line is None:
            raise RuntimeError(f"{self._process.args!r} has ended with status {self._process.wait(10)}")
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def obey(orders: Callable[[str, dict[str, Any]], Any]) -> None:
    """A child's side: answer each line until there are no more. Everything else that it prints goes to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        given = json.loads(line)
        answers.write(json.dumps(orders(given.pop("do"), given)) + "\n")
        answers.flush()


def memory() -> int:
    """Bytes of this process that are in memory now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the most that it ever had
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")
