"""Whole lists out of pages, on every generation.

v2 pages by offset and without order, so rows repeat and go missing while others come and go; v1
gives the whole list at once, but from generation 3 on only its first page, without saying so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from ..api.calls import PAGE_SIZE, Call, Version, list_instances
from ..api.errors import NotFoundError, ServerError
from ..api.models import Instance, Page, distinct
from .effects import Now, Procedure, do, insist, pause

ROUNDS = 10
"""Readings of a paged list after which rows that keep changing are an error."""
QUIET_ROUNDS = 2
"""Readings in a row that must bring no new row before a paged list counts as read whole."""

SECOND_ASKING = 0.5
"""Seconds before v2 is asked for again where much depends on its absence."""

PageCall = Callable[[Version, str | None], Call[Page]]


class Versions:
    """Which versions of the API to use, and whether v2 was found to be there."""

    def __init__(self, asked: Literal["auto", "v1", "v2"] = "auto") -> None:
        self.asked = asked
        self.has_v2: bool | None = True if asked == "v2" else None

    @property
    def plain(self) -> Version:
        """For all calls but lists."""
        return "v2" if self.asked == "v2" else "v1"


Perform = Callable[[Call[Page]], Procedure[Page]]


def _retried(call: Call[Page]) -> Procedure[Page]:
    return (yield from do(call, retried=True))


def list_all(page: PageCall, versions: Versions) -> Procedure[tuple[Any, ...]]:
    """All rows, each once.

    Raises:
        ServerError: the list repeats a cursor, so that it would never end.
    """
    if versions.asked != "v1":
        rows = yield from _by_cursor(page, versions, _retried)
        if rows is not None:
            return distinct(rows)
    first = yield from _retried(page("v1", None))
    if len(first.rows) == PAGE_SIZE:
        # A full page may be all there is, or only the first that generation 3 gives.
        rows = yield from _by_cursor(page, versions, _retried, sure=True)
        if rows is not None:
            return distinct((*first.rows, *rows))
    return distinct(first.rows)


def _by_cursor(
    page: PageCall, versions: Versions, perform: Perform, *, sure: bool = False
) -> Procedure[Sequence[Any] | None]:
    """All rows by v2's cursor, in the order of the pages; None where the server has no v2.

    Args:
        sure: rows would be missed if v2 were there after all: ask twice, whatever was found before.
            One 404 can be a gateway's.
    """
    if versions.has_v2 is False and not sure:
        return None
    current: Page | None = None
    for last in (False, True) if sure else (True,):
        try:
            current = yield from perform(page("v2", None))
            break
        except NotFoundError as error:
            if versions.asked == "v2" or error.error_code is not None:
                raise
            if not last:
                yield from pause(SECOND_ASKING)
    if current is None:
        versions.has_v2 = False
        return None
    if not current.cursored:
        versions.has_v2 = False
        return None if versions.asked != "v2" else current.rows
    versions.has_v2 = True
    rows = list(current.rows)
    seen: set[str] = set()
    while current.next is not None:
        if current.next in seen:
            raise ServerError(f"the list repeats its cursor after {len(rows)} rows; it would never end")
        seen.add(current.next)
        current = yield from perform(page("v2", current.next))
        rows.extend(current.rows)
    return rows


def snapshot(workflow_id: str, versions: Versions, now: Now, until: float) -> Procedure[tuple[Instance, ...]]:
    """All instances of a workflow, as sure as lists can be: nothing that was there before is missed.

    v1 answers with one snapshot: any count but a full page is the whole on every generation. Past a
    full page v2 is read again until whole readings bring no new row, since offset pages lose rows.

    Raises:
        OrchestrationError: the list could not be read by ``until``.
    """

    def page(version: Version, cursor: str | None) -> Call[Page]:
        return list_instances(version, cursor, workflow_id=workflow_id)

    def perform(call: Call[Page]) -> Procedure[Page]:
        return (yield from insist(call, now, until))

    known: dict[str, Instance] = {}
    if versions.asked != "v2":
        first = yield from perform(page("v1", None))
        known = {row.id: row for row in first.rows}
        if len(first.rows) != PAGE_SIZE:
            return tuple(known.values())
    quiet = 0
    for _ in range(ROUNDS):
        rows = yield from _by_cursor(page, versions, perform, sure=True)
        if rows is None:
            return tuple(known.values())
        before = len(known)
        known.update((row.id, row) for row in rows)
        quiet = quiet + 1 if len(known) == before else 0
        if quiet >= QUIET_ROUNDS or len(rows) < PAGE_SIZE:
            return tuple(known.values())
    raise ServerError("the list of instances kept changing while it was read")
