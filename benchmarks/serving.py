"""The embedded server in a process of its own, told by lines what should happen: ``python -m benchmarks.serving``."""

from __future__ import annotations

import heapq
import json
import random
import sys
import threading
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from orchestration_integrations.server import EmbeddedServer
from orchestration_integrations.server.core import Core, Exchange, Request

from .measuring import obey

GATE = [{"wait_event": {"event": "end"}}]


class Wire:
    """Counts what goes over all connections of this process, heads included."""

    def __init__(self) -> None:
        self.total = 0
        read, send = H11Protocol.data_received, h11.Connection.send

        def data_received(protocol: H11Protocol, data: bytes) -> None:
            self.total += len(data)
            read(protocol, data)

        def counted(connection: h11.Connection, event: Any) -> bytes | None:
            data = send(connection, event)
            self.total += len(data or b"")
            return data

        H11Protocol.data_received = data_received  # type: ignore[method-assign]
        h11.Connection.send = counted  # type: ignore[method-assign, assignment]


class Scene:
    """Runs that wait until they are told to end, at instants that are chosen beforehand."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._due: list[tuple[float, str]] = []
        self._woken = threading.Condition()
        threading.Thread(target=self._ending, daemon=True).start()

    def _post(self, path: str, body: Any) -> Exchange:
        return self.core.handle(
            Request("POST", path, "", {"content-type": "application/json"}, json.dumps(body).encode())
        )

    def workflow(self, stages: list[Any]) -> str:
        """The id of a new workflow."""
        reply = self._post("/workflows", {"name": "waits", "stages": stages}).reply
        assert reply is not None
        return str(json.loads(reply.body)["data"]["id"])

    def running(self, count: int) -> list[str]:
        """The ids of new runs, each waiting in its only stage."""
        workflow, known = self.workflow(GATE), set(self.core.engine.instances)
        asked = [self._post(f"/workflows/{workflow}/instances", {}) for _ in range(count)]
        while True:
            self.core.pump()
            with self.core.lock:
                mine = [one for one in self.core.engine.instances.values() if one.id not in known]
                if len(mine) == count and all(one.runs for one in mine):
                    for exchange in asked:  # as the server does once a client has its answer
                        self.core.forget(exchange)
                    return [one.id for one in mine]
            time.sleep(0.05)

    def end(self, ids: list[str], within: float) -> None:
        """Let runs end, spread over so many seconds from now."""
        with self._woken:
            now = time.time()
            for one in ids:
                heapq.heappush(self._due, (now + random.random() * within, one))
            self._woken.notify()

    def _ending(self) -> None:
        pushes = 0
        while True:
            with self._woken:
                now = time.time()
                due = []
                while self._due and self._due[0][0] <= now:
                    due.append(heapq.heappop(self._due)[1])
                if not due and not pushes:
                    self._woken.wait(self._due[0][0] - now if self._due else None)
                    continue
            for one in due:
                self._post(f"/instances/{one}/events", {"name": "end"})
            pushes = 10 if due else pushes - 1  # the server moves on by requests and by such pushes
            time.sleep(0.01)
            self.core.pump()

    def end_all(self) -> None:
        """Let all runs end, and return when they have."""
        with self._woken:
            self._due.clear()
        for _ in range(3):
            with self.core.lock:
                left = [one.id for one in self.core.engine.instances.values() if one.terminated_ns is None]
            for one in left:
                self._post(f"/instances/{one}/events", {"name": "end"})
            for _ in range(20 if left else 0):
                time.sleep(0.02)
                self.core.pump()


def main() -> None:
    """Serve until the last line has been read."""
    generation = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    wire = Wire()
    with EmbeddedServer(generation=generation) as server:  # type: ignore[arg-type]
        scene = Scene(server.core)

        def orders(do: str, given: dict[str, Any]) -> Any:
            if do == "url":
                return server.url
            if do == "workflow":
                return scene.workflow(given["stages"])
            if do == "running":
                return scene.running(given["count"])
            if do == "end":
                return scene.end(given["ids"], given["within"])
            if do == "end_all":
                return scene.end_all()
            if do == "ended":
                return {one["instance_id"]: one["at"] for one in server.record().ended}
            if do == "usage":
                with server.core.lock:  # `server.record()` copies all that has happened, and would be measured
                    requests = dict(server.core.engine.memory.record.requests)
                return {"at": time.time(), "cpu": time.process_time(), "bytes": wire.total, "requests": requests}
            raise ValueError(do)

        obey(orders)


if __name__ == "__main__":
    main()
