"""Which run a call means: the one table, as a pure function.

Three things decide: what is on record of the key, what is asked for (a first start, another try of the same one, a
new run), and what the server shows. Every row of the table stands below under its number, and no combination falls
through: what no row names is ``ambiguous``, which starts nothing.

The rule behind the rows: *a key names one payment.* A second submit for it happens only where the first surely moved
nothing, or where the user said, for this very run, that another one is wanted.

The weakest rows: 5 and 6 differ only in who could have chosen a run, and rows 16 and 17 only in whether money can
have moved. Both are decided by absence (no choice on record, no stage behind the gate), which is the weakest kind of
knowledge. They are safe because ``choose`` lets the first choice win, and because an unreadable history counts as a
stage that has begun.
"""

from __future__ import annotations

from typing import Literal

import msgspec

OnRecord = Literal["none", "intended", "chosen", "ended", "told"]
How = Literal["first", "again", "new"]
"""``first``: the key was surely never used. ``again``: it may have been. ``new``: the user asked for a new run."""

Shows = Literal[
    "unasked",  # nobody looked: nothing depends on it
    # after a look for the key, gated
    "one released",  # one released run of the round
    "several",  # several released runs of the round
    "one waits",  # one unreleased run, of this content
    "many wait",  # several unreleased runs, all of this content
    "other waits",  # unreleased runs, at least one of other content
    "waits after another",  # unreleased runs of the highest round, and one of an earlier round was released
    "nothing",  # no run of the key, or no proof of one
    # after a look for the key, ungated
    "proof",  # one run carries the key
    # after a read of the instance on record
    "unknown id",  # the server does not know it
    "ghost",  # a row without a run behind it
    "ended before release",  # it ended at its gate
    "at checkpoint",  # it waits before a payment, and nobody has announced to let it go on
    "runs",  # it runs, or waits at its gate
    "ended well",
    "ended badly",
    "cancelled unmoved",  # cancelled, and nothing behind the gate had begun
    "cancelled moved",  # cancelled after something behind the gate had begun, and all of that is known
    "cancelled amid payment",  # cancelled, and nobody can tell whether a payment of it arrived
]
ON_RECORD: tuple[OnRecord, ...] = ("none", "intended", "chosen", "ended", "told")
HOWS: tuple[How, ...] = ("first", "again", "new")
LOOKS: tuple[Shows, ...] = (
    "one released",
    "several",
    "one waits",
    "many wait",
    "other waits",
    "waits after another",
    "nothing",
)
PROOFS: tuple[Shows, ...] = ("proof", "several", "nothing")
INSTANCES: tuple[Shows, ...] = (
    "unknown id",
    "ghost",
    "ended before release",
    "at checkpoint",
    "runs",
    "ended well",
    "ended badly",
    "cancelled unmoved",
    "cancelled moved",
    "cancelled amid payment",
)

_CANCELLED = ("cancelled unmoved", "cancelled moved", "cancelled amid payment")

Kind = Literal[
    "start",  # submit in this round
    "adopt",  # go on with the run that was found
    "choose",  # choose the oldest run that waits, release it
    "continue",  # go on with the instance on record
    "resume",  # the same, and take the hold away
    "report",  # tell the end of the instance on record
    "report held",  # tell that it stands at a checkpoint
    "new round",  # submit in the next round
    "cancel first",  # cancel the instance on record; then decide anew
    "keep trying",  # look again; when time is over: ambiguous
    "ambiguous",  # say that a run may exist
    "wrong server",  # say that this server does not know the run on record
    "key reused",  # say that other content has the key
]


class Question(msgspec.Struct, frozen=True):
    """What a call asks, and what is on record.

    Attributes:
        on_record: state of the record.
        how: ``first``, ``again`` or ``new``.
        gated: whether runs of the workflow wait at a gate.
        token: the user has settled what became of the run on record. It decides only where that is unknown; a settled
            *key* asks for a new run besides (``how`` is ``new``), whatever is known.
        seen: the server has shown the instance on record.
        held: a stop of the run on record was asked for by its own side.
        stopped: a stop of it was asked for by whomever, and stands.
        good: the run on record was told to have succeeded.
        rerun: a bad end that an earlier attempt was told leads to a new run.
    """

    on_record: OnRecord
    how: How
    gated: bool = True
    token: bool = False
    seen: bool = False
    held: bool = False
    stopped: bool = False
    good: bool = False
    rerun: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """What to do, and the row of the table that says so; row 0 where none does."""

    kind: Kind
    row: int


def observation(question: Question) -> Literal["nothing", "look", "proof", "instance"]:
    """What has to be looked at before ``resolve`` can decide."""
    if question.on_record == "none" and question.how == "first":
        return "nothing"
    if question.on_record in ("none", "intended"):
        return "look" if question.gated else "proof"
    if question.on_record == "told" and question.how == "new":
        return "nothing"
    return "instance"


def resolve(question: Question, shows: Shows) -> Verdict:
    """The table. The first row that matches decides."""
    if question.on_record in ("none", "intended"):
        if question.gated:
            return _nothing_chosen(question, shows)
        return _ungated(question, shows)
    if question.on_record == "told":
        return _told(question, shows)
    return _chosen(question, shows)


def _nothing_chosen(question: Question, shows: Shows) -> Verdict:
    on_record, proven = question.on_record, question.on_record == "intended"
    if on_record == "none" and question.how == "first":
        return Verdict("start", 1)
    if shows == "one released":
        return Verdict("adopt", 3)
    if shows == "several":
        return Verdict("new round" if question.token else "ambiguous", 4)
    if proven and shows in ("one waits", "many wait"):
        return Verdict("choose", 5)
    if proven and shows == "other waits":
        return Verdict("start", 7)  # what waits was never chosen, and nobody will choose it
    if shows == "one waits":
        return Verdict("choose", 6)
    if shows == "many wait":
        return Verdict("new round" if question.token else "keep trying", 6)
    if shows == "other waits":
        return Verdict("new round" if question.token else "key reused", 6)
    if shows == "waits after another":  # only a record could tell whether somebody wants another payment
        return Verdict("new round" if question.token else "ambiguous", 6)
    if shows == "nothing":
        return Verdict("start", 7)
    return Verdict("ambiguous", 0)


def _ungated(question: Question, shows: Shows) -> Verdict:
    if question.on_record == "none" and question.how == "first":
        return Verdict("start", 1)
    row = 2 if question.on_record == "none" else 8
    if shows == "proof":
        return Verdict("adopt", row)
    if shows in ("nothing", "several"):
        return Verdict("new round" if question.token else "ambiguous", row)
    return Verdict("ambiguous", 0)


def _chosen(question: Question, shows: Shows) -> Verdict:
    gated, new = question.gated, question.how == "new"
    if shows == "unknown id":
        if question.seen:
            return Verdict("wrong server", 9)
        return Verdict("new round" if question.token else "keep trying", 10)
    if shows == "ended before release" and gated:
        return Verdict("new round", 11)
    if shows == "ghost":
        return Verdict("new round", 11) if gated else Verdict("report", 12)
    if shows == "at checkpoint" and (question.held or question.stopped):
        if question.token:
            return Verdict("new round", 13)
        return Verdict("resume" if question.how == "new" else "report held", 13)
    if shows in ("runs", "at checkpoint"):
        return Verdict("cancel first", 15) if new else Verdict("continue", 14)
    if shows == "cancelled unmoved" and question.held:
        return Verdict("new round", 16)
    if shows in _CANCELLED and new:
        return Verdict("new round", 15)  # the cancel that a new run asks for has happened already
    if shows in ("ended well", "ended badly") and new and question.token:
        return Verdict("new round", 17)  # whoever settled the key knows how it ended
    if shows in ("ended well", "ended badly", *_CANCELLED, "ended before release"):
        return Verdict("report", 17)
    return Verdict("ambiguous", 0)


def _told(question: Question, shows: Shows) -> Verdict:
    if question.how == "new":
        return Verdict("new round", 20)
    if shows == "unknown id":
        return Verdict("wrong server", 9) if question.seen else Verdict("keep trying", 10)
    if shows in ("runs", "at checkpoint"):
        return Verdict("continue", 14)
    if question.good or shows == "ended well":
        return Verdict("report", 18)
    if question.rerun:
        # A flag that stays in the caller's file settles nothing that it knows nothing of.
        unknown = shows == "cancelled amid payment" and not question.token
        return Verdict("ambiguous" if unknown else "new round", 19)
    return Verdict("report", 19)
