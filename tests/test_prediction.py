"""`from steward import Model`: a dict in, a dict out; a frame in, a frame out."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import steward
from steward import Model, operations
from steward.errors import NoChampion, RecordInvalid, UnknownModel, VersionUnknown

RECORD = {"files": 900, "stage": "dev"}


@pytest.fixture(scope="module")
def model(champion) -> Model:
    return Model("risk", workspace=champion[0].workspace)


def test_a_record(model, champion):
    answer = model.predict(RECORD)
    assert (answer["prediction"], answer["confidence"], answer["model_version"]) == ("High", 1.0, 1)
    workspace = champion[0].workspace
    assert operations.predict(workspace, workspace.model("risk"), RECORD) == answer
    assert repr(model) == "Model('risk', version=1)"


def test_a_frame_keeps_its_index_and_other_columns_are_ignored(model):
    frame = pd.DataFrame({"files": [900, 3], "stage": ["dev", "prod"], "outcome": "?", "more": 1}, index=["x", "y"])
    found = model.predict(frame)
    assert found.index.tolist() == ["x", "y"]
    assert found["prediction"].tolist() == ["High", "Low"]
    assert list(found.columns)[-3:] == ["unseen", "flags", "model_version"]


@pytest.mark.parametrize("dtype", ["Int64", "float32", object, "int64[pyarrow]", np.int16])
def test_any_type_of_number(model, dtype):
    frame = pd.DataFrame({"files": pd.Series([900], dtype=dtype), "stage": pd.Series(["dev"], dtype="category")})
    assert model.predict(frame)["prediction"].tolist() == ["High"]


def test_a_frame_without_rows(model):
    assert model.predict(pd.DataFrame({"files": [], "stage": []})).empty


def test_rows_that_break_the_contract_are_named(model):
    frame = pd.DataFrame({"files": [900, -1, None], "stage": ["dev", "dev", "moon"]}, index=["a", "b", "c"])
    with pytest.raises(RecordInvalid, match="2 of 3 rows break the contract") as problem:
        model.predict(frame)
    assert "row b: files is out of range" in str(problem.value)
    with pytest.raises(RecordInvalid, match="1 of 1 rows"):
        model.predict(pd.DataFrame({"stage": ["dev"]}))


def test_a_version_by_number(champion):
    workspace = champion[0].workspace
    assert Model("risk", version=1, workspace=workspace).predict(RECORD)["model_version"] == 1
    with pytest.raises(VersionUnknown, match="got 7; allowed: 1"):
        Model("risk", 7, workspace=workspace)


def test_where_the_environment_says(trained, monkeypatch):
    for name, value in trained.environment.items():
        monkeypatch.setenv(name, value)
    assert Model("risk").version == 1
    with pytest.raises(UnknownModel, match="no model file of this name"):
        Model("other")


def test_before_any_promotion(described):
    with pytest.raises(NoChampion, match="steward train risk"):
        Model("risk", workspace=described.workspace)


def test_importing_the_package_stays_light():
    code = "import sys, steward; print(sorted({'numpy', 'pandas', 'sklearn', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'Modell'"):
        steward.Modell  # noqa: B018
