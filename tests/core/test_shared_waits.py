"""Waits of hooks that share a poll, over a socket: in threads, on a loop, in one call; and hints."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from orchestration_integrations import (
    AsyncOrchestrationHttpHook,
    InstanceFailedError,
    OrchestrationHttpHook,
    RunResult,
    ValidationError,
    WaitTimeoutError,
    hint,
)
from orchestration_integrations.api.errors import UnreadableAnswerError
from orchestration_integrations.api.running import decode_running
from orchestration_integrations.clock import AttentiveClock
from orchestration_integrations.http_hook import background, hints, waits
from orchestration_integrations.procedures.listing import Versions
from orchestration_integrations.procedures.snapshots import RunningInstances
from orchestration_integrations.server import Core, EmbeddedServer, InProcessTransport, VirtualClock

WAITS = {"name": "waits", "stages": [{"wait_event": {"event": "go"}}]}
FAILS = {
    "send": {
        "source": {"account": {"id": "world"}},
        "destination": {"account": {"id": "bad account!"}},
        "amount": {"amount": 1, "asset": "EUR/2"},
    }
}


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as started:
        yield started


@pytest.fixture
def hook(server: EmbeddedServer) -> Iterator[OrchestrationHttpHook]:
    with OrchestrationHttpHook(base_url=server.url) as one:
        yield one


def begun(hook: OrchestrationHttpHook, count: int, stages: list[dict[str, object]] | None = None) -> list[str]:
    workflow = hook.create_workflow(WAITS if stages is None else {"name": "other", "stages": stages})
    ids = [hook.run_workflow(workflow.id).id for _ in range(count)]
    for instance_id in ids:
        while not hook.get_instance(instance_id).status:
            time.sleep(0.01)
    return ids


def requests_of(server: EmbeddedServer) -> Counter[str]:
    return Counter(server.record().requests)


# ---- in one call ---------------------------------------------------------------------------------------


def test_wait_many_tells_each_as_it_ends(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    ids = begun(hook, 5)
    failing = begun(hook, 1, [{"wait_event": {"event": "go"}}, FAILS])
    hook.send_event_when_ready(ids[1], "go")
    hook.send_event_when_ready(failing[0], "go")
    told = dict(hook.wait_many([*ids, *failing, ids[0]], timeout=1.5, poll_interval=0.3))
    assert set(told) == {*ids, *failing}
    kinds = {instance_id: type(what) for instance_id, what in told.items()}
    assert kinds.pop(ids[1]) is RunResult
    assert kinds.pop(failing[0]) is InstanceFailedError
    assert set(kinds.values()) == {WaitTimeoutError}


def test_wait_many_of_the_asynchronous_hook(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    ids = begun(hook, 30)

    async def main() -> list[str]:
        async with AsyncOrchestrationHttpHook(base_url=server.url) as other:
            before = requests_of(server)
            told: list[str] = []
            async for instance_id, result in other.wait_many(ids, poll_interval=0.5):
                assert isinstance(result, RunResult)
                told.append(instance_id)
            sent = requests_of(server) - before
            assert sent["get_instance"] == 30
            await asyncio.sleep(0.1)  # a task that was cancelled ends with its next turn
            assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            return told

    def end_them() -> None:
        time.sleep(1.0)
        for instance_id in ids:
            hook.send_event(instance_id, "go")

    ender = threading.Thread(target=end_them)
    ender.start()
    assert set(asyncio.run(main())) == set(ids)
    ender.join()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no loop begins tasks at once there")
@pytest.mark.parametrize("count", [1, 30])
def test_a_loop_that_begins_tasks_at_once_tells_the_ends_too(
    server: EmbeddedServer, hook: OrchestrationHttpHook, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    ids = begun(hook, count, [{"delay": {"duration": "1s"}}])

    async def main() -> set[str]:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async with AsyncOrchestrationHttpHook(base_url=server.url) as other:
            again = {instance_id async for instance_id, _ in other.wait_many(ids, poll_interval=0.5)}
            return again | {instance_id async for instance_id, _ in other.wait_many(ids, timeout=5.0)}

    assert asyncio.run(asyncio.wait_for(main(), 15.0)) == set(ids)
    assert "has made a mistake" not in caplog.text


def test_an_iterator_that_is_closed_early_waits_no_longer(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    ids = begun(hook, 3)
    hook.send_event_when_ready(ids[0], "go")
    results = hook.wait_many(ids, poll_interval=0.2)
    assert next(results)[0] == ids[0]
    results.close()
    time.sleep(0.3)
    before = requests_of(server)
    time.sleep(1.0)
    assert requests_of(server) == before


def test_any_number_of_ids_in_any_collection_will_do(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    ids = begun(hook, 3)
    for one in ids:
        hook.send_event_when_ready(one, "go")
    for given in (set(ids), tuple(ids), (one for one in ids), dict.fromkeys(ids)):
        assert {name for name, _ in hook.wait_many(given, timeout=20)} == set(ids)


def test_a_payment_that_keeps_failing_is_given_up(
    server: EmbeddedServer, hook: OrchestrationHttpHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration_integrations import InstanceStuckError, watching

    monkeypatch.setattr(watching, "CLOSER_LOOK_SECONDS", 1.0)
    poor = {"send": {**FAILS["send"], "source": {"account": {"id": "poor"}}, "destination": {"account": {"id": "a"}}}}
    ids = [*begun(hook, 2, [poor]), *begun(hook, 1)]
    results = dict(hook.wait_many(ids, timeout=25, poll_interval=0.5, fail_after_attempts=2))
    stuck = [results[one] for one in ids[:2]]
    assert [one.reason for one in stuck if isinstance(one, InstanceStuckError)] == ["attempts"] * 2
    assert isinstance(results[ids[2]], WaitTimeoutError)


@pytest.mark.parametrize("limit", [None, 60.0])
def test_a_loop_that_stands_still_holds_up_no_thread(
    server: EmbeddedServer, hook: OrchestrationHttpHook, monkeypatch: pytest.MonkeyPatch, limit: float | None
) -> None:
    """Something that blocks the background loop is a fault of its own; waits in threads go on by themselves."""
    for module in (background, waits):
        monkeypatch.setattr(module, "CHECK_SECONDS", 0.5)
    ids = begun(hook, 3)
    results: list[RunResult] = []
    threads = [
        threading.Thread(target=lambda one=one: results.append(hook.wait(one, poll_interval=0.5, timeout=limit)))
        for one in ids
    ]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 20
    while requests_of(server)["list_instances"] < 2 and time.monotonic() < until:
        time.sleep(0.1)
    free = threading.Event()
    background.background_loop().call_soon_threadsafe(free.wait, 30)
    try:
        for one in ids:
            hook.send_event_when_ready(one, "go")
        for thread in threads:
            thread.join(15)
        assert len(results) == 3
    finally:
        free.set()


def test_nothing_is_asked_for_nobody(hook: OrchestrationHttpHook, server: EmbeddedServer) -> None:
    before = requests_of(server)
    assert list(hook.wait_many([])) == []
    assert requests_of(server) == before


@pytest.mark.parametrize(
    ("ids", "options", "path"),
    [
        ("one id", {}, "instance_ids"),
        (7, {}, "instance_ids"),
        ([""], {}, "instance_id"),
        (["i"], {"poll_interval": 0}, "poll_interval"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(
    hook: OrchestrationHttpHook, server: EmbeddedServer, ids: object, options: dict[str, float], path: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        hook.wait_many(ids, **options)  # type: ignore[arg-type]
    assert caught.value.path == path
    assert not requests_of(server)


def test_a_blocking_transport_of_the_users_serves_too() -> None:
    clock = VirtualClock()
    core = Core(2, clock=clock)
    with OrchestrationHttpHook(
        base_url="http://orchestration", clock=clock, transport=InProcessTransport(core, clock)
    ) as hook:
        instance_id = hook.run_workflow(hook.create_workflow(WAITS).id).id
        clock.sleep(1)
        hook.send_event_when_ready(instance_id, "go")
        assert [name for name, _ in hook.wait_many([instance_id])] == [instance_id]


# ---- each by itself -------------------------------------------------------------------------------------


def test_waits_in_threads_share_a_poll(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    ids = begun(hook, 24)
    results: dict[str, RunResult] = {}

    def wait(instance_id: str) -> None:
        with OrchestrationHttpHook(base_url=server.url) as own:
            results[instance_id] = own.wait(instance_id, poll_interval=0.5)

    threads = [threading.Thread(target=wait, args=(one,)) for one in ids]
    for thread in threads:
        thread.start()
    time.sleep(2.0)
    before = requests_of(server)
    time.sleep(4.0)
    sent = requests_of(server) - before
    assert sent["list_instances"] >= 4
    assert sent["get_instance"] <= 10, "alone, they would have asked some 190 times"
    for instance_id in ids:
        hook.send_event_when_ready(instance_id, "go")
    for thread in threads:
        thread.join(30)
    assert set(results) == set(ids)


def test_waits_on_a_loop_share_a_poll_and_time_out_by_themselves(
    server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    ids = begun(hook, 24)

    async def main() -> None:
        async with AsyncOrchestrationHttpHook(base_url=server.url) as one:
            before = requests_of(server)
            begun_at = time.monotonic()
            outcomes = await asyncio.gather(
                *(one.wait(instance_id, poll_interval=0.5, timeout=4) for instance_id in ids), return_exceptions=True
            )
            assert time.monotonic() - begun_at < 9
            assert {type(outcome) for outcome in outcomes} == {WaitTimeoutError}
            sent = requests_of(server) - before
            assert sent["get_instance"] <= 24 * 4, "a first look, a last look, and little between"
            assert sent["list_instances"] >= 4

    asyncio.run(main())


def test_many_short_runs_are_told_soon_however_long_the_interval(
    server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    ids = begun(hook, 30)

    async def main() -> None:
        async with AsyncOrchestrationHttpHook(base_url=server.url) as other:
            waits_ = [asyncio.create_task(other.wait(one, poll_interval=60.0, timeout=30)) for one in ids]
            await asyncio.sleep(0.1)
            for one in ids:
                await other.send_event(one, "go")
            await asyncio.wait_for(asyncio.gather(*waits_), 20)

    before = requests_of(server)
    asyncio.run(main())
    sent = requests_of(server) - before
    assert sent["get_instance"] <= 3 * 30
    assert sent["list_instances"] <= 20


def test_waits_on_loops_of_their_own_share_a_poll(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    """As the asynchronous tasks that Prefect submits: each has a loop to itself."""
    ids = begun(hook, 24)
    results: dict[str, RunResult] = {}

    def wait(instance_id: str) -> None:
        async def main() -> None:
            async with AsyncOrchestrationHttpHook(base_url=server.url) as own:
                results[instance_id] = await own.wait(instance_id, poll_interval=0.5)

        asyncio.run(main())

    threads = [threading.Thread(target=wait, args=(one,)) for one in ids]
    for thread in threads:
        thread.start()
    time.sleep(2.0)
    before = requests_of(server)
    time.sleep(4.0)
    sent = requests_of(server) - before
    assert 4 <= sent["list_instances"] <= 12, "one list for all, not one for each"
    assert sent["get_instance"] <= 10, "alone, they would have asked some 190 times"
    assert hint(ids[0]), "those who sleep elsewhere are told too"
    for instance_id in ids:
        hook.send_event_when_ready(instance_id, "go")
    for thread in threads:
        thread.join(30)
    assert set(results) == set(ids)


def test_a_wait_whose_loop_was_closed_over_it_is_dropped(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    """Nothing is kept of it, and those who wait elsewhere go on."""
    lost, kept = begun(hook, 2)
    results: list[RunResult] = []
    thread = threading.Thread(target=lambda: results.append(hook.wait(kept, poll_interval=0.3)))
    thread.start()
    own = AsyncOrchestrationHttpHook(base_url=server.url)
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(own.wait(lost, poll_interval=0.3))
    loop.run_until_complete(asyncio.sleep(1.0))
    meeting = waits.meeting_of(own)
    assert len(meeting.places) == 2
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]  # of asyncio: this is on purpose
    loop.close()
    hook.send_event_when_ready(lost, "go")
    until = time.monotonic() + 20
    while len(meeting.places) > 1 and time.monotonic() < until:
        time.sleep(0.1)
    hook.send_event_when_ready(kept, "go")
    thread.join(20)
    assert [one.instance.id for one in results] == [kept]
    assert not meeting.places
    del waiting


class Unwanted(Exception):
    """What a look raises."""


@pytest.mark.parametrize("company", [0, 2], ids=["alone", "in company"])
@pytest.mark.parametrize("kind", ["thread", "loop"])
def test_whoever_sleeps_looks_up_as_often_as_its_clock_says(
    server: EmbeddedServer, hook: OrchestrationHttpHook, kind: str, company: int
) -> None:
    """The look is that of the one that sleeps, also where it sleeps in the watch of all: the others sleep on."""
    ids = begun(hook, 1 + company)
    looks: list[float] = []

    def look() -> None:
        looks.append(time.monotonic())
        if len(looks) == 12:
            raise Unwanted

    clock = AttentiveClock(look, 0.3)

    def wait() -> None:
        with OrchestrationHttpHook(base_url=server.url, clock=clock) as own:
            own.wait(ids[0], poll_interval=60)

    async def await_() -> None:
        async with AsyncOrchestrationHttpHook(base_url=server.url, clock=clock) as own:
            await own.wait(ids[0], poll_interval=60)

    results: list[RunResult] = []
    others = [threading.Thread(target=lambda one=one: results.append(hook.wait(one))) for one in ids[1:]]
    for other in others:
        other.start()
    begun_at = time.monotonic()
    with pytest.raises(Unwanted):
        wait() if kind == "thread" else asyncio.run(await_())
    assert time.monotonic() - begun_at < 12, "not at its next look at the instance"
    assert all(other.is_alive() for other in others)
    for one in ids[1:]:
        hook.send_event_when_ready(one, "go")
        hint(one)
    for other in others:
        other.join(20)
    assert len(results) == company


def test_a_wait_that_tells_of_stages_reads_them_itself(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    """Whoever is told of stages is told as they come, however many wait."""
    ids = begun(hook, 2, [{"wait_event": {"event": "go"}}, {"wait_event": {"event": "on"}}])

    async def main() -> None:
        async with AsyncOrchestrationHttpHook(base_url=server.url) as one:
            heard: list[tuple[int, str]] = []
            tasks = [
                asyncio.create_task(
                    one.wait(name, poll_interval=0.3, on_stage=lambda event: heard.append((event.stage, event.kind)))
                )
                for name in ids
            ]
            await asyncio.sleep(2)
            await one.send_event(ids[0], "go")
            for _ in range(100):
                if (1, "begun") in heard:
                    break
                await asyncio.sleep(0.05)
            assert (1, "begun") in heard
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


# ---- hints ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 24])
@pytest.mark.parametrize("way", ["loop", "many"])
def test_a_wrong_hint_costs_a_few_reads(
    server: EmbeddedServer, hook: OrchestrationHttpHook, way: str, count: int
) -> None:
    ids = begun(hook, count)

    async def main() -> None:
        async with AsyncOrchestrationHttpHook(base_url=server.url) as own:
            if way == "many":
                waiting = [asyncio.ensure_future(anext_of(own.wait_many(ids, poll_interval=60)))]
            else:
                waiting = [asyncio.ensure_future(own.wait(one, poll_interval=60)) for one in ids]
            await asyncio.sleep(4)
            before = requests_of(server)
            assert hint(ids[0])
            await asyncio.sleep(9)
            sent = (requests_of(server) - before)["get_instance"]
            assert 4 <= sent - (0 if way == "many" or count > 20 else 3 * count) <= 9
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def anext_of(results: AsyncIterator[object]) -> None:
        async for _ in results:
            return

    asyncio.run(main())


@pytest.mark.parametrize("way", ["thread", "loop", "many"])
def test_a_hint_that_comes_before_the_end_is_no_loss(
    server: EmbeddedServer, hook: OrchestrationHttpHook, way: str
) -> None:
    """Whoever knows that a run is about to end mostly knows it a moment before the server says so."""
    ids = begun(hook, 1)
    ended: list[float] = []

    def wait() -> None:
        if way == "thread":
            hook.wait(ids[0], poll_interval=60)
        elif way == "many":
            list(hook.wait_many(ids, poll_interval=60))
        else:
            asyncio.run(await_())
        ended.append(time.monotonic())

    async def await_() -> None:
        async with AsyncOrchestrationHttpHook(base_url=server.url) as own:
            await own.wait(ids[0], poll_interval=60)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(5)  # it looks each two seconds and more rarely by now
    assert hint(ids[0])
    time.sleep(0.6)
    hook.send_event_when_ready(ids[0], "go")
    sent_at = time.monotonic()
    thread.join(20)
    assert ended[0] - sent_at < 2.5


def test_a_hint_ends_waits_at_once(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    """In threads, on a loop, alone and in company; with polls that would take a minute."""
    ids = begun(hook, 26)
    ended: dict[str, float] = {}

    def wait(instance_id: str) -> None:
        hook.wait(instance_id, poll_interval=60, timeout=50)
        ended[instance_id] = time.monotonic()

    async def main() -> None:
        async with AsyncOrchestrationHttpHook(base_url=server.url) as one:

            async def await_one(instance_id: str) -> None:
                await one.wait(instance_id, poll_interval=60, timeout=50)
                ended[instance_id] = time.monotonic()

            await asyncio.gather(*(await_one(name) for name in ids[2:]))

    threads = [threading.Thread(target=wait, args=(name,)) for name in ids[:2]]
    threads.append(threading.Thread(target=lambda: asyncio.run(main())))
    for thread in threads:
        thread.start()
    time.sleep(12)  # the looks have slowed down
    delays = []
    awaited = 0
    for name in ids:
        hook.send_event_when_ready(name, "go")
        while not hook.get_instance(name).terminated:
            time.sleep(0.005)
        hinted_at = time.monotonic()
        awaited += hint(name)  # not where a look of its own came just before
        for _ in range(400):
            if name in ended:
                break
            time.sleep(0.005)
        delays.append(ended.get(name, hinted_at + 99) - hinted_at)
    for thread in threads:
        thread.join(60)
    assert max(delays) < 2.0, "each would have slept for tens of seconds"
    assert awaited > len(ids) // 2
    assert not hint(ids[0])
    assert not hints.hint_all(set(ids))


# ---- the list -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("generation", "count", "requests"), [(1, 130, 1), (2, 130, 1), (3, 130, 3), (3, 40, 1), (1, 100, 2)]
)
def test_the_list_is_read_whole_by_the_fewest_requests(generation: int, count: int, requests: int) -> None:
    clock = VirtualClock()
    core = Core(generation, clock=clock)
    with OrchestrationHttpHook(
        base_url="http://orchestration", clock=clock, transport=InProcessTransport(core, clock)
    ) as hook:
        workflow = hook.create_workflow(WAITS)
        ids = {hook.run_workflow(workflow.id).id for _ in range(count)}
        running = RunningInstances(Versions())
        for expected in (requests, requests - 1 if requests == 3 else requests):
            found = hook.perform(running.read(None, clock.monotonic() + 10))
            assert (found.ids, found.requests) == (ids, expected)


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (b'{"data":[{"id":"a","terminated":false},{"id":"b","terminated":true}]}', {"a"}),
        (b'{"data":[{"id":"a"},{"id":null},7,{"terminated":false},{"id":"c","workflowID":5}]}', {"a"}),
        (b'{"cursor":{"hasMore":false,"data":[{"id":"a"}]}}', {"a"}),
        (b'{"data":[]}', set()),
    ],
)
def test_an_odd_row_costs_only_itself(body: bytes, ids: set[str]) -> None:
    assert decode_running(body, "list").ids == ids
    assert decode_running(body.replace(b'"id":"', b'"workflowID":"w","id":"'), "list", workflow_id="w").ids == ids


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (b"<html>sign in</html>", {}),
        (b"null", {}),
        (b'{"errorCode":"INTERNAL","errorMessage":"x"}', {}),
        (b'{"data":[],"errorCode":"INTERNAL"}', {}),
        (b'{"data":{}}', {}),
        (b'{"data":[{"id":"a"}]}', {"version": "v2"}),
        (b'{"cursor":{"hasMore":true,"data":[]}}', {"version": "v2"}),
        (b'{"cursor":{"data":[]}}', {"version": "v2"}),
        (b'{"data":[{"id":"a","workflowID":"x"}]}', {"workflow_id": "w"}),
    ],
)
def test_what_is_no_list_is_no_empty_list(body: bytes, options: dict[str, str]) -> None:
    with pytest.raises(UnreadableAnswerError):
        decode_running(body, "list", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("repeats", ["cursor", "rows"])
def test_a_list_that_turns_in_a_circle_is_no_list(repeats: str) -> None:
    """A server that gives the same page for ever is asked for it twice."""
    asked = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        cursor = "c" if repeats == "cursor" else f"c{asked}"
        rows = [{"id": "a" if repeats == "rows" else f"a{asked}"}]
        return httpx.Response(200, json={"cursor": {"hasMore": True, "next": cursor, "data": rows}})

    with OrchestrationHttpHook(
        base_url="http://orchestration", api_version="v2", transport=httpx.MockTransport(answer)
    ) as hook:
        running = RunningInstances(hook.plans.versions)
        with pytest.raises(UnreadableAnswerError, match="repeats"):
            hook.perform(running.read(None, time.monotonic() + 10))
    assert asked == 2


def test_the_list_is_asked_for_as_generation_1_spells_it() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"data": []})

    with OrchestrationHttpHook(base_url="http://orchestration", transport=httpx.MockTransport(answer)) as hook:
        hook.perform(RunningInstances(Versions()).read("w w", time.monotonic() + 5))
    assert str(asked[0].url) == "http://orchestration/instances?pageSize=100&running=true&workflowID=w+w"
