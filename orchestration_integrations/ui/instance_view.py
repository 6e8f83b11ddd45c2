"""An instance as the page shows it: where it stands, in words; its stages as a timeline; the money that it moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from ..api.instants import UNKNOWN_INSTANT, format_instant, go_duration_seconds, parse_instant
from ..api.models import CANCELED, ActivityRun, Instance, StageRun, StageStatus
from ..procedures.gate import checkpoint_of, gate_of, stands_at_gate
from ..procedures.moved import READS, reading_of
from ..procedures.seen_stages import seen_stages
from .definition_view import StageText, body_text, stage_texts, unknown_stage
from .definitions import Definition
from .headlines import headline, standing, warnings
from .money import graph, money_words, transaction_rows
from .reading import Observed

Json = dict[str, Any]


def instance_view(observed: Observed) -> Json:
    """All that the page of an instance shows, as plain JSON; but how old it is, and the server's time."""
    instance, history = observed.instance, observed.history or ()
    reading = reading_of(instance, observed.history, observed.activities, observed.retried)
    stages = timeline(observed)
    gate = gate_of(history)
    transactions = transaction_rows(reading.moved.transactions, history, observed.activities)
    drawn = graph(transactions, history, observed.activities, over=instance.terminated)
    told = headline(observed, stages, reading)
    workflow = observed.workflow
    return {
        "id": instance.id,
        "workflow": {
            "id": instance.workflow_id,
            "name": workflow.name if workflow else "",
            "deleted": workflow is not None and workflow.deleted_at is not None,
            **_last_try(observed.definition),
        },
        "state": instance.state,
        "standing": standing(instance, told),
        "error": instance.failure,
        "createdAt": shown_instant(instance.created_at),
        "endedAt": shown_instant(instance.terminated_at),
        "runKey": gate.key if gate is not None else None,
        "round": gate.round if gate is not None else None,
        "headline": told,
        "stages": stages,
        "awaits": awaited(stages),
        "transactions": transactions,
        "complete": reading.moved.complete or observed.ghost,
        "money": money_words(observed, reading, transactions, drawn),
        "warnings": warnings(observed, reading),
        "graph": drawn,
        "problems": list(observed.problems),
    }


def _last_try(definition: Definition) -> Json:
    """What the last try to read a definition came to, and of when the one is that is shown, where it is not of then."""
    failed = definition.unknown or definition.problem is not None
    return {
        "unknown": definition.unknown,
        "problem": definition.problem,
        "asOf": definition.read.epoch if failed and definition.read is not None else None,
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
            instance,
            text,
            rows.get(number),
            run,
            activities,
            is_last=number == max(latest, len(history) - 1),
            history_read=observed.history is not None,
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
        history_read: bool,
    ) -> None:
        self.instance = instance
        self.text = text
        self.row = row
        self.run = run
        self.activities = activities
        self.is_last = is_last
        self.history_read = history_read

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
        ``done``, ``failed``, ``cancelled``, or ``unsure``: what was read contradicts itself, or does not tell."""
        if self.row is None and self.run is None:
            if not self.instance.terminated:
                return "todo"
            return "skipped" if self.history_read else "unsure"  # a row can be lost, and a history tells all
        error = self._error()
        if error is not None:
            return "cancelled" if CANCELED in error and self.instance.state == "cancelled" else "failed"
        ended = self.row.terminated_at is not None if self.row is not None else bool(self.run and self.run.terminated)
        if ended or not self.is_last:  # a row can stay open for good; what follows it tells its end
            return self._done()
        if self.instance.terminated:
            ended_as = {"succeeded": self._done(), "cancelled": "cancelled"}
            return ended_as.get(self.instance.state, "failed")
        return self._open_state()

    def _done(self) -> str:
        """``done``, unless the engine says that the stage, or a payment of it, has not ended."""
        paying = any(not one.terminated and one.name not in READS for one in self.activities)
        return "unsure" if paying or (self.run is not None and not self.run.terminated) else "done"

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


def awaited(stages: Sequence[Mapping[str, Any]]) -> Json | None:
    """The event that the run waits for now, where a person may send it."""
    listening = next((stage for stage in stages if stage["state"] == "listening"), None)
    return None if listening is None else {"event": listening["event"], "stage": listening["number"]}


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


def doubt_of_success(history: Sequence[StageRun]) -> str:
    """What the history of a run says against its success, in one line; empty: nothing."""
    failed = next((stage for stage in history if stage.error), None)
    if failed is not None:
        return f"its history says that a stage failed: {failed.error}"
    return "" if all(stage.terminated for stage in history) else "its history says that a stage has not ended"


def shown_instant(instant: datetime | None) -> str | None:
    """RFC 3339 in UTC, or with its own offset where UTC is beyond the years 1 to 9999; None where none is known."""
    if instant is None or instant == UNKNOWN_INSTANT:
        return None
    try:
        instant = instant.astimezone(timezone.utc)
    except OverflowError:
        return instant.isoformat()
    return format_instant(instant)
