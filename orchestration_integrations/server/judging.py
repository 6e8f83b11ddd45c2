"""What a test says about money, in sentences: each one raises an AssertionError that shows what happened instead.

    server.paid("merchants:m1", 1250, "EUR/2", once=True)
    server.paid_out("stripe", 1250, "EUR/2", once=True)
    server.paid_nothing("merchants:m2")
    server.started(1)
    server.heard("approved", once=True)
    server.at_rest()

They judge by the record of what really happened, not by what a client was told, and they speak of now. `at_rest` says
that nothing more happens by itself; `once` and `times` of a payment, which are meant for good, ask for as much as they
need: that no such payment is still to come by itself (see `forthcoming`). A sentence about a name that can't be meant
is a ValueError (see `asked`): it would be true of nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .asked import Seen, check_account, check_amount, check_asset, check_times
from .faults import OPERATIONS
from .forthcoming import Ahead, Forthcoming
from .story import how_it_ended, story, workflow_name

if TYPE_CHECKING:
    from .call_log import Call
    from .core import Core
    from .record import Record


class Judging:
    """The sentences of a server. `core` is its own."""

    core: Core

    def calls(self, operation: str | None = None) -> tuple[Call, ...]:
        """What was asked of the server so far, the latest last. Of calls that change nothing, 10,000 are kept.

        Args:
            operation: only calls of this operation, as `fault` names it; None (default): all.

        Raises:
            ValueError: there is no such operation, some of these calls are kept no longer, or the server was started
                with `faults=False`.
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
        only: bool = False,
    ) -> tuple[dict[str, Any], ...]:
        """Money of this amount has arrived in an account.

        Args:
            account: where it arrived.
            amount: of one payment, in the asset's smallest unit.
            asset: such as `EUR/2`.
            source: the account that it came from; None (default): any.
            ledger: of the account; `default`.
            instance_id: the run that paid; None (default): any.
            once: exactly one payment of this amount, no second one, nor one that is still to come by itself. False
                (default): one at least.
            times: exactly so many, and none that is still to come by itself.
            only: exactly one, and nothing else has arrived in this account, of any amount, in any ledger, nor is
                still to come by itself. False (default).

        Returns:
            The entries of the record, one for each such payment.

        Raises:
            AssertionError: it has not, or a further one may still come.
            ValueError: an argument makes no sense.
        """
        __tracebackhide__ = True
        check_account(account)
        check_amount(amount)
        check_asset(asset)
        if source is not None:
            check_account(source, "source")
        wanted = _times(once, times, only)
        with self.core.lock:
            record, seen = self._record(), Seen(self.core)
            seen.check_run(instance_id)
            if wanted == 0:
                seen.check_ledger(ledger)
                seen.check_account(account)
            arrived = [one for one in record.money if one["posting"]["destination"] == account]
            found = tuple(
                entry
                for entry in arrived
                if entry["ledger"] == ledger
                and (entry["posting"]["amount"], entry["posting"]["asset"]) == (amount, asset)
                and source in (None, entry["posting"]["source"])
                and instance_id in (None, entry["instance_id"])
            )
            detail = f" from {source}" if source is not None else ""
            detail += f" by run {instance_id}" if instance_id is not None else ""
            detail += f" in ledger {ledger}" if ledger != "default" else ""
            was = f"{account} {_was('paid', f' {amount} {asset}{detail}', len(found))}"

            def is_such(ahead: Ahead) -> bool:
                where = [there for there in ahead.arrives or () if there[1] == account]
                if ahead.arrives is None or (only and where):
                    return True
                return (
                    (ledger, account) in where
                    and ahead.amount in (None, amount)
                    and ahead.asset in (None, asset)
                    and (source is None or ahead.source in (None, source))
                    and instance_id in (None, ahead.instance_id)
                )

            if not _fits(len(found), wanted):
                hint = self._to_come(len(found), wanted, is_such, record)
                raise AssertionError(f"{was}, expected {_expected(wanted)}{hint}\n{self._story(record, account)}")
            if only and len(arrived) > 1:
                more = len(arrived) - 1
                raise AssertionError(
                    f"{was}, and something else {_often(more)}, expected nothing else\n{self._story(record, account)}"
                )

            if wanted is not None:
                self._check_no_more(was, wanted, is_such, record, account)
        return found

    def paid_out(
        self,
        via: str,
        amount: int,
        asset: str,
        *,
        destination: str | None = None,
        instance_id: str | None = None,
        once: bool = False,
        times: int | None = None,
    ) -> tuple[dict[str, Any], ...]:
        """Money of this amount has left through a provider: a payout or a transfer that it was asked for.

        Args:
            via: the provider, such as `stripe`, or the id of a connector.
            amount: of one payout, in the asset's smallest unit.
            asset: such as `EUR/2`.
            destination: whom the provider was to pay; None (default): anybody.
            instance_id: the run that paid; None (default): any.
            once: exactly one such payout, no second one, nor one that is still to come by itself. False (default):
                one at least.
            times: exactly so many, and none that is still to come by itself.

        Returns:
            The entries of the record, one for each such payout.

        Raises:
            AssertionError: it has not, or a further one may still come.
            ValueError: an argument makes no sense.
        """
        __tracebackhide__ = True
        check_amount(amount)
        check_asset(asset)
        if not isinstance(via, str) or not via.strip():
            raise ValueError(f"via must be a provider or a connector, not {via!r}")
        wanted = _times(once, times)
        with self.core.lock:
            record, seen = self._record(), Seen(self.core)
            seen.check_run(instance_id)
            if wanted == 0:
                seen.check_via(via)
            found = tuple(
                entry
                for entry in record.payouts
                if via.lower() in (str(entry["payout"]["provider"]).lower(), entry["payout"]["connector"].lower())
                and (entry["payout"]["amount"], entry["payout"]["asset"]) == (amount, asset)
                and destination in (None, entry["payout"]["destination"])
                and instance_id in (None, entry["instance_id"])
            )
            detail = f" to {destination}" if destination is not None else ""
            detail += f" by run {instance_id}" if instance_id is not None else ""
            was = f"{amount} {asset} {_was('paid out', f' through {via}{detail}', len(found))}"

            def is_such(ahead: Ahead) -> bool:
                return (
                    (ahead.via is None or bool(ahead.via))  # by whom, the server decides by its connectors
                    and ahead.amount in (None, amount)
                    and ahead.asset in (None, asset)
                    and instance_id in (None, ahead.instance_id)
                )

            if not _fits(len(found), wanted):
                hint = self._to_come(len(found), wanted, is_such, record)
                raise AssertionError(f"{was}, expected {_expected(wanted)}{hint}\n{self._story(record)}")

            if wanted is not None:
                self._check_no_more(was, wanted, is_such, record)
        return found

    def paid_nothing(self, account: str | None = None, *, ledger: str | None = None) -> None:
        """No money has arrived by now: in this account, or, by default, anywhere, and none has left by a provider.

        Args:
            account: which account, or whom a provider was to pay; None: any.
            ledger: in which ledger; None (default): any. What leaves by a provider arrives in none.

        Raises:
            AssertionError: some has.
            ValueError: no account can be called so, or the server never saw the account or the ledger, but one that
                is called nearly so.
        """
        __tracebackhide__ = True
        with self.core.lock:
            record, seen = self._record(), Seen(self.core)
            left = [
                entry
                for entry in record.payouts
                if ledger is None and account in (None, entry["payout"]["destination"])
            ]
            if account is not None and not left:
                check_account(account)
                seen.check_account(account)
            seen.check_ledger(ledger)
            arrived = [
                entry
                for entry in record.money
                if account in (None, entry["posting"]["destination"]) and ledger in (None, entry["ledger"])
            ]
            if arrived or left:
                whom = account if account is not None else "somebody"
                often = _often(len(arrived) + len(left))
                raise AssertionError(f"{whom} was paid {often}, expected never\n{self._story(record, account)}")

    def at_rest(self) -> None:
        """Nothing goes on by itself any more: each run has ended or waits for an event that nobody has sent, no request
        is under way, and no step waits for a part that is away. What was true before is true for good then, unless
        somebody sends something.

        Raises:
            AssertionError: something goes on.
        """
        __tracebackhide__ = True
        with self.core.lock:
            record = self._record()
            lines = Forthcoming(self.core).goings_on()
            if lines:
                shown = "\n".join(f"  {line}" for line in lines[:10])
                raise AssertionError(f"the server is not at rest:\n{shown}\n{self._story(record)}")

    def started(self, times: int, *, workflow: str | None = None) -> tuple[dict[str, Any], ...]:
        """So many runs have started by now.

        Args:
            times: how many.
            workflow: the id or the name of their workflow; None (default): of any.

        Returns:
            The entries of the record.

        Raises:
            AssertionError: more have, or fewer.
            ValueError: `times` is no number, or the server never had this workflow, but one that is called nearly so.
        """
        __tracebackhide__ = True
        if times is None:
            raise ValueError("times must be a whole number from 0, not None")
        check_times(times)
        with self.core.lock:
            record = self._record()
            Seen(self.core).check_workflow(workflow)
        found = tuple(
            entry
            for entry in record.started
            if workflow is None or workflow in (entry["workflow_id"], workflow_name(self.core, entry["workflow_id"]))
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
            ValueError: there is no such end, `times` is no number, or the server never had such a run.
        """
        __tracebackhide__ = True
        if how not in ("succeeded", "failed", "cancelled"):
            raise ValueError(f"a run ends as succeeded, failed or cancelled, not as {how!r}")
        check_times(times)
        with self.core.lock:
            record = self._record()
            Seen(self.core).check_run(instance_id)
        found = tuple(
            entry
            for entry in record.ended
            if how_it_ended(entry["error"]) == how and instance_id in (None, entry["instance_id"])
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
            ValueError: an argument makes no sense, or the server never had such a run.
        """
        __tracebackhide__ = True
        wanted = _times(once, times)
        with self.core.lock:
            record = self._record()
            Seen(self.core).check_run(instance_id)
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

    def _story(self, record: Record, account: str | None = None) -> str:
        with self.core.lock:
            return story(self.core, record, account)

    def _to_come(self, found: int, wanted: int | None, is_such: Callable[[Ahead], bool], record: Record) -> str:
        """Which payment that a sentence misses may still come, and what to do; empty where none is known."""
        if found >= (1 if wanted is None else wanted):
            return ""
        ahead = next(filter(is_such, Forthcoming(self.core).payments(record)), None)
        if ahead is None or ahead.instance_id is None:
            return ""
        return f"; run {ahead.instance_id} has not ended: wait for it first (hook.wait), since a sentence speaks of now"

    def _check_no_more(
        self,
        was: str,
        wanted: int,
        is_such: Callable[[Ahead], bool],
        record: Record,
        account: str | None = None,
    ) -> None:
        """AssertionError: a payment may still come by itself, so what is true now is not true for good."""
        __tracebackhide__ = True
        ahead = next(filter(is_such, Forthcoming(self.core).payments(record)), None)
        if ahead is not None:
            which = f"run {ahead.instance_id}" if ahead.instance_id is not None else "a run"
            raise AssertionError(
                f"{was}, expected {_expected(wanted)}: that is true now, but {which} will go on by itself: it "
                f"{ahead.why}\n{self._story(record, account)}"
            )


def _times(once: bool, times: int | None, only: bool = False) -> int | None:
    check_times(times)
    if (once or only) and times is not None:
        raise ValueError(f"give {'once' if once else 'only'} or times, not both")
    return 1 if once or only else times


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
