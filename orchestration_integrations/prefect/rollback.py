"""Cancelling by transaction: what is rolled back is cancelled.

A task's own rollback hook runs only once the task has succeeded, so the hook hangs on the transaction
*around* the task that starts a run, from before the run is released. One hook per transaction cancels all
of its instances at once: one after the other they would not be done before the process is killed.
"""

from __future__ import annotations

from typing import Any

from prefect.transactions import BaseTransaction

from ..settings import Settings
from .cancelling import cancel_instances_now
from .flow_runs import here


class RunRolledBackError(RuntimeError):
    """The transaction had been rolled back before the run was released: nothing was released."""


class _CancelInstances:
    """A rollback hook. It never raises: that would keep Prefect from the other hooks."""

    __name__ = "cancel_instances"

    def __init__(self) -> None:
        self.instances: list[tuple[Settings, str]] = []

    def __call__(self, transaction: Any) -> None:
        by_server: dict[Settings, list[str]] = {}
        for settings, instance_id in self.instances:
            by_server.setdefault(settings, []).append(instance_id)
        for settings, ids in by_server.items():
            cancel_instances_now(settings, ids, "rolled back")


def roll_back_with(transaction: BaseTransaction, settings: Settings, instance_id: str) -> None:
    """Have an instance cancelled if the transaction around the caller is rolled back.

    Raises:
        RunRolledBackError: it has been rolled back already.
    """
    around = transaction.get_parent() if here().task_run_id is not None else transaction
    if around is None:
        return
    if around.is_rolled_back():
        raise RunRolledBackError(f"the transaction was rolled back; instance {instance_id} was not released")
    hook = next((one for one in around.on_rollback_hooks if isinstance(one, _CancelInstances)), None)
    if hook is None:
        hook = _CancelInstances()
        around.on_rollback_hooks.append(hook)
    hook.instances.append((settings, instance_id))
