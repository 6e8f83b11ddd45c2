"""How long the imitated server takes for each of its steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Latencies in seconds, as seen on a real server on one machine. Each is varied by `jitter` (a share of it)."""

    jitter: float = 0.15
    row_insert: float = 0.0008
    """Generation 1: from the arrival of a run request to the instance's row."""
    run_start: float = 0.0026
    """From there (later generations: from the arrival) until the engine has taken the run."""
    run_answer: float = 0.004
    """From there to the answer."""
    initiate: float = 0.004
    """Later generations: until a worker wrote the instance's row."""
    first_stage: float = 0.014
    """From the start of the run to the row of its first stage."""
    launch: float = 0.0025
    """From a stage's row to its work."""
    workflow_clock_lag: float = 0.008
    """How far the time that a run takes for now lies behind the clock that stamps a stage's row."""
    wake: float = 0.008
    """From an event until the stage has heard it."""
    release: float = 0.016
    """From there, if it was the right event, to the end of the stage's work. A change of stages takes 40 ms in all."""
    close_stage: float = 0.009
    """From the end of a stage's work to the end of its row."""
    next_stage: float = 0.006
    """From there to the row of the next stage."""
    shortest_delay: float = 1.0
    """Timers are coarse: a shorter delay takes this long."""
    timer: float = 0.05
    """What a timer takes on top."""
    cancel: float = 0.02
    """From an accepted abort to the end of the stage's work."""
    schedule_activity: float = 0.02
    """From a stage's launch, or its last activity, to its next activity."""
    call: float = 0.012
    """From the start of an attempt until the ledger did it."""
    call_back: float = 0.02
    """From there until the engine has the result."""
    attempt_limit: float = 10.0
    """After this an attempt counts as failed, whatever becomes of it."""
    first_retry: float = 1.0
    longest_retry: float = 100.0
    request_deadline: float = 10.0
    """How long a request waits for an engine that is away."""
    resume: float = 0.03
    """From the return of a part of the server until work goes on."""
