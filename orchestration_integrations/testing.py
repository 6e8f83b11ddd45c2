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

While a server is up, no hook of this process sends to anything but this machine and what the test allows by name. A
marker of a test that no server has followed fails the test: it would prove something else than it says. The server's
dice have a seed of the test's own, which a failing test names.

In other test frameworks ``server_for_tests`` is the same as a context manager. See docs/testing.md.
"""

from __future__ import annotations

import json
import os
import random
import zlib
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from .http_hook import OrchestrationHttpHook
    from .server import EmbeddedServer

_GENERATIONS_MARKER = "orchestration_generation"
_SERVER_MARKER = "orchestration_server"
_FIXTURE = "orchestration_server"
_GENERATION_FIXTURE = "_orchestration_generation"
_GENERATIONS = (1, 2, 3)
_OPTIONS = ("time", "patience", "seed", "allow")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PREFIX = "ORCHESTRATION_"
_CONNECTION = "AIRFLOW_CONN_ORCHESTRATION_DEFAULT"


class _Followed:
    """What became of the markers of one test."""

    def __init__(self) -> None:
        self.by_fixture = False
        self.unsaid: set[str] = set()
        """What servers were started without, by `server_for_tests` in the test itself."""
        self.seeds: list[int] = []
        """Of all servers of the test."""


_followed = pytest.StashKey[_Followed]()
_at_work: list[tuple[str, pytest.Item]] = []
"""The phase (`setup`, `call`) of the test that is running."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    config.addinivalue_line(
        "markers",
        f"{_GENERATIONS_MARKER}(*generations): which generations (1, 2, 3) of the embedded server to test with; 2",
    )
    config.addinivalue_line(
        "markers",
        f"{_SERVER_MARKER}(time='real', patience=3.0, seed=None, allow=()): time='skip': the server's clock jumps to "
        "what comes next while all that is left is waiting; time limits of waits pass after so many real seconds of "
        "nothing but that. seed: of the server's dice; of the test's own by default. allow: addresses that hooks may "
        "send to besides this machine",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each generation that its marker names."""
    marker = metafunc.definition.get_closest_marker(_GENERATIONS_MARKER)
    if marker is None:
        return
    generations = _generations(metafunc.definition)
    name = _FIXTURE
    if _FIXTURE not in metafunc.fixturenames:
        if marker not in metafunc.definition.own_markers:
            return
        name = _GENERATION_FIXTURE  # the test may ask for the server itself, by `getfixturevalue`
        metafunc.fixturenames.append(name)
    metafunc.parametrize(name, generations, indirect=True, ids=[f"generation{number}" for number in generations])


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Refuse a marker that cannot be meant, as an error of the module or class whose test has it.

    So it is told like a mistake in the module itself, also by the workers of pytest-xdist, of which an error at any
    later moment of the collection would be an error of pytest's own.
    """
    report = yield
    refused = [text for item in report.result or () if isinstance(item, pytest.Item) for text in _refusals(item)]
    if refused:
        report.outcome, report.longrepr, report.result = "failed", "\n".join(refused), []
    return report


def _refusals(item: pytest.Item) -> Iterator[str]:
    for check in (_options, _generations):
        try:
            check(item)
        except pytest.fail.Exception as error:
            yield str(error)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """A server that a fixture of the user's starts is of this test."""
    with _phase("setup", item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test whose marker was not followed fails, if it has not failed by itself."""
    with _phase("call", item):
        result = yield
    _check_markers(item)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure names the seeds of its servers."""
    report = yield
    seeds = _of(item).seeds
    if report.failed and seeds:
        text = "\n".join(
            f"seed={seed}: @pytest.mark.{_SERVER_MARKER}(seed={seed}) or server_for_tests(seed={seed}) repeats its dice"
            for seed in dict.fromkeys(seeds)
        )
        report.sections.append(("orchestration server", text))
    return report


@contextmanager
def _phase(name: str, item: pytest.Item) -> Iterator[None]:
    _at_work.append((name, item))
    try:
        yield
    finally:
        _at_work.pop()


def _of(item: pytest.Item) -> _Followed:
    return item.stash.setdefault(_followed, _Followed())


def _check_markers(item: pytest.Item) -> None:
    followed = _of(item)
    if followed.by_fixture:
        return
    own = [one.name for one in item.own_markers if one.name in (_SERVER_MARKER, _GENERATIONS_MARKER)]
    if own:
        pytest.fail(
            f"nobody followed the marker {own[0]}: the test used no fixture {_FIXTURE}. Ask for the fixture, or give "
            "server_for_tests what the marker says",
            pytrace=False,
        )
    dropped = [("time", _SERVER_MARKER)] if _options(item).get("time") == "skip" else []
    dropped += [("generation", _GENERATIONS_MARKER)] if item.get_closest_marker(_GENERATIONS_MARKER) else []
    for name, marker in dropped:
        if name in followed.unsaid:
            pytest.fail(
                f"nobody followed the marker {marker} of the test's class or module: server_for_tests was started "
                f"without {name}=. Say it there, or ask for the fixture {_FIXTURE}",
                pytrace=False,
            )


def _options(item: pytest.Item) -> dict[str, Any]:
    """What the markers of a test say; the closest one counts for each option."""
    found: dict[str, Any] = {}
    for marker in item.iter_markers(_SERVER_MARKER):
        unknown = marker.kwargs.keys() - set(_OPTIONS)
        if marker.args or unknown:
            given = ", ".join([*map(repr, marker.args), *sorted(unknown)])
            takes = f"{', '.join(_OPTIONS[:-1])} and {_OPTIONS[-1]}"
            pytest.fail(f"{item.nodeid}: {_SERVER_MARKER} takes {takes}, not {given}", pytrace=False)
        try:
            _check(marker.kwargs)
        except ValueError as error:
            pytest.fail(f"{item.nodeid}: {error}", pytrace=False)
        found = {**marker.kwargs, **found}
    return found


def _generations(item: pytest.Item) -> tuple[Any, ...]:
    """The generations that a test's closest marker names; none: it has no marker."""
    marker = item.get_closest_marker(_GENERATIONS_MARKER)
    if marker is None:
        return ()
    if not marker.args or not set(marker.args) <= set(_GENERATIONS):
        pytest.fail(f"{item.nodeid}: {_GENERATIONS_MARKER} takes some of 1, 2, 3, not {marker.args}", pytrace=False)
    return marker.args


def _check(options: Mapping[str, Any]) -> None:
    """ValueError: an option makes no sense."""
    from .http_hook.reachable import origin_of
    from .server.skipping import checked_patience

    time, patience, seed = (options.get(name) for name in ("time", "patience", "seed"))
    if time not in (None, "real", "skip"):
        raise ValueError(f"time must be 'real' or 'skip', not {time!r}")
    if patience is not None:
        checked_patience(patience)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise ValueError(f"seed must be a whole number, not {seed!r}")
    allow = options.get("allow") or ()
    if isinstance(allow, str) or not isinstance(allow, Collection):
        raise ValueError(f"allow must be a list of addresses, not {allow!r}")
    for address in allow:
        origin_of(address)


@contextmanager
def server_for_tests(
    generation: Literal[1, 2, 3] | None = None,
    *,
    time: Literal["real", "skip"] | None = None,
    patience: float | None = None,
    seed: int | None = None,
    allow: Collection[str] = (),
) -> Iterator[EmbeddedServer]:
    """A server for one test, on loopback and in memory, which every client of the test finds by itself.

    While it runs, the environment names it, for hooks (``ORCHESTRATION_URL``), Prefect's
    ``OrchestrationCredentials.from_env()`` and Airflow's connection ``orchestration_default``; whatever else the
    environment says of another server, such as its token, is not there. ``NO_PROXY`` names this machine: no client
    reaches the server through a proxy. Each hook of this process refuses to send anything to another machine.

    Args:
        generation: which generation of the real server it imitates; None (default): 2.
        time: ``real``, or ``skip``: while all that is left is waiting, its clock jumps to what comes next. None
            (default): ``real``.
        patience: real seconds in which nothing but waiting happens, after which time limits of waits pass too, with
            ``time="skip"``; None (default): 3.
        seed: of the server's dice: latencies, the order of lists, the moment of a cut. Ids are new each time. None
            (default): in a test of pytest one of its own, which is the same each time; else a random one.
        allow: addresses (``https://host:port``) that hooks may send to all the same; none by default.

    Raises:
        ValueError: an argument makes no sense.
        RuntimeError: at the end: the server has failed while it ran, such as when its time could no longer skip.
    """
    said = {"generation": generation, "time": time}
    if _at_work:
        phase, item = _at_work[-1]
        if phase == "call":
            _of(item).unsaid.update(name for name, value in said.items() if value is None)
        seed = _seed_of(item) if seed is None else seed
        _of(item).seeds.append(seed)
    options = {"time": time, "patience": patience, "seed": seed, "allow": allow}
    with _server(2 if generation is None else generation, options) as server:
        yield server


def _seed_of(item: pytest.Item) -> int:
    return zlib.crc32(item.nodeid.encode())


@contextmanager
def _server(generation: Literal[1, 2, 3], options: Mapping[str, Any]) -> Iterator[EmbeddedServer]:
    from .http_hook.reachable import only_this_machine
    from .server import EmbeddedServer

    _check(options)
    seed, allow, patience = options.get("seed"), options.get("allow") or (), options.get("patience")
    with pytest.MonkeyPatch.context() as patch, only_this_machine(allow):
        with EmbeddedServer(generation=generation, seed=seed) as server:
            # What outlives a test, such as a store of runs, must know none of the next one's runs.
            server.core.engine.agenda.ids = random.Random()  # noqa: S311
            if patience is not None:
                server.skipping.patience = patience
            _name_in_environment(patch, server)
            server.time = options.get("time") or "real"
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
def _orchestration_generation(request: pytest.FixtureRequest) -> Any:
    """The generation of a test that asks for its server by itself; `_generation` reads it."""
    return request.param


@pytest.fixture
def orchestration_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A server for one test: see ``server_for_tests``. Its markers say of which generation, and whether time skips."""
    item = request.node
    options = _options(item)
    if options.get("seed") is None:
        options["seed"] = _seed_of(item)
    generation = _generation(request)
    _of(item).by_fixture = True
    _of(item).seeds.append(options["seed"])
    with _server(generation, options) as server:
        yield server


def _generation(request: pytest.FixtureRequest) -> Literal[1, 2, 3]:
    given: Literal[1, 2, 3] | None = getattr(request, "param", None)
    if given is not None:
        return given
    call = getattr(request.node, "callspec", None)  # a test that has parameters
    chosen = call.params.get(_GENERATION_FIXTURE) if call is not None else None
    wanted = (chosen,) if chosen is not None else _generations(request.node) or (2,)
    if len(wanted) > 1:
        raise pytest.UsageError(
            f"{request.node.nodeid}: {_GENERATIONS_MARKER} of a class or a module, or of a method of unittest, names "
            f"several: this test asks for {_FIXTURE} by itself, so it cannot run once for each. Name one"
        )
    only: Literal[1, 2, 3] = wanted[0]
    return only


@pytest.fixture
def orchestration_hook(orchestration_server: EmbeddedServer) -> Iterator[OrchestrationHttpHook]:
    """A hook that talks to ``orchestration_server``."""
    from .http_hook import OrchestrationHttpHook

    with OrchestrationHttpHook(base_url=orchestration_server.url) as hook:
        yield hook
