"""The store of records in Prefect: folding without a server, and rows on a real one."""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest

from orchestration_integrations import RecordConflictError, Settings, ValidationError
from orchestration_integrations.ownership.record import RunRecord
from orchestration_integrations.prefect.hooks import targets_of
from orchestration_integrations.prefect.run_records import PrefectRunStore, Row, folded, records_of_root, settle_run
from orchestration_integrations.procedures.content import Content

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


def intended(key: str, flow_run_id: str = "") -> RunRecord:
    return RunRecord(
        key=key,
        state="intended",
        workflow_id="w",
        server="s",
        since=NOW,
        content=Content(stages="", variables={}),
        facts={"flow_run_id": flow_run_id, "path": [[flow_run_id, 1, ""]]} if flow_run_id else {},
    ).changed()


def test_rows_are_folded_whatever_their_order() -> None:
    first = intended("k")
    second = first.changed(state="chosen", instance_id="i")
    rival = first.changed(state="chosen", instance_id="j")
    next_round = second.changed(round=1, state="intended", instance_id=None)
    late = second.changed(returned=True)  # of an attempt that lost the record: as high a revision, in the older round
    later = late.changed(end="failed")
    rows = [
        Row((NOW + timedelta(seconds=number), str(number)), record)
        for number, record in enumerate([first, second, rival, next_round, late, later])
    ]
    for order in itertools.permutations(rows):
        standing = folded(order)
        assert standing[-1] == next_round
        assert second in standing
        assert rival not in standing


@pytest.mark.usefixtures("prefect_api")
class TestOnAServer:
    def test_what_is_saved_is_loaded(self) -> None:
        key, store = f"order/{uuid4()}", PrefectRunStore()
        assert store.load(key) is None
        record = intended(key)
        store.save(record)
        store.save(record)  # its answer was lost
        chosen = record.changed(state="chosen", instance_id="i", seen=True, created_at=NOW)
        store.save(chosen)
        assert PrefectRunStore().load(key) == chosen

    def test_whoever_writes_later_has_lost(self) -> None:
        key, one, other = f"order/{uuid4()}", PrefectRunStore(), PrefectRunStore()
        one.save(intended(key))
        loaded = [store.load(key) for store in (one, other)]
        assert loaded[0] is not None
        assert loaded[1] is not None
        one.save(loaded[0].changed(attempt="one"))
        with pytest.raises(RecordConflictError):
            other.save(loaded[1].changed(attempt="other"))
        with pytest.raises(RecordConflictError):
            other.save(loaded[1].changed(attempt="other", hold=True, seen=True))
        found = one.load(key)
        assert found is not None
        assert found.attempt == "one"

    def test_the_first_choice_stands(self) -> None:
        key = f"order/{uuid4()}"
        with ThreadPoolExecutor(8) as pool:
            winners = list(pool.map(lambda number: PrefectRunStore().choose(key, 0, f"i{number}"), range(8)))
        assert len(set(winners)) == 1
        assert PrefectRunStore().choose(key, 1, "of the next round") == "of the next round"

    def test_nothing_is_lost_when_processes_write_side_by_side(self) -> None:
        root = str(uuid4())
        code = (
            "import sys; from tests.prefect.test_run_records import intended, PrefectRunStore\n"
            "for number in range(15):\n"
            "    PrefectRunStore().save(intended(f'{sys.argv[1]}/{sys.argv[2]}/{number}', sys.argv[1]))\n"
        )
        writers = [subprocess.Popen([sys.executable, "-c", code, root, name]) for name in ("a", "b", "c")]
        assert [one.wait(120) for one in writers] == [0, 0, 0]
        assert len(records_of_root(UUID(root))) == 45

    def test_settled(self) -> None:
        key, store = f"order/{uuid4()}", PrefectRunStore()
        store.save(intended(key).changed(state="chosen", instance_id="i"))
        assert settle_run(key) == {"run_key": key, "state": "chosen", "instance_id": "i", "round": 0}
        found = store.load(key)
        assert found is not None
        assert (found.settled, found.instance_id) == (True, "i")
        with pytest.raises(ValidationError, match="no record of run key"):
            settle_run(f"never/{uuid4()}")  # a typing mistake settles nothing

    def test_what_it_vouches_for(self) -> None:
        assert PrefectRunStore(complete_since=NOW).complete_since == NOW
        since = PrefectRunStore().complete_since
        assert since is not None
        assert since > datetime.now(timezone.utc) - timedelta(seconds=5)  # of a user's key: nothing before it looked


def test_a_start_that_nobody_can_name_is_told_and_not_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """Without a gate its run may pay. With one it moves nothing."""
    settings, logger = Settings(base_url="http://server.example"), logging.getLogger("test")
    with caplog.at_level("ERROR"):
        assert targets_of(settings, [intended("lost"), intended("gated").changed(gate="gated~1~0")], logger) == []
    assert "a run of workflow w with key lost may exist" in caplog.text
    assert "gated" not in caplog.text
