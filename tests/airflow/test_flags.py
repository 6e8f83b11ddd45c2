"""A flag is True or False: the text ``"false"``, which params and Variables give, would count as true and pay anew."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from orchestration_integrations import ValidationError
from orchestration_integrations.airflow import operators, run_operator, sensors
from tests.airflow.harness import LONG

OPERATORS: dict[Any, dict[str, Any]] = {
    run_operator.OrchestrationRunWorkflowOperator: {"workflow_id": "w"},
    operators.OrchestrationCreateWorkflowOperator: {"definition": LONG},
    operators.OrchestrationSendEventOperator: {"instance_id": "i", "event": "go"},
    operators.OrchestrationCancelInstanceOperator: {"instance_id": "i"},
    sensors.OrchestrationInstanceSensor: {"instance_id": "i"},
}
FLAGS = [
    (operator, name)
    for operator in OPERATORS
    for name, parameter in inspect.signature(inspect.unwrap(operator.__init__)).parameters.items()
    if "bool" in str(parameter.annotation) and name != "start_from_trigger"
]


def test_all_operators_have_flags() -> None:
    assert len(FLAGS) >= 14


@pytest.mark.parametrize("value", ["false", "no", "{{ params.rerun }}", 1])
@pytest.mark.parametrize(("operator", "name"), FLAGS, ids=lambda one: getattr(one, "__name__", one))
def test_a_flag_that_is_neither_true_nor_false_is_refused_where_the_dag_is_parsed(
    operator: Any, name: str, value: Any
) -> None:
    with pytest.raises(ValidationError, match="must be True or False") as caught:
        operator(task_id="pay", **OPERATORS[operator], **{name: value})
    assert caught.value.path == name
