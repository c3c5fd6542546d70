"""How often the drift check is wrong when nothing has changed, and how soon it is right when something has.

Years of daily windows with ten numeric and five category columns are simulated: without anything, with a day-to-day wobble
of 0.1 standard deviations that means nothing, and with a weekly rhythm as well. An alarm counts once until its column was
calm for a week. Then one column moves on the first day, and the days are counted until it is an alarm. Everything is decided
by the code that `<model>.monitor` runs: `Detector` over the windows that `calm_windows` gives it.

    python benchmarks/drift_rates.py --years 50 --repetitions 200
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from steward.core import drift
from steward.core.drift import Detector
from steward.core.profiles import Series

NUMBERS, CATEGORIES = [f"n{i}" for i in range(10)], [f"c{i}" for i in range(5)]
COLUMNS = NUMBERS + CATEGORIES
EDGES = stats.norm.ppf(np.arange(1, 50) / 50)
SHARES = np.array([0.35, 0.30, 0.20, 0.10, 0.05])
MISSING = 0.01
REFERENCE_ROWS, REFERENCE_DAYS = 7_000, 14
BUDGET = 2.0
YEAR, WEEK = 365, 7
LONGEST = 30
"""Days after which a change counts as missed."""

Window = tuple[NDArray[np.int64], int, int]
"""Counts per bin, missing and unseen rows."""
Day = dict[str, Window]


@dataclass(frozen=True)
class World:
    """How days differ from each other although nothing has changed, in standard deviations."""

    name: str
    wobble: float = 0.0
    rhythm: float = 0.0


WORLDS = (World("calm"), World("wobble", 0.1), World("wobble and weekly rhythm", 0.1, 0.1))


def number(
    rng: np.random.Generator, rows: int, mean: float = 0.0, spread: float = 1.0, missing: float = MISSING
) -> Window:
    lost = rng.binomial(rows, missing)
    shares = np.diff(np.concatenate([[0.0], stats.norm.cdf((EDGES - mean) / spread), [1.0]]))
    return rng.multinomial(rows - lost, shares), lost, 0


def category(rng: np.random.Generator, rows: int, shares: NDArray[np.float64] = SHARES, new: float = 0.0) -> Window:
    lost = rng.binomial(rows, MISSING)
    unseen = rng.binomial(rows - lost, new)
    return rng.multinomial(rows - lost - unseen, shares / shares.sum()), lost, unseen


def day(rng: np.random.Generator, rows: int, date: int, world: World) -> Day:
    found: Day = {}
    turn = 2 * np.pi * (date % WEEK) / WEEK
    for place, name in enumerate(NUMBERS):
        mean = world.wobble * rng.standard_normal() + world.rhythm * np.sin(turn + place)
        found[name] = number(rng, rows, mean)
    for place, name in enumerate(CATEGORIES):
        level = np.arange(len(SHARES))
        tilt = world.wobble * rng.standard_normal(len(SHARES)) + world.rhythm * np.sin(turn + place + level)
        found[name] = category(rng, rows, SHARES * np.exp(tilt))
    return found


def series(windows: list[Window], name: str) -> Series:
    counts, missing, unseen = (np.array(part, dtype=float) for part in zip(*windows, strict=True))
    return Series("number" if name in NUMBERS else "category", counts, missing, unseen)


def reference(rng: np.random.Generator, world: World) -> dict[str, Series]:
    days = [day(rng, REFERENCE_ROWS // REFERENCE_DAYS, date, world) for date in range(REFERENCE_DAYS)]
    return {name: series([one[name] for one in days], name) for name in COLUMNS}


def alarms_of(known: dict[str, Series], days: list[Day], raised: dict[str, set[str]], level: float) -> set[str]:
    """The columns that are an alarm on the last of these days, by what was known until then."""
    dates = [str(date) for date in range(len(days))]
    calm = {}
    for name in COLUMNS:
        chosen = drift.calm_windows(dates, raised.get(name, set()))
        if chosen:
            calm[name] = series([days[int(date)][name] for date in chosen], name)
    recent = {name: series([one[name] for one in days[-drift.RECENT :]], name) for name in COLUMNS}
    return {one.column for one in Detector(known, calm).examine(recent, level=level).alarms}


def year(seed: int, rows: int, world: World) -> tuple[int, int]:
    """Alarms of a year in which nothing happens, and days with one."""
    rng = np.random.default_rng(seed)
    known, days, raised = reference(rng, world), [], dict[str, set[str]]()
    last: dict[str, int] = {}
    alarms = flagged = 0
    for date in range(YEAR):
        days.append(day(rng, rows, REFERENCE_DAYS + date, world))
        found = alarms_of(known, days, raised, drift.level_of(BUDGET, YEAR, len(COLUMNS)))
        alarms += any(date - last.get(name, -YEAR) > drift.EPISODE for name in found)
        flagged += bool(found)
        for name in found:
            last[name] = date
            raised.setdefault(name, set()).add(str(date))
    return alarms, flagged


Change = tuple[str, Callable[[np.random.Generator, int], Window]]
CHANGES: dict[str, tuple[Change, int]] = {
    "mean + 0.5 sd": (("n0", lambda rng, rows: number(rng, rows, 0.5)), 1),
    "share + 20 points": (("c0", lambda rng, rows: category(rng, rows, _more(0.20))), 1),
    "new category, 2 %": (("c0", lambda rng, rows: category(rng, rows, new=0.02)), 1),
    "missing 1 to 5 %": (("n0", lambda rng, rows: number(rng, rows, missing=0.05)), 1),
    "spread x 1.3": (("n0", lambda rng, rows: number(rng, rows, spread=1.3)), 2),
    "mean + 0.2 sd": (("n0", lambda rng, rows: number(rng, rows, 0.2)), 3),
    "share + 10 points": (("c0", lambda rng, rows: category(rng, rows, _more(0.10))), 3),
    "mean + 0.1 sd": (("n0", lambda rng, rows: number(rng, rows, 0.1)), 10),
    "share + 5 points": (("c0", lambda rng, rows: category(rng, rows, _more(0.05))), 10),
}
"""Column and what it becomes; the day on which half of the repetitions should have found it, with 500 rows a day."""


def _more(points: float) -> NDArray[np.float64]:
    """The first category has so much more, at the cost of all others."""
    others = SHARES[1:] * (1 - SHARES[0] - points) / (1 - SHARES[0])
    return np.concatenate([[SHARES[0] + points], others])


def delay(seed: int, rows: int, change: Change) -> float:
    """The day on which a change that came on the first day is found."""
    rng = np.random.default_rng(seed)
    known, days = reference(rng, WORLDS[0]), []
    name, changed = change
    for date in range(1, LONGEST + 1):
        days.append(day(rng, rows, REFERENCE_DAYS + date, WORLDS[0]) | {name: changed(rng, rows)})
        if name in alarms_of(known, days, {}, drift.level_of(BUDGET, YEAR, len(COLUMNS))):
            return date
    return np.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--years", type=int, default=10, help="per world and window size")
    parser.add_argument("--repetitions", type=int, default=40, help="per change and window size")
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 5_000], help="of a day of a calm year")
    options = parser.parse_args()
    if options.repetitions:
        delays(options.repetitions)
    if options.years:
        years(options.years, options.rows)


def delays(repetitions: int) -> None:
    print(
        f"days until found, {repetitions} repetitions\n{'':<22}{'aim':>5}{'500 rows':>10}{'9 in 10':>9}{'10,000 rows':>13}"
    )
    for name, (change, aim) in CHANGES.items():
        small = [delay(seed, 500, change) for seed in range(repetitions)]
        large = [delay(seed, 10_000, change) for seed in range(max(5, repetitions // 4))]
        late = np.quantile(small, 0.9, method="higher")
        print(f"{name:<22}{aim:>5}{np.median(small):>10.0f}{late:>9.0f}{np.median(large):>13.0f}", flush=True)


def years(count: int, sizes: list[int]) -> None:
    print(f"\nalarms in a year without a change, {count} years each; the budget is {BUDGET:g}")
    for rows in sizes:
        for world in WORLDS:
            started = time.process_time()
            alarms, flagged = zip(*(year(seed, rows, world) for seed in range(count)), strict=True)
            seconds = (time.process_time() - started) / count
            print(
                f"{rows:>6,} rows a day  {world.name:<26}{np.mean(alarms):>6.2f} alarms"
                f"{np.mean(flagged):>7.1f} days with one  ({seconds:.1f} s a year)",
                flush=True,
            )


if __name__ == "__main__":
    main()
