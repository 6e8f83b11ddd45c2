"""A client of the page's server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from orchestration_integrations.ui.serving import PageServer

Json = dict[str, Any]


class PageClient:
    """What the page's scripts do, in Python."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url.rstrip("/"), timeout=30, trust_env=False)
        self.origin = str(self.http.base_url).rstrip("/")
        self.action_token = self.get("session").get("actionToken") or ""

    def get(self, path: str) -> Json:
        found: Json = self.http.get(f"/_ui/api/{path}").raise_for_status().json()
        return found

    def act(self, path: str, body: Json | None = None) -> httpx.Response:
        headers = {"origin": self.origin, "x-page-action": self.action_token}
        return self.http.post(f"/_ui/api/{path}", json=body or {}, headers=headers)

    def until(self, path: str, seen: Callable[[Json], bool]) -> Json:
        """Ask until the answer shows something."""
        end = time.monotonic() + 20
        while True:
            found = self.get(path)
            if seen(found):
                return found
            assert time.monotonic() < end, found
            time.sleep(0.05)

    def events(self, path: str) -> Iterator[tuple[str, Json]]:
        with self.http.stream("GET", f"/_ui/api/{path}") as stream:
            name = ""
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    yield name, json.loads(line[6:])


class PausablePage(PageServer):
    """A page whose server can stand still, its connections open."""

    def pause(self, seconds: float) -> None:
        """Answer nothing for a while, connections open: what SIGSTOP does to a process."""
        loop = self.page._loop
        assert loop is not None
        loop.call_soon_threadsafe(time.sleep, seconds)
