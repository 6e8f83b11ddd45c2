"""A pytest plugin: an embedded server and a hook for your own tests, with faults, and with time that skips.

Installed with the package (extra ``server``), the fixtures are simply there:

    def test_payout(orchestration_server, orchestration_hook):
        with orchestration_server.fault("run_workflow", "cut_after"):  # the answer to the next run gets lost
            ...
        orchestration_server.paid("merchants:m1", 1250, "EUR/2", once=True)

A marker says what server a test wants; several generations run the test for each:

    @pytest.mark.orchestration_server(time="skip")
    @pytest.mark.orchestration_generation(1, 2, 3)
    def test_payout(orchestration_server): ...

In other test frameworks ``server_for_tests`` is the same as a context manager. See docs/testing.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from .http_hook import OrchestrationHttpHook
    from .server import EmbeddedServer

_GENERATIONS_MARKER = "orchestration_generation"
_SERVER_MARKER = "orchestration_server"
_GENERATIONS = (1, 2, 3)
_OPTIONS = ("time", "patience")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PREFIX = "ORCHESTRATION_"
_CONNECTION = "AIRFLOW_CONN_ORCHESTRATION_DEFAULT"


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    config.addinivalue_line(
        "markers",
        f"{_GENERATIONS_MARKER}(*generations): which generations (1, 2, 3) of the embedded server to test with; 2",
    )
    config.addinivalue_line(
        "markers",
        f"{_SERVER_MARKER}(time='real', patience=3.0): time='skip': the server's clock jumps to what comes next while "
        "all that is left is waiting; time limits of waits pass after so many real seconds of nothing but that",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each generation that its marker names."""
    marker = metafunc.definition.get_closest_marker(_GENERATIONS_MARKER)
    if marker is None or "orchestration_server" not in metafunc.fixturenames:
        return
    if not marker.args or not set(marker.args) <= set(_GENERATIONS):
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: {_GENERATIONS_MARKER} takes some of 1, 2, 3, not {marker.args}"
        )
    metafunc.parametrize(
        "orchestration_server", marker.args, indirect=True, ids=[f"generation{number}" for number in marker.args]
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a marker that cannot be meant."""
    for item in items:
        _options(item)


def _options(item: pytest.Item) -> dict[str, Any]:
    """What the markers of a test say; the closest one counts for each option."""
    found: dict[str, Any] = {}
    for marker in item.iter_markers(_SERVER_MARKER):
        unknown = marker.kwargs.keys() - set(_OPTIONS)
        if marker.args or unknown:
            given = ", ".join([*map(repr, marker.args), *sorted(unknown)])
            raise pytest.UsageError(f"{item.nodeid}: {_SERVER_MARKER} takes {' and '.join(_OPTIONS)}, not {given}")
        if marker.kwargs.get("time", "real") not in ("real", "skip"):
            raise pytest.UsageError(f"{item.nodeid}: time must be 'real' or 'skip', not {marker.kwargs['time']!r}")
        if "patience" in marker.kwargs:
            _check_patience(item, marker.kwargs["patience"])
        found = {**marker.kwargs, **found}
    return found


def _check_patience(item: pytest.Item, patience: object) -> None:
    from .server.skipping import checked_patience

    try:
        checked_patience(patience)
    except ValueError as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from None


@contextmanager
def server_for_tests(
    generation: Literal[1, 2, 3] = 2, *, time: Literal["real", "skip"] = "real", patience: float | None = None
) -> Iterator[EmbeddedServer]:
    """A server for one test, on loopback and in memory, which every client of the test finds by itself.

    While it runs, the environment names it, for hooks (``ORCHESTRATION_URL``), Prefect's
    ``OrchestrationCredentials.from_env()`` and Airflow's connection ``orchestration_default``; whatever else the
    environment says of another server, such as its token, is not there. ``NO_PROXY`` names this machine: no client
    reaches the server through a proxy.

    Args:
        generation: which generation of the real server it imitates; 2.
        time: ``real`` (default), or ``skip``: while all that is left is waiting, its clock jumps to what comes next.
        patience: real seconds in which nothing but waiting happens, after which time limits of waits pass too, with
            ``time="skip"``; None (default): 3.

    Raises:
        ValueError: the patience is no number of seconds from 0.
        RuntimeError: at the end: the server has failed while it ran, such as when its time could no longer skip.
    """
    from .server import EmbeddedServer

    with pytest.MonkeyPatch.context() as patch, EmbeddedServer(generation=generation) as server:
        if patience is not None:
            server.skipping.patience = patience
        _name_in_environment(patch, server)
        server.time = time
        yield server


def _name_in_environment(patch: pytest.MonkeyPatch, server: EmbeddedServer) -> None:
    for variable in ("NO_PROXY", "no_proxy"):  # some clients read one, some the other
        hosts = [os.environ.get(variable, ""), *_LOOPBACK]
        patch.setenv(variable, ",".join(host for host in hosts if host))
    for variable in [name for name in os.environ if name.startswith(_PREFIX)]:
        patch.delenv(variable)
    patch.setenv(f"{_PREFIX}URL", server.url)
    patch.setenv(_CONNECTION, json.dumps({"conn_type": "orchestration", "host": server.url}))


@pytest.fixture
def orchestration_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A server for one test: see ``server_for_tests``. Its markers say of which generation, and whether time skips."""
    with server_for_tests(getattr(request, "param", 2), **_options(request.node)) as server:
        yield server


@pytest.fixture
def orchestration_hook(orchestration_server: EmbeddedServer) -> Iterator[OrchestrationHttpHook]:
    """A hook that talks to ``orchestration_server``."""
    from .http_hook import OrchestrationHttpHook

    with OrchestrationHttpHook(base_url=orchestration_server.url) as hook:
        yield hook
