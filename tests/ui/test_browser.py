"""The page in a browser: what a person reads and does, by text and roles. Needs Chromium and its driver."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import pytest
from msgspec.structs import replace

from orchestration_integrations import AsyncOrchestrationHttpHook, OrchestrationHttpHook, Settings
from orchestration_integrations.server import EmbeddedServer
from orchestration_integrations.ui import ages, definitions, reading, streams
from tests.ui.flows import PAYOUT, SCRIPT, UNFUNDED, fired, listening, send
from tests.ui.gateway import Answer, Gateway
from tests.ui.page_client import PausablePage as PageServer

pytest.importorskip("selenium", reason="selenium is not installed: tox run -e page")
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")

DESKTOP, PHONE = (1280, 860), (390, 844)


class Tab:
    """One tab, as a person uses it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str) -> None:
        self.driver.get("about:blank")
        self.driver.get(address)

    def until_it_says(self, *texts: str) -> str:
        """Wait until the page shows all of these texts; nothing is loaded anew meanwhile."""

        def shown(_: Any) -> str | None:
            text: str = self.driver.find_element(By.TAG_NAME, "body").text
            return text if all(one in text for one in texts) else None

        return str(WebDriverWait(self.driver, 20, 0.05).until(shown, f"never said {texts}"))

    def find(self, role: str, name: str) -> Any:
        """The visible element of a role with this accessible name."""

        def found(_: Any) -> Any:
            for element in self.driver.find_elements(By.CSS_SELECTOR, "a, button, input, summary, h1, h2, svg, table"):
                if element.is_displayed() and element.aria_role == role and name in element.accessible_name:
                    return element
            return None

        waiting = WebDriverWait(self.driver, 20, 0.05, [StaleElementReferenceException])
        return waiting.until(found, f"there is no {role} {name!r}")

    def click(self, role: str, name: str) -> None:
        """Click it; where the page draws it anew at that very moment, the new one."""
        waiting = WebDriverWait(self.driver, 20, 0.05, [StaleElementReferenceException])
        waiting.until(lambda _: self.find(role, name).click() or True)

    def look(self, size: tuple[int, int], *, dark: bool) -> None:
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size is PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def violations(self) -> list[str]:
        """What axe-core finds."""
        self.driver.execute_script((files("axe_selenium_python") / "node_modules/axe-core/axe.min.js").read_text())
        found = self.driver.execute_async_script("axe.run(document).then(arguments[arguments.length - 1])")
        return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found["violations"]]

    def complaints(self) -> list[str]:
        """What the browser's console holds: errors of scripts, and refusals by the content security policy."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def tab(driver: Any) -> Tab:
    tab = Tab(driver)
    tab.look(DESKTOP, dark=False)
    driver.get("about:blank")  # the page of the test before calls for its server
    tab.complaints()
    return tab


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_open_run_watch_send_the_event_and_see_it_end(tab: Tab, generation: Any) -> None:
    with EmbeddedServer(generation) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        hook.ensure_workflow(PAYOUT, gate=True)
        tab.open(server.url)
        tab.until_it_says("No instance is in the list.")
        tab.click("link", "Workflows")
        tab.click("link", "payout")
        tab.find("textbox", "amount").send_keys("1250")
        tab.find("textbox", "merchant").send_keys("m1")
        key = tab.find("textbox", "Run key")
        key.clear()
        key.send_keys("by-hand")
        tab.click("button", "Run")
        tab.until_it_says("waits for the event “approved”", "by-hand", "12.50 EUR from world to sales", "Not begun")
        assert tab.find("heading", "Instance").is_displayed()
        assert "12.50 EUR from world to sales" in tab.find("image", "Money moved").accessible_name
        assert tab.find("textbox", "Event").get_attribute("value") == "approved"
        tab.click("button", "Send event")
        text = tab.until_it_says("It succeeded: 2 transactions.", "merchants:m1")
        assert "Not begun" not in text
        assert server.balance("merchants:m1", "EUR/2") == 1050
        assert len(server.record().started) == 1
        assert tab.complaints() == []


def test_a_stage_changes_by_itself(tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    instance_id = listening(hook)
    tab.open(f"{server.url}/#/instances/{instance_id}")
    tab.until_it_says("waits for the event “approved”")
    hook.send_event_when_ready(instance_id, "approved")
    tab.until_it_says("It succeeded: 2 transactions.")


def test_a_failing_payment_counts_down_to_its_next_try(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    workflow = hook.ensure_workflow(UNFUNDED, gate=True).workflow
    instance_id = hook.start(workflow.id, run_key="refund-9").id
    tab.open(f"{server.url}/#/instances/{instance_id}")
    tab.until_it_says("Failing, attempt 2: account had insufficient funds", "next try")
    tab.until_it_says("Failing, attempt 3: account had insufficient funds", "next try in ")
    tab.open(f"{server.url}/#/instances")
    tab.until_it_says("failing, attempt", "insufficient funds", "refund-9")


def test_a_cancel_is_confirmed_and_says_what_came_of_it(tab: Tab) -> None:
    with EmbeddedServer(3) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        instance_id = listening(hook)
        tab.open(f"{server.url}/#/instances/{instance_id}")
        tab.until_it_says("waits for the event “approved”")
        tab.click("button", "Cancel the run")
        tab.click("button", "Leave it")
        assert not hook.get_instance(instance_id).terminated
        tab.click("button", "Cancel the run")
        tab.driver.find_element(By.CSS_SELECTOR, "dialog .danger").click()
        tab.until_it_says("It was cancelled; by then: 1 transaction.", "It was cancelled.")


def test_markup_of_a_server_is_text(tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    workflow = hook.create_workflow(SCRIPT)
    instance_id = hook.run_workflow(workflow.id).id
    trigger = fired(server, hook, name=SCRIPT["name"])
    places = ("instances", "workflows", f"workflows/{workflow.id}", f"instances/{instance_id}", "triggers")
    for place in (*places, f"triggers/{trigger}"):
        tab.open(f"{server.url}/#/{place}")
        tab.until_it_says(SCRIPT["name"])
        assert "taken" not in tab.driver.title.replace(SCRIPT["name"], "")
        assert not tab.driver.find_elements(By.CSS_SELECTOR, "main script, main img")
    assert tab.complaints() == []


def test_by_keyboard(tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    first, second = listening(hook, "order-1"), listening(hook, "order-2")
    tab.open(server.url)
    tab.until_it_says("order-1", "order-2")

    def press(*keys: str) -> None:
        for key in keys:
            tab.driver.switch_to.active_element.send_keys(key)

    press("/", "order-1")
    WebDriverWait(tab.driver, 20).until(lambda _: "order-2" not in tab.driver.find_element(By.TAG_NAME, "main").text)
    press(Keys.ESCAPE, "j", Keys.ENTER)
    tab.until_it_says(first)
    press("i")
    tab.until_it_says("order-2")
    press("j", "j", "k", Keys.ENTER)
    tab.until_it_says(second)
    press("?")
    tab.until_it_says("Next and previous row")
    press(Keys.ESCAPE)
    press("w")
    tab.until_it_says("payout", "gate")
    trigger = fired(server, hook)
    press("t")
    tab.until_it_says("large payments", "event.amount > 1000")
    press("j", Keys.ENTER)
    tab.until_it_says(trigger, "none was started", "Succeeded")
    [began] = [one for one in hook.list_instances() if one.id not in (first, second)]
    press("j", "j", Keys.ENTER)
    tab.until_it_says(f"Instance {began.id}")


def test_a_task_of_a_scheduler_finds_its_run(tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    instance_id = listening(hook, "dag/scheduled__2030-01-01T00:00:00+00:00/pay %2F/-1")
    tab.open(f"{server.url}/#/task/dag/scheduled__2030-01-01T00%3A00%3A00%2B00%3A00/pay%20%2F/-1")
    tab.until_it_says(f"Instance {instance_id}")


@pytest.mark.parametrize("index", ["{MAP_INDEX}", "%7BMAP_INDEX%7D"])
def test_a_task_that_is_not_mapped_finds_its_run(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook, index: str
) -> None:
    """Airflow leaves the placeholder in its address, as seen in 3.3.2."""
    instance_id = listening(hook, "dag/run/pay/-1")
    tab.open(f"{server.url}/#/task/dag/run/pay/{index}")
    tab.until_it_says(f"Instance {instance_id}")


def test_with_a_token(tab: Tab) -> None:
    with EmbeddedServer(token="of-the-server") as server:
        with OrchestrationHttpHook(base_url=server.url, token="of-the-server") as hook:
            instance_id = listening(hook)
        tab.open(f"{server.url}/#/instances/{instance_id}")
        tab.until_it_says("Token needed")
        tab.driver.find_element(By.ID, "token").send_keys("wrong", Keys.ENTER)
        tab.until_it_says("This is not the token.")
        tab.driver.find_element(By.ID, "token").send_keys("of-the-server", Keys.ENTER)
        tab.until_it_says("waits for the event “approved”")
        tab.driver.execute_script("sessionStorage.clear()")
        tab.open(f"{server.url}/#token=of-the-server")
        tab.until_it_says("order-17")
        assert "of-the-server" not in tab.driver.current_url


def test_a_page_that_only_reads_offers_nothing_else(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    instance_id = listening(hook)
    with PageServer(Settings(base_url=server.url)) as page:
        tab.open(f"{page.url}/#/instances/{instance_id}")
        tab.until_it_says("waits for the event “approved”", "reads only")
        assert not [one for one in tab.driver.find_elements(By.CSS_SELECTOR, ".danger, .primary") if one.is_displayed()]


@pytest.mark.parametrize("key", ["o-1", "payouts/2026-11-27/" + "m" * 80])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_what_a_list_is_narrowed_to_is_in_sight(
    tab: Tab, server: EmbeddedServer, size: tuple[int, int], key: str
) -> None:
    tab.look(size, dark=False)
    tab.open(f"{server.url}/#/instances?key={quote(key, safe='')}")
    chip = tab.find("link", f"Run key {key}")
    left, right = tab.driver.execute_script(
        "const one = arguments[0].getBoundingClientRect(); return [one.left, one.right]", chip
    )
    assert 0 <= left < right <= size[0]
    assert tab.driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_and_nothing_is_cut_off(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook, size: tuple[int, int], dark: bool
) -> None:
    instance_id = listening(hook)
    done = listening(hook, "order-18")
    hook.send_event_when_ready(done, "approved")
    failing = hook.start(hook.ensure_workflow(UNFUNDED, gate=True).workflow.id, run_key="refund-9").id
    workflow = hook.ensure_workflow(PAYOUT, gate=True).workflow
    trigger = fired(server, hook)
    tab.look(size, dark=dark)
    for place, text in (
        ("instances", "refund-9"),
        (f"instances/{instance_id}", "Cancel the run"),
        (f"instances/{done}", "merchants:m1"),
        (f"instances/{failing}", "next try"),
        ("workflows", "payout"),
        (f"workflows/{workflow.id}", "Run key"),
        ("triggers", "large payments"),
        (f"triggers/{trigger}", "none was started"),
        ("nowhere", "Not found"),
    ):
        tab.open(f"{server.url}/#/{place}")
        tab.until_it_says(text)
        assert tab.violations() == [], place
        assert tab.driver.execute_script("return document.documentElement.scrollWidth <= innerWidth"), place
    assert tab.complaints() == []


# ---- what is known, and since when ---------------------------------------------------------------------

TWO_APPROVALS = {
    "name": "two approvals",
    "stages": [{"wait_event": {"event": "approve-small"}}, {"wait_event": {"event": "approve-large"}}],
}


def test_a_changed_target_clears_the_form(tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    instance_id = hook.run_workflow(hook.create_workflow(TWO_APPROVALS).id).id
    tab.open(f"{server.url}/#/instances/{instance_id}")
    tab.until_it_says("waits for the event “approve-small”")
    field = tab.find("textbox", "Event")
    field.click()
    assert tab.find("button", "Send event “approve-small”").is_displayed()
    hook.send_event_when_ready(instance_id, "approve-small")
    tab.until_it_says("the form was cleared", "waits for “approve-large” (stage 1")
    assert field.get_attribute("value") == ""
    field.send_keys("approve-large", Keys.ENTER)
    assert "Sending" not in tab.driver.find_element(By.TAG_NAME, "main").text
    tab.click("button", "Fill in “approve-large”")
    tab.click("button", "Send event “approve-large”")
    tab.until_it_says("It succeeded")


def lost_answers(tab: Tab) -> None:
    """Actions reach the page's server from now on, and their answers do not come back."""
    tab.driver.execute_script(
        "const real = fetch; window.fetch = (path, options) => options?.method === 'POST'"
        " ? real(path, options).then(() => { throw new TypeError('cut'); }) : real(path, options);"
    )


def test_a_lost_answer_says_what_may_be_and_the_next_safe_step(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    workflow = hook.ensure_workflow({"name": "paid", "stages": [send("world", "sales", "5")]}, gate=True).workflow
    tab.open(f"{server.url}/#/workflows/{workflow.id}")
    tab.find("button", "Run")
    lost_answers(tab)
    tab.click("button", "Run")
    tab.until_it_says("The run may have started. Press again with the same key: it will find that run")
    tab.driver.execute_script("location.reload()")
    instance_id = listening(hook)
    tab.open(f"{server.url}/#/instances/{instance_id}")
    tab.until_it_says("waits for the event “approved”")
    lost_answers(tab)
    tab.click("button", "Send event")
    tab.until_it_says("The event may have been sent")
    assert len(server.record().started) == 2


def test_the_same_key_again_finds_the_run_whose_answer_was_lost(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    plain = {"name": "plain", "stages": [send("world", "sales", "5")]}
    plain["stages"][0]["send"]["metadata"] = {"order": "${runKey}"}  # type: ignore[index]
    workflow = hook.create_workflow(plain)
    tab.open(f"{server.url}/#/workflows/{workflow.id}")
    tab.until_it_says("It needs no variables.", "started once with this fresh key")
    tab.driver.execute_script(
        "const real = fetch; let first = true; window.fetch = (path, options) => options?.method === 'POST' && first"
        " ? real(path, options).then(() => { first = false; throw new TypeError('cut'); }) : real(path, options);"
    )
    tab.click("button", "Run")
    tab.until_it_says("never starts a second one under this key")
    tab.click("button", "Run")
    tab.until_it_says("It succeeded: 1 transaction.")
    assert len(server.record().started) == 1


def test_silence_is_loss(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT", 0.4)
    for place, seen in ((f"instances/{listening(hook)}", "waits for the event"), ("instances", "order-17")):
        with PageServer(Settings(base_url=server.url)) as page:
            tab.open(f"{page.url}/#/{place}")
            tab.until_it_says(seen, "Live")
            page.pause(4)
            tab.until_it_says("Lost", "Nothing has come from the page's server since", seen)
            tab.until_it_says("Live", seen)
            assert "Nothing has come" not in tab.driver.find_element(By.TAG_NAME, "body").text


@pytest.mark.parametrize("place", ["instance", "instances", "workflows", "workflow", "triggers", "trigger"])
def test_live_is_only_what_was_read_lately(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The server hangs: the stream of the page speaks on, and nothing is read."""
    monkeypatch.setattr(ages, "LIVE_FOR", 4.0)
    instance_id = listening(hook)
    paths = {
        "instance": f"instances/{instance_id}",
        "workflow": f"workflows/{hook.get_instance(instance_id).workflow_id}",
        "trigger": f"triggers/{fired(server, hook)}",
    }
    with (
        Gateway(server.url) as gateway,
        PageServer(Settings(base_url=gateway.url, retry_budget=30, timeout=30)) as page,
    ):
        hang = False
        gateway.rule = lambda method, path: Answer(503, seconds=20.0) if hang else None
        tab.open(f"{page.url}/#/{paths.get(place, place)}")
        tab.until_it_says("Live")
        hang = True
        seen = ["What is shown was read at"]  # a page of a workflow learns of each reading that failed
        text = tab.until_it_says(*seen, *(() if place == "workflow" else ("As of ", "nothing newer since")))
        assert "Live" not in text
        assert tab.violations() == []


def test_what_was_read_before_a_sleep_is_not_live(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    with PageServer(Settings(base_url=server.url)) as page:
        tab.open(f"{page.url}/#/instances/{listening(hook)}")
        tab.until_it_says("Live")
        page.pause(4)
        tab.driver.execute_script("const real = Date.now; Date.now = () => real() + 3600_000")
        tab.until_it_says("As of ")
        tab.until_it_says("Live")


def test_a_run_that_was_shown_is_not_denied_by_a_gateway(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    with Gateway(server.url) as gateway, PageServer(Settings(base_url=gateway.url)) as page:
        tab.open(f"{page.url}/#/instances/{listening(hook)}")
        tab.until_it_says("Live", "waits for the event")
        gateway.rule = lambda method, path: Answer(404, b"<html>404 page not found</html>")
        text = tab.until_it_says("Not read", "It cannot be read just now", "waits for the event")
        assert "No such instance" not in text
        gateway.rule = lambda method, path: None
        tab.until_it_says("Live", "waits for the event")


def test_the_end_of_the_page_is_not_the_end_of_the_run(tab: Tab, hook: OrchestrationHttpHook) -> None:
    with PageServer(Settings(base_url=hook.settings.base_url)) as page:
        tab.open(f"{page.url}/#/instances/{listening(hook)}")
        tab.until_it_says("Live", "waits for the event")
    assert "Ended" not in tab.until_it_says("Lost", "waits for the event")


def test_an_error_of_a_list_goes_once_it_is_read_again(tab: Tab, server: EmbeddedServer) -> None:
    for place in ("instances", "workflows"):
        tab.open(f"{server.url}/#/{place}")
        tab.until_it_says("is in the list", "Live")
        tab.driver.execute_script(
            "window.real = fetch; window.fetch = (path, options) => /(instances|workflows)([?]|$)/.test(path)"
            " ? Promise.reject(new TypeError('net')) : real(path, options);"
        )
        with OrchestrationHttpHook(base_url=server.url) as hook:
            hook.create_workflow({"name": f"made at {place}", "stages": []})
        tab.until_it_says("does not answer. Is it still running?")
        tab.driver.execute_script("window.fetch = real")
        with OrchestrationHttpHook(base_url=server.url) as hook:
            for workflow in hook.list_workflows():
                hook.delete_workflow(workflow.id)
        tab.until_it_says("is in the list")


def test_what_was_never_read_is_not_said_to_be_empty(tab: Tab, server: EmbeddedServer) -> None:
    server.fault("list_instances", "status", count=-1, code=500)
    for place in ("instances", "workflows"):
        tab.open(f"{server.url}/#/{place}")
        text = tab.until_it_says("The list could not be read", "Whether there are any is not known", "Not read")
        assert "is in the list" not in text
        assert "All 0" not in text
    server.clear_faults()
    tab.open(f"{server.url}/#/instances")
    tab.until_it_says("No instance is in the list.", "All 0", "Live")


def test_a_page_beyond_the_last_is_not_an_empty_list(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    listening(hook)
    trigger = fired(server, hook)
    for place in ("instances", "triggers", f"triggers/{trigger}"):
        tab.open(f"{server.url}/#/{place}?page=7")
        text = tab.until_it_says("There is no such page of the list.")
        assert "yet" not in text


@pytest.mark.parametrize("place", ["instances", "workflows"])
def test_a_list_that_can_no_longer_be_read_says_of_when_it_is(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook, place: str
) -> None:
    listening(hook)
    tab.open(f"{server.url}/#/{place}")
    tab.until_it_says("payout", "Live")
    server.fault("any", "status", count=-1, code=500)
    tab.until_it_says("The list could not be read", "What is shown was read at", "payout")


def test_a_server_without_triggers_is_said_to_have_none(tab: Tab) -> None:
    with EmbeddedServer(1) as server:
        for place in ("triggers", "triggers/x"):
            tab.open(f"{server.url}/#/{place}")
            text = tab.until_it_says("Servers of generation 1 have no triggers.")
            assert "is in the list" not in text
            assert tab.violations() == []


def test_triggers_are_live_and_never_read_is_not_none(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    server.fault("list_triggers", "status", count=-1, code=500)
    tab.open(f"{server.url}/#/triggers")
    text = tab.until_it_says("The list could not be read", "Whether there are any is not known")
    assert "is in the list" not in text
    server.clear_faults()
    tab.until_it_says("No trigger is in the list.")
    trigger = fired(server, hook)
    tab.until_it_says("large payments", "notify")
    tab.click("link", "SAVED_PAYMENT")
    tab.until_it_says("2 occurrences", "none was started", "Succeeded")
    tab.driver.find_element(By.TAG_NAME, "summary").click()
    tab.until_it_says('"amount": 1250')
    hook.delete_trigger(trigger)
    tab.until_it_says("it may have been deleted", "2 occurrences", '"amount": 1250')


def test_a_history_that_cannot_be_read_is_not_taken_for_nothing(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    instance_id = listening(hook)
    server.fault("get_instance_history", "status", count=-1, code=500)
    tab.open(f"{server.url}/#/instances/{instance_id}")
    text = tab.until_it_says("What it moved is not known", "Money: not known")
    assert "Nothing has moved" not in text


def test_a_contradiction_is_the_headline_and_nothing_of_it_is_green(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance_id = hook.run_workflow(hook.create_workflow({"name": "pays", "stages": [send("world", "a", "5")]}).id).id
    hook.wait(instance_id)
    real = AsyncOrchestrationHttpHook.get_instance_history

    async def failed(self: Any, asked: str) -> Any:
        return [replace(stage, error="no such ledger") for stage in await real(self, asked)]

    monkeypatch.setattr(AsyncOrchestrationHttpHook, "get_instance_history", failed)
    tab.open(f"{server.url}/#/instances/{instance_id}")
    tab.until_it_says("The server says that it succeeded, but Stage 0 · send failed: no such ledger.", "Not sure")
    assert not tab.driver.find_elements(By.CSS_SELECTOR, ".banner.good, .badge.good, .stage.good")
    assert tab.violations() == []


@pytest.mark.parametrize("place", ["instances", "workflows", "workflows/x"])
def test_each_view_asks_for_the_token(tab: Tab, place: str) -> None:
    with EmbeddedServer(token="of-the-server") as server:
        tab.open(f"{server.url}/#token=of-the-server")
        tab.until_it_says("No instance is in the list.")
        tab.driver.execute_script("sessionStorage.setItem('orchestration-token', 'of-yesterday')")
        tab.driver.execute_script(f"location.hash = '#/{place}?state=failed'")
        tab.until_it_says("Token needed")
        tab.driver.execute_script("sessionStorage.clear()")


def test_an_address_that_is_encoded_wrongly_is_no_blank_page(tab: Tab, server: EmbeddedServer) -> None:
    tab.open(f"{server.url}/#token=%")
    tab.until_it_says("No instance is in the list.")
    tab.open(f"{server.url}/#/instances/%")
    tab.until_it_says("No such instance")


def test_raw_digits_are_the_servers(tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    workflow = hook.create_workflow({"name": "big", "stages": [send("world", "sales", "12345678901234567891")]})
    instance_id = hook.run_workflow(workflow.id).id
    tab.open(f"{server.url}/#/instances/{instance_id}")
    tab.until_it_says("It succeeded", "≈ 123,456,789,012,346,000.00 EUR")
    tab.driver.find_element(By.CSS_SELECTOR, ".raw summary").click()
    tab.until_it_says('"amount":12345678901234567168', "Read at ")
    tab.open(f"{server.url}/#/workflows/{workflow.id}")
    tab.until_it_says("Definition, as the server keeps it")
    tab.driver.find_element(By.CSS_SELECTOR, ".raw summary").click()
    tab.until_it_says('"12345678901234567891"', "Read at ")


def test_a_task_finds_its_own_run_and_no_other(tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    one, ten = listening(hook, "dag/run/pay/1"), listening(hook, "dag/run/pay/10")
    tab.open(f"{server.url}/#/task/dag/run/pay/1")
    assert ten not in tab.until_it_says(f"Instance {one}")


def test_a_form_goes_with_its_workflow(tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    workflow = hook.ensure_workflow(PAYOUT, gate=True).workflow
    tab.open(f"{server.url}/#/workflows/{workflow.id}")
    tab.find("button", "Run")
    hook.delete_workflow(workflow.id)
    tab.until_it_says("The workflow is deleted.")
    assert not tab.driver.find_elements(By.ID, "run-key")


# ---- the server's clock, and what a later reading takes back ---------------------------------------------

HOUR, DAY = 3600.0, 86400.0
NOT_FOUND = Answer.of({"errorCode": "NOT_FOUND", "errorMessage": "no such thing"}, status=404)
WEEK = {"name": "a week", "stages": [{"wait_event": {"event": "go"}}, {"delay": {"duration": "168h"}}]}


def until_it_reads(tab: Tab, selector: str, text: str) -> None:
    """Wait for the text of an element, which may be drawn anew meanwhile."""
    waiting = WebDriverWait(tab.driver, 15, 0.05, [StaleElementReferenceException, NoSuchElementException])
    waiting.until(lambda _: tab.driver.find_element(By.CSS_SELECTOR, selector).text == text, f"never read {text}")


def test_a_run_goes_by_the_servers_clock_wherever_it_moves(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    instance_id = hook.run_workflow(hook.create_workflow(WEEK).id).id
    tab.open(f"{server.url}/#/instances/{instance_id}")
    tab.until_it_says("waits for the event “go”", "Live")
    whole = tab.driver.find_element(By.CSS_SELECTOR, ".facts time").get_attribute("title")
    assert tab.driver.find_element(By.CSS_SELECTOR, ".facts time").text != whole, "of today"
    server.advance(3 * DAY)
    until_it_reads(tab, ".facts [data-since]", "3 d")
    until_it_reads(tab, ".facts time", whole)
    hook.send_event_when_ready(instance_id, "go")
    tab.until_it_says("goes on in 6 d 23 h")
    server.advance(3 * DAY)
    assert "goes on in 6 d" not in tab.until_it_says("goes on in 3 d 23 h")


def test_a_list_goes_by_the_servers_clock(tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    hook.run_workflow(hook.create_workflow(WEEK).id)
    server.advance(HOUR)
    tab.open(f"{server.url}/#/instances")
    until_it_reads(tab, "td [data-since]", "1 h")
    server.advance(HOUR)
    until_it_reads(tab, "td [data-since]", "2 h")


def test_what_was_due_since_the_last_reading_is_not_said_to_happen_now(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    delay = hook.create_workflow({"name": "soon", "stages": [{"delay": {"duration": "8s"}}]})
    with Gateway(server.url) as gateway, PageServer(Settings(base_url=gateway.url, retry_budget=0.5)) as page:
        tab.open(f"{page.url}/#/instances/{hook.run_workflow(delay.id).id}")
        tab.until_it_says("Live", "goes on in ")
        gateway.rule = lambda method, path: Answer(503)
        tab.until_it_says("Not read", "goes on at ")


DELETED = {"deletedAt": "2030-01-01T00:00:00Z"}


@pytest.mark.parametrize("how", ["gone", "deleted"])
def test_a_workflow_that_is_known_again_has_its_form_again(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook, how: str
) -> None:
    workflow = hook.ensure_workflow(PAYOUT, gate=True).workflow
    denial = NOT_FOUND if how == "gone" else Answer.of({"data": {**workflow.raw, **DELETED}})
    with (
        Gateway(server.url) as gateway,
        PageServer(Settings(base_url=gateway.url, retry_budget=0.5), actions=True) as page,
    ):
        tab.open(f"{page.url}/#/workflows/{workflow.id}")
        tab.find("textbox", "amount").send_keys("1250")
        key = tab.find("textbox", "Run key").get_attribute("value")
        gateway.rule = lambda method, path: denial if path.endswith(workflow.id) else None
        if how == "gone":
            tab.until_it_says("Not read", "does not know it any more", "The server did not know the workflow at ")
        else:
            tab.until_it_says("Live", "Deleted", "The workflow is deleted.")
        assert not tab.driver.find_elements(By.ID, "run-key")
        gateway.rule = lambda method, path: None
        tab.find("button", "Run")
        text = tab.until_it_says("Live")
        assert "know" not in text
        assert "eleted" not in text
        assert tab.find("textbox", "amount").get_attribute("value") == "1250", "what was filled in stays"
        assert tab.find("textbox", "Run key").get_attribute("value") == key


@pytest.mark.parametrize(
    ("answer", "said"),
    [(NOT_FOUND, "The server knew no such workflow at "), (Answer(401), "It could not be read: ")],
)
def test_a_workflow_that_could_not_be_read_at_first_is_read_again(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook, answer: Answer, said: str
) -> None:
    workflow = hook.ensure_workflow(PAYOUT, gate=True).workflow
    with Gateway(server.url) as gateway, PageServer(Settings(base_url=gateway.url), actions=True) as page:
        gateway.rule = lambda method, path: answer if path.endswith(workflow.id) else None
        tab.open(f"{page.url}/#/workflows/{workflow.id}")
        tab.until_it_says("Not read", said, workflow.id)
        assert tab.violations() == []
        gateway.rule = lambda method, path: None
        tab.find("button", "Run")
        assert said not in tab.until_it_says("payout", "Live")


def test_a_run_tells_what_became_of_its_workflow(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definitions, "DEFINITION_AGE", 0.1)
    monkeypatch.setattr(definitions, "FAILED_PAUSE", 0.1)
    instance_id = listening(hook)
    with Gateway(server.url) as gateway, PageServer(Settings(base_url=gateway.url, retry_budget=0.5)) as page:
        tab.open(f"{page.url}/#/instances/{instance_id}")
        tab.until_it_says("payout", "Live")
        for answer, said in (
            (NOT_FOUND, "The server does not know its workflow any more: it may have been deleted. Its definition, as"),
            (Answer(503), "Its workflow could not be read again, so whether it is deleted is not known: "),
        ):
            gateway.rule = lambda method, path: answer if "/workflows/" in path else None  # noqa: B023
            tab.until_it_says(said, "was read at", "Live", "payout")
            assert tab.violations() == []
        gateway.rule = lambda method, path: None
        WebDriverWait(tab.driver, 10).until(lambda _: "was read" not in tab.driver.find_element(By.ID, "main").text)


def test_a_trigger_that_is_known_again_is_not_said_to_be_gone(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    trigger = fired(server, hook)
    with Gateway(server.url) as gateway, PageServer(Settings(base_url=gateway.url)) as page:
        tab.open(f"{page.url}/#/triggers/{trigger}")
        tab.until_it_says("2 occurrences", "Live")
        gateway.rule = lambda method, path: NOT_FOUND if path.endswith(trigger) else None
        tab.until_it_says("does not know this trigger any more", "What is shown was read at ", "Not read")
        gateway.rule = lambda method, path: None
        assert "any more" not in tab.until_it_says("Live", "2 occurrences")


def test_an_id_that_was_looked_for_in_vain_says_when(
    tab: Tab, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "UNKNOWN_FOR", 0.3)
    monkeypatch.setattr(reading, "FAILED_PAUSE", 0.1)
    tab.open(f"{server.url}/#/instances/00000000-0000-4000-8000-000000000000")
    tab.until_it_says("No such instance was known at ", "The page looks for it no more", "Not read")


def test_the_header_says_anew_whether_the_server_answers(tab: Tab, server: EmbeddedServer) -> None:
    server.fault("info", "status", count=-1, code=500)
    with PageServer(Settings(base_url=server.url, retry_budget=0.5)) as page:
        tab.open(f"{page.url}/#/workflows")
        tab.until_it_says("did not answer at ", "reads only")
        server.clear_faults()
        WebDriverWait(tab.driver, 10).until(
            lambda _: "did not answer" not in tab.driver.find_element(By.ID, "server").text
        )


@pytest.fixture
def spoilt(tab: Tab) -> Iterator[Any]:
    """Have what a script makes of a request be the answer to it, as long as it makes anything."""
    made = []

    def spoil(answer: str) -> None:
        source = (
            f"const real = fetch; window.fetch = (path, options) => {{ const made = ({answer})(path);"
            " return made ? Promise.resolve(made) : real(path, options); }"
        )
        made.append(tab.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source}))

    yield spoil
    for script in made:
        tab.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_a_page_whose_server_does_not_answer_at_first_opens_later(
    tab: Tab, server: EmbeddedServer, spoilt: Any
) -> None:
    spoilt("(path) => !window.well && new Response('{}', { status: 500 })")
    tab.open(f"{server.url}/#/instances")
    tab.until_it_says("That did not work")
    tab.driver.execute_script("window.well = true")
    tab.until_it_says("No instance is in the list.", "Live")


def test_a_stream_that_was_refused_is_asked_for_again(
    tab: Tab, server: EmbeddedServer, hook: OrchestrationHttpHook, spoilt: Any
) -> None:
    spoilt(
        "(path) => !window.well && path.endsWith('/live')"
        ' && new Response(\'{"message": "not by this name"}\', { status: 403 })'
    )
    instance_id = listening(hook)
    tab.open(f"{server.url}/#/instances/{instance_id}")
    tab.until_it_says("Not connected", "not by this name")
    tab.driver.execute_script("window.well = true")
    assert "not by this name" not in tab.until_it_says("Live", "waits for the event")
