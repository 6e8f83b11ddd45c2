"""How the command as a whole ends: its exit status where no command of it has given one."""

from __future__ import annotations

import itertools
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import StringIO
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from . import notices
from .error_objects import object_only
from .output import Output, OutputLostError
from .signals import INTERRUPTED, last_word, status_of_interrupt

_REFUSALS: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException: of click, or of typer's own copy of it
BROKEN = 5
"""As of ``exit_codes``, which is not loaded for a mistake in the usage."""


class _UntoldInterrupt(Exception):
    """An interrupt that no command has told of. Typer would make it an exit without a word."""


class CommandGroup(TyperGroup):
    """The command, with the exit statuses that docs/cli.md promises."""

    def make_context(self, *given: Any, **extra: Any) -> Any:
        """Read the arguments. As of typer, but for an interrupt."""
        with _interrupts_go_through():
            return super().make_context(*given, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Call the command. As of typer, but for an interrupt that comes before the command can tell of it."""
        with _interrupts_go_through():
            return super().invoke(ctx)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command. As of typer, but for the exit status."""
        given = (args, prog_name, complete_var, False, windows_expand_args)
        if not standalone_mode:
            return super().main(*given, **extra)
        out = Output(_wants_json(sys.argv[1:] if args is None else args))
        try:
            status = super().main(*given, **extra)
            _flush()
            sys.exit(status if isinstance(status, int) else 0)
        except KeyboardInterrupt as interrupt:  # all was told; what is not written yet is lost
            _cut_off(interrupt)
        except SystemExit as stop:
            if isinstance(stop.__context__, OSError):  # typer's way with a closed pipe, as 1
                _lost(stop.__context__)
            raise
        except OutputLostError as lost:
            _lost(lost)
        except _UntoldInterrupt as untold:
            _interrupted(untold.__cause__, out)
        except typer.Abort as abort:
            if isinstance(abort.__cause__, KeyboardInterrupt):
                _interrupted(abort.__cause__, out)
            _unconfirmed(out)
        except _REFUSALS as refused:
            _refused(refused, out)
        except BrokenPipeError as error:
            _lost(error)
        except Exception as error:
            _unforeseen(error, out)


@contextmanager
def _interrupts_go_through() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise _UntoldInterrupt from interrupt


def interrupted_before(interrupt: KeyboardInterrupt) -> NoReturn:
    """No command had begun."""
    _interrupted(interrupt, Output(_wants_json(sys.argv[1:])))


def _cut_off(interrupt: KeyboardInterrupt) -> NoReturn:
    status = status_of_interrupt(interrupt)
    last_word(status)
    _let_go()
    sys.exit(status)


def _wants_json(args: Sequence[str]) -> bool:
    """Whether ``--json`` stands among the arguments, of which nobody else may have made sense."""
    return "--json" in itertools.takewhile(lambda one: one != "--", args)


def _flush() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        raise OutputLostError(str(error)) from error


def _let_go() -> None:
    """Of a standard output that takes nothing: else Python tries to write the rest as it ends, and changes the exit
    status."""
    with suppress(Exception):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _lost(error: BaseException) -> NoReturn:
    """The output is gone. What the runs come to is told on the standard error, if anywhere."""
    _let_go()
    notices.tell(f"the output could not be written ({error}); this says nothing of any run")
    sys.exit(BROKEN)


def _ended(out: Output, kind: str, text: str, status: int) -> NoReturn:
    """With --json an object besides, where it can still be written; what the standard error was told counts."""
    try:
        object_only(out, kind, text, status)
    except OutputLostError:
        _let_go()
    sys.exit(status)


def _interrupted(interrupt: BaseException | None, out: Output) -> NoReturn:
    status = INTERRUPTED if interrupt is None else status_of_interrupt(interrupt)
    last_word(status)
    text = "interrupted; if a run had been begun, what became of it was not told: instances list, runs list"
    notices.tell(text)
    _ended(out, "Interrupted", text, status)


def _unconfirmed(out: Output) -> NoReturn:
    text = "nothing was changed: it was not confirmed"
    notices.tell(text)
    _ended(out, "Abort", text, 2)


def _refused(error: Exception, out: Output) -> NoReturn:
    """A mistake in the usage. It is worded first and then written, by the writer that never raises."""
    text = StringIO()
    with suppress(Exception):
        error.show(file=text)  # type: ignore[attr-defined]
    notices.write(notices.masked(text.getvalue()))
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    _ended(out, type(error).__name__, message, 2)


def _unforeseen(error: Exception, out: Output) -> NoReturn:
    """A mistake of this program. Its traceback shows lines of code, no values, and no secret in its message."""
    notices.write(notices.masked(traceback.format_exc()))
    text = "orchestration-integrations met an error that it did not foresee; this says nothing of any run"
    notices.tell(text)
    _ended(out, type(error).__name__, f"{text}: {error}", BROKEN)
