"""A fault that was set, in the hands of whoever set it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threading import RLock
    from types import TracebackType

    from .faults import Fault, Faults


class SetFault:
    """A fault that holds from now on; as a context manager until the end of the block.

        with server.fault("run_workflow", "cut_after"):
            ...  # here the answer to the first run gets lost

    What of it has not happened by then is taken back. A block that ends well although the fault met no request proves
    nothing about it: that is an AssertionError.

    Attributes:
        met: how many requests it has met.
    """

    def __init__(self, faults: Faults, fault: Fault, lock: RLock) -> None:
        self._faults = faults
        self._fault = fault
        self._lock = lock

    @property
    def met(self) -> int:
        return self._fault.met

    def take_back(self) -> None:
        """It holds no longer; again is harmless."""
        with self._lock:
            self._faults.remove(self._fault)

    def __enter__(self) -> SetFault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.take_back()
        if kind is None and not self.met:
            fault = self._fault
            raise AssertionError(
                f"the fault {fault.kind!r} met no request: nobody sent {fault.operation!r} inside the block"
                + (f" after the first {fault.skip} were skipped" if fault.skip else "")
            )
