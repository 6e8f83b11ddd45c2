"""Waiting for instances to end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING

from ... import telemetry
from ...api.errors import OrchestrationError
from ...api.models import RunResult, StageEvent
from ...clock import SystemClock
from ...procedures.limits import POLL_SECONDS, READ_BUDGET
from ...procedures.wait_arguments import Shares, WaitArguments
from .operations import AsyncOperations

if TYPE_CHECKING:
    from ..waits import Place


class AsyncWaits(AsyncOperations):
    """The waits, and the operations of the API."""

    def place_of_wait(self, instance_id: str, shares: Shares) -> Place | None:
        """The place where a wait sleeps that begins; None where time is not the machine's."""
        if not isinstance(self.clock, SystemClock):
            return None
        from ..waits import AsyncPlace

        return AsyncPlace(self, instance_id, shares if self.shares else "never", self.clock)

    async def wait(
        self,
        instance_id: str,
        *,
        timeout: float | None = None,
        poll_interval: float = POLL_SECONDS,
        on_stage: Callable[[StageEvent], object] | None = None,
        fail_after_attempts: int | None = None,
        deadline: float | None = None,
        row_grace: float | None = None,
        read_budget: float = READ_BUDGET,
        at_checkpoint: Callable[[int], bool] | None = None,
    ) -> RunResult:
        """Wait until an instance has ended, and let it pass its checkpoints where ``at_checkpoint`` says so. It calls
        GetInstance, GetInstanceHistory and GetInstanceStageHistory; GetWorkflow once a second stage has begun; and
        SendEvent at a checkpoint. Where others of this process wait too, it calls ListInstances for all of them.

        Args:
            instance_id: the instance to wait for.
            timeout: seconds, None (default) for no limit. One last look of at most 5 s follows and decides.
            poll_interval: seconds between polls, once they have slowed down to it; default 5.
            on_stage: told once and in order when each stage begins and ends, what it listens for and why it fails.
            fail_after_attempts: give up once a payment has failed so often; the instance goes on until it is cancelled.
                None (default) for never.
            deadline: epoch seconds, instead of ``timeout``; None (default) for none.
            row_grace: seconds for which the id may be unknown before it was ever seen; default 10, and an hour
                for an id that this hook was given by the server.
            read_budget: seconds for which reads may fail, one after the other and more than ten of them, before the
                wait gives up; default 120. The run goes on.
            at_checkpoint: asked before the instance passes a checkpoint, each time, with the number of the stage behind
                it as its user counts. True lets it go on, False ends the wait. Nothing else is asked: no record is
                read, so a stop that stands on one is not seen. If it raises, it is asked again until
                the deadline; the instance stands still meanwhile. None (default): an instance at a checkpoint ends the
                wait at once.

        Returns:
            The instance, which succeeded, and what it moved.

        Raises:
            InstanceFailedError, InstanceCancelledError: how it ended.
            InstanceStuckError: it never started, it failed ``fail_after_attempts`` times, or it stands at a checkpoint
                and ``at_checkpoint`` is None (``reason`` is ``held``).
            OwnerGoneError: ``at_checkpoint`` said no; the instance stands there and was not cancelled.
            WaitTimeoutError: it was still running at the deadline, or could not be read then.
            StateUnknownError: it could not be read for ``read_budget`` seconds.
            NotFoundError: there is no such instance.
        """
        with telemetry.span("wait", instance_id=instance_id):
            return await self.perform(
                self.waiting_for(
                    instance_id,
                    WaitArguments(
                        timeout=timeout,
                        deadline=deadline,
                        poll_interval=poll_interval,
                        fail_after_attempts=fail_after_attempts,
                        row_grace=row_grace,
                        read_budget=read_budget,
                    ),
                    on_stage,
                    self.plans.guard_of(instance_id, at_checkpoint),
                )
            )

    def wait_many(
        self,
        instance_ids: Iterable[str],
        *,
        timeout: float | None = None,
        poll_interval: float = POLL_SECONDS,
        fail_after_attempts: int | None = None,
        read_budget: float = READ_BUDGET,
    ) -> AsyncIterator[tuple[str, RunResult | OrchestrationError]]:
        """Wait for many instances, and tell each one as it ends. One poll serves all of them. It calls ListInstances;
        for what has changed GetInstance, GetInstanceHistory and GetInstanceStageHistory.

            async for instance_id, result in hook.wait_many(ids):
                if isinstance(result, OrchestrationError):
                    ...

        Args:
            instance_ids: the instances. One that is named twice is told once.
            timeout: seconds for all of them, None (default) for no limit. One last look of at most 5 s follows. Without
                a limit, a payment that fails again and again is waited for without end, unless ``fail_after_attempts``
                is given.
            poll_interval: seconds between polls, once they have slowed down to it; default 5.
            fail_after_attempts: give an instance up once a payment of it has failed so often; the instance goes on. It
                is noticed by closer looks, so up to half a minute later. None (default) for never.
            read_budget: seconds for which reads of an instance may fail, one after the other and more than ten of
                them, before its wait gives up; default 120. The run goes on.

        Returns:
            An iterator of ids with what ``wait`` returns, or with the error that it raises. Close it to wait no longer:
            leaving a loop early closes it only where nobody keeps the iterator.

        Raises:
            ValidationError: an argument is wrong; nothing was sent.
        """
        from ..many import aeach_ended

        arguments = WaitArguments(
            timeout=timeout,
            poll_interval=poll_interval,
            fail_after_attempts=fail_after_attempts,
            read_budget=read_budget,
        )
        return aeach_ended(self, instance_ids, arguments)
