"""Faults: which request goes wrong, and how.

A fault is set for an operation (or `any`) and a number of requests. A request takes at most one fault of
each sort, the oldest first, so that a late row and a lost answer can meet in one request:

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
| `late_row` | `seconds` (5) | a run starts, its row is seen so much later |
| `ghost` | `message` | a row without a run; the answer is 500 |
| `hidden` | | an error's message is replaced by `internal server error` |
| `unknown_fields` | | rows carry fields that nobody has heard of |
| `shuffled` | | a list comes in another order each time, so its pages overlap |

With `work` true the work is done before the error is answered. All kinds take `skip`: so many matching
requests pass unharmed first. A count below 0 has no end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
NETWORK = ("refuse", "cut_before", "cut_amid", "cut_after", "stall", "status", "html", "truncated", "slow")
WORK = ("late_row", "ghost")
CONTENT = ("hidden", "unknown_fields", "shuffled")
_SORT = {**dict.fromkeys(NETWORK, "network"), **dict.fromkeys(WORK, "work"), **{kind: kind for kind in CONTENT}}
_OPTIONS = {
    "cut_amid": {"after"},
    "stall": {"seconds"},
    "status": {"code", "retry_after", "message", "error_code", "work"},
    "html": {"code", "work"},
    "slow": {"bytes_per_second"},
    "late_row": {"seconds"},
    "ghost": {"message"},
}


@dataclass(slots=True)
class Fault:
    """One fault and for how many requests it still holds."""

    operation: str
    kind: str
    left: int
    skip: int
    options: dict[str, Any]


class Faults:
    """The faults that are set. Empty, it costs a request nothing."""

    def __init__(self) -> None:
        self._set: list[Fault] = []

    def __bool__(self) -> bool:
        return bool(self._set)

    def add(self, operation: str, kind: str, count: int = 1, **options: Any) -> None:
        """Set a fault. ValueError: there is no such operation, kind or option."""
        if operation != "any" and operation not in OPERATIONS:
            raise ValueError(f"no operation {operation!r}; there are any, {', '.join(OPERATIONS)}")
        if kind not in _SORT:
            raise ValueError(f"no fault {kind!r}; there are {', '.join(_SORT)}")
        unknown = options.keys() - _OPTIONS.get(kind, set()) - {"skip"}
        if unknown:
            raise ValueError(f"the fault {kind!r} has no option {', '.join(sorted(unknown))}")
        for name, value in options.items():
            if name in ("seconds", "after", "bytes_per_second", "code", "skip") and (
                isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9
            ):
                raise ValueError(f"{name} must be a number from 0, not {value!r}")
        if isinstance(count, bool) or not isinstance(count, int):
            raise ValueError(f"count must be a whole number, not {count!r}")
        if count:
            self._set.append(Fault(operation, kind, count, int(options.pop("skip", 0)), options))

    def clear(self) -> None:
        """Take all faults back."""
        self._set.clear()

    def take(self, operation: str) -> list[Fault]:
        """The faults of a request that came in; they count as used."""
        taken: dict[str, Fault] = {}
        for fault in list(self._set):
            if fault.operation != operation and fault.operation != "any":
                continue
            if fault.kind in WORK and operation != "run_workflow":
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if taken.setdefault(_SORT[fault.kind], fault) is not fault:
                continue
            fault.left -= 1
            if fault.left == 0:
                self._set.remove(fault)
        return list(taken.values())
