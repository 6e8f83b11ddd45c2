"""What a server still does by itself, if nobody sends it anything any more.

What has happened is no end of it: a run in a delay, a payment that is tried again, a step that waits for a part which
is away, a call on its way to the ledger and a request that is under way all go on. A run that waits for an event does
not: a gate is such a wait. So the sends ahead of a run are those before its next wait for an event.

All of it is asked under the core's lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from . import definitions
from .standing import where_it_stands
from .wallets import balance_account

if TYPE_CHECKING:
    from .core import Core
    from .record import Record
    from .state import Instance, StageRun

_PAYING = frozenset({"CreateTransaction", "CreditWallet", "DebitWallet", "StripeTransfer", "CreateTransferInitiation"})


class Ahead(NamedTuple):
    """A payment that may still be made by itself. What is None is not known, and may be anything.

    Attributes:
        instance_id: the run; None: it has not begun.
        why: it may come, as the rest of a sentence about the run.
        arrives: the ledgers and accounts where it may arrive.
        source: the account that it comes from.
        via: the provider and the connector of a payout; empty for any other payment.
    """

    instance_id: str | None
    why: str
    arrives: tuple[tuple[str, str], ...] | None
    source: str | None
    via: tuple[str, ...] | None
    amount: int | None
    asset: str | None


def waits_quietly(run: StageRun | None) -> bool:
    """Whether a stage's work is a wait for an event that nobody has sent."""
    return run is not None and run.terminated_ns is None and run.kind == "wait_event" and not run.waking


class Forthcoming:
    """What is still to come on one server."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._memory = core.engine.memory

    def goings_on(self) -> list[str]:
        """Everything that goes on by itself, in words; none: the server is at rest."""
        core = self._core
        lines = []
        aborted = {args[0] for kind, args in self._steps() if kind == "cancel"}
        for instance in self._memory.instances.values():
            if not instance.started or instance.ended:
                continue
            if not waits_quietly(_latest(instance)):
                lines.append(f"run {instance.id} {where_it_stands(instance)}")
            elif instance.id in aborted:
                lines.append(f"run {instance.id} is about to hear of an abort")
        lines += [f"a call of run {instance_id} is on its way" for instance_id, _ in self._calls_of_closed_stages()]
        lines += [f"a run of workflow {workflow_id} is about to begin" for _, workflow_id, _ in self._beginnings()]
        if core.held:
            lines.append(f"requests under way: {len(core.held)}")
        parts = core.engine.parts
        if parts.parked or parts.stalled:
            away = ", ".join(part for part, up in parts.up.items() if not up)
            lines.append(f"steps that wait for a part that is away ({away}): {len(parts.parked) + len(parts.stalled)}")
        return lines

    def payments(self, record: Record) -> Iterator[Ahead]:
        """Payments that may still be made."""
        for instance in self._memory.instances.values():
            if instance.started and not instance.ended and not instance.cancelled:
                yield from self._of_a_run(instance, record)
        for ended, number in self._calls_of_closed_stages():
            run = self._memory.instances[ended].runs[number]
            yield self._ahead(ended, f"was cancelled, and a call of stage {number} is on its way", run.resolved)
        for instance_id, workflow_id, variables in self._beginnings():
            for number, resolved in self._sends(workflow_id, variables, 0):
                why = f"is about to begin, of workflow {workflow_id}, and stage {number} pays"
                yield self._ahead(instance_id, why, resolved)
        if self._core.engine.parts.holding and any(one.operation == "run_workflow" for one in self._core.held):
            yield Ahead(None, "is asked for by a request that waits for the engine", None, None, None, None, None)

    # ---- runs ----------------------------------------------------------------------------------------

    def _of_a_run(self, instance: Instance, record: Record) -> Iterator[Ahead]:
        run = _latest(instance)
        if run is not None and (run.error or (run.kind == "wait_event" and _still_waits(run))):
            return
        # A stage whose work is open is still to do, unless it waits: its event has come.
        open_work = run is not None and run.terminated_ns is None and run.kind != "wait_event"
        first = 0 if run is None else run.number + (not open_work)
        stands = where_it_stands(instance)
        for number, resolved in self._sends(instance.workflow_id, instance.variables, first):
            ahead = self._ahead(instance.id, f"{stands}, and stage {number} pays", resolved)
            if run is None or number != run.number or not self._is_paid(instance, run, record, ahead):
                yield ahead

    def _sends(
        self, workflow_id: str, variables: dict[str, str] | None, first: int
    ) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """The sends of a workflow from a stage on, up to the next wait for an event."""
        generation = self._memory.generation
        for number, stage in enumerate((self._memory.workflows[workflow_id].stages or [])[first:], first):
            ((kind, raw),) = stage.items()
            if kind == "wait_event":
                return
            if kind != "send":
                continue
            if variables is None:
                yield number, None
                continue
            try:
                resolved = definitions.resolve(kind, raw, variables, generation)
            except definitions.DefinitionError:
                return  # the run fails there
            if definitions.requirements(kind, resolved, generation) is not None:
                return
            yield number, resolved

    def _is_paid(self, instance: Instance, run: StageRun, record: Record, ahead: Ahead) -> bool:
        """Whether a stage under way has paid, and does not pay once more."""
        of_stage = (instance.id, run.number)
        done = {
            one["attempt"]
            for one in record.money
            if (one["instance_id"], one["stage"]) == of_stage
            and (one["ledger"], one["posting"]["destination"]) in (ahead.arrives or ())
        } | {one["attempt"] for one in record.payouts if (one["instance_id"], one["stage"]) == of_stage and ahead.via}
        if not done or self._memory.generation > 1:  # later calls have a key: what is repeated takes no effect
            return bool(done)
        parts, last = self._core.engine.parts, run.activities[-1]
        stuck = [*parts.stalled, *(args for kind, args in parts.parked if kind.startswith("act_"))]
        if any(tuple(args[:2]) == of_stage for args in stuck):
            return False
        return last.terminated_ns is not None or last.attempt in done

    # ---- what is under way ---------------------------------------------------------------------------

    def _steps(self) -> Iterator[tuple[str, list[Any]]]:
        yield from self._core.engine.agenda.pending()
        yield from self._core.engine.parts.parked

    def _calls_of_closed_stages(self) -> Iterator[tuple[str, int]]:
        """Payments that reach their service although nobody waits for them any more: after a cancel."""
        calls = [args for kind, args in self._steps() if kind == "act_call"]
        outside = self._memory.outside
        for instance_id, number, index, _ in [*calls, *self._core.engine.parts.stalled]:
            run = self._memory.instances[instance_id].runs[number]
            if run.terminated_ns is None or run.activities[index].name not in _PAYING:
                continue
            key = f"{instance_id}-{number}-{index}"
            if self._memory.generation > 1 and (key in outside.ledger.by_key or key in outside.payments.references):
                continue
            yield instance_id, number

    def _beginnings(self) -> Iterator[tuple[str | None, str, dict[str, str] | None]]:
        """Runs that are about to begin: their id, where it is known, their workflow and variables."""
        engine = self._core.engine
        for kind, args in self._steps():
            if kind == "initiate":
                yield args[1], args[2], args[3]
            elif kind in ("run_insert", "launch") and engine.starting.has_client(args[0]):
                yield None, args[1], args[2]
            elif kind == "run_start" and engine.starting.has_client(args[0]):
                instance = engine.instances[args[1]]
                yield instance.id, instance.workflow_id, instance.variables
            elif kind == "fire":
                yield None, self._core.triggers.by_id[args[0]].workflow_id, None

    # ---- where a send pays ---------------------------------------------------------------------------

    def _ahead(self, instance_id: str | None, why: str, resolved: dict[str, Any] | None) -> Ahead:
        if resolved is None:
            return Ahead(instance_id, why, None, None, None, None, None)
        amount = resolved["amount"] or {"amount": None, "asset": None}
        source, destination = resolved["source"]["account"], resolved["destination"]
        payment = destination["payment"]
        via = () if payment is None else tuple(one for one in (payment["psp"], payment.get("connectorId")) if one)
        where = tuple(self._arrives(destination))
        from_account = source["id"] if source is not None else None
        return Ahead(instance_id, why, where, from_account, via, amount["amount"], amount["asset"])

    def _arrives(self, destination: dict[str, Any]) -> Iterator[tuple[str, str]]:
        account, wallet = destination["account"], destination["wallet"]
        if account is not None:
            yield account["ledger"], account["id"]
        if wallet is not None:
            for one in self._memory.outside.wallets.by_id.values():
                if wallet["id"] == one["id"] or (wallet.get("name") and wallet["name"] == one["name"]):
                    yield one["ledger"], balance_account(one["id"], wallet["balance"])


def _latest(instance: Instance) -> StageRun | None:
    return instance.runs.get(max(instance.runs, default=-1))


def _still_waits(run: StageRun) -> bool:
    """Whether a wait for an event has not been sent that event."""
    return run.terminated_ns is None and run.resolved["event"] not in (*run.queue, *run.batch, *run.later)
