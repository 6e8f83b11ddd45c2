"""Answers as the server words them: envelopes, pages, errors, and the exception that carries an error answer."""

from __future__ import annotations

import base64
import json
from typing import Any, NoReturn
from urllib.parse import parse_qsl

import msgspec

from .exchange import Reply, Request
from .parts import DatabaseAwayError, Parts

PAGE_SIZE, LARGEST_PAGE = 15, 100
FILTERS = ("running", "workflowID")
"""What a cursor keeps of the request for its first page."""
NO_ROWS = "sql: no rows in result set"
NO_CONTENT = Reply(204)


class Problem(Exception):
    """An error answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def encode(value: Any) -> bytes:
    """A value as JSON."""
    try:
        return msgspec.json.encode(value)
    except OverflowError:
        return json.dumps(value).encode()


def query_of(request: Request) -> dict[str, str]:
    """The first value of each query parameter."""
    first: dict[str, str] = {}
    if request.query:
        for key, value in parse_qsl(request.query, keep_blank_values=True, errors="replace"):
            first.setdefault(key, value)
    return first


class Answers:
    """The answers of one generation.

    Attributes:
        internal: what this generation calls an error of its own.
    """

    def __init__(self, generation: int, parts: Parts) -> None:
        self._generation = generation
        self._parts = parts
        self.internal = "INTERNAL_ERROR" if generation == 1 else "INTERNAL"

    def error(self, status: int, code: str, message: str) -> Reply:
        """An error body."""
        return Reply(status, encode({"errorCode": code, "errorMessage": message}))

    def failure(self, message: str) -> Reply:
        """500."""
        return self.error(500, self.internal, message)

    def refuse(self, message: str) -> NoReturn:
        """400 VALIDATION."""
        raise Problem(self.error(400, "VALIDATION", message))

    def fail(self, message: str) -> NoReturn:
        """500."""
        raise Problem(self.failure(message))

    def missing(self, message: str) -> NoReturn:
        """Not there: generation 3 says so, the others answer 500."""
        if self._generation > 2:
            raise Problem(self.error(404, "NOT_FOUND", message))
        self.fail(message)

    def not_found(self) -> NoReturn:
        """404, on all generations."""
        raise Problem(self.error(404, "NOT_FOUND", "resource not found"))

    def need_database(self, prefix: str = "") -> None:
        """500 if the database is away."""
        try:
            self._parts.check_database()
        except DatabaseAwayError as away:
            self.fail(f"{prefix}{away}")

    @staticmethod
    def data(value: Any, status: int = 200) -> Reply:
        """A success."""
        return Reply(status, encode({"data": value}))

    def page(self, rows: list[Any], query: dict[str, str], v2: bool, whole: bool) -> tuple[list[Any], Any]:
        """The rows to show, and version 2's cursor around them without its `data`. `whole`: version 1 doesn't cut."""
        if not v2 and whole:
            return rows, None
        offset, size = 0, PAGE_SIZE
        filters = {name: query[name] for name in FILTERS if query.get(name)}
        if v2 and query.get("cursor"):
            offset, size, _ = self._position(query["cursor"])
        elif query.get("pageSize"):
            if not (query["pageSize"].isascii() and query["pageSize"].isdigit() and len(query["pageSize"]) < 19):
                self.refuse("invalid 'pageSize' query param")
            size = min(int(query["pageSize"]), LARGEST_PAGE) or PAGE_SIZE
        shown = rows[offset : offset + size]
        more = len(rows) > offset + size
        cursor: dict[str, Any] = {"pageSize": size, "hasMore": more}
        if offset:
            cursor["previous"] = _cursor(max(0, offset - size), size, filters)
        if more:
            cursor["next"] = _cursor(offset + size, size, filters)
        return shown, cursor if v2 else None

    def asked(self, request: Request, v2: bool) -> dict[str, str]:
        """What a list is asked for: a cursor of version 2 brings the filters of its first page."""
        query = query_of(request)
        if v2 and query.get("cursor"):
            query = {"cursor": query["cursor"], **self._position(query["cursor"])[2]}
        return query

    def _position(self, cursor: str) -> tuple[int, int, dict[str, str]]:
        try:
            kind = tuple[int, int, dict[str, str]]
            offset, size, filters = msgspec.json.decode(base64.urlsafe_b64decode(cursor), type=kind)
        except (ValueError, msgspec.MsgspecError):
            self.refuse("invalid 'cursor' query param")
        if offset < 0 or not 0 < size <= LARGEST_PAGE:
            self.refuse("invalid 'cursor' query param")
        return offset, size, filters

    def listing(self, rows: list[Any], cursor: Any) -> Reply:
        """A list's answer."""
        if cursor is None:
            return self.data(rows)
        return Reply(200, encode({"cursor": {**cursor, "data": rows}}))


def _cursor(offset: int, size: int, filters: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((offset, size, filters))).decode()
