"""What a key stands for: equal payments have equal contents, other payments are told apart by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration_integrations import ValidationError
from orchestration_integrations.ownership.keys import structured_key
from orchestration_integrations.procedures.content import UNKNOWN, content_of, differences, differs_from_gate
from orchestration_integrations.procedures.gate import (
    GATE_EVENT,
    GateText,
    gated,
    has_gate,
    opening_event,
    own_number,
    own_stages,
    parsed_event,
    parsed_text,
)

SEND = {"send": {"amount": {"amount": 5, "asset": "USD/2"}, "source": {"account": {"id": "world"}}}}
STAGES = [SEND, {"delay": {"duration": "1s"}}]


def test_content_ignores_form_and_gate():
    plain = content_of("k", STAGES, {"a": "1"})
    turned = [
        {"wait_event": {"event": GATE_EVENT}},
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "metadata": None,
                "amount": {"asset": "USD/2", "amount": "5"},
            }
        },
        {"wait_event": {"event": f"{GATE_EVENT}:2"}},
        {"delay": {"duration": "1s"}},
    ]
    assert content_of("k", turned, {"a": "1"}) == plain


def test_differences_are_named():
    one = content_of("k", STAGES, {"amount": "5", "shop": "a", "note": "x"})
    other = content_of("k", STAGES, {"amount": "9", "shop": "a", "extra": ""})
    assert differences(one, other) == ("variables.amount", "variables.extra", "variables.note")
    assert differences(one, other, ["amount", "note", "extra"]) == ()
    assert differences(one, content_of("k", STAGES[:1], {"amount": "5", "shop": "a", "note": "x"})) == ("workflow",)


def test_absent_is_not_empty():
    assert differences(content_of("k", [], {}), content_of("k", [], {"a": ""})) == ("variables.a",)


def test_two_workflows_by_id_differ_and_a_definition_does_not():
    by_id = [content_of("k", STAGES, {}, workflow_id=name) for name in ("w1", "w2")]
    assert differences(*by_id) == ("workflow",)
    assert differences(by_id[0], content_of("k", STAGES, {})) == ()


def test_unknown_content_and_other_formats_compare_as_equal():
    asked = content_of("k", STAGES, {"a": "1"})
    assert differences(UNKNOWN, asked) == ()
    gate = GateText(key="k", stages="0" * 8, variables="1" * 8, round=0, format="9")
    assert differs_from_gate(gate, asked) == ()


def test_the_gate_tells_other_variables():
    gate = content_of("k", STAGES, {"a": "1"}).gate_text("k", 3)
    assert differs_from_gate(gate, content_of("k", STAGES, {"a": "1"})) == ()
    assert differs_from_gate(gate, content_of("k", STAGES, {"a": "2"})) == ("content",)
    assert differs_from_gate(gate, content_of("k", STAGES[:1], {"a": "1"})) == ("workflow",)
    ignoring = content_of("k", STAGES, {"a": "1", "at": "now"}, ignored=["at"]).gate_text("k", 0)
    assert differs_from_gate(ignoring, content_of("k", STAGES, {"a": "1", "at": "later"}, ignored=["at"])) == ()


@given(key=st.text(min_size=1), number=st.integers(0, 10**6))
def test_a_gate_is_read_back_whatever_the_key(key, number):
    gate = content_of("k", STAGES, {"a": "1"}).gate_text(key, number)
    assert parsed_text(gate.text) == gate
    assert parsed_event(opening_event(gate.text)) == gate


@pytest.mark.parametrize("event", [None, 5, "", "go:", "go:k", "approve", "go:k~1short~0", "go:~1" + "0" * 16 + "~0"])
def test_what_is_no_gate(event):
    assert parsed_event(event) is None


@given(st.lists(st.text(), min_size=1), st.lists(st.text(), min_size=1))
def test_no_two_lists_of_parts_give_one_key(one, other):
    assert (structured_key(*one) == structured_key(*other)) == (one == other)
    assert "~" not in structured_key(*one)


def test_a_gate_is_added_once_and_taken_out():
    once = gated({"name": "n", "stages": STAGES})
    assert gated(once) == once
    assert own_stages(once["stages"]) == STAGES
    assert [own_number(once["stages"], number) for number in range(4)] == [None, 0, 1, None]


def test_a_stage_that_may_hear_the_release_is_refused():
    stages = [{"wait_event": {"event": GATE_EVENT}}, {"wait_event": {"event": "go:${anything}"}}]
    with pytest.raises(ValidationError, match=r"stages\[1\]"):
        has_gate("w", stages, "k~1" + "0" * 16 + "~0")
    assert not has_gate("w", [{"wait_event": {"event": "approve"}}], "x")
