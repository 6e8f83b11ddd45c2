"""Cancelling by transaction: what is rolled back is cancelled.

Each task run has a transaction of its own, which is rolled back when that try of it fails: that is no wish of anyone,
since the next try comes back to its run. So the hook hangs on the nearest transaction that a *user* opened around the
call, from before the run is released. One hook per transaction cancels all of its instances at once: one after the
other they would not be done before the process is killed.
"""

from __future__ import annotations

from typing import Any

from prefect.transactions import BaseTransaction, get_transaction

from .cancelling import Target, cancel_instances_now
from .errors import RunRolledBackError


def users_transaction() -> BaseTransaction | None:
    """The nearest transaction around the caller that is not the own one of a task run."""
    chain: list[BaseTransaction] = []
    transaction: Any = get_transaction()
    while transaction is not None and all(one is not transaction for one in chain):
        chain.append(transaction)
        transaction = transaction.get_parent()
    # Of those that log for one task run, the outermost is the task run's own: it was opened before the task's code ran.
    own = {id(one) for one in {_task_run_of(one): one for one in chain if _task_run_of(one) is not None}.values()}
    return next((one for one in chain if id(one) not in own), None)


def _task_run_of(transaction: BaseTransaction) -> str | None:
    extra = getattr(transaction.logger, "extra", None) or {}
    task_run_id = extra.get("task_run_id")
    return str(task_run_id) if task_run_id else None


class _CancelInstances:
    """A rollback hook. It never raises: that would keep Prefect from the other hooks."""

    __name__ = "cancel_instances"

    def __init__(self) -> None:
        self.targets: list[Target] = []

    def __call__(self, transaction: Any) -> None:
        cancel_instances_now(self.targets, "rolled back", success_is_bad=True)


def roll_back_with(around: BaseTransaction | None, target: Target) -> None:
    """Have an instance cancelled if a transaction is rolled back.

    Raises:
        RunRolledBackError: it has been rolled back already.
    """
    if around is None:
        return
    if around.is_rolled_back():
        raise RunRolledBackError(f"the transaction was rolled back; instance {target.instance_id} was not released")
    hook = next((one for one in around.on_rollback_hooks if isinstance(one, _CancelInstances)), None)
    if hook is None:
        hook = _CancelInstances()
        around.on_rollback_hooks.append(hook)
    hook.targets.append(target)
