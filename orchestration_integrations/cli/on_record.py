"""What it means that the server refuses to show runs that are on record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..api.errors import OrchestrationError
from ..ownership.observing import is_refusal


@contextmanager
def looked_for(on_record: bool) -> Iterator[None]:
    """Reads whose answers are about runs.

    A refusal (401, 403, 400) is a wrong setting where nothing is known of any run. Where one is on record, it is a run
    that may not be read, as in an outage: its error says that it may exist.

    Args:
        on_record: a record names a run, or an intent to start one, that is looked for.
    """
    try:
        yield
    except OrchestrationError as error:
        if on_record and is_refusal(error):
            error.run_may_exist = True
        raise
