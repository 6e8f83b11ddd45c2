"""Money as the page shows it: sides of a payment, and what moved between which accounts.

A movement comes from a ledger's answer. A service that does not tell its postings leaves only what it was asked for;
that is shown as asked, for that one call and not for the whole stage: a stage may make several calls, and the whole
payment drawn beside a part of it would leave the payer twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ..api.models import ActivityRun, StageRun, Transaction
from ..procedures.moved import READS, Reading, answers_of, asked_of
from ..procedures.wording import names_of
from .amounts import amount_text, sent_text
from .reading import Observed

DEFAULT_LEDGER = "default"
Movement = dict[str, str]


def side_text(side: object) -> str:
    """One side of a payment: ``merchants:m1``, ``wallet alice (main)``, ``payment 5``."""
    if not isinstance(side, Mapping):
        return "?"
    for kind in ("account", "wallet", "payment"):
        body = side.get(kind)
        if not isinstance(body, Mapping):
            continue
        name = str(body.get("id") or body.get("name") or "?")
        if kind == "account":
            return name
        balance = body.get("balance")
        return f"{kind} {name}" + (f" ({balance})" if balance and balance != "main" else "")
    return next((str(kind) for kind in side), "?")


def payment_text(send: Mapping[str, Any]) -> str:
    """``12.50 EUR from world to merchants:m1``: what a ``send`` stage pays."""
    amount = send.get("amount")
    paid = amount_text(amount.get("amount"), amount.get("asset")) if isinstance(amount, Mapping) else "?"
    return f"{paid} from {side_text(send.get('source'))} to {side_text(send.get('destination'))}"


def transaction_rows(
    transactions: Sequence[Transaction],
    history: Sequence[StageRun],
    activities: Mapping[int, Sequence[ActivityRun]],
) -> list[dict[str, Any]]:
    """The transactions of a run, each with the movements that it made.

    Args:
        transactions: as ``reading_of`` finds them in the same history and activities.
        history: of the run.
        activities: of each stage, by its number.
    """
    left = defaultdict(list)
    for each in transactions:
        left[each.stage].append(each)
    rows = []
    for number, run in enumerate(history):
        for activity in _payments(activities.get(number, ())):
            if not activity.terminated or activity.error is not None:
                continue
            answers = answers_of(activity)
            for each, answer in zip(left[number], answers, strict=False):
                told = answer.get("postings")
                movements = [_posting(one) for one in told if isinstance(one, Mapping)] if told else []
                asked = [] if movements else _asked(run, activity, activities[number])
                row = {"stage": each.stage, "id": each.id, "ledger": each.ledger, "maybeRepeated": each.maybe_repeated}
                rows.append({**row, "asked": bool(asked), "movements": movements or asked})
            del left[number][: len(answers)]
    return rows


def _payments(activities: Sequence[ActivityRun]) -> list[ActivityRun]:
    return [activity for activity in activities if activity.name not in READS]


def _posting(posting: Mapping[str, Any]) -> Movement:
    return _movement(posting.get("source", "?"), posting.get("destination", "?"), posting)


def _movement(source: object, destination: object, money: object) -> Movement:
    amount, asset = (money.get("amount"), money.get("asset")) if isinstance(money, Mapping) else (None, None)
    ends = {"source": str(source), "destination": str(destination)}
    return {**ends, "amount": amount_text(amount, asset), "raw": sent_text(amount, asset)}


# ---- what a call was asked for -----------------------------------------------------------------------


def _asked(run: StageRun, activity: ActivityRun, beside: Sequence[ActivityRun]) -> list[Movement]:
    """What a call was asked to pay; empty where its request is in no form that is known.

    Args:
        run: the stage.
        activity: the call.
        beside: all calls of the stage. Only where it is the one payment of them, the stage's words can stand for it.
    """
    request = asked_of(activity)
    data = request.get("Data", request.get("data"))
    data = data if isinstance(data, Mapping) else {}
    if isinstance(data.get("postings"), list):
        return [_posting(one) for one in data["postings"] if isinstance(one, Mapping)]
    wallet = f"wallet {request.get('id', '?')}"
    if activity.name == "CreditWallet":
        sources = [_subject(one) for one in data.get("sources") or ()]
        return [_movement(", ".join(sources) or "world", wallet, data.get("amount"))]
    if activity.name == "DebitWallet":
        given = data.get("destination")
        return [_movement(wallet, _subject(given) if given else "world", data.get("amount"))]
    if activity.name in ("StripeTransfer", "CreateTransferInitiation"):
        provider = request.get("provider", "stripe")
        return [_movement("world", f"{provider} {request.get('destination', '?')}", request)]
    amount = run.input.get("amount")
    if not isinstance(amount, Mapping) or len(_payments(beside)) > 1:
        return []
    return [_movement(side_text(run.input.get("source")), side_text(run.input.get("destination")), amount)]


def _subject(subject: object) -> str:
    """An account or a wallet, as the wallets service names it."""
    if not isinstance(subject, Mapping):
        return "?"
    name = str(subject.get("identifier", "?"))
    return f"wallet {name}" if subject.get("type") == "WALLET" else name


# ---- the graph ---------------------------------------------------------------------------------------


def graph(
    transactions: Sequence[Mapping[str, Any]],
    history: Sequence[StageRun],
    activities: Mapping[int, Sequence[ActivityRun]],
    *,
    over: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """Accounts and what moved between them.

    Args:
        transactions: as ``transaction_rows`` gives them.
        history: of the run.
        activities: of each stage, by its number.
        over: whether the run has ended: then nobody hears any more how a call ends that had not.

    Returns:
        ``nodes``: account and ledger; ``edges``: from and to (places in ``nodes``), amounts, and ``state``: ``moved``,
        ``repeated`` (perhaps twice), ``asked`` (made, by a service that tells no postings), ``open`` (under way) or
        ``unknown`` (not seen to end, and the run has).
    """
    nodes: dict[tuple[str, str], int] = {}
    edges: dict[tuple[int, int, str], list[str]] = {}

    def place(account: str, ledger: str) -> int:
        return nodes.setdefault((account, ledger), len(nodes))

    def add(movement: Mapping[str, str], ledger: str, state: str) -> None:
        ends = place(movement["source"], ledger), place(movement["destination"], ledger)
        edges.setdefault((*ends, state), []).append(movement["amount"])

    for transaction in transactions:
        state = "repeated" if transaction["maybeRepeated"] else "asked" if transaction["asked"] else "moved"
        for movement in transaction["movements"]:
            add(movement, transaction["ledger"] or _ledger_of(history[transaction["stage"]]), state)
    for number, run in enumerate(history):
        for activity in _payments(activities.get(number, ())):
            if not activity.terminated:
                ledger = next(
                    (asked_of(activity)[key] for key in ("Ledger", "ledger") if asked_of(activity).get(key)), ""
                )
                for movement in _asked(run, activity, activities[number]):
                    add(movement, str(ledger) or _ledger_of(run), "unknown" if over else "open")
    return {
        "nodes": [{"account": account, "ledger": ledger} for account, ledger in nodes],
        "edges": [
            {"from": start, "to": end, "state": state, "amounts": amounts}
            for (start, end, state), amounts in edges.items()
        ],
    }


HEADED = {"moved": "moved", "repeated": "moved", "asked": "asked for", "open": "asked for", "unknown": "not known"}
"""What stands over edges of a state. Only what a ledger told has moved; a call that is tried again has asked for it."""


def money_words(
    observed: Observed,
    reading: Reading,
    transactions: Sequence[Mapping[str, Any]],
    drawn: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, str | None]:
    """What stands over the money of a run, and in its place where there is none to show.

    Args:
        observed: the run.
        reading: of its histories.
        transactions: as ``transaction_rows`` gives them.
        drawn: as ``graph`` gives it.

    Returns:
        ``heading``; ``nothing``: instead of a graph and a table, None where there is one to show; ``more``: what else
        there may be, None where all is shown.
    """
    complete, over = reading.moved.complete or observed.ghost, observed.instance.terminated or observed.ghost
    untold = [activity for activity in reading.in_flight if not _is_drawn(activity, observed)]
    found = {str(edge["state"]) for edge in drawn["edges"]}
    if untold:
        found.add("unknown" if over else "open")
    if any(not row["movements"] for row in transactions):
        found.add("unknown")
    words = list(dict.fromkeys(word for state, word in HEADED.items() if state in found))
    if not words and not complete:
        words = ["not known"]
    shown = bool(drawn["nodes"] or transactions)
    more = None if complete else "Not all that it did could be read: there may be more."
    return {
        "heading": _heading(words),
        "nothing": None if shown else _nothing(observed, untold, complete, over),
        "more": more if shown else None,
    }


def _heading(words: Sequence[str]) -> str:
    if not words:
        return "Money"
    return f"Money {words[0]}" if words != ["not known"] and len(words) == 1 else f"Money: {', '.join(words)}"


def _nothing(observed: Observed, untold: Sequence[ActivityRun], complete: bool, over: bool) -> str:
    """What is known where no money can be shown."""
    if untold and not over:
        return f"{names_of(untold)} is under way; what it moves is not told."
    if untold:
        return f"{names_of(untold)} was not seen to end, and what it moves is not told: check the ledger."
    if complete:
        return "Nothing has moved." if over else "Nothing has moved yet."
    if observed.history is None:
        return "What it moved is not known: its history could not be read."
    return "No payment shows in what could be read, and not all of it could."


def _is_drawn(activity: ActivityRun, observed: Observed) -> bool:
    """Whether a call that has not ended is in the graph: whether it says what it was asked to pay."""
    for number, run in enumerate(observed.history or ()):
        if any(one is activity for one in observed.activities.get(number, ())):
            return bool(_asked(run, activity, observed.activities[number]))
    return False


def _ledger_of(run: StageRun) -> str:
    for side in ("source", "destination"):
        body = run.input.get(side)
        account = body.get("account") if isinstance(body, Mapping) else None
        ledger = account.get("ledger") if isinstance(account, Mapping) else None
        if isinstance(ledger, str) and ledger:
            return ledger
    return DEFAULT_LEDGER
