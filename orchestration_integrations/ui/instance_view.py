"""An instance as the page shows it: where it stands, in words; its stages as a timeline; the money that it moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from ..api.instants import UNKNOWN_INSTANT, format_instant, go_duration_seconds, parse_instant
from ..api.models import CANCELED, ActivityRun, Instance, StageRun, StageStatus
from ..procedures.ends import ended_amid
from ..procedures.gate import checkpoint_of, gate_of, stands_at_gate
from ..procedures.moved import Reading, reading_of
from ..procedures.seen_stages import seen_stages
from .definition_view import StageText, body_text, stage_texts, unknown_stage
from .money import graph, transaction_rows
from .reading import Observed

Json = dict[str, Any]


def instance_view(observed: Observed) -> Json:
    """All that the page of an instance shows, as plain JSON."""
    instance, history = observed.instance, observed.history or ()
    reading = reading_of(instance, observed.history, observed.activities, observed.retried)
    stages = timeline(observed)
    gate = gate_of(history)
    transactions = transaction_rows(reading.moved.transactions, history, observed.activities)
    workflow = observed.workflow
    return {
        "id": instance.id,
        "workflow": {
            "id": instance.workflow_id,
            "name": workflow.name if workflow else "",
            "deleted": workflow is not None and workflow.deleted_at is not None,
        },
        "state": instance.state,
        "error": instance.failure,
        "createdAt": shown_instant(instance.created_at),
        "endedAt": shown_instant(instance.terminated_at),
        "now": observed.read_at,
        "runKey": gate.key if gate is not None else None,
        "round": gate.round if gate is not None else None,
        "headline": headline(observed, stages, reading),
        "stages": stages,
        "awaits": awaited(stages),
        "transactions": transactions,
        "complete": reading.moved.complete or observed.ghost,
        "warnings": _warnings(observed, reading),
        "graph": graph(transactions, history, observed.activities),
        "problems": list(observed.problems),
    }


# ---- the timeline ------------------------------------------------------------------------------------


def timeline(observed: Observed) -> list[Json]:
    """The stages, begun or not, each with its state."""
    instance, history = observed.instance, observed.history or ()
    texts = stage_texts(observed.workflow.stages) if observed.workflow is not None else []
    rows = {row.stage: row for row in instance.status if row.stage >= 0}
    latest = max(rows, default=-1)
    stages = []
    for number in seen_stages(instance, history, len(texts)):
        run = history[number] if number < len(history) else None
        text = texts[number] if number < len(texts) else unknown_stage(number, run.name if run is not None else "")
        activities = observed.activities.get(number, ())
        stage = _Stage(
            instance, text, rows.get(number), run, activities, is_last=number == max(latest, len(history) - 1)
        )
        stages.append({"number": number, **stage.view()})
    return stages


class _Stage:
    """One stage, seen in all that is known of it."""

    def __init__(
        self,
        instance: Instance,
        text: StageText,
        row: StageStatus | None,
        run: StageRun | None,
        activities: Sequence[ActivityRun],
        *,
        is_last: bool,
    ) -> None:
        self.instance = instance
        self.text = text
        self.row = row
        self.run = run
        self.activities = activities
        self.is_last = is_last

    def view(self) -> Json:
        state = self.state()
        failing = self._failing() if state == "failing" else None
        started = self.row.started_at if self.row is not None else self.run.started_at if self.run else None
        ended = self.row.terminated_at if self.row is not None else self.run.terminated_at if self.run else None
        filled = body_text(self.text.kind, self.run.input) if self.run is not None else ""
        own = self.text.role == "stage"
        return {
            "role": self.text.role,
            "kind": self.text.kind,
            "title": self.text.title,
            "text": (filled or self.text.text) if own else self.text.text,
            "state": state,
            "startedAt": shown_instant(started),
            "endedAt": shown_instant(ended),
            "error": self._error(),
            "event": self._event(),
            "until": self._until(started) if state == "waiting" else None,
            "attempt": failing.attempt if failing is not None else None,
            "lastFailure": failing.last_failure if failing is not None else None,
            "nextTry": shown_instant(failing.next_execution) if failing is not None else None,
            "activity": failing.name if failing is not None else self._activity(),
        }

    def state(self) -> str:
        """``todo``, ``skipped``, ``running``, ``listening``, ``gate``, ``checkpoint``, ``waiting``, ``failing``,
        ``done``, ``failed`` or ``cancelled``."""
        if self.row is None and self.run is None:
            return "skipped" if self.instance.terminated else "todo"
        error = self._error()
        if error is not None:
            return "cancelled" if CANCELED in error and self.instance.state == "cancelled" else "failed"
        ended = self.row.terminated_at is not None if self.row is not None else bool(self.run and self.run.terminated)
        if ended or not self.is_last:  # a row can stay open for good; what follows it tells its end
            return "done"
        if self.instance.terminated:
            return {"succeeded": "done", "cancelled": "cancelled"}.get(self.instance.state, "failed")
        return self._open_state()

    def _open_state(self) -> str:
        if self.text.role != "stage":
            return self.text.role if self.run is not None else "running"
        if self.run is not None and self.run.name == "RunWaitEvent":
            return "listening"
        if self.run is not None and self.run.name == "RunDelay":
            return "waiting"
        return "failing" if self._failing() is not None else "running"

    def _failing(self) -> ActivityRun | None:
        tried = [one for one in self.activities if not one.terminated]
        return next((one for one in reversed(tried) if one.attempt > 1 or one.last_failure is not None), None)

    def _activity(self) -> str | None:
        under_way = [one.name for one in self.activities if not one.terminated]
        return under_way[-1] if under_way else None

    def _error(self) -> str | None:
        if self.row is not None and self.row.error:
            return self.row.error
        return self.run.error if self.run is not None and self.run.error else None

    def _event(self) -> str | None:
        event = self.run.input.get("event") if self.run is not None and self.run.name == "RunWaitEvent" else None
        return event if isinstance(event, str) else None

    def _until(self, started: datetime | None) -> str | None:
        """When a delay is over; None where that is not known."""
        given = self.run.input if self.run is not None else {}
        until = parse_instant(given.get("until"))
        if until is not None:
            return shown_instant(until)
        try:
            seconds = go_duration_seconds(given["duration"])
            return shown_instant(started + timedelta(seconds=seconds)) if started is not None else None
        except (KeyError, TypeError, ValueError, OverflowError):
            return None


# ---- in words ----------------------------------------------------------------------------------------


def headline(observed: Observed, stages: Sequence[Mapping[str, Any]], reading: Reading) -> Json:
    """Where the run stands: ``tone`` (good, bad, wait, busy, idle), ``text``, and an instant to count down to."""
    instance = observed.instance
    if instance.terminated:
        return _end(instance, reading)
    if observed.ghost:
        text = "It never started and never will: the server has a row of it, and its engine knows no such run."
        return {"tone": "bad", "text": text}
    current = next((stage for stage in reversed(stages) if stage["state"] not in ("todo", "skipped")), None)
    if current is None:
        return {"tone": "busy", "text": "It was created; no stage of it has begun yet."}
    return current_text(current)


def current_text(stage: Mapping[str, Any]) -> Json:
    """What a stage that runs means for its run."""
    state, title = stage["state"], stage["title"]
    if state == "gate":
        text = "It stands at its gate and has moved nothing. Whoever started it lets it go, once it is on record."
        return {"tone": "wait", "text": text}
    if state == "checkpoint":
        text = f"It stands at the c{title[1:]}. Nothing more moves until its owner lets it pass."
        return {"tone": "wait", "text": text}
    if state == "listening":
        return {"tone": "wait", "text": f"{title} waits for the event “{stage['event']}”."}
    if state == "waiting":
        return {"tone": "idle", "text": f"{title} waits {stage['text']}", "label": "goes on", "until": stage["until"]}
    if state == "failing":
        return {
            "tone": "bad",
            "text": f"Failing, attempt {stage['attempt']}: {stage['lastFailure'] or 'no reason is given'}",
            "label": "next try",
            "until": stage["nextTry"],
        }
    doing = f": {stage['activity']} is under way" if stage["activity"] else ""
    return {"tone": "busy", "text": f"{title} is running{doing}."}


def _end(instance: Instance, reading: Reading) -> Json:
    made = len(reading.moved.transactions)
    moved = f"{made} transaction{'' if made == 1 else 's'}" if made else "nothing moved, as far as is known"
    more = "" if reading.moved.complete else "; there may be more, not all of it could be read"
    if instance.state == "succeeded":
        return {"tone": "good", "text": f"It succeeded: {moved}{more}."}
    if instance.state == "cancelled":
        return {"tone": "bad", "text": f"It was cancelled; by then: {moved}{more}."}
    return {"tone": "bad", "text": f"It failed: {instance.failure}. By then: {moved}{more}."}


def awaited(stages: Sequence[Mapping[str, Any]]) -> Json | None:
    """The event that the run waits for now, where a person may send it."""
    listening = next((stage for stage in stages if stage["state"] == "listening"), None)
    return None if listening is None else {"event": listening["event"], "stage": listening["number"]}


def _warnings(observed: Observed, reading: Reading) -> list[str]:
    found = []
    twice = sum(one.maybe_repeated for one in reading.moved.transactions)
    if twice:
        found.append(f"{twice} of its transactions may have been made twice: check the ledger.")
    under_way = ended_amid(observed.instance, reading) if observed.instance.terminated else ""
    if under_way:
        found.append(f"{under_way[0].upper()}{under_way[1:]}.")
    return found


def glance(history: Sequence[StageRun], activities: Sequence[ActivityRun]) -> Json:
    """A row of a list in one word and one line: what a run stands at.

    Args:
        history: of the run.
        activities: of its last stage.
    """
    last = history[-1] if history else None
    if last is None or last.terminated:
        return {"kind": "running", "note": ""}
    event = last.input.get("event")
    checkpoint = checkpoint_of(history)
    if checkpoint is not None:
        return {"kind": "checkpoint", "note": f"at the checkpoint before stage {checkpoint}"}
    if stands_at_gate(history):
        return {"kind": "gate", "note": "at its gate"}
    if last.name == "RunWaitEvent":
        return {"kind": "listening", "note": f"waits for “{event}”"}
    if last.name == "RunDelay":
        return {"kind": "waiting", "note": f"waits {body_text('delay', last.input)}"}
    tried = [one for one in activities if not one.terminated and (one.attempt > 1 or one.last_failure is not None)]
    if tried:
        reason = tried[-1].last_failure or "no reason is given"
        return {"kind": "failing", "note": f"failing, attempt {tried[-1].attempt}: {reason}"}
    return {"kind": "running", "note": "a payment is under way" if last.name == "RunSend" else ""}


def shown_instant(instant: datetime | None) -> str | None:
    """RFC 3339 in UTC, or with its own offset where UTC is beyond the years 1 to 9999; None where none is known."""
    if instant is None or instant == UNKNOWN_INSTANT:
        return None
    try:
        instant = instant.astimezone(timezone.utc)
    except OverflowError:
        return instant.isoformat()
    return format_instant(instant)
