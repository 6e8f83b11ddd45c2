"""What a wait is told, and what it asks for next: the language between the reducer and whoever feeds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..api.errors import OrchestrationError
from ..api.models import ActivityRun, Instance, StageEvent, StageRun
from .checkpoints import PassTried
from .ends import End

# ---- what is observed ------------------------------------------------------------------------------


class Seen(msgspec.Struct, frozen=True):
    """The instance, as a GET by its id gave it. ``server_time``: epoch seconds by the server's clock."""

    instance: Instance
    server_time: float


class Paused(msgspec.Struct, frozen=True):
    """It is time for a look: the time that ``LookAt`` asked for has passed, or that for a closer look, or all of it."""


class Hinted(msgspec.Struct, frozen=True):
    """Somebody says that the instance may have ended. By itself this means nothing, and it may come too early."""


class Absent(msgspec.Struct, frozen=True):
    """A list of running instances was read, and the id stood not in it. By itself this means nothing."""


class ReadFailed(msgspec.Struct, frozen=True):
    """A GET of the instance failed."""

    error: OrchestrationError


class DefinitionRead(msgspec.Struct, frozen=True):
    """The stages of the workflow: it names the stages of its instances."""

    stages: Sequence[Mapping[str, Any]]


class HistoryRead(msgspec.Struct, frozen=True):
    """The stages whose work was launched."""

    stages: Sequence[StageRun]


class StageRead(msgspec.Struct, frozen=True):
    """The activities of a stage."""

    stage: int
    activities: Sequence[ActivityRun]


class DetailFailed(msgspec.Struct, frozen=True):
    """A history could not be read."""

    error: OrchestrationError


Observation = (
    Seen | Paused | Hinted | Absent | ReadFailed | DefinitionRead | HistoryRead | StageRead | DetailFailed | PassTried
)


# ---- what to do next -------------------------------------------------------------------------------


class LookAt(msgspec.Struct, frozen=True):
    """Do nothing until ``at`` (epoch seconds), then observe: by a GET, or a list that others share."""

    at: float


class Read(msgspec.Struct, frozen=True):
    """GET the instance now, over by ``by`` (epoch seconds). ``last``: this look decides."""

    by: float | None
    last: bool = False


class ReadDefinition(msgspec.Struct, frozen=True):
    """GET the workflow, once: it only informs."""

    workflow_id: str


class ReadHistory(msgspec.Struct, frozen=True):
    """Read the history of the instance: it only informs."""


class ReadStage(msgspec.Struct, frozen=True):
    """Read the history of a stage: it only informs."""

    stage: int


class TryToPass(msgspec.Struct, frozen=True):
    """Let the instance pass a checkpoint, if whoever waits may. ``number``: the user's of the stage behind it; None
    where only the engine knows it."""

    number: int | None


Next = LookAt | Read | ReadDefinition | ReadHistory | ReadStage | TryToPass | End


class Step(msgspec.Struct, frozen=True):
    """Tell these, then do this."""

    next: Next
    tell: tuple[StageEvent, ...] = ()
