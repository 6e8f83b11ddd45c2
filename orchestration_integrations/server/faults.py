"""Faults: which request goes wrong, and how.

A fault is set for an operation (or `any`) and a number of requests. A request takes at most one fault of
each sort, the oldest first, so that a late row and a lost answer can meet in one request.

Sort *network*, what becomes of the connection or the answer as a whole:

| kind | options (defaults) | what happens |
|---|---|---|
| `refuse` | | no connection (in process; over a socket as `cut_before`) |
| `cut_before` | | the connection is cut, nothing was done |
| `cut_amid` | `after` seconds (random, below 0.012) | it is cut while work is under way: done or not, by the moment |
| `cut_after` | | the work is done, the answer is lost |
| `stall` | `seconds` (30) | the work is done, the answer comes so much later |
| `status` | `code` (503), `retry_after`, `message`, `error_code`, `work` (false) | an error instead of an answer |
| `html` | `code` (502), `work` (false) | a gateway's page instead of an answer |
| `truncated` | | the work is done, the body breaks off in the middle |
| `slow` | `bytes_per_second` (20) | the work is done, the body drips |
| `slow_head` | `bytes_per_second` (5) | the work is done, status line and headers drip |
| `interim` | `code` (102), `every` seconds (0.2), `times` (no end) | the work is done; 1xx answers, not the real one |
| `gzip_bomb` | `megabytes` (256) | the work is done, the answer is compressed and unpacks to so much |

A `code` is from 200 to 599, whether a standard knows it or not (507, 520 to 530), for `interim` from 100, not 101. With
`times`, the real answer follows after so many. With `work` true the work is done before the error is answered. A
bomb is the true answer followed by white space, with an honest `Content-Encoding: gzip`. After `slow_head` and
`interim` the connection is closed.

Sort *work*, for `run_workflow` only:

| kind | options (defaults) | what happens |
|---|---|---|
| `late_row` | `seconds` (5) | a run starts, its row is seen so much later |
| `ghost` | `message` | a row without a run; the answer is 500 |

Each a sort of its own, what the answer says:

| kind | options (defaults) | what happens |
|---|---|---|
| `hidden` | | an error's message is replaced by `internal server error` |
| `unknown_fields` | | rows carry fields that nobody has heard of |
| `shuffled` | | a list comes in another order each time, so its pages overlap |
| `misread` | `how` (required) | the work is done, and what goes out isn't the answer: see module `misread` |

All kinds take `skip`: so many requests pass first, and one that another fault of the same sort harms is none of them. A
count below 0 has no end.

A fault has met the requests whose answer or connection it changed. One that leaves a request as it is, such as `hidden`
a success, has not met it, although it is used up by it. Where a fault could never change anything, it cannot be set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .misread import HOWS

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATIONS = (
    "info",
    "list_workflows",
    "create_workflow",
    "get_workflow",
    "delete_workflow",
    "run_workflow",
    "list_instances",
    "get_instance",
    "get_instance_history",
    "get_stage_history",
    "send_event",
    "abort_instance",
    "list_triggers",
    "create_trigger",
    "get_trigger",
    "delete_trigger",
    "list_trigger_occurrences",
    "test_trigger",
    "token",
)
NETWORK = (
    "refuse",
    "cut_before",
    "cut_amid",
    "cut_after",
    "stall",
    "status",
    "html",
    "truncated",
    "slow",
    "slow_head",
    "interim",
    "gzip_bomb",
)
WORK = ("late_row", "ghost")
CONTENT = ("hidden", "unknown_fields", "shuffled", "misread")
_SORT = {**dict.fromkeys(NETWORK, "network"), **dict.fromkeys(WORK, "work"), **{kind: kind for kind in CONTENT}}

LISTS = (
    "list_workflows",
    "list_instances",
    "get_instance_history",
    "get_stage_history",
    "list_triggers",
    "list_trigger_occurrences",
)
_THINGS = ("create_workflow", "get_workflow", "run_workflow", "get_instance", "create_trigger", "get_trigger")
_OBJECTS = (*_THINGS, "test_trigger")
_EMPTY = ("delete_workflow", "send_event", "abort_instance", "delete_trigger")
_CAN_CHANGE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(WORK, ("run_workflow",)),
    "hidden": tuple(one for one in OPERATIONS if one not in ("info", "token")),
    "unknown_fields": (*LISTS, *_THINGS),
    "shuffled": ("list_workflows", "list_instances"),
    "object": LISTS,
    "list": _OBJECTS,
    "other_id": _THINGS,
    "other_workflow": (
        "run_workflow",
        "get_instance",
        "list_instances",
        "create_trigger",
        "get_trigger",
        "list_triggers",
    ),
    "no_next": tuple(one for one in LISTS if one.startswith("list_")),
    "zero_time": (
        *(one for one in LISTS if "trigger" not in one),
        *(one for one in _THINGS if "trigger" not in one),
    ),
    "no_filter": ("list_instances",),
    "bom": tuple(one for one in OPERATIONS if one not in _EMPTY),
}
"""By kind, or by the way in which an answer is misread: operations that such a fault can change. Not named: all."""


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and 0 <= value < 1e9


def _is_count(value: Any) -> bool:
    return _is_number(value) and isinstance(value, int)


def _is_status(value: Any) -> bool:
    return _is_count(value) and 200 <= value < 600


def _is_interim(value: Any) -> bool:
    return _is_count(value) and 100 <= value < 200 and value != 101


_NUMBER = (_is_number, "a number from 0")
_COUNT = (_is_count, "a whole number from 0")
_STATUS = (_is_status, "a status from 200 to 599")
_TEXT = (lambda value: isinstance(value, str), "a text")
_SWITCH = (lambda value: isinstance(value, bool), "true or false")
_ANY = (lambda value: True, "")
_OPTIONS: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "cut_amid": {"after": _NUMBER},
    "stall": {"seconds": _NUMBER},
    "status": {"code": _STATUS, "retry_after": _ANY, "message": _TEXT, "error_code": _TEXT, "work": _SWITCH},
    "html": {"code": _STATUS, "work": _SWITCH},
    "slow": {"bytes_per_second": _NUMBER},
    "slow_head": {"bytes_per_second": _NUMBER},
    "interim": {
        "code": (_is_interim, "a status from 100 to 199, but not 101"),
        "every": _NUMBER,
        "times": _COUNT,
    },
    "gzip_bomb": {"megabytes": _COUNT},
    "late_row": {"seconds": _NUMBER},
    "ghost": {"message": _TEXT},
    "misread": {"how": (lambda value: value in HOWS, f"one of {', '.join(HOWS)}")},
}
_REQUIRED = {"misread": ("how",)}


@dataclass(slots=True)
class Fault:
    """One fault and for how many requests it still holds."""

    operation: str
    kind: str
    left: int
    skip: int
    options: dict[str, Any]
    met: int = 0
    """How many requests it has changed."""
    came: int = 0
    """How many came that it was there for."""

    @property
    def name(self) -> str:
        """What it does: its kind, or the way in which an answer is misread."""
        how: str = self.options.get("how", self.kind)
        return how

    def can_change(self, operation: str) -> bool:
        """Whether it can change anything about an operation."""
        return operation in _CAN_CHANGE.get(self.name, OPERATIONS)


class Faults:
    """The faults that are set. Empty, it costs a request nothing."""

    def __init__(self) -> None:
        self._set: list[Fault] = []

    def __bool__(self) -> bool:
        return bool(self._set)

    def holds(self, fault: Fault) -> bool:
        """Whether it can still meet a request."""
        return any(one is fault for one in self._set)

    def add(self, operation: str, kind: str, count: int = 1, **options: Any) -> Fault:
        """Set a fault.

        Raises:
            ValueError: there is no such operation, kind or option, an option is missing or makes no sense, or the fault
                can change nothing about this operation.
        """
        if operation != "any" and operation not in OPERATIONS:
            raise ValueError(f"no operation {operation!r}; there are any, {', '.join(OPERATIONS)}")
        if kind not in _SORT:
            raise ValueError(f"no fault {kind!r}; there are {', '.join(_SORT)}")
        known = {**_OPTIONS.get(kind, {}), "skip": _COUNT}
        unknown = options.keys() - known.keys()
        if unknown:
            raise ValueError(f"the fault {kind!r} has no option {', '.join(sorted(unknown))}")
        for name in _REQUIRED.get(kind, ()):
            if name not in options:
                raise ValueError(f"the fault {kind!r} needs {name}: {known[name][1]}")
        for name, value in options.items():
            fits, wanted = known[name]
            if not fits(value):
                raise ValueError(f"{name} must be {wanted}, not {value!r}")
        if isinstance(count, bool) or not isinstance(count, int):
            raise ValueError(f"count must be a whole number, not {count!r}")
        fault = Fault(operation, kind, count, options.pop("skip", 0), options)
        if operation != "any" and not fault.can_change(operation):
            what = f"{kind!r} with how={fault.name!r}" if fault.name != kind else repr(kind)
            raise ValueError(
                f"the fault {what} can change nothing about {operation!r}, only about "
                f"{', '.join(one for one in OPERATIONS if fault.can_change(one))}"
            )
        if count:
            self._set.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Take one back; again is harmless."""
        self._set = [one for one in self._set if one is not fault]

    def clear(self) -> None:
        """Take all faults back."""
        self._set.clear()

    def take(self, operation: str) -> list[Fault]:
        """The faults of a request that came in; they count as used. Whoever lets them happen counts what they meet."""
        matching = [
            fault
            for fault in self._set
            if fault.operation in (operation, "any") and (fault.kind not in WORK or fault.can_change(operation))
        ]
        taken: dict[str, Fault] = {}
        for fault in matching:
            if not fault.skip:
                taken.setdefault(_SORT[fault.kind], fault)
        for fault in matching:
            if fault.skip and _SORT[fault.kind] not in taken:
                fault.skip -= 1
        for fault in taken.values():
            fault.left -= 1
            fault.came += 1
            if fault.left == 0:
                self.remove(fault)
        return list(taken.values())
