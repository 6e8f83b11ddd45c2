"""What the next call with a run key does, once a call with it was interrupted.

It goes on with the same run only where that still goes on. A run that was cancelled is over: the next call tells that,
and where no stage of it had begun it starts a new one, which pays. Whoever reads "the same run" would not expect that.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..http_hook.interrupts import AfterInterrupt

_ANEW = "where no stage of it had begun, starts a new run, which pays"
_LOOKS = f"that looks what became of the run: it goes on with it, or tells how it ended, or, {_ANEW}"
_RESUMES = "orchestration-integrations runs resume"


def same_run(run_key: str) -> str:
    """The run was left: nothing was done to it."""
    return f"{_again(run_key)}: that goes on with the same run"


def looks(run_key: str) -> str:
    """What became of the run is not known, or there may be none yet."""
    return f"{_again(run_key)}: {_LOOKS}"


def after_cancel(run_key: str, store: str) -> Mapping[AfterInterrupt, str]:
    """By what the cancel came to that an interrupt has asked for.

    Args:
        run_key: of the run.
        store: the file of its record.
    """
    again, command = _again(run_key), f"{_RESUMES} {shlex.quote(run_key)} --store {shlex.quote(store)}"
    over = f"the run is over: to {again} tells that, or, {_ANEW}"
    return {
        "cancelled": over,
        "never_started": over,
        "already_ended": f"{again}: that tells how it ended",
        "held": f"{command} lets it go on with the next call; without that, the next call tells that it is held",
        "not_confirmed": looks(run_key),
        "unknown": looks(run_key),
        "being_started": looks(run_key),
        "superseded": f"{again}: that takes the run over, and goes on with it or tells how it ended",
        "left": same_run(run_key),
    }


def _again(run_key: str) -> str:
    return f"call again with --run-key {shlex.quote(run_key)} and the same --store"
