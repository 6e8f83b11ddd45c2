"""Reading is open and lenient: no odd row, field, number or instant costs the rest."""

import contextlib
import json
import logging
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration_integrations import ServerError
from orchestration_integrations.api import decoding
from orchestration_integrations.api.instants import (
    UNKNOWN_INSTANT,
    format_instant,
    go_duration_seconds,
    is_go_duration,
    parse_instant,
)

GOLDEN = Path(__file__).parent.parent / "golden"


def body(data: object) -> bytes:
    return json.dumps({"data": data}).encode()


def row(**changes: object) -> dict[str, object]:
    return {"id": "i", "workflowID": "w", "createdAt": "2026-01-01T00:00:00Z", "terminated": False, **changes}


@pytest.mark.parametrize("digits", range(10))
def test_instants_with_any_number_of_digits(digits):
    fraction = "." + "123456789"[:digits] if digits else ""
    parsed = parse_instant(f"2026-11-24T23:52:20{fraction}Z")
    assert parsed == datetime(2026, 11, 24, 23, 52, 20, int("123456789"[:digits][:6].ljust(6, "0")), timezone.utc)


def test_instants_with_offsets_and_leap_seconds():
    assert parse_instant("2026-01-01T00:00:00-03:30") == datetime(2026, 1, 1, 3, 30, tzinfo=timezone.utc)
    assert parse_instant("2016-12-31T23:59:60Z") == datetime(2017, 1, 1, tzinfo=timezone.utc)
    for bad in ("yesterday", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00", "", None, 5):
        assert parse_instant(bad) is None


@given(st.datetimes(min_value=datetime(2, 1, 1), timezones=st.timezones()))
def test_instants_survive_a_round_trip(instant):
    offset = instant.utcoffset()
    if offset is None or offset.total_seconds() % 60:
        instant = instant.replace(tzinfo=timezone(timedelta(hours=1)))
    parsed = parse_instant(format_instant(instant))
    assert parsed.astimezone(timezone.utc) == instant.astimezone(timezone.utc)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("1h30m", 5400),
        ("300ms", 0.3),
        ("1.5h", 5400),
        ("0", 0),
        ("-5s", -5),
        ("2us", 2e-6),
        ("7m0.5s", 420.5),
    ],
)
def test_go_durations(text, seconds):
    assert is_go_duration(text)
    assert go_duration_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "5 s", "s", "1d", "5S", "abc", "1h 30m", "P1D"])
def test_what_is_no_go_duration(text):
    assert not is_go_duration(text)


def test_states_have_one_classifier():
    def state(**changes):
        return decoding.decode_instance(body(row(**changes)), "x").state

    assert state() == "running"
    assert state(error="") == "running"
    assert state(terminated=True) == "succeeded"
    assert state(terminated=True, error="") == "succeeded"
    assert state(terminated=True, error=None) == "succeeded"
    assert state(terminated=True, error="boom") == "failed"
    assert state(terminated=True, error={"odd": 1}) == "failed"
    assert state(terminated=True, error="canceled") == "cancelled"
    assert state(terminated=True, status=[{"stage": 0, "error": "boom"}]) == "failed"
    assert state(terminated=True, error="canceled: not") == "failed"


def test_generation_1_empty_error_reads_none():
    instance = decoding.decode_instance(body(row(error="", status=[{"stage": 0, "error": ""}])), "x")
    assert instance.error is None
    assert instance.status[0].error is None
    assert instance.raw["error"] == ""


@pytest.mark.parametrize("changes", [{"terminated": "yes"}, {"terminated": None}, {"id": ""}, {"id": None}])
def test_what_carries_the_load_must_be_readable(changes):
    with pytest.raises(ServerError):
        decoding.decode_instance(body(row(**changes)), "x")


@pytest.mark.parametrize(
    "bad", [b"", b"{", b"<html>", b"[]", b'{"data": null}', b'{"data": 5}', b"\xff", b"[" * 100_000]
)
def test_a_body_that_says_nothing_is_an_error_and_no_crash(bad):
    for decode in (decoding.decode_instance, decoding.decode_workflow, decoding.decode_trigger):
        with pytest.raises(ServerError):
            decode(bad, "x")


def test_odd_rows_never_cost_the_list(caplog):
    rows = [
        row(id="1"),
        row(id="2", status=None, createdAt="yesterday", surprise={"new": 1}),
        row(id="3", status="odd", terminated=True, error=["list"]),
        "not a row",
        row(id="4", status=[{"stage": "two"}, {"stage": 1}, 7]),
    ]
    with caplog.at_level(logging.WARNING):
        page = decoding.decode_page("instance", body(rows), "list of instances")
    assert [one.id for one in page.rows] == ["1", "2", "3", "4"]
    assert page.rows[1].created_at == UNKNOWN_INSTANT
    assert page.rows[1].raw["surprise"] == {"new": 1}
    assert page.rows[2].state == "failed"
    assert [one.stage for one in page.rows[3].status] == [-1, 1]
    assert len([r for r in caplog.records if "could not read" in r.message]) == 1


def test_status_is_sorted_and_numbers_may_repeat():
    status = [
        {"stage": 2, "startedAt": "2026-01-01T00:00:03Z"},
        {"stage": 0, "startedAt": "2026-01-01T00:00:01Z"},
        {"stage": 2, "startedAt": "2026-01-01T00:00:02Z"},
    ]
    instance = decoding.decode_instance(body(row(status=status)), "x")
    assert [(one.stage, one.started_at.second) for one in instance.status] == [(0, 1), (2, 2), (2, 3)]


def test_pages_in_both_shapes():
    v1 = decoding.decode_page("workflow", body([{"id": "a", "config": {"name": "n", "stages": None}}]), "x")
    assert (v1.next, v1.cursored, v1.rows[0].stages) == (None, False, ())
    cursor = {"cursor": {"hasMore": False, "next": "n2", "data": [{"id": "a"}]}}
    v2 = decoding.decode_page("workflow", json.dumps(cursor).encode(), "x")
    assert (v2.next, v2.cursored) == ("n2", True)
    with pytest.raises(ServerError):
        decoding.decode_page("workflow", b'{"cursor": {"data": null}}', "x")


def test_big_integers_keep_their_digits():
    big = 10**30 + 1
    (run,) = decoding.decode_stage_runs(body([{"name": "RunSend", "input": {"amount": {"amount": big}}}]), "x")
    assert run.input["amount"]["amount"] == big


def test_unknown_activities_are_kept():
    (run,) = decoding.decode_activity_runs(
        body([{"name": "BrandNew", "input": {"BrandNew": {"x": 1}}, "attempt": 3}]), "x"
    )
    assert (run.name, run.attempt, run.output, run.terminated) == ("BrandNew", 3, None, False)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "id",
                        "terminated",
                        "status",
                        "stage",
                        "error",
                        "config",
                        "stages",
                        "input",
                        "output",
                        "attempt",
                        "data",
                        "createdAt",
                        "x",
                    ]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=20,
    )
)
def test_no_shape_of_json_crashes_a_reader(value):
    data = json.dumps({"data": value}).encode()
    for decode in (
        decoding.decode_instance,
        decoding.decode_workflow,
        decoding.decode_trigger,
        decoding.decode_stage_runs,
        decoding.decode_activity_runs,
        decoding.decode_object,
        lambda b, w: decoding.decode_page("occurrence", b, w),
        lambda b, w: decoding.decode_page("instance", b, w),
    ):
        with contextlib.suppress(ServerError):
            decode(data, "x")


def exchanges():
    for path in sorted(GOLDEN.glob("*.json")):
        for number, step in enumerate(json.loads(path.read_text())["steps"]):
            if "request" not in step or "_healthcheck" in step["request"]["path"]:
                continue
            if 200 <= step["response"]["status"] < 300 and step["response"]["body"].strip():
                yield pytest.param(step, id=f"{path.stem}-{number}")


def reader_for(method: str, path: str):
    path = path.partition("?")[0].rstrip("/")
    parts = path.split("/")[1:]
    if path == "/_info":
        return decoding.decode_info
    if parts[-1] == "occurrences":
        return lambda b, w: decoding.decode_page("occurrence", b, w).rows
    if parts[-1] == "history":
        return decoding.decode_activity_runs if "stages" in parts else decoding.decode_stage_runs
    if parts[-1] == "instances":
        return (
            decoding.decode_instance if method == "POST" else lambda b, w: decoding.decode_page("instance", b, w).rows
        )
    kind = {"workflows": "workflow", "instances": "instance", "triggers": "trigger"}[parts[0]]
    if len(parts) == 1 and method == "GET":
        return lambda b, w: decoding.decode_page(kind, b, w).rows
    return getattr(decoding, f"decode_{kind}")


@pytest.mark.parametrize("step", list(exchanges()))
def test_every_recorded_success_is_read_without_loss(step, caplog):
    request, response = step["request"], step["response"]
    with caplog.at_level(logging.WARNING, logger="orchestration_integrations"):
        read = reader_for(request["method"], request["path"])(response["body"].encode(), request["path"])
    assert not [r for r in caplog.records if "could not read" in r.message]
    received = json.loads(response["body"])
    received = received.get("data", received)
    read_rows = read if isinstance(read, tuple) else (read,)
    received_rows = received if isinstance(received, list) else [received]
    assert [one.raw for one in read_rows] == received_rows
    for one, raw in zip(read_rows, received_rows, strict=True):
        for ours, theirs in [
            ("created_at", "createdAt"),
            ("started_at", "startedAt"),
            ("terminated_at", "terminatedAt"),
        ]:
            if raw.get(theirs) is not None:
                assert getattr(one, ours) == parse_instant(raw[theirs])
        if "terminated" in raw:
            assert one.terminated == raw["terminated"]
        if "status" in raw:
            assert len(one.status) == len(raw["status"])
