"""Variables that the server would fill in wrongly, or not at all, told before a run is submitted."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ..api.calls import Call, get_workflow, list_workflows
from ..api.definitions import has_crowded_string, placeholders, unused_variables
from ..api.errors import NotFoundError, ValidationError, is_gateways_404
from ..api.models import Workflow
from .effects import Now, Procedure, insist
from .filled_in import check_filled
from .gate import own_stages
from .listing import Versions
from .named_workflow import label_of

logger = logging.getLogger("orchestration_integrations.procedures")


def check_unused(workflow: Workflow, names: Iterable[str], *, strict: bool) -> None:
    """Tell a variable that no placeholder asks for, which is often a mistyped name: the server ignores it silently.

    Args:
        workflow: what is to run.
        names: of the variables that the caller gives.
        strict: refuse it; else a warning names it.

    Raises:
        ValidationError: ``strict``, and there is one; ``path`` names it.
    """
    unused = unused_variables(own_stages(workflow.stages), names)
    message = unused_text(workflow, unused)
    if strict and message:
        raise ValidationError(message, path=f"variables.{unused[0]}")
    if message:
        logger.warning("%s", message)


def unused_text(workflow: Workflow, unused: Sequence[str]) -> str:
    """What it means that no placeholder asks for these variables; empty where there are none."""
    if not unused:
        return ""
    known = ", ".join(dict.fromkeys(name for _, name in placeholders(own_stages(workflow.stages)))) or "none"
    return (
        f"workflow {label_of(workflow)} has no placeholder for {', '.join(f'variables.{name}' for name in unused)} (it "
        f"has placeholders for: {known}): the server ignores such a variable; correct its name or leave it out"
    )


def check_bound(workflow: Workflow, names: Collection[str]) -> None:
    """Refuse a placeholder without a value.

    Args:
        workflow: what is to run.
        names: of the variables that have a value.

    Raises:
        ValidationError: there is one; ``path`` names its variable.
    """
    stages = own_stages(workflow.stages)
    for path, name in placeholders(stages):
        if name not in names:
            meant = get_close_matches(name, unused_variables(stages, names), n=1)
            hint = f"; is {meant[0]!r} meant, which is given and which no placeholder asks for?" if meant else ""
            raise ValidationError(
                f"{path} of workflow {label_of(workflow)} needs the variable {name!r}, which has no value: the server "
                f"would fill in nothing or a default; give it, or allow_unbound=True{hint}",
                path=f"variables.{name}",
            )


def check_placeholders(
    workflow: Workflow, texts: Mapping[str, str], allow_unbound: bool, versions: Versions, now: Now, until: float
) -> Procedure[None]:
    """Refuse a placeholder without a value, a value that no server takes where it stands, and two placeholders in one
    string where the server empties such a string.

    Raises:
        ValidationError: naming the variable, or the string.
    """
    if not allow_unbound:
        check_bound(workflow, texts)
    check_filled(workflow, texts)
    crowded = has_crowded_string(own_stages(workflow.stages))
    if crowded is None:
        return
    # Generation 1 takes all from the first ${ to the last } for one unknown name. It has no v2; one 404 can be a
    # gateway's, so it is asked for more than once.
    try:
        call: Call[Any] = get_workflow(workflow.id, "v2") if workflow.id else list_workflows("v2")
        yield from insist(call, now, until)
    except NotFoundError as error:
        if is_gateways_404(error):
            raise ValidationError(
                f"{crowded} of workflow {label_of(workflow)} has two variables in one string, which this generation of "
                "the server replaces by nothing; join them in one variable",
                path=crowded,
            ) from None
