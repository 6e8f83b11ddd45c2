"""Which runs a watcher reads in a poll."""

from __future__ import annotations

from orchestration_integrations.airflow.runs_to_read import READS_OF_DENIED, READS_PER_POLL, RunsToRead


def test_many_new_ones_do_not_keep_those_from_being_read_that_were_denied() -> None:
    """One that was denied wrongly is read again in time, however many end meanwhile."""
    runs = RunsToRead(lambda: 0.0)
    denied = [f"denied{number}" for number in range(READS_OF_DENIED + 5)]
    runs.add(denied)
    for one in denied:
        runs.deny(one)
    runs.add(f"new{number}" for number in range(10 * READS_PER_POLL))
    read: set[str] = set()
    for _ in range(2):
        poll = runs.next()
        assert len(poll) == READS_PER_POLL
        read.update(poll)
        for one in poll:
            if runs.was_denied(one):
                runs.deny(one)
            else:
                runs.drop(one)
    assert set(denied) <= read
    assert len(read - set(denied)) >= READS_PER_POLL
