"""Time limits that lose no cancellation."""

from __future__ import annotations

import asyncio

import pytest

from orchestration_integrations.http_hook.in_time import in_time


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
