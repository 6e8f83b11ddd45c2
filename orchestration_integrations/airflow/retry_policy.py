"""A retry policy for tasks (Airflow 3.3): wait as long as the server asked, and don't repeat what cannot mend."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ..api.errors import (
    AmbiguousSubmitError,
    AuthenticationError,
    ConfigurationError,
    EventNotDeliveredError,
    InstanceCancelledError,
    InstanceFailedError,
    NotFoundError,
    OrchestrationError,
    ValidationError,
    is_gateways_404,
)
from ..api.numbers import checked_flag
from .compat import RetryDecision, RetryPolicy
from .errors import leaves_a_run

_HOPELESS = (AuthenticationError, ConfigurationError, NotFoundError, ValidationError, AmbiguousSubmitError)
_ENDED = (InstanceFailedError, InstanceCancelledError)

if RetryPolicy is None:

    class OrchestrationRetryPolicy:
        """Needs Airflow 3.3."""

        def __init__(self, **kwargs: Any) -> None:
            raise NotImplementedError("OrchestrationRetryPolicy needs Airflow 3.3, where retry policies exist")

else:

    class OrchestrationRetryPolicy(RetryPolicy):  # type: ignore[no-redef,misc]
        """Fail at once where a further try can change nothing; wait for ``Retry-After`` where the server gave one.

        An error that leaves a run behind is retried, also one of refused credentials: the next try goes on with it.

        Args:
            rerun_failed: let a run that failed be retried; for tasks with ``rerun_failed=True``.
        """

        def __init__(self, rerun_failed: bool = False) -> None:
            self.rerun_failed = checked_flag(rerun_failed, "rerun_failed")

        def evaluate(self, exception: BaseException, try_number: int, max_tries: int, context: Any = None) -> Any:
            """Decide by the error; others than this package's follow Airflow's rules."""
            passing = is_gateways_404(exception) or leaves_a_run(exception)
            if isinstance(exception, _HOPELESS) and not passing:
                return RetryDecision.fail(f"{type(exception).__name__}: another try would end the same way")
            if isinstance(exception, _ENDED) and not self.rerun_failed:
                return RetryDecision.fail("the run has ended; another try would only report that again")
            if isinstance(exception, EventNotDeliveredError) and exception.reason != "not_ready":
                return RetryDecision.fail(f"the event can't be delivered: {exception.reason}")
            if isinstance(exception, OrchestrationError) and exception.retry_after:
                delay = timedelta(seconds=exception.retry_after)
                return RetryDecision.retry(delay, "the server asked to wait")
            return RetryDecision.default()

        def serialize(self) -> dict[str, Any]:
            """For the serialised DAG."""
            return {"rerun_failed": self.rerun_failed}

        @classmethod
        def deserialize(cls, data: dict[str, Any]) -> OrchestrationRetryPolicy:
            """From the serialised DAG."""
            return cls(rerun_failed=bool(data.get("rerun_failed")))
