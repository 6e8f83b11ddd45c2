"""What a wait tells of a server that cannot be read: once when reads begin to fail, once when they work again.

One failed read is no news: the next one mostly works. The second in a row is told, with what the wait does about it.
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone

import msgspec

from ..api.errors import OrchestrationError, summary

logger = logging.getLogger("orchestration_integrations.waits")

FAILURES = 10
"""Reads in a row that must have failed, beside the seconds of the read budget, before a wait gives up."""
TOLD_AT = 2
"""So many reads in a row have failed when it is told."""
MOST_NAMED = 10
"""Instances of one hook that its log names in one outage."""


class OutageNews(msgspec.Struct, frozen=True):
    """What is to be told.

    Attributes:
        instance_id: whose reads.
        text: a line for a log.
        over: reads work again.
    """

    instance_id: str
    text: str
    over: bool = False


class Outage(msgspec.Struct):
    """The reads of one wait that have failed since the last good one.

    Attributes:
        server: base URL of the server, for the text; empty where it is not known.
        gives_up: what the wait does at last.
    """

    server: str = ""
    gives_up: str = "gives up"
    _failures: int = 0
    _since: float = 0.0
    _told: bool = False
    _news: OutageNews | None = None

    def failed(
        self, instance_id: str, error: OrchestrationError, now: float, *, read_budget: float, deadline: float | None
    ) -> None:
        """A read has failed. ``now``, ``deadline``: epoch seconds."""
        self._failures += 1
        if self._failures == 1:
            self._since = now
        if self._failures < TOLD_AT or self._told:
            return
        self._told = True
        of = f" of {self.server}" if self.server else ""
        ends = f", or at its deadline, {_instant(deadline, now)}" if deadline is not None else ""
        since = _instant(self._since, now)
        text = (
            f"instance {instance_id}{of} cannot be read since {since} ({summary(error)}); the wait goes on, and "
            f"{self.gives_up} after {read_budget:g} s and {FAILURES + 1} failed reads in a row{ends}"
        )
        self._news = OutageNews(instance_id, text)

    def good(self, instance_id: str, now: float) -> None:
        """A read was answered."""
        if self._told:
            text = f"instance {instance_id} can be read again, after {max(now - self._since, 0.0):.0f} s"
            self._news = OutageNews(instance_id, text, over=True)
        self._failures, self._told = 0, False

    @property
    def lasts(self) -> bool:
        """Whether the last read has failed."""
        return self._failures > 0

    def take(self) -> OutageNews | None:
        """What is to be told now, once."""
        news, self._news = self._news, None
        return news


class OutageLog:
    """Tells the log of one hook. Where many of its waits fail at once, it does not name them all."""

    def __init__(self) -> None:
        self._named: set[str] = set()
        self._counted: set[str] = set()

    def tell(self, news: OutageNews) -> None:
        """One line, mostly."""
        if news.over:
            self._counted.discard(news.instance_id)
            if news.instance_id in self._named:
                self._named.discard(news.instance_id)
                logger.info("%s", news.text, extra={"instance_id": news.instance_id})
            return
        self._counted.add(news.instance_id)
        if len(self._counted) <= MOST_NAMED:
            self._named.add(news.instance_id)
            logger.warning("%s", news.text, extra={"instance_id": news.instance_id})
        elif len(self._counted) == MOST_NAMED + 1:
            logger.warning("more than %d instances cannot be read: the others are not named", MOST_NAMED)


def _instant(at: float, now: float) -> str:
    there = datetime.fromtimestamp(at, timezone.utc)
    same_day = there.date() == datetime.fromtimestamp(now, timezone.utc).date()
    return there.strftime("%H:%M:%S UTC" if same_day else "%Y-%m-%d %H:%M:%S UTC")
