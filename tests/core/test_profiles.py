"""Profiles add up, keep what they were told, and sort values into the reference's bins."""

import json

import ibis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward.core.profiles import (
    BINS,
    CELLS,
    Bins,
    ColumnProfile,
    Counted,
    Profile,
    Series,
    Tally,
    cells,
    extremes,
    feature_value,
    histograms,
    profiled,
)
from steward.expressions import Expression


def test_quantile_bins_hold_equal_shares():
    values = np.random.default_rng(0).uniform(0, 100, 50_000)
    cells = np.bincount(np.minimum((values / values.max() * (CELLS - 1)).astype(int), CELLS - 1), minlength=CELLS)
    bins = Bins.of_numbers(0.0, float(values.max()), cells)
    assert bins.count == BINS
    assert bins.pooled(cells).sum() == 50_000
    assert bins.pooled(cells) == pytest.approx(np.full(BINS, 1_000), rel=0.15)


@given(st.dictionaries(st.integers(0, CELLS - 1), st.integers(1, 1_000), min_size=1, max_size=20))
def test_no_bin_of_the_reference_is_empty(found):
    cells = np.zeros(CELLS, dtype=np.int64)
    for cell, rows in found.items():
        cells[cell] = rows
    bins = Bins.of_numbers(0.0, 1.0, cells)
    assert bins.pooled(cells).sum() == sum(found.values())
    assert bins.pooled(cells).min() > 0


def test_rare_levels_share_a_bin_and_new_ones_are_unseen():
    bins = Bins.of_levels({f"team {i}": 1_000 - i for i in range(300)})
    counts, unseen = bins.sorted_in({"team 0": 5, "team 299": 2, "team 260": 1, "brand new": 4})
    assert (counts[0], counts[-1], counts.sum(), unseen) == (5, 3, 8, 4)
    assert Bins.read(json.loads(json.dumps(bins.as_json()))) == bins


def test_profiles_add_up_and_survive_json():
    one = Profile(3, {"hour": ColumnProfile((1, 1), 1, 0, 2.0, 5.0, 7.0, 29.0)})
    two = Profile(2, {"hour": ColumnProfile((0, 2), 0, 0, 9.0, 9.0, 18.0, 162.0)})
    both = one + two
    assert both == Profile(5, {"hour": ColumnProfile((1, 3), 1, 0, 2.0, 9.0, 25.0, 191.0)})
    assert Profile.read(json.loads(json.dumps(both.as_json()))) == both
    assert (one + Profile(1, {"hour": ColumnProfile((0, 0), 1)})).columns["hour"].minimum == 2.0


def test_a_series_adds_its_newest_windows_up():
    series = Series.of("number", [ColumnProfile((1, 0), 1), ColumnProfile((0, 2)), ColumnProfile((3, 3), 4)])
    newest = series.newest([1, 2, 3])
    assert newest.counts.tolist() == [[3, 3], [3, 5], [4, 5]]
    assert newest.missing.tolist() == [4, 4, 5]
    assert len(series + series) == 6


ROWS = {"a": [1.0, -2.5, None, 0.0, 7.0], "b": [2.0, 0.0, 1.0, None, -3.0], "team": ["web", "ops", None, "web", "db"]}


@pytest.mark.parametrize(
    "text",
    [
        "a + b", "a - b * 2", "-a", "a / b", "a // b", "a % b", "a > b", "a >= 0 and b < 2", "a > 0 or team == 'web'",
        "not (a > 0)", "not a", "a != b", "a == 0", "0 < a < 5", "team in ['web', 'db']", "team not in ['web']", "a in [1, 7]",
        "team != 'web'", "a if b > 0 else 1", "(a > 0) + (b > 0)", "a and b", "a in []", "5",
    ],
)  # fmt: skip
def test_a_feature_is_the_same_for_an_engine(text):
    expression = Expression.parse(text)
    columns = {name: np.array(values, dtype=object if name == "team" else float) for name, values in ROWS.items()}
    expected = np.broadcast_to(np.asarray(expression.evaluate(columns), dtype=float), 5)
    table = ibis.memtable(pa.table(ROWS))
    found = ibis.duckdb.connect().to_pyarrow(table.select(x=feature_value(expression, table)))["x"].to_pylist()
    actual = np.array([np.nan if value is None else value for value in found], dtype=float)
    np.testing.assert_allclose(actual, np.where(np.isinf(expected), np.nan, expected))


@pytest.mark.parametrize("largest", [2_000.0, 1e9, np.inf])
@pytest.mark.parametrize("way", ["histograms", "groups"])
def test_an_engine_finds_the_cells(largest, way):
    values = [0.0, 1.0, 500.0, 1_023.0, -7.0, largest, None]
    grids = {"x": Bins("number", low=0.0, step=1.0)}
    table = ibis.memtable(pa.table({"x": pa.array(values, pa.float64())}))
    engine = ibis.duckdb.connect()
    found = engine.to_pyarrow(extremes(table, {"x": "number"})).to_pylist()
    assert found == [{"rows": 7, "minimum:x": -7.0, "maximum:x": largest}]
    if way == "histograms":
        counted = Counted.of_histograms(found, engine.to_pyarrow(histograms(table, grids, [], found)))
    else:
        counted = Counted.of_groups(found, [], [(grids, engine.to_pyarrow(cells(table, grids, found)))])
    tally = counted.tallies["x"]
    furthest = min(largest, 8 * 1_024)
    assert dict(zip(tally.value.tolist(), tally.n.tolist(), strict=True)) == dict.fromkeys(
        [0, 1, 500, 1_023, -7, furthest], 1
    )
    assert profiled(counted, grids).windows[0].columns["x"].missing == 1


def test_a_tally_gives_its_windows_one_by_one():
    tally = Tally.of(np.array([3, 0, 3, 0]), pa.array(["ops", "web", "web", None]), pa.array([4, 2, 1, 9]))
    assert [tally.of_window(number).per_value for number in (0, 1, 3)] == [{"web": 2}, {}, {"ops": 4, "web": 1}]
    assert tally.per_value == {"web": 3, "ops": 4}
