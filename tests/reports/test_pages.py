"""The pages as a browser would see them: what they say, and that whatever a name says is text."""

import re
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import pairwise

import pytest

from steward.reports import distribution, model_page, version_page
from steward.reports.templating import UNORDERED

PAGES = {
    "model": lambda views, frame, text: model_page.render(views.model_page(54, text), frame),
    "version": lambda views, frame, text: version_page.render(views.version_page(3, text), frame),
    "compare": lambda views, frame, text: version_page.render_comparison(views.comparison(text), frame),
    "distribution": lambda views, frame, text: distribution.render(views.distribution(text), frame),
}
EVERY = pytest.mark.parametrize("page", PAGES)


@pytest.fixture(scope="module")
def shown(views, frame, read):
    """A page by its name, with a text in every place that takes one."""
    made = {}

    def show(name, text="plain"):
        if (name, text) not in made:
            made[name, text] = read(PAGES[name](views, frame, text))
        return made[name, text]

    return show


@EVERY
def test_hostile_text_is_text(page, shown, views):
    """`Reader` refuses what does not nest, so a tag that broke out would be seen even if it were harmless."""
    root, plain = shown(page, views.hostile), shown(page)
    assert [one.attributes.get("src") for one in root.all("script")] == ["/static/pages.js"]
    assert not root.all("img")
    handlers = [name for one in root.everything() for name in one.attributes if name.startswith("on")]
    assert not handlers
    assert "<script>alert(1)</script>" in root.text
    assert "{{ 7 * 7 }} {% raw %}" in root.text
    assert not re.search(r"\b49\b", root.one("h1").text)
    assert len(root.everything()) == len(plain.everything()) or page in ("model", "version")
    tags = {one.tag for one in root.everything()}
    assert tags == {one.tag for one in plain.everything()}


@EVERY
def test_no_text_turns_what_stands_after_it(page, shown, views):
    root = shown(page, views.hostile)
    assert not [character for character in root.text if ord(character) in UNORDERED]
    assert "\\u202eevil" in root.text


@EVERY
def test_nothing_needs_a_relaxed_policy(page, shown):
    root = shown(page)
    assert not root.all("style")
    assert not [one for one in root.everything() if "style" in one.attributes]
    loaded = [
        value for one in root.everything() for name, value in one.attributes.items() if name in ("src", "xlink:href")
    ]
    assert all(value.startswith(("#", "/static/")) for value in loaded)


@EVERY
def test_pictures_and_tables_can_be_told(page, shown):
    root = shown(page)
    pictures = [one for one in root.all("svg") if one.attributes.get("aria-hidden") != "true"]
    assert all(one.attributes.get("aria-label") for one in pictures)
    assert all(one.attributes.get("scope") for table in root.all("table") for one in table.all("th"))
    regions = root.all("div", class_="scroll")
    assert regions
    assert all(one.attributes["tabindex"] == "0" and one.attributes["aria-label"] for one in regions)
    names = [one.attributes["id"] for one in root.everything() if one.attributes.get("id")]
    assert len(names) == len(set(names))
    levels = [int(one.tag[1]) for one in root.everything() if re.fullmatch("h[1-6]", one.tag)]
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


@EVERY
def test_every_time_is_for_machines_too(page, shown):
    times = shown(page).all("time")
    assert times
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one.attributes["datetime"]) for one in times)
    assert all(one.attributes["title"].endswith("UTC") for one in times)


@EVERY
def test_the_same_view_is_the_same_page(page, views, frame):
    make = PAGES[page]
    assert make(views, frame, "plain") == make(views, frame, "plain")


def cells(table):
    return [[cell.text for cell in row.children] for body in table.all("tbody") for row in body.all("tr")]


def test_every_look_is_a_line_of_a_table(shown, views):
    """The text alternative of the picture: the same figures."""
    past = shown("model").by_id("past")
    looks = cells(past.all("table")[1])
    windows = views.past(54).windows
    assert len(looks) == 54
    newest = windows[-1]
    assert looks[0][:6] == [
        "3 March 2026, 00:00 UTC", "1",
        f"{newest.live.value:.4f}{newest.live.low:.4f} to {newest.live.high:.4f}",
        "480", "0.90000.8900 to 0.9100", "0.8500",
    ]  # fmt: skip
    assert looks[-1][2] == "—"
    assert len(cells(past.all("table")[0])) == len(views.past(54).events)


def test_the_picture_is_drawn_for_a_desk_and_for_a_hand(shown):
    figure = shown("model").one("figure", class_="timeline")
    wide, narrow = (figure.one("div", class_=name).one("svg").attributes["viewbox"] for name in ("desk", "hand"))
    assert [float(box.split()[2]) for box in (wide, narrow)] == [720, 288]


def test_squares_lead_to_both_distributions(shown, views):
    table = shown("model").one("table", class_="heat")
    squares = table.all("a")
    assert len(squares) == 7 * 54
    last = squares[53]
    assert "column=team&end=2026-03-03" in last.attributes["href"]
    assert last.attributes["aria-label"].endswith("alarm")
    assert last.attributes["class"] == "heat-5"
    assert last.text == "▲"


def test_the_governor_says_what_it_has_seen_and_what_it_waits_for(shown):
    governor = shown("model").by_id("governor")
    assert "Waits (sealed rows): plain, until 17 January 2026" in governor.text
    assert "Thought to cost 0.0700 of accuracy" in governor.text
    told = {one.one("strong").text: one.one("span").text for one in governor.all("div", class_="wait")}
    assert told == {
        "Sealed rows": "310 of 420 sealed rows that a verdict needs",
        "New rows": "640 of 1,000 labelled rows since the last training",
        "Cooldown": "over: 1 day after a training that a trigger asked for",
        "Budget": "1 of 3 trainings that triggers may ask for in seven days",
    }
    widths = [float(one.attributes["width"]) for one in governor.all("rect", class_="part")]
    assert widths == [73.8, 64.0, 100.0, 33.3]


def test_a_cooldown_that_lasts_says_until_when(views, frame, read):
    page = views.model_page(54)
    lasting = views.governor(last_training=page.at, cooldown_until=page.at)
    root = read(model_page.render(views.model_page(54, governor=lasting), frame))
    assert "until 3 March 2026, 01:00 UTC" in root.by_id("governor").text


def test_confusion_now_and_at_verification(shown):
    first, second = (cells(table) for table in shown("model").by_id("answers").all("table", class_="confusion"))
    assert first == second
    assert first[1] == ["Medium", "4011 %", "30083 %", "215.8 %"]


def test_a_slice_that_is_worse_says_so_in_words(shown):
    worse, same = cells(shown("model").by_id("slices").one("table"))
    assert worse[2:] == ["120", "0.80000.7500 to 0.8500", "0.90000.8800 to 0.9200", "▼ surely worse"]
    assert same[-1] == "too few rows to tell"


def test_versions_can_be_compared(shown):
    form = shown("model").by_id("versions").one("form")
    assert form.attributes["method"] == "get"
    chosen = {
        one.attributes["name"]: [option.text for option in one.all("option") if "selected" in option.attributes]
        for one in form.all("select")
    }
    assert chosen == {"left": ["version 2"], "right": []}


def test_an_empty_model_says_what_to_do(views, frame, read):
    root = read(model_page.render(views.empty_model_page(), frame))
    assert not root.all("figure")
    assert "steward train deployment_risk" in root.by_id("past").text
    assert "never trained" in root.one("span", class_="state").text
    sections = ("past", "drift", "answers", "slices", "versions")
    assert all(root.by_id(name).all("p", class_="empty") for name in sections)


def test_a_champion_that_nobody_has_looked_at_says_what_to_do(views, frame, read):
    page = views.empty_model_page(row=views.row(champion=1, looked_at=None))
    assert "steward monitor deployment_risk" in read(model_page.render(page, frame)).by_id("past").text


def test_a_time_without_a_look_leads_back_to_the_others(views, frame, read):
    page = views.empty_model_page(row=views.row(champion=1))
    said = read(model_page.render(page, frame)).by_id("past").one("p", class_="empty")
    assert "the last one was 8 January 2026" in said.text
    assert said.one("a").attributes["href"] == "/steward/model?model=deployment_risk"


def test_a_regression_has_neither_confusion_nor_per_cent(views, frame, read):
    past = views.past(54)
    errors = replace(
        past, metric="rmse", windows=tuple(replace(w, metric="rmse", estimate_metric="rmse") for w in past.windows)
    )
    page = views.model_page(
        54, timeline=errors, row=views.row(metric="rmse"), now=views.empty_model_page().now,
        verified=views.empty_model_page().verified,
    )  # fmt: skip
    root = read(model_page.render(page, frame))
    assert not root.all("table", class_="confusion")
    assert root.by_id("answers").one("p", class_="empty").text == "No outcome is known."
    assert cells(root.by_id("past").all("table")[1])[0][5] == "0.8500"


def test_a_distribution_shows_shares_that_can_be_added_up(shown):
    root = shown("distribution")
    rows = cells(root.by_id("distribution").all("table")[0])
    assert rows[0] == ["checkout", "50 %", "30 %", "-20.0 points"]
    assert rows[-2:] == [
        ["missing, of all rows", "0 %", "1.0 %", "+1.0 points"],
        ["unknown to training, of all rows", "0 %", "25 %", "+25.0 points"],
    ]
    before, now = ([_length(root.by_id(f"shares-bar-{side}-{place}")) for place in range(3)] for side in (0, 1))
    assert [one / before[0] for one in before] == pytest.approx([1, 1 / 2, 1 / 3], abs=0.01)
    assert [one / before[0] for one in now] == pytest.approx([0.6] * 3, abs=0.01)


def _length(bar):
    """Of a bar as it is drawn: from its smallest to its largest x."""
    pairs = re.findall(r"[ML] ([\d.]+) [\d.]+", bar.one("path").attributes["d"])
    return float(max(pairs, key=float)) - float(min(pairs, key=float))


def test_a_column_without_values_has_no_picture(views, frame, read):
    root = read(distribution.render(views.distribution(shares=()), frame))
    assert not root.all("figure")
    assert root.all("p", class_="empty")


def test_a_version_tells_its_lineage_and_how_to_rebuild_it(shown):
    root = shown("version")
    steps = root.by_id("lineage").one("ol").all("li")
    assert [one.one("strong").text for one in steps] == ["snapshot", "roles", "verdict", "promotion"]
    assert steps[0].one("code", class_="digest").text == "f" * 64
    assert root.by_id("reproduce").one("pre").text == "steward reproduce deployment_risk 3"
    assert "2,400 predictions in 30 looks" in root.by_id("production").text


def test_a_version_that_was_not_verified_has_a_page(views, frame, read):
    page = views.version_page(
        1, test=None, difference=None, constant=None, champion_then=None, champion_value=None, confusion=(),
        calibration=(), candidate=None, table=(), parity=None, engine=None, fingerprint=None, accepted=None,
        rejected=None, roles={}, trained_rows=None, latency_us=None, bytes=None, commit=None, opening=None,
    )  # fmt: skip
    root = read(version_page.render(page, frame))
    assert root.by_id("test").one("p", class_="empty").text == "The record of its test is not at hand."


def test_a_comparison_says_which_side_is_better(shown):
    table = shown("compare").one("table", class_="compared")
    rows = cells(table)
    assert rows[-1] == ["accuracy", "0.9080", "0.9120 ✓ better"]
    assert [row.text for row in table.all("tr", class_="topic")] == ["data", "training", "verification"]
    assert [row.one("th").text for row in table.all("tr", class_="same")] == ["winner"]


def test_pages_that_are_made_at_once_are_the_same_pages(views, frame):
    """The api-server makes them in threads."""
    page, made = views.model_page(10), []
    threads = [threading.Thread(target=lambda: made.append(model_page.render(page, frame))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    assert len(set(made)) == 1


def test_importing_the_pages_draws_nothing():
    """Airflow's api-server imports them at its start."""
    code = "import sys; import steward.reports.model_page, steward.reports.version_page, steward.reports.distribution; "
    code += "print([name for name in ('matplotlib', 'mlflow', 'sklearn', 'scipy', 'pandas', 'great_expectations') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_live_latency_is_told_beside_the_verified_one(shown):
    traffic = shown("model").by_id("traffic")
    assert "at most 310 µs" in traffic.text
    assert "83 µs for one prediction, by the model alone; 20 ms are allowed" in traffic.text
