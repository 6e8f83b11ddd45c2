"""Two tasks from one written function: a blocking one, and one for asyncio.

The function says what is asked of the hook and what the task returns of the answer; it sends nothing itself. Its
signature and its docstring are those of both tasks.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar, cast, get_args, get_type_hints

from prefect import Task
from prefect.cache_policies import NO_CACHE

from ..api.errors import AmbiguousSubmitError, OrchestrationError
from ..http_hook import AsyncOrchestrationHttpHook, OrchestrationHttpHook
from .credentials import FACE, Credentials, settings_of
from .mapping import credentials_task
from .task_names import named

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Twins = tuple[Task[P, R], Task[P, Coroutine[Any, Any, R]]]
"""A blocking task, and the one for asyncio."""


class Asked(Generic[R]):
    """What a task asks of the hook, and what it returns of the answer.

    Args:
        credentials: of the server.
        ask: calls a method of the hook. It is written for the blocking hook; the one for asyncio has the same methods.
        shown: makes small plain values of the answer.
    """

    def __init__(
        self, credentials: Credentials, ask: Callable[[OrchestrationHttpHook], T], shown: Callable[[T], R]
    ) -> None:
        self._credentials = credentials
        self._ask: Callable[[Any], Any] = ask
        self._shown: Callable[[Any], R] = shown

    def answer(self) -> R:
        """Ask and wait. Blocking."""
        with OrchestrationHttpHook(settings_of(self._credentials), face=FACE) as hook:
            return self._shown(self._ask(hook))

    async def answer_async(self) -> R:
        """As ``answer``, for asyncio."""
        settings = await asyncio.to_thread(settings_of, self._credentials)
        async with AsyncOrchestrationHttpHook(settings, face=FACE) as hook:
            return self._shown(await cast("Awaitable[Any]", self._ask(hook)))


def repeatable(name: str) -> Callable[[Callable[P, Asked[R]]], Twins[P, R]]:
    """Tasks that you may give retries: they only read, or a repetition changes nothing more.

    Args:
        name: of the tasks, and the beginning of the names of their runs.
    """
    return _twins(name)


def changing(name: str) -> Callable[[Callable[P, Asked[R]]], Twins[P, R]]:
    """Tasks that change something by each request. By default they have no retries, also where Prefect's settings set
    some.

    Also with retries that you ask for, a change whose answer was lost is not repeated: its AmbiguousSubmitError ends
    the task run.

    Args:
        name: of the tasks, and the beginning of the names of their runs.
    """
    return _twins(name, retries=0, retry_condition_fn=may_be_repeated)


def may_be_repeated(task: object, task_run: object, state: Any) -> bool:
    """Whether Prefect may repeat what failed: only after an error of this package that leaves no doubt.

    A time-out of the task or a crash says nothing of what the server was asked meanwhile.
    """
    return isinstance(state.data, OrchestrationError) and not isinstance(state.data, AmbiguousSubmitError)


def _twins(name: str, **options: Any) -> Callable[[Callable[P, Asked[R]]], Twins[P, R]]:
    def make(describe: Callable[P, Asked[R]]) -> Twins[P, R]:
        def blocking(*args: P.args, **kwargs: P.kwargs) -> R:
            return describe(*args, **kwargs).answer()

        async def asynchronous(*args: P.args, **kwargs: P.kwargs) -> R:
            # In a thread, since it may read a file or a record.
            return await (await asyncio.to_thread(describe, *args, **kwargs)).answer_async()

        task = credentials_task(name=name, task_run_name=named(name), cache_policy=NO_CACHE, **options)
        return task(_as_written(blocking, describe, "")), task(_as_written(asynchronous, describe, "_async"))

    return make


def _as_written(function: Any, describe: Callable[..., Any], suffix: str) -> Any:
    """Give a function the name, the signature and the docstring of the written one."""
    hints = get_type_hints(describe)
    hints["return"] = get_args(hints["return"])[0]
    signature = inspect.signature(describe)
    parameters = [one.replace(annotation=hints[one.name]) for one in signature.parameters.values()]
    function.__name__ = function.__qualname__ = describe.__name__.removeprefix("_") + suffix
    function.__module__ = describe.__module__
    function.__doc__ = describe.__doc__
    function.__annotations__ = hints
    function.__signature__ = signature.replace(parameters=parameters, return_annotation=hints["return"])
    return function
