"""Time limits that lose no cancellation."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar

import pytest

from orchestration_integrations.http_hook import in_time as times
from orchestration_integrations.http_hook.in_time import as_sent, in_time

T = TypeVar("T")


async def noting(call: Awaitable[T], arrived: list[tuple[Any, ...]]) -> T:
    """Notes a cancellation as it arrives in the task itself, where Airflow looks."""
    try:
        return await call
    except asyncio.CancelledError as error:
        arrived.append(error.args)
        raise


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_cancellation_at_the_moment_of_the_answer_is_not_lost(rounds: int) -> None:
    """Python 3.10 and 3.11 lose it in ``asyncio.wait_for``; what was to end would go on for ever."""

    async def main() -> None:
        answer = asyncio.get_running_loop().create_future()
        asking = asyncio.create_task(in_time(answer, 60))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        answer.set_result("here")
        for _ in range(rounds):
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(main())


def test_what_takes_too_long_is_cancelled() -> None:
    async def main() -> None:
        slow = asyncio.create_task(asyncio.sleep(60))
        with pytest.raises(TimeoutError, match="no answer within"):
            await in_time(slow, 0.01)
        await asyncio.sleep(0)
        assert slow.cancelled()
        assert await in_time(asyncio.sleep(0, "answer"), 60) == "answer"

    asyncio.run(main())


@pytest.mark.parametrize("swallowed", [0, 1])
@pytest.mark.parametrize("then", ["answers", "fails", "ends without a message"])
def test_a_cancellation_arrives_as_it_was_sent_whatever_the_call_makes_of_it(swallowed: int, then: str) -> None:
    ended: list[str] = []

    async def call() -> str:
        for _ in range(1 + swallowed):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        ended.append(then)
        if then == "fails":
            raise ValueError(then)
        if then == "answers":
            return then
        raise asyncio.CancelledError

    async def main() -> None:
        arrived: list[tuple[Any, ...]] = []
        caller = asyncio.create_task(noting(as_sent(call()), arrived))
        await asyncio.sleep(0.01)
        caller.cancel("a user acted")
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert arrived == [("a user acted",)]
        assert ended == [then]

    asyncio.run(main())


@pytest.mark.parametrize("rounds", range(6))
def test_a_cancellation_about_the_moment_of_the_answer_arrives_as_it_was_sent(rounds: int) -> None:
    async def main() -> None:
        arrived: list[tuple[Any, ...]] = []
        answer = asyncio.get_running_loop().create_future()
        caller = asyncio.create_task(noting(as_sent(answer), arrived))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        answer.set_result("here")
        for _ in range(rounds):
            await asyncio.sleep(0)
        if caller.done():
            assert caller.result() == "here"
            return
        caller.cancel("a user acted")
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert arrived == [("a user acted",)]

    asyncio.run(main())


def test_an_answer_or_an_error_of_a_call_that_nobody_cancels_arrives() -> None:
    async def fails() -> None:
        raise ValueError("no")

    async def main() -> None:
        assert await as_sent(asyncio.sleep(0, "answer")) == "answer"
        with pytest.raises(ValueError, match="no"):
            await as_sent(fails())

    asyncio.run(main())


def test_the_first_cancellation_is_the_one_that_arrives() -> None:
    """Airflow's kill, and the end of its triggerer while the call still ends."""
    ended: list[str] = []

    async def call() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            for _ in range(3):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.02)
            ended.append("here")

    async def main() -> None:
        arrived: list[tuple[Any, ...]] = []
        caller = asyncio.create_task(noting(as_sent(call()), arrived))
        await asyncio.sleep(0.01)
        caller.cancel("a user acted")
        await asyncio.sleep(0.005)
        caller.cancel("shutting down")
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert arrived == [("a user acted",)]
        assert ended == ["here"]

    asyncio.run(main())


def test_a_call_that_does_not_end_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "END_SECONDS", 0.05)

    async def main() -> None:
        arrived: list[tuple[Any, ...]] = []
        may_end = asyncio.Event()

        async def call() -> None:
            while not may_end.is_set():
                with suppress(asyncio.CancelledError):
                    await may_end.wait()

        caller = asyncio.create_task(noting(as_sent(call()), arrived))
        await asyncio.sleep(0.01)
        caller.cancel("a user acted")
        await asyncio.wait({caller}, timeout=10)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert arrived == [("a user acted",)]

    asyncio.run(main())


@pytest.mark.parametrize("waits", [lambda call: in_time(call, 0.01), as_sent])
def test_the_late_error_of_a_call_that_was_given_up_is_no_complaint(waits: Any) -> None:
    complaints: list[Any] = []

    async def call() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("late")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        caller = asyncio.create_task(waits(call()))
        await asyncio.sleep(0.05)
        caller.cancel()
        await asyncio.wait({caller})
        caller.cancelled() or caller.exception()
        del caller
        await asyncio.sleep(0.01)
        gc.collect()

    asyncio.run(main())
    assert not complaints
