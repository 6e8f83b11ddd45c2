"""Options that several commands have, and what their texts mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

InstanceId = Annotated[str, typer.Argument(help="The id of the instance.", show_default=False)]
InstanceIds = Annotated[list[str], typer.Argument(help="The ids of the instances.", show_default=False)]
WorkflowRef = Annotated[str, typer.Argument(help="The id of the workflow, or its name.", show_default=False)]
Limit = Annotated[float | None, typer.Option("--timeout", min=0, help="Seconds; default: no limit.")]
PollInterval = Annotated[float, typer.Option(help="Seconds between polls.")]
ReadBudget = Annotated[
    float, typer.Option(min=0, help="Seconds for which the server may be unreadable before the wait gives up.")
]
FailAfter = Annotated[
    int | None,
    typer.Option(min=1, help="Give up once a payment has failed so often; the instance goes on trying."),
]
Store = Annotated[
    str | None,
    typer.Option("--store", envvar="ORCHESTRATION_STORE", help="The SQLite file that holds the records of run keys."),
]
AllowUnbound = Annotated[
    bool,
    typer.Option(
        "--allow-unbound", help="Placeholders without a value pass: the server fills in nothing or a default."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def checked_ids(instance_ids: Sequence[str]) -> list[str]:
    """Ids that were given one by one.

    Raises:
        ValidationError: one holds what separates ids, so that several were given as one.
    """
    from ..api.errors import ValidationError

    for one in instance_ids:
        if not one.strip():
            raise ValidationError("instance_id: is empty", path="instance_id")
        if any(char in ",;" or char.isspace() for char in one):
            raise ValidationError(
                f"instance_id: {one!r} is no id; separate several ids by spaces, each as an argument of its own",
                path="instance_id",
            )
    return list(instance_ids)


def pairs_of(given: Sequence[str], option: str) -> dict[str, str]:
    """``name=value`` texts as a mapping.

    Raises:
        ValidationError: one has no name or no ``=``, or a name stands twice.
    """
    from ..api.errors import ValidationError

    pairs: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValidationError(f"{option}: write NAME=VALUE, not {text!r}", path=option)
        if name in pairs:
            raise ValidationError(f"{option}: {name} is given twice", path=option)
        pairs[name] = value
    return pairs
