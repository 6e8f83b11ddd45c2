"""What a command runs in: its settings, its output, and what its errors mean.

Every command that reaches a server has the same options for the settings, each beside its variable of the
environment. They are added here, so no command repeats them.
"""

# Annotations are evaluated here: typer reads those of the options below.
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import notices
from .error_objects import FACTS, tell_error
from .output import Output
from .signals import Left, heard, last_word, status_of_interrupt

if TYPE_CHECKING:
    from ..http_hook import OrchestrationHttpHook
    from ..run_store import SqliteRunStore
    from ..settings import Settings
    from .outage import ToldHook

LEAST_BUDGET = 5.0
"""Seconds that a call and its repetitions get however short a time limit is: a slow server is no dead one."""
_SETTINGS = {
    "url": ("base_url", "--url", "Base URL of the server; default: ORCHESTRATION_URL."),
    "token": ("token", "--token", "Bearer token. Others on this machine can see it: prefer ORCHESTRATION_TOKEN."),
    "client_id": ("client_id", "--client-id", "OAuth2 client; default: ORCHESTRATION_CLIENT_ID."),
    "client_secret": ("client_secret", "--client-secret", "Its secret; prefer ORCHESTRATION_CLIENT_SECRET."),
    "token_url": ("token_url", "--token-url", "Where tokens are issued; default: ORCHESTRATION_TOKEN_URL."),
    "scope": ("scope", "--scope", "Scope of the token; default: ORCHESTRATION_SCOPE."),
    "api_version": ("api_version", "--api-version", "auto, v1 or v2; default: ORCHESTRATION_API_VERSION."),
    "verify": ("verify", "--verify", "true, false or a CA bundle; default: ORCHESTRATION_VERIFY."),
    "cert": ("cert", "--cert", "Client certificate; default: ORCHESTRATION_CERT."),
    "ui_url": ("ui_url", "--ui-url", "What people open to see an instance; default: ORCHESTRATION_UI_URL."),
    "http_timeout": ("timeout", "--http-timeout", "Seconds of one HTTP exchange; default: ORCHESTRATION_TIMEOUT."),
    "retry_budget": ("retry_budget", "--retry-budget", "Of a call with retries; default: ORCHESTRATION_RETRY_BUDGET."),
    "max_connections": ("max_connections", "--max-connections", "Connections; default: ORCHESTRATION_MAX_CONNECTIONS."),
}  # fmt: skip
_JSON = Annotated[bool, typer.Option("--json", help="One JSON object a line; docs/cli.md describes them.")]


class Session:
    """One run of one command.

    Args:
        out: its output.
        given: settings by their field, None where an option was not given.

    Attributes:
        if_interrupted: what is true of its runs if the command is interrupted now, and nobody knows better.
        about: ``instance_id``, ``run_key`` and ``workflow_id`` of what it is about, as far as that is known: for an
            error that does not name them itself.
    """

    def __init__(self, out: Output, given: Mapping[str, str | None]) -> None:
        self.out = out
        self.if_interrupted = Left()
        self.about: dict[str, str | None] = {}
        self._given = {name: value for name, value in given.items() if value is not None}
        self._hook: ToldHook | None = None
        self._limit: float | None = None

    @property
    def given_token(self) -> str | None:
        """What ``--token`` was given; None where it was not."""
        return self._given.get("token")

    @property
    def settings(self) -> "Settings":
        """The settings: of the options, and of the environment where an option is not given."""
        from ..api.errors import ConfigurationError
        from ..settings import Settings

        if "base_url" not in self._given and not os.environ.get("ORCHESTRATION_URL", "").strip():
            raise ConfigurationError("base_url: name the server by --url, or set ORCHESTRATION_URL", field="base_url")
        for _, option, _ in (_SETTINGS["token"], _SETTINGS["client_secret"]):
            field = option.removeprefix("--").replace("-", "_")
            if field in self._given and not self._given[field].strip():
                raise ConfigurationError(f"{option}: is blank; give it, or leave it out", field=field)
        try:
            return Settings.from_env(**self._given)
        except ConfigurationError as error:
            if error.field not in self._given:
                raise
            option = next(one[1] for one in _SETTINGS.values() if one[0] == error.field)
            raise ConfigurationError(f"{error} (from {option})", field=error.field) from error

    @property
    def hook(self) -> "OrchestrationHttpHook":
        """The hook, made when it is first needed."""
        if self._hook is None:
            from .outage import Outage, ToldHook

            settings = self.settings
            if self._limit is not None:
                budget = min(settings.retry_budget, max(self._limit, LEAST_BUDGET))
                settings = settings.with_changes(retry_budget=budget)
            hook = ToldHook(settings, face="cli")
            hook.outage = Outage(settings.base_url)
            self._hook = hook
        return self._hook

    def stages_read(self, workflow_id: str) -> "Sequence[Mapping[str, Any]] | None":
        """The stages of a workflow, where this command has read them; None where it has not. Nothing is read now."""
        return None if self._hook is None else self._hook.plans.versions.remembered.definition(workflow_id)

    def limit_retries(self, seconds: float | None) -> None:
        """No call of this command is repeated for longer than its time limit, None for none. Before the first call."""
        self._limit = seconds

    def store(self, path: str | None, *, create: bool = False, needed_for: str = "") -> "SqliteRunStore | None":
        """The store in a file that is there; a missing file is a typing mistake, and is not made.

        Args:
            path: of the file; None for no store.
            create: make it where it is missing.
            needed_for: what cannot be done without a store; empty where it can.
        """
        import sqlite3

        from ..api.errors import ConfigurationError
        from ..run_store import SqliteRunStore

        if not path:
            if needed_for:
                raise ConfigurationError(
                    f"store: {needed_for}; name the file by --store, or set ORCHESTRATION_STORE", field="store"
                )
            return None
        if not create and not os.path.exists(path):
            raise ConfigurationError(f"store: there is no file {path}", field="store")
        try:
            return SqliteRunStore(path)
        except ConfigurationError as error:
            # What keeps a file from being read (a full disk, a damaged file) says nothing of the runs on record in it.
            error.run_may_exist = os.path.exists(path) and isinstance(error.__cause__, sqlite3.Error | OSError)
            raise

    def close(self) -> None:
        """Let go of the connections."""
        if self._hook is not None:
            self._hook.outage.close()
            self._hook.close()


def reaching_server(function: Callable[..., int | None]) -> Callable[..., None]:
    """A command that talks to a server: it gets the options of the settings, and ``--json``.

    Args:
        function: called with a ``Session`` and with its own options; what it returns is the exit status.
    """
    return _command(function, {name: (option, text) for name, (_, option, text) in _SETTINGS.items()})


def local(function: Callable[..., int | None]) -> Callable[..., None]:
    """A command that talks to no server: it gets ``--json``."""
    return _command(function, {})


def _command(function: Callable[..., int | None], settings: Mapping[str, tuple[str, str]]) -> Callable[..., None]:
    @functools.wraps(function)
    def command(**given: Any) -> None:
        notices.keep_secret((given.get("token"), given.get("client_secret")))
        notices.tell_warnings()
        out = Output(given.pop("as_json"))
        session = Session(out, {_SETTINGS[name][0]: given.pop(name) for name in settings})
        with heard(), _ending(session):
            try:
                status = function(session, **given)
            finally:
                session.close()
        if status:
            raise typer.Exit(status)

    own = list(inspect.signature(function).parameters.values())[1:]
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, typer.Option(option, help=text, show_default=False)],
        )
        for name, (option, text) in settings.items()
    ]
    as_json = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_JSON)
    parameters = [*(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own), *added, as_json]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    del command.__wrapped__  # else its signature would count
    return command


@contextmanager
def _ending(session: Session) -> Iterator[None]:
    """Tell what ended a command before its time, and turn that into an exit status."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        status = status_of_interrupt(interrupt)
        last_word(status)
        _tell_interrupt(session, interrupt, status)
        raise typer.Exit(status) from None
    except Exception as error:
        from ..api.errors import OrchestrationError
        from .as_options import as_options
        from .exit_codes import status_of

        if not isinstance(error, OrchestrationError):
            raise
        from .shapes import moved_by_error

        status = status_of(error)
        facts = {name: getattr(error, name, None) for name in FACTS}
        facts |= {name: value for name, value in session.about.items() if facts[name] is None}
        moved = moved_by_error(error, session.stages_read)
        tell_error(session.out, type(error).__name__, as_options(error), status, **facts, **moved)
        raise typer.Exit(status) from None


def _tell_interrupt(session: Session, interrupt: KeyboardInterrupt, status: int) -> None:
    """By the outcome of the cancel that the interrupt has asked for, where there was one."""
    left = session.if_interrupted
    facts: dict[str, Any] = {"outcome": left.outcome, "instance_id": left.instance_id, "run_key": left.run_key}
    facts |= {name: value for name, value in session.about.items() if facts.get(name) is None}
    text, again = left.text, left.again
    if hasattr(interrupt, "after_interrupt") or interrupt.__context__ is not None:
        from ..http_hook.interrupts import after_interrupt

        came = after_interrupt(interrupt)
        if came is not None:
            text, facts["sure"] = came.text, came.sure
            again = left.after.get(came.word, again)
            facts["outcome"] = "unknown" if came.word == "being_started" else came.word
            facts["in_flight"] = [] if came.outcome is None else [one.name for one in came.outcome.in_flight]
    if facts["outcome"] is not None:
        facts.setdefault("sure", False)
    said = "; ".join(filter(None, [text, again]))
    tell_error(session.out, "Interrupted", ": ".join(filter(None, ["interrupted", said])), status, **facts)


def confirmed(question: str, yes: bool) -> None:
    """Ask before what cannot be taken back.

    Raises:
        ValidationError: the answer is no, or nobody is there to answer.
    """
    if yes:
        return
    import sys

    from ..api.errors import ValidationError

    notices.write(f"{notices.printable(question)} [y/N]: ")
    answer = sys.stdin.readline() if sys.stdin is not None else ""
    if answer.strip().lower() not in ("y", "yes"):
        said = "nobody answered; --yes does it without asking" if not answer.strip() else "the answer was no"
        raise ValidationError(f"nothing was changed: {said}", path="yes")
