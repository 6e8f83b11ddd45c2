"""From a request to an operation and back: faults, tokens, the calls themselves, and when an answer is there.

What the operations do stands in `workflow_calls`, `instance_calls` and `trigger_calls`; where a request leads, in
`routes`; how answers are worded, in `replies` and `shown`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import mishaps, openapi
from .calls import Call, EngineAwayError
from .exchange import Exchange, Reply, Request
from .faults import OPERATIONS, WORK, Faults
from .instance_calls import InstanceCalls
from .misread import changed
from .parts import DEADLINE
from .replies import Answers, Problem, encode
from .routes import FREE, route
from .trigger_calls import TriggerCalls
from .workflow_calls import WorkflowCalls

if TYPE_CHECKING:
    from collections.abc import Callable

    from .engine import Engine
    from .tokens import Tokens
    from .triggers import Triggers

_VERSIONS = {1: "develop", 2: "v2.2.0", 3: "v2.4.0"}


class Api:
    """Routes requests to the operations of one server."""

    def __init__(self, engine: Engine, triggers: Triggers, tokens: Tokens, faults: Faults) -> None:
        self._engine = engine
        self._tokens = tokens
        self._faults = faults
        self._generation = engine.generation
        self._answers = Answers(engine.generation, engine.parts)
        workflows = WorkflowCalls(engine, self._answers, self.complete)
        instances = InstanceCalls(engine, self._answers)
        self._operations: dict[str, Callable[[Call], Reply | None]] = {
            "info": lambda call: Reply(200, encode({"version": _VERSIONS[self._generation]})),
            "healthcheck": lambda call: Reply(200, b'{"default":"OK"}'),
            "openapi": lambda call: Reply(200, encode(openapi.document(self._generation))),
            "token": lambda call: tokens.issue(call.request),
            "list_workflows": workflows.list,
            "create_workflow": workflows.create,
            "get_workflow": workflows.get,
            "delete_workflow": workflows.delete,
            "run_workflow": workflows.run,
            "list_instances": instances.list,
            "get_instance": instances.get,
            "get_instance_history": instances.history,
            "get_stage_history": instances.stage_history,
            "send_event": instances.send_event,
            "abort_instance": instances.abort,
        }
        if engine.generation > 1:
            calls = TriggerCalls(triggers, self._answers, engine.generation)
            self._operations |= {
                "list_triggers": calls.list,
                "create_trigger": calls.create,
                "get_trigger": calls.get,
                "delete_trigger": calls.delete,
                "list_trigger_occurrences": calls.occurrences,
                "test_trigger": calls.test,
            }

    def handle(self, request: Request) -> Exchange:
        """Route a request, let the faults that are set for it happen, do what it asks."""
        exchange = Exchange()
        found = route(request, self._generation)
        if isinstance(found, Reply):
            self.complete(exchange, found)
            return exchange
        exchange.operation = found.operation
        requests = self._engine.memory.record.requests
        requests[found.operation] = requests.get(found.operation, 0) + 1
        faults = self._faults.take(found.operation) if self._faults and found.operation in OPERATIONS else []
        exchange.undecided = {fault.name: fault for fault in faults}
        rng = self._engine.agenda.rng
        if faults and not mishaps.prepare(exchange, faults, self._engine.now, rng, self._answers.internal):
            if exchange.override is not None:
                self.complete(exchange, exchange.override)
            return exchange
        if found.operation not in FREE and not self._tokens.allows(request):
            self.complete(exchange, Reply(401, headers=(("WWW-Authenticate", "Bearer"),)))
            return exchange
        work = next((fault for fault in faults if fault.kind in WORK), None)
        self._perform(Call(exchange, request, found, work))
        return exchange

    def _perform(self, call: Call) -> None:
        try:
            reply = self._operations[call.route.operation](call)
        except Problem as problem:
            reply = problem.reply
        except EngineAwayError as away:
            self._hold(call, away.prefix)
            return
        if reply is not None:
            self.complete(call.exchange, reply)

    def _hold(self, call: Call, prefix: str) -> None:
        def go_on(back: bool) -> None:
            if back:
                self._perform(call)
            else:
                self.complete(call.exchange, self._answers.failure(prefix + DEADLINE))

        self._engine.parts.hold_for_engine(go_on)

    def complete(self, exchange: Exchange, reply: Reply) -> None:
        """The answer of an exchange is there."""
        if exchange.override is not None:
            reply = exchange.override
        else:
            for what in exchange.content:
                before, reply = reply, changed(reply, what)
                if reply is not before:
                    exchange.changes.add(what)
            if exchange.bomb_bytes and reply.status < 300:
                reply = mishaps.as_bomb(reply, exchange.bomb_bytes)
                exchange.changes.add("gzip_bomb")
        if reply.body:
            exchange.changes.update(("truncated", "slow"))
        self.settle(exchange)
        exchange.reply = reply
        exchange.ready_ns = self._engine.now + exchange.stall_ns
        if exchange.cut_ns is not None:
            exchange.ready_ns = max(exchange.ready_ns, exchange.cut_ns + 1)

    def settle(self, exchange: Exchange) -> None:
        """What its faults could do to an exchange, they have done."""
        for name, fault in exchange.undecided.items():
            if name in exchange.changes:
                fault.met += 1
                exchange.faults += (fault.kind,)
        exchange.undecided = {}
