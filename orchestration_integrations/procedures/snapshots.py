"""The ids of all running instances, by the fewest requests that the server allows: what one poll for many waits reads.

Version 1 of the API gives the whole list at once on generations 1 and 2, and a page of it on generation 3, without
saying which. A count of rows that is no full page is the whole list on each of them. A full page may be cut, so the
pages of version 2 follow. Their cursor says where the next page begins, so one page is read after the other.

Rows shift between pages while others come and go, so an id can be missing that runs. No wait ends by that: absence is a
hint, and a read by id decides.
"""

from __future__ import annotations

import msgspec

from ..api.calls import PAGE_SIZE, Version
from ..api.errors import NotFoundError, UnreadableAnswerError, is_gateways_404
from ..api.running import RunningPage, list_running
from .effects import Procedure, do
from .listing import Versions


class Snapshot(msgspec.Struct, frozen=True):
    """Which instances ran.

    Attributes:
        ids: of those that are listed.
        rows: how many rows were read for that.
        requests: how many requests were sent for it.
    """

    ids: frozenset[str]
    rows: int
    requests: int


class RunningInstances:
    """Reads snapshots, and remembers which version of the API gives them.

    Args:
        versions: of the API, as the hook knows them.
    """

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._is_cut = versions.asked == "v2"

    def read(self, workflow_id: str | None, until: float) -> Procedure[Snapshot]:
        """One snapshot.

        Args:
            workflow_id: only the instances of this workflow; None for all.
            until: monotonic seconds by which it is read.

        Raises:
            OrchestrationError: the list could not be read as a whole.
        """
        asked = 0
        ids: frozenset[str] = frozenset()
        if not self._is_cut:
            page = yield from do(list_running("v1", workflow_id=workflow_id), until)
            if page.next is not None:
                return (yield from self._followed(page, "v1", until))
            if page.rows != PAGE_SIZE or self._versions.asked == "v1":
                return Snapshot(page.ids, page.rows, 1)
            asked, ids = 1, page.ids
        try:
            page = yield from do(list_running("v2", workflow_id=workflow_id), until)
        except NotFoundError as error:
            if self._versions.asked == "v2" or not is_gateways_404(error):
                raise
            self._is_cut = False
            if not asked:
                return (yield from self.read(workflow_id, until))
            return Snapshot(ids, PAGE_SIZE, 2)  # generation 1, which has just a hundred
        found = yield from self._followed(page, "v2", until)
        self._is_cut = self._versions.asked == "v2" or found.rows > PAGE_SIZE
        return Snapshot(found.ids | ids, found.rows, found.requests + asked)

    def _followed(self, page: RunningPage, version: Version, until: float) -> Procedure[Snapshot]:
        ids, rows, requests = set(page.ids), page.rows, 1
        cursors: set[str] = set()
        while page.next is not None:
            if page.next in cursors:
                raise UnreadableAnswerError("the list of running instances repeats its cursor", status_code=200)
            cursors.add(page.next)
            page = yield from do(list_running(version, page.next), until)
            if page.next is not None and page.rows and page.ids and page.ids <= ids:
                raise UnreadableAnswerError("the list of running instances repeats its pages", status_code=200)
            ids |= page.ids
            rows += page.rows
            requests += 1
        return Snapshot(frozenset(ids), rows, requests)
