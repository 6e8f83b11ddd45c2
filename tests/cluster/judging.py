"""What must be true of the runs of a cluster once its tasks have ended, whoever was killed meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from orchestration_integrations.server.record import Record

from .payments import AMOUNT, ASSET, ends, paid, payees, released


def judge(record: Record, expected: Iterable[str]) -> dict[str, str]:
    """Each payee was paid once by one released run, and no released run goes on; the instance of each payee."""
    wanted = Counter(expected)
    assert paid(record) == wanted, {"paid": paid(record) - wanted, "not paid": wanted - paid(record)}
    for one in record.money:
        posting = one["posting"]
        assert (int(posting["amount"]), posting["asset"]) == (AMOUNT, ASSET), posting
    opened = Counter(released(record))
    assert set(opened.values()) == {1}, [one for one, times in opened.items() if times > 1]
    by_instance = payees(record)
    assert Counter(by_instance.values()) == wanted
    ended = ends(record)
    alone = {instance_id: payee for instance_id, payee in by_instance.items() if instance_id not in ended}
    assert alone == {}, f"runs that nobody waits for: {alone}"
    return {payee: instance_id for instance_id, payee in by_instance.items()}
