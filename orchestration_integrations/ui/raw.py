"""What the server sent, as the text that it sent.

No number passes through a program on the way: a browser would round one beyond 2^53, and nobody could tell it from
what the server itself has rounded.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..api import calls
from ..api.calls import Call
from ..api.errors import OrchestrationError
from ..http_hook import AsyncOrchestrationHttpHook
from ..procedures.effects import do
from ..procedures.moved import STILL

READ_SECONDS, LONGEST_READING = 5.0, 15.0
"""Seconds of one read, and of all reads for one answer: what was not read by then is told as unread."""


async def raw_instance(hook: AsyncOrchestrationHttpHook, instance_id: str) -> dict[str, Any]:
    """An instance and its histories: ``parts`` of ``call`` and ``text``, and ``problems`` with what was not read."""
    answers = _Answers(hook)
    version = hook.plans.versions.plain
    await answers.read(calls.get_instance(instance_id, version))
    history = await answers.read(calls.get_instance_history(instance_id, version))
    for number, stage in enumerate(history or ()):
        if stage.name not in STILL:
            await answers.read(calls.get_stage_history(instance_id, number, version))
    return {"parts": answers.parts, "problems": answers.problems}


async def raw_workflow(hook: AsyncOrchestrationHttpHook, workflow_id: str) -> dict[str, Any]:
    """A workflow, as ``raw_instance``."""
    answers = _Answers(hook)
    await answers.read(calls.get_workflow(workflow_id, hook.plans.versions.plain))
    return {"parts": answers.parts, "problems": answers.problems}


class _Answers:
    def __init__(self, hook: AsyncOrchestrationHttpHook) -> None:
        self._hook = hook
        self._until = hook.clock.monotonic() + LONGEST_READING
        self.parts: list[dict[str, str]] = []
        self.problems: list[str] = []

    async def read(self, call: Call[Any]) -> Any:
        """What the answer says; None where there is none that can be read."""

        def kept(body: bytes, what: str) -> Any:
            self.parts.append({"call": f"{call.method} {call.path}", "text": body.decode("utf-8", "replace")})
            return call.decode(body, what)

        try:
            until = min(self._hook.clock.monotonic() + READ_SECONDS, self._until)
            return await self._hook.perform(do(msgspec.structs.replace(call, decode=kept), until))
        except OrchestrationError as error:
            self.problems.append(str(error))
            return None
