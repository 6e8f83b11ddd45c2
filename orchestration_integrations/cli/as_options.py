"""An error of the hook in the words of the command.

What the hook takes as an argument, the command takes as an option. An error names the remedy as Python has it
(``first_attempt=True``); nobody can type that in a shell. This is the one place that knows both.
"""

from __future__ import annotations

import re

_REMEDIES = ("allow_unbound", "checkpoints", "first_attempt", "gate", "on_changed", "rerun_failed", "settled")
"""Arguments that errors tell to give. All are options of that name."""
_OPTIONS = (
    *_REMEDIES, "cancel_on_interrupt", "fail_after_attempts", "on_timeout", "poll_interval", "read_budget", "run_key",
    "start_timeout", "timeout",
)  # fmt: skip
"""Arguments that are options of that name."""
_GIVEN = re.compile(rf"\b({'|'.join(_REMEDIES)})=(?:True\b|'([^']*)')")
_STAGE = re.compile(r"\bstage=(\d*)")
_CREATED = re.compile(r"with ensure_workflow\(…, ([^()]*)\)")
_PHRASES = {
    "Give workflow_id;": "Give the id of one;",
    ", or give at_checkpoint=": "",
}


def option_of(argument: str) -> str:
    """The option for an argument."""
    return f"--{argument.replace('_', '-')}"


def as_options(error: object) -> str:
    """The text of an error, with options in the place of arguments."""
    text = str(error)
    subject = getattr(error, "path", None)  # of a ValidationError: what is wrong
    if subject in _OPTIONS and re.match(rf"{subject}\b", text):
        text = option_of(subject) + text.removeprefix(subject)
    for phrase, ours in _PHRASES.items():
        text = text.replace(phrase, ours)
    text = _CREATED.sub(lambda found: f"by workflows apply FILE {found[1].replace(',', '')}", text)
    text = _STAGE.sub(lambda found: f"{option_of('stage')} {found[1]}".rstrip(), text)
    return _GIVEN.sub(_option_given, text)


def _option_given(found: re.Match[str]) -> str:
    return " ".join(filter(None, [option_of(found[1]), found[2]]))
