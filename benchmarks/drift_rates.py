"""How often the drift check is wrong when nothing has changed, and how soon it is right when something has.

Years of daily windows with ten numeric and five category columns are simulated, from 7,000 reference rows of fourteen days:
without anything, with a day-to-day wobble of 0.1 standard deviations that means nothing, with a weekly rhythm as well, and
with a strong one. An alarm counts once until its column was calm for a week. Then one column moves on the first day, and the
days are counted until it is an alarm. Everything is decided by the code that `<model>.monitor` runs: `Detector` over the
windows that `calm_windows` gives it, at drift's half of `false_alarms_per_year: 2`. To save time it learns from newer calm
windows every four weeks only; the monitor does so at every look.

    python benchmarks/drift_rates.py --years 50 --repetitions 200
"""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from joblib import Parallel, delayed
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
YEAR, WEEK, BLOCK = 365, 7, 28
LEVEL = drift.level_of(drift.SHARE_OF_ALARMS * BUDGET, YEAR, len(COLUMNS))
LONGEST = 30
"""Days after which a change counts as missed."""

Floats = NDArray[np.float64]
Days = dict[str, Series]
"""Per column a window a day."""


@dataclass(frozen=True)
class World:
    """How days differ from each other although nothing has changed, in standard deviations."""

    name: str
    wobble: float = 0.0
    rhythm: float = 0.0


CALM, *_, STRONG = WORLDS = (
    World("calm"),
    World("wobble", 0.1),
    World("wobble and weekly rhythm", 0.1, 0.1),
    World("wobble and strong rhythm", 0.1, 0.5),
)


def number(
    rng: np.random.Generator, rows: int, mean: Floats, *, spread: float = 1.0, missing: float = MISSING
) -> tuple[Floats, Floats, Floats]:
    """Windows of a normal column; `mean` has one per day."""
    lost = rng.binomial(rows, missing, len(mean))
    inner = stats.norm.cdf((EDGES - mean[:, None]) / spread)
    shares = np.diff(inner, prepend=0.0, append=1.0, axis=1)
    return rng.multinomial(rows - lost, shares).astype(float), lost.astype(float), np.zeros(len(mean))


def category(
    rng: np.random.Generator, rows: int, tilt: Floats, *, shares: Floats = SHARES, new: float = 0.0
) -> tuple[Floats, Floats, Floats]:
    """Windows of a category; `tilt` is the logarithm that each share is changed by, a row per day."""
    lost = rng.binomial(rows, MISSING, len(tilt))
    unseen = rng.binomial(rows - lost, new)
    tilted = shares * np.exp(tilt)
    counts = rng.multinomial(rows - lost - unseen, tilted / tilted.sum(axis=1, keepdims=True))
    return counts.astype(float), lost.astype(float), unseen.astype(float)


def days(
    rng: np.random.Generator,
    rows: int,
    first: int,
    count: int,
    world: World,
    changed: Mapping[str, "Change"] | None = None,
) -> Days:
    """So many days from the first one; of some columns changed in how they are drawn."""
    date = first + np.arange(count)
    turn = 2 * np.pi * (date % WEEK) / WEEK
    spans = np.column_stack([date, date + 1]) * drift.DAY
    found: Days = {}
    for place, name in enumerate(NUMBERS):
        mean = world.wobble * rng.standard_normal(count) + world.rhythm * np.sin(turn + place)
        found[name] = Series("number", *(changed or {}).get(name, number)(rng, rows, mean), spans)
    for place, name in enumerate(CATEGORIES):
        level = np.arange(len(SHARES))
        tilt = world.wobble * rng.standard_normal((count, len(SHARES)))
        tilt += world.rhythm * np.sin(turn[:, None] + place + level)
        found[name] = Series("category", *(changed or {}).get(name, category)(rng, rows, tilt), spans)
    return found


def chosen(one: Series, places: slice | list[int]) -> Series:
    spans = None if one.spans is None else one.spans[places]
    return Series(one.kind, one.counts[places], one.missing[places], one.unseen[places], spans)


def detector(known: Days, seen: Days, date: int, raised: Mapping[str, set[int]]) -> Detector:
    """With the calm windows that are known on a day."""
    calm = {}
    for name in COLUMNS:
        places = drift.calm_windows(range(date + 1), raised.get(name, set()))
        if places:
            calm[name] = chosen(seen[name], list(places))
    return Detector(known, calm)


def alarms_of(check: Detector, seen: Days, first: int, until: int) -> dict[int, set[str]]:
    """The columns that are an alarm on each of some days, by what was known until then."""
    windows = {name: chosen(one, slice(0, until)) for name, one in seen.items()}
    p_values = check.p_values(windows, looks=until - first)
    return {date: {name for name, p in p_values.items() if p[date - first] < LEVEL} for date in range(first, until)}


def year(seed: int, rows: int, world: World, *, like: bool = True) -> tuple[int, int]:
    """Alarms of a year in which nothing happens, and days with one."""
    rng = np.random.default_rng(seed)
    known = days(rng, REFERENCE_ROWS // REFERENCE_DAYS, 0, REFERENCE_DAYS, world)
    seen = days(rng, rows, REFERENCE_DAYS, YEAR, world)
    if not like:
        known, seen = timeless(known), timeless(seen)
    raised: dict[str, set[int]] = {}
    last: dict[str, int] = {}
    alarms = flagged = 0
    found_on: dict[int, set[str]] = {}
    for date in range(YEAR):
        if date % BLOCK == 0:
            check = detector(known, seen, date, raised)
            found_on |= alarms_of(check, seen, date, min(YEAR, date + BLOCK))
        found = found_on[date]
        alarms += any(date - last.get(name, -YEAR) > drift.EPISODE for name in found)
        flagged += bool(found)
        for name in found:
            last[name] = date
            raised.setdefault(name, set()).add(date)
    return alarms, flagged


def timeless(found: Days) -> Days:
    """The same without times: no weekday can be compared with its like."""
    return {name: replace(one, spans=None) for name, one in found.items()}


Change = Callable[[np.random.Generator, int, Floats], tuple[Floats, Floats, Floats]]


def moved(by: float) -> Change:
    return lambda rng, rows, mean: number(rng, rows, mean + by)


def tilted(points: float) -> Change:
    """The first category has so much more, at the cost of all others."""
    others = SHARES[1:] * (1 - SHARES[0] - points) / (1 - SHARES[0])
    return partial(category, shares=np.concatenate([[SHARES[0] + points], others]))


CHANGES: dict[str, tuple[str, Change, int]] = {
    "mean + 0.5 sd": ("n0", moved(0.5), 1),
    "share + 20 points": ("c0", tilted(0.20), 1),
    "new category, 2 %": ("c0", partial(category, new=0.02), 1),
    "missing 1 to 5 %": ("n0", partial(number, missing=0.05), 1),
    "spread x 1.3": ("n0", partial(number, spread=1.3), 2),
    "mean + 0.2 sd": ("n0", moved(0.2), 3),
    "share + 10 points": ("c0", tilted(0.10), 3),
    "mean + 0.1 sd": ("n0", moved(0.1), 10),
    "share + 5 points": ("c0", tilted(0.05), 10),
}
"""Column and what it becomes; the day on which half of the repetitions should have found it, with 500 rows a day."""
RHYTHMIC = ("mean + 0.5 sd", "share + 20 points", "spread x 1.3")
"""What is also looked for under a strong rhythm."""


def delay(seed: int, rows: int, change: str, world: World = CALM, *, like: bool = True) -> float:
    """The day on which a change that came on the first day is found."""
    rng = np.random.default_rng(seed)
    name, changed, _ = CHANGES[change]
    known = days(rng, REFERENCE_ROWS // REFERENCE_DAYS, 0, REFERENCE_DAYS, world)
    seen = days(rng, rows, REFERENCE_DAYS, LONGEST, world, {name: changed})
    if not like:
        known, seen = timeless(known), timeless(seen)
    found = alarms_of(Detector(known), seen, 0, LONGEST)
    return next((date + 1 for date, columns in found.items() if name in columns), np.inf)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--years", type=int, default=10, help="per world and window size")
    parser.add_argument("--repetitions", type=int, default=40, help="per change and window size")
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 5_000], help="of a day of a year without a change")
    parser.add_argument(
        "--worlds", nargs="+", choices=[one.name for one in WORLDS], default=[one.name for one in WORLDS]
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    with Parallel(options.jobs) as pool:
        if options.repetitions:
            delays(pool, options.repetitions)
            rhythms(pool, options.repetitions)
        if options.years:
            years(pool, options.years, options.rows, [one for one in WORLDS if one.name in options.worlds])


def delays(pool: Parallel, repetitions: int) -> None:
    print(f"days until found, the median of {repetitions} repetitions")
    print(f"{'':<22}{'aim':>5}{'500 rows':>10}{'9 in 10':>9}{'aim':>6}{'10,000 rows':>13}")
    for name, (*_, aim) in CHANGES.items():
        small, large = (pool(delayed(delay)(seed, rows, name) for seed in range(repetitions)) for rows in (500, 10_000))
        late = np.quantile(small, 0.9, method="higher")
        print(f"{name:<22}{aim:>5}{np.median(small):>10.0f}{late:>9.0f}{1:>6}{np.median(large):>13.0f}", flush=True)


def rhythms(pool: Parallel, repetitions: int) -> None:
    print(f"\n{STRONG.name}, 500 rows a day: days until found ({LONGEST + 1} and more: not), median and 9 in 10")
    print(f"{'':<22}{'all windows alike':>20}{'like with like':>18}")
    for name in RHYTHMIC:
        line = f"{name:<22}"
        for like, width in ((False, 20), (True, 18)):
            found = pool(delayed(delay)(seed, 500, name, STRONG, like=like) for seed in range(repetitions))
            late = np.quantile(found, 0.9, method="higher")
            line += f"{f'{np.median(found):.0f} {late:.0f}':>{width}}"
        print(line, flush=True)


def years(pool: Parallel, count: int, sizes: list[int], worlds: list[World]) -> None:
    print(f"\nalarms of drift in a year without a change, {count} years each; its share of the budget is", end=" ")
    print(f"{drift.SHARE_OF_ALARMS * BUDGET:g} of {BUDGET:g}")
    for rows in sizes:
        for world in worlds:
            started = time.monotonic()
            alarms, flagged = zip(*pool(delayed(year)(seed, rows, world) for seed in range(count)), strict=True)
            print(
                f"{rows:>6,} rows a day  {world.name:<26}{np.mean(alarms):>6.2f} alarms (at most {max(alarms)})"
                f"{np.mean(flagged):>7.1f} days with one  ({time.monotonic() - started:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
