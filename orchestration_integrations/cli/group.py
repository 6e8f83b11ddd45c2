"""How the command as a whole ends: its exit status where no command of it has given one."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from io import StringIO
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from . import notices
from .output import OutputLostError

_REFUSALS: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException: of click, or of typer's own copy of it
BROKEN = 5
"""As of ``exit_codes``, which is not loaded for a mistake in the usage."""


class CommandGroup(TyperGroup):
    """The command, with the exit statuses that docs/cli.md promises."""

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
        try:
            status = super().main(*given, **extra)
            _flush()
            sys.exit(status if isinstance(status, int) else 0)
        except SystemExit as stop:
            if isinstance(stop.__context__, OSError):  # typer's way with a closed pipe, as 1
                _lost(stop.__context__)
            raise
        except OutputLostError as lost:
            _lost(lost)
        except typer.Abort:
            notices.tell("nothing was changed: it was not confirmed")
            sys.exit(2)
        except _REFUSALS as refused:
            _refused(refused)
        except BrokenPipeError as error:
            _lost(error)
        except Exception:
            _unforeseen()


def _flush() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        raise OutputLostError(str(error)) from error


def _lost(error: BaseException) -> NoReturn:
    """The output is gone. What the runs come to is told on the standard error, if anywhere."""
    with suppress(Exception):  # else Python tries to write the rest as it ends, and changes the exit status
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    notices.tell(f"the output could not be written ({error}); this says nothing of any run")
    sys.exit(BROKEN)


def _refused(error: Exception) -> NoReturn:
    """A mistake in the usage. It is worded first and then written, by the writer that never raises."""
    text = StringIO()
    with suppress(Exception):
        error.show(file=text)  # type: ignore[attr-defined]
    notices.write(notices.masked(text.getvalue()))
    sys.exit(2)


def _unforeseen() -> NoReturn:
    """A mistake of this program. Its traceback shows lines of code, no values, and no secret in its message."""
    notices.write(notices.masked(traceback.format_exc()))
    notices.tell("orchestration-integrations met an error that it did not foresee; this says nothing of any run")
    sys.exit(BROKEN)
