"""The options of starting and of waiting: the type, the meaning and the default of each, once.

Tasks, flows, blocks and the context manager take them as keywords. Prefect reads the parameters of a task or flow from
its signature, so ``takes`` writes them out there, and into the docstring.
"""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_type_hints

from msgspec.structs import replace
from pydantic import Field
from typing_extensions import TypedDict

from ..api.closest import did_you_mean
from ..api.errors import ValidationError
from ..ownership.request import check_changes
from ..procedures.limits import READ_BUDGET
from ..procedures.variables import KEY_VARIABLE
from ..procedures.wait_arguments import WaitArguments, check_on_timeout

F = TypeVar("F", bound=Callable[..., Any])
_OPTIONS_LINE = re.compile(r"^( *)\{options\}$", re.MULTILINE)


class StartOptions(TypedDict, total=False):
    """Which payment is meant, and when another one is refused."""

    step: Annotated[
        str | None,
        "names this payment within the flow run. The same name with other content, or twice in one attempt, is an "
        "error. By default (None) workflow and variables tell starts apart, and equal ones are counted.",
    ]
    run_key: Annotated[
        str | None,
        "a key of your own, instead of ``step``: it names one payment, whatever flow run asks. Default None.",
    ]
    rerun_failed: Annotated[
        bool,
        "start a new run if an earlier attempt was told that the run failed or was cancelled. Its first stages may "
        "move money again. Default False: the call reports that failure again. If the run was cancelled while a "
        "payment was under way, you must give ``settled`` first.",
    ]
    on_changed: Annotated[
        Literal["refuse", "adopt"],
        "``refuse`` (default) other content under the key, or ``adopt`` the run that has it.",
    ]
    fingerprint_ignores: Annotated[Sequence[str], "names of variables that may differ between attempts; default none."]
    settled: Annotated[
        str | None,
        "the ``token`` of an AmbiguousRunError, default None. Give it once you know that that run did not pay and "
        "will not; the call may then start a new run, which moves money again.",
    ]
    key_variable: Annotated[str, "the variable that carries the key; default ``runKey``."]
    allow_unbound: Annotated[
        bool,
        "let placeholders without a value pass; the server fills in nothing or a default. Default "
        "False: they are a ValidationError.",
    ]
    strict_variables: Annotated[
        bool, "refuse a variable that no placeholder asks for. Default False: a warning names it."
    ]
    checkpoints: Annotated[
        bool,
        "the run waits before each stage that moves money until whoever waits for it lets it go on, so that a stop "
        "holds before the next payment. A definition gets checkpoints; a workflow must have them, else it is a "
        "ValidationError. Default False. Whoever waits for a run of a workflow that has them lets it pass in any case.",
    ]


class SharedOptions(TypedDict, total=False):
    """Of starting and of waiting alike."""

    cancel_on_interrupt: Annotated[
        bool,
        "cancel the run if anything interrupts its wait, or its start once an instance was chosen; default True. A "
        "submitted task looks every two seconds whether its flow run is over.",
    ]
    show_progress: Annotated[bool, "write artifacts and emit events; default True."]


class WaitOptions(SharedOptions, total=False):
    """How to wait, and what becomes of a run that is given up."""

    timeout: Annotated[float | None, "seconds to wait for the end, None (default) for no limit, 0 for one look."]
    poll_interval: Annotated[float, "seconds between two polls, once they have slowed down to it; default 5."]
    on_timeout: Annotated[
        Literal["cancel", "leave"],
        "what becomes of a run that is given up at the time-out or by ``fail_after_attempts``, or that cannot be "
        "read: ``cancel`` (default) or ``leave``.",
    ]
    fail_after_attempts: Annotated[int | None, "give up once a payment failed so often; None (default) for never."]
    read_budget: Annotated[
        float, "give up once all reads have failed for so many seconds, more than ten of them; default 120."
    ]


class RunOptions(StartOptions, SharedOptions, total=False):
    """Of a start that nobody waits for yet."""


class RunAndWaitOptions(StartOptions, WaitOptions, total=False):
    """Of both."""


DEFAULTS: RunAndWaitOptions = {
    "step": None,
    "run_key": None,
    "rerun_failed": False,
    "on_changed": "refuse",
    "fingerprint_ignores": (),
    "settled": None,
    "key_variable": KEY_VARIABLE,
    "allow_unbound": False,
    "strict_variables": False,
    "checkpoints": False,
    "timeout": None,
    "poll_interval": 5.0,
    "on_timeout": "cancel",
    "cancel_on_interrupt": True,
    "fail_after_attempts": None,
    "read_budget": READ_BUDGET,
    "show_progress": True,
}


def start_options(given: Mapping[str, Any]) -> StartOptions:
    """The options of a start among the given ones, completed by the defaults.

    Raises:
        TypeError: one is unknown.
        ValidationError: one is wrong; ``path`` names it.
    """
    options = cast("StartOptions", _completed(StartOptions, given))
    check_changes(options["on_changed"], options["fingerprint_ignores"])
    return options


def wait_options(given: Mapping[str, Any]) -> WaitOptions:
    """The options of a wait among the given ones, completed by the defaults.

    Raises:
        TypeError: one is unknown.
        ValidationError: one is wrong; ``path`` names it.
    """
    options = cast("WaitOptions", _completed(WaitOptions, given))
    check_on_timeout(options["on_timeout"])
    wait_arguments(options)
    return options


def wait_arguments(options: WaitOptions) -> WaitArguments:
    """What the hook's wait is told, if it begins now: a wait that is taken up again has the same deadline.

    Raises:
        ValidationError: an option is wrong; ``path`` names it.
    """
    given = WaitArguments(
        timeout=options["timeout"],
        poll_interval=options["poll_interval"],
        fail_after_attempts=options["fail_after_attempts"],
        read_budget=options["read_budget"],
        shares="many",  # the UI shows each stage as it comes, as long as few wait
    )
    return replace(given, timeout=None, deadline=given.ends_at(time.time()), limit=given.named_limit)


def takes(kind: Any) -> Callable[[F], F]:
    """Write the options of a kind into the signature of a function that takes them as ``**options``.

    The line ``{options}`` of its docstring becomes their description.
    """

    def write(function: F) -> F:
        hints = get_type_hints(function)
        written = function.__doc__ or ""
        named = _types(kind)
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        keywords = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=named[name][0])
            for name, default in DEFAULTS.items()
            if name in named and name not in signature.parameters
        ]
        annotated = [one.replace(annotation=hints.get(one.name, one.annotation)) for one in own]
        returned = hints.get("return", signature.return_annotation)
        function.__signature__ = inspect.Signature([*annotated, *keywords], return_annotation=returned)  # type: ignore[attr-defined]
        function.__annotations__ = {one.name: one.annotation for one in (*annotated, *keywords)} | {"return": returned}
        described = [f"{one.name}: {named[one.name][1]}" for one in keywords]
        function.__doc__ = _OPTIONS_LINE.sub(lambda line: "\n".join(line[1] + one for one in described), written)
        return function

    return write


def option_field(name: str) -> Any:
    """The field of a block for an option."""
    meaning = _types(RunAndWaitOptions)[name][1]
    default = DEFAULTS[name]  # type: ignore[literal-required]
    return Field(default=default, description=f"{meaning[0].upper()}{meaning[1:]}")


def _completed(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if name not in DEFAULTS:
            raise TypeError(f"unexpected keyword argument {name!r}{did_you_mean(name, DEFAULTS)}")
        if isinstance(DEFAULTS[name], bool) and not isinstance(value, bool):  # type: ignore[literal-required]
            # The text "false" would count as true.
            raise ValidationError(f"{name} must be True or False, not {value!r}", path=name)
    return {name: given.get(name, default) for name, default in DEFAULTS.items() if name in kind.__annotations__}


def _types(kind: Any) -> dict[str, tuple[Any, str]]:
    """Type and meaning of each option."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: (get_args(hint)[0], get_args(hint)[1]) for name, hint in hints.items()}
