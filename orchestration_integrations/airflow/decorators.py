"""``@task.orchestration``: a function whose result is the variables of a run.

The function is called by ``execute`` alone, so once in each try. A task that resumes from its deferral takes up the
run that the try has chosen, and calls nothing. A retry calls the function anew: where it returns other variables, the
key stands for another payment, which is a ``KeyReusedError`` as ever.
"""

from __future__ import annotations

import inspect
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..api.errors import ValidationError
from .compat import Context, DecoratedOperator, determine_kwargs, task_decorator_factory
from .run_operator import OrchestrationRunWorkflowOperator

_NO_FIELDS = ("variables",)


class OrchestrationDecoratedOperator(DecoratedOperator, OrchestrationRunWorkflowOperator):  # type: ignore[misc]
    """The operator behind ``@task.orchestration``.

    Args:
        python_callable: returns the variables of the run, a mapping; ``{}`` for none. It may ask for what Airflow's
            context holds, by the names of its parameters. What it returns is sent as it is: no template is filled in.
            A text in it with the word ``None`` is refused, as one that a template left, unless ``allow_none_text``
            names the variable.
        op_args: its positional arguments; templates are filled in.
        op_kwargs: its named arguments; templates are filled in.
        kwargs: all arguments of ``OrchestrationRunWorkflowOperator`` but ``variables``.

    Returns (XCom): as ``OrchestrationRunWorkflowOperator``.

    Raises:
        ValidationError: the function is a coroutine function, ``variables`` is given as well, or the function has not
            returned a mapping; nothing was sent.
    """

    template_fields: Sequence[str] = (
        *(name for name in OrchestrationRunWorkflowOperator.template_fields if name not in _NO_FIELDS),
        "op_args",
        "op_kwargs",
    )
    template_fields_renderers = {"definition": "json", "op_args": "py", "op_kwargs": "py"}  # noqa: RUF012
    custom_operator_name = "@task.orchestration"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Any = None,
        op_kwargs: Any = None,
        **kwargs: Any,
    ) -> None:
        name = getattr(python_callable, "__name__", repr(python_callable))
        if "variables" in kwargs:
            raise ValidationError(
                f"variables: the function {name} returns them; leave out variables=, or return it from the function",
                path="variables",
            )
        if inspect.iscoroutinefunction(python_callable) or inspect.isasyncgenfunction(python_callable):
            raise ValidationError(
                f"the function {name} is asynchronous, and @task.orchestration calls a plain one: leave out async",
                path="python_callable",
            )
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, **kwargs)

    def execute(self, context: Context) -> Any:
        """Call the function, then run the workflow with what it returns."""
        # Not by way of DecoratedOperator.execute: that of Airflow 3.0 fails once the run has paid.
        return OrchestrationRunWorkflowOperator.execute(self, context)

    def _prepare(self, context: Context) -> None:
        self.variables = self._returned(context)
        super()._prepare(context)

    def _returned(self, context: Context) -> Mapping[str, Any]:
        function = self.python_callable
        known = ChainMap(dict(self.op_kwargs), context)  # what Airflow has computes only what is asked for
        found = function(*self.op_args, **determine_kwargs(function, self.op_args, known))
        if not isinstance(found, Mapping):
            raise ValidationError(
                f"the function {function.__name__} must return the variables of the run as a mapping ({{}} for none), "
                f"not a {type(found).__name__}; nothing was sent",
                path="variables",
            )
        return found


def orchestration_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> Any:
    """Make a task of a function that returns the variables of a run; ``@task.orchestration`` is the same.

    Args:
        python_callable: the function; see ``OrchestrationDecoratedOperator``.
        multiple_outputs: push each field of the run's result as an XCom of its own, beside the result; default False.
            The annotation of the function's result says nothing of this, since it is about the variables.
        kwargs: arguments of ``OrchestrationRunWorkflowOperator`` but ``variables``.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=bool(multiple_outputs),
        decorated_operator_class=OrchestrationDecoratedOperator,
        **kwargs,
    )
