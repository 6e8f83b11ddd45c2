"""Bad input gets an error that names the place, before anything is sent."""

import logging
import time
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration_integrations import ValidationError
from orchestration_integrations.api.definitions import (
    canonical,
    has_crowded_string,
    may_become,
    placeholders,
    validated_definition,
    variable_texts,
)
from orchestration_integrations.api.yaml_text import MAX_BYTES, definition_text, parse_definition

SEND = {
    "source": {"account": {"id": "world"}},
    "destination": {"account": {"id": "bank"}},
    "amount": {"amount": 100, "asset": "USD/2"},
}


def send(**changes):
    return {"stages": [{"send": {**SEND, **changes}}]}


GOOD = [
    {"stages": []},
    {"name": "x", "stages": [{"delay": {"duration": "1h30m"}}]},
    {"stages": [{"delay": {"until": "2030-01-01T00:00:00Z"}}]},
    {"stages": [{"delay": {"duration": "${d}"}}]},
    {"stages": [{"wait_event": {"event": "go:${runKey}"}}]},
    {"stages": [{"update": {"account": {"id": "a", "ledger": "main", "metadata": {"k": "v"}}}}]},
    send(),
    send(amount={"amount": "${n}", "asset": "${a}"}),
    send(source={"wallet": {"name": "w"}}),
    send(destination={"payment": {"psp": "stripe"}}),
    send(
        destination={"payment": {"psp": "wise", "type": "PAYOUT", "sourceAccount": "${s}", "waitingValidation": True}}
    ),
    send(source={"account": {"id": "x", "allowOverdraft": True}}),
    send(source={"payment": {"id": "p", "ledger": "l", "holdingAccount": "h", "allowOverdraft": False}}),
    {"stages": [{"send": {"source": {"payment": {"id": "p"}}, "destination": {"account": {"id": "bank"}}}}]},
    send(metadata={"k": "${v}"}, timestamp="2024-01-01T00:00:00Z"),
]


@pytest.mark.parametrize("definition", GOOD)
def test_good_definitions_pass_unchanged(definition):
    assert validated_definition(definition) == definition


@pytest.mark.parametrize(
    ("definition", "path"),
    [
        (None, "definition"),
        ([], "definition"),
        ({}, "stages"),
        ({"stages": None}, "stages"),
        ({"stages": {}}, "stages"),
        ({"name": 5, "stages": []}, "name"),
        ({"stages": ["x"]}, "stages[0]"),
        ({"stages": [{}]}, "stages[0]"),
        ({"stages": [{"delay": {"duration": "1s"}, "wait_event": {"event": "x"}}]}, "stages[0]"),
        ({"stages": [{"delay": None}]}, "stages[0].delay"),
        ({"stages": [{"delay": {}}]}, "stages[0].delay"),
        ({"stages": [{"delay": {"duration": "1s", "until": "2030-01-01T00:00:00Z"}}]}, "stages[0].delay"),
        ({"stages": [{"delay": {"duration": "abc"}}]}, "stages[0].delay.duration"),
        ({"stages": [{"delay": {"duration": "-5s"}}]}, "stages[0].delay.duration"),
        ({"stages": [{"delay": {"duration": 5}}]}, "stages[0].delay.duration"),
        ({"stages": [{"delay": {"until": "yesterday"}}]}, "stages[0].delay.until"),
        ({"stages": [{"wait_event": {}}]}, "stages[0].wait_event.event"),
        ({"stages": [{"wait_event": {"event": ""}}]}, "stages[0].wait_event.event"),
        ({"stages": [{"send": {}}]}, "stages[0].send.source"),
        (send(source={}), "stages[0].send.source"),
        (send(source={"account": {"id": "a"}, "wallet": {"id": "w"}}), "stages[0].send.source"),
        (send(source={"account": {}}), "stages[0].send.source.account.id"),
        (send(source={"account": {"id": "a", "ledger": 5}}), "stages[0].send.source.account.ledger"),
        (
            send(source={"account": {"id": "a", "allowOverdraft": "${yes}"}}),
            "stages[0].send.source.account.allowOverdraft",
        ),
        (
            send(source={"payment": {"id": "p", "allowOverdraft": "true"}}),
            "stages[0].send.source.payment.allowOverdraft",
        ),
        (
            send(destination={"payment": {"psp": "wise", "waitingValidation": 1}}),
            "stages[0].send.destination.payment.waitingValidation",
        ),
        (send(amount=None), "stages[0].send.amount"),
        (send(destination={"wallet": {"balance": "main"}}), "stages[0].send.destination.wallet"),
        (send(amount={"asset": "USD/2"}), "stages[0].send.amount.amount"),
        (send(amount={"amount": True, "asset": "USD/2"}), "stages[0].send.amount.amount"),
        (send(amount={"amount": 1.5, "asset": "USD/2"}), "stages[0].send.amount.amount"),
        (send(amount={"amount": -5, "asset": "USD/2"}), "stages[0].send.amount.amount"),
        (send(amount={"amount": "12x", "asset": "USD/2"}), "stages[0].send.amount.amount"),
        (send(amount={"amount": 1}), "stages[0].send.amount.asset"),
        (send(metadata={"k": 5}), "stages[0].send.metadata.k"),
        (send(timestamp="then"), "stages[0].send.timestamp"),
        ({"stages": [{"update": {"account": {"id": "a"}}}]}, "stages[0].update.account.metadata"),
        ({"stages": [{"new_kind": {"x": 1.5}}]}, "stages[0].new_kind.x"),
        ({"stages": [{"new_kind": {5: "x"}}]}, "stages[0].new_kind"),
    ],
)
def test_bad_definitions_name_the_place(definition, path):
    with pytest.raises(ValidationError) as caught:
        validated_definition(definition)
    assert caught.value.path == path
    assert path in str(caught.value)


@pytest.mark.parametrize("amount", [2**53 - 1, 2**53, 9007199254740993, 10**24, 10**40])
def test_big_amounts_go_as_text(amount):
    sent = validated_definition(send(amount={"amount": amount, "asset": "USD/2"}))["stages"][0]["send"]["amount"][
        "amount"
    ]
    assert int(sent) == amount
    assert isinstance(sent, str) == (amount >= 2**53)


@pytest.mark.parametrize("amount", [12.5, "12.50"])
def test_a_fraction_of_money_is_refused_with_the_form_that_is_right(amount):
    """A remedy that leads into the next refusal is none."""
    send = {
        "source": {"account": {"id": "world"}},
        "destination": {"account": {"id": "shop"}},
        "amount": {"amount": amount, "asset": "EUR/2"},
    }
    with pytest.raises(
        ValidationError, match=r"whole number of the asset's smallest unit, such as 1250 for EUR/2 12\.50"
    ):
        validated_definition({"name": "payout", "stages": [{"send": send}]})
    with pytest.raises(ValidationError, match=r"smallest unit, such as 1250 for EUR/2 12\.50"):
        variable_texts({"amount": 12.5})


def test_unknown_kinds_and_fields_pass_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        validated_definition({"stages": [{"teleport": {"to": "x"}}, {"wait_event": {"event": "x", "surprise": 1}}]})
    assert "stages[0].teleport" in caplog.text
    assert "stages[1].wait_event.surprise" in caplog.text


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        (
            {"sned": {}},
            "stages[0].sned: unknown kind of stage (did you mean send?), passed on unchecked; "
            "the known kinds are send, delay, wait_event, update",
        ),
        ({"teleport": {}}, "stages[0].teleport: unknown kind of stage, passed on unchecked; the known kinds are send,"),
        (
            {
                "send": {
                    "source": {"acount": {"id": "world"}},
                    "destination": {"account": {"id": "a"}},
                    "amount": {"amount": 1, "asset": "EUR/2"},
                }
            },
            "unknown kind of source or destination (did you mean account?), passed on unchecked; "
            "the known kinds are account, wallet, payment",
        ),
        (
            {"wait_event": {"event": "x", "evnt": "y"}},
            "stages[0].wait_event.evnt: unknown field (did you mean event?);",
        ),
    ],
)
def test_a_warning_names_what_may_be_meant(caplog, stage, says):
    with caplog.at_level(logging.WARNING):
        validated_definition({"stages": [stage]})
    assert says in caplog.text


def test_a_stage_that_is_null_is_no_stage():
    with pytest.raises(ValidationError):
        validated_definition({"stages": [None]})


def test_equal_definitions_are_equal():
    ours = {"name": "", "stages": [{"send": {**SEND, "metadata": None}}]}
    theirs = {
        "stages": [
            {"send": {"amount": {"asset": "USD/2", "amount": "100"}, **{k: SEND[k] for k in ("destination", "source")}}}
        ]
    }
    assert canonical(ours) == canonical(theirs)
    assert canonical(ours) != canonical({**theirs, "name": "other"})
    assert canonical({"stages": [{"x": True}]}) != canonical({"stages": [{"x": "True"}]})


def test_placeholders_are_found_with_their_place():
    stages = [{"wait_event": {"event": "go:${runKey}"}}, {"send": {"amount": {"amount": "${n}"}, "x": ["${a}:${b}"]}}]
    assert list(placeholders(stages)) == [
        ("stages[0].wait_event.event", "runKey"),
        ("stages[1].send.amount.amount", "n"),
        ("stages[1].send.x[0]", "a"),
        ("stages[1].send.x[0]", "b"),
    ]
    assert has_crowded_string(stages) == "stages[1].send.x[0]"
    assert has_crowded_string(stages[:1]) is None


@pytest.mark.parametrize(
    ("template", "text", "may"),
    [
        ("go", "go", True),
        ("go", "gone", False),
        ("go:${k}", "go:x", True),
        ("go:${k}", "stop:x", False),
        ("${a}", "anything", True),
        ("a.${b}", "axb", False),
    ],
)
def test_what_a_template_may_become(template, text, may):
    assert may_become(template, text) is may


def test_variables_become_the_obvious_text():
    zone = timezone(timedelta(hours=2))
    assert variable_texts(
        {
            "s": "1_000",
            "i": 10**30,
            "yes": True,
            "no": False,
            "dec": Decimal("1.10"),
            "exp": Decimal("1E+3"),
            "day": date(2026, 1, 2),
            "at": datetime(2026, 1, 2, 3, tzinfo=timezone.utc),
            "there": datetime(2026, 1, 2, 3, tzinfo=zone),
        }
    ) == {
        "s": "1_000",
        "i": "1" + "0" * 30,
        "yes": "true",
        "no": "false",
        "dec": "1.10",
        "exp": "1000",
        "day": "2026-01-02",
        "at": "2026-01-02T03:00:00Z",
        "there": "2026-01-02T03:00:00+02:00",
    }
    assert variable_texts(None) == {}


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    "value",
    [None, 1.0, 1e3, {}, [], b"x", Decimal("NaN"), Decimal("Infinity"), datetime(2026, 1, 1), Colour.RED, object()],
)
def test_whatever_could_be_read_twice_is_refused_by_name(value):
    with pytest.raises(ValidationError) as caught:
        variable_texts({"fine": "x", "amount": value})
    assert caught.value.path == "variables.amount"


@pytest.mark.parametrize("variables", [[("a", "b")], "a", {1: "x"}, {"": "x"}])
def test_variables_must_map_names(variables):
    with pytest.raises(ValidationError):
        variable_texts(variables)


@given(st.dictionaries(st.text(min_size=1), st.text() | st.booleans() | st.integers(), max_size=5))
def test_all_texts_are_strings(variables):
    assert all(type(text) is str for text in variable_texts(variables).values())


def test_yaml_and_json_texts():
    text = "name: x\nstages:\n- delay: {duration: 1s}\n- wait_event:\n    event: go\n"
    expected = {"name": "x", "stages": [{"delay": {"duration": "1s"}}, {"wait_event": {"event": "go"}}]}
    assert parse_definition(text) == expected
    assert parse_definition('{"name": "x", "stages": []}') == {"name": "x", "stages": []}


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 9):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name: [",
        "a: 1\na: 2",
        "stages: !!python/object/apply:os.system ['true']",
        "a: &a [*a]",
        bomb(),
        "[" * 5000,
        "a: 1\n---\nb: 2",
    ],
)
def test_yaml_that_is_bad_or_hostile(text):
    with pytest.raises(ValidationError) as caught:
        parse_definition(text, "flow.yaml")
    assert "flow.yaml" in str(caught.value)


def sending(amount: str) -> str:
    return (
        "name: w\nstages:\n- send:\n    source: {account: {id: world}}\n"
        f"    destination: {{account: {{id: bob}}}}\n    amount: {{asset: EUR/2, amount: {amount}}}\n"
    )


@pytest.mark.parametrize(
    "number",
    ["0100", "0899", "00", "-0", "+5", "-012", "0x10", "0b11", "0o17", "1_000", "0_1", "1:30", "-1:30", "!!int '010'"],
)
def test_an_integer_that_some_yaml_reads_as_another_is_refused_with_its_place(number):
    with pytest.raises(ValidationError) as caught:
        parse_definition(sending(number), "flow.yaml")
    assert caught.value.path == "stages[0].send.amount.amount"
    for told in ("flow.yaml", "line 6", "stages[0].send.amount.amount", "in quotes", "decimal digits"):
        assert told in str(caught.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("0", 0),
        ("100", 100),
        ("-5", -5),
        ("9007199254740993", 9007199254740993),
        ("'0100'", "0100"),
        ('"1:30"', "1:30"),
        ("!!str 0899", "0899"),
        ("1e3", "1e3"),
        ("users:1", "users:1"),
        ("0x", "0x"),
        ("0-1", "0-1"),
        ("12:75", "12:75"),
        ("yes", True),
        ("off", False),
        ("NO", False),
        ("y", "y"),
    ],
)
def test_what_stands_there_is_what_is_read(written, value):
    read = parse_definition(f"x: {written}")["x"]
    assert read == value
    assert type(read) is type(value)


@given(st.integers())
def test_a_plain_integer_is_that_integer(number):
    assert parse_definition(f"x: {number}") == {"x": number}


@given(st.text("0123456789+-_:xbo.", min_size=1, max_size=8))
def test_no_text_of_digits_becomes_another_integer(text):
    try:
        read = parse_definition(f"x: {text}")
    except ValidationError:
        return
    if isinstance(read, dict) and type(read["x"]) is int:
        assert str(read["x"]) == text


ODD_TEXTS = st.sampled_from(["0100", "0899", "0o17", "1:30", "1_000", "0x1", "+5", "2030-01-01", "NO", "~", "1.5", ""])


PRINTABLE = ODD_TEXTS | st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]))


@given(st.dictionaries(PRINTABLE, PRINTABLE | st.integers() | st.booleans(), max_size=4))
def test_what_is_written_is_read_again(value):
    assert parse_definition(definition_text(value)) == value


@pytest.mark.parametrize("given", ["2030-01-01T00:00:00Z", "2030-01-01T00:00:00.5+02:00"])
def test_a_date_in_yaml_stays_the_text_that_it_is(given):
    definition = parse_definition(f"stages:\n- delay:\n    until: {given}\n")
    assert definition["stages"][0]["delay"]["until"] == given
    assert validated_definition(definition)["stages"][0]["delay"]["until"] == given
    assert parse_definition("x: 2026-99-99\ny: !!timestamp 2026-1-1") == {"x": "2026-99-99", "y": "2026-1-1"}


@pytest.mark.parametrize("given", ["2030-01-01", "2030-01-01 00:00:00Z", "2030-01-01t00:00:00z", "2026-99-99T00:00Z"])
def test_a_text_that_the_server_takes_for_no_instant_is_refused(given):
    with pytest.raises(ValidationError) as caught:
        validated_definition(parse_definition(f"stages:\n- delay:\n    until: {given}\n"))
    assert caught.value.path == "stages[0].delay.until"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: w\nstages:\n" + "- delay: {duration: 1s}\n" * 80_000, "fewer stages"),
        ("#" * (MAX_BYTES + 1), "2 MB"),
        ("# " + "é" * (MAX_BYTES // 2), "2 MB"),
    ],
)
def test_a_text_that_is_too_large_is_refused_at_once(text, said):
    begun = time.process_time()
    with pytest.raises(ValidationError, match=said):
        parse_definition(text, "flow.yaml")
    assert time.process_time() - begun < 3  # PyYAML takes six to read all of the first
