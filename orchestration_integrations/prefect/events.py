"""What is on record of an event that was to be sent, so that a retry does not send it again.

Rows are only ever added: ``sending`` right before the event is sent, ``delivered`` once its stage was seen to end.
A retry of whatever encloses the call comes back to a delivered event; a second call in the same attempt does not: it
is sent, or refused by the server's own state.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, ArtifactFilterType

from ..api.errors import EventNotDeliveredError, OwnerGoneError, OwnerUnreachableError
from ..settings import Settings
from .api import api
from .owner import Owner
from .place import Place, here
from .run_records import PAGE

EVENT_TYPE = "orchestration-event"
OWNER_TRIES = 5
"""Times that an owner is asked who cannot be asked, 2 s apart, before an event is given up."""


class EventRecord:
    """One call that sends an event. All of it blocks."""

    def __init__(self, settings: Settings, instance_id: str, event: str, stage: int | None) -> None:
        what = json.dumps([settings.base_url, instance_id, event, stage])
        self._key = f"orchestration-event-{hashlib.sha256(what.encode()).hexdigest()[:32]}"
        self._event = event
        self._instance_id = instance_id
        self._place: Place | None = None
        self._tried = False
        self.owner: Owner | None = None

    def begin(self) -> bool:
        """Whether an earlier attempt has delivered it, so that this one comes back to that."""
        self._place = here()
        if self._place is None:
            return False
        self.owner = Owner(self._place)
        rows = self._rows()
        earlier = [row for row in rows if self._place.facts.relation(row) == "again"]
        own = [row for row in rows if row not in earlier]
        self._tried = bool(earlier) and not own
        if own or not any(row.get("state") == "delivered" for row in earlier):
            return False
        self._add("delivered")  # by this attempt too: its next call of the kind is another one
        return True

    def before_send(self) -> None:
        """Right before the event is sent: ask the owner, then put on record that it may have been sent.

        Raises:
            OwnerGoneError: it is no longer wanted, or another attempt is at work.
            OwnerUnreachableError: the owner could not be asked.
        """
        if self.owner is None:
            return
        says = self._ask(self.owner)
        if says != "yes":
            why = "another attempt of the flow run is at work" if says == "superseded" else "the flow run is over"
            raise OwnerGoneError(
                f"event {self._event!r} was not sent to instance {self._instance_id}: {why}",
                run_key=None,
                instance_id=self._instance_id,
                superseded=says == "superseded",
            )
        self._add("sending")

    def delivered(self) -> None:
        """Put on record that it was."""
        if self._place is not None:
            self._add("delivered")

    def judged(self, error: EventNotDeliveredError) -> EventNotDeliveredError:
        """The error; where an earlier attempt had sent it too, that attempt may be why the stage is over."""
        if not self._tried or error.reason not in ("stage_over", "instance_ended"):
            return error
        return EventNotDeliveredError(
            f"{error}; an earlier attempt of the flow run had begun to send it and may have delivered it",
            reason="unknown",
            instance_id=error.instance_id,
            instance=error.instance,
        )

    def _ask(self, owner: Owner) -> str:
        tries = 0
        while True:
            tries += 1
            try:
                return owner()
            except Exception as error:
                if tries >= OWNER_TRIES:
                    raise OwnerUnreachableError(
                        f"whether event {self._event!r} to instance {self._instance_id} is still wanted could not be "
                        f"found out ({error!r}); it was not sent",
                        run_key=None,
                        instance_id=self._instance_id,
                    ) from error
                time.sleep(2.0)

    def _rows(self) -> list[Mapping[str, Any]]:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[self._key]), type=ArtifactFilterType(any_=[EVENT_TYPE]))
        found = api().read_artifacts(artifact_filter=wanted, limit=PAGE)
        return [row.data for row in found if isinstance(row.data, Mapping)]

    def _add(self, state: str) -> None:
        if self._place is None:
            return
        flow_run = self._place.root_flow_run_id
        api().create_artifact(
            ArtifactCreate(
                key=self._key,
                type=EVENT_TYPE,
                description=f"Event `{self._event}` to instance `{self._instance_id}`: {state}",
                data={**self._place.facts.on_record(), "state": state},
                flow_run_id=flow_run,
            )
        )
