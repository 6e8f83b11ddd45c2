"""Cancelling what a DAG run has started, once one of its tasks has failed for good.

The ids are read from the tasks' XComs by Airflow's own API, so this works in a worker (a task that
failed by itself) and in the DAG processor (a task that died, a DAG run that failed or timed out).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from ..procedures.verdicts import cancel_text
from .cancelling import RETRY_SECONDS, cancel_all
from .compat import AIRFLOW_3
from .hooks import OrchestrationHook
from .links import ABOUT_KEY
from .marks import NOBODY, VariableMarks, parts_of
from .run_operator import OrchestrationRunWorkflowOperator

logger = logging.getLogger("orchestration_integrations.airflow")

CANCEL_SECONDS = 14.0
"""Seconds for all cancels together: Airflow kills a worker whose callback takes 20 s, a DAG processor after 50 s."""


def cancel_instances_on_failure(dag: Any) -> Any:
    """Cancel the running instances of a DAG run as soon as one of its tasks has failed for good.

    Call it after the DAG's tasks are defined. A task that waits for a run which this cancels reports
    ``InstanceCancelledError``. A run that its task left running on purpose (``on_timeout="leave"``,
    ``wait_for_termination=False``) is cancelled as well.

    Args:
        dag: whose runs and tasks get the callback, beside those they have.

    Returns:
        The DAG.
    """
    _attach(dag)
    if hasattr(dag, "has_on_failure_callback"):
        dag.has_on_failure_callback = True
    for task in dag.tasks:
        partial = getattr(task, "partial_kwargs", None)
        if partial is None:
            _attach(task)
        else:
            partial["on_failure_callback"] = _with(partial.get("on_failure_callback"))
    return dag


def _attach(owner: Any) -> None:
    owner.on_failure_callback = _with(owner.on_failure_callback)


def _with(existing: Any) -> list[Callable[[Any], None]]:
    if existing is None:
        callbacks: list[Callable[[Any], None]] = []
    elif isinstance(existing, Sequence):
        callbacks = list(existing)
    else:
        callbacks = [existing]
    return callbacks if cancel_instances in callbacks else [*callbacks, cancel_instances]


def cancel_instances(context: Any, seconds: float | None = None) -> None:
    """The callback: cancel what this DAG run's tasks have started and what still runs. Never raises.

    Args:
        context: of the callback.
        seconds: for all of them together; None (default) for 14.
    """
    ti = context.get("ti") or context.get("task_instance")
    dag = context.get("dag") or getattr(getattr(ti, "task", None), "dag", None)
    if ti is None or dag is None:
        logger.error("it is not known which DAG run has failed: nothing was cancelled")
        return
    wanted: dict[tuple[str, str], None] = {}
    silent: list[str] = []
    for task in dag.tasks:
        if not _runs_workflows(task):
            continue
        if not _pushes(task):
            silent.append(task.task_id)
            continue
        try:
            for about in _started(ti, context, task.task_id):
                wanted[about["conn_id"], about["instance_id"]] = None
        except Exception:
            logger.exception("which instances task %s has started could not be read", task.task_id)
    if silent:
        logger.error(
            "with do_xcom_push=False nothing tells which instances a task has started: those of %s are not cancelled; "
            "one that has not ended may still run",
            ", ".join(silent),
        )
    if wanted:
        why = "a task of the DAG run has failed"
        cancel_wanted(list(wanted), why, CANCEL_SECONDS if seconds is None else seconds, parts_of(context))


def cancel_wanted(
    wanted: Sequence[tuple[str, str]], why: str, seconds: float, parts: tuple[str, str, str, int] = NOBODY
) -> None:
    """All aborts first, then what came of them; one line names what was not seen to end.

    Args:
        wanted: ids of connection and instance.
        why: what has happened, for the log.
        seconds: for all of them together.
        parts: what names the task instance of the callback.
    """
    hooks = {}
    left: dict[str, str] = {}
    with ExitStack() as stack:
        for conn_id in dict.fromkeys(conn_id for conn_id, _ in wanted):
            try:
                http = OrchestrationHook(conn_id).fresh_conn(timeout=5.0, retry_budget=RETRY_SECONDS)
                hooks[conn_id] = stack.enter_context(http)
            except Exception as error:
                unusable = f"connection {conn_id} cannot be used ({error})"
                left.update((instance_id, unusable) for of, instance_id in wanted if of == conn_id)
        reached = [one for one in wanted if one[0] in hooks]
        told = cancel_all(hooks, reached, seconds, VariableMarks(parts), why, read_running=False)
    left.update((one[1], what.unseen) for one, what in told.items() if what.unseen)
    if left:
        logger.error(
            "%s; %d of %d instances may still run: %s",
            why,
            len(left),
            len(wanted),
            "; ".join(f"{instance_id} ({outcome})" for instance_id, outcome in left.items()),
        )
    states: list[str] = []
    for (_, instance_id), what in told.items():
        outcome = what.outcome
        if what.unseen:
            continue
        if outcome.status == "held":
            logger.warning("instance %s: %s", instance_id, cancel_text(outcome))
        elif outcome.instance is not None:
            states.append(outcome.instance.state)
    logger.info("%s; %s", why, _ended_text(states))


def _ended_text(states: Sequence[str]) -> str:
    if not states:
        return "no instance has ended"
    counts = [f"{states.count(state)} {state}" for state in ("cancelled", "failed", "succeeded") if state in states]
    number = "1 instance has" if len(states) == 1 else f"{len(states)} instances have"
    kept = ", whose money was not rolled back" if "succeeded" in states else ""
    return f"{number} ended: {', '.join(counts)}{kept}"


def _runs_workflows(task: Any) -> bool:
    kind = getattr(task, "operator_class", type(task))
    return isinstance(kind, type) and issubclass(kind, OrchestrationRunWorkflowOperator)


def _pushes(task: Any) -> bool:
    """Whether a task, mapped or not, pushes XComs."""
    partial = getattr(task, "partial_kwargs", None)
    return bool(getattr(task, "do_xcom_push", True) if partial is None else partial.get("do_xcom_push", True))


def _started(ti: Any, context: Any, task_id: str) -> list[dict[str, str]]:
    """The instances that a task, mapped or not, has started in this DAG run."""
    run_id = context.get("run_id") or ti.run_id
    where = {"run_id": run_id} if AIRFLOW_3 else {}
    found = ti.xcom_pull(task_ids=[task_id], key=ABOUT_KEY, **where)
    return [one for one in list(found or ()) if isinstance(one, dict) and one.get("instance_id") and one.get("conn_id")]
