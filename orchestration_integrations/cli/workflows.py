"""`workflows`: definitions on the server."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from . import notices
from .options import WorkflowRef, Yes
from .session import Session, confirmed, reaching_server

HELP = "Definitions on the server."
_File = Annotated[str, typer.Argument(help="A YAML or JSON file; - for the standard input.", show_default=False)]
_Gate = Annotated[bool, typer.Option("--gate", help="Put a gate before the first stage: no run key pays twice.")]
_Checkpoints = Annotated[
    bool, typer.Option("--checkpoints", help="And a checkpoint before each further payment: a stop holds there.")
]


@reaching_server
def apply(session: Session, file: _File, gate: _Gate = False, checkpoints: _Checkpoints = False) -> None:
    """Find the oldest workflow with this name and an equal definition, or create one. None is changed."""
    from . import shapes
    from .targets import definition_in

    ensured = session.hook.ensure_workflow(definition_in(file), gate=gate or checkpoints, checkpoints=checkpoints)
    row = shapes.workflow(ensured.workflow, created=ensured.created, result="created" if ensured.created else "found")
    session.out.line(row, "id", "name", "result")


@reaching_server
def list_(
    session: Session,
    name: Annotated[str | None, typer.Option(help="Only those of this name.")] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted ones too, where the server lists them.")] = False,
) -> None:
    """List the workflows, the oldest first."""
    from . import shapes

    found = sorted(session.hook.list_workflows(), key=lambda one: (one.created_at, one.id))
    rows = [
        shapes.workflow(one, kinds=[next(iter(stage), "?") for stage in one.stages])
        for one in found
        if (name is None or one.name == name) and (deleted or one.deleted_at is None)
    ]
    session.out.many(
        rows,
        ("id", "name", "created_at", "kinds"),
        none=f"the server has no {'such ' if name is not None else ''}workflow",
    )


@reaching_server
def show(session: Session, workflow: WorkflowRef) -> None:
    """Show a workflow with its stages. On a terminal and in a pipe its definition is YAML."""
    from . import shapes
    from .targets import workflow_of

    found = workflow_of(session.hook, workflow)
    if session.out.as_json:
        return session.out.one(shapes.workflow(found))
    about = f"# id: {found.id}\n# created: {shapes.instant(found.created_at)}\n"
    if found.deleted_at is not None:
        about += f"# deleted: {shapes.instant(found.deleted_at)}\n"
    return session.out.text(about + _as_yaml({"name": found.name, "stages": [dict(one) for one in found.stages]}))


@reaching_server
def delete(session: Session, workflow: WorkflowRef, yes: Yes = False) -> None:
    """Delete a workflow. Its instances go on. A name that several workflows have is refused, be they equal or not."""
    from ..api.errors import AuthenticationError, NotFoundError, ValidationError
    from ..procedures.named_workflow import WorkflowName, several_text
    from . import shapes
    from .targets import is_workflow_id, workflows_of

    try:
        named = workflows_of(session.hook, workflow)
    except AuthenticationError:
        if not is_workflow_id(workflow):
            raise
        named = ()  # whoever may not look may be allowed to delete
    if len(named) > 1:
        text = several_text(WorkflowName(workflow), named)
        raise ValidationError(f"workflow: {text}; say by its id which one is to be deleted", path="workflow")
    found = named[0] if named else None
    if found is not None and found.deleted_at is not None:  # a second delete of it is answered as the first was
        raise NotFoundError(
            f"the server knows no such workflow any more: {found.id} was deleted at {shapes.instant(found.deleted_at)}",
            error_code="NOT_FOUND",
        )
    called = "which may not be looked at" if found is None else found.name or "without a name"
    confirmed(f"Delete workflow {workflow if found is None else found.id} ({called})?", yes)
    session.hook.delete_workflow(workflow if found is None else found.id)
    row = shapes.unread_workflow(workflow) if found is None else shapes.workflow(found)
    session.out.line({**row, "result": "deleted"}, "id", "name", "result")


@reaching_server
def diff(
    session: Session,
    file: _File,
    workflow: Annotated[
        str | None, typer.Option(help="Id or name; default: the newest workflow with the name in the file.")
    ] = None,
    gate: _Gate = False,
    checkpoints: _Checkpoints = False,
) -> None:
    """Show how a file differs from the workflow on the server. A gate and checkpoints count only where you ask.

    The exit status is 0 whether they differ or not.
    """
    from .targets import definition_in, workflow_of

    own = definition_in(file)
    if workflow is not None:
        there = workflow_of(session.hook, workflow)
    else:
        named = [
            one
            for one in session.hook.list_workflows()
            if one.deleted_at is None and one.name and one.name == own.get("name")
        ]
        if not named:
            row = {"type": "diff", "workflow_id": None, "same": False, "diff": None}
            notices.tell(f"no workflow on the server has the name {own.get('name')!r}")
            return session.out.line(row) if session.out.as_json else None
        there = max(named, key=lambda one: (one.created_at, one.id))
    stages = _stages(there.stages, own=not (gate or checkpoints))
    before = _as_yaml({"name": there.name, "stages": stages}).splitlines()
    after = _as_yaml({"name": own.get("name") or "", "stages": _wanted(own, gate, checkpoints)}).splitlines()
    text = "\n".join(difflib.unified_diff(before, after, f"server {there.id}", file, lineterm=""))
    if session.out.as_json:
        return session.out.one({"type": "diff", "workflow_id": there.id, "same": not text, "diff": text or None})
    if not text:
        return notices.tell(f"{file} is what workflow {there.id} says")
    return session.out.text(text)


def _wanted(own: Mapping[str, Any], gate: bool, checkpoints: bool) -> Sequence[Mapping[str, Any]]:
    from ..procedures import gate as gates

    if checkpoints:
        return gates.checkpointed(own)["stages"]  # type: ignore[no-any-return]
    return gates.gated(own)["stages"] if gate else _stages(own["stages"], own=True)


def _stages(stages: Sequence[Mapping[str, Any]], *, own: bool) -> Sequence[Mapping[str, Any]]:
    from ..procedures.gate import own_stages

    return own_stages(stages) if own else stages


def _as_yaml(value: object) -> str:
    """One form for both sides: plain values, numbers as texts as the server may keep them."""
    from ..api.yaml_text import definition_text

    return definition_text(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items() if one is not None}
    if isinstance(value, str) or not isinstance(value, Sequence):
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return [_plain(one) for one in value]


COMMANDS = {"apply": apply, "list": list_, "show": show, "delete": delete, "diff": diff}
