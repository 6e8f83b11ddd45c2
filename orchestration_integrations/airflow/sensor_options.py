"""What the options of a sensor make of an error, alike in the modes poke, reschedule and deferrable.

| error | by default | ``soft_fail`` | ``silent_fail`` | ``never_fail`` |
|---|---|---|---|---|
| the configuration or an argument is wrong | fails | fails | fails | fails |
| the time is over, or what is waited for can no longer happen | fails | skips | fails | skips |
| any other | fails | fails | looks again | skips |

Airflow itself decides otherwise in each mode: its poking loop lets ``soft_fail`` skip a wrong extra and knows no
``never_fail`` at the time-out.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..api.errors import ConfigurationError, ValidationError
from .compat import AirflowFailException, AirflowNotFoundException, AirflowSensorTimeout, AirflowSkipException


@dataclass(frozen=True)
class Options:
    """The three options of Airflow's sensors."""

    soft_fail: bool
    silent_fail: bool
    never_fail: bool

    def verdict(self, error: Exception) -> Exception | None:
        """What is to be raised for an error; None where the sensor is to look again."""
        if isinstance(error, AirflowSkipException) or is_configuration(error):
            return error
        is_final = isinstance(error, AirflowFailException | AirflowSensorTimeout)
        if self.silent_fail and not is_final:
            return None
        if self.never_fail or (self.soft_fail and is_final):
            skip: Exception = AirflowSkipException(str(error))
            return skip
        return error


def is_configuration(error: BaseException) -> bool:
    """Whether only a change of the DAG or of the connection mends it; a missing connection is one of these."""
    return isinstance(error, ConfigurationError | ValidationError | AirflowNotFoundException)
