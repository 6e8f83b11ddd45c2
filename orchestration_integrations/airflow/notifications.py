"""Notifiers: what a callback of a task or a DAG does to instances, such as ``on_failure_callback=[…]``.

Airflow ends a worker whose callback takes 20 s, so each notifier has a limit below that.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

from ..api.errors import EventNotDeliveredError
from . import callbacks
from .arguments import instance_ids, named, needed_seconds_of, stage_of
from .compat import BaseNotifier, Context
from .hooks import DEFAULT_CONN_ID, OrchestrationHook
from .marks import parts_of

logger = logging.getLogger("orchestration_integrations.airflow")

EVENT_SECONDS = 10.0
"""Seconds in which a stage must have taken the event of a notifier."""
CALL_SECONDS = 5.0


class _Notifier(BaseNotifier):  # type: ignore[misc]
    """One object serves many callbacks: each fills in the templates of a copy."""

    def __call__(self, *args: Any) -> None:
        BaseNotifier.__call__(copy.copy(self), *args)

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """As Airflow's, but no text is empty: Airflow 2.11 leaves the template in place of an empty one."""
        rendered = super().render_template(content, *args, **kwargs)
        return "None" if rendered == "" else rendered


class OrchestrationCancelInstanceNotifier(_Notifier):
    """Cancel instances when the callback comes.

    First it sends all aborts, then it looks what came of them; one line of the log names those that were not seen to
    end. It raises nothing for these.

    Args:
        instance_ids: an instance or a list of them, also as the text that a template makes of a list. None (default):
            all that the tasks of the DAG run have started. A template that comes to nothing cancels nothing.
        orchestration_conn_id: the id of the connection of these instances; default ``orchestration_default``. With
            ``instance_ids=None`` each task's own connection counts.
        timeout: seconds for all of them together; default 14.

    Raises:
        ValidationError: ``instance_ids`` is neither an id nor a list of ids, or ``timeout`` is no number.
    """

    template_fields: Sequence[str] = ("instance_ids", "orchestration_conn_id")

    def __init__(
        self,
        *,
        instance_ids: Any = None,
        orchestration_conn_id: str = DEFAULT_CONN_ID,
        timeout: float = callbacks.CANCEL_SECONDS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.instance_ids = instance_ids
        self.orchestration_conn_id = orchestration_conn_id
        self.timeout = timeout
        self._all = instance_ids is None

    def notify(self, context: Context) -> None:
        """Cancel, and log what came of it."""
        seconds = needed_seconds_of(self.timeout, "timeout")
        if self._all:
            callbacks.cancel_instances(context, seconds)
            return
        found, _ = instance_ids(self.instance_ids, "instance_ids")
        if not found:
            logger.info("there is no instance to cancel")
            return
        wanted = [(self.orchestration_conn_id, one) for one in found]
        callbacks.cancel_wanted(wanted, "a callback asks for a cancel", seconds, parts_of(context))


class OrchestrationSendEventNotifier(_Notifier):
    """Send an event to the stage of an instance that waits for it, when the callback comes.

    Airflow may call a callback twice. The event is sent only while the stage that is meant listens, so give ``stage``
    where a later one waits for the same name.

    Args:
        instance_id: the instance that is to receive it.
        event: the name of the event.
        stage: the number of the stage that is meant, if several wait for the same name: from 0, a gate included.
        orchestration_conn_id: the id of the connection; default ``orchestration_default``.
        timeout: seconds until the stage must have taken the event; default 10.

    Raises:
        EventNotDeliveredError: the log says why; Airflow goes on with its other callbacks.
        ValidationError: an argument is wrong; nothing was sent.
    """

    template_fields: Sequence[str] = ("instance_id", "event", "stage", "orchestration_conn_id")

    def __init__(
        self,
        *,
        instance_id: Any,
        event: Any,
        stage: Any = None,
        orchestration_conn_id: str = DEFAULT_CONN_ID,
        timeout: float = EVENT_SECONDS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.instance_id = instance_id
        self.event = event
        self.stage = stage
        self.orchestration_conn_id = orchestration_conn_id
        self.timeout = timeout

    def notify(self, context: Context) -> None:
        """Send it, and see that the stage took it."""
        instance_id, event = named(self.instance_id, "instance_id"), named(self.event, "event")
        stage, seconds = stage_of(self.stage), needed_seconds_of(self.timeout, "timeout")
        hook = OrchestrationHook(self.orchestration_conn_id)
        with hook.fresh_conn(timeout=CALL_SECONDS, retry_budget=CALL_SECONDS) as http:
            try:
                instance = http.send_event_when_ready(instance_id, event, stage=stage, timeout=seconds)
            except EventNotDeliveredError as error:
                logger.error("event %r was not seen to be taken by instance %s: %s", event, instance_id, error)
                raise
        logger.info("instance %s has taken the event %r; it is %s", instance.id, event, instance.state)
