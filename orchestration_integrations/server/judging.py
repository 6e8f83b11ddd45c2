"""What a test says about money, in sentences: each one raises an AssertionError that shows what happened instead.

    server.paid("merchants:m1", 1250, "EUR/2", once=True)
    server.paid_nothing("merchants:m2")
    server.started(1)
    server.heard("approved", once=True)

They judge by the record of what really happened, not by what a client was told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .faults import OPERATIONS
from .standing import where_it_stands

if TYPE_CHECKING:
    from .call_log import Call
    from .core import Core
    from .record import Record

_MOST_RUNS = 10
_MOST_POSTINGS = 10


class Judging:
    """The sentences of a server. `core` is its own."""

    core: Core

    def calls(self, operation: str | None = None) -> tuple[Call, ...]:
        """What was asked of the server so far, the latest last: 10,000 calls are kept.

        Args:
            operation: only calls of this operation, as `fault` names it; None (default): all.

        Raises:
            ValueError: there is no such operation, or the server was started with `faults=False`.
        """
        if operation is not None and operation not in OPERATIONS:
            raise ValueError(f"no operation {operation!r}; there are {', '.join(OPERATIONS)}")
        if not self.core.controlled:
            raise ValueError("a server that was started with faults=False keeps no calls")
        with self.core.lock:
            return self.core.calls.kept(operation)

    def paid(
        self,
        account: str,
        amount: int,
        asset: str,
        *,
        source: str | None = None,
        ledger: str = "default",
        instance_id: str | None = None,
        once: bool = False,
        times: int | None = None,
    ) -> tuple[dict[str, Any], ...]:
        """Money of this amount has arrived in an account.

        Args:
            account: where it arrived.
            amount: of one payment, in the asset's smallest unit.
            asset: such as `EUR/2`.
            source: the account that it came from; None (default): any.
            ledger: of the account; `default`.
            instance_id: the run that paid; None (default): any.
            once: exactly one such payment, no second one. False (default): one at least.
            times: exactly so many.

        Returns:
            The entries of the record, one for each such payment.

        Raises:
            AssertionError: it has not.
            ValueError: an argument makes no sense.
        """
        __tracebackhide__ = True
        _check_amount(amount)
        wanted = _times(once, times)
        record = self._record()
        found = tuple(
            entry
            for entry in record.money
            if entry["ledger"] == ledger
            and (entry["posting"]["destination"], entry["posting"]["asset"]) == (account, asset)
            and entry["posting"]["amount"] == amount
            and source in (None, entry["posting"]["source"])
            and instance_id in (None, entry["instance_id"])
        )
        if not _fits(len(found), wanted):
            detail = f" from {source}" if source is not None else ""
            detail += f" by run {instance_id}" if instance_id is not None else ""
            detail += f" in ledger {ledger}" if ledger != "default" else ""
            raise AssertionError(
                f"{account} {_was('paid', f' {amount} {asset}{detail}', len(found))}, expected {_expected(wanted)}\n"
                + self._story(record, account)
            )
        return found

    def paid_nothing(self, account: str | None = None, *, ledger: str | None = None) -> None:
        """No money has arrived: in this account, or, by default, anywhere.

        Args:
            account: which account; None: any.
            ledger: in which ledger; None (default): any.

        Raises:
            AssertionError: some has.
        """
        __tracebackhide__ = True
        record = self._record()
        found = [
            entry
            for entry in record.money
            if account in (None, entry["posting"]["destination"]) and ledger in (None, entry["ledger"])
        ]
        if found:
            whom = account if account is not None else "somebody"
            raise AssertionError(
                f"{whom} was paid {_often(len(found))}, expected never\n{self._story(record, account)}"
            )

    def started(self, times: int, *, workflow: str | None = None) -> tuple[dict[str, Any], ...]:
        """So many runs have started.

        Args:
            times: how many.
            workflow: the id or the name of their workflow; None (default): of any.

        Returns:
            The entries of the record.

        Raises:
            AssertionError: more have, or fewer.
        """
        __tracebackhide__ = True
        record = self._record()
        found = tuple(
            entry
            for entry in record.started
            if workflow is None or workflow in (entry["workflow_id"], self._workflow_name(entry["workflow_id"]))
        )
        if len(found) != times:
            of = f" of workflow {workflow}" if workflow is not None else ""
            raise AssertionError(f"{_runs(len(found))}{of} started, expected {times}\n{self._story(record)}")
        return found

    def ended(
        self, how: str, *, instance_id: str | None = None, times: int | None = None
    ) -> tuple[dict[str, Any], ...]:
        """A run has ended in this way, or so many have.

        Args:
            how: `succeeded`, `failed` or `cancelled`.
            instance_id: this run; None (default): any.
            times: exactly so many; None (default): one at least.

        Returns:
            The entries of the record.

        Raises:
            AssertionError: none has.
            ValueError: there is no such end.
        """
        __tracebackhide__ = True
        if how not in ("succeeded", "failed", "cancelled"):
            raise ValueError(f"a run ends as succeeded, failed or cancelled, not as {how!r}")
        record = self._record()
        found = tuple(
            entry
            for entry in record.ended
            if _end(entry["error"]) == how and instance_id in (None, entry["instance_id"])
        )
        if not _fits(len(found), times):
            which = f"run {instance_id}" if instance_id is not None else _runs(len(found))
            wanted = "at least one" if times is None else times
            never = " never" if instance_id is not None and not found else ""
            raise AssertionError(f"{which}{never} {how}, expected {wanted}\n{self._story(record)}")
        return found

    def heard(
        self, event: str, *, instance_id: str | None = None, once: bool = False, times: int | None = None
    ) -> tuple[dict[str, Any], ...]:
        """A stage that waited for this event has heard it, and has let its run go on.

        Args:
            event: its name.
            instance_id: the run; None (default): any.
            once, times: as of `paid`.

        Returns:
            The entries of the record.

        Raises:
            AssertionError: none has.
        """
        __tracebackhide__ = True
        wanted = _times(once, times)
        record = self._record()
        found = tuple(
            entry
            for entry in record.released
            if entry["event"] == event and instance_id in (None, entry["instance_id"])
        )
        if not _fits(len(found), wanted):
            lost = sum(1 for entry in record.events if entry["event"] == event and not entry["released"])
            but = f"; {_often(lost)} it came to a stage that did not wait for it" if lost else ""
            raise AssertionError(
                f"the event {event!r} {_was('heard', '', len(found))}, expected {_expected(wanted)}{but}\n"
                + self._story(record)
            )
        return found

    # ---- what happened instead -----------------------------------------------------------------

    def _record(self) -> Record:
        return self.core.record()

    def _workflow_name(self, workflow_id: str) -> str:
        workflow = self.core.engine.workflows.get(workflow_id)
        return workflow.name if workflow is not None else ""

    def _story(self, record: Record, account: str | None = None) -> str:
        """What was paid, and what became of the runs."""
        lines = []
        if account is not None:
            there = [
                one for one in record.money if account in (one["posting"]["destination"], one["posting"]["source"])
            ]
            if there:
                lines.append(f"What moved to and from {account}:")
                lines += _postings(there)
        others = record.money if not lines else []
        if others:
            lines.append("What was paid instead:" if account is not None else "What was paid:")
            lines += _postings(others)
        if not record.money:
            lines.append("No money was moved at all.")
        lines.append("The runs:" if record.started else "No run has started.")
        lines += [f"  {self._line_of(entry, record)}" for entry in record.started[:_MOST_RUNS]]
        if len(record.started) > _MOST_RUNS:
            lines.append(f"  … and {len(record.started) - _MOST_RUNS} more")
        return "\n".join(lines)

    def _line_of(self, entry: dict[str, Any], record: Record) -> str:
        name = self._workflow_name(entry["workflow_id"]) or entry["workflow_id"]
        variables = ", ".join(f"{key}={value}" for key, value in entry["variables"].items() if key != "runGate")
        text = f"{entry['instance_id']} of {name}" + (f" ({variables})" if variables else "")
        end = next((one for one in record.ended if one["instance_id"] == entry["instance_id"]), None)
        if end is not None:
            error = end["error"]
            return f"{text}: {_end(error)}" + (f", {error}" if _end(error) == "failed" else "")
        with self.core.lock:
            return f"{text}: {where_it_stands(self.core.engine.instances[entry['instance_id']])}"


def _postings(entries: list[dict[str, Any]]) -> list[str]:
    lines = []
    for entry in entries[:_MOST_POSTINGS]:
        p = entry["posting"]
        ledger = f" in ledger {entry['ledger']}" if entry["ledger"] != "default" else ""
        again = f", attempt {entry['attempt']}" if entry["attempt"] > 1 else ""
        lines.append(
            f"  {p['amount']} {p['asset']} from {p['source']} to {p['destination']}{ledger}"
            f" by run {entry['instance_id']}, stage {entry['stage']}{again}"
        )
    if len(entries) > _MOST_POSTINGS:
        lines.append(f"  … and {len(entries) - _MOST_POSTINGS} more")
    return lines


def _check_amount(amount: object) -> None:
    if isinstance(amount, bool) or not isinstance(amount, int):
        raise ValueError(f"amount must be a whole number in the asset's smallest unit, not {amount!r}")


def _times(once: bool, times: int | None) -> int | None:
    if once and times is not None:
        raise ValueError("give once or times, not both")
    return 1 if once else times


def _fits(found: int, wanted: int | None) -> bool:
    return found > 0 if wanted is None else found == wanted


def _often(number: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"{number} times")


def _was(done: str, what: str, number: int) -> str:
    return f"was {done}{what} {_often(number)}" if number else f"was never {done}{what}"


def _expected(wanted: int | None) -> str:
    return "at least once" if wanted is None else _often(wanted)


def _runs(number: int) -> str:
    return {0: "no run", 1: "1 run"}.get(number, f"{number} runs")


def _end(error: str | None) -> str:
    if not error:
        return "succeeded"
    return "cancelled" if error == "canceled" else "failed"
