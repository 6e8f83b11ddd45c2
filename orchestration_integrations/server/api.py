"""The HTTP API of all three generations: routes, bodies, answers and error texts, as the real server gives them."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qsl

import msgspec

from . import control, definitions, golang, openapi
from .clock import SECOND
from .engine import DEADLINE, NO_ROWS, DatabaseAwayError, SignalError
from .exchange import Exchange, Reply, Request
from .faults import OPERATIONS
from .golang import JsonError, format_instant, format_instant_cut
from .state import Instance, Workflow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .core import Core
    from .faults import Fault
    from .state import Activity, StageRun

PREFIX = "/api/orchestration"
TOKEN_PATHS = ("/api/auth/oauth/token", PREFIX + "/api/auth/oauth/token")
PAGE_SIZE, LARGEST_PAGE = 15, 100
_VERSIONS = {1: "develop", 2: "v2.2.0", 3: "v2.4.0"}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_HTML = (
    b"<html>\r\n<head><title>%d Bad Gateway</title></head>\r\n<body>\r\n<center><h1>Bad Gateway</h1></center>\r\n"
    b"</body>\r\n</html>\r\n"
)
_PLAIN_404 = Reply(404, b"404 page not found\n", "text/plain; charset=utf-8")
_EMPTY_404 = Reply(404)
_EMPTY_405 = Reply(405)
_NO_CONTENT = Reply(204)
_FREE = ("info", "healthcheck", "openapi", "token")


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


class Api:
    """Routes requests to the operations of one server."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._engine = core.engine
        self._generation = core.generation
        self._internal = "INTERNAL_ERROR" if core.generation == 1 else "INTERNAL"
        self._operations: dict[str, Callable[[Exchange, Request, bool, str, str], Reply | None]] = {
            "info": self._info,
            "healthcheck": self._healthcheck,
            "openapi": self._openapi,
            "token": self._token,
            "list_workflows": self._list_workflows,
            "create_workflow": self._create_workflow,
            "get_workflow": self._get_workflow,
            "delete_workflow": self._delete_workflow,
            "run_workflow": self._run_workflow,
            "list_instances": self._list_instances,
            "get_instance": self._get_instance,
            "get_instance_history": self._get_instance_history,
            "get_stage_history": self._get_stage_history,
            "send_event": self._send_event,
            "abort_instance": self._abort_instance,
        }
        if core.generation > 1:
            triggers = core.triggers
            self._operations |= {
                "list_triggers": lambda ex, rq, v2, a, b: triggers.list(self, rq, v2),
                "create_trigger": lambda ex, rq, v2, a, b: triggers.create(self, rq),
                "get_trigger": lambda ex, rq, v2, a, b: triggers.get(self, a),
                "delete_trigger": lambda ex, rq, v2, a, b: triggers.delete(self, a),
                "list_trigger_occurrences": lambda ex, rq, v2, a, b: triggers.list_occurrences(self, rq, v2, a),
                "test_trigger": lambda ex, rq, v2, a, b: triggers.test(self, rq, a),
            }

    # ---- from a request to an operation ------------------------------------------------------------

    def handle(self, request: Request) -> Exchange:
        """Route a request, let the faults that are set for it happen, do what it asks."""
        path = request.path
        if path.startswith(PREFIX) and path[len(PREFIX) : len(PREFIX) + 1] in ("", "/"):
            path = path[len(PREFIX) :] or "/"
        exchange = Exchange()
        if path.startswith("/_control/"):
            self.complete(exchange, control.handle(self._core, request, path[len("/_control/") :]))
            return exchange
        routed = golang.routed_path(path)
        if routed is None:
            self.complete(exchange, Reply(400, b"400 Bad Request", "text/plain; charset=utf-8"))
            return exchange
        found = self._route(request.method, request.path, routed)
        if isinstance(found, Reply):
            self.complete(exchange, found)
            return exchange
        operation, v2, first, second = found
        exchange.operation = operation
        requests = self._core._record.requests
        requests[operation] = requests.get(operation, 0) + 1
        faults = self._core.faults.take(operation) if self._core.faults and operation in OPERATIONS else ()
        if faults and self._happens_before(exchange, faults):
            return exchange
        if operation not in _FREE and not self._core.tokens.allows(request):
            self.complete(exchange, Reply(401, headers=(("WWW-Authenticate", "Bearer"),)))
            return exchange
        work = [f for f in faults if f.kind in ("late_row", "ghost")]
        self._perform(exchange, request, v2, first, second, work)
        return exchange

    def _perform(
        self, exchange: Exchange, request: Request, v2: bool, first: str, second: str, work: Sequence[Fault] = ()
    ) -> None:
        try:
            if work:
                reply = self._run_workflow(exchange, request, v2, first, second, work[0])
            else:
                reply = self._operations[exchange.operation](exchange, request, v2, first, second)
        except Problem as problem:
            reply = problem.reply
        if reply is not None:
            self.complete(exchange, reply)

    def _happens_before(self, exchange: Exchange, faults: Sequence[Fault]) -> bool:
        """Set the exchange up for its faults. True: that was all, nothing is done."""
        engine = self._engine
        for fault in faults:
            kind, options = fault.kind, fault.options
            if kind in ("hidden", "unknown_fields", "shuffled"):
                exchange.content += (kind,)
            elif kind == "stall":
                exchange.stall_ns = int(options.get("seconds", 30.0) * SECOND)
            elif kind == "cut_after":
                exchange.lost = True
            elif kind == "truncated":
                exchange.truncate = True
            elif kind == "slow":
                exchange.rate = max(0.001, float(options.get("bytes_per_second", 20.0)))
            elif kind in ("status", "html"):
                exchange.override = self._wrong_answer(fault)
        for fault in faults:
            if fault.kind in ("refuse", "cut_before"):
                exchange.refused = fault.kind == "refuse"
                exchange.cut_ns = engine.now
                return True
            if fault.kind == "cut_amid":
                moment = fault.options.get("after")
                moment = self._core.rng.uniform(0.0, 0.012) if moment is None else float(moment)
                exchange.cut_ns = engine.now + int(moment * SECOND)
                # A run is several steps, and the cut falls between two of them. Any other call is done in one.
                return exchange.operation != "run_workflow" and moment < 0.004
            if exchange.override is not None and not fault.options.get("work"):
                self.complete(exchange, exchange.override)
                return True
        return False

    def _wrong_answer(self, fault: Fault) -> Reply:
        options = fault.options
        if fault.kind == "html":
            code = int(options.get("code", 502))
            return Reply(code, _HTML % code, "text/html")
        code = int(options.get("code", 503))
        headers: tuple[tuple[str, str], ...] = ()
        if options.get("retry_after") is not None:
            headers = (("Retry-After", str(options["retry_after"])),)
        if code == 204:
            return Reply(code, headers=headers)
        message = options.get("message", "unavailable")
        error_code = options.get("error_code", "NOT_FOUND" if code == 404 else self._internal)
        return Reply(code, encode({"errorCode": error_code, "errorMessage": message}), headers=headers)

    def complete(self, exchange: Exchange, reply: Reply) -> None:
        """The answer of an exchange is there."""
        if exchange.content:
            reply = _changed(reply, exchange.content)
        exchange.reply = exchange.override or reply
        exchange.ready_ns = self._engine.now + exchange.stall_ns
        if exchange.cut_ns is not None:
            exchange.ready_ns = max(exchange.ready_ns, exchange.cut_ns + 1)
        if exchange.notify is not None:
            exchange.notify()

    def _route(self, method: str, whole: str, path: str) -> tuple[str, bool, str, str] | Reply:
        """The operation, whether it is of version 2, and up to two ids."""
        if whole in TOLD_TOKEN:
            return ("token", False, "", "") if method == "POST" else _EMPTY_405
        parts = path.split("/")
        del parts[0]
        if not parts:
            return _PLAIN_404
        v2 = False
        if parts[0] == "v2" and self._generation > 1:
            v2 = True
            del parts[0]
            if not parts:
                return _PLAIN_404
        head, n = parts[0], len(parts)
        if n > 1 and parts[-1] == "" and (n < 4 or parts[2] == "instances"):
            n -= 1  # a collection or an item may end in a slash, an action may not
            if n > 2 and head != "workflows":
                return _PLAIN_404
        methods: dict[str, str] | None = None
        if head == "instances":
            if n <= 2:
                methods = _INSTANCES[n]
            elif n == 3:
                methods = _INSTANCE_ACTIONS.get(parts[2])
            elif n == 5 and parts[2] == "stages" and parts[4] == "history":
                operation = "get_stage_history" if method == "GET" else None
                return (operation, v2, parts[1], parts[3]) if operation else _EMPTY_405
        elif head == "workflows":
            if n <= 2:
                methods = _WORKFLOWS[n]
            elif n == 3 and parts[2] == "instances":
                methods = _RUNS
        elif head == "triggers" and self._generation > 1:
            if n <= 2:
                methods = _TRIGGERS[n]
            elif n == 3:
                methods = _TRIGGER_ACTIONS.get(parts[2])
                if parts[2] == "test" and not v2:
                    methods = None
        elif n == 1 and not v2:
            methods = _SINGLE.get(head)
        if methods is None:
            return _PLAIN_404
        operation = methods.get(method)
        if operation is None:
            return _EMPTY_405
        return operation, v2, parts[1] if n > 1 else "", ""

    # ---- answers and errors ---------------------------------------------------------------------------

    def error(self, status: int, code: str, message: str) -> Reply:
        """An error body."""
        return Reply(status, encode({"errorCode": code, "errorMessage": message}))

    def refuse(self, message: str) -> NoReturn:
        """400 VALIDATION."""
        raise Problem(self.error(400, "VALIDATION", message))

    def fail(self, message: str) -> NoReturn:
        """500."""
        raise Problem(self.error(500, self._internal, message))

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
            self._engine.check_database()
        except DatabaseAwayError as away:
            self.fail(f"{prefix}{away}")

    def _when_engine(
        self, exchange: Exchange, request: Request, first: str, second: str, v2: bool, prefix: str = ""
    ) -> bool:
        """Whether the engine is there; else the exchange is held until it is, or too long."""
        if self._engine.up["engine"]:
            return True

        def go_on(back: bool) -> None:
            if back:
                self._perform(exchange, request, v2, first, second)
            else:
                self.complete(exchange, self.error(500, self._internal, prefix + DEADLINE))

        self._engine.hold_for_engine(go_on)
        return False

    @staticmethod
    def data(value: Any, status: int = 200) -> Reply:
        """A success."""
        return Reply(status, encode({"data": value}))

    @staticmethod
    def query(request: Request) -> dict[str, str]:
        """The first value of each query parameter."""
        out: dict[str, str] = {}
        if request.query:
            for key, value in parse_qsl(request.query, keep_blank_values=True, errors="replace"):
                out.setdefault(key, value)
        return out

    def page(self, rows: list[Any], query: dict[str, str], v2: bool, whole: bool) -> tuple[list[Any], Any]:
        """The rows to show, and version 2's cursor around them without its `data`. `whole`: version 1 doesn't cut."""
        if not v2 and whole:
            return rows, None
        offset, size = 0, PAGE_SIZE
        if v2 and query.get("cursor"):
            try:
                offset, size = msgspec.json.decode(base64.urlsafe_b64decode(query["cursor"]), type=tuple[int, int])
            except (ValueError, msgspec.MsgspecError):
                self.refuse("invalid 'cursor' query param")
            if offset < 0 or not 0 < size <= LARGEST_PAGE:
                self.refuse("invalid 'cursor' query param")
        elif query.get("pageSize"):
            if not (query["pageSize"].isascii() and query["pageSize"].isdigit() and len(query["pageSize"]) < 19):
                self.refuse("invalid 'pageSize' query param")
            size = min(int(query["pageSize"]), LARGEST_PAGE) or PAGE_SIZE
        shown = rows[offset : offset + size]
        more = len(rows) > offset + size
        cursor: dict[str, Any] = {"pageSize": size, "hasMore": more}
        if offset:
            cursor["previous"] = _cursor(max(0, offset - size), size)
        if more:
            cursor["next"] = _cursor(offset + size, size)
        return shown, cursor if v2 else None

    def listing(self, rows: list[Any], cursor: Any) -> Reply:
        """A list's answer."""
        if cursor is None:
            return self.data(rows)
        return Reply(200, encode({"cursor": {**cursor, "data": rows}}))

    # ---- operations: server and workflows ----------------------------------------------------------------

    def _info(self, exchange: Exchange, request: Request, v2: bool, a: str, b: str) -> Reply:
        return Reply(200, encode({"version": _VERSIONS[self._generation]}))

    def _healthcheck(self, exchange: Exchange, request: Request, v2: bool, a: str, b: str) -> Reply:
        return Reply(200, b'{"default":"OK"}')

    def _openapi(self, exchange: Exchange, request: Request, v2: bool, a: str, b: str) -> Reply:
        return Reply(200, encode(openapi.document(self._generation)))

    def _token(self, exchange: Exchange, request: Request, v2: bool, a: str, b: str) -> Reply:
        return self._core.tokens.issue(request)

    def workflow_json(self, workflow: Workflow, cut: bool = True) -> dict[str, Any]:
        """A workflow as the API shows it; instants cut to microseconds once the database had it."""
        show = format_instant_cut if cut else format_instant
        created = show(workflow.created_ns)
        return {
            "id": workflow.id,
            "config": {"name": workflow.name, "stages": workflow.stages},
            "createdAt": created,
            "updatedAt": created,
            "deletedAt": None if workflow.deleted_ns is None else show(workflow.deleted_ns),
        }

    def _list_workflows(self, exchange: Exchange, request: Request, v2: bool, a: str, b: str) -> Reply:
        query = self.query(request)
        self.need_database()
        rows = [w for w in self._engine.workflows.values() if w.deleted_ns is None]
        if "shuffled" in exchange.content:
            self._core.rng.shuffle(rows)
        shown, cursor = self.page(rows, query, v2, self._generation < 3)
        return self.listing([self.workflow_json(w) for w in shown], cursor)

    def _create_workflow(self, exchange: Exchange, request: Request, v2: bool, a: str, b: str) -> Reply:
        name, stages = self._config(request)
        try:
            definitions.check(stages or (), self._generation)
        except definitions.DefinitionError as error:
            text = f"creating workflow: {error}"
            if self._generation > 2:
                self.refuse(text)
            self.fail(text)
        self.need_database("creating workflow: ")
        workflow = Workflow(self._engine.uuid(), name, stages, self._engine.now)
        self._engine.workflows[workflow.id] = workflow
        self._engine.store.touch(workflow)
        return self.data(self.workflow_json(workflow, cut=False), 201)

    def _config(self, request: Request) -> tuple[str, list[Any] | None]:
        where = "unmarshalling json body"
        try:
            if request.headers.get("content-type") == "text/vnd.yaml":
                where = "unmarshalling yaml"
                body = golang.decode_json(json.dumps(_yaml(request.body)).encode())
                where = "unmarshalling workflow data"
            else:
                body = golang.decode_json(request.body)
            return _checked_config(body)
        except JsonError as error:
            self.refuse(f"{where}: {error}")

    def _find_workflow(self, workflow_id: str) -> Workflow:
        self.need_database()
        workflow = self._engine.workflows.get(workflow_id)
        if workflow is None or (self._generation > 2 and workflow.deleted_ns is not None):
            self.missing(NO_ROWS)
        return workflow

    def _get_workflow(self, exchange: Exchange, request: Request, v2: bool, workflow_id: str, b: str) -> Reply:
        return self.data(self.workflow_json(self._find_workflow(workflow_id)))

    def _delete_workflow(self, exchange: Exchange, request: Request, v2: bool, workflow_id: str, b: str) -> Reply:
        if not _UUID.fullmatch(workflow_id):
            self.refuse("Key: '' Error:Field validation for '' failed on the 'uuid' tag")
        self.need_database()
        workflow = self._engine.workflows.get(workflow_id)
        if workflow is None or (self._generation > 2 and workflow.deleted_ns is not None):
            self.not_found()
        workflow.deleted_ns = self._engine.now
        self._engine.store.touch(workflow)
        return _NO_CONTENT

    def _run_workflow(
        self, exchange: Exchange, request: Request, v2: bool, workflow_id: str, b: str, fault: Fault | None = None
    ) -> Reply | None:
        variables: dict[str, str] = {}
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > 0:
            try:
                variables = _checked_variables(golang.decode_json(request.body))
            except JsonError as error:
                self.refuse(str(error))
        workflow = self._find_workflow(workflow_id)
        late_ns = 0
        if fault is not None and fault.kind == "ghost":
            self._engine.add_instance(self._engine.uuid(), workflow.id, variables, 0)
            self.fail(fault.options.get("message", DEADLINE))
        if fault is not None:
            late_ns = int(fault.options.get("seconds", 5.0) * SECOND)
        wait = self.query(request).get("wait", "").lower() in ("true", "1")
        exchange.on_instance = lambda instance, waited: self._answer_run(exchange, instance, wait and waited)
        exchange.on_error = lambda text: self.complete(exchange, self.error(500, self._internal, text))
        self._engine.submit(exchange, workflow, variables, wait, late_ns)
        return None

    def _answer_run(self, exchange: Exchange, instance: Instance, waited: bool) -> None:
        if not waited:
            created = format_instant(instance.created_ns)
            shown: dict[str, Any] = {
                "workflowID": instance.workflow_id,
                "id": instance.id,
                "createdAt": created,
                "updatedAt": created,
                "terminated": False,
            }
            if self._generation == 1:
                shown["error"] = ""
            self.complete(exchange, self.data(shown, 201))
            return
        # The answer is read anew after the wait, and the wait's own error takes the place of the row's:
        # generation 1 has one to tell, the others don't, so that a failure looks like a success.
        try:
            self.need_database()
        except Problem:
            self.complete(exchange, Reply(500))
            return
        shown = self.instance_json(instance)
        shown.pop("error", None)
        if self._generation == 1 and instance.end_error:
            shown["error"] = instance.end_error
        self.complete(exchange, self.data(shown, 201))

    # ---- operations: instances -----------------------------------------------------------------------------

    def instance_json(self, instance: Instance, rows: bool = True) -> dict[str, Any]:
        """An instance's row, with those of its stages."""
        first = self._generation == 1
        created = format_instant_cut(instance.created_ns)
        shown: dict[str, Any] = {
            "workflowID": instance.workflow_id,
            "id": instance.id,
            "createdAt": created,
            "updatedAt": created,
            "terminated": instance.terminated_ns is not None,
        }
        if instance.terminated_ns is not None:
            shown["terminatedAt"] = format_instant_cut(instance.terminated_ns)
        if rows and instance.rows:
            status = []
            for row in instance.rows:
                entry: dict[str, Any] = {
                    "stage": row.stage,
                    "instanceID": instance.id,
                    "startedAt": format_instant_cut(row.started_ns),
                }
                if not first:
                    entry["temporalRunID"] = row.run_id
                if row.terminated_ns is not None:
                    entry["terminatedAt"] = format_instant_cut(row.terminated_ns)
                if first or row.error:
                    entry["error"] = row.error
                status.append(entry)
            if len(status) > 1:
                self._core.rng.shuffle(status)
            shown["status"] = status
        if first or instance.error:
            shown["error"] = instance.error
        return shown

    def _visible(self, instance_id: str) -> Instance | None:
        instance = self._engine.instances.get(instance_id)
        if instance is None or instance.visible_ns > self._engine.now:
            return None
        return instance

    def _list_instances(self, exchange: Exchange, request: Request, v2: bool, a: str, b: str) -> Reply:
        query = self.query(request)
        self.need_database("retrieving workflow: ")
        engine = self._engine
        running = query.get("running", "")
        only_running = running == "true" if self._generation == 1 else running.lower() in ("true", "1")
        workflow_id = query.get("workflowID", "")
        rows = [
            i
            for i in engine.instances.values()
            if (not workflow_id or i.workflow_id == workflow_id)
            and not (only_running and i.terminated_ns is not None)
            and engine.workflows[i.workflow_id].deleted_ns is None
            and i.visible_ns <= engine.now
        ]
        if "shuffled" in exchange.content:
            self._core.rng.shuffle(rows)
        shown, cursor = self.page(rows, query, v2, self._generation < 3)
        out = []
        for instance in shown:
            row = self.instance_json(instance, rows=False)
            if self._generation > 1:
                row["workflow"] = self.workflow_json(engine.workflows[instance.workflow_id])
            out.append(row)
        return self.listing(out, cursor)

    def _get_instance(self, exchange: Exchange, request: Request, v2: bool, instance_id: str, b: str) -> Reply:
        self.need_database()
        instance = self._visible(instance_id)
        if instance is None:
            self.missing("Instance not found")
        return self.data(self.instance_json(instance))

    def _get_instance_history(
        self, exchange: Exchange, request: Request, v2: bool, instance_id: str, b: str
    ) -> Reply | None:
        if not self._when_engine(exchange, request, instance_id, b, v2):
            return None
        instance = self._visible(instance_id)
        if instance is None or not instance.started:
            self.missing(f"workflow not found for ID: {instance_id}{'-main' if self._generation > 1 else ''}")
        return self.data([_stage_run_json(run) for _, run in sorted(instance.runs.items())])

    def _get_stage_history(
        self, exchange: Exchange, request: Request, v2: bool, instance_id: str, number: str
    ) -> Reply | None:
        if not _NUMBER.fullmatch(number):
            return _EMPTY_404
        if not self._when_engine(exchange, request, instance_id, number, v2):
            return None
        instance = self._visible(instance_id)
        run = instance.runs.get(int(number)) if instance is not None else None
        if run is None:
            self.not_found()
        return self.data([_activity_json(a, v2) for a in run.activities])

    def _send_event(self, exchange: Exchange, request: Request, v2: bool, instance_id: str, b: str) -> Reply | None:
        try:
            name = _checked_event(golang.decode_json(request.body))
        except JsonError as error:
            self.refuse(str(error))
        self.need_database("retrieving workflow: ")
        instance = self._visible(instance_id)
        if instance is None or not instance.rows:
            self.missing(f"retrieving workflow: {NO_ROWS}")
        prefix = "sending signal to server: "
        if not self._when_engine(exchange, request, instance_id, b, v2, prefix):
            return None
        try:
            self._engine.signal(instance, name)
        except SignalError as error:
            self.missing(f"{prefix}{error}")
        return _NO_CONTENT

    def _abort_instance(self, exchange: Exchange, request: Request, v2: bool, instance_id: str, b: str) -> Reply | None:
        self.need_database("retrieving workflow execution: ")
        instance = self._visible(instance_id)
        if instance is None:
            self.missing(f"retrieving workflow execution: {NO_ROWS}")
        if not self._when_engine(exchange, request, instance_id, b, v2):
            return None
        try:
            self._engine.abort(instance)
        except SignalError as error:
            self.missing(str(error))
        return _NO_CONTENT


def _cursor(offset: int, size: int) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((offset, size))).decode()


def _stage_run_json(run: StageRun) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": definitions.RUNNERS[run.kind],
        "input": run.input,
        "terminated": run.terminated_ns is not None,
        "startedAt": format_instant(run.started_ns),
    }
    if run.error:
        shown["error"] = run.error
    if run.terminated_ns is not None:
        shown["terminatedAt"] = format_instant(run.terminated_ns)
    return shown


def _activity_json(activity: Activity, v2: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": activity.name,
        "input": {activity.name: activity.step["input"]},
        "terminated": activity.terminated_ns is not None,
        "startedAt": format_instant(activity.started_ns),
        "attempt": activity.attempt,
    }
    if activity.has_output:
        output = activity.output
        if v2 and activity.name == "CreateTransaction":
            # Version 2 keeps the shape of an older ledger: a list, and the number under two names.
            output = {"data": [{**output["data"], "txid": output["data"]["id"]}]}
        shown["output"] = {activity.name: output}
    if activity.error:
        shown["error"] = activity.error
    if activity.terminated_ns is not None:
        shown["terminatedAt"] = format_instant(activity.terminated_ns)
    if activity.last_failure:
        shown["lastFailure"] = activity.last_failure
    if activity.next_ns is not None:
        shown["nextExecution"] = format_instant(activity.next_ns)
    return shown


def _yaml(body: bytes) -> Any:
    import yaml

    try:
        value = yaml.safe_load(body.decode("utf-8", "replace"))
        json.dumps(value, default=_yaml_scalar, allow_nan=False)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        if problem.startswith("expected the node content"):
            problem = "did not find expected node content"
        line = "" if mark is None else f"line {mark.line + 1}: "
        raise JsonError(f"yaml: {line}{problem}") from None
    if value is None:
        raise JsonError("EOF")
    return json.loads(json.dumps(value, default=_yaml_scalar))


def _yaml_scalar(value: Any) -> str:
    text = getattr(value, "isoformat", None)
    if text is None:
        raise TypeError(f"yaml: no JSON for {type(value).__name__}")
    return str(text())


def _checked_config(body: Any) -> tuple[str, list[Any] | None]:
    if body is None:
        return "", None
    if not isinstance(body, dict):
        raise JsonError(f"json: cannot unmarshal {golang.json_kind(body)} into Go value of type workflow.Config")
    name, stages = _field(body, "name"), _field(body, "stages")
    if name is not None and not isinstance(name, str):
        raise _mismatch(name, "Config.name", "string")
    if stages is not None and not isinstance(stages, list):
        raise _mismatch(stages, "Config.stages", "[]workflow.RawStage")
    for stage in stages or ():
        if stage is not None and not isinstance(stage, dict):
            raise _mismatch(stage, "Config.stages", "workflow.RawStage")
        for value in (stage or {}).values():
            if value is not None and not isinstance(value, dict):
                raise _mismatch(value, "Config.stages", "map[string]interface {}")
    return name or "", stages


def _checked_variables(body: Any) -> dict[str, str]:
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise JsonError(f"json: cannot unmarshal {golang.json_kind(body)} into Go value of type map[string]string")
    for value in body.values():
        if value is not None and not isinstance(value, str):
            raise JsonError(f"json: cannot unmarshal {golang.json_kind(value)} into Go value of type string")
    return {k: v or "" for k, v in body.items()}


def _checked_event(body: Any) -> str:
    if body is None:
        return ""
    if not isinstance(body, dict):
        raise JsonError(f"json: cannot unmarshal {golang.json_kind(body)} into Go value of type workflow.Event")
    name = _field(body, "name")
    if name is not None and not isinstance(name, str):
        raise _mismatch(name, "Event.name", "string")
    return name or ""


def _field(body: dict[str, Any], name: str) -> Any:
    """A field by its name in any case of letters, as the server finds it."""
    if name in body:
        return body[name]
    return next((v for k, v in body.items() if k.lower() == name), None)


def _mismatch(value: Any, field: str, wanted: str) -> JsonError:
    kind = golang.json_kind(value)
    return JsonError(f"json: cannot unmarshal {kind} into Go struct field {field} of type {wanted}")


def _changed(reply: Reply, content: Sequence[str]) -> Reply:
    """A reply as the content faults have it."""
    if reply.content_type != "application/json" or not reply.body:
        return reply
    body = json.loads(reply.body)
    if "hidden" in content and reply.status >= 400 and "errorMessage" in body:
        body["errorMessage"] = "internal server error"
    if "unknown_fields" in content and reply.status < 300:
        _add_unknown(body)
    return Reply(reply.status, json.dumps(body).encode(), reply.content_type, reply.headers)


def _add_unknown(value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _add_unknown(item)
    elif isinstance(value, dict):
        for key in ("data", "cursor", "status"):
            _add_unknown(value.get(key))
        if "id" in value or "stage" in value or "terminated" in value:
            value["fromTheFuture"] = {"kind": "unheard of", "list": [None, 1, "x"]}


TOLD_TOKEN = frozenset(TOKEN_PATHS)
_SINGLE = {"_info": {"GET": "info"}, "_healthcheck": {"GET": "healthcheck"}, "openapi.json": {"GET": "openapi"}}
_WORKFLOWS = [
    {},
    {"GET": "list_workflows", "POST": "create_workflow"},
    {"GET": "get_workflow", "DELETE": "delete_workflow"},
]
_RUNS = {"POST": "run_workflow"}
_INSTANCES = [{}, {"GET": "list_instances"}, {"GET": "get_instance"}]
_INSTANCE_ACTIONS = {
    "events": {"POST": "send_event"},
    "abort": {"PUT": "abort_instance"},
    "history": {"GET": "get_instance_history"},
}
_TRIGGERS = [
    {},
    {"GET": "list_triggers", "POST": "create_trigger"},
    {"GET": "get_trigger", "DELETE": "delete_trigger"},
]
_TRIGGER_ACTIONS = {"occurrences": {"GET": "list_trigger_occurrences"}, "test": {"POST": "test_trigger"}}
