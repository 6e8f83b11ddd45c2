"""Where Prefect keeps the marks of runs with checkpoints: a variable for each, by a name of its own.

Prefect has one variable for a name and shows it at once to whoever reads it, in whatever process. So the waiter of a
run, and a hook, a rollback or a task that stops it, see each other's marks (see ``ownership.marks``).
"""

from __future__ import annotations

from contextlib import suppress

import httpx
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.client.schemas.objects import Variable
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL

from ..ownership.keeping import hold_name
from ..ownership.marks import variable_name
from .api import api
from .place import ids_here

TAG = "orchestration"
"""The tag of all variables of this package."""
PAGE = 200
"""Variables that Prefect gives at once."""
TRIES = 3
"""Tries to put up a mark that somebody else puts up and takes away at the same time."""


class PrefectMarks:
    """A ``MarkPlace`` in Prefect's variables. Methods raise what Prefect's client does."""

    def read(self, name: str) -> str | None:
        """The text of a mark; None where Prefect itself says that there is none. One call.

        Prefect's client takes any 404 for that, also one of a gateway that Prefect's API never saw.
        """
        try:
            answer = api().request("GET", "/variables/name/{name}", path_params={"name": variable_name(name)})
        except httpx.HTTPStatusError as error:
            if error.response.status_code == 404 and _is_prefects(error.response):
                return None
            raise
        return str(answer.json()["value"])

    def write(self, name: str, text: str) -> None:
        """Put up a mark, over one of that name. One call; two where there is one."""
        variable = variable_name(name)
        for left in reversed(range(TRIES)):
            try:
                api().create_variable(VariableCreate(name=variable, value=text, tags=[TAG]))
            except ObjectAlreadyExists:
                try:
                    api().update_variable(VariableUpdate(name=variable, value=text, tags=[TAG]))
                except (httpx.HTTPStatusError, ObjectNotFound):  # it was taken away meanwhile
                    if not left:
                        raise
                    continue
            return

    def remove(self, name: str) -> None:
        """Take a mark away, if it is there. One call."""
        with suppress(ObjectNotFound):
            api().delete_variable_by_name(variable_name(name))

    def remove_run(self, instance_id: str) -> None:
        """Take all marks of a run away. Two calls, and one for each that is there."""
        self.remove(hold_name(instance_id))
        for one in _named(f"{variable_name(f'passing/{instance_id}')}_"):
            with suppress(ObjectNotFound):
                api().delete_variable_by_name(one.name)


def _is_prefects(answer: httpx.Response) -> bool:
    """Whether an answer is of Prefect's API, whose errors are JSON objects with a ``detail``."""
    try:
        return "detail" in answer.json()
    except (ValueError, TypeError):
        return False


def _named(beginning: str) -> list[Variable]:
    """The variables whose names begin so."""
    found: list[Variable] = []
    while True:
        wanted = {"name": {"like_": beginning}}  # anywhere in the name, and "_" stands for any character
        asked = {"variables": wanted, "limit": PAGE, "offset": len(found)}
        page = Variable.model_validate_list(api().request("POST", "/variables/filter", json=asked).json())
        found += page
        if len(page) < PAGE:
            return [one for one in found if one.name.startswith(beginning)]


def marks_here() -> PrefectMarks | None:
    """The place of marks for a run that is on no record: Prefect's, inside any run of Prefect and wherever its settings
    name an API. None elsewhere, where Prefect would have to start a server first."""
    inside = ids_here() != (None, None)
    return PrefectMarks() if inside or PREFECT_API_URL.value() else None
