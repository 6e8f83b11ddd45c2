"""A server in this process on a virtual clock, and a client that speaks to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from orchestration_integrations.server import Core, InProcessTransport, VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAIT = {"wait_event": {"event": "go"}}
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def send(amount: Any = "100", source: str = "world", destination: str = "bank", **more: Any) -> dict[str, Any]:
    """A `send` stage."""
    return {
        "send": {
            "source": {"account": {"id": source}},
            "destination": {"account": {"id": destination}},
            "amount": {"amount": amount, "asset": "USD/2"},
            **more,
        }
    }


def delay(duration: str) -> dict[str, Any]:
    """A `delay` stage."""
    return {"delay": {"duration": duration}}


class World:
    """A server of one generation, its clock and a client."""

    def __init__(self, generation: int, seed: int = 7, **options: Any) -> None:
        self.generation = generation
        self.clock = VirtualClock()
        self.core = Core(generation, clock=self.clock, seed=seed, **options)
        transport = InProcessTransport(self.core, self.clock)
        self.client = httpx.Client(transport=transport, base_url="http://server", timeout=30)

    def workflow(self, *stages: Any, name: str = "w") -> str:
        answer = self.client.post("/workflows", json={"name": name, "stages": list(stages)})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["data"]["id"])

    def run(self, workflow_id: str, variables: dict[str, str] | None = None, settle: float = 1.0) -> str:
        answer = self.client.post(f"/workflows/{workflow_id}/instances", json=variables or {})
        assert answer.status_code == 201, answer.text
        self.clock.sleep(settle)
        return str(answer.json()["data"]["id"])

    def start(self, *stages: Any, settle: float = 1.0, **variables: str) -> str:
        return self.run(self.workflow(*stages), variables, settle)

    def workflow_of(self, instance_id: str) -> str:
        return self.core.engine.instances[instance_id].workflow_id

    def get(self, path: str) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        return body.get("data", body)

    def instance(self, instance_id: str) -> dict[str, Any]:
        data = self.get(f"/instances/{instance_id}")
        data.get("status", []).sort(key=lambda row: row["stage"])
        return dict(data)

    def history(self, instance_id: str, stage: int | None = None) -> list[dict[str, Any]]:
        return list(self.get(f"/instances/{instance_id}" + ("" if stage is None else f"/stages/{stage}") + "/history"))

    def event(self, instance_id: str, name: str = "go") -> httpx.Response:
        return self.client.post(f"/instances/{instance_id}/events", json={"name": name})

    def abort(self, instance_id: str) -> httpx.Response:
        return self.client.put(f"/instances/{instance_id}/abort")

    def error(self, answer: httpx.Response) -> tuple[int, str, str]:
        body = answer.json()
        return answer.status_code, body["errorCode"], body["errorMessage"]


@pytest.fixture
def world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(generation: int, **options: Any) -> World:
        made.append(World(generation, **options))
        return made[-1]

    yield make
    for one in made:
        one.client.close()
        one.core.close()
