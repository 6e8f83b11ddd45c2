"""Performing calls and procedures: one exchange, its retries, and effects one after another."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, TypeVar, cast

import httpx

from .. import telemetry
from ..api.calls import Call, RetryClass
from ..api.errors import OrchestrationError
from ..procedures.effects import Answer, Ask, Do, Effect, Pause, Procedure
from . import reachable
from .base import HookBase
from .callbacks import acall, atell
from .deadline import Deadline
from .exchange import aread_body, failure_of
from .in_time import as_sent
from .retrying import async_retrying, may_repeat
from .signal_errors import raised_by_signal
from .steps import Ended, advance

T = TypeVar("T")
D = TypeVar("D", bound="AsyncDriver")

_FAILURES = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL)


class AsyncDriver(HookBase):
    """Performs what a hook is asked for."""

    async def __aenter__(self: D) -> D:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of all connections. May be called twice; a later call opens new ones."""
        if self._connections is not None:
            await self._connections.arelease(self)

    async def perform(self, procedure: Procedure[T]) -> T:
        """Perform a procedure to its end. What interrupts it goes through at once; nothing is performed after it."""
        try:
            step = advance(procedure, None, None)
            while not isinstance(step, Ended):
                try:
                    result, error = await self.effect(step), None
                except OrchestrationError as caught:
                    if not isinstance(step, Do):
                        raise  # a callback's error says nothing of the server
                    result, error = None, caught
                step = advance(procedure, result, error)
            return cast("T", step.value)
        finally:
            procedure.close()

    async def effect(self, effect: Effect) -> Any:
        """Perform one effect of a procedure."""
        if isinstance(effect, Do):
            if effect.retried:
                return await self._retried(effect.call)
            return await self._attempt(effect.call, effect.until)
        if isinstance(effect, Pause):
            return await self._clock.asleep(effect.seconds)
        if isinstance(effect, Ask):
            handled = sys.exc_info()[1]
            try:
                return Answer(await acall(effect.function, effect.arguments))
            except Exception as error:
                wish = raised_by_signal(error, handled)
                if wish is not None:
                    raise wish from None
                return Answer(error=error)
        return await atell(effect.function, (effect.what,))

    async def _call(self, call: Call[T]) -> T:
        """A call of the user's."""
        try:
            return await self._retried(call)
        except OrchestrationError as error:
            raised = self._submitted(call, error)
            if raised is error:
                raise
            raise raised from error

    async def _retried(self, call: Call[T]) -> T:
        deadline = self._clock.monotonic() + self.settings.retry_budget
        try:
            return await self._attempt(call, self._until(call, deadline))
        except OrchestrationError as error:
            if not may_repeat(call.retry, error, 1):
                raise
            first: OrchestrationError | None = error

        async def again() -> T:
            # The first try is made outside: where all goes well, no policy needs to be built.
            nonlocal first
            if first is not None:
                error, first = first, None
                raise error
            return await self._attempt(call, self._until(call, deadline))

        return await async_retrying(call.retry, self._clock, deadline, self._retry_told(call))(again)

    async def _attempt(self, call: Call[T], until: float | None) -> T:
        """One exchange. Raises only this package's errors (and whatever interrupts it)."""
        deadline = self._deadline(call, until)
        try:
            response, body = await self._answer(call, deadline)
            result = self._exchange.result(call, response, body)
        except OrchestrationError as error:
            self._exchange.mask(error)
            telemetry.count("calls", operation=call.operation, outcome=type(error).__name__)
            raise
        telemetry.count("calls", operation=call.operation, outcome="ok")
        return result

    async def _answer(self, call: Call[Any], deadline: Deadline) -> tuple[httpx.Response, bytes]:
        """What the server answers; where it refuses a fetched token, what it answers to a new one."""
        tokens = self._reach().tokens
        token = await self._token(deadline)
        response, body = await self._sent(call, deadline, token)
        if response.status_code == 401 and tokens.fetches and token is not None:
            tokens.drop(token)
            deadline = deadline.again()
            response, body = await self._sent(call, deadline, await self._token(deadline))
        return response, body

    async def _sent(self, call: Call[Any], deadline: Deadline, token: str | None) -> tuple[httpx.Response, bytes]:
        request = self._exchange.request(call, deadline, token)
        try:
            response, body = await self._exchanged(call.retry, request, deadline)
            return response, self._exchange.masked(body)
        except _FAILURES as error:
            raise failure_of(call.what, error, deadline, self.settings.base_url) from error

    async def _exchanged(
        self, retry: RetryClass, request: httpx.Request, deadline: Deadline
    ) -> tuple[httpx.Response, bytes]:
        """One exchange, in a task of its own: anyio, which it goes through, swallows a cancellation now and then, on
        Python 3.10 each one that comes while it connects. The caller would go on with what its owner has given up."""
        reachable.check(request.url)
        return await as_sent(self._exchanging(retry, request, deadline))

    async def _exchanging(
        self, retry: RetryClass, request: httpx.Request, deadline: Deadline
    ) -> tuple[httpx.Response, bytes]:
        async with self._reach().aclient(retry, self, deadline) as client:
            response = await client.send(request, stream=True)
            try:
                return response, await aread_body(response, deadline)
            finally:
                await response.aclose()

    async def _token(self, deadline: Deadline) -> str | None:
        """The access token to send; fetched, where there is none. Raises errors that say that nothing was sent."""
        token = await self._current_token(deadline)
        if token is not None and self._token_listener is not None and self._reach().tokens.fetches:
            await self._token_listener.ahear(token, deadline)
        return token

    async def _current_token(self, deadline: Deadline) -> str | None:
        tokens = self._reach().tokens
        token = tokens.current()
        if token is not None or not tokens.fetches:
            return token
        async with tokens.aalone(deadline):
            token = tokens.current()
            if token is None:
                own = deadline.again()
                request = tokens.request(self._exchange.agent, own)
                try:
                    answer, body = await self._exchanged(RetryClass.READ, request, own)
                except _FAILURES as error:
                    failure = failure_of("access token", error, own, self.settings.token_url or "")
                    failure.before_send = True
                    raise failure from error
                token = tokens.keep(answer, body)
            return token
