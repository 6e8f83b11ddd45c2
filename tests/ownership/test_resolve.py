"""The table that decides which run a call means: every row, and no combination that falls through."""

from __future__ import annotations

import itertools

import pytest

from orchestration_integrations.ownership.resolve import (
    HOWS,
    INSTANCES,
    LOOKS,
    ON_RECORD,
    PROOFS,
    Question,
    observation,
    resolve,
)

ROWS = [
    # (question, what the server shows, what follows, row)
    (Question("none", "first"), "unasked", "start", 1),
    (Question("none", "first", gated=False), "unasked", "start", 1),
    (Question("none", "again", gated=False), "proof", "adopt", 2),
    (Question("none", "again", gated=False), "nothing", "ambiguous", 2),
    (Question("none", "new", gated=False), "nothing", "ambiguous", 2),
    (Question("none", "again", gated=False, token=True), "nothing", "new round", 2),
    (Question("none", "again", gated=False), "several", "ambiguous", 2),
    (Question("none", "again"), "one released", "adopt", 3),
    (Question("intended", "again"), "one released", "adopt", 3),
    (Question("intended", "new"), "one released", "adopt", 3),
    (Question("none", "again"), "several", "ambiguous", 4),
    (Question("intended", "again"), "several", "ambiguous", 4),
    (Question("intended", "again", token=True), "several", "new round", 4),
    (Question("intended", "again"), "one waits", "choose", 5),
    (Question("intended", "again"), "many wait", "choose", 5),
    (Question("none", "again"), "one waits", "choose", 6),
    (Question("none", "again"), "many wait", "keep trying", 6),
    (Question("none", "again"), "other waits", "key reused", 6),
    (Question("none", "again"), "nothing", "start", 7),
    (Question("intended", "again"), "nothing", "start", 7),
    (Question("intended", "again"), "other waits", "start", 7),
    (Question("intended", "again", gated=False), "proof", "adopt", 8),
    (Question("intended", "again", gated=False), "nothing", "ambiguous", 8),
    (Question("intended", "new", gated=False), "nothing", "ambiguous", 8),
    (Question("intended", "again", gated=False, token=True), "nothing", "new round", 8),
    (Question("chosen", "again", seen=True), "unknown id", "wrong server", 9),
    (Question("told", "again", seen=True), "unknown id", "wrong server", 9),
    (Question("chosen", "again"), "unknown id", "keep trying", 10),
    (Question("chosen", "again", token=True), "unknown id", "new round", 10),
    (Question("chosen", "again"), "ghost", "new round", 11),
    (Question("chosen", "again"), "ended before release", "new round", 11),
    (Question("chosen", "again", gated=False), "ghost", "report", 12),
    (Question("chosen", "again", held=True), "at checkpoint", "report held", 13),
    (Question("chosen", "new", held=True), "at checkpoint", "resume", 13),
    (Question("chosen", "again", held=True, token=True), "at checkpoint", "new round", 13),
    (Question("chosen", "again"), "at checkpoint", "continue", 14),
    (Question("chosen", "again"), "runs", "continue", 14),
    (Question("chosen", "again", held=True), "runs", "continue", 14),
    (Question("told", "again", rerun=True), "runs", "continue", 14),
    (Question("chosen", "new"), "runs", "cancel first", 15),
    (Question("chosen", "again", held=True), "cancelled unmoved", "new round", 16),
    (Question("ended", "again", held=True), "cancelled unmoved", "new round", 16),
    (Question("chosen", "again"), "cancelled unmoved", "report", 17),
    (Question("chosen", "again", held=True), "ended badly", "report", 17),
    (Question("chosen", "new"), "ended well", "report", 17),
    (Question("ended", "new"), "ended badly", "report", 17),
    (Question("chosen", "new", token=True), "ended well", "new round", 17),
    (Question("chosen", "again", token=True), "ended well", "report", 17),
    (Question("chosen", "again", token=True), "runs", "continue", 14),
    (Question("told", "again", good=True, token=True), "ended well", "report", 18),
    (Question("chosen", "new"), "cancelled moved", "new round", 15),
    (Question("chosen", "again", rerun=True), "ended badly", "report", 17),
    (Question("told", "again", good=True), "ended well", "report", 18),
    (Question("told", "again", good=True, rerun=True), "ended well", "report", 18),
    (Question("told", "again"), "ended badly", "report", 19),
    (Question("told", "again", rerun=True), "ended badly", "new round", 19),
    (Question("told", "again", rerun=True), "cancelled moved", "new round", 19),
    (Question("told", "again", rerun=True), "cancelled amid payment", "ambiguous", 19),
    (Question("told", "again", rerun=True, token=True), "cancelled amid payment", "new round", 19),
    (Question("told", "again"), "cancelled amid payment", "report", 19),
    (Question("chosen", "again", held=True), "cancelled amid payment", "report", 17),
    (Question("chosen", "new"), "cancelled amid payment", "new round", 15),
    (Question("told", "new", good=True), "unasked", "new round", 20),
    (Question("told", "new"), "unasked", "new round", 20),
]


@pytest.mark.parametrize(("question", "shows", "kind", "row"), ROWS)
def test_each_row(question, shows, kind, row):
    verdict = resolve(question, shows)
    assert (verdict.kind, verdict.row) == (kind, row)


def everything():
    flags = itertools.product([False, True], repeat=6)
    for on_record, how, some in itertools.product(ON_RECORD, HOWS, flags):
        gated, token, seen, held, good, rerun = some
        question = Question(on_record, how, gated, token, seen, held, good, rerun)
        wanted = observation(question)
        shows = {"nothing": ("unasked",), "look": LOOKS, "proof": PROOFS, "instance": INSTANCES}[wanted]
        for one in shows:
            yield question, one


def test_no_combination_falls_through():
    seen = set()
    for question, shows in everything():
        verdict = resolve(question, shows)
        assert verdict.row > 0, (question, shows)
        seen.add(verdict.row)
    assert seen == set(range(1, 21))


def test_what_cannot_be_shown_starts_nothing():
    for question in (
        Question("none", "again"),
        Question("intended", "again", gated=False),
        Question("chosen", "again"),
    ):
        assert resolve(question, "unasked").kind == "ambiguous"


def test_a_new_payment_needs_a_reason():
    """Without a user's wish nothing is submitted again for a run that may have moved something."""
    for question, shows in everything():
        verdict = resolve(question, shows)
        moved = shows in ("runs", "at checkpoint", "ended well", "ended badly", "one released", "several", "proof")
        wished = question.how == "new" or question.token or question.rerun
        if moved and not wished:
            assert verdict.kind not in ("start", "new round", "cancel first"), (question, shows)
        if shows == "runs":
            assert verdict.kind not in ("start", "new round"), (question, shows)
        if shows == "cancelled amid payment" and not (question.how == "new" or question.token):
            # A flag that stays in a file settles nothing.
            assert verdict.kind not in ("start", "new round"), (question, shows)


def test_nothing_new_is_chosen_once_one_is_on_record():
    for question, shows in everything():
        if question.on_record in ("chosen", "ended", "told"):
            assert resolve(question, shows).kind not in ("choose", "adopt", "start"), (question, shows)
