"""Steward's pages as people use them: in Chromium, inside a started Airflow whose story was told."""

import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait
from typer.testing import CliRunner

from steward.cli import app
from steward.reports.formats import number, value

pytestmark = [pytest.mark.slow, pytest.mark.airflow, pytest.mark.timeout(900)]
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
)
WITHIN = 120
"""Seconds that a page may take on a machine that is busy with other tests."""
WIDTHS = (1280, 390)
PAGES = (
    "/",
    "/decisions",
    "/decisions?model=deployment_risk",
    "/models/deployment_risk",
    "/models/deployment_risk/versions/2",
    "/models/deployment_risk/compare?left=1&right=2",
    "/models/deployment_risk/test-rows",
    "/models/deployment_risk/act",
    "/models/deployment_risk/rollback",
    "/models/asked_risk",
)


class Viewer:
    """Somebody before a browser."""

    def __init__(self, played: Any, folder: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        options.add_experimental_option("prefs", {"download.default_directory": str(self.downloads)})
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.played = played
        self.driver = webdriver.Chrome(options, service)
        self.resize(WIDTHS[0])

    @property
    def url(self) -> str:
        return str(self.played.api.site.airflow_url)

    def sign_in(self, name: str) -> None:
        passwords = json.loads((self.played.settings.home / "airflow" / "passwords.json").read_text())
        self.driver.get(f"{self.url}/")
        self.find("input[name=username]").send_keys(name)
        self.find("input[name=password]").send_keys(passwords[name])
        self.find("button[type=submit]").click()
        self.wait(lambda: self.driver.get_cookie("_token") and "/auth/" not in self.driver.current_url)

    def open(self, path: str) -> str:
        """A page by itself; answers its text."""
        self.driver.get(f"{self.url}/steward{path}")
        return self.text()

    def text(self) -> str:
        return self.find("main").text

    def find(self, selector: str) -> Any:
        return self.wait(lambda: next(iter(self.driver.find_elements(By.CSS_SELECTOR, selector)), None))

    def enter_frame(self, title: str) -> str:
        """Into Steward's frame, once it shows a heading of this text."""
        self.driver.switch_to.default_content()
        self.driver.switch_to.frame(self.find("iframe[title=Steward]"))
        self.wait(lambda: title in self.find("h1").text)
        return self.text()

    def wait(self, condition: Callable[[], Any]) -> Any:
        waiting = WebDriverWait(self.driver, WITHIN, 0.1, (StaleElementReferenceException, IndexError))
        return waiting.until(lambda _: condition())

    def fill(self, action: str, button: str, **fields: str) -> str:
        """Fill in the form that leads to `action` and press a button; answers what the next page says."""
        form = self.find(f'form[action$="{action}"]')
        for name, text in fields.items():
            form.find_element(By.NAME, name).send_keys(text)
        form.find_element(By.XPATH, f'.//button[contains(., "{button}")]').click()
        return str(self.find("[role=status]").text)

    def resize(self, width: int) -> None:
        shape = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)

    def theme(self, name: str) -> None:
        """What Airflow's own switch of its colour mode remembers."""
        self.driver.execute_script("localStorage.setItem('theme', arguments[0])", name)

    def complaints(self) -> list[str]:
        """What the browser had to say against pages of ours since it was asked last."""
        return [line["message"] for line in self.driver.get_log("browser") if "/steward/" in line["message"]]

    def status_of(self, path: str, **options: Any) -> int:
        """The status that a program gets which has this browser's cookie."""
        cookie = self.driver.get_cookie("_token")
        request = urllib.request.Request(f"{self.url}/steward{path}", **options)
        if cookie:
            request.add_header("Cookie", f"_token={cookie['value']}")
        request.add_header("Sec-Fetch-Site", "same-origin")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=WITHIN) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as problem:
            return problem.code


@pytest.fixture(scope="module")
def people(played, tmp_path_factory) -> Iterator[Callable[[str | None], Viewer]]:
    """Gives everybody a browser of their own, the same one every time."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("no Chromium; `apt-get install chromium chromium-driver` runs these tests too")
    browsers: dict[str | None, Viewer] = {}

    def somebody(name: str | None) -> Viewer:
        if name not in browsers:
            browsers[name] = Viewer(played, tmp_path_factory.mktemp(str(name)))
            if name:
                browsers[name].sign_in(name)
        browsers[name].driver.switch_to.default_content()
        return browsers[name]

    yield somebody
    for browser in browsers.values():
        browser.driver.quit()


@pytest.fixture
def admin(people) -> Viewer:
    return people("admin")


def status(played, model: str) -> dict[str, Any]:
    """What `steward status --json` says."""
    environment = {"STEWARD_HOME": str(played.settings.home), "STEWARD_MODELS": str(played.settings.models)}
    answer = CliRunner().invoke(app, ["status", model, "--json"], env=environment)
    assert answer.exit_code == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def test_a_signed_out_visitor_sees_nothing(people):
    nobody = people(None)
    for path in ("/", "/models/deployment_risk", "/decisions.json", "/static/pages.css", "/nowhere"):
        assert nobody.status_of(path) == 401, path
    assert nobody.status_of("/models/deployment_risk/train", data=b"reason=x", method="POST") == 401
    nobody.driver.get(f"{nobody.url}/steward/models/deployment_risk")
    nobody.find("input[name=password]")
    assert "next=%2Fsteward%2Fmodels%2Fdeployment_risk" in nobody.driver.current_url
    assert "deployment risk" not in nobody.find("body").text


def test_steward_is_in_the_menu_and_says_what_the_command_line_says(admin, played):
    admin.driver.get(f"{admin.url}/")
    admin.find("a[href$='/plugin/steward']").click()
    admin.enter_frame("Models")
    row = admin.find("a[href$='/models/deployment_risk']").find_element(By.XPATH, "./ancestor::tr").text
    found = status(played, "deployment_risk")
    live = found["live_accuracy"]
    assert f"version {found['champion']['version']}" in row
    assert value(live["value"]) in row
    if found["sealed_rows"]["value"] is not None:
        assert number(found["sealed_rows"]["value"]) in row
    assert found["state"] in row
    assert "never trained" in admin.find("a[href$='/models/asked_risk']").find_element(By.XPATH, "./ancestor::tr").text


def test_dag_run_and_task_lead_to_the_same_thing(admin, played):
    run = next(run for run in played.api.runs("deployment_risk.train") if run["run_type"] == "manual")["dag_run_id"]
    leads = {
        "/dags/deployment_risk.train/plugin/steward-dag": "eployment risk",
        f"/dags/deployment_risk.train/runs/{run}/plugin/steward-run": "ersion 1",
        f"/dags/deployment_risk.train/runs/{run}/tasks/verify/plugin/steward-task-instance": "ersion 1",
        "/dags/deployment_risk.train/tasks/verify/plugin/steward-task": "eployment risk",
    }
    for path, title in leads.items():
        admin.driver.get(f"{admin.url}{path}")
        admin.enter_frame(title)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_every_page_fits_a_desk_and_a_hand_in_airflows_colours(admin, theme):
    """The page is as dark as Airflow is, nothing is wider than the screen, and the browser has nothing to complain of."""
    admin.open("/")
    admin.theme(theme)
    admin.complaints()
    for path in PAGES:
        assert len(admin.open(path)) > 100, path
        for width in WIDTHS:
            admin.resize(width)
            shown = admin.driver.execute_script(
                "const root = document.documentElement;"
                "return [root.dataset.theme, root.scrollWidth - root.clientWidth,"
                " getComputedStyle(document.body).backgroundColor, document.querySelectorAll('h1').length]"
            )
            brightness = sum(map(int, re.findall(r"\d+", shown[2])[:3]))
            assert (shown[0], shown[1], brightness < 200, shown[3]) == (theme, 0, theme == "dark", 1), (path, width)
    admin.resize(WIDTHS[0])
    assert admin.complaints() == []


def test_the_frame_follows_airflows_colours_at_once(admin):
    admin.driver.get(f"{admin.url}/plugin/steward")
    admin.enter_frame("Models")
    for theme in ("dark", "light"):
        script = (
            "const it = parent.document.documentElement.classList; it.remove('dark', 'light'); it.add(arguments[0])"
        )
        admin.driver.execute_script(script, theme)
        admin.wait(
            lambda theme=theme: admin.driver.execute_script("return document.documentElement.dataset.theme") == theme
        )


def test_times_are_of_the_viewers_zone_and_of_utc_on_hover(admin):
    admin.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Tokyo"})
    admin.open("/decisions?model=deployment_risk&kind=snapshot")
    times = admin.driver.find_elements(By.CSS_SELECTOR, "td time")
    first = times[-1]
    assert first.get_attribute("title") == "8 January 2026, 00:00 UTC"
    assert "9:00" in first.text
    admin.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


def test_the_keyboard_reaches_everything_and_shows_where_it_is(admin):
    from selenium.webdriver.common.keys import Keys

    admin.open("/models/deployment_risk/act")
    reached = []
    for _ in range(40):
        admin.driver.switch_to.active_element.send_keys(Keys.TAB)
        outline = "const it = document.activeElement; return [it.tagName, it.textContent.trim(), getComputedStyle(it).outlineStyle]"
        reached.append(admin.driver.execute_script(outline))
    assert {"Skip to the content", "Overview", "Train now", "Monitor now"} <= {text for _, text, _ in reached}
    assert all(style != "none" for tag, _, style in reached if tag in ("A", "BUTTON", "TEXTAREA", "SELECT", "INPUT"))


def test_decisions_are_downloaded_from_the_frame(admin, played):
    admin.driver.get(f"{admin.url}/plugin/steward/steward/decisions")
    admin.enter_frame("Decisions")
    Select(admin.find("#model")).select_by_visible_text("deployment_risk")
    admin.find(".filter button").click()
    admin.wait(lambda: "model=deployment_risk" in admin.find(".download").get_attribute("href"))
    for link in admin.driver.find_elements(By.CSS_SELECTOR, ".download"):
        link.click()
    files = admin.wait(
        lambda: len(found := [*admin.downloads.glob("*.json"), *admin.downloads.glob("*.csv")]) == 2 and found
    )
    rows = json.loads(files[0].read_text())
    entries = {
        entry.sequence for entry in played.workspace.ledger.entries("deployment_risk") if entry.kind != "observation"
    }
    assert {row["sequence"] for row in rows} == entries
    assert files[1].read_text().startswith("sequence,at,model,kind,subject,says")


def test_who_may_only_look_sees_and_cannot_act(people, played):
    viewer = people("viewer")
    viewer.driver.get(f"{viewer.url}/plugin/steward")
    assert "deployment risk" in viewer.enter_frame("Models").lower()
    viewer.driver.switch_to.default_content()
    assert "ersion 2" in viewer.open("/models/deployment_risk")
    assert not viewer.driver.find_elements(By.CSS_SELECTOR, "a[href$='/act'], form[method=post]")
    assert "You may not do that" in viewer.open("/models/deployment_risk/act")
    before = len(played.api.runs("deployment_risk.train"))
    for path, fields in {
        "train": b"token=x&once=20260101T000000-00000000&reason=x",
        "monitor": b"token=x&once=20260101T000000-00000000",
        "rollback": b"token=x&version=1&champion=2&why=x",
        "answer": b"token=x&run=x&decision=approve&why=x",
    }.items():
        assert viewer.status_of(f"/models/deployment_risk/{path}", data=fields, method="POST") == 403, path
    assert len(played.api.runs("deployment_risk.train")) == before
    assert status(played, "deployment_risk")["champion"]["version"] == 2


def test_a_training_is_asked_for_waits_and_is_approved(admin, played):
    admin.driver.get(f"{admin.url}/plugin/steward/steward/models/asked_risk/act")
    admin.enter_frame("Act on")
    said = admin.fill("/train", "Train now", reason="we would like a <b>first</b> version")
    assert "The training was started" in said
    [run] = played.api.runs("asked_risk.train")
    assert run["triggering_user_name"] == "admin"
    await_question(admin)
    assert re.search(r"(promote|hold|reject): ", admin.find(".asked").text)
    said = admin.fill("/answer", "Approve", why="the card looks right")
    assert "Approved" in said
    admin.find("[role=status] a").click()
    admin.driver.switch_to.default_content()
    admin.wait(lambda: f"/dags/asked_risk.train/runs/{run['dag_run_id']}" in admin.driver.current_url)
    assert played.await_state("asked_risk.train", run["dag_run_id"]) == "success"
    ledger = played.workspace.ledger
    [trigger] = ledger.entries("asked_risk", "trigger")
    assert (trigger.body["by"], trigger.body["reason"]) == ("admin", "we would like a <b>first</b> version")
    [approval] = ledger.entries("asked_risk", "approval")
    assert (approval.body["decision"], approval.body["by"]) == ("approved", "admin")
    assert approval.body["why"] == "the card looks right"
    assert status(played, "asked_risk")["champion"]["version"] == 1
    assert "<b>first</b>" in admin.open("/decisions?model=asked_risk&kind=trigger")


def await_question(admin: Viewer) -> None:
    """Until the page shows the question: looked at again every second, as a person would."""
    end = time.monotonic() + 2 * WITHIN
    while not admin.driver.find_elements(By.CSS_SELECTOR, ".question"):
        assert time.monotonic() < end, admin.text()
        time.sleep(1)
        admin.driver.execute_script("location.reload()")
        admin.find("h1")


def test_a_rollback_says_what_changes_and_is_on_record(admin, played):
    admin.open("/models/deployment_risk/act")
    admin.find("a[href*='/rollback?version=1']").click()
    assert "Roll back to version 1?" in admin.find("h1").text
    now, then = (cell.text for cell in admin.driver.find_elements(By.CSS_SELECTOR, ".change tbody tr:first-child td"))
    assert now.startswith("version 2")
    assert then.startswith("version 1")
    said = admin.fill("/rollback", "Roll back", why="complaints since Monday")
    assert "Version 1 is the champion" in said
    entry = played.workspace.ledger.entries("deployment_risk", "promotion")[-1]
    assert (entry.body["act"], entry.body["by"], entry.body["reasons"]) == (
        "rollback",
        "admin",
        ["complaints since Monday"],
    )
    assert status(played, "deployment_risk")["champion"]["version"] == 1
    admin.find("[role=status] a").click()
    assert "complaints since Monday" in admin.find(f"#entry-{entry.sequence}").text


def test_a_look_is_started_by_hand(admin, played):
    admin.open("/models/deployment_risk/act")
    assert "The look was started" in admin.fill("/monitor", "Monitor now")
    run = played.api.runs("deployment_risk.monitor")[-1]
    assert run["triggering_user_name"] == "admin"
    assert played.await_state("deployment_risk.monitor", run["dag_run_id"]) == "success"
