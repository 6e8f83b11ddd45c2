"""Tests of several generations of the server, on one of them: what a framework makes of it does not depend on which.

The newest version of each framework plays all generations, and so does Airflow 2.11.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any


def keep_one_generation(config: Any, items: list[Any], parameter: str) -> None:
    """Deselect all but generation 2 of each test, or the newest where it has no 2."""
    variants: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
    for item in items:
        given = dict(getattr(getattr(item, "callspec", None), "params", {}))
        if isinstance(given.pop(parameter, None), int):
            variants[(item.nodeid.partition("[")[0], *sorted(map(repr, given.items())))].append(item)
    others = set()
    for several in variants.values():
        of = {item: item.callspec.params[parameter] for item in several}
        kept = 2 if 2 in of.values() else max(of.values())
        others |= {item for item, generation in of.items() if generation != kept}
    config.hook.pytest_deselected(items=[item for item in items if item in others])
    items[:] = [item for item in items if item not in others]
