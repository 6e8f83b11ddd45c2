"""From a request for a run to the run: the row, the launch, the answer, and those who wait for the end.

Generation 1 writes the instance's row first and then asks the engine: where that fails, the row stays without a run
behind it, a ghost. Later generations ask the engine first and a worker writes the row: it can come late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clock import SECOND
from .parts import DEADLINE, DatabaseAwayError
from .state import Instance, Workflow

if TYPE_CHECKING:
    from .agenda import Agenda
    from .exchange import Exchange
    from .memory import Memory
    from .parts import Parts


class Starting:
    """The beginnings of runs, and the exchanges that wait for an answer about one."""

    def __init__(self, agenda: Agenda, memory: Memory, parts: Parts) -> None:
        self._agenda = agenda
        self._memory = memory
        self._parts = parts
        self._exchanges: dict[int, Exchange] = {}
        self._waiters: dict[str, list[Exchange]] = {}

    def submit(
        self, exchange: Exchange, workflow: Workflow, variables: dict[str, str], wait: bool, late_ns: int
    ) -> None:
        """A request for a run. The answer goes through `exchange.on_instance` and `on_error`."""
        ticket = self._agenda.ticket()
        self._exchanges[ticket] = exchange
        timing = self._agenda.timing
        first = self._memory.generation == 1
        kind, delay = ("run_insert", timing.row_insert) if first else ("launch", timing.run_start)
        self._agenda.after(delay, kind, ticket, workflow.id, variables, wait, late_ns)

    def add_instance(self, instance_id: str, workflow_id: str, variables: dict[str, str], late_ns: int) -> Instance:
        """A row without a run."""
        now = self._agenda.now
        instance = Instance(instance_id, workflow_id, now, variables, now + late_ns if late_ns else 0)
        self._memory.instances[instance_id] = instance
        self._memory.store.touch(instance)
        return instance

    def begin_run(self, instance: Instance) -> None:
        """The engine has a run for this row from now on."""
        instance.started = True
        self._memory.store.touch(instance)
        self._memory.record.started.append(
            {
                "instance_id": instance.id,
                "workflow_id": instance.workflow_id,
                "variables": dict(instance.variables),
                "at": self._agenda.now / SECOND,
            }
        )
        self._agenda.after(self._agenda.timing.first_stage, "begin", instance.id, 0)

    def has_ended(self, instance: Instance) -> None:
        """Answer those who waited for the end of a run."""
        for exchange in self._waiters.pop(instance.id, ()):
            if exchange.on_instance is not None:
                exchange.on_instance(instance, True)

    @property
    def waiters(self) -> int:
        """How many exchanges wait for the end of a run."""
        return sum(map(len, self._waiters.values()))

    # ---- steps ----------------------------------------------------------------------------------------

    def run_insert(self, ticket: int, workflow_id: str, variables: dict[str, str], wait: bool, late_ns: int) -> None:
        """Generation 1: the row."""
        exchange = self._client(ticket)
        if exchange is None:
            return
        try:
            self._parts.check_database()
        except DatabaseAwayError as error:
            self._fail(ticket, exchange, str(error))
            return
        instance = self.add_instance(self._agenda.uuid(), workflow_id, variables, late_ns)
        self._agenda.after(self._agenda.timing.run_start, "run_start", ticket, instance.id, wait)

    def run_start(self, ticket: int, instance_id: str, wait: bool) -> None:
        """Generation 1: the engine takes the run. If the client has left by now, the row stays: a ghost."""
        exchange = self._client(ticket)
        if exchange is None or not self._engine_is_up(exchange, "run_start", ticket, instance_id, wait):
            return
        self.begin_run(self._memory.instances[instance_id])
        self._answer_soon(ticket, instance_id, wait)

    def launch(self, ticket: int, workflow_id: str, variables: dict[str, str], wait: bool, late_ns: int) -> None:
        """Later generations: the engine takes the launcher of the run."""
        exchange = self._client(ticket)
        args = (workflow_id, variables, wait, late_ns)
        if exchange is None or not self._engine_is_up(exchange, "launch", ticket, *args):
            return
        self._agenda.after(self._agenda.timing.initiate, "initiate", ticket, self._agenda.uuid(), *args)

    def initiate(
        self, ticket: int, instance_id: str, workflow_id: str, variables: dict[str, str], wait: bool, late_ns: int
    ) -> None:
        """Later generations: a worker writes the row and starts the run, whether its client is there or not."""
        self.begin_run(self.add_instance(instance_id, workflow_id, variables, late_ns))
        self._answer_soon(ticket, instance_id, wait)

    def answer(self, ticket: int, instance_id: str, waited: bool) -> None:
        """The answer goes out."""
        exchange = self._exchanges.pop(ticket, None)
        if exchange is not None and exchange.on_instance is not None:
            exchange.on_instance(self._memory.instances[instance_id], waited)

    def has_client(self, ticket: int) -> bool:
        """Whether the request for a run is still there that a step belongs to."""
        exchange = self._exchanges.get(ticket)
        return exchange is not None and not exchange.gone

    def _client(self, ticket: int) -> Exchange | None:
        """The exchange if its client is still there; after a restart none is."""
        exchange = self._exchanges.get(ticket)
        if exchange is not None and not exchange.gone:
            return exchange
        self._exchanges.pop(ticket, None)
        return None

    def _engine_is_up(self, exchange: Exchange, kind: str, ticket: int, *args: object) -> bool:
        if self._parts.up["engine"]:
            return True

        def go_on(back: bool) -> None:
            if back:
                self._agenda.after(self._agenda.timing.resume, kind, ticket, *args)
            else:
                self._fail(ticket, exchange, DEADLINE)

        self._parts.hold_for_engine(go_on)
        return False

    def _answer_soon(self, ticket: int, instance_id: str, wait: bool) -> None:
        exchange = self._exchanges.get(ticket)
        if exchange is None:
            return
        if wait and self._memory.generation != 2:
            del self._exchanges[ticket]
            self._waiters.setdefault(instance_id, []).append(exchange)
        else:
            self._agenda.after(self._agenda.timing.run_answer, "answer", ticket, instance_id, wait)

    def _fail(self, ticket: int, exchange: Exchange, text: str) -> None:
        self._exchanges.pop(ticket, None)
        if exchange.on_error is not None:
            exchange.on_error(text)
