"""The page as an ASGI app: its files, its data as JSON, its live data as server-sent events, its actions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from ..api.errors import NotFoundError, OrchestrationError, ValidationError, is_gateways_404
from ..http_hook import AsyncOrchestrationHttpHook
from ..http_hook.in_time import in_time
from ..settings import Settings
from ..version import __version__
from . import actions, ages, streams
from .ages import Limit, Moment, told
from .catalog import Catalog
from .definition_view import workflow_view
from .definitions import Definition, Definitions
from .fresh_keys import FreshKeys
from .glances import Glances
from .guard import Guard, foreign_request, is_known_host
from .instance_view import instance_view
from .lists import Wanted, instances_page, is_id, page_number, with_instance, workflows_page
from .raw import raw_instance, raw_workflow
from .reading import LONGEST_READING, InstanceReader, Observed, Watch, denied_though_seen
from .server_clock import ServerClock
from .streams import event
from .trigger_view import TriggerLists, trigger_page, triggers_page

__all__ = ["PREFIX", "Page", "foreign_request", "is_known_host", "page_of_embedded_server"]

PREFIX = "/_ui"
"""The page stands at ``/``; all else that belongs to it is below this."""
STATIC = Path(__file__).parent / "static"
READ_TIMEOUT, READ_BUDGET = 5.0, 4.0
"""Seconds of one read, and of one with its retries: somebody looks at the page meanwhile."""
FIRST_LIST = 0.1
"""Seconds for which the first request of a list waits for the list."""
LONGEST_BODY = 1_000_000
MOST_SEEN = 100_000
"""Ids of instances of which it is remembered that they were seen."""

_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
Endpoint = Callable[[Request], Awaitable[Response]]


class Page:
    """The page of one server, an ASGI app that answers ``/`` and what is below ``PREFIX``.

    Args:
        settings: of the server that it shows.
        guard: who may read and act.
        title: what the page calls the server.
        embedders: origins whose pages may show this one in a frame, ``https://airflow.example``.
    """

    def __init__(self, settings: Settings, guard: Guard, *, title: str = "", embedders: tuple[str, ...] = ()) -> None:
        quick = settings.with_changes(
            timeout=min(settings.timeout, READ_TIMEOUT), retry_budget=min(settings.retry_budget, READ_BUDGET)
        )
        self.guard = guard
        self._title = title or settings.base_url
        self._reads = AsyncOrchestrationHttpHook(quick, face="page")
        self._acts = AsyncOrchestrationHttpHook(settings, face="page")
        self._clock = ServerClock()
        self._definitions = Definitions(self._reads, self._clock)
        self._fresh_keys = FreshKeys()
        self._watches: dict[str, Watch] = {}
        self._seen: dict[str, None] = {}
        self._news = asyncio.Event()
        self._told = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False
        self._catalog = Catalog(quick, self._tell_from_thread, self._clock)
        self._glances = Glances(self._reads, self._tell)
        self._triggers = TriggerLists(self._reads, self._tell, self._clock)
        self._policy = _policy(embedders)
        self._app = Starlette(routes=self._routes())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self._loop = asyncio.get_running_loop()
        await self._app(scope, receive, send)

    def stop(self) -> None:
        """End all streams and all reading; from any thread, again is harmless."""
        if self._stopped:
            return
        self._stopped = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end_in_loop)
        self._catalog.stop()

    def _end_in_loop(self) -> None:
        self._glances.stop()
        self._triggers.stop()
        for watch in self._watches.values():
            watch.end()
        self._tell()

    def _routes(self) -> list[Route | Mount]:
        api = f"{PREFIX}/api"
        one, workflow = f"{api}/instances/{{id}}", f"{api}/workflows/{{id}}"
        served: list[tuple[str, str, Endpoint]] = [
            ("GET", f"{api}/session", self._session),
            ("GET", f"{api}/live", self._live),
            ("GET", f"{api}/workflows", self._list_workflows),
            ("GET", workflow, self._workflow),
            ("GET", f"{workflow}/raw", self._raw_workflow),
            ("POST", f"{workflow}/runs", self._run),
            ("GET", f"{api}/triggers", self._list_triggers),
            ("GET", f"{api}/triggers/{{id}}", self._trigger),
            ("GET", f"{api}/instances", self._list_instances),
            ("GET", one, self._instance),
            ("GET", f"{one}/live", self._instance_live),
            ("GET", f"{one}/raw", self._raw_instance),
            ("POST", f"{one}/events", self._send_event),
            ("POST", f"{one}/cancel", self._cancel),
        ]
        return [
            Route("/", self._index),
            *(Route(path, self._guarded(endpoint), methods=[method]) for method, path, endpoint in served),
            Mount(PREFIX, app=_Files(self._policy)),
        ]

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        async def guarded(request: Request) -> Response:
            refusal = self.guard.refusal(request.method, request.headers)
            if refusal is not None:
                return _json({"error": "refused", "message": refusal.why}, refusal.status)
            try:
                return await endpoint(request)
            except Exception as error:
                status, body = actions.refused(error)
                return _json(body, status)

        return guarded

    async def _index(self, request: Request) -> Response:
        text = (STATIC / "index.html").read_bytes()
        return Response(text, media_type="text/html", headers={**_HEADERS, "content-security-policy": self._policy})

    # ---- reading -------------------------------------------------------------------------------------

    def _answer(self, found: Mapping[str, Any]) -> Response:
        """An answer with the server's clock, as whatever the page is told."""
        return _json({**found, "now": self._clock.now})

    def _event(self, name: str, what: Mapping[str, Any]) -> bytes:
        """An event with it."""
        return event(name, {**what, "now": self._clock.now})

    async def _session(self, request: Request) -> Response:
        try:
            version, problem = (await self._reads.get_server_info()).version, None
            self._clock.heard(self._reads.plans)
        except OrchestrationError as error:
            version, problem = "", str(error)
        return self._answer(
            {
                "server": self._title,
                "version": version,
                "problem": problem,
                "package": __version__,
                "liveFor": ages.LIVE_FOR,
                "actions": self.guard.actions,
                "actionToken": self.guard.action_token if self.guard.actions else None,
            }
        )

    async def _list_workflows(self, request: Request) -> Response:
        await self._listed()
        return self._answer(workflows_page(self._catalog.look(), self._catalog.begun))

    async def _workflow(self, request: Request) -> Response:
        begun = Moment.now()
        found = workflow_view(await self._definitions.now(request.path_params["id"]))
        if request.query_params.get("form") and self.guard.actions:
            found["freshKey"] = self._fresh_keys.make(found["id"])
        return self._answer({**found, **told(begun)})

    async def _raw_workflow(self, request: Request) -> Response:
        return self._answer(await raw_workflow(self._reads, request.path_params["id"]))

    async def _list_instances(self, request: Request) -> Response:
        await self._listed()
        listed = self._catalog.look()
        asked, by_id = request.query_params.get("q", "").strip(), False
        if is_id(asked) and all(row.id != asked for row in listed.rows):
            try:
                instance = await self._reads.get_instance(asked)
            except NotFoundError as error:
                self._check_denial(asked, error)
            else:
                self._saw(asked)
                self._clock.heard(self._reads.plans)
                by_id, definition = True, await self._definition(instance.workflow_id)
                listed = with_instance(listed, instance, definition.workflow)
        shown = instances_page(listed, self._glances, Wanted.of(request.query_params), self._catalog.begun)
        return self._answer({**shown, "byId": by_id})

    async def _definition(self, workflow_id: str) -> Definition:
        return await self._definitions.of(workflow_id, Limit(LONGEST_READING))

    async def _list_triggers(self, request: Request) -> Response:
        known = await self._triggers.triggers()
        return self._answer(triggers_page(known, self._catalog.look(), page_number(request.query_params)))

    async def _trigger(self, request: Request) -> Response:
        known = await self._triggers.fired(request.path_params["id"])
        return self._answer(trigger_page(known, self._catalog.look(), page_number(request.query_params)))

    async def _listed(self) -> None:
        """Give the first reading of the lists a moment, so that a small server's page is whole at once."""
        news = self._news
        if self._catalog.look().read is None:
            with suppress(TimeoutError):
                await in_time(news.wait(), FIRST_LIST)

    async def _instance(self, request: Request) -> Response:
        instance_id = request.path_params["id"]
        watch = self._watches.get(instance_id)
        fresh = watch.fresh if watch is not None else None
        if fresh is not None:
            return self._answer(fresh)
        reader, begun = self._reader(instance_id), Moment.now()
        try:
            view = self._view(await reader.read())
        except NotFoundError as error:
            self._check_denial(instance_id, error)
            raise
        return self._answer({**view, **told(begun)})

    def _view(self, observed: Observed) -> dict[str, Any]:
        self._saw(observed.instance.id)
        return instance_view(observed)

    def _saw(self, instance_id: str) -> None:
        if len(self._seen) >= MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[instance_id] = None

    def _was_seen(self, instance_id: str) -> bool:
        """Whether anybody has seen this instance through this page: then the server cannot deny it."""
        return instance_id in self._seen or any(row.id == instance_id for row in self._catalog.listed.rows)

    def _check_denial(self, instance_id: str, error: NotFoundError) -> None:
        """Raises another error where a 404 denies nothing."""
        if is_gateways_404(error):
            raise error
        if self._was_seen(instance_id):
            raise denied_though_seen(error) from error

    async def _raw_instance(self, request: Request) -> Response:
        return self._answer(await raw_instance(self._reads, request.path_params["id"]))

    def _reader(self, instance_id: str) -> InstanceReader:
        return InstanceReader(self._reads, self._definitions, self._clock, instance_id)

    # ---- live ----------------------------------------------------------------------------------------

    def _tell(self) -> None:
        self._told += 1
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _tell_from_thread(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell)

    async def _live(self, request: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            seen = self._told
            yield self._event("hello", {})
            while not self._stopped:
                self._catalog.look()
                if seen == self._told:
                    with suppress(TimeoutError):
                        await in_time(self._news.wait(), streams.beat())
                changed, seen = seen != self._told, self._told
                yield self._event("changed" if changed else "still", self._catalog.ages())
                await asyncio.sleep(0.25)  # news come in crowds

        return streams.stream(events(), _HEADERS)

    async def _instance_live(self, request: Request) -> Response:
        instance_id = request.path_params["id"]
        watch = self._watches.get(instance_id)
        if watch is None or watch.over:
            watch = Watch(self._reader(instance_id), self._view, lambda: self._was_seen(instance_id))
            self._watches[instance_id] = watch

        async def events() -> AsyncIterator[bytes]:
            try:
                async for name, what in watch.updates():
                    yield self._event(name, what)
                if not self._stopped:  # a page that stops has not seen the end of the run
                    yield event("over", {})
            finally:
                if watch.watchers == 0 and self._watches.get(instance_id) is watch:
                    del self._watches[instance_id]

        return streams.stream(events(), _HEADERS)

    # ---- acting --------------------------------------------------------------------------------------

    async def _send_event(self, request: Request) -> Response:
        instance_id = request.path_params["id"]
        done = await actions.send_event(self._acts, instance_id, await _body(request))
        return self._done(instance_id, done)

    async def _cancel(self, request: Request) -> Response:
        instance_id = request.path_params["id"]
        return self._done(instance_id, await actions.cancel(self._acts, instance_id))

    async def _run(self, request: Request) -> Response:
        workflow = await self._acts.get_workflow(request.path_params["id"])
        if workflow.deleted_at is not None:
            raise NotFoundError(f"workflow {workflow.id} is deleted")
        done = await actions.run(self._acts, workflow, await _body(request), self._fresh_keys)
        return self._done(done["id"], done)

    def _done(self, instance_id: str, done: Mapping[str, Any]) -> Response:
        self._catalog.refresh()
        watch = self._watches.get(instance_id)
        if watch is not None:
            watch.wake()
        return _json(done)


def page_of_embedded_server(url: str, token: str | None, generation: int, hosts: Collection[str] = ()) -> Page:
    """The page that the embedded server shows of itself: it acts, and demands the token that the server demands."""
    guard = Guard(token=token, actions=True, hosts=frozenset(hosts))
    return Page(Settings(base_url=url, token=token), guard, title=f"embedded server, generation {generation}")


class _Files:
    """The page's own files."""

    def __init__(self, policy: str) -> None:
        self._files = StaticFiles(directory=STATIC)
        self._headers = [(b"content-security-policy", policy.encode()), (b"x-content-type-options", b"nosniff")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"cache-control", b"no-cache"), *self._headers]
            await send(message)

        await self._files(scope, receive, with_headers)


def _policy(embedders: tuple[str, ...]) -> str:
    """What a browser may load for the page, and who may frame it."""
    framed_by = " ".join(embedders) or "'none'"
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        f"base-uri 'none'; form-action 'none'; frame-ancestors {framed_by}"
    )


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, _HEADERS, "application/json")


async def _body(request: Request) -> Mapping[str, Any]:
    """The JSON object that a request carries."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_BODY:
            raise ValidationError("the body is too long", path="body")
    try:
        found = msgspec.json.decode(body or b"{}")
    except msgspec.DecodeError as error:
        raise ValidationError(f"the body is no JSON: {error}", path="body") from None
    if not isinstance(found, dict):
        raise ValidationError("the body has to be a JSON object", path="body")
    return found
