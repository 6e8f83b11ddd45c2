"""A pytest plugin: an embedded server and a hook for your own tests, with faults and a movable clock.

Installed with the package (extra ``server``), the fixtures are simply there:

    def test_payout(orchestration_server, orchestration_hook):
        orchestration_server.fault("run_workflow", "cut_after")   # the answer to the next run gets lost
        ...
        assert orchestration_server.balance("merchants:m1", "EUR/2") == 1250

The server's generation is 2; ask for others with a marker, several of them run the test for each:

    @pytest.mark.orchestration_generation(1, 2, 3)
    def test_payout(orchestration_server): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .http_hook import OrchestrationHttpHook
    from .server import EmbeddedServer

_MARKER = "orchestration_generation"
_GENERATIONS = (1, 2, 3)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", f"{_MARKER}(*generations): which generations (1, 2, 3) of the embedded server to test with; 2"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each generation that its marker names."""
    marker = metafunc.definition.get_closest_marker(_MARKER)
    if marker is None or "orchestration_server" not in metafunc.fixturenames:
        return
    if not marker.args or not set(marker.args) <= set(_GENERATIONS):
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: {_MARKER} takes some of 1, 2, 3, not {marker.args}")
    metafunc.parametrize(
        "orchestration_server", marker.args, indirect=True, ids=[f"generation{number}" for number in marker.args]
    )


@pytest.fixture
def orchestration_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A server of its own for each test, on loopback, in memory; by indirect parametrization of another generation."""
    from .server import EmbeddedServer

    with EmbeddedServer(generation=getattr(request, "param", 2)) as server:
        yield server


@pytest.fixture
def orchestration_hook(orchestration_server: EmbeddedServer) -> Iterator[OrchestrationHttpHook]:
    """A hook that talks to ``orchestration_server``."""
    from .http_hook import OrchestrationHttpHook

    with OrchestrationHttpHook(base_url=orchestration_server.url) as hook:
        yield hook
