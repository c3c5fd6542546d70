"""The findings of a look, from table and log to record."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from steward import steps
from steward.records import Quality

FIRST = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def judged(company):
    def ask(at=FIRST):
        workspace = company.workspace
        reference = steps.check_quality(workspace, company.model, steps.observe(workspace, company.model, at=at))
        assert (
            steps.check_quality(workspace, company.model, steps.observe(workspace, company.model, at=at)) == reference
        )
        found = workspace.load(Quality, reference)
        assert found.says == tuple(one.says for one in found.findings)
        return {(one.kind, one.column): one for one in found.findings}

    return ask


def test_a_calm_day_has_no_finding(company, judged):
    company.add(company.rows(50, FIRST))
    assert judged() == {}


def test_dirty_rows_of_the_source(company, judged):
    rows = company.rows(200, FIRST)
    rows.loc[:9, "files"] = -5
    rows.loc[10:12, "stage"] = "Prod"
    rows.loc[13, "stage"] = "moon"
    rows.loc[20:59, "size"] = np.nan
    rows.loc[60:61, "team"] = "mobil"
    company.add(rows, rows[100:105])
    found = judged()
    assert found["contract", "files"].rows == 10
    assert found["category", "stage"].suggestions == {"Prod": "prod", "moon": None}
    assert found["category", "team"].suggestions == {"mobil": "mobile"}
    assert found["missing", "size"].rows == 40
    assert found["duplicates", None].rows == 5
    assert len(found) == 5


def test_the_schema_changed_since_the_last_look(company, judged):
    company.add(company.rows(50, FIRST))
    judged()
    rows = pd.read_parquet(company.table).drop(columns="team")
    rows.assign(files=rows["files"].astype(int), weather="rain").to_parquet(company.table)
    found = judged(datetime(2026, 1, 3, tzinfo=UTC))
    assert found["schema", "team"].says == "the source has no column team any more"
    assert found["schema", "files"].says == "files was float64 and is int64 now"
    assert found["schema", "weather"].says == "the source has a new column weather"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.unlink(), ("source", None)),
        (lambda path: pd.read_parquet(path)[:0].to_parquet(path), ("empty", None)),
        (lambda path: pd.read_parquet(path)[:300].to_parquet(path), ("stale", None)),
    ],
    ids=["gone", "empty", "stale"],
)
def test_a_source_that_is_gone_empty_or_stale(company, judged, damage, expected):
    damage(company.table)
    assert expected in judged()


@pytest.mark.parametrize("count", [0, 1])
def test_few_predictions(company, judged, count):
    company.add(company.rows(100, FIRST))
    if count:
        company.serve(company.rows(count, FIRST))
    assert judged() == {}
