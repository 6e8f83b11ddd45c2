"""What denies a run, and what does not: a gateway, an instance that was seen before, an abort that was taken."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partialmethod

import pytest

from orchestration_integrations import AsyncOrchestrationHttpHook, OrchestrationHttpHook, Settings
from orchestration_integrations.procedures import waiting
from orchestration_integrations.ui import kept, reading
from orchestration_integrations.ui.serving import PageServer
from tests.ui.flows import listening
from tests.ui.gateway import Answer, Gateway
from tests.ui.page_client import PageClient

NOT_FOUND = Answer.of({"errorCode": "NOT_FOUND", "errorMessage": "no such instance"}, status=404)
OF_A_GATEWAY = Answer(404, b"<html>404 page not found</html>")


@pytest.fixture
def page(gateway: Gateway) -> Iterator[PageClient]:
    settings = Settings(base_url=gateway.url, timeout=1.0, retry_budget=1.0)
    with PageServer(settings, actions=True) as page:
        yield PageClient(page.url)


# ---- actions -----------------------------------------------------------------------------------------


@pytest.fixture
def soon_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel looks for a second, not for fifteen, and no row is late."""
    monkeypatch.setattr(waiting, "ROW_GRACE", 0.0)
    monkeypatch.setattr(
        AsyncOrchestrationHttpHook, "cancel", partialmethod(AsyncOrchestrationHttpHook.cancel, timeout=1.0)
    )


@pytest.mark.usefixtures("soon_told")
@pytest.mark.parametrize("unread", [Answer(503), OF_A_GATEWAY])
def test_a_cancel_that_is_not_confirmed_names_the_run(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient, unread: Answer
) -> None:
    instance_id = listening(hook)
    gateway.rule = lambda method, path: unread
    done = page.act(f"instances/{instance_id}/cancel").json()
    assert done["status"] == "not_confirmed"
    assert f"orchestration-integrations wait {instance_id}" in done["text"]
    assert "INSTANCE" not in done["text"]


@pytest.mark.usefixtures("soon_told")
def test_a_denied_run_whose_abort_was_taken_may_exist(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient
) -> None:
    instance_id = listening(hook)
    gateway.rule = lambda method, path: NOT_FOUND if method == "GET" else Answer(204)
    answer = page.act(f"instances/{instance_id}/cancel")
    told = answer.json()
    assert (answer.status_code, told["runMayExist"]) == (502, True)
    assert "it may exist, still run and move money" in told["message"]
    assert f"orchestration-integrations wait {instance_id}" in told["message"]


def test_a_404_of_a_gateway_is_not_passed_on_as_one(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient
) -> None:
    instance_id = listening(hook)
    workflow_id = hook.get_instance(instance_id).workflow_id
    gateway.rule = lambda method, path: OF_A_GATEWAY
    for path in (f"instances/{instance_id}", f"workflows/{workflow_id}"):
        assert page.http.get(f"/_ui/api/{path}").status_code == 502, path


# ---- a view that was shown ---------------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "UNKNOWN_FOR", 0.0)
    monkeypatch.setattr(reading, "FAILED_PAUSE", 0.1)
    monkeypatch.setattr(kept, "EVERY", 0.1)


def first(page: PageClient, instance_id: str) -> str:
    """The first news of a stream."""
    return next(name for name, _ in page.events(f"instances/{instance_id}/live") if name != "still")


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("denial", [NOT_FOUND, OF_A_GATEWAY])
def test_a_run_that_was_shown_is_not_said_to_be_missing(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient, denial: Answer
) -> None:
    instance_id = listening(hook)
    events = page.events(f"instances/{instance_id}/live")
    assert next(name for name, _ in events if name != "still") == "instance"
    gateway.rule = lambda method, path: denial
    name, told = next((name, told) for name, told in events if name not in ("still", "instance"))
    assert name == "problem"
    assert ("nothing deletes one" in told["message"]) is (denial is NOT_FOUND)
    gateway.rule = lambda method, path: None
    assert next(name for name, _ in events if name not in ("still", "problem")) in ("instance", "recovered")


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("place", ["live", "list", "look"])
def test_a_run_that_anybody_has_seen_is_not_denied_to_another(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient, place: str
) -> None:
    instance_id = listening(hook)
    if place == "list":
        page.until("instances", lambda found: found["rows"])
    elif place == "look":
        page.get(f"instances/{instance_id}")
    else:
        assert first(page, instance_id) == "instance"
    gateway.rule = lambda method, path: NOT_FOUND
    events = page.events(f"instances/{instance_id}/live")  # it may join the reads of one who has just left
    assert next(name for name, _ in events if name not in ("still", "instance")) == "problem"
    assert page.http.get(f"/_ui/api/instances/{instance_id}").status_code == 502


def test_a_gateway_that_denies_an_id_is_not_taken_for_no_match(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient
) -> None:
    unseen = "00000000-0000-4000-8000-000000000000"
    page.until("instances", lambda found: found["readAt"] is not None)
    assert page.get(f"instances?q={unseen}")["total"] == 0
    gateway.rule = lambda method, path: OF_A_GATEWAY
    assert page.http.get(f"/_ui/api/instances?q={unseen}").status_code == 502


@pytest.mark.usefixtures("soon")
def test_triggers_that_were_shown_stay_and_are_told_to_be_unread(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient
) -> None:
    hook.create_trigger("E", hook.create_workflow({"name": "quick", "stages": []}).id)
    page.until("triggers", lambda found: found["total"] == 1)
    gateway.rule = lambda method, path: OF_A_GATEWAY
    found = page.until("triggers", lambda found: found["problem"] is not None)
    assert (found["total"], found["unrouted"], found["missing"]) == (1, False, False)
