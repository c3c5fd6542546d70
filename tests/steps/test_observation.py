"""A look sees every row once, whatever comes in and however often it is repeated."""

import json
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from steward import steps
from steward.core.profiles import Baseline, Profile
from steward.errors import ClockWentBack, NoChampion, StoreUnavailable
from steward.records import Observation, ReferenceProfile, Test
from steward.steps import baseline, observation, opening

DAY = timedelta(days=1)
TRAINED = datetime(2026, 1, 1, tzinfo=UTC)
FIRST = TRAINED + DAY


@pytest.fixture
def look(company):
    """Looks at the company; answers the record and its profile."""

    def ask(at=FIRST):
        workspace = company.workspace
        seen = workspace.load(Observation, steps.observe(workspace, company.model, at=at))
        return seen, Profile.read(json.loads(workspace.store.fetch(seen.profile).read_bytes()))

    return ask


def looks(company):
    return company.workspace.ledger.entries("risk", "observation")


def test_served_predictions_are_counted_by_column(company, look):
    rows = company.rows(300, FIRST)
    rows.loc[:9, "team"] = None
    rows.loc[10:14, "team"] = "brand new"
    company.serve(rows)
    seen, profile = look()
    assert (seen.origin, seen.rows, seen.version, seen.end) == ("predictions", 300, 1, FIRST)
    assert seen.start == FIRST - 7 * DAY
    assert (profile.columns["team"].missing, profile.columns["team"].unseen) == (10, 5)
    assert seen.unseen == {"team": {"brand new": 5}}
    files = profile.columns["files"]
    assert (files.known, files.total) == (300, pytest.approx(rows["files"].sum(), rel=1e-3))
    assert (files.minimum, files.maximum) == (rows["files"].min(), rows["files"].max())
    assert files.squares == pytest.approx((rows["files"] ** 2).sum(), rel=1e-3)
    many = profile.columns["many_in_prod"]
    assert many.total == ((rows["files"] > 700) & (rows["stage"] == "prod")).sum()
    assert sum(profile.columns["prediction"].counts) == sum(profile.columns["confidence"].counts) == 300


def test_the_reference_is_the_training_rows_by_day(company, look):
    seen, _ = look()
    known = company.workspace.load(ReferenceProfile, seen.reference)
    reference = Baseline.read(json.loads(company.workspace.store.fetch(known.file).read_bytes()))
    assert (known.windows, known.days) == (30, 1)
    whole, chosen_on = reference.whole, reference.whole.columns["confidence"].rows
    assert whole.rows == known.rows
    assert {name: one.rows for name, one in whole.columns.items()} == {
        **dict.fromkeys(reference.bins, known.rows),
        **dict.fromkeys(("prediction", "confidence"), chosen_on),
    }
    verdict = company.workspace.ledger.entries("risk", "verdict")[0]
    opened = opening.read_opened(company.workspace, company.model, Test.model_validate(verdict.body["test"]))
    assert chosen_on == len(opened.truth), "the answers of the version itself, to rows that it had not learned from"
    levels = reference.bins["prediction"].levels
    said = np.array(company.model.classes)[opened.challenger.argmax(axis=1)]
    assert whole.columns["prediction"].counts[: len(levels)] == tuple(int((said == one).sum()) for one in levels)
    begin = (TRAINED - 30 * DAY).timestamp()
    assert reference.spans == tuple((begin + day * 86_400, begin + (day + 1) * 86_400) for day in range(30))
    assert sum(window.columns["confidence"].rows > 0 for window in reference.windows) > 25
    assert known.accuracy.low <= 1


@pytest.mark.parametrize(
    ("rows", "days", "looks_per_year", "expected"),
    [
        (3_000, 30, 365.25, (30, 1)),
        (30_000, 30, 8_766, (672, 1 / 24)),
        (3_000, 30, 8_766, (120, 1 / 4)),
        (300, 30, 8_766, (15, 2)),
        (30_000, 800, 365.25, (267, 3)),
    ],
    ids=["days", "hours: four weeks", "hours with few rows are joined", "days with few rows too", "too many days"],
)
def test_the_past_is_cut_as_looks_will_be(rows, days, looks_per_year, expected):
    times = np.linspace(0, days * 86_400_000_000 - 1, rows).astype("int64").astype("datetime64[us]")
    cut = baseline._cut(times, looks_per_year)
    numbers = np.unique(cut.window[cut.kept])
    assert (len(numbers), cut.days) == pytest.approx(expected)
    at = times[cut.kept].astype("int64") / 1e6
    first, last = cut.span(int(cut.window[cut.kept][0])), cut.span(int(cut.window[-1]))
    assert first[0] <= at[0] < first[1] <= last[0] <= at[-1] < last[1]
    assert first[0] % (expected[1] * 86_400) == pytest.approx(0)


def test_predictions_of_another_version_say_nothing_of_this_one(company, look):
    company.serve(company.rows(100, FIRST), version=None)
    company.serve(company.rows(40, FIRST, seed=1))
    seen, profile = look()
    assert seen.rows == 140
    assert profile.columns["files"].known == 140
    assert profile.columns["confidence"].known == 40


def test_without_predictions_the_sources_rows_are_looked_at_and_answered(company, look):
    company.add(company.rows(200, FIRST))
    assert look(FIRST - 7 * DAY)[0].origin == "source"
    seen, profile = look()
    asked = pd.read_parquet(company.table)["asked"]
    later = asked[(asked >= FIRST - 7 * DAY) & (asked < FIRST)]
    assert (seen.origin, seen.rows) == ("source", len(later))
    assert profile.columns["confidence"].known == len(later)
    assert sum(profile.columns["prediction"].counts) == len(later)


def test_an_empty_window_says_so(company, look):
    company.write(company.rows(50, FIRST - 300 * DAY))
    seen, profile = look()
    assert (seen.origin, seen.rows, profile.rows) == ("nothing", 0, 0)
    (said,) = seen.says
    assert said.startswith("nothing to look at, 2025-12-26 00:00 to 2026-01-02 00:00: no served predictions,")
    assert said.endswith("and the source has no rows of that time")


@pytest.mark.parametrize("count", [1, 2])
def test_few_rows(company, look, count):
    company.serve(company.rows(count, FIRST))
    assert look()[0].rows == count


def test_a_column_without_any_value(company, look):
    company.serve(company.rows(50, FIRST, team=None, size=np.nan, night=None))
    profile = look()[1]
    assert [profile.columns[name].missing for name in ("team", "size", "night")] == [50, 50, 50]


def test_infinite_numbers_do_not_hurt(company, look):
    company.add(company.rows(50, FIRST, files=np.inf, size=-np.inf))
    profile = look()[1]
    assert (profile.columns["files"].maximum, profile.columns["size"].minimum) == (1e308, -1e308)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "no file matches the source"),
        (lambda path: path.write_bytes(b"nonsense"), "cannot be read"),
    ],
)
def test_a_source_that_cannot_be_read_is_a_fact(company, look, damage, said):
    company.serve(company.rows(20, FIRST))
    damage(company.table)
    seen, _ = look()
    assert said in seen.source["problem"]
    assert seen.rows == 20


def test_a_column_is_gone_and_another_changed_its_type(company, look):
    company.add(company.rows(100, FIRST))
    rows = pd.read_parquet(company.table)
    rows.drop(columns="team").assign(files=rows["files"].map("{:.0f} files".format)).to_parquet(company.table)
    seen, profile = look()
    assert profile.columns["team"].missing == profile.columns["files"].missing == seen.rows > 0
    assert seen.source["columns"]["files"] == "string"
    assert seen.source["broken"]["type:files"] == seen.rows


def test_windows_follow_each_other(company, look):
    for day in range(3):
        company.serve(company.rows(10 + day, FIRST + day * DAY))
    seen = [look(FIRST + day * DAY)[0] for day in range(3)]
    assert [one.rows for one in seen] == [10, 11, 12]
    assert [one.start for one in seen[1:]] == [one.end for one in seen[:-1]]
    assert [entry.body["rows"] for entry in looks(company)] == [10, 11, 12]


def test_a_look_that_is_repeated_is_the_same(company, look):
    company.serve(company.rows(10, FIRST))
    first = look()[0]
    company.serve(company.rows(10, FIRST, seed=1))
    assert look()[0] == first
    assert len(looks(company)) == 1


def test_a_moment_that_was_covered_answers_the_look_that_covers_it(company, look):
    company.serve(company.rows(10, FIRST))
    first = look()[0]
    second = look(FIRST + DAY)[0]
    assert look(FIRST - DAY)[0] == first
    assert look(FIRST + DAY / 2)[0] == second
    assert len(looks(company)) == 2


def test_a_clock_that_went_back_is_named(company, look):
    look()
    with pytest.raises(ClockWentBack, match=r"before the first look.*2025-12-01.*allowed: after 2025-12-26"):
        look(datetime(2025, 12, 1, tzinfo=UTC))


def test_a_look_that_was_killed_is_made_again(company, look, monkeypatch):
    company.serve(company.rows(10, FIRST))

    def killed(*_):
        raise StoreUnavailable("killed")

    for place in ("_window", "_on_record"):
        with monkeypatch.context() as patch:
            patch.setattr(observation, place, killed)
            with pytest.raises(StoreUnavailable, match="killed"):
                look()
    assert look()[0].rows == 10
    assert len(looks(company)) == 1


def test_two_at_once_make_one_look(company):
    company.serve(company.rows(10, FIRST))
    found, barrier = [], threading.Barrier(2)

    def ask(at):
        workspace = company.workspace
        barrier.wait()
        found.append(steps.observe(workspace, company.model, at=at))

    threads = [threading.Thread(target=ask, args=(FIRST + timedelta(milliseconds=n),)) for n in (0, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ends = [entry.body["end"] for entry in looks(company)]
    starts = [entry.body["start"] for entry in looks(company)]
    assert starts[1:] == ends[:-1]
    assert len({one.digest for one in found}) == len(ends)
    assert company.workspace.ledger.verify().ok


def test_nobody_to_look_at(company, tmp_path):
    workspace = company.make(tmp_path / "empty")
    with pytest.raises(NoChampion, match="has no champion yet"):
        steps.observe(workspace, company.model, at=FIRST)
