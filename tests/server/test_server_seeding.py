"""Seed data, by argument, file, method and control call; the audit record."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration_integrations.server import Core, EmbeddedServer, create_app

from .conftest import World, send

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeWorld = Callable[..., World]

DATA: dict[str, Any] = {
    "accounts": [{"id": "users:1", "balances": {"EUR/2": 10**30, "USD/2": "5"}, "metadata": {"k": "v"}}],
    "wallets": [{"id": "w-1", "balances": {"main": {"EUR/2": 7}}}],
    "payments": [{"id": "p1", "amount": "250", "asset": "EUR/2"}],
    "connectors": [{"provider": "stripe"}],
}
BAD = [
    ({"accounts": [{"id": "a", "balance": {}}]}, "unknown field `balance` - at `$.accounts[0]`"),
    ({"account": []}, "unknown field `account`"),
    ({"accounts": [{}]}, "missing required field `id` - at `$.accounts[0]`"),
    ({"accounts": [{"id": "world"}]}, "'world' has no floor"),
    ({"accounts": [{"id": "a b"}]}, "account 'a b': an address is made of"),
    ({"accounts": [{"id": "a", "balances": {"eur": 1}}]}, "account 'a': 'eur' is no asset"),
    (
        {"accounts": [{"id": "a", "balances": {"EUR/2": -1}}]},
        "the amount of EUR/2 must be a whole number from 0, not -1",
    ),
    ({"accounts": [{"id": "a", "balances": {"EUR/2": "1.5"}}]}, "must be a whole number from 0, not '1.5'"),
    ({"accounts": [{"id": "a", "balances": {"EUR/2": 1.5}}]}, "$.accounts[0].balances"),
    ({"accounts": [{"id": "a", "balances": {"EUR/2": "0125"}}]}, "write its plain digits, such as 1250"),
    (
        {"accounts": [{"id": "a", "ledger": "no such / ledger!"}]},
        "account 'a': ledger 'no such / ledger!' isn't made of",
    ),
    ({"wallets": [{"id": "a", "ledger": ""}]}, "wallet 'a': ledger '' isn't made of"),
    ({"ledgers": ["a b"]}, "ledgers: ledger 'a b' isn't made of"),
    (
        {"ledgers": ["default"], "accounts": [{"id": "a", "ledger": "fees"}]},
        "'fees' is none of those that exist (default, ",
    ),
    ({"payments": [{"id": "", "amount": 1, "asset": "EUR/2"}]}, "payment: its id is empty"),
    ({"connectors": [{"provider": "no such"}]}, "connector: provider 'no such' isn't made of"),
    ({"connectors": [{"provider": "wise", "id": "a b"}]}, "connector 'a b': an id has no spaces"),
    ({"wallets": [{"id": "a:b"}]}, "wallet 'a:b': an id is made of"),
    ({"wallets": [{"id": "ab"}, {"id": "a-b"}]}, "wallet 'a-b': there is one already"),
    ({"wallets": [{"id": "a", "balances": {"x y": {}}}]}, "balance 'x y'"),
    ({"payments": [{"id": "p", "amount": 1, "asset": "EUR/2"}] * 2}, "payment 'p': there is one already"),
    ({"payments": [{"id": "p", "amount": True, "asset": "EUR/2"}]}, "payments[0].amount"),
    ({"connectors": [{"provider": ""}]}, "connector: its provider is empty"),
    (
        {"connectors": [{"provider": "a", "id": "c"}, {"provider": "b", "id": "c"}]},
        "connector 'c': there is one already",
    ),
]


def test_what_is_seeded_is_there(world: MakeWorld) -> None:
    w = world(2, data=DATA)
    assert w.core.balance("users:1", "EUR/2") == 10**30
    assert w.core.balance("users:1", "USD/2") == 5
    assert w.core.balance("world", "USD/2") == -5
    assert w.core.wallet("w-1") == {"main": {"EUR/2": 7}}
    assert w.core.record().money == [], "the record tells what runs moved"
    with pytest.raises(ValueError, match="no wallet 'w1'"):
        w.core.wallet("w1")


@pytest.mark.parametrize(("data", "error"), BAD)
def test_what_is_wrong_is_named_and_nothing_is_changed(world: MakeWorld, data: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        Core(2, data=data)
    w = world(2)
    first = {"accounts": [{"id": "first", "balances": {"EUR/2": 1}}], "wallets": [{"id": "first"}]}
    both = {key: [*first.get(key, []), *data.get(key, [])] for key in {*first, *data}}
    error = error if "payments" in data else error.replace("[0]", "[1]")
    with pytest.raises(ValueError, match=re.escape(error)):
        w.core.seed_data(both)
    assert w.core.balances("default", "first") == {}
    with pytest.raises(ValueError, match="no wallet"):
        w.core.wallet("first")


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"seed.{suffix}"
    yaml = "accounts:\n- id: users:1\n  balances: {EUR/2: 12}\n"
    path.write_text(
        yaml if suffix == "yaml" else json.dumps({"accounts": [{"id": "users:1", "balances": {"EUR/2": 12}}]})
    )
    for data in (path, str(path)):
        core = Core(1, data=data)
        assert core.balance("users:1", "EUR/2") == 12
    assert create_app(data=path).state.core.balance("users:1", "EUR/2") == 12


@pytest.mark.parametrize(
    "amount", ["01250", "12:30", "1_250", "0x4e2", "0o2342", "0b11", "+5", "1.0", "1e3", ".inf", "-1"]
)
def test_an_amount_in_a_file_is_what_stands_there(tmp_path: Path, amount: str) -> None:
    """YAML's own numbers are others: its `01250` is 680, and its `12:30` is 750."""
    path = tmp_path / "seed.yaml"
    path.write_text(f"accounts:\n- {{id: users:1, balances: {{EUR/2: {amount}}}}}\n")
    error = (
        f"account 'users:1': the amount of EUR/2 must be a whole number from 0, not '{amount}'; write its plain digits"
    )
    with pytest.raises(ValueError, match=re.escape(error)):
        Core(1, data=path)


@given(amount=st.integers(0, 10**40))
def test_plain_digits_in_a_file(tmp_path_factory: pytest.TempPathFactory, amount: int) -> None:
    path = tmp_path_factory.mktemp("seed") / "seed.yaml"
    path.write_text(
        f"accounts:\n- {{id: '1', balances: {{EUR/2: {amount}}}, metadata: {{born: 2001-02-03, code: 0123}}}}\n"
        f"payments:\n- {{id: 0123, amount: {amount}, asset: EUR/2}}\n"
    )
    core = Core(2, data=path)
    assert core.balance("1", "EUR/2") == amount
    assert core.engine.memory.outside.payments.by_id["0123"]["amount"] == amount
    assert core.engine.ledger.metadata["default"]["1"] == {"born": "2001-02-03", "code": "0123"}


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ([{"provider": "wise", "id": "wise-2"}, {"provider": "wise"}], ["wise-2", "wise-3"]),
        ([{"provider": "WISE"}, {"provider": "wise", "id": "wise-1"}], ["wise-2", "wise-1"]),
        ([{"provider": "wise"}, {"provider": "wise"}], ["wise-1", "wise-2"]),
    ],
)
def test_ids_that_are_made_are_free(given: list[dict[str, str]], ids: list[str]) -> None:
    core = Core(2, data={"connectors": given})
    assert [one["id"] for one in core.engine.memory.outside.payments.connectors] == ids
    core.seed_data({"connectors": [{"provider": "wise"}]})
    made = [one["id"] for one in core.engine.memory.outside.payments.connectors]
    assert len(set(made)) == len(given) + 1


class TestLedgersThatExist:
    DATA: ClassVar[dict[str, Any]] = {
        "ledgers": ["default", "fees"],
        "accounts": [{"id": "users:1", "balances": {"USD/2": 100}}, {"id": "a", "ledger": "fees"}],
        "wallets": [{"id": "w-1"}],
        "payments": [{"id": "p1", "amount": 7, "asset": "USD/2"}],
    }

    @pytest.mark.parametrize("generation", [1, 2, 3])
    def test_a_payment_into_any_other_is_tried_for_ever(self, world: MakeWorld, generation: int) -> None:
        w = world(generation, data=self.DATA)
        stage = send("1", source="users:1", destination="shop")
        assert w.instance(w.start(stage))["terminated"] is True
        stage = send("1", source="users:1", destination="shop")
        stage["send"]["source"]["account"]["ledger"] = stage["send"]["destination"]["account"]["ledger"] = "defualt"
        i = w.start(stage)
        w.clock.sleep(3600)
        (activity,) = w.history(i, 0)
        assert (activity["terminated"], activity["lastFailure"]) == (False, "not found")
        assert activity["attempt"] > 30
        assert w.core.balance("shop", "USD/2", "defualt") == 0

    def test_those_of_wallets_and_payments_do(self, world: MakeWorld) -> None:
        w = world(2, data=self.DATA)
        source, amount = {"payment": {"id": "p1"}}, {"amount": "7", "asset": "USD/2"}
        i = w.start({"send": {"source": source, "destination": {"wallet": {"id": "w-1"}}, "amount": amount}}, settle=5)
        assert w.instance(i)["terminated"] is True
        assert w.core.wallet("w-1") == {"main": {"USD/2": 7}}

    def test_more_can_be_added(self, world: MakeWorld, tmp_path: Path) -> None:
        w = world(2, data=self.DATA, db=str(tmp_path / "s.db"))
        other = {"accounts": [{"id": "a", "ledger": "other", "balances": {"USD/2": 1}}]}
        with pytest.raises(ValueError, match="ledger 'other' is none of those that exist"):
            w.core.seed_data(other)
        w.core.seed_data({"ledgers": ["other"], **other})
        w.core.close()
        again = world(2, data=self.DATA, db=str(tmp_path / "s.db"))
        assert again.core.balance("a", "USD/2", "other") == 1
        assert "other" in again.core.engine.ledger.existing

    def test_without_a_list_any_does(self, world: MakeWorld) -> None:
        w = world(2)
        stage = send()
        stage["send"]["source"]["account"]["ledger"] = stage["send"]["destination"]["account"]["ledger"] = "whatever"
        assert w.instance(w.start(stage))["terminated"] is True


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "\x80"])
def test_a_file_of_something_else(tmp_path: Path, text: str) -> None:
    path = tmp_path / "seed.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="seed data in"):
        Core(1, data=path)


def test_a_database_that_was_used_keeps_what_it_has(tmp_path: Path) -> None:
    db = str(tmp_path / "s.db")
    first = Core(2, db=db, data=DATA)
    first.seed_data({"wallets": [{"id": "w2", "balances": {"main": {"EUR/2": 3}}}]})
    first.close()
    again = Core(2, db=db, data=DATA)
    assert again.balance("users:1", "USD/2") == 5
    assert again.wallet("w2") == {"main": {"EUR/2": 3}}
    assert again.engine.memory.outside.payments.get("p1")["data"]["initialAmount"] == 250
    again.close()


def test_other_data_than_a_database_has_is_refused(tmp_path: Path) -> None:
    db = str(tmp_path / "s.db")
    Core(2, db=db, data=DATA).close()
    other = {**DATA, "connectors": []}
    with pytest.raises(
        ValueError, match=r"s\.db was used before, with other data: take a new file, or leave the data out"
    ):
        EmbeddedServer(2, db=db, data=other)
    written_otherwise = json.loads(json.dumps(DATA))
    written_otherwise["payments"][0]["amount"] = 250
    for data in (DATA, written_otherwise, None):
        again = Core(2, db=db, data=data)
        assert again.balance("users:1", "USD/2") == 5
        again.seed_data({"accounts": [{"id": "more"}]})
        again.close()


@pytest.mark.parametrize("what", ["workflow", "seed_data"])
def test_data_for_a_database_that_was_used_without_any(tmp_path: Path, what: str) -> None:
    db = str(tmp_path / "s.db")
    w = World(2, db=db)
    if what == "workflow":
        w.workflow()
    else:
        w.core.seed_data(DATA)
    w.core.close()
    with pytest.raises(ValueError, match="was used before, with no data"):
        Core(2, db=db, data=DATA)


def test_a_send_that_is_stored_halfway_goes_on(tmp_path: Path) -> None:
    """A payment from a wallet, which has been debited and can't be paid into the other ledger's account yet."""
    db, through = str(tmp_path / "s.db"), {"account": {"id": "shop", "throughAccount": "bridge"}}
    amount = {"amount": "7", "asset": "EUR/2"}
    stage = {"send": {"source": {"wallet": {"id": "w-1"}}, "destination": through, "amount": amount}}
    w = World(2, db=db, data=DATA)
    i = w.start(stage)
    w.core.close()
    w = World(2, db=db)
    assert [a["terminated"] for a in w.history(i, 0)] == [True, True, False]
    w.core.seed_data({"accounts": [{"id": "bridge", "balances": {"EUR/2": 7}}]})
    w.clock.sleep(60)
    assert w.instance(i)["terminated"] is True
    assert w.core.balance("shop", "EUR/2") == 7
    assert w.core.wallet("w-1") == {"main": {"EUR/2": 0}}
    w.core.close()


def test_by_control_call() -> None:
    with EmbeddedServer(2) as server, httpx.Client(base_url=server.url) as client:
        assert client.post("/_control/seed", json=DATA).status_code == 204
        assert client.get("/_control/wallets/w-1").json() == {"main": {"EUR/2": 7}}
        again = client.post("/_control/seed", json=DATA)
        assert (again.status_code, again.json()["errorCode"]) == (400, "VALIDATION")
        assert "wallet 'w-1': there is one already" in again.json()["errorMessage"]
        assert client.get("/_control/wallets/other").status_code == 400
        assert server.wallet("w-1") == {"main": {"EUR/2": 7}}
    with EmbeddedServer(2, faults=False, data=DATA) as server, httpx.Client(base_url=server.url) as client:
        assert client.post("/_control/seed", json=DATA).status_code == 404
        assert server.wallet("w-1") == {"main": {"EUR/2": 7}}


class TestTheAuditRecord:
    def test_tells_everything_in_order(self, world: MakeWorld) -> None:
        w = world(3, data={**DATA, "accounts": [{**DATA["accounts"][0], "metadata": {"formanceAccountID": "acc"}}]})
        payout = {"account": {"id": "users:1"}}, {"payment": {"psp": "stripe"}}
        w.start(
            send(str(10**24), destination="bank"),
            {"wait_event": {"event": "go"}},
            {"send": {"source": payout[0], "destination": payout[1], "amount": {"amount": "1", "asset": "EUR/2"}}},
        )
        (i,) = w.core.engine.instances
        w.event(i, "come")
        w.clock.sleep(1)
        w.event(i)
        w.clock.sleep(5)
        stopped = w.start({"wait_event": {"event": "never"}})
        w.abort(stopped)
        w.clock.sleep(1)
        lines = [json.loads(line) for line in w.core.record().as_json_lines().splitlines()]
        assert [(line["kind"], line["instance_id"]) for line in lines] == [
            *((kind, i) for kind in ("run_started", "money_moved", "event_unheard", "event_heard", "money_moved")),
            *((kind, i) for kind in ("payout_requested", "run_ended")),
            *((kind, stopped) for kind in ("run_started", "run_aborted", "run_ended")),
        ]
        assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
        assert [(line["event"], line["released"]) for line in lines[2:4]] == [("come", False), ("go", True)]
        assert lines[1]["posting"]["amount"] == 10**24

    def test_over_a_socket(self) -> None:
        with EmbeddedServer(2) as server, httpx.Client(base_url=server.url) as client:
            made = client.post("/workflows", json={"stages": []}).json()["data"]["id"]
            client.post(f"/workflows/{made}/instances", json={})
            answer = client.get("/_control/record.jsonl")
            assert answer.headers["content-type"] == "application/x-ndjson"
            assert [json.loads(line)["kind"] for line in answer.text.splitlines()][:1] == ["run_started"]
            assert client.get("/_control/record").json()["payouts"] == []


class TestTheCommand:
    COMMAND = (sys.executable, "-c", "from orchestration_integrations.cli import app; app()", "serve", "--port", "0")

    def test_seeds_and_writes_the_record(self, tmp_path: Path) -> None:
        seed, record = tmp_path / "seed.json", tmp_path / "record.jsonl"
        seed.write_text(json.dumps({"accounts": [{"id": "users:1", "balances": {"USD/2": 100}}]}))
        arguments = [*self.COMMAND, "--faults", "--seed", str(seed), "--record", str(record)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                with httpx.Client(base_url=process.stdout.readline().strip(), timeout=30) as client:
                    stages = [send(source="users:1")]
                    made = client.post("/workflows", json={"stages": stages}).json()["data"]["id"]
                    client.post(f"/workflows/{made}/instances", json={})
                    client.post("/_control/advance", json={"seconds": 5})
            finally:
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
        kinds = [json.loads(line)["kind"] for line in record.read_text().splitlines()]
        assert kinds == ["run_started", "money_moved", "run_ended"]

    @pytest.mark.parametrize(
        ("option", "value", "error"),
        [
            ("--seed", "none.json", "none.json"),
            ("--seed", "bad.json", "unknown field `wallet`"),
            ("--record", "none/record.jsonl", "none/record.jsonl"),
        ],
    )
    def test_refuses_what_it_cannot_use(self, tmp_path: Path, option: str, value: str, error: str) -> None:
        (tmp_path / "bad.json").write_text('{"wallet": []}')
        arguments = [*self.COMMAND, option, str(tmp_path / value)]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert error in done.stderr
        assert "Traceback" not in done.stderr
