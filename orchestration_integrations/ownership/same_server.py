"""Whether a changed address is the server that the run on record was submitted to.

Addresses change for good reasons: a host name for a number, https for http, a new path of a gateway. So the new
address is asked for the very instance on record: a server that shows it with the same workflow and the same instant
of creation is the same one.
"""

from __future__ import annotations

import logging

from ..api.calls import get_instance
from ..api.errors import NotFoundError, OrchestrationError, WrongServerError, is_denial, is_inconclusive, summary
from ..procedures.effects import Now, Procedure, insist
from ..procedures.gated_start import shows_release
from ..procedures.listing import Versions
from ..procedures.start import Starting
from .keeping import Keeper
from .observing import unread_refused, unread_text
from .request import settle_token
from .resolve import How

logger = logging.getLogger("orchestration_integrations.ownership")


def check_server(
    keeper: Keeper, starting: Starting, how: How, token: bool, gated: bool, versions: Versions, now: Now
) -> Procedure[None]:
    """A changed address is another server, unless it knows the very instance on record.

    Raises:
        WrongServerError: it does not, or nothing can tell.
        StateUnknownError, AmbiguousRunError: it could not be read: see ``Starting.unread``.
    """
    record = keeper.record
    if record is None or not record.server or record.server == keeper.server:
        return
    # A word about runs that were shown is about the server that showed them. What another one hides is no fate of it.
    unseen = token and (record.settled or settle_token(record) in keeper.request.settled)
    if unseen or (record.state == "told" and how == "new"):
        return
    where = f"the run of key {record.key} was submitted to {record.server}, and the address is now {keeper.server}"
    remedy = "Restore the address, or settle the key once you know how that run ended"
    if record.instance_id is None:
        raise WrongServerError(f"{where}: nothing was submitted there. {remedy}", instance_id=None)
    call = get_instance(record.instance_id, versions.plain)
    try:
        instance = yield from insist(call, now, starting.until)
    except OrchestrationError as error:
        if is_denial(error):
            raise WrongServerError(
                f"{where}, which does not know instance {record.instance_id}: nothing was submitted there. {remedy}",
                instance_id=record.instance_id,
            ) from error
        if is_inconclusive(error) or isinstance(error, NotFoundError):
            why = f"{unread_text(record, summary(error))}; {where}"
            raise starting.unread(why, error, instance_id=record.instance_id) from error
        raise unread_refused(record, error) from error
    same = record.created_at is not None and instance.created_at == record.created_at
    if not same or instance.workflow_id != record.workflow_id:
        raise WrongServerError(
            f"{where}: its instance {record.instance_id} is another one. {remedy}", instance_id=record.instance_id
        )
    if gated and not instance.terminated and not shows_release(instance):
        raise WrongServerError(
            f"{where}: instance {record.instance_id} is known there and was not released yet. {remedy}",
            instance_id=record.instance_id,
        )
    logger.info("run key %s: %s is the same server as %s", record.key, keeper.server, record.server)
    yield from keeper.save(record.changed(server=keeper.server))
