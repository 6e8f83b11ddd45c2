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

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .http_hook import OrchestrationHttpHook
    from .server import EmbeddedServer

_MARKER = "orchestration_generation"
_GENERATIONS = (1, 2, 3)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


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
    """A server for one test, on loopback and in memory. Indirect parametrization chooses another generation.

    While it runs, ``NO_PROXY`` names this machine: no client of the test reaches the server through a proxy.
    """
    from .server import EmbeddedServer

    with EmbeddedServer(generation=getattr(request, "param", 2)) as server, pytest.MonkeyPatch.context() as patch:
        for variable in ("NO_PROXY", "no_proxy"):  # some clients read one, some the other
            hosts = [os.environ.get(variable, ""), *_LOOPBACK]
            patch.setenv(variable, ",".join(host for host in hosts if host))
        yield server


@pytest.fixture
def orchestration_hook(orchestration_server: EmbeddedServer) -> Iterator[OrchestrationHttpHook]:
    """A hook that talks to ``orchestration_server``."""
    from .http_hook import OrchestrationHttpHook

    with OrchestrationHttpHook(base_url=orchestration_server.url) as hook:
        yield hook
