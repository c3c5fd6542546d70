"""The simulated company: its rules, its switches, and that it never changes."""

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from steward.examples import deployments
from steward.examples.deployments import MONTH_TWO, PAST, UNTIL, World, best_accuracy, score, simulate, write

INPUTS = ["files_changed", "environment", "team", "hour", "previous_failures"]


@pytest.fixture(scope="module")
def past() -> pd.DataFrame:
    return simulate()


def test_the_past_looks_like_a_company(past):
    shares = past["risk_level"].value_counts(normalize=True)
    assert shares["Low"] == pytest.approx(0.55, abs=0.03)
    assert shares["Medium"] == pytest.approx(0.32, abs=0.03)
    assert shares["High"] == pytest.approx(0.13, abs=0.03)
    assert past["deployment_id"].is_unique
    assert past["requested_at"].is_monotonic_increasing
    assert past["requested_at"].between(UNTIL - timedelta(days=125), UNTIL, inclusive="left").all()
    assert (past["requested_at"].dt.hour == past["hour"]).all()
    assert past["previous_failures"].isna().mean() == pytest.approx(0.04, abs=0.01)
    assert past.drop(columns="previous_failures").notna().all().all()


def test_the_best_accuracy_is_92_percent(past):
    assert best_accuracy(past) == pytest.approx(0.92, abs=0.01)
    guess = deployments.probabilities(past).argmax(axis=1)
    reached = (past["risk_level"] == [deployments.CLASSES[i] for i in guess]).mean()
    assert reached == pytest.approx(0.92, abs=0.01)


@pytest.mark.parametrize(
    ("row", "points"),
    [
        ({}, 1.5),
        ({"files_changed": 100}, 3.0),
        ({"environment": "staging"}, 2.0),
        ({"environment": "prod"}, 3.5),
        ({"environment": "prod", "files_changed": 100}, 6.0),
        ({"environment": "prod", "hour": 23}, 5.5),
        ({"hour": 23}, 1.5),
        ({"previous_failures": 2}, 3.5),
        ({"previous_failures": 9}, 4.5),
        ({"previous_failures": None}, 2.0),
        ({"team": "mobile"}, 2.5),
        ({"team": "partners"}, 3.25),
    ],
)
def test_rules(row, points):
    calm = {"files_changed": 10, "environment": "dev", "team": "web", "hour": 12, "previous_failures": 0}
    assert score(pd.DataFrame([calm | row])).tolist() == [points]


def test_every_run_and_every_length_agree(past):
    pd.testing.assert_frame_equal(simulate(), past)
    pd.testing.assert_frame_equal(simulate(123), past.head(123))
    pd.testing.assert_frame_equal(simulate(100, first=950), past.iloc[950:1050].reset_index(drop=True))
    assert not simulate(100, seed=1)[INPUTS].equals(past.head(100)[INPUTS])


def test_time_moves_with_until_and_nothing_else_does(past):
    later = simulate(until=datetime(2026, 6, 1, tzinfo=UTC))
    assert (later["requested_at"] - past["requested_at"]).unique().tolist() == [pd.Timedelta(days=151)]
    pd.testing.assert_frame_equal(later.drop(columns="requested_at"), past.drop(columns="requested_at"))


@pytest.mark.parametrize(
    ("world", "changed"),
    [
        (World(files_factor=2), {"files_changed", "risk_level"}),
        (World(around_the_clock=True), {"hour", "requested_at", "risk_level"}),
        (World(new_teams=0.3), {"team", "risk_level"}),
        (World(night_is_safe=True), {"risk_level"}),
        (World(neutral=True), {"hour", "requested_at", "team"}),
    ],
)
def test_a_switch_changes_what_it_says_and_only_that(past, world, changed):
    other = simulate(world=world)
    assert {name for name in past if not other[name].equals(past[name])} == changed


def test_what_the_switches_do(past):
    more = simulate(world=World(files_factor=2))["files_changed"] - 2 * past["files_changed"]
    assert more[past["files_changed"] > 1].isin([0, 1]).all()
    assert simulate(world=World(around_the_clock=True))["hour"].value_counts(normalize=True).max() < 0.06
    teams = simulate(world=World(new_teams=0.3))["team"].isin(deployments.NEW_TEAMS)
    assert teams.mean() == pytest.approx(0.3, abs=0.02)
    safe = simulate(world=World(night_is_safe=True))
    altered = past[safe["risk_level"] != past["risk_level"]]
    assert set(altered["environment"]) == {"prod"}
    assert ((altered["hour"] < 6) | (altered["hour"] >= 22)).all()


def test_month_two_continues_the_past(past):
    month = simulate(2_000, first=PAST, world=MONTH_TWO)
    assert month["deployment_id"].iloc[0] == "dep-010000"
    assert past["requested_at"].max() < UNTIL <= month["requested_at"].min()
    assert month["requested_at"].max() - UNTIL == pytest.approx(timedelta(days=25), abs=timedelta(hours=4))


def test_dirty_rows_are_damaged_and_the_others_are_not(past):
    dirty = simulate(world=World(dirty=0.05))
    negative = dirty["files_changed"].str.startswith("-")
    text = dirty["files_changed"] == "a dozen"
    spelt = dirty["environment"].isin(["Prod", "production"])
    missing = dirty["deployment_id"].isna()
    double = dirty["deployment_id"].notna() & (dirty["deployment_id"] != past["deployment_id"])
    damages = [negative, text, spelt, missing, double]
    assert [damage.mean() for damage in damages] == pytest.approx([0.01] * 5, abs=0.004)
    assert sum(damage.astype(int) for damage in damages).max() == 1
    clean = ~pd.concat(damages, axis=1).any(axis=1)
    as_written = past.assign(files_changed=past["files_changed"].astype(str))
    pd.testing.assert_frame_equal(dirty[clean], as_written[clean])


def test_numbers_stay_numbers_without_text_among_the_dirt():
    dirty = simulate(1_000, world=World(dirty=0.2, dirt=("negative_count",)))
    assert dirty["files_changed"].dtype == "int64"
    assert (dirty["files_changed"] < 0).mean() == pytest.approx(0.2, abs=0.05)


def test_files_by_month_hold_the_same_rows(tmp_path, past):
    paths = write(tmp_path, past)
    assert [path.name for path in paths][:2] == [
        "deployments-2025-08-from-000000.parquet",
        "deployments-2025-09-from-000240.parquet",
    ]
    again = pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)
    pd.testing.assert_frame_equal(again, past)


def test_writing_again_leaves_every_row_once(tmp_path, past):
    write(tmp_path, past)
    write(tmp_path, simulate(2_000, first=PAST, world=MONTH_TWO))
    write(tmp_path, simulate(until=datetime(2026, 1, 20, tzinfo=UTC)))
    keys = pd.concat([pd.read_parquet(path) for path in sorted(tmp_path.glob("*.parquet"))])["deployment_id"]
    assert len(keys) == 12_000
    assert keys.is_unique


def test_command(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--rows", "500", "--first", "10000", "--month-two", "--dirty", "0.1"]
    assert deployments.main(arguments) == 0
    assert "500 deployments in 1 files" in capsys.readouterr().out
    frame = pd.read_parquet(next(tmp_path.glob("*.parquet")))
    assert frame["team"].isin(deployments.NEW_TEAMS).any()
