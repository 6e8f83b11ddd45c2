"""Triggers: which messages start a run, with which variables, and what the server says about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orchestration_integrations.server import expressions
from orchestration_integrations.server.expressions import ExpressionError
from orchestration_integrations.server.values import from_json

from .conftest import WAIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import World

    MakeWorld = Callable[..., World]

LATER = pytest.mark.parametrize("generation", [2, 3])
EVENT = from_json(
    {
        "id": "p1",
        "amount": 250,
        "big": 10**25,
        "share": 0.5,
        "paid": True,
        "status": "PAID",
        "items": [{"name": "a"}, {"name": "b"}],
        "meta": {"k": "v", "n": 1},
        "links": [{"name": "one", "uri": "https://api.example.com/accounts/1"}, {"name": "two"}, {"name": "two"}],
    }
)


class TestExpressions:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("event.id", "p1"),
            ("event.amount", "250"),
            ("event.big", "1e+25"),
            ("event.share", "0.5"),
            ("event.paid", "true"),
            ("event.none", "<nil>"),
            ("unknown", "<nil>"),
            ("event?.none?.deep", "<nil>"),
            ("event['status']", "PAID"),
            ("event.items[0].name", "a"),
            ("event.items[-1].name", "b"),
            ("event.meta", "map[k:v n:1]"),
            ("[1, 2.5, 'x', nil]", "[1 2.5 x <nil>]"),
            ("{a: 1, 'b': 2}.b", "2"),
            ('event.id + "-" + event.status', "p1-PAID"),
            ("1 + 2 * 3", "7"),
            ("(1 + 2) * 3", "9"),
            ("7 / 2", "3.5"),
            ("4 / 2", "2"),
            ("7 % 4", "3"),
            ("2 ** 3 ** 2", "512"),
            ("-event.amount", "-250"),
            ("event.amount * 1000000000", "250000000000"),
            ("event.amount / 1000000000", "2.5e-7"),
            ("event.none ?? 'x'", "x"),
            ("event.paid ? event.id : 1", "p1"),
            ("false ? 1 : true ? 2 : 3", "2"),
            ("event.amount > 100 && event.status == 'PAID'", "true"),
            ("event.amount > 100 and not event.paid", "false"),
            ("event.amount <= 100 || event.paid", "true"),
            ("!(event.paid) or false", "false"),
            ("event.status in ['NEW', 'PAID']", "true"),
            ("event.status not in ['NEW', 'PAID']", "false"),
            ("'k' in event.meta", "true"),
            ("250 in [event.amount]", "true"),
            ("event.amount == true", "false"),
            ("nil == event.none", "true"),
            ("event.status startsWith 'PA' and event.status endsWith 'ID'", "true"),
            ("event.status contains 'AI'", "true"),
            ("event.status matches '^P.*D$'", "true"),
            ("len(event.items)", "2"),
            ("lower(event.status) + upper('x') + trim(' y ')", "paidXy"),
            ("string(event.amount)", "250"),
            ("int('7') + 1", "8"),
            ("split('a,b', ',')[1]", "b"),
            ("1..3", "[1 2 3]"),
            ("'it\\'s'", "it's"),
            ("`a\\b`", "a\\b"),
            ("0x1F", "31"),
            ("get(event.meta, 'x') ?? 'none'", "none"),
        ],
    )
    def test_values(self, text: str, value: str) -> None:
        assert expressions.text_of(expressions.evaluate(text, EVENT)) == value

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("event.amount >", "unexpected token EOF (1:14)\n | event.amount >\n | .............^"),
            ("event.", "unexpected end of expression (1:6)\n | event.\n | .....^"),
            ("", "unexpected token EOF (1:1)"),
            ("event.id event.id", 'unexpected token Name("event") (1:10)'),
            ("(1", "unexpected token EOF"),
            ("1 +* 2", 'unexpected token Operator("*")'),
            ("event.id @ 1", "unrecognized character: U+0040 '@' (1:10)"),
            ("filter(event.items, true)", "the embedded server knows no filter"),
            ("event.items | len()", "the embedded server knows no pipes"),
            ("let x = 1; x", "the embedded server knows no let"),
            ("(" * 200 + "1" + ")" * 200, "expression too complex"),
            ("!" * 500 + "true", "expression too complex"),
            ("1" * 3000, "expression too long"),
        ],
    )
    def test_what_cannot_be_parsed(self, text: str, error: str) -> None:
        with pytest.raises(ExpressionError) as found:
            expressions.check(text)
        assert error in str(found.value)

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("event.none.deep", "cannot fetch deep from <nil> (1:12)\n | event.none.deep\n | ...........^"),
            ("event.none[0]", "cannot fetch 0 from <nil> (1:11)"),
            ("event.id.x", "cannot fetch x from string"),
            ("event.items[2]", "index out of range: 2 (array length is 2)"),
            ("event.none > 1", "invalid operation: <nil> > int (1:12)"),
            ("event.id > 1", "invalid operation: string > int"),
            ("event.id + 1", "invalid operation: string + int"),
            ("event.amount % 2", "invalid operation: float64 % int"),
            ("1 % int(event.share)", "integer divide by zero"),
            ("event.id && true", "interface conversion: interface {} is string, not bool"),
            ("not event.none", "interface conversion: interface {} is nil, not bool"),
            ("event.id in event.id", 'operator "in" not defined on string'),
            ("__import__('os')", "interface {} is nil, not a function"),
            ("event.__class__.x", "cannot fetch x from <nil>"),
            ("'a' matches (event.none ?? '(')", "error parsing regexp: missing closing ): `(`"),
            ("1..1000000", "memory budget exceeded"),
            ("lower(event.amount)", "interface {} is float64, not string"),
            ("values(event.amount)", "cannot get values from float64"),
            ("len(event.none)", "invalid argument for len (type <nil>)"),
            ("link(event, 'none')", "link 'none' not defined for object"),
            ("link(event, 'two')", "multiple link 'two' found for object"),
            ("link(event, 1)", "second parameter must be a string"),
            ("link(event, 'one').x", 'link url host not allowed: "api.example.com"'),
        ],
    )
    def test_what_cannot_be_evaluated(self, text: str, error: str) -> None:
        expressions.check(text)
        with pytest.raises(ExpressionError) as found:
            expressions.evaluate(text, EVENT)
        assert error in str(found.value)


def trigger(w: World, event: str = "E", **more: Any) -> str:
    workflow = w.workflow({"wait_event": {"event": "${a}"}})
    made = w.client.post("/triggers", json={"event": event, "workflowID": workflow, **more})
    assert made.status_code == 201, made.text
    return str(made.json()["data"]["id"])


def publish(w: World, event: str = "E", **payload: Any) -> None:
    w.core.publish({"type": event, "payload": payload})
    w.clock.sleep(1)


def occurrences(w: World, trigger_id: str) -> list[dict[str, Any]]:
    return list(w.get(f"/triggers/{trigger_id}/occurrences"))


@LATER
class TestMessages:
    def test_a_run_with_variables(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        t = trigger(w, vars={"a": "event.id", "n": "event.amount"})
        publish(w, id="p1", amount=250)
        publish(w, "F", id="p2")
        (started,) = w.core.record().started
        assert started["variables"] == {"a": "p1", "n": "250"}
        (row,) = occurrences(w, t)
        assert row.keys() == {"id", "triggerID", "date", "event", "workflowInstanceID", "workflowInstance"}
        assert row["triggerID"] == t
        assert row["event"] == {"type": "E", "payload": {"id": "p1", "amount": 250}}
        assert row["workflowInstance"]["id"] == row["workflowInstanceID"] == started["instance_id"]
        assert row["workflowInstance"]["terminated"] is False
        page = w.client.get(f"/v2/triggers/{t}/occurrences").json()["cursor"]
        assert [one["id"] for one in page["data"]] == [row["id"]]

    @pytest.mark.parametrize("text", ["event.amount > 300", "event.none > 1", "event.id", "1", "event.none.deep"])
    def test_what_does_not_pass_leaves_no_trace(self, world: MakeWorld, generation: int, text: str) -> None:
        w = world(generation)
        t = trigger(w, filter=text)
        publish(w, id="p1", amount=250)
        assert occurrences(w, t) == w.core.record().started == []

    def test_variables_that_cannot_be_evaluated_leave_an_error(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        t = trigger(w, vars={"a": "event.none.deep"})
        publish(w, id="p1")
        (row,) = occurrences(w, t)
        assert "cannot fetch deep from <nil>" in row["error"]
        assert "workflowInstanceID" not in row
        assert w.core.record().started == []

    @pytest.mark.parametrize("event", ["SAVED_PAYMENT", "SAVED_ACCOUNT"])
    def test_an_object_starts_one_run_of_each_trigger(self, world: MakeWorld, generation: int, event: str) -> None:
        w = world(generation)
        first, second = trigger(w, event), trigger(w, event)
        for object_id in ("p1", "p1", "p2"):
            publish(w, event, id=object_id)
        publish(w, event)
        publish(w, event)
        publish(w, event, id=7)
        assert [len(occurrences(w, t)) for t in (first, second)] == [3, 3], "p1, p2, and all that have no id"

    def test_a_message_that_does_not_pass(self, world: MakeWorld, generation: int) -> None:
        """On generation 2 it uses the payment's id up."""
        w = world(generation)
        t = trigger(w, "SAVED_PAYMENT", filter="event.status == 'PAID'")
        publish(w, "SAVED_PAYMENT", id="p1", status="NEW")
        publish(w, "SAVED_PAYMENT", id="p1", status="PAID")
        assert len(occurrences(w, t)) == (0 if generation == 2 else 1)

    def test_a_message_waits_for_workers(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        t = trigger(w)
        w.core.world("workers stopped")
        publish(w)
        assert occurrences(w, t) == []
        w.core.world("workers started")
        w.clock.sleep(1)
        assert len(occurrences(w, t)) == 1

    def test_the_trigger_of_a_deleted_workflow(self, world: MakeWorld, generation: int) -> None:
        """On generation 3 no way leads to a run of it; and a payment that comes meanwhile isn't used up."""
        w = world(generation)
        t = trigger(w, "SAVED_PAYMENT")
        assert w.client.delete(f"/workflows/{w.get(f'/triggers/{t}')['workflowID']}").status_code == 204
        publish(w, "SAVED_PAYMENT", id="p1")
        runs = 1 if generation == 2 else 0
        assert len(occurrences(w, t)) == len(w.core.record().started) == len(w.core.triggers.seen) == runs

    def test_a_trigger_that_was_deleted(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        t = trigger(w)
        publish(w)
        assert w.client.delete(f"/triggers/{t}").status_code == 204
        publish(w)
        assert len(occurrences(w, t)) == 1


@LATER
class TestTheTest:
    def said(self, w: World, trigger_id: str, **event: Any) -> Any:
        answer = w.client.post(f"/v2/triggers/{trigger_id}/test", json=event)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def test_says_what_would_happen_and_starts_nothing(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        t = trigger(w, filter="event.amount > 100", vars={"a": "event.id", "b": "event.x.y", "c": "''"})
        shown = self.said(w, t, amount=250, id="p1")
        assert shown["filter"] == {"match": True}
        assert shown["variables"]["a"] == {"value": "p1"}
        assert shown["variables"]["b"]["error"].startswith("cannot fetch y from <nil>")
        assert shown["variables"]["c"] == {}
        assert self.said(w, t, amount=5) == {"filter": {"match": False}, "variables": None}
        failed = self.said(w, t, amount="x")
        assert failed["filter"]["match"] is False
        assert "invalid operation: string > int" in failed["filter"]["error"]
        assert self.said(w, trigger(w)) == {"filter": None, "variables": None}
        assert w.core.record().started == []

    def test_of_an_unknown_trigger_is_500(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        t = trigger(w)
        w.client.delete(f"/triggers/{t}")
        for unknown in (t, "nope"):
            answer = w.client.post(f"/v2/triggers/{unknown}/test", json={})
            assert w.error(answer) == (500, "INTERNAL", "sql: no rows in result set")
        assert w.client.post(f"/v2/triggers/{t}/test", content=b"{").status_code == 500

    def test_has_no_address_in_version_1(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        assert w.client.post(f"/triggers/{trigger(w)}/test", json={}).status_code == 404


@LATER
def test_a_trigger_is_shown_with_its_name(world: MakeWorld, generation: int) -> None:
    w = world(generation)
    body = {"event": "E", "workflowID": w.workflow(WAIT), "filter": "true", "vars": {"a": "1"}}
    named = w.client.post("/triggers", json={**body, "name": "mine"}).json()["data"]
    assert named == {**body, "name": "mine", "id": named["id"], "createdAt": named["createdAt"]}
    assert w.get(f"/triggers/{named['id']}") == named
    assert w.client.post("/triggers", json=body).json()["data"]["name"] == ""
