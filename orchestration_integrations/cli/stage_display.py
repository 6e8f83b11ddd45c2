"""The stages of a run as they come, on a terminal. In a pipe nothing of it is written.

It writes to the standard error, and it never raises: what a display meets must not change what becomes of a payment.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from ..procedures.wording import stage_line
from . import notices
from .notices import printable

if TYPE_CHECKING:
    from ..api.models import StageEvent

_MARKS = {
    "begun": ("▶", "cyan"),
    "listening": ("◉", "yellow"),
    "failing": ("✗", "bold red"),
    "ended": ("✓", "green"),
    "broken": ("✗", "bold red"),
}


class StageDisplay:
    """A line for each stage, redrawn as it changes; a context manager.

    Args:
        title: what is waited for.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._stages: dict[int, tuple[str, str, float, float | None]] = {}
        self._begun = time.monotonic()
        self._open = ExitStack()
        self._live: Any = None
        self._over = False

    def __enter__(self) -> StageDisplay:
        if notices.on_terminal():
            with suppress(Exception):
                self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        with suppress(Exception):
            self._open.close()

    def _start(self) -> None:
        import sys

        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=sys.stderr, markup=False, emoji=False, highlight=False)
        live = Live(
            console=console,
            get_renderable=self.rendered,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._open.enter_context(live)
        self._open.enter_context(notices.Through(lambda line: console.print(Text(line), soft_wrap=True)))
        self._live = live

    def title(self, text: str) -> None:
        """Change what is waited for."""
        self._title = text

    def told(self, event: StageEvent) -> None:
        """What a wait tells of a stage."""
        with suppress(Exception):
            self._note(event)

    def _note(self, event: StageEvent) -> None:
        text = stage_line(event).partition(": ")[2]
        kind = "broken" if event.kind == "ended" and event.detail else event.kind
        now = time.monotonic()
        _, shown, since, _ = self._stages.get(event.stage, ("", "", now, None))
        if not shown and event.own_stage is None and event.checkpoint is None:
            text = {"listening": "the gate waits for its release", "ended": "released"}.get(event.kind, "the gate")
        elif event.own_stage is None and event.checkpoint is None:
            text = "released" if event.kind == "ended" else shown
        if not text:
            text = f"the checkpoint before stage {event.checkpoint}"
        self._stages[event.stage] = (kind, text, since, now if event.kind == "ended" else None)

    def rendered(self) -> Any:
        """What the terminal shows now."""
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        now = time.monotonic()
        elapsed = _seconds(now - self._begun)
        pulse = " " if self._over else "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(now * 8) % 10]
        grid.add_row(Text(pulse), Text(printable(self._title), style="bold", overflow="fold"), Text(elapsed))
        for _, (kind, text, since, until) in sorted(self._stages.items()):
            mark, style = _MARKS[kind]
            shown = Text(printable(text), style="red" if kind in ("failing", "broken") else "", overflow="fold")
            grid.add_row(Text(mark, style=style), shown, Text(_seconds((until or now) - since), style="dim"))
        return grid


def _seconds(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
