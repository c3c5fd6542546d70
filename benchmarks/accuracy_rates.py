"""How often accuracy is said to have fallen when it has not, and how soon when it has.

Years of daily looks at a champion that was verified on 1,050 rows (the sealed rows of 7,000): its error rate is always the same,
or wobbles from day to day, or has a weekly rhythm as well. Everything is decided by the code that `<model>.monitor` runs, at
accuracy's half of `false_alarms_per_year: 2`: the watch over windows, and the interval of the last seven days against what was
verified. An alarm counts when it begins. Alarms of drift are counted by `benchmarks/drift_rates.py`; what both raise adds up.
Then the error rate rises on day 30, and the days are counted until one of the two says so.

    python benchmarks/accuracy_rates.py --years 50 --repetitions 200
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed

from steward.core import metrics, performance
from steward.core.performance import Watch
from steward.steps.accuracy import SHARE_OF_ALARMS

BUDGET, YEAR, WINDOW, CONFIDENCE = 2.0, 365, 7, 0.95
ERROR, VERIFIED_ROWS = 0.15, 1_050
RISES_ON, LONGEST = 30, 60
RISES = (0.02, 0.04, 0.07, 0.12)


@dataclass(frozen=True)
class World:
    """How the error rate of days differs although nothing has changed: standard deviation, and height of the weekly rhythm."""

    name: str
    wobble: float = 0.0
    rhythm: float = 0.0


WORLDS = (World("calm"), World("wobble of 1 point", 0.01), World("wobble of 2, rhythm of 2 points", 0.02, 0.02))


def looks(seed: int, rows: int, days: int, world: World, rise: float = 0.0) -> Iterator[tuple[bool, bool]]:
    """On every day: is the watch an alarm, and has accuracy surely fallen?"""
    rng = np.random.default_rng(seed)
    verified = int(rng.binomial(VERIFIED_ROWS, ERROR))
    known = metrics.wilson(VERIFIED_ROWS - verified, VERIFIED_ROWS, CONFIDENCE)
    patience = YEAR / (SHARE_OF_ALARMS * BUDGET)
    sure = max(CONFIDENCE, performance.sure_of_a_fall(SHARE_OF_ALARMS * BUDGET, YEAR))
    watch = Watch.of(errors=verified, rows=VERIFIED_ROWS, patience=patience)
    wrong: list[int] = []
    fallen = False
    for date in range(days):
        rate = ERROR + world.wobble * rng.standard_normal() + world.rhythm * np.sin(2 * np.pi * date / 7)
        rate += rise * (date >= RISES_ON)
        wrong.append(int(rng.binomial(rows, min(1.0, max(0.0, rate)))))
        watch = watch.after(errors=wrong[-1], rows=rows)
        newest = wrong[-WINDOW:]
        now = metrics.wilson(rows * len(newest) - sum(newest), rows * len(newest), sure)
        if performance.fallen(performance.widened(now, watch.dispersion), floor=None, verified=known):
            fallen = True
        elif performance.recovered(now.value, known.low, "accuracy"):
            fallen = False
        yield watch.alarm, fallen


def year(seed: int, rows: int, world: World) -> tuple[int, int]:
    """How often each of the two began."""
    watches, falls = zip(*looks(seed, rows, YEAR, world), strict=True)
    return begun(watches), begun(falls)


def begun(alarms: tuple[bool, ...]) -> int:
    return sum(now and not before for before, now in zip((False, *alarms), alarms, strict=False))


def delay(seed: int, rows: int, rise: float) -> float:
    """The day after the rise on which one of the two says so; an alarm from before does not count."""
    found = list(looks(seed, rows, RISES_ON + LONGEST, WORLDS[0], rise))
    return next((date + 1 for date, one in enumerate(found[RISES_ON:]) if any(one)), np.inf)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--years", type=int, default=50, help="per world and window size")
    parser.add_argument("--repetitions", type=int, default=200, help="per rise and window size")
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 5_000], help="with an outcome, a day")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    given = parser.parse_args()
    with Parallel(given.jobs) as pool:
        print(f"alarms a year without a change, {given.years} years each; their share of the budget is", end=" ")
        print(f"{2 * SHARE_OF_ALARMS * BUDGET:g} of {BUDGET:g}")
        for rows in given.rows:
            for world in WORLDS:
                found = np.array(pool(delayed(year)(seed, rows, world) for seed in range(given.years)))
                watch, fall = found.mean(axis=0)
                print(f"{rows:>6,} rows a day  {world.name:<34}watch {watch:.2f}  fall {fall:.2f}", flush=True)
        print(f"\ndays until a rise of the error rate of {ERROR:.0%} is found: median and 9 in 10")
        for rise in RISES:
            line = f"{rise * 100:>4.0f} points"
            for rows in given.rows:
                days = pool(delayed(delay)(seed, rows, rise) for seed in range(given.repetitions))
                late = np.quantile(days, 0.9, method="higher")
                line += f"{f'{np.median(days):.0f} {late:.0f}':>12} with {rows:,} rows a day"
            print(line, flush=True)


if __name__ == "__main__":
    main()
