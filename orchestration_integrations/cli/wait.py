"""`wait`: until instances have ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from . import notices
from .options import FailAfter, InstanceIds, Limit, PollInterval, ReadBudget
from .session import Session, reaching_server
from .signals import Left


@reaching_server
def wait(
    session: Session,
    instance_ids: InstanceIds,
    timeout: Limit = None,
    poll_interval: PollInterval = 5.0,
    read_budget: ReadBudget = 120.0,
    fail_after_attempts: FailAfter = None,
    hints: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Take hints on this port, of this machine only; 0: a free one.")
    ] = None,
) -> int:
    """Wait until instances have ended, all by one poll, and print each as it ends.

    One line for each: instance, "succeeded" or what went wrong in a word, and the reason, separated by tabs. With
    --hints a POST whose JSON names an instance has it read at once; the address is printed to the standard error.

    Exit status: 0 all have succeeded; 1 one has failed or was cancelled; 4 the time is over, and one was seen to run;
    3 one stands still, or nobody knows what became of it. Of several the last counts of 0, 1, 4, 3. 2 usage or
    configuration, and nothing was waited for; 5 the output could not be written; 130 interrupted. The instances go on
    whatever becomes of this command.
    """
    from . import shapes
    from .exit_codes import worst_of
    from .options import checked_ids
    from .targets import stages_of

    ids = checked_ids(instance_ids)
    session.if_interrupted = Left("those that were not told of were left as they are", outcome="left")
    statuses = []
    with _hint_endpoint(hints):
        for instance_id, result in session.hook.wait_many(
            ids,
            timeout=timeout,
            poll_interval=poll_interval,
            read_budget=read_budget,
            fail_after_attempts=fail_after_attempts,
        ):
            known = getattr(result, "instance", None)
            stages = stages_of(session.hook, None if known is None else known.workflow_id)
            row = shapes.end(instance_id, result, stages)
            session.out.line(row, "instance_id", "state", "reason")
            statuses.append(int(row["exit_status"]))
    return worst_of(statuses)


@contextmanager
def _hint_endpoint(port: int | None) -> Iterator[None]:
    """Take hints on a port, and say where; nothing without one."""
    if port is None:
        yield
        return
    from ..api.errors import ConfigurationError
    from ..hint_endpoint import HintEndpoint

    try:
        endpoint = HintEndpoint(port)
    except OSError as error:
        raise ConfigurationError(f"hints: cannot listen on port {port}: {error}", field="hints") from error
    with endpoint:
        notices.tell(f"hints: {endpoint.url}")
        yield
