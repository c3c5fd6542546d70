import pytest

from steward.records import Estimate
from steward.reports.sparkline import columns, sparkline


def at(value):
    return Estimate(value=value, low=value - 0.01, high=value + 0.01)


def heights(points):
    return [float(pair.split(",")[1]) for pair in points.split()]


def test_a_line_falls_where_its_values_do(read):
    page = read(sparkline([at(0.9), at(0.85), at(0.8)], "accuracy of the last looks", floor=0.85))
    line = heights(page.one("polyline").attributes["points"])
    assert line == sorted(line)
    assert float(page.one("line").attributes["y1"]) == pytest.approx(line[1])
    assert len(page.one("polygon").attributes["points"].split()) == 6
    assert page.one("svg").attributes["aria-label"] == "accuracy of the last looks"


def test_a_gap_is_left_out_and_keeps_its_place(read):
    page = read(sparkline([at(0.9), None, at(0.8)], "x"))
    places = [float(pair.split(",")[0]) for pair in page.one("polyline").attributes["points"].split()]
    assert places == [3.0, 117.0]


@pytest.mark.parametrize("values", [[], [None, None]])
def test_nothing_known_is_nothing_drawn(values):
    assert sparkline(values, "x") == ""


def test_one_value_is_a_dot(read):
    page = read(sparkline([Estimate(value=1, low=1, high=1)], "x"))
    assert page.one("circle").attributes["cx"] == "3.0"


def test_a_description_is_text(views):
    assert "<script" not in sparkline([at(0.9)], views.hostile)
    assert "<script" not in columns([1], views.hostile)


def test_columns_are_as_high_as_their_values(read):
    bars = read(columns([1, 2, 0], "x")).all("rect")
    assert [float(bar.attributes["height"]) for bar in bars] == [30, 60, 0]


def test_no_columns_at_all(read):
    assert read(columns([], "x")).one("svg").all("rect") == []
    assert [bar.attributes["height"] for bar in read(columns([0, 0], "x")).all("rect")] == ["0.0", "0.0"]
