import json

import numpy as np
import pandas as pd
import pytest

from steward.config import ModelFile
from steward.steps.labelled import Columns

MODEL = ModelFile.parse("""
name: risk
task: classification
source: {table: rows.csv, key: id}
label: {column: outcome, classes: [Low, High]}
columns:
  files: {type: number, nullable: true}
  night: {type: boolean, nullable: true}
  "team name": {type: category, nullable: true, open: true}
""")


def learning_frame(files, night, team):
    columns = {"files": files, "night": night, "team name": pd.Series(team, dtype=object)}
    return pd.DataFrame(columns).astype({"files": float, "night": float})


SOURCE = learning_frame([1.0, None], [0.0, 1.0], ["web", None])
RECORDS = [
    {"files": 3, "night": True, "team name": "ops"},
    {"team name": 'a "quoted" \\ ü', "gone since": 1},
    {"files": None, "night": None, "team name": None},
]
LOGGED = learning_frame([3.0, None, None], [1.0, None, None], ["ops", RECORDS[1]["team name"], None])


@pytest.fixture
def both() -> Columns:
    """Two rows of the source, then three of the log."""
    logged = np.array([json.dumps(record) for record in RECORDS], dtype=object)
    return Columns(MODEL, (SOURCE,)) + Columns(MODEL, (logged,))


@pytest.mark.parametrize("kept", [[0, 1, 2, 3, 4], [1, 3], [0], [4, 2], []])
def test_logged_records_are_read_like_rows_of_the_source(both, kept):
    mask = np.isin(np.arange(5), kept)
    expected = pd.concat([SOURCE, LOGGED], ignore_index=True)
    found = both[mask].frame()
    pd.testing.assert_frame_equal(found, expected[mask].reset_index(drop=True))
    pd.testing.assert_frame_equal(both[mask].frame(["night"]), found[["night"]])
