"""What the texts on a command line name: a workflow by its id or name, a definition in a file."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..api.errors import NotFoundError, OrchestrationError, ValidationError
from ..api.yaml_text import MAX_BYTES
from ..definition_files import names_file, read_definition
from ..procedures.ends import definition_of
from ..procedures.named_workflow import WorkflowName, are_equal, several_text
from . import notices

if TYPE_CHECKING:
    from ..api.models import Workflow
    from ..http_hook import OrchestrationHttpHook

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def is_file(text: str) -> bool:
    """Whether an argument means a file with a definition: ``-`` is the standard input."""
    return text == "-" or names_file(text) or (os.sep in text) or os.path.isfile(text)


def definition_in(text: str) -> Mapping[str, Any]:
    """The definition in a file, or on the standard input for ``-``.

    Raises:
        ValidationError: there is none.
    """
    if text == "-":
        return read_definition(sys.stdin.read(MAX_BYTES + 1) or " ", None)
    return read_definition(None, text)


def workflow_of(hook: OrchestrationHttpHook, text: str) -> Workflow:
    """The workflow that an id or a name means; of several equal ones the oldest, which ``ensure_workflow`` uses too.

    Raises:
        NotFoundError: there is none.
        ValidationError: several workflows have that name, and they differ.
    """
    found = workflows_of(hook, text)
    if len(found) > 1:
        notices.tell(f"{len(found)} equal workflows have the name {text!r}; the oldest is meant: {found[0].id}")
    return found[0]


def workflows_of(hook: OrchestrationHttpHook, text: str) -> Sequence[Workflow]:
    """All workflows that an id or a name means, the oldest first: more than one where equal ones have the name, as two
    first calls at the same moment make them. A text that is an id and a name means the id.

    Raises:
        NotFoundError: there is none.
        ValidationError: several workflows have that name, and they differ.
    """
    if not text.strip():
        raise ValidationError("workflow: is empty", path="workflow")
    if _ID.fullmatch(text):
        return [hook.get_workflow(text)]
    there = [one for one in hook.list_workflows() if one.deleted_at is None]
    found = [one for one in there if one.id == text] or [one for one in there if one.name == text]
    if not found:
        raise NotFoundError(f"no workflow on the server has the id or the name {text!r}", error_code="NOT_FOUND")
    found.sort(key=lambda one: (one.created_at, one.id))
    if not are_equal(found):
        raise ValidationError(
            f"workflow: {several_text(WorkflowName(text), found)}, and they differ: give the id of the one "
            "that is meant instead of the name (workflows show ID prints it)",
            path="workflow",
        )
    return found


def stages_of(hook: OrchestrationHttpHook, workflow_id: str | None) -> Sequence[Mapping[str, Any]] | None:
    """The stages of a workflow, read once; None where they cannot be read at once."""
    if workflow_id is None:
        return None
    try:
        return hook.perform(definition_of(workflow_id, hook.plans.versions, hook.plans.clock.monotonic() + 5.0))
    except OrchestrationError:
        return None


def is_workflow_id(text: str) -> bool:
    """Whether a text has the form of an id, so that no name is meant."""
    return _ID.fullmatch(text) is not None


def workflow_ids_of(hook: OrchestrationHttpHook, text: str) -> Sequence[str]:
    """As ``workflows_of``, without asking the server about an id."""
    return [text] if _ID.fullmatch(text) else [one.id for one in workflows_of(hook, text)]


def workflow_id_of(hook: OrchestrationHttpHook, text: str) -> str:
    """As ``workflow_of``, without asking the server about an id."""
    return text if _ID.fullmatch(text) else workflow_of(hook, text).id
