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

    What of it has not happened by then is taken back. A block that ends well although the fault changed no request
    proves nothing about it: that is an AssertionError. A fault that was in a block before, that was taken back, or that
    is used up, has nothing left for a block: entering it is a ValueError.

    Attributes:
        met: how many requests it has met: those whose answer or connection it changed.
    """

    def __init__(self, faults: Faults, fault: Fault, lock: RLock) -> None:
        self._faults = faults
        self._fault = fault
        self._lock = lock
        self._entered = False
        self._before = (0, 0)

    @property
    def met(self) -> int:
        return self._fault.met

    def take_back(self) -> None:
        """It holds no longer; again is harmless."""
        with self._lock:
            self._faults.remove(self._fault)

    def __enter__(self) -> SetFault:
        with self._lock:
            if self._entered or not self._faults.holds(self._fault):
                raise ValueError(f"this fault {self._fault.kind!r} was used before: set another one for this block")
            self._entered = True
            self._before = (self._fault.met, self._fault.came)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.take_back()
        fault = self._fault
        met, came = fault.met - self._before[0], fault.came - self._before[1]
        if kind is not None or met:
            return
        if came:
            why = f"{came} of {fault.operation!r} came inside the block, and it could change nothing about them"
        else:
            why = f"nobody sent {fault.operation!r} inside the block"
            why += f" after the first {fault.skip} were skipped" if fault.skip else ""
        raise AssertionError(f"the fault {fault.name!r} met no request: {why}")
