"""The simulated company: deployments whose true risk follows rules that a person can read.

A world for the running example. Every day brings `PER_DAY` deployments; each day has its own random stream, so a row
stays the same however many rows are made after it, and a switch of `World` changes what its name says and nothing else.

>>> past = simulate()
>>> len(past), past["risk_level"].value_counts().index.tolist()
(10000, ['Low', 'Medium', 'High'])
>>> month_two = simulate(2_000, first=PAST, world=MONTH_TWO)
>>> month_two["deployment_id"].iloc[0], bool(month_two["requested_at"].min() >= past["requested_at"].max())
('dep-010000', True)
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

PER_DAY = 80
PAST = 10_000
SEED = 20_260_101
UNTIL = datetime(2026, 1, 1, tzinfo=UTC)
CLASSES = ("Low", "Medium", "High")

TEAMS = {"checkout": 0.18, "search": 0.18, "payments": 0.16, "catalog": 0.16, "web": 0.12, "data": 0.12, "mobile": 0.08}
NEW_TEAMS = ("assistant", "partners", "platform")
YOUNG_TEAMS = {"mobile": 1.0, **dict.fromkeys(NEW_TEAMS, 1.75)}
ENVIRONMENTS = {"dev": 0.40, "staging": 0.25, "prod": 0.35}
FAILURES = {0: 0.62, 1: 0.22, 2: 0.10, 3: 0.04, 4: 0.02}
HISTORY_UNKNOWN = 0.04
NIGHT_ENDS, NIGHT_BEGINS = 6, 22
MEDIUM_FROM, HIGH_FROM = 3.0, 5.0
DISAGREEMENT = 0.18
"""Scale of the noise, in points: two people who judge the same deployment differ by about this much."""

DIRT = ("negative_count", "other_spelling", "missing_key", "duplicate_key", "text_in_number")
FILE = re.compile(r"deployments-\d{4}-\d{2}-from-(\d+)\.parquet")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """What is different from the world that the first model learned."""

    files_factor: float = 1.0
    """Deployments change this many times more files."""
    around_the_clock: bool = False
    """Every hour of the day is as busy as any other."""
    new_teams: float = 0.0
    """Share of deployments by teams that did not exist before."""
    night_is_safe: bool = False
    """Production at night is no riskier than by day: what is risky changes, what is deployed does not (concept)."""
    neutral: bool = False
    """Work moves to the afternoon and between equally experienced teams: inputs move, risk and accuracy do not."""
    dirty: float = 0.0
    """Share of rows that are damaged in one of the ways in `dirt`."""
    dirt: tuple[str, ...] = DIRT
    """What may be wrong with a dirty row. `text_in_number` makes `files_changed` a column of texts."""


TODAY = World()
MONTH_TWO = World(files_factor=4, around_the_clock=True, new_teams=0.25, night_is_safe=True)
"""The month of the running example: a model of the past is right about 74 times in 100 instead of 91, and a training that
sees 1,400 of its rows brings back about twelve of those points."""


def score(frame: pd.DataFrame, world: World = TODAY) -> Floats:
    """Points of risk, shape (n,): the rules by which this company's deployments go well or badly.

    ===================================================  ==================
    what                                                 points
    ===================================================  ==================
    files changed, for each tenfold                      1.5
    staging, production                                  0.5, 2
    production and more than 40 files                    1 more
    production at night (22:00 to 5:59)                  2 more
    each previous failure, at most three                 1
    failures unknown                                     0.5
    a young team                                         1 or 1.75
    ===================================================  ==================

    From 3 points a deployment is Medium, from 5 High; see `probabilities` for how judges disagree.
    """
    files = frame["files_changed"].to_numpy(np.float64)
    failures = frame["previous_failures"].astype("Float64").fillna(0.5).to_numpy(np.float64)
    environment = frame["environment"].map({"dev": 0.0, "staging": 0.5, "prod": 2.0}).to_numpy(np.float64)
    young = frame["team"].map(YOUNG_TEAMS).fillna(0).to_numpy(np.float64)
    hour = frame["hour"].to_numpy(np.float64)
    production = environment == 2.0  # noqa: PLR2004
    night = (hour < NIGHT_ENDS) | (hour >= NIGHT_BEGINS)
    points = 1.5 * np.log10(files) + environment + np.minimum(failures, 3) + young
    points += 1.0 * (production & (files > 40))  # noqa: PLR2004
    points += 2.0 * (production & night & (not world.night_is_safe))
    return np.asarray(points, dtype=np.float64)


def probabilities(frame: pd.DataFrame, world: World = TODAY) -> Floats:
    """The true probability of each class, shape (n, 3), columns as `CLASSES`; of clean rows only."""
    points = score(frame, world)
    above = [1 / (1 + np.exp(-(points - limit) / DISAGREEMENT)) for limit in (MEDIUM_FROM, HIGH_FROM)]
    return np.column_stack([1 - above[0], above[0] - above[1], above[1]])


def best_accuracy(frame: pd.DataFrame, world: World = TODAY) -> float:
    """The accuracy of a judge who knows the rules: no model can do better, except by luck."""
    return float(probabilities(frame, world).max(axis=1).mean())


def simulate(
    n: int = PAST, *, first: int = 0, seed: int = SEED, until: datetime = UNTIL, world: World = TODAY
) -> pd.DataFrame:
    """Deployments `first` to `first + n - 1`, in the order in which they were requested.

    Parameters
    ----------
    first : number of the first row; ids continue from it. `first=PAST` is what happens after the default past.
    until : midnight, time-zone aware, that ends the first `PAST` deployments; day by day, everything is dated from it.

    Returns
    -------
    frame with columns deployment_id, requested_at (UTC), files_changed, environment, team, hour, previous_failures
    (nullable), risk_level.
    """
    days = range(first // PER_DAY, -(-(first + n) // PER_DAY))
    frame = pd.concat([_day(day, seed, until, world) for day in days], ignore_index=True)
    start = first - days.start * PER_DAY
    return frame.iloc[start : start + n].reset_index(drop=True)


def _day(day: int, seed: int, until: datetime, world: World) -> pd.DataFrame:
    """The deployments of one day: everything follows from one table of uniform numbers, shape (PER_DAY, 11)."""
    draws = np.random.default_rng([seed, day]).random((PER_DAY, 11))
    moment = np.sort(draws[:, 0])
    clock = _clock(moment, world)
    midnight = until - timedelta(days=PAST // PER_DAY - day)
    failures = _choose(draws[:, 5], FAILURES).astype(np.float64)
    frame = pd.DataFrame(
        {
            "deployment_id": [f"dep-{day * PER_DAY + row:06d}" for row in range(PER_DAY)],
            "requested_at": pd.Timestamp(midnight).as_unit("us")
            + pd.to_timedelta((clock * 3600).astype(int), unit="s"),
            "files_changed": _files(draws[:, 1:3], world),
            "environment": _choose(draws[:, 3], ENVIRONMENTS),
            "team": _teams(draws[:, 4], draws[:, 10], world),
            "hour": clock.astype(np.int64),
            "previous_failures": pd.array(np.where(draws[:, 6] < HISTORY_UNKNOWN, np.nan, failures)).astype("Int64"),
        }
    )
    ceilings = probabilities(frame, world).cumsum(axis=1)
    classes = (draws[:, 7, None] > ceilings[:, :2]).sum(axis=1)
    frame["risk_level"] = np.array(CLASSES, dtype=object)[classes]
    return _soil(frame, draws[:, 8], draws[:, 9], world)


def _choose(uniform: Floats, shares: dict[str, float] | dict[int, float]) -> npt.NDArray[np.object_]:
    edges = np.cumsum(list(shares.values()))
    positions = np.searchsorted(edges / edges[-1], uniform, side="right")
    chosen: npt.NDArray[np.object_] = np.array(list(shares), dtype=object)[positions]
    return chosen


def _clock(moment: Floats, world: World) -> Floats:
    """Hours since midnight, 0 to 24, rising with `moment`: one in ten deployments happens at night."""
    if world.around_the_clock:
        return moment * 24
    noon = 15 if world.neutral else 12
    return np.interp(moment, [0, 0.05, 0.5, 0.95, 1], [0, NIGHT_ENDS, noon, NIGHT_BEGINS, 24])


def _files(uniform: Floats, world: World) -> npt.NDArray[np.int64]:
    """Log-normal counts with median 9 and one in forty above 120 (Box-Muller, so that one row needs two numbers)."""
    normal = np.sqrt(-2 * np.log1p(-uniform[:, 0])) * np.cos(2 * np.pi * uniform[:, 1])
    counts: Floats = np.exp(np.log(9) + 1.3 * normal) * world.files_factor
    return np.maximum(1, counts).astype(np.int64)


def _teams(old: Floats, new: Floats, world: World) -> npt.NDArray[np.object_]:
    """Who asks; the rows that do not go to a new team keep the team that they would have had."""
    shares = TEAMS | {"checkout": 0.32, "search": 0.32, "payments": 0.02, "catalog": 0.02} if world.neutral else TEAMS
    arrived = _choose(new / max(world.new_teams, 1e-9) % 1, dict.fromkeys(NEW_TEAMS, 1.0))
    return np.where(new < world.new_teams, arrived, _choose(old, shares))


def _soil(frame: pd.DataFrame, chance: Floats, kind: Floats, world: World) -> pd.DataFrame:
    """Damage a share of a day's rows, each in one way."""
    if not world.dirty:
        return frame
    damage = np.array(world.dirt, dtype=object)[(kind * len(world.dirt)).astype(int)]
    damage[chance >= world.dirty] = ""
    keys = frame["deployment_id"].astype(object)
    keys = keys.where(damage != "duplicate_key", np.roll(keys, 1)).where(damage != "missing_key", None)
    frame["deployment_id"] = keys.astype("str")
    spelling = np.where(kind * 1_000 % 1 < 0.5, "production", "Prod")  # noqa: PLR2004
    frame["environment"] = frame["environment"].where(damage != "other_spelling", spelling)
    frame["files_changed"] = frame["files_changed"].where(damage != "negative_count", -frame["files_changed"])
    if "text_in_number" in world.dirt:
        frame["files_changed"] = frame["files_changed"].astype(str).where(damage != "text_in_number", "a dozen")
    return frame


def write(folder: Path, frame: pd.DataFrame) -> tuple[Path, ...]:
    """Keep deployments as Parquet, one file per month of `requested_at`; answers the files' paths in order of time.

    Files of an earlier call that begin among the same rows are replaced, so that a folder never holds a row twice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = _numbers(frame["deployment_id"])
    for path in folder.glob("deployments-*-from-*.parquet"):
        begins = FILE.fullmatch(path.name)
        if begins and numbers[0] <= int(begins[1]) <= numbers[-1]:
            path.unlink()
    months = frame["requested_at"].dt.strftime("%Y-%m").to_numpy()
    paths = []
    for month in dict.fromkeys(months):
        chosen = months == month
        path = folder / f"deployments-{month}-from-{numbers[chosen][0]:06d}.parquet"
        part = path.with_suffix(".part")
        frame[chosen].to_parquet(part, index=False)
        part.replace(path)
        paths.append(path)
    return tuple(paths)


def _numbers(keys: "pd.Series[str]") -> npt.NDArray[np.int64]:
    """Row numbers from the first id that is there; ids may be missing or double, their places are not."""
    place = int(np.flatnonzero(keys.notna())[0])
    return np.arange(len(keys)) + int(str(keys.iloc[place]).removeprefix("dep-")) - place


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m steward.examples.deployments --out FOLDER`: write the company's past."""
    parser = argparse.ArgumentParser(prog="steward.examples.deployments", description="Simulated deployments.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the Parquet files")
    parser.add_argument("--rows", type=int, default=PAST, help="how many deployments (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help=f"number of the first; {PAST} begins the second month")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--until", type=_midnight, default=UNTIL, help="UTC date that ends the past (%(default)s)")
    parser.add_argument(
        "--month-two",
        action="store_true",
        help="the world after the past: larger changes, around the clock, new teams, safe nights",
    )
    parser.add_argument("--dirty", type=float, default=0.0, help="share of damaged rows")
    given = parser.parse_args(arguments)
    world = replace(MONTH_TWO if given.month_two else TODAY, dirty=given.dirty)
    frame = simulate(given.rows, first=given.first, seed=given.seed, until=given.until, world=world)
    paths = write(given.out, frame)
    print(f"{len(frame)} deployments in {len(paths)} files under {given.out}")  # noqa: T201
    return 0


def _midnight(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


if __name__ == "__main__":
    raise SystemExit(main())
