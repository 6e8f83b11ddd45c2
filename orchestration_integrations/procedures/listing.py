"""Whole lists out of pages, on every generation.

v2 pages by offset and without order, so rows repeat and go missing while others come and go; v1
gives the whole list at once, but from generation 3 on only its first page, without saying so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Literal

from ..api.calls import PAGE_SIZE, Call, Version, list_instances
from ..api.errors import NotFoundError, UnreadableAnswerError, is_gateways_404
from ..api.models import Instance, Page, distinct
from .effects import Backoff, Now, Procedure, do, insist, pause
from .remembered import Remembered

ROUNDS = 4
"""Readings of a paged list after which there are pauses between them."""
QUIET_ROUNDS = 2
"""Readings in a row that must bring no further row before a paged list counts as read whole."""
CLOCK_SECONDS = 1.5
"""Seconds after the beginning of a reading for which a row still counts as created before it: clocks differ."""

SECOND_ASKING = 0.5
"""Seconds before v2 is asked for again where much depends on its absence."""

PageCall = Callable[[Version, str | None], Call[Page]]


class Versions:
    """What the procedures of one hook know of its server.

    Attributes:
        asked: which versions of the API are to be used.
        has_v2: whether v2 was found to be there; None while that is not known.
        remembered: what was read and cannot have changed.
    """

    def __init__(self, asked: Literal["auto", "v1", "v2"] = "auto") -> None:
        self.asked = asked
        self.has_v2: bool | None = True if asked == "v2" else None
        self.remembered = Remembered()

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
        UnreadableAnswerError: the list repeats a cursor, so that it would never end.
    """
    if versions.asked != "v1":
        rows = yield from _by_cursor(page, versions, _retried)
        if rows is not None:
            return distinct(rows)
    first = yield from _retried(page("v1", None))
    rows = yield from _followed(first, "v1", page, _retried)
    if first.next is None and len(rows) == PAGE_SIZE:
        # A full page may be all there is, or only the first that generation 3 gives.
        more = yield from _by_cursor(page, versions, _retried, sure=True)
        rows = [*rows, *(more or ())]
    return distinct(rows)


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
    first: Page | None = None
    for last in (False, True) if sure else (True,):
        try:
            first = yield from perform(page("v2", None))
            break
        except NotFoundError as error:
            if versions.asked == "v2" or not is_gateways_404(error):
                raise
            if not last:
                yield from pause(SECOND_ASKING)
    if first is None:
        versions.has_v2 = False
        return None
    if not first.cursored:
        if sure or versions.asked == "v2":
            raise UnreadableAnswerError("the list of v2 has no cursor, so there may be more rows", status_code=200)
        versions.has_v2 = False
        return None
    versions.has_v2 = True
    return (yield from _followed(first, "v2", page, perform))


def _followed(first: Page, version: Version, page: PageCall, perform: Perform) -> Procedure[list[Any]]:
    """The rows of a page and of all pages that follow it."""
    current, rows = first, list(first.rows)
    seen: set[str] = set()
    while current.next is not None:
        if current.next in seen:
            raise UnreadableAnswerError(
                f"the list repeats its cursor after {len(rows)} rows; it would never end", status_code=200
            )
        seen.add(current.next)
        current = yield from perform(page(version, current.next))
        rows.extend(current.rows)
    return rows


def snapshot(workflow_id: str, versions: Versions, now: Now, until: float) -> Procedure[tuple[Instance, ...]]:
    """All instances of a workflow, as sure as lists can be: nothing that was there before is missed.

    v1 answers with one snapshot: any count but a full page is the whole on every generation. Past a full page v2 is
    read again until whole readings bring no further row that was there before, since offset pages lose rows. Rows that
    others create meanwhile are no sign that one was lost, so a busy workflow can be read too.
    The reading is strict: what is not in here may be submitted, so one row that cannot be read makes the whole unknown.

    Raises:
        OrchestrationError: the list could not be read by ``until``.
    """

    def page(version: Version, cursor: str | None) -> Call[Page]:
        return list_instances(version, cursor, workflow_id=workflow_id, strict=True)

    def perform(call: Call[Page]) -> Procedure[Page]:
        return (yield from insist(call, now, until))

    def perform_if_there(call: Call[Page]) -> Procedure[Page]:
        return (yield from insist(call, now, until, may_be_absent=True))

    def paged(version: Version) -> Procedure[Sequence[Any] | None]:
        if version == "v2":
            return (yield from _by_cursor(page, versions, perform_if_there, sure=True))
        return (yield from _followed((yield from perform(page("v1", None))), "v1", page, perform))

    known: dict[str, Instance] = {}
    began = now.server_time() + CLOCK_SECONDS
    version: Version = "v2"
    if versions.asked != "v2":
        first = yield from perform(page("v1", None))
        known = {row.id: row for row in first.rows}
        if first.next is not None:
            version = "v1"  # this server pages v1 too
        elif len(first.rows) != PAGE_SIZE:
            return tuple(known.values())
    quiet = 0
    backoff = Backoff(now)
    for number in count(1):
        rows = yield from paged(version)
        if rows is None:
            break
        lost = any(row.id not in known and row.created_at.timestamp() < began for row in rows)
        known.update((row.id, row) for row in rows)
        quiet = 0 if lost else quiet + 1
        if quiet >= QUIET_ROUNDS or len(rows) < PAGE_SIZE:
            break
        if number >= ROUNDS:
            wait = backoff.seconds()
            if now.monotonic() + wait >= until:
                raise UnreadableAnswerError("the list of instances kept changing while it was read", status_code=200)
            yield from pause(wait)
    return tuple(known.values())
