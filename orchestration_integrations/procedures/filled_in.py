"""What the variables of a run make of the amounts, assets and accounts of its stages, told before it is submitted."""

from __future__ import annotations

from collections.abc import Mapping

from ..api.definitions import filled
from ..api.errors import ValidationError
from ..api.models import Workflow
from ..api.money_fields import money_fields
from .gate import own_stages


def check_filled(workflow: Workflow, texts: Mapping[str, str]) -> None:
    """Refuse a value that makes an amount, an asset or an account what no server takes.

    A string with a placeholder that has no value is passed over: whether that may be is for others to say.

    Args:
        workflow: what is to run.
        texts: the variables as they are sent.

    Raises:
        ValidationError: ``path`` names the variable; the message names the place too, and what to give.
    """
    for number, stage in enumerate(own_stages(workflow.stages)):
        fields = list(money_fields(stage))
        asset = next((filled(text, texts)[0] for place, text, _ in fields if place == "send.amount.asset"), None)
        for place, text, fault in fields:
            reads, names = filled(text, texts)
            wrong = fault(reads, asset or "") if names and reads is not None else ""
            if not wrong:
                continue
            shown = repr(reads)
            shown = shown if len(shown) <= 100 else f"{shown[:100]}…"
            raise ValidationError(
                f"{', '.join(f'variables.{name}' for name in names)}: with it stages[{number}].{place} of workflow "
                f"{workflow.id or workflow.name or 'without a name'} reads {shown}, which {wrong}",
                path=f"variables.{names[0]}",
            )
