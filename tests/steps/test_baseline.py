"""Rows are counted alike by histograms and by groups, and as NumPy counts them; windows are kept apart."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from steward.core import profiles
from steward.core.profiles import WINDOW, Baseline
from steward.io.tables import Session
from steward.steps import baseline, observation

KINDS = {"amount": "number", "hour": "number", "nothing": "number", "team": "category", "void": "category"}


@pytest.fixture
def session(tmp_path):
    session = Session(1, tmp_path)
    yield session
    session.close()


@pytest.fixture(params=[profiles.MOST_IN_MEMORY, -1], ids=["histograms", "groups"], autouse=True)
def way(request, monkeypatch):
    monkeypatch.setattr(profiles, "MOST_IN_MEMORY", request.param)


def rows(n, seed, teams=400):
    """Skewed and whole numbers, a column without values, and a category whose rarest values share a bin."""
    random = np.random.default_rng(seed)

    def missing(values, kind):
        return pa.array(values, kind, mask=random.random(n) < 0.05)

    return pa.table(
        {
            "amount": missing(np.exp(3 * random.normal(size=n)), pa.float64()),
            "hour": missing(random.integers(0, 24, n).astype(float), pa.float64()),
            "nothing": pa.nulls(n, pa.float64()),
            "team": missing([f"team {int(x)}" for x in teams * random.random(n) ** 2], pa.string()),
            "void": pa.nulls(n, pa.string()),
        }
    )


def counted_by_numpy(column, bins):
    cells = np.rint((column.drop_null().to_numpy() - bins.low) * (1 / bins.step))
    return np.bincount(np.searchsorted(bins.edges, cells, side="right"), minlength=bins.count)


def test_windows_of_the_reference_are_what_numpy_counts(session):
    window = np.random.default_rng(2).choice([1, 2, 5], 3_000).astype(np.int32)
    table = rows(3_000, seed=1)
    bins, windows = baseline.profiled(session, session.load(table.append_column(WINDOW, pa.array(window))), KINDS)
    assert list(windows) == [1, 2, 5]
    for number, found in windows.items():
        mine = table.filter(pa.array(window == number))
        assert found.rows == len(mine)
        for name in ("amount", "hour"):
            column = mine[name].combine_chunks()
            assert found.columns[name].counts == tuple(counted_by_numpy(column, bins[name]))
            assert found.columns[name].missing == column.null_count
            assert found.columns[name].maximum == column.drop_null().to_numpy().max()
        teams = Counter(mine["team"].drop_null().to_pylist())
        known = [teams[name] for name in bins["team"].levels] + [sum(teams[name] for name in bins["team"].rare)]
        assert found.columns["team"].counts == tuple(known)
        assert found.columns["nothing"].missing == found.columns["void"].missing == len(mine)


def test_a_window_with_values_that_training_did_not_know(session):
    bins, windows = baseline.profiled(session, session.load(rows(3_000, seed=1, teams=300)), KINDS)
    known = Baseline(bins, tuple(windows.values()))
    later = rows(500, seed=3, teams=600)
    found = observation.profile_of(session, session.load(later), known, list(bins))
    teams = Counter(later["team"].drop_null().to_pylist())
    unseen = {name: n for name, n in teams.items() if not bins["team"].knows(name)}
    column = found.windows[0].columns["team"]
    assert (column.unseen, column.missing) == (sum(unseen.values()), later["team"].null_count)
    assert column.rows == 500
    assert unseen.items() >= found.unseen["team"].items()
    assert len(found.unseen["team"]) == profiles.MOST_UNSEEN
    assert max(found.unseen["team"].values()) == max(unseen.values())


def test_no_row_at_all(session):
    bins, windows = baseline.profiled(session, session.load(rows(100, seed=1)), KINDS)
    known = Baseline(bins, tuple(windows.values()))
    found = observation.profile_of(session, session.load(rows(0, seed=1)), known, list(bins))
    assert found.windows[0] == profiles.Profile.empty(bins)


def test_no_column_at_all(session):
    found = observation.profile_of(session, session.load(rows(7, seed=1)), Baseline({}, ()), [])
    assert found.windows == {0: profiles.Profile(7, {})}
