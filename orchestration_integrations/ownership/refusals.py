"""The errors for a run on record that this attempt may not go on with."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..api.errors import (
    AmbiguousRunError,
    InstanceStuckError,
    OrchestrationError,
    OwnerGoneError,
    WrongServerError,
    is_mendable,
    summary,
)
from ..api.models import CancelOutcome
from ..api.notes import add_note
from ..procedures.effects import Now, Procedure
from ..procedures.ends import MOVED_SECONDS, definition_or_none, moved_text
from ..procedures.gated_start import FoundRun
from ..procedures.listing import Versions
from ..procedures.moved import NOTHING_READ, read_moved
from ..procedures.start import Starting, no_token
from ..procedures.verdicts import cancel_text
from .keeping import Keeper
from .observing import Seen
from .record import AdoptedElsewhereError

logger = logging.getLogger("orchestration_integrations.ownership")


def held(keeper: Keeper, seen: Seen, versions: Versions, now: Now) -> Procedure[InstanceStuckError]:
    """The run stands at a checkpoint that nobody will pass. What it had moved before is read first."""
    over, moved, after = now.monotonic() + MOVED_SECONDS, NOTHING_READ, ""
    if seen.instance is not None:
        moved = (yield from read_moved(seen.instance, versions, now, over)).moved
        stages = yield from definition_or_none(seen.instance, None, versions, now, over)
        after = f" after {moved_text(moved, stages)}"
    where = "a checkpoint" if seen.standing is None else f"the checkpoint before stage {seen.standing.number}"
    record = keeper.record
    by = f" ({record.held_by})" if record is not None and record.held_by else ""
    told = (
        f"instance {keeper.instance_id} of key {keeper.request.run_key} stands at {where}{after}, held by a stop{by}: "
        "nothing of it moves any more"
    )
    return InstanceStuckError(
        f"{told}; {keeper.request.remedy_held}",
        reason="held",
        instance_id=keeper.instance_id or "",
        instance=seen.instance,
        moved=moved,
        told=told,
    )


def stopped_at_gate(keeper: Keeper) -> OwnerGoneError:
    """Somebody else has asked for a stop of the run before it was released."""
    return OwnerGoneError(
        f"somebody has asked for a stop of instance {keeper.instance_id} of key {keeper.request.run_key}, which stands "
        f"at its gate: nothing of it has begun, and it was not released. {keeper.request.remedy_held}",
        run_key=keeper.request.run_key,
        instance_id=keeper.instance_id,
    )


def of_known_run(starting: Starting, instance_id: str | None, row: int, seen: Seen) -> OrchestrationError | None:
    """What is not known of runs that the server shows, or has shown before; None where it shows none."""
    if row == 10 and instance_id is not None:
        return starting.ambiguous("its row did not appear", (instance_id,), seen.error)
    if row == 19 and instance_id is not None:
        if seen.error is not None and is_mendable(seen.error) and starting.comes_again:
            why = (
                f"whether a payment of instance {instance_id} of key {starting.key} was under way when it was cancelled"
            )
            unread = f"{why} could not be read ({summary(seen.error)})"
            return starting.unread(unread, seen.error, instance_id=instance_id)
        return payment_unknown(starting, instance_id)
    if seen.error is not None and is_mendable(seen.error) and not seen.found:
        why = f"the history of a run that may be it could not be read ({summary(seen.error)})"
        return starting.unread(why, seen.error, seen.candidates)
    return several(starting, seen) if seen.shows in ("several", "many wait", "waits after another") else None


def gate_unread(starting: Starting, instance_id: str, error: OrchestrationError | None) -> OrchestrationError:
    """What the run on record stands for is known from its gate alone, which the engine does not show."""
    why = f"the gate of instance {instance_id} cannot be read, so nothing tells what it stands for"
    if error is None:
        return starting.ambiguous(why, (instance_id,))
    return starting.unread(f"{why} ({summary(error)})", error, instance_id=instance_id)


def payment_unknown(starting: Starting, instance_id: str) -> AmbiguousRunError:
    """The run was cancelled, nobody knows whether a payment of it arrived, and only a standing flag asks for more."""
    return starting.ambiguous(
        "it was cancelled while one was under way, or its history cannot be read; rerun_failed does not settle that",
        (instance_id,),
        what=f"a payment of instance {instance_id} of key {starting.key} may have arrived all the same",
    )


def ungated_submit(provable: bool, elsewhere: str | None) -> str:
    """Why nobody knows whether a submit without a gate started a run.

    Args:
        provable: a stage carries the key, so that a run of it could be told from others.
        elsewhere: the workflow that it went to, where another one is asked for now.
    """
    if elsewhere is not None:
        return f"an earlier attempt may have submitted it to workflow {elsewhere}, without a gate"
    why = "an earlier attempt may have submitted it, and this definition has no gate"
    return why if provable else f"{why}; no stage carries the key, so nothing can be proved"


def several(starting: Starting, seen: Seen) -> AmbiguousRunError:
    """More than one run of the key stands there."""
    found = [run.instance.id for run in seen.found]
    if seen.shows == "many wait":
        why = "several unreleased runs of it stand there, and none is on record as chosen; nothing was released"
    elif seen.shows == "waits after another":
        why = (
            f"{found[-1]} stands at its gate in a later round than a run of it that was released; no record here tells "
            "whether somebody wants that as another payment; nothing was released"
        )
        why += "" if starting.token() else "; where no record can be kept, chosen=… goes on with the one that you mean"
    elif found:
        why = "more than one run of it is released already"
    else:
        why = "more than one run carries the key"
    return starting.ambiguous(why, found or seen.candidates)


def the_only_one(starting: Starting, found: Sequence[FoundRun]) -> FoundRun:
    """The run that another record has released. Raises AmbiguousRunError where there are several."""
    if len(found) == 1:
        return found[0]
    ids = [run.instance.id for run in found]
    raise starting.ambiguous(f"{len(ids)} runs of the key were released that are not on record", ids)


def wrong_server(keeper: Keeper, seen: Seen) -> WrongServerError:
    """The server denies a run that it has shown before."""
    why = summary(seen.error) if seen.error is not None else "not found"
    return WrongServerError(
        f"instance {keeper.instance_id} of key {keeper.request.run_key} is unknown to {keeper.server}, where it was "
        f"seen before: this is another server or another stack ({why}); nothing was started",
        instance_id=keeper.instance_id,
    )


def tell_old_run_is_cancelled(run_key: str, instance_id: str, outcome: CancelOutcome, *, anew: bool) -> None:
    """A new run was asked for, and the old one is cancelled; ``anew``: all is paid again."""
    known = outcome.moved.complete and not outcome.in_flight and not outcome.moved.transactions
    logger.log(
        logging.INFO if known else logging.WARNING,
        "run key %s: a new run was asked for while instance %s ran; %s%s",
        run_key,
        instance_id,
        cancel_text(outcome),
        "; the new run pays all of it again" if anew else "",
    )


def tell_old_run_goes_on(run_key: str, instance_id: str, outcome: CancelOutcome) -> None:
    """Say in the log why no new run was started although one was asked for."""
    if outcome.status in ("already_ended", "never_started"):
        logger.warning(
            "run key %s: a new run was asked for, but instance %s had ended by itself, which nobody was told yet: "
            "telling that; ask again for a new run",
            run_key,
            instance_id,
        )
        return
    logger.warning(
        "run key %s: a new run was asked for, but instance %s goes on and could not be cancelled (the abort was "
        "answered with %s): waiting for that one, since a second run would pay twice",
        run_key,
        instance_id,
        outcome.abort_answer,
    )


def tell_submitted(error: Exception, instance_id: str, *, on_record: bool) -> None:
    """Have the error of a call tell of the run that it had submitted without a gate."""
    if not on_record:
        add_note(error, f"instance {instance_id} was started, which could not be put on record")
    if isinstance(error, OrchestrationError):
        error.run_may_exist = True


def submitted_beside(
    starting: Starting, instance_id: str, known: str | None, cause: BaseException | None = None
) -> AmbiguousRunError:
    """The error of a call that has submitted a run without a gate, where the key stands for another run by now.

    Args:
        instance_id: the run that was submitted: nothing holds it back.
        known: the run of the key; None where that could not be read.
        cause: why the submitted one could not be chosen; None where another one was chosen before.
    """
    changed = (
        "has changed the record of the key" if known is None else f"has put instance {known} on record for the key"
    )
    beside = str(cause) if isinstance(cause, AdoptedElsewhereError) else f"another process {changed}"
    starting.token = no_token  # whatever became of the two, nobody is to pay a third time by a word of this error
    return starting.ambiguous(
        f"this call has submitted instance {instance_id}, which has no gate, so it pays; meanwhile "
        f"{beside}: look into the ledger for both",
        [one for one in (instance_id, known) if one is not None],
        cause,
        what=f"key {starting.key} may be paid twice",
    )
