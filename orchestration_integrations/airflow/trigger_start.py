"""Which arguments a trigger may have that Airflow starts without a worker.

Airflow 3.3 lets the triggerer fill in their templates. A triggerer cannot ask Airflow for anything meanwhile: a
template that pulls an XCom hangs until the task times out. Before 3.3 nobody fills them in at all. So such a template
is refused where the DAG is parsed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..api.errors import ValidationError
from .compat import AIRFLOW_3_3

_REMEDY = (
    "leave out start_from_trigger: with deferrable=True alone a worker fills in the template, and the sensor then "
    "waits in the triggerer"
)
_ASKING = {
    "asset_state_store",
    "conn",
    "inlet_events",
    "outlet_events",
    "prev_data_interval_end_success",
    "prev_data_interval_start_success",
    "prev_end_date_success",
    "prev_start_date_success",
    "task_state_store",
    "triggering_asset_events",
    "var",
}
"""Names in a template's context that ask Airflow."""
_TASK = {"ti", "task_instance"}
_PLAIN_OF_TASK = {"dag_id", "map_index", "run_id", "task_id", "try_number"}
"""What is known of the task instance without asking."""


def refuse_what_a_triggerer_cannot_render(arguments: Mapping[str, Any]) -> None:
    """Check the arguments of a trigger that is to start without a worker.

    Raises:
        ValidationError: ``path`` names the argument; the message says what to do instead.
    """
    for name, value in arguments.items():
        if value is None or isinstance(value, bool | int | float):
            continue
        if not isinstance(value, str):
            raise ValidationError(
                f"{name}: the triggerer cannot fill in the output of another task ({type(value).__name__}); {_REMEDY}",
                path=name,
            )
        if "{{" not in value and "{%" not in value:
            continue
        if not AIRFLOW_3_3:
            raise ValidationError(
                f"{name}: Airflow before 3.3 fills in no template of a task that starts in the triggerer; {_REMEDY}",
                path=name,
            )
        asking = next(_asking_names(value), None)
        if asking is not None:
            raise ValidationError(
                f"{name}: the triggerer cannot fill in {asking!r}, since it cannot ask Airflow; {_REMEDY}", path=name
            )


def refuse_seconds_to_come(arguments: Mapping[str, Any]) -> None:
    """Check the times of a sensor that is to start without a worker: Airflow reads them before any template.

    Raises:
        ValidationError: ``path`` names the argument; the message says what to do instead.
    """
    for name, value in arguments.items():
        if not isinstance(value, int | float):
            raise ValidationError(
                f"{name}: a task that starts in the triggerer needs a number or a timedelta here, not {value!r}; "
                f"{_REMEDY}",
                path=name,
            )


def _asking_names(template: str) -> Iterator[str]:
    """The names in a template that make Airflow's context ask for something."""
    from jinja2 import Environment, TemplateSyntaxError, nodes

    try:
        tree = Environment(autoescape=True).parse(template)
    except TemplateSyntaxError:
        return  # Airflow says so itself, and better
    plain = {id(node.node) for node in tree.find_all(nodes.Getattr) if node.attr in _PLAIN_OF_TASK}
    for node in tree.find_all(nodes.Name):
        if node.name in _ASKING or (node.name in _TASK and id(node) not in plain):
            yield node.name
