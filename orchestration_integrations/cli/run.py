"""`run`: a payment once, by the owner protocol, from a shell."""

import os
import shlex
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import next_call, notices
from .as_options import option_of
from .options import AllowUnbound, FailAfter, PollInterval, ReadBudget, Store
from .session import Session, reaching_server
from .signals import Left

if TYPE_CHECKING:
    from ..api.errors import AmbiguousRunError
    from ..api.models import StageEvent
    from ..run_store import SqliteRunStore
    from .stage_display import StageDisplay

LEFT_ALONE = (
    "it was left as it is: it goes on, unless it stands at its gate, or comes to a checkpoint: there it waits for the "
    "next call"
)
"""What an interrupt leaves. Whoever chose a run may have been interrupted before it was released."""
_STORE = "run keeps a record of each run key in a file"


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
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds from the call until it stops to wait for the end. Default: no limit."),
    ] = None,
    start_timeout: Annotated[
        float,
        typer.Option(
            min=0,
            help="Seconds for starting the run where the server does not answer; --timeout does not cut them off.",
        ),
    ] = 60.0,
    on_timeout: Annotated[str, typer.Option(help="cancel or leave the run when the time is over.")] = "cancel",
    cancel_on_interrupt: Annotated[
        bool,
        typer.Option(
            "--cancel-on-interrupt", help="Cancel the run at Ctrl-C, SIGTERM and SIGHUP. Default: it is left as it is."
        ),
    ] = False,
    poll_interval: PollInterval = 5.0,
    read_budget: ReadBudget = 120.0,
    fail_after_attempts: FailAfter = None,
    rerun_failed: Annotated[
        bool, typer.Option("--rerun-failed", help="Start anew where an earlier call told a bad end: it pays again.")
    ] = False,
    settled: Annotated[
        str | None,
        typer.Option(help="The token of an AmbiguousRunError: pays anew, once you know that its run did not."),
    ] = None,
    first_attempt: Annotated[
        bool, typer.Option("--first-attempt", help="The key was surely never used before.")
    ] = False,
    on_changed: Annotated[
        str, typer.Option(help="refuse other content under the key, or adopt the run that has the key.")
    ] = "refuse",
    allow_unbound: AllowUnbound = False,
) -> int:
    """Run a payment once for each run key and wait for its end; with --run-key, call again to go on with the same run.

    It prints one line: instance, "succeeded" or what went wrong in a word, and the reason, separated by tabs.

    Exit status: 0 succeeded; 1 the run failed or was cancelled, and what it moved is known; 2 usage or configuration,
    such as a key that stands for other content; 3 ambiguous, or nobody knows what became of it; 4 the time is over; 130
    interrupted. With --no-wait: 0 it is released, or that of its end where it has ended already.
    """
    from .on_record import looked_for
    from .options import pairs_of
    from .run_target import target_of

    variables = pairs_of(var or (), "--var")
    waiting: dict[str, Any] = {
        "timeout": timeout,
        "on_timeout": on_timeout,
        "poll_interval": poll_interval,
        "read_budget": read_budget,
        "fail_after_attempts": fail_after_attempts,
        "cancel_on_interrupt": cancel_on_interrupt,
    }
    _check(run_key, on_timeout, alone=no_wait and checkpoints, earlier=rerun_failed or settled is not None)
    session.about["run_key"] = run_key
    if no_wait:
        _check_not_waiting(waiting)
    if not store:
        session.store(store, needed_for=_STORE)
    session.limit_retries(timeout)
    if run_key is not None:
        session.if_interrupted = _not_begun(run_key, store)
    hook = session.hook  # wrong settings are refused before the file of records is made
    there = session.store(store) if store and os.path.exists(store) else None
    with looked_for(run_key is not None and there is not None and there.load(run_key) is not None):
        target = target_of(hook, workflow, None if first_attempt else run_key, there)
    key = run_key if run_key is not None else f"cli-{uuid.uuid4()}"
    session.about = {"run_key": key, "workflow_id": target if isinstance(target, str) else None}
    options: dict[str, Any] = {
        "run_key": key,
        "store": session.store(store, create=True, needed_for=_STORE),
        "first_attempt": first_attempt or run_key is None,
        "rerun_failed": rerun_failed,
        "settled": settled,
        "on_changed": on_changed,
        "checkpoints": checkpoints,
        "allow_unbound": allow_unbound,
        "start_timeout": start_timeout,
    }
    if run_key is None:
        notices.tell(f"run key {key}")
        notices.tell("the same command is another payment; with this --run-key it goes on with this one")
    return _paid(session, workflow, target, variables, options, None if no_wait else waiting)


def _not_begun(run_key: str, store: str | None) -> Left:
    """What an interrupt leaves before this command has looked for a run of the key."""
    cancel = f"orchestration-integrations cancel --run-key {shlex.quote(run_key)} --store {shlex.quote(store or '')}"
    return Left(
        "this command has started nothing and cancelled nothing; a run of the key from an earlier call may still run",
        f"{cancel} stops that one",
        "unknown",
        None,
        run_key,
    )


def _check(run_key: str | None, on_timeout: str, *, alone: bool, earlier: bool) -> None:
    """Refuse what cannot be meant.

    Args:
        run_key: as it was given.
        on_timeout: as it was given.
        alone: a run with checkpoints would be left.
        earlier: something is said of an earlier run of the key.
    """
    from ..api.errors import ValidationError
    from ..ownership.keys import checked_run_key

    if on_timeout not in ("cancel", "leave"):
        raise ValidationError(f"on_timeout must be cancel or leave, not {on_timeout!r}", path="on_timeout")
    if alone:
        raise ValidationError("--no-wait: a run with checkpoints needs somebody who waits for it", path="no_wait")
    if run_key is None and earlier:
        raise ValidationError("run_key: is needed to speak of an earlier run", path="run_key")
    if run_key is not None:
        checked_run_key(run_key)


_WAITING = {
    "timeout": None,
    "on_timeout": "cancel",
    "poll_interval": 5.0,
    "read_budget": 120.0,
    "fail_after_attempts": None,
    "cancel_on_interrupt": False,
}
"""The options of a wait that say nothing."""


def _check_not_waiting(waiting: Mapping[str, Any]) -> None:
    """Refuse options of a wait where nobody waits."""
    from ..api.errors import ValidationError

    for name, nothing in _WAITING.items():
        if waiting[name] != nothing:
            raise ValidationError(f"{option_of(name)}: with --no-wait nobody waits, so it would do nothing", path=name)


def _paid(
    session: Session,
    workflow: str,
    target: Any,
    variables: dict[str, str],
    options: dict[str, Any],
    waiting: dict[str, Any] | None,
) -> int:
    """Start the run and wait for its end, or leave it where there are no options for waiting."""
    from ..api.errors import AmbiguousRunError, OrchestrationError
    from .stage_display import StageDisplay

    key = options["run_key"]
    with StageDisplay(f"run key {key}") as display:
        teller = _Teller(
            session, display, key, options["store"].path, cancels=bool(waiting and waiting["cancel_on_interrupt"])
        )
        options["on_chosen"] = teller.chosen
        try:
            if waiting is None:
                return _begin(session, target, variables, options)
            result: object = session.hook.run_once(target, variables, **options, **waiting, on_stage=teller.stage)
        except KeyboardInterrupt:
            teller.interrupted(options["store"])
            teller.name_run(options["store"])
            raise
        except OrchestrationError as error:
            teller.name_run(options["store"])
            if isinstance(error, AmbiguousRunError):
                _advise(error, workflow, variables, options)
            if not hasattr(error, "moved"):
                raise
            result = error
    instance_id = getattr(result, "instance_id", None) or result.instance.id  # type: ignore[attr-defined]
    teller.ended(instance_id)
    return _told(session, instance_id, result, key)


def _told(session: Session, instance_id: str, result: object, key: str) -> int:
    """Print what a run came to; its exit status."""
    from . import shapes
    from .targets import stages_of

    known = getattr(result, "instance", None)
    stages = stages_of(session.hook, None if known is None else known.workflow_id)
    row = shapes.end(instance_id, result, stages, run_key=key)
    row["workflow_id"] = row["workflow_id"] or session.about.get("workflow_id")
    session.out.line(row, "instance_id", "state", "reason")
    return int(row["exit_status"])


class _Teller:
    """Says which instance has the key as soon as that is known, and what an interrupt leaves.

    Args:
        key: of the run.
        store: the file of its record.
        cancels: an interrupt cancels the run, so that what became of it is not known before there is an outcome.
    """

    def __init__(self, session: Session, display: "StageDisplay", key: str, store: str, *, cancels: bool) -> None:
        self._session = session
        self._store = store
        self._display = display
        self._key = key
        self._cancels = cancels
        self._told: str | None = None
        self._leave("the run was being started", "unknown")

    def _leave(self, text: str, outcome: Literal["left", "unknown"]) -> None:
        again = next_call.same_run(self._key) if outcome == "left" else next_call.looks(self._key)
        after: Mapping[str, str] = next_call.after_cancel(self._key, self._store)  # type: ignore[assignment]
        self._session.if_interrupted = Left(text, again, outcome, self._told, self._key, after)

    def chosen(self, instance_id: str) -> None:
        """This instance has the key."""
        if instance_id == self._told:
            return
        self._told = instance_id
        self._display.title(f"instance {instance_id} · run key {self._key}")
        if self._cancels:
            self._may_run(instance_id)
        else:
            self._leave(f"instance {instance_id}: {LEFT_ALONE}", "left")
        notices.tell(f"instance {instance_id} of run key {self._key}")

    def _may_run(self, instance_id: str) -> None:
        cancel = f"orchestration-integrations cancel {instance_id}"
        self._leave(f"instance {instance_id}: it may still run ({cancel})", "unknown")

    def interrupted(self, store: "SqliteRunStore") -> None:
        """An interrupt has come. Where a stop of the run is on record, nobody knows whether it still goes on."""
        if self._told is None:
            return
        try:
            record = store.load(self._key)
            stopped = record is None or record.hold
        except Exception:
            stopped = True
        if stopped:
            self._may_run(self._told)

    def name_run(self, store: "SqliteRunStore") -> None:
        """Have an error name the run: the one that was told, else the one on record, where that can be read."""
        about = self._session.about
        about["instance_id"] = self._told
        try:
            record = store.load(self._key)
        except Exception:
            return
        if record is not None and self._told in (None, record.instance_id):
            about["instance_id"] = record.instance_id
            about["workflow_id"] = record.workflow_id or about.get("workflow_id")

    def ended(self, instance_id: str) -> None:
        """The run is over, or was given up; what remains is to tell that."""
        self._told = instance_id
        self._leave(f"instance {instance_id}: what became of it was not told", "unknown")

    def stage(self, event: "StageEvent") -> None:
        """A stage of it has changed."""
        self.chosen(event.instance_id)
        self._display.told(event)


def _begin(session: Session, target: Any, variables: dict[str, str], options: dict[str, Any]) -> int:
    """Start the run, and leave it. One that has ended is told of as if it had been waited for."""
    from ..api.errors import ValidationError
    from ..procedures.ends import definition_of
    from ..procedures.gate import checkpoints_of
    from . import shapes
    from .on_record import looked_for

    hook = session.hook
    if isinstance(target, str):
        with looked_for(options["store"].load(options["run_key"]) is not None):
            stages = hook.perform(definition_of(target, hook.plans.versions, None))
        if checkpoints_of(stages):
            raise ValidationError(
                f"--no-wait: workflow {target} has checkpoints, so its runs need somebody who waits for them",
                path="no_wait",
            )
    once = hook.once(target, variables, **options)
    try:
        instance = hook.perform(once.run.begin())
        if instance.terminated:  # there is an end to tell, and nothing to wait for
            result = hook.perform(once.run.attend(instance.id, once.waiting_for, on_timeout="leave"))
            return _told(session, instance.id, result, options["run_key"])
    finally:
        once.run.close()
    row = shapes.instance(instance, run_key=options["run_key"])
    session.out.line(row, "id", "state")
    return 0


def _advise(
    error: "AmbiguousRunError", workflow: str, variables: Mapping[str, str], options: Mapping[str, Any]
) -> None:
    """The commands that find out what became of a run, in their order."""
    from .judging import MOST_SHOWN, is_lost_submit

    command, key, kept = "orchestration-integrations", options["run_key"], options["store"]
    quoted, file = shlex.quote(key), shlex.quote(kept.path)
    owners = kept.owners()
    record = kept.load(key)
    own = (key, 0 if record is None else record.round)
    others = [one for one in error.candidates if owners.get(one, own) == own]
    named = [part for name, value in variables.items() for part in ("--var", f"{name}={value}")]
    again = ["run", workflow, *named, "--run-key", key, "--store", kept.path]
    again += [option_of(name) for name in ("checkpoints", "allow_unbound") if options[name]]
    if record is not None and record.doubt:  # nothing was submitted, so no answer can be late
        steps = [f"if the key was surely never used: {command} {shlex.join([*again, '--first-attempt'])}"]
    else:
        steps = ["run the same command again: an answer that was late may be there now"]
    steps.append(f"{command} reconcile {error.workflow_id} --run-key {quoted} --store {file}")
    steps += [f"{command} instances show {one}" for one in others[:MOST_SHOWN]]
    if error.token is not None and others and record is not None and is_lost_submit(record):
        which = others[0] if len(others) == 1 else "INSTANCE"
        adopt = f"{command} runs adopt {quoted} {which} --settled {error.token} --store {file}"
        steps.append(f"if one of them is this payment, say which: {adopt}")
    if error.token is not None:
        anew = shlex.join([*again, "--settled", error.token])
        none = "none of them is, and " if others else ""
        steps.append(f"only if {none}the ledger shows no payment: {command} {anew}")
    notices.tell("what to do, in this order (docs/3am.md):")
    for number, step in enumerate(steps, 1):
        notices.tell(f"  {number}. {step}")
