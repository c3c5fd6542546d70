"""Drift as a table that can be looked at: a shade for how far a column has moved, a sign for what that means."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from steward.reports import formats
from steward.views.drift import Cell, DriftMap, Look

SHADES = (0.1, 0.2, 0.5, 0.8)
"""Effects from which the next shade begins: Cohen's small, medium and large ones, and what is negligible before them."""
MOST_COLUMNS = 40
"""More are not told apart on a screen; those that moved most are shown."""
ALARM, LASTING, NEGLIGIBLE, EMPTY = "▲", "△", "≈", "∅"
UNITS = {
    "location": "standard deviations", "spread": "Cohen's w", "shape": "Cohen's w", "missing": "Cohen's h",
    "unseen": "Cohen's h",
}  # fmt: skip
MOVED = {
    "location": "has moved", "spread": "spreads differently", "shape": "is distributed differently",
    "missing": "is missing at another rate", "unseen": "has unknown values at another rate",
}  # fmt: skip


@dataclass(frozen=True)
class Square:
    """A column at a look, as it is shown; `shade` from 0 (calm) to 5."""

    shade: int
    sign: str
    says: str
    end: datetime


@dataclass(frozen=True)
class Line:
    """A column of the table of drift."""

    column: str
    squares: tuple[Square, ...]


@dataclass(frozen=True)
class Heat:
    """The table: newest looks last. `left_out` : columns that moved least, which are not shown; `earlier` : looks that are not."""

    looks: tuple[Look, ...]
    lines: tuple[Line, ...]
    left_out: int
    earlier: int


def table(found: DriftMap) -> Heat:
    """What is shown of the drift of all columns."""
    rows = list(zip(found.columns, found.cells, strict=True))
    lines = tuple(Line(name, tuple(_squares(name, found.looks, cells))) for name, cells in rows[:MOST_COLUMNS])
    return Heat(found.looks, lines, len(rows) - len(lines), found.left_out)


def _squares(column: str, looks: tuple[Look, ...], cells: tuple[Cell, ...]) -> Iterator[Square]:
    for look, cell in zip(looks, cells, strict=True):
        yield Square(shade(cell), sign(cell, look), f"{column}, {formats.day(look.end)}: {says(cell, look)}", look.end)


def shade(cell: Cell) -> int:
    """0 for a calm cell, then 1 to 5 by its effect.

    >>> [shade(Cell(effect=effect, question="shape")) for effect in (0.05, 0.1, 0.3, 2)], shade(Cell())
    ([1, 2, 3, 5], 0)
    """
    return 0 if cell.question is None else 1 + sum(cell.effect >= limit for limit in SHADES)


def sign(cell: Cell, look: Look) -> str:
    """What a cell means, told by its shape as well as by its shade."""
    if not look.rows:
        return EMPTY
    if cell.alarm:
        return ALARM
    if cell.lasting:
        return LASTING
    return NEGLIGIBLE if cell.question and not cell.matters else ""


def says(cell: Cell, look: Look) -> str:
    """A cell in words.

    >>> look = Look(datetime(2026, 1, 1), datetime(2026, 1, 2), 1, 80, 1e-4)
    >>> says(Cell(1.1, "unseen", 7e-18, alarm=True, touched=0.27), look)
    "has unknown values at another rate, effect 1.1 (Cohen's h), p = 7e-18, touches at most 27 % of rows: alarm"
    >>> says(Cell(0.04, "location", 1e-9, matters=False), look)
    'has moved, effect 0.04 (standard deviations), p = 1e-09: real, and negligible'
    >>> says(Cell(lasting=True), look)
    'calm, an alarm of before has not ended'
    """
    if not look.rows:
        return "nothing came in"
    if cell.question is None:
        return "calm, an alarm of before has not ended" if cell.lasting else "calm"
    parts = [MOVED[cell.question], f"effect {cell.effect:.2g} ({UNITS[cell.question]})"]
    parts += [] if cell.p is None else [f"p = {formats.p_value(cell.p)}"]
    parts += [] if cell.touched is None else [f"touches at most {formats.share(cell.touched)} of rows"]
    return ", ".join(parts) + _meaning(cell)


def _meaning(cell: Cell) -> str:
    if cell.alarm:
        return ": alarm"
    if not cell.matters:
        return ": real, and negligible"
    return ": an alarm of before lasts" if cell.lasting else ""
