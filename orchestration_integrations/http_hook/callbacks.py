"""Calling what a user has given: listeners, stores, owners; for the async hook asynchronous ones too."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..api.errors import ValidationError


def call_plain(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Call a plain function. Raises TypeError for an asynchronous one: nobody would await it."""
    answer = function(*arguments)
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError("a callback of the blocking hook must be a plain function, not an asynchronous one")
    return answer


def tell_plain(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Call a plain listener."""
    return call_plain(function, arguments)


async def acall(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Call what may block without blocking the loop; an asynchronous function is awaited on it."""
    from asyncio import to_thread  # not needed by the blocking hook, and slow to import

    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    answer = await to_thread(function, *arguments)
    return await answer if inspect.isawaitable(answer) else answer


async def atell(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Call a listener on the loop, so that it hears things in their order."""
    answer = function(*arguments)
    return await answer if inspect.isawaitable(answer) else answer


def owner_of(wants: Callable[..., object] | None, name: str, *, asynchronous: bool) -> Callable[..., Any] | None:
    """A caller's yes or no, as the owner protocol asks for it: True is yes, and nothing else is.

    Args:
        wants: the caller's function; None: the run is always wanted.
        name: of the argument that it was given as.
        asynchronous: the hook can await.

    Raises:
        ValidationError: it is no function that this hook can call.
    """
    if wants is None:
        return None
    called = getattr(type(wants), "__call__", None)  # noqa: B004  # an object may have an asynchronous one
    awaits = inspect.iscoroutinefunction(wants) or inspect.iscoroutinefunction(called)
    if not callable(wants) or (awaits and not asynchronous):
        raise ValidationError(
            f"{name} must be a plain function that returns whether the run is still wanted", path=name
        )
    if not asynchronous:
        return lambda *arguments: "yes" if call_plain(wants, arguments) is True else "unwanted"

    async def awaited(*arguments: object) -> str:
        return "yes" if await acall(wants, arguments) is True else "unwanted"

    return awaited
