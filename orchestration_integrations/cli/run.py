"""`run`: a payment once, by the owner protocol, from a shell."""

import shlex
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import notices
from .options import FailAfter, Limit, PollInterval, ReadBudget, Store
from .session import Session, reaching_server

if TYPE_CHECKING:
    from ..api.errors import AmbiguousRunError


@reaching_server
def run(
    session: Session,
    workflow: Annotated[
        str,
        typer.Argument(
            help="A YAML or JSON file, which is put on the server with a gate; or the id or the name of a workflow.",
            show_default=False,
        ),
    ],
    var: Annotated[list[str] | None, typer.Option("--var", help="NAME=VALUE of a variable; may be repeated.")] = None,
    run_key: Annotated[
        str | None,
        typer.Option(help="Names the payment: the same key never pays twice. Default: a fresh key, which is printed."),
    ] = None,
    store: Store = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return as soon as the run is released.")] = False,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="A checkpoint before each further payment: a stop holds there.")
    ] = False,
    timeout: Limit = None,
    on_timeout: Annotated[str, typer.Option(help="cancel or leave the run when the time is over.")] = "cancel",
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="Cancel the run at Ctrl-C. Default: it goes on.")
    ] = False,
    poll_interval: PollInterval = 5.0,
    read_budget: ReadBudget = 120.0,
    fail_after_attempts: FailAfter = None,
    rerun_failed: Annotated[
        bool, typer.Option("--rerun-failed", help="Start anew where an earlier call told a bad end: it pays again.")
    ] = False,
    settled: Annotated[
        str | None, typer.Option(help="The token of an AmbiguousRunError, once you know how that run ended.")
    ] = None,
    first_attempt: Annotated[
        bool, typer.Option("--first-attempt", help="The key was surely never used before.")
    ] = False,
    on_changed: Annotated[
        str, typer.Option(help="refuse other content under the key, or adopt the run that has the key.")
    ] = "refuse",
) -> int:
    """Run a payment once and wait for its end; the same command again goes on with the same run.

    It prints one line: instance, "succeeded" or what went wrong in a word, and the reason, separated by tabs.

    Exit status: 0 succeeded; 1 the run failed or was cancelled; 2 usage or configuration, such as a key that stands
    for other content; 3 ambiguous, or nobody knows what became of it; 4 the time is over; 130 interrupted.
    """
    from ..api.errors import AmbiguousRunError, OrchestrationError, ValidationError
    from . import shapes
    from .options import pairs_of
    from .outage import told_of_outages
    from .stage_display import StageDisplay
    from .targets import definition_in, is_file, workflow_id_of

    variables = pairs_of(var or (), "--var")
    if on_timeout not in ("cancel", "leave"):
        raise ValidationError(f"on_timeout: must be cancel or leave, not {on_timeout!r}", path="on_timeout")
    if no_wait and checkpoints:
        raise ValidationError("--no-wait: a run with checkpoints needs somebody who waits for it", path="no_wait")
    if run_key is None and (rerun_failed or settled is not None):
        raise ValidationError("run_key: is needed to speak of an earlier run", path="run_key")
    if run_key is not None and not run_key.strip():
        raise ValidationError("run_key: is empty", path="run_key")
    records = session.store(store, create=True, needed_for="run keeps a record of each run key in a file")
    settings = session.settings
    target = definition_in(workflow) if is_file(workflow) else workflow_id_of(session.hook, workflow)
    key = run_key if run_key is not None else f"cli-{uuid.uuid4()}"
    again = f"call again with --run-key {shlex.quote(key)} and the same --store: that goes on with the same run"
    session.if_interrupted = f"the run was being started; {again}"
    if run_key is None:
        notices.tell(f"run key {key}")
    with told_of_outages(settings.base_url), StageDisplay(f"run key {key}") as display:

        def chosen(instance_id: str) -> None:
            display.title(f"instance {instance_id} · run key {key}")
            becomes = "this command asked the server to cancel it" if cancel_on_interrupt else "it goes on"
            session.if_interrupted = f"instance {instance_id}: {becomes}; {again}"
            if instance_id not in noted:
                notices.tell(f"instance {instance_id} of run key {key}")
            noted.append(instance_id)

        noted: list[str] = []
        options: dict[str, Any] = {
            "run_key": key,
            "store": records,
            "first_attempt": first_attempt or run_key is None,
            "rerun_failed": rerun_failed,
            "settled": settled,
            "on_changed": on_changed,
            "checkpoints": checkpoints,
            "on_chosen": chosen,
        }
        waiting: dict[str, Any] = {
            "timeout": timeout,
            "on_timeout": _way(on_timeout),
            "poll_interval": poll_interval,
            "read_budget": read_budget,
            "fail_after_attempts": fail_after_attempts,
            "cancel_on_interrupt": cancel_on_interrupt,
            "on_stage": display.told,
        }
        try:
            if no_wait:
                return _begin(session, target, variables, options)
            result: object = session.hook.run_once(target, variables, **options, **waiting)
        except AmbiguousRunError as error:
            _advise(error, key, store or "runs.db", workflow)
            raise
        except OrchestrationError as error:
            if getattr(error, "instance_id", None) is None or not hasattr(error, "moved"):
                raise
            result = error
    instance_id = getattr(result, "instance_id", None) or result.instance.id  # type: ignore[attr-defined]
    row = shapes.end(instance_id, result, run_key=key)
    session.out.line(row, "instance_id", "state", "reason")
    return int(row["exit_status"])


def _way(on_timeout: str) -> Literal["cancel", "leave"]:
    return "leave" if on_timeout == "leave" else "cancel"


def _begin(session: Session, target: Any, variables: dict[str, str], options: dict[str, Any]) -> int:
    """Start the run, and leave it."""
    from ..api.errors import ValidationError
    from ..procedures.ends import definition_of
    from ..procedures.gate import checkpoints_of
    from . import shapes

    hook = session.hook
    if isinstance(target, str):
        stages = hook.perform(definition_of(target, hook.plans.versions, None))
        if checkpoints_of(stages):
            raise ValidationError(
                f"--no-wait: workflow {target} has checkpoints, so its runs need somebody who waits for them",
                path="no_wait",
            )
    once = hook.once(target, variables, **options)
    try:
        instance = hook.perform(once.run.begin())
    finally:
        once.run.close()
    row = shapes.instance(instance, run_key=options["run_key"])
    session.out.line(row, "id", "state")
    return 0


def _advise(error: "AmbiguousRunError", key: str, store: str, workflow: str) -> None:
    """The commands that find out what became of a run, in their order."""
    quoted, file = shlex.quote(key), shlex.quote(store)
    command = "orchestration-integrations"
    notices.tell("what to do, in this order (docs/3am.md):")
    notices.tell("  1. run the same command again: an answer that was late may be there now")
    notices.tell(f"  2. {command} reconcile {error.workflow_id} --key-prefix {quoted} --store {file}")
    for candidate in error.candidates[:5]:
        notices.tell(f"  3. {command} instances show {candidate}")
    if error.token is not None:
        notices.tell(
            f"  4. only if none of them has paid: {command} run {shlex.quote(workflow)} … --settled {error.token}"
        )
