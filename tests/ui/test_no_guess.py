"""An empty view needs a reading that succeeded, and where sources contradict each other nothing is good news."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from orchestration_integrations import OrchestrationHttpHook
from orchestration_integrations.api.models import ActivityRun, Instance, StageRun, StageStatus, Workflow
from orchestration_integrations.server import EmbeddedServer
from orchestration_integrations.ui import glances
from orchestration_integrations.ui.definitions import Definition
from orchestration_integrations.ui.instance_view import instance_view
from orchestration_integrations.ui.reading import Observed
from tests.ui.flows import PAYOUT, listening, send
from tests.ui.page_client import Json, PageClient

EPOCH = datetime(2030, 1, 1, tzinfo=timezone.utc)
PAID = {"CreateTransaction": {"data": {"id": 1, "postings": [
    {"source": "world", "destination": "sales", "amount": 1250, "asset": "EUR/2"}]}}}  # fmt: skip
ASKED = {"CreateTransaction": {"ledger": "default", "data": PAID["CreateTransaction"]["data"]}}


def row(stage: int, *, ended: bool = True, error: str | None = None) -> StageStatus:
    return StageStatus(
        stage=stage, started_at=EPOCH, terminated_at=EPOCH if ended else None, error=error, raw={"temporalRunID": "r"}
    )


def run(name: str = "RunSend", *, ended: bool = True, error: str | None = None, **given: Any) -> StageRun:
    return StageRun(
        name=name, input=given, error=error, terminated=ended, started_at=EPOCH,
        terminated_at=EPOCH if ended else None, raw={},
    )  # fmt: skip


def call(name: str = "CreateTransaction", *, ended: bool = True, told: bool = True) -> ActivityRun:
    return ActivityRun(
        name=name, input=ASKED if told else {}, output=PAID if ended and told else {} if ended else None, error=None,
        terminated=ended, started_at=EPOCH, terminated_at=EPOCH if ended else None, last_failure=None, attempt=1,
        next_execution=None, raw={},
    )  # fmt: skip


def seen(
    rows: Sequence[StageStatus] = (),
    history: Sequence[StageRun] | None = (),
    activities: Mapping[int, Sequence[ActivityRun]] | None = None,
    *,
    ended: bool = True,
    error: str | None = None,
    stages: int = 1,
    ghost: bool = False,
) -> Json:
    instance = Instance(
        id="i", workflow_id="w", created_at=EPOCH, updated_at=EPOCH, terminated=ended,
        terminated_at=EPOCH if ended else None, error=error, status=tuple(rows), raw={},
    )  # fmt: skip
    definition = tuple(send("world", "sales", "1250") for _ in range(stages))
    workflow = Workflow(
        id="w", name="pay", stages=definition, created_at=EPOCH, updated_at=EPOCH, deleted_at=None, raw={}
    )
    observed = Observed(
        instance=instance, definition=Definition(workflow), history=history, activities=activities or {},
        retried=frozenset(), ghost=ghost, problems=(),
    )  # fmt: skip
    return instance_view(observed)


# ---- contradictions ------------------------------------------------------------------------------------


def test_a_success_whose_stage_failed_is_no_success() -> None:
    view = seen([row(0)], [run(error="no such ledger")], {0: []})
    assert (view["state"], view["standing"]) == ("succeeded", "unsure")
    assert view["headline"]["tone"] == "bad"
    assert view["headline"]["text"].startswith(
        "The server says that it succeeded, but Stage 0 · send failed: no such ledger."
    )


def test_a_success_whose_payment_is_under_way_is_not_sure() -> None:
    for history in ([run()], [run(ended=False)]):
        view = seen([row(0)], history, {0: [call(ended=False)]})
        assert (view["headline"]["tone"], view["standing"]) == ("wait", "unsure")
        text = view["headline"]["text"]
        assert "but CreateTransaction of Stage 0 · send was not seen to end" in text, text
        assert "check the ledger" in text
        assert view["stages"][0]["state"] == "unsure"
        assert view["money"]["heading"] == "Money: not known"
        assert view["graph"]["edges"][0]["state"] == "unknown"


def test_a_success_that_left_a_stage_out_is_not_sure() -> None:
    view = seen([row(0)], [run()], {0: [call()]}, stages=2)
    assert (view["headline"]["tone"], view["standing"]) == ("wait", "unsure")
    assert "but nothing shows that Stage 1 · send has begun" in view["headline"]["text"]


def test_a_stage_of_which_nothing_was_read_is_not_said_to_have_never_begun() -> None:
    view = seen([row(0)], None, stages=2, error="gone")
    assert [stage["state"] for stage in view["stages"]] == ["done", "unsure"]
    assert "what it had moved by then could not be read" in view["headline"]["text"]


def test_a_run_that_goes_on_over_a_failed_stage_says_so() -> None:
    view = seen([row(0, error="no such ledger")], [run(error="no such ledger")], {0: []}, ended=False)
    assert view["headline"]["tone"] == "bad"
    assert view["headline"]["text"] == (
        "Stage 0 · send failed: no such ledger. The server does not show that the run has ended."
    )
    later = seen(
        [row(0), row(1, ended=False)], [run(error="odd"), run("RunWaitEvent", ended=False, event="go")],
        {0: []}, ended=False, stages=2,
    )  # fmt: skip
    assert later["headline"]["tone"] == "bad"
    assert later["headline"]["text"].startswith("Stage 0 · send failed: odd. All the same the run goes on: ")


def test_between_two_stages_nothing_is_said_to_run() -> None:
    view = seen([row(0)], [run()], {0: [call()]}, ended=False, stages=2)
    text = "Stage 0 · send has ended; the server does not show yet what comes next."
    assert view["headline"] == {"tone": "busy", "text": text}


errors = some.sampled_from([None, None, "canceled", "no such ledger"])
rows = some.lists(some.builds(row, some.integers(0, 2), ended=some.booleans(), error=errors), max_size=3)
histories = some.lists(
    some.builds(run, some.sampled_from(["RunSend", "RunDelay"]), ended=some.booleans(), error=errors), max_size=3
)
calls = some.dictionaries(
    some.integers(0, 2), some.lists(some.builds(call, ended=some.booleans(), told=some.booleans()), max_size=2)
)


@given(rows, some.none() | histories, calls, some.booleans(), errors)
def test_good_news_stands_over_good_stages_only(
    rows: list[StageStatus], history: list[StageRun] | None, made: dict[int, list[ActivityRun]], ended: bool, error: Any
) -> None:
    activities = {n: each for n, each in made.items() if n < len(history or ())}
    view = seen(rows, history, activities, ended=ended, error=error, stages=3)
    good = view["headline"]["tone"] == "good"
    if good:
        assert {stage["state"] for stage in view["stages"]} <= {"done"} or history is None
        assert all(activity.terminated for each in activities.values() for activity in each)
        assert view["state"] == view["standing"] == "succeeded"
    assert (view["standing"] == "unsure") == (view["state"] == "succeeded" and not good)
    nothing = view["money"]["nothing"] or ""
    assert not (nothing.startswith("Nothing has moved") and (history is None or not view["complete"]))


# ---- money ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "heading", "nothing"),
    [
        (seen([row(0)], [run()], {0: [call()]}), "Money moved", None),
        (seen([row(0)], None), "Money: not known", "What it moved is not known: its history could not be read."),
        (
            seen([row(0)], [run()], {}),
            "Money: not known",
            "No payment shows in what could be read, and not all of it could.",
        ),
        (seen([row(0)], [run()], {0: [call(told=False)]}), "Money: not known", None),
        (
            seen([row(0, ended=False)], [run(ended=False)], {0: [call(ended=False)]}, ended=False),
            "Money asked for",
            None,
        ),
        (
            seen([row(0, ended=False)], [run(ended=False)], {0: [call(ended=False, told=False)]}, ended=False),
            "Money asked for",
            "CreateTransaction is under way; what it moves is not told.",
        ),
        (seen([], [], ended=False), "Money", "Nothing has moved yet."),
        (seen([], None, ended=False, ghost=True), "Money", "Nothing has moved."),
        (seen([row(0, error="bad")], [], error="bad"), "Money", "Nothing has moved."),
        (
            seen([row(0), row(1, ended=False)], [run(), run(ended=False)], {0: [call()], 1: [call(ended=False)]},
                 ended=False, stages=2),
            "Money: moved, asked for",
            None,
        ),
    ],
)  # fmt: skip
def test_the_words_over_the_money_fit_it(view: Json, heading: str, nothing: str | None) -> None:
    assert (view["money"]["heading"], view["money"]["nothing"]) == (heading, nothing)


def test_what_a_service_was_asked_for_is_called_so() -> None:
    with EmbeddedServer(
        data={"wallets": [{"id": "w1", "name": "ann", "balances": {"main": {"EUR/2": 100}}}]}
    ) as server:
        with OrchestrationHttpHook(base_url=server.url) as hook:
            debit = send("", "sales", "100")
            debit["send"]["source"] = {"wallet": {"id": "w1"}}
            debit["send"]["destination"] = {"account": {"id": "sales", "ledger": "wallets-002"}}
            instance_id = hook.run_workflow(hook.create_workflow({"name": "debit", "stages": [debit]}).id).id
            page = PageClient(server.url)
            view = page.until(f"instances/{instance_id}", lambda view: view["state"] != "running")
            assert view["money"]["heading"] == "Money asked for", view


# ---- lists that were never read ------------------------------------------------------------------------


def test_a_list_that_was_never_read_counts_nothing() -> None:
    with EmbeddedServer() as server:
        server.fault("list_instances", "status", count=-1, code=500)
        page = PageClient(server.url)
        found = page.until("instances", lambda found: found["problem"] is not None)
        assert set(found["counts"].values()) == {None}
        assert (found["rows"], found["total"], found["readAt"]) == ([], None, None)
        server.clear_faults()
        found = page.until("instances", lambda found: found["problem"] is None and found["readAt"] is not None)
        assert (set(found["counts"].values()), found["total"]) == ({0}, 0)


def test_a_row_whose_history_could_not_be_read_stands_at_something_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glances, "NOTE_AGE", 0.2)
    with EmbeddedServer() as server, OrchestrationHttpHook(base_url=server.url) as hook:
        server.fault("get_instance_history", "status", count=-1, code=500, skip=0)
        hook.run_workflow(hook.create_workflow(PAYOUT).id, {"amount": "1", "merchant": "m"})
        page = PageClient(server.url)
        found = page.until("instances", lambda found: found["rows"] and not found["reading"])
        assert found["rows"][0]["noteUnread"]
        server.clear_faults()
        page.until("instances", lambda found: not found["rows"][0]["noteUnread"])


def test_a_listed_success_whose_history_says_otherwise_is_not_green(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedServer() as server, OrchestrationHttpHook(base_url=server.url) as hook:
        instance_id = listening(hook)
        hook.send_event_when_ready(instance_id, "approved")
        hook.wait(instance_id)

        async def odd(_: Any, __: str) -> list[StageRun]:
            return [run("RunWaitEvent", event="x"), run(error="no such ledger")]

        monkeypatch.setattr("orchestration_integrations.http_hook.AsyncOrchestrationHttpHook.get_instance_history", odd)
        page = PageClient(server.url)
        found = page.until("instances", lambda found: found["rows"] and not found["rows"][0]["keyUnread"])
        row = found["rows"][0]
        assert (row["state"], row["kind"]) == ("succeeded", "unsure")
        assert row["note"] == "its history says that a stage failed: no such ledger"
