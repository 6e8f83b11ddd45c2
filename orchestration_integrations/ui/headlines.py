"""Where a run stands, in one sentence and one colour.

**The headline is no better than what stands below it.** The server's row, its stages' rows and the engine's history are
written apart from each other, and any of them can be lost or late. Where the row says that a run has succeeded and
another source says otherwise, nobody knows which of them is right: then the contradiction is the headline, and its tone
is not ``good``. What could not be read is said to be unread, never to be nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..api.models import Instance
from ..procedures.ends import ended_amid
from ..procedures.moved import READS, Reading
from ..procedures.wording import MAY_HAVE_MOVED, names_of
from .reading import Observed

Json = dict[str, Any]
Stages = Sequence[Mapping[str, Any]]


def headline(observed: Observed, stages: Stages, reading: Reading) -> Json:
    """Where the run stands: ``tone`` (good, bad, wait, busy, idle), ``text``, and an instant to count down to."""
    instance = observed.instance
    if instance.terminated:
        return _end(observed, stages, reading)
    if observed.ghost:
        text = "It never started and never will: the server has a row of it, and its engine knows no such run."
        return {"tone": "bad", "text": text}
    begun = [stage for stage in stages if stage["state"] not in ("todo", "skipped")]
    if not begun:
        unread = "" if observed.history is not None else " Its history could not be read."
        return {"tone": "busy", "text": f"It was created; no stage of it shows yet.{unread}"}
    doubt = _doubt(observed, begun[:-1])
    now = _current(observed, begun[-1])
    if doubt is None:
        return now
    return {**now, "tone": doubt["tone"], "text": f"{doubt['text']} All the same the run goes on: {now['text']}"}


def standing(instance: Instance, told: Mapping[str, Any]) -> str:
    """The state of a run, or ``unsure`` where its headline does not bear out that it has succeeded."""
    return "unsure" if instance.state == "succeeded" and told["tone"] != "good" else instance.state


def warnings(observed: Observed, reading: Reading) -> list[str]:
    """What whoever owns the run has to look at."""
    found = []
    twice = sum(one.maybe_repeated for one in reading.moved.transactions)
    if twice:
        found.append(f"{twice} of its transactions may have been made twice: check the ledger.")
    under_way = ended_amid(observed.instance, reading) if observed.instance.terminated else ""
    if under_way:
        found.append(f"{under_way[0].upper()}{under_way[1:]}.")
    return found


# ---- while it runs -------------------------------------------------------------------------------------


def _current(observed: Observed, stage: Mapping[str, Any]) -> Json:
    """What the last stage that has begun means for its run, which the server says to run."""
    doubt = _doubt(observed, [stage])
    if doubt is not None:
        return {"tone": doubt["tone"], "text": f"{doubt['text']} The server does not show that the run has ended."}
    if stage["state"] == "done":
        text = f"{stage['title']} has ended; the server does not show yet what comes next."
        return {"tone": "busy", "text": text}
    return current_text(stage)


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


# ---- once it has ended ---------------------------------------------------------------------------------


def _end(observed: Observed, stages: Stages, reading: Reading) -> Json:
    instance = observed.instance
    if instance.state == "cancelled":
        return {"tone": "bad", "text": f"It was cancelled; by then: {_moved(reading, 'what it had moved')}."}
    if instance.state == "failed":
        moved = _moved(reading, "what it had moved by then")
        return {"tone": "bad", "text": f"It failed: {instance.failure}. By then: {moved}."}
    doubt = _doubt(observed, stages)
    if doubt is not None:
        text = (
            f"The server says that it succeeded, but {doubt['text']} Seen so far: {_moved(reading, 'what it moved')}."
        )
        return {"tone": doubt["tone"], "text": text}
    return {"tone": "good", "text": f"It succeeded: {_moved(reading, 'what it moved')}."}


def _moved(reading: Reading, what: str) -> str:
    """How much is known to have moved; what was not read is never "nothing"."""
    made, complete = len(reading.moved.transactions), reading.moved.complete
    if not made:
        return "nothing moved" if complete else f"{what} could not be read"
    more = "" if complete else "; there may be more, not all of it could be read"
    return f"{made} transaction{'' if made == 1 else 's'}{more}"


# ---- contradictions ------------------------------------------------------------------------------------


def _doubt(observed: Observed, stages: Stages) -> Json | None:
    """What some stages say against going on, or against having gone well: ``tone`` and ``text``; None: nothing."""
    failed = next((stage for stage in stages if stage["state"] in ("failed", "cancelled")), None)
    if failed is not None:
        return {"tone": "bad", "text": f"{failed['title']} failed: {failed['error'] or 'no reason is given'}."}
    for stage in stages:
        activities = observed.activities.get(stage["number"], ())
        paying = [one for one in activities if not one.terminated and one.name not in READS]
        if stage["state"] == "unsure" and paying:
            text = f"{names_of(paying)} of {stage['title']} was not seen to end: {MAY_HAVE_MOVED}."
            return {"tone": "wait", "text": text}
        if stage["state"] == "unsure" and observed.history is not None:
            return {"tone": "wait", "text": f"the engine's history says that {stage['title']} has not ended."}
        if stage["state"] == "skipped":
            return {"tone": "wait", "text": f"nothing shows that {stage['title']} has begun."}
    return None
