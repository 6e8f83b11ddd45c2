"""The workflow that a name stands for. The server lets any number of workflows have one name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from ..api.calls import list_workflows
from ..api.definitions import canonical
from ..api.errors import NotFoundError, ValidationError
from ..api.models import Workflow
from .effects import Procedure
from .listing import Versions, list_all


class WorkflowName(msgspec.Struct, frozen=True):
    """Asks for the workflow that has this name."""

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValidationError(f"workflow_name must be a non-empty string, not {self.name!r}", path="workflow_name")


def workflows_of(name: WorkflowName, versions: Versions) -> Procedure[tuple[Workflow, ...]]:
    """All workflows of that name that are not deleted, the oldest first.

    The list is read strictly: a row that cannot be read could have the name too.
    """
    rows = yield from list_all(partial(list_workflows, strict=True), versions)
    named = [row for row in rows if row.id and row.deleted_at is None and row.name == name.name]
    return tuple(sorted(named, key=lambda row: (row.created_at, row.id)))


def label_of(workflow: Workflow) -> str:
    """How a message names a workflow: by its id, or, where it is on no server yet, by its name."""
    return workflow.id or (repr(workflow.name) if workflow.name else "(unnamed)")


def meaning_of(workflow: Workflow) -> object:
    """What a workflow is, name and stages: two whose meanings are equal are one definition, made twice."""
    return canonical({"name": workflow.name, "stages": workflow.stages})


def are_equal(found: Sequence[Workflow]) -> bool:
    """Whether several workflows are one definition: two first calls at the same moment each make one."""
    return all(meaning_of(one) == meaning_of(found[0]) for one in found)


def oldest(found: Sequence[Workflow]) -> Workflow:
    """The one of several equal workflows that everybody uses from now on."""
    return min(found, key=lambda one: (one.created_at, one.id))


def no_such_name(name: WorkflowName) -> NotFoundError:
    """The error for a name that no workflow has."""
    return NotFoundError(
        f"no workflow on the server has the name {name.name!r} (a deleted one does not count); nothing was started"
    )


def several_of_name(name: WorkflowName, found: Sequence[Workflow]) -> ValidationError:
    """The error for a name that more than one workflow has."""
    return ValidationError(
        f"workflow_name: {several_text(name, found)}; nothing was started. Delete those that are not meant, or give "
        "workflow_id",
        path="workflow_name",
    )


def several_text(name: WorkflowName, found: Sequence[Workflow]) -> str:
    """Which workflows have the name."""
    each = ", ".join(f"{one.id} (created at {one.created_at.isoformat()})" for one in found)
    return f"{len(found)} workflows have the name {name.name!r}: {each}"
