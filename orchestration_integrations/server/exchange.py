"""One HTTP exchange without a socket: what came, what goes back and when, and what becomes of the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .faults import Fault


class Request:
    """A request as it came. Header names are in lower case; the path is as sent, escapes and all. `client`: host and
    port that it came from, where there is a socket."""

    __slots__ = ("body", "client", "headers", "method", "path", "query")

    def __init__(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        client: tuple[str, int] | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers if headers is not None else {}
        self.body = body
        self.client = client


class Reply:
    """A status, a body, and headers beyond `Content-Type`, `Content-Length` and `Date`."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: str = "application/json",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers


class Interim(NamedTuple):
    """Informational answers before the real one.

    `every`: seconds after each. `times`: how many; None: no end, and the real one never comes.
    """

    code: int
    every: float
    times: int | None


class Exchange:
    """A request under way. The shell that owns the connection looks at it; the server's core fills it in.

    - `reply` is None while the answer is held; it goes out at `ready_ns`, not before.
    - `cut_ns`: at that instant the connection is cut, answered or not (the shell then sets `gone`).
    - `refused`: no connection comes about at all.
    - `lost`: the connection is cut where the answer would have gone out.
    - `truncate`: half of the body goes out, then the connection is cut.
    - `rate`: bytes a second at which the body drips.
    - `head_rate`: bytes a second at which status line and headers drip; the body follows at once.
    - `interim`: informational answers that come first.
    - `gone`: the client isn't there any more; set by the shell.
    - `whole`: the answer has gone out, to its last byte; set by the shell.
    - `override`: what goes out in place of the answer, once the work is done.
    - `content`: faults that change what an answer says, by kind, or by the way in which it is misread.
    - `faults`: the kinds of the faults that have changed it.
    - `undecided`: the faults that it took and that may change it yet, by what they do.
    - `changes`: what of these has changed it.
    - `bomb_bytes`: the size to which a compressed answer unpacks.
    """

    __slots__ = (
        "bomb_bytes",
        "changes",
        "content",
        "cut_ns",
        "faults",
        "gone",
        "head_rate",
        "interim",
        "lost",
        "on_error",
        "on_instance",
        "operation",
        "override",
        "rate",
        "ready_ns",
        "refused",
        "reply",
        "stall_ns",
        "truncate",
        "undecided",
        "whole",
    )

    def __init__(self, operation: str = "") -> None:
        self.operation = operation
        self.faults: tuple[str, ...] = ()
        self.undecided: dict[str, Fault] = {}
        self.changes: set[str] = set()
        self.reply: Reply | None = None
        self.override: Reply | None = None
        self.ready_ns = 0
        self.stall_ns = 0
        self.cut_ns: int | None = None
        self.refused = False
        self.lost = False
        self.truncate = False
        self.rate: float | None = None
        self.head_rate: float | None = None
        self.interim: Interim | None = None
        self.bomb_bytes = 0
        self.gone = False
        self.whole = False
        self.content: tuple[str, ...] = ()
        self.on_instance: Callable[[Any, bool], None] | None = None
        self.on_error: Callable[[str], None] | None = None

    def has(self, content: str) -> bool:
        """Whether a fault changes what the answer says in this way."""
        return content in self.content

    def due_ns(self) -> int | None:
        """When the shell has something to do with it; None: not before something happens on the server."""
        if self.reply is None:
            return self.cut_ns
        return self.ready_ns if self.cut_ns is None else min(self.cut_ns, self.ready_ns)
