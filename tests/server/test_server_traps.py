"""The traps of the real server, each on every generation that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import UNKNOWN, WAIT, delay, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import World

    MakeWorld = Callable[..., World]

ALL = pytest.mark.parametrize("generation", [1, 2, 3])
UNTIL_2 = pytest.mark.parametrize("generation", [1, 2])
WITHOUT_KEYS, WITH_KEYS = 1, (2, 3)


def internal(generation: int) -> str:
    return "INTERNAL_ERROR" if generation == 1 else "INTERNAL"


class TestNotFound:
    @UNTIL_2
    def test_is_500_with_a_text(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        code = internal(generation)
        main = "" if generation == 1 else "-main"
        get, put, post = w.client.get, w.client.put, w.client.post
        assert w.error(get(f"/instances/{UNKNOWN}")) == (500, code, "Instance not found")
        assert w.error(get(f"/workflows/{UNKNOWN}")) == (500, code, "sql: no rows in result set")
        assert w.error(post(f"/workflows/{UNKNOWN}/instances")) == (500, code, "sql: no rows in result set")
        wanted = (500, code, "retrieving workflow execution: sql: no rows in result set")
        assert w.error(put(f"/instances/{UNKNOWN}/abort")) == wanted
        assert w.error(w.event(UNKNOWN)) == (500, code, "retrieving workflow: sql: no rows in result set")
        wanted = (500, code, f"workflow not found for ID: {UNKNOWN}{main}")
        assert w.error(get(f"/instances/{UNKNOWN}/history")) == wanted
        assert get(f"/instances/{UNKNOWN}/stages/0/history").status_code == 404

    def test_is_404_on_generation_3(self, world: MakeWorld) -> None:
        w = world(3)
        answers = [
            w.client.get(f"/instances/{UNKNOWN}"),
            w.client.get(f"/workflows/{UNKNOWN}"),
            w.client.post(f"/workflows/{UNKNOWN}/instances"),
            w.client.put(f"/instances/{UNKNOWN}/abort"),
            w.event(UNKNOWN),
            w.client.get(f"/instances/{UNKNOWN}/history"),
            w.client.get(f"/instances/{UNKNOWN}/stages/0/history"),
        ]
        assert {w.error(a)[:2] for a in answers} == {(404, "NOT_FOUND")}

    @ALL
    def test_a_database_that_is_away_uses_the_same_prefixes(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(WAIT)
        w.core.world("database stopped")
        texts = [w.error(w.client.get("/instances"))[2] for _ in range(3)]
        assert texts[0].endswith("(SQLSTATE=57P01)")
        assert texts[2] == "retrieving workflow: dial tcp database:5432: connect: connection refused"
        status, _, text = w.error(w.event(i))
        assert (status, text) == (500, "retrieving workflow: dial tcp database:5432: connect: connection refused")
        assert w.history(i)[0]["name"] == "RunWaitEvent"
        w.core.world("database started")
        assert w.instance(i)["terminated"] is False

    @ALL
    def test_an_engine_that_is_away_answers_after_ten_seconds(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(WAIT)
        w.core.world("engine stopped")
        begun = w.clock.time()
        wanted = (500, internal(generation), "sending signal to server: context deadline exceeded")
        assert w.error(w.event(i)) == wanted
        assert 10.0 <= w.clock.time() - begun < 10.1
        assert w.error(w.client.get(f"/instances/{i}/history"))[2] == "context deadline exceeded"

    def test_generation_3_says_404_for_things_that_exist(self, world: MakeWorld) -> None:
        w = world(3)
        workflow = w.workflow(WAIT)
        i = w.run(workflow, settle=0.0)
        assert w.event(i).status_code == 404
        w.clock.sleep(1)
        assert w.event(i).status_code == 204
        w.clock.sleep(1)
        assert w.event(i).status_code == 404
        assert w.abort(i).status_code == 404
        assert w.instance(i)["terminated"] is True


class TestInvalidDefinition:
    BAD = ({"stages": [{"nope": {}}]}, {"stages": [{}]}, {"stages": [{"delay": {"duration": "soon"}}]})

    @ALL
    def test_is_500_before_generation_3(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        for bad in self.BAD:
            status, code, text = w.error(w.client.post("/workflows", json=bad))
            assert (status, code) == ((400, "VALIDATION") if generation == 3 else (500, internal(generation)))
            assert text.startswith("creating workflow: ")

    @ALL
    def test_the_check_is_weak(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start({"wait_event": {}})
        error = "Key: 'WaitEvent.Event' Error:Field validation for 'Event' failed on the 'required' tag"
        assert w.instance(i)["error"] == error
        assert w.instance(i)["status"][0]["error"] == error
        assert w.history(i) == []

    @ALL
    def test_a_kind_of_a_later_generation(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        stage = {"update": {"account": {"id": "bank", "ledger": "default", "metadata": {"k": "${v}"}}}}
        if generation == 1:
            answer = w.client.post("/workflows", json={"stages": [stage]})
            assert w.error(answer)[2] == "creating workflow: unable to resolve schema update"
            return
        i = w.start(stage, v="x")
        assert w.instance(i).get("error") is None
        assert w.instance(i)["terminated"] is True
        assert w.history(i, 0)[0]["name"] == "AddAccountMetadata"
        assert w.core.engine.ledger.account("default", "bank")["metadata"] == {"k": "x"}


class TestRun:
    @ALL
    def test_has_no_idempotency_key(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        workflow = w.workflow(send())
        for _ in range(2):
            w.client.post(f"/workflows/{workflow}/instances", headers={"Idempotency-Key": "same"})
        w.clock.sleep(2)
        assert w.core.balance("bank", "USD/2") == 200

    @ALL
    def test_reads_a_body_only_with_a_content_length(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        workflow = w.workflow({"wait_event": {"event": "${a}"}})
        w.client.post(f"/workflows/{workflow}/instances", content=iter([b'{"a": "x"}']))
        assert w.core.record().started[0]["variables"] == {}

    @ALL
    def test_the_row_comes_before_the_first_stage(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(WAIT, settle=0.0)
        assert "status" not in w.instance(i)
        assert w.history(i) == []
        w.clock.sleep(1)
        assert [row["stage"] for row in w.instance(i)["status"]] == [0]

    @ALL
    def test_instants_of_the_answer_are_finer_than_those_of_a_read(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        workflow = w.workflow(WAIT)
        created = w.client.post(f"/workflows/{workflow}/instances").json()["data"]
        read = w.instance(created["id"])["createdAt"]
        assert len(created["createdAt"]) > len(read)
        assert created["createdAt"].startswith(read[:-1])

    @ALL
    def test_a_run_without_stages_succeeds_without_a_status(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start()
        shown = w.instance(i)
        assert (shown["terminated"], shown.get("status"), shown.get("error") or None) == (True, None, None)


class TestWaitTrue:
    def test_holds_the_connection_on_generation_1(self, world: MakeWorld) -> None:
        w = world(1)
        workflow = w.workflow(delay("20s"))
        begun = w.clock.time()
        data = w.client.post(f"/workflows/{workflow}/instances?wait=TRUE").json()["data"]
        assert data["terminated"] is True
        assert w.clock.time() - begun > 20
        assert "error" not in data

    def test_returns_early_on_generation_2(self, world: MakeWorld) -> None:
        w = world(2)
        workflow = w.workflow(delay("20s"))
        begun = w.clock.time()
        data = w.client.post(f"/workflows/{workflow}/instances?wait=1").json()["data"]
        assert data["terminated"] is False
        assert w.clock.time() - begun < 1

    def test_hides_a_failure_on_generation_3(self, world: MakeWorld) -> None:
        w = world(3)
        workflow = w.workflow({"wait_event": {}})
        data = w.client.post(f"/workflows/{workflow}/instances?wait=true").json()["data"]
        assert data["terminated"] is True
        assert "error" not in data
        assert w.instance(data["id"])["error"].startswith("Key: 'WaitEvent.Event'")

    def test_tells_a_failure_on_generation_1(self, world: MakeWorld) -> None:
        w = world(1)
        workflow = w.workflow({"wait_event": {}})
        data = w.client.post(f"/workflows/{workflow}/instances?wait=true").json()["data"]
        assert data["error"].startswith("Key: 'WaitEvent.Event'")


class TestAbort:
    @pytest.mark.parametrize("generation", [1, 3])
    def test_works_a_moment_later(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(delay("1h"), WAIT)
        assert w.abort(i).status_code == 204
        assert w.instance(i)["terminated"] is False
        w.clock.sleep(0.1)
        shown = w.instance(i)
        assert (shown["terminated"], shown["error"]) == (True, "canceled")
        assert [(r["stage"], r["error"]) for r in shown["status"]] == [(0, "canceled")]
        assert w.history(i)[0]["error"] == "canceled"

    def test_does_nothing_on_generation_2(self, world: MakeWorld) -> None:
        w = world(2)
        i = w.start(WAIT)
        answers = {w.abort(i).status_code for _ in range(20)}
        assert answers == {204, 500}
        w.clock.sleep(60)
        assert w.instance(i)["terminated"] is False
        assert w.event(i).status_code == 204
        w.clock.sleep(1)
        assert w.instance(i)["terminated"] is True

    @pytest.mark.parametrize("generation", [1, 3])
    def test_of_a_run_with_stopped_workers_waits_for_them(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(WAIT)
        w.core.world("workers stopped")
        assert w.abort(i).status_code == 204
        w.clock.sleep(600)
        assert w.instance(i)["terminated"] is False
        w.core.world("workers started")
        w.clock.sleep(1)
        assert w.instance(i)["error"] == "canceled"

    @pytest.mark.parametrize("generation", [1, 3])
    def test_of_a_send_under_way_lets_the_money_arrive(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        w.core.world("ledger stopped")
        i = w.start(send(), delay("1ms"))
        assert w.abort(i).status_code == 204
        w.clock.sleep(1)
        assert w.instance(i)["error"] == "canceled"
        assert w.core.balance("bank", "USD/2") == 0
        w.core.world("ledger started")
        w.clock.sleep(1)
        assert w.core.balance("bank", "USD/2") == 100
        activity = w.history(i, 0)[0]
        assert (activity["terminated"], activity["attempt"]) == (False, 1)
        assert activity["nextExecution"] == activity["startedAt"]

    @pytest.mark.parametrize("generation", [1, 3])
    def test_between_two_attempts_leaves_no_trace_of_the_failure(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(send(source="poor"))
        assert w.history(i, 0)[0]["lastFailure"]
        w.abort(i)
        w.clock.sleep(1)
        activity = w.history(i, 0)[0]
        assert (activity["terminated"], activity["attempt"]) == (False, 1)
        assert not {"lastFailure", "nextExecution"} & activity.keys()

    def test_of_an_ended_run(self, world: MakeWorld) -> None:
        for generation, status in ((1, 204), (3, 404)):
            w = world(generation)
            i = w.start(delay("1ms"), settle=3)
            assert w.abort(i).status_code == status
            assert (w.instance(i).get("error") or None) is None


class TestEvents:
    @ALL
    def test_an_early_one_is_lost(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(delay("5s"), WAIT)
        assert w.event(i).status_code == 204
        w.clock.sleep(60)
        assert w.instance(i)["terminated"] is False
        assert w.core.record().released == []

    @ALL
    def test_a_wrong_one_is_swallowed(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(WAIT)
        assert w.event(i, "GO").status_code == 204
        w.clock.sleep(1)
        assert w.instance(i)["terminated"] is False
        assert [e["released"] for e in w.core.record().events] == [False]

    @UNTIL_2
    def test_a_burst_strands_the_right_one_until_a_nudge(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(WAIT)
        w.core.world("workers stopped")
        for name in ("wrong1", "wrong2", "go"):
            assert w.event(i, name).status_code == 204
        w.core.world("workers started")
        w.clock.sleep(600)
        assert w.instance(i)["terminated"] is False
        assert w.event(i, "anything").status_code == 204
        w.clock.sleep(1)
        assert w.instance(i)["terminated"] is True
        assert [e["event"] for e in w.core.record().released] == ["go"]

    def test_generation_3_drains_a_burst(self, world: MakeWorld) -> None:
        w = world(3)
        i = w.start(WAIT)
        w.core.world("workers stopped")
        for name in ("wrong1", "wrong2", "go"):
            w.event(i, name)
        w.core.world("workers started")
        w.clock.sleep(1)
        assert w.instance(i)["terminated"] is True

    @UNTIL_2
    def test_refusals_say_where_the_stage_is(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        prefix = "sending signal to server: "
        i = w.start({"wait_event": {}})
        assert w.error(w.event(i))[2] == f"{prefix}workflow not found for ID: {i}-0"
        i = w.start(WAIT)
        w.event(i)
        w.clock.sleep(1)
        assert w.error(w.event(i))[2] == f"{prefix}workflow execution already completed"

    @ALL
    def test_a_repeated_one_releases_the_next_stage(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(WAIT, WAIT)
        for _ in range(2):
            assert w.event(i).status_code == 204
            w.clock.sleep(1)
        assert w.instance(i)["terminated"] is True
        assert [e["stage"] for e in w.core.record().released] == [0, 1]

    @ALL
    def test_bodies(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(WAIT)
        post = w.client.post
        assert w.error(post(f"/instances/{i}/events"))[:3] == (400, "VALIDATION", "EOF")
        assert post(f"/instances/{i}/events", json={}).status_code == 204
        assert post(f"/instances/{i}/events", json=[]).status_code == 400


class TestVariables:
    def test_generation_1_matches_greedily(self, world: MakeWorld) -> None:
        stage = {"wait_event": {"event": "x${a}:${b}y"}}
        one, two = world(1), world(2)
        assert one.history(one.start(stage, a="1", b="2"))[0]["input"] == {"event": "xy"}
        assert two.history(two.start(stage, a="1", b="2"))[0]["input"] == {"event": "x1:2y"}

    @ALL
    def test_a_forgotten_one_becomes_the_default(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start({"delay": {"duration": "${d}"}})
        assert w.instance(i)["terminated"] is True
        assert w.history(i)[0]["input"] == {"duration": "0s"}
        stage = send()
        stage["send"]["source"]["account"]["ledger"] = "${l}"
        i = w.start(stage)
        assert w.history(i)[0]["input"]["source"]["account"]["ledger"] == "default"

    @ALL
    def test_numbers_lose_digits(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        workflow = w.workflow(send(9007199254740993))
        assert w.get(f"/workflows/{workflow}")["config"]["stages"][0]["send"]["amount"]["amount"] == 9007199254740992
        big = 10**24 + 1
        i = w.start(send(str(big)))
        assert w.history(i)[0]["input"]["amount"]["amount"] == 1e24
        assert w.core.balance("bank", "USD/2") == big


class TestMoney:
    @ALL
    def test_insufficient_funds_are_tried_for_ever(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(send(source="poor"), settle=0.5)
        activity = w.history(i, 0)[0]
        assert (activity["lastFailure"], activity["attempt"]) == ("account had insufficient funds", 2)
        w.core.advance(86400)
        activity = w.history(i, 0)[0]
        assert w.instance(i)["terminated"] is False
        assert 860 < activity["attempt"] < 890
        funding = w.start(send(destination="poor"))
        w.clock.sleep(101)
        assert w.instance(funding)["terminated"] is True
        assert w.instance(i)["terminated"] is True
        assert w.history(i, 0)[0]["attempt"] == 1
        assert w.core.balance("bank", "USD/2") == 100

    @ALL
    def test_a_final_refusal_ends_the_run(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(send(destination="no such!"))
        assert w.instance(i)["error"] == "invalid destination address"
        assert w.history(i)[0]["error"] == "activity error"
        assert w.history(i, 0)[0]["error"] == "invalid destination address"

    @ALL
    def test_a_stalled_ledger_pays_twice_without_keys(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        w.core.world("ledger stopped")
        i = w.start(send(), settle=14)
        under_way = w.history(i, 0)[0]
        assert (under_way["lastFailure"], under_way["attempt"]) == ("activity StartToClose timeout", 2)
        w.core.world("ledger started")
        w.clock.sleep(1)
        assert (w.instance(i).get("error") or None, w.instance(i)["terminated"]) == (None, True)
        done = w.history(i, 0)
        assert [a["attempt"] for a in done] == [1]
        paid = 200 if generation == 1 else 100
        assert w.core.balance("bank", "USD/2") == paid
        assert w.core.balance("world", "USD/2") == -paid
        assert len(w.core.record().money) == paid // 100

    @ALL
    def test_between_two_ledgers(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        stage = send()
        stage["send"]["destination"]["account"]["ledger"] = "second"
        i = w.start(stage)
        assert [a["name"] for a in w.history(i, 0)] == ["CreateTransaction", "CreateTransaction"]
        assert w.core.balance("bank", "USD/2", "second") == 100
        assert w.core.balance("world", "USD/2", "second") == -100

    @ALL
    def test_wallets_are_not_there(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        stage = send()
        stage["send"]["source"] = {"wallet": {"id": "w1"}}
        i = w.start(stage)
        activity = w.history(i, 0)[0]
        assert (activity["name"], activity["lastFailure"]) == ("GetWallet", "wallet not found")
        assert w.instance(i)["terminated"] is False


class TestLists:
    @ALL
    def test_how_version_1_pages(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        workflow = w.workflow(WAIT)
        for _ in range(120):
            w.client.post(f"/workflows/{workflow}/instances")
        whole = len(w.get("/instances"))
        cut = len(w.get("/instances?pageSize=100"))
        assert (whole, cut) == ((15, 100) if generation == 3 else (120, 120))

    @pytest.mark.parametrize("generation", [2, 3])
    def test_version_2_has_cursors(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        workflow = w.workflow(WAIT)
        for _ in range(120):
            w.client.post(f"/workflows/{workflow}/instances")
        cursor = w.client.get("/v2/instances?pageSize=1000").json()["cursor"]
        assert (cursor["pageSize"], cursor["hasMore"], len(cursor["data"])) == (100, True, 100)
        assert cursor["data"][0]["workflow"]["id"] == workflow
        last = w.client.get("/v2/instances", params={"cursor": cursor["next"]}).json()["cursor"]
        assert (last["hasMore"], len(last["data"]), "next" in last) == (False, 20, False)
        assert w.client.get("/v2/instances?cursor=nonsense").status_code == 400

    @ALL
    def test_rows_have_no_order_and_no_status(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        workflow = w.workflow(WAIT)
        first, second = w.run(workflow), w.run(workflow)
        w.event(first)
        w.clock.sleep(1)
        rows = w.get("/instances")
        assert [row["id"] for row in rows] == [second, first]
        assert not any("status" in row for row in rows)

    @ALL
    def test_running_in_other_spellings(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        w.start(delay("1ms"), settle=3)
        w.start(WAIT)
        assert len(w.get("/instances?running=true")) == 1
        assert len(w.get("/instances?running=TRUE")) == (2 if generation == 1 else 1)

    @ALL
    def test_a_deleted_workflow(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        workflow = w.workflow(WAIT)
        i = w.run(workflow)
        assert w.client.delete(f"/workflows/{workflow}").status_code == 204
        again = w.client.delete(f"/workflows/{workflow}").status_code
        read = w.client.get(f"/workflows/{workflow}").status_code
        ran = w.client.post(f"/workflows/{workflow}/instances").status_code
        assert (again, read, ran) == ((404, 404, 404) if generation == 3 else (204, 200, 201))
        assert w.get("/instances") == []
        assert w.instance(i)["id"] == i

    @ALL
    def test_ids_stay_whole(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        for path in ("/instances/..%2F..%2F_info", "/instances/%20", "/instances/a%3Fb"):
            answer = w.client.get(path)
            assert w.error(answer)[2] == "Instance not found"


class TestRows:
    def test_generation_1_loses_what_the_database_misses(self, world: MakeWorld) -> None:
        w = world(1)
        i = w.start(WAIT, delay("1ms"))
        w.core.world("database stopped")
        w.core.world("database started")
        w.event(i)
        w.clock.sleep(3)
        shown = w.instance(i)
        assert shown["terminated"] is True
        assert ["terminatedAt" in row for row in shown["status"]] == [False, True]

    def test_generation_2_writes_twice(self, world: MakeWorld) -> None:
        w = world(2)
        i = w.start(WAIT, delay("1ms"))
        assert w.event(i).status_code == 204
        w.clock.sleep(0.02)
        w.core.world("database stopped")
        w.clock.sleep(5)
        w.core.world("database started")
        w.clock.sleep(3)
        shown = w.instance(i)
        assert shown["terminated"] is True
        assert [row["stage"] for row in shown["status"]] in ([0, 1], [0, 1, 1])

    @pytest.mark.parametrize("generation", [2, 3])
    def test_workers_that_are_away_make_late_rows(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        workflow = w.workflow(WAIT)
        w.core.world("workers stopped")
        with pytest.raises(Exception, match="timed out"):
            w.client.post(f"/workflows/{workflow}/instances", timeout=5)
        w.clock.sleep(3600)
        assert w.get("/instances") == []
        w.core.world("workers started")
        w.clock.sleep(1)
        assert len(w.get("/instances")) == 1
        assert len(w.core.record().started) == 1

    def test_generation_1_leaves_a_ghost_where_the_engine_was_away(self, world: MakeWorld) -> None:
        w = world(1)
        workflow = w.workflow(WAIT)
        w.core.world("engine stopped")
        wanted = (500, "INTERNAL_ERROR", "context deadline exceeded")
        assert w.error(w.client.post(f"/workflows/{workflow}/instances")) == wanted
        w.core.world("engine started")
        w.clock.sleep(3600)
        (ghost,) = w.get("/instances?running=true")
        assert w.error(w.client.get(f"/instances/{ghost['id']}/history"))[2].startswith("workflow not found for ID")
        assert w.error(w.abort(ghost["id"]))[2].startswith("workflow not found for ID")
        assert w.core.record().started == []

    @ALL
    def test_a_row_can_end_before_it_began(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        row = w.instance(w.start({"wait_event": {}}))["status"][0]
        assert row["terminatedAt"] < row["startedAt"]

    @ALL
    def test_errors_in_rows(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        shown = w.instance(w.start(WAIT))
        assert ("error" in shown, "error" in shown["status"][0]) == (generation == 1, generation == 1)
        assert ("temporalRunID" in shown["status"][0]) is (generation > 1)

    @ALL
    def test_a_delay_passes_at_once_when_the_clock_is_moved(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(delay("168h"), send(), delay("1ms"))
        w.core.advance(7 * 86400 + 5)
        assert w.instance(i)["terminated"] is True
        assert w.core.balance("bank", "USD/2") == 100
