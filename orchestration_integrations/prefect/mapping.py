"""Tasks whose credentials are one value: ``map`` gives them to each call as they are.

Prefect takes any iterable argument of ``map`` for a list of values, and a block is iterable: it would be mapped over
its fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task, unmapped
from prefect.blocks.core import Block

P = ParamSpec("P")
R = TypeVar("R")


def credentials_task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]:
    """As Prefect's ``task``, for functions whose first parameter is ``credentials``.

    Args:
        options: as of Prefect's ``task``.
    """

    def make(function: Callable[P, R]) -> Task[P, R]:
        return cast("Task[P, R]", _CredentialsTask(fn=function, **options))

    return make


class _CredentialsTask(Task[..., Any]):
    def map(self, *args: Any, **kwargs: Any) -> Any:
        """As Prefect's. A block is the same for all calls; a list of blocks is mapped over."""
        if args:
            args = (_as_one(args[0]), *args[1:])
        elif "credentials" in kwargs:
            kwargs["credentials"] = _as_one(kwargs["credentials"])
        return super().map(*args, **kwargs)

    def with_options(self, **options: Any) -> Any:
        """As Prefect's."""
        made = super().with_options(**options)
        made.__class__ = type(self)  # Prefect makes a plain task
        return made


def _as_one(credentials: Any) -> Any:
    return unmapped(credentials) if isinstance(credentials, Block) else credentials
