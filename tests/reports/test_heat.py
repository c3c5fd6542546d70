from dataclasses import replace

import pytest

from steward.reports import heat
from steward.views.drift import Cell


def test_a_line_per_column_and_a_square_per_look(views):
    found = heat.table(views.drift_map(10))
    assert [line.column for line in found.lines][:2] == ["team", "files_changed"]
    assert {len(line.squares) for line in found.lines} == {10}
    assert found.lines[0].squares[-1].end == found.looks[-1].end


def test_an_alarm_something_negligible_and_an_empty_look_have_signs_of_their_own(views):
    table = {line.column: line.squares for line in heat.table(views.drift_map(10)).lines}
    assert table["team"][-1].sign == heat.ALARM
    assert table["hour"][3].sign == heat.NEGLIGIBLE
    assert table["team"][2].sign == heat.EMPTY
    assert table["confidence"][9].sign == ""


@pytest.mark.parametrize(
    ("cell", "sign"),
    [
        (Cell(), ""),
        (Cell(lasting=True), heat.LASTING),
        (Cell(0.5, "shape", 1e-9, alarm=True, lasting=True), heat.ALARM),
        (Cell(0.5, "shape", 1e-9), ""),
        (Cell(0.05, "shape", 1e-9, matters=False), heat.NEGLIGIBLE),
    ],
)
def test_signs(views, cell, sign):
    assert heat.sign(cell, views.drift_map(1).looks[0]) == sign


def test_a_square_says_what_column_and_day_it_is_of(views):
    says = heat.table(views.drift_map(10)).lines[0].squares[-1].says
    assert says.startswith(
        "team, 18 January 2026: has unknown values at another rate, effect 1.1 (Cohen's h), p = 7e-18"
    )
    assert says.endswith("27 % of rows: alarm")


def test_wide_tables_show_the_columns_that_moved_most(views):
    found = heat.table(replace(views.drift_map(5, columns=300), left_out=12))
    assert (len(found.lines), found.left_out, found.earlier) == (40, 260, 12)


def test_no_look_is_no_table(views):
    assert heat.table(views.empty_model_page().drift).lines == ()
