"""What a sentence may ask for: a name that nobody ever had makes a sentence about nothing, which is always true.

An id of a run comes from the server, so one that it never had is a mistake. Names of workflows, accounts and ledgers
are the user's, and one that was never seen may be just what a test says: nothing was paid there. So only what looks
like a slip of the pen is refused: a word, not a number, that is close to one that the server has seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher, get_close_matches
from typing import TYPE_CHECKING, Any

from . import definitions
from .ledger import Ledger

if TYPE_CHECKING:
    from .core import Core

_CLOSE = 0.8
_SHORTEST_WORD = 4


def check_amount(amount: object) -> None:
    """ValueError: it is no amount."""
    if isinstance(amount, bool) or not isinstance(amount, int):
        raise ValueError(f"amount must be a whole number in the asset's smallest unit, not {amount!r}")


def check_asset(asset: object) -> None:
    """ValueError: no asset is called so."""
    if not isinstance(asset, str) or not Ledger.is_asset(asset):
        raise ValueError(f"asset {asset!r} is the name of no asset, such as EUR/2")


def check_times(times: object) -> None:
    """ValueError: it is not None, and no number of times."""
    if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 0):
        raise ValueError(f"times must be a whole number from 0, not {times!r}")


def check_account(account: object, name: str = "account") -> None:
    """ValueError: no account of a ledger is called so."""
    if not isinstance(account, str) or not Ledger.is_address(account):
        raise ValueError(
            f"{name} {account!r} is the name of no account: letters, digits, - and _, in parts with : between"
        )


class Seen:
    """What one server has seen. Used under the core's lock."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._engine = core.engine

    def check_run(self, instance_id: str | None) -> None:
        """ValueError: the server never had such a run."""
        _check_text("instance_id", instance_id)
        if instance_id is not None and instance_id not in self._engine.instances:
            raise ValueError(f"instance_id {instance_id!r}: the server never had such a run")

    def check_workflow(self, workflow: str | None) -> None:
        """ValueError: it is neither the id nor the name of a workflow, but close to a name."""
        _check_text("workflow", workflow)
        known = self._engine.workflows
        if workflow is not None and workflow not in known:
            _check("workflow", workflow, (one.name for one in known.values()))

    def check_ledger(self, ledger: str | None) -> None:
        """ValueError: the server never saw this ledger, but one that is called nearly so."""
        if ledger is not None:
            _check("ledger", ledger, self._ledgers())

    def check_account(self, account: str) -> None:
        """ValueError: the server never saw accounts of this kind, but some whose kind is called nearly so."""
        seen = set(self._accounts())
        if account in seen:
            return
        written = _spelled(account)
        same = next((one for one in sorted(seen) if _spelled(one) == written), None)
        if same is not None:
            raise ValueError(f"the server never saw an account {account!r}: did you mean {same!r}?")
        family, colon, last = account.rpartition(":")
        if not colon:
            _check("account", account, (one for one in seen if ":" not in one))
            return
        try:
            _check("account", family, (one.rpartition(":")[0] for one in seen if ":" in one))
        except ValueError as error:
            meant = str(error).rpartition("did you mean ")[2].strip("'?")
            raise ValueError(f"the server never saw an account {account!r}: did you mean '{meant}:{last}'?") from None

    def check_via(self, via: str) -> None:
        """ValueError: the server never saw this provider or connector, but one that is called nearly so."""
        connectors = self._engine.memory.outside.payments.connectors
        _check("provider", via, (one[key] for one in connectors for key in ("id", "provider")))

    def _ledgers(self) -> Iterator[str]:
        outside = self._engine.memory.outside
        yield from ("default", *outside.ledger.balances, *outside.ledger.metadata)
        yield from (wallet["ledger"] for wallet in outside.wallets.by_id.values())
        yield from (value for key, value in self._texts() if key == "ledger")

    def _accounts(self) -> Iterator[str]:
        outside = self._engine.memory.outside
        for of_ledger in outside.ledger.balances.values():
            yield from of_ledger
        for noted in outside.ledger.metadata.values():
            yield from noted
        yield from (one["payout"]["destination"] for one in self._core.record().payouts)
        yield from (value for key, value in self._texts() if key != "ledger")

    def _texts(self) -> Iterator[tuple[str, str]]:
        """Names of ledgers and accounts in the definitions, as they are for each run, and without any variables."""
        engine, generation = self._engine, self._core.generation
        filled = [(one.workflow_id, one.variables) for one in engine.instances.values()]
        for workflow_id, variables in [*filled, *((one, {}) for one in engine.workflows)]:
            for key, text in _named(engine.workflows[workflow_id].stages or []):
                yield key, definitions.interpolate(text, variables, generation)


def _check_text(what: str, value: object) -> None:
    """ValueError: it is neither None nor a text, such as an object that holds the id."""
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{what} must be the id, a text, not {type(value).__name__}: give its .id, or the id in it")


def _named(value: Any, parent: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for one in value:
            yield from _named(one, parent)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            is_name = key in ("ledger", "throughAccount", "holdingAccount") or (key == "id" and parent == "account")
            if is_name and isinstance(inner, str):
                yield key, inner
            yield from _named(inner, key)


def _check(what: str, name: str, seen: Iterable[str]) -> None:
    known = set(seen)
    if name in known:
        return
    near = [*get_close_matches(name, known, 5, _CLOSE), *sorted(known)]
    close = next((one for one in near if _is_slip(name, one)), None)
    close = close or next((one for one in known if one and _squeezed(one) == _squeezed(name)), None)
    if close is not None:
        raise ValueError(f"the server never saw a {what} {name!r}: did you mean {close!r}?")


def _spelled(name: str) -> str:
    """A name but for its capitals, and for which separators stand in it."""
    return re.sub(r"[\W_]", ":", name).casefold()


def _squeezed(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _is_slip(name: str, seen: str) -> bool:
    """Whether they differ in one word, and that not by a number or a short code, which tell one thing from another."""
    words, others = re.split(r"[\W_]+", name), re.split(r"[\W_]+", seen)
    if len(words) != len(others):
        return False
    different = [pair for pair in zip(words, others, strict=True) if pair[0] != pair[1]]
    if len(different) != 1:
        return False
    one, other = different[0]
    return (
        one.isalpha()
        and other.isalpha()
        and min(len(one), len(other)) >= _SHORTEST_WORD
        and (
            SequenceMatcher(None, one.casefold(), other.casefold()).ratio() >= _CLOSE
            or _are_swapped(one.casefold(), other.casefold())
        )
    )


def _are_swapped(one: str, other: str) -> bool:
    """Whether two letters that stand side by side have changed places, and nothing else."""
    at = next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)
    return one != other and one[:at] + one[at : at + 2][::-1] + one[at + 2 :] == other
