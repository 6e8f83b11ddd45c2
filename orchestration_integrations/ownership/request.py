"""What a caller of the owner protocol wants."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from ..api.calls import is_encodable
from ..api.definitions import variable_texts
from ..api.errors import ValidationError
from ..api.numbers import at_least_zero, checked_flag
from ..procedures.limits import START_SECONDS
from ..procedures.named_workflow import WorkflowName
from ..procedures.variables import GATE_VARIABLE, KEY_VARIABLE
from .record import RunRecord
from .resolve import How

UNREAD_WORKFLOW = "unknown"
"""Stands for the workflow of a run that is gone on with, where no record names it. It is never sent."""


class OwnedRequest(msgspec.Struct, kw_only=True):
    """What a caller wants, checked; nothing was sent yet.

    Attributes:
        workflow: id of a workflow, a definition, which is ensured on the server with a gate, or the name of the one
            workflow that has it.
        variables: by name, as the caller gave them.
        run_key: names the payment.
        key_variable: the variable that carries the key to the server.
        how: ``first`` where the key was surely never used, ``again`` where it may have been, ``new`` where the user
            asked for a new run of it; None: the store knows whether the key was used.
        shared_key: other callers may use the key too, so that even a first start looks for it where the workflow has a
            gate.
        since: the key was not used before; None where that is not known.
        settled: tokens of AmbiguousRunErrors: the user knows what became of the runs that these stand for.
        rerun_failed: a bad end that an earlier attempt was told leads to a new run.
        on_changed: ``refuse`` other content under the key, or ``adopt`` the run that has it.
        fingerprint_ignores: names of variables that may differ.
        fixed_content: other content is refused for a new run too.
        attempt: names this attempt; all calls of one attempt have the same name.
        decided_on: the attempt that had the record when ``how`` was decided on it; empty: there was no record; None: it
            was not decided on a record.
            Where yet another attempt has taken the key up since, this call does nothing.
        facts: put on record with whatever this attempt saves.
        rival: told the record, says whether another caller that runs beside this attempt has the key: for a framework
            that runs several callers in one attempt of what encloses them.
        chosen: the instance that an earlier attempt had chosen, for callers who keep no record.
        may_say_first: the caller has a way to say that the key was never used.
        wait_for_key: a key that another caller of this process holds is waited for, instead of refused.
        allow_unbound: placeholders without a value may pass.
        strict_variables: a variable that no placeholder asks for is an error; by default it is a warning.
        checkpoints: a definition gets a checkpoint before each stage that moves money; another workflow must have them.
        remedy_held: how the user lets a run go on that is held at a checkpoint.
        timeout: seconds for starting.
    """

    workflow: str | Mapping[str, Any] | WorkflowName
    run_key: str
    variables: Mapping[str, Any] | None = None
    key_variable: str = KEY_VARIABLE
    how: How | None = None
    shared_key: bool = False
    since: datetime | None = None
    settled: Sequence[str] = ()
    rerun_failed: bool = False
    on_changed: Literal["refuse", "adopt"] = "refuse"
    fingerprint_ignores: Sequence[str] = ()
    fixed_content: bool = False
    attempt: str = ""
    decided_on: str | None = None
    facts: Mapping[str, Any] = msgspec.field(default_factory=dict)
    rival: Callable[[RunRecord], bool] | None = None
    chosen: str | None = None
    may_say_first: bool = False
    wait_for_key: bool = False
    allow_unbound: bool = False
    strict_variables: bool = False
    checkpoints: bool = False
    remedy_held: str = "orchestration-integrations runs resume KEY --store FILE lets the same run go on"
    timeout: float = START_SECONDS
    texts: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.texts = variable_texts(self.variables)
        if not isinstance(self.workflow, str | Mapping | WorkflowName) or not self.workflow:
            raise ValidationError("workflow must be the id of a workflow, its name or a definition", path="workflow")
        if not isinstance(self.key_variable, str) or not self.key_variable:
            raise ValidationError("key_variable must be a non-empty string", path="key_variable")
        if self.key_variable == GATE_VARIABLE:
            raise ValidationError(f"key_variable: {GATE_VARIABLE} carries the gate; name another", path="key_variable")
        if GATE_VARIABLE in self.texts:
            where = f"variables.{GATE_VARIABLE}"
            raise ValidationError(f"{where} is set by this package; rename your variable", path=where)
        if not isinstance(self.run_key, str) or not self.run_key:
            raise ValidationError(f"run_key must be a non-empty string, not {self.run_key!r}", path="run_key")
        if not is_encodable(self.run_key):
            raise ValidationError("run_key contains an unpaired surrogate and cannot be sent as UTF-8", path="run_key")
        if self.key_variable in self.texts:
            where = f"variables.{self.key_variable}"
            raise ValidationError(
                f"{where} is set beside run_key: give the key once, as run_key, or name another key_variable",
                path=where,
            )
        self.timeout = at_least_zero(self.timeout, "timeout")
        for flag in ("rerun_failed", "allow_unbound", "strict_variables", "checkpoints"):
            checked_flag(getattr(self, flag), flag)
        if self.since is not None and (not isinstance(self.since, datetime) or self.since.tzinfo is None):
            raise ValidationError("since must be a datetime with a time zone", path="since")
        if self.chosen is not None and (not isinstance(self.chosen, str) or not self.chosen):
            raise ValidationError("chosen must be the id of an instance", path="chosen")
        check_changes(self.on_changed, self.fingerprint_ignores)
        if isinstance(self.settled, str) or not all(isinstance(one, str) and one for one in self.settled):
            raise ValidationError("settled must be the token that an AmbiguousRunError printed", path="settled")


def check_changes(on_changed: object, fingerprint_ignores: Any) -> None:
    """Refuse wrong options about other content under a key.

    Raises:
        ValidationError: one is wrong; ``path`` names it.
    """
    if on_changed not in ("refuse", "adopt"):
        raise ValidationError(f"on_changed must be refuse or adopt, not {on_changed!r}", path="on_changed")
    if (
        isinstance(fingerprint_ignores, str)
        or not isinstance(fingerprint_ignores, Iterable)
        or not all(isinstance(one, str) for one in fingerprint_ignores)
    ):
        raise ValidationError("fingerprint_ignores must be a list of names of variables", path="fingerprint_ignores")


def settle_token(record: RunRecord, shown: str = "") -> str:
    """The token that settles one unknown fate: of this key, this round, and what was known of its run at that time.

    Once more is known (which run it is, that the server has it, how it ended, which runs there are), there is nothing
    to settle, or another fate, of which the same word says nothing.

    Args:
        shown: what the server showed when the token was made; empty where it showed nothing of the key.
    """
    if record.doubt and record.gate:
        return token_without_record(record.key, shown)
    return f"{_token_of_record(record)}{_digest(shown)}"


def token_without_record(key: str, shown: str) -> str:
    """The token of a caller whose record knows nothing of a run: it is about the runs that were shown and no others."""
    return f"0-{_digest(key)}{_digest(shown)}"


def token_of(record: RunRecord | None, key: str, shown: str) -> str | None:
    """The token of a fate; None where there is no record and nothing was shown."""
    if record is not None:
        return settle_token(record, shown)
    return token_without_record(key, shown) if shown else None


def may_settle(record: RunRecord | None, key: str, tokens: Iterable[str]) -> bool:
    """Whether one of the tokens settles a fate of the run on record, by what the record knows."""
    ways = [f"0-{_digest(key)}"]
    if record is not None and not (record.doubt and record.gate):
        ways = [_token_of_record(way) for way in (record, msgspec.structs.replace(record, seen=True))]
    return any(token.startswith(way) for token in tokens for way in ways)


def _token_of_record(record: RunRecord) -> str:
    known = record.key, record.since.isoformat(), record.instance_id or "", record.seen, record.end or ""
    return f"{record.round}-" + _digest("\0".join(map(str, known)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
