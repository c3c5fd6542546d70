"""The model file and the settings: every field is checked, every error names file, line, field, value and remedy."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward.config import ModelFile, Settings, format_duration, parse_duration
from steward.errors import ModelFileError, SettingsError, StewardError, UnknownModel

TEXT = (Path(__file__).parent.parent / "models" / "deployment_risk.yaml").read_text()


def changed(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)


def test_the_running_example_says_what_the_design_says():
    model = ModelFile.parse(TEXT)
    assert model.candidate_names == model.families
    assert model.label.mature_after == timedelta(days=7)
    assert model.columns["environment"].aliases["production"] == "prod"
    assert model.retrain.on == ("data_drift", "concept_drift", "accuracy", "new_feature", "event")
    assert model.metric == "accuracy"


def test_a_minimal_file_has_documented_defaults():
    model = ModelFile.parse(
        "{name: m, task: regression, source: {table: t.csv, key: id}, label: {column: y}, columns: {x: {type: number}}}"
    )
    assert model.candidate_names[0] == "linear_regression"
    assert (model.metric, model.search.trials, model.verify.detect, model.split.test) == ("rmse", 20, 0.05, 0.15)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        # an unknown field names what is allowed there
        ("max_rejected: 0.02", "max_rejectd: 0.02", 16, "rows.max_rejectd: unknown field; allowed: max_rejected, min"),
        ("split: {by: key", "split: {tests: 1, by: key", 19, "split.tests: unknown field; allowed: by, group, test"),
        # a missing field, a wrong type, a wrong choice, a number outside
        ("  key: deployment_id\n", "", 4, "source.key: required field is missing"),
        ("min: 500", "min: many", 16, "rows.min: Input should be a valid integer.*got 'many'"),
        ("type: integer, min: 0, max: 23", "type: intger", 14, "columns.hour.type: .*'integer', 'number'"),
        ("confidence: 0.95", "confidence: 1.5", 24, "verify.confidence: Input should be less than 1"),
        ("min: 0, max: 100000", "min: 5, max: 1", 11, "columns.files_changed: .*min 5.0 is above max 1.0"),
        ("mature_after: 7d", "mature_after: soon", 9, "label.mature_after: a duration is a number"),
        ('schedule: "@daily"', "schedule: daily", 38, "monitor.schedule: a schedule is a cron expression"),
        # rules over several fields point at the field they speak of
        (
            "candidates: [logistic_regression",
            "candidates: [logistic",
            20,
            "candidates: knows no 'logistic'; allowed: log",
        ),
        ("metric: accuracy", "metric: acuracy", 22, "select.metric: knows no metric 'acuracy'; allowed: accuracy"),
        ("slices: [environment, team]", "slices: [region]", 28, "verify.slices: names .*region"),
        ("hour >= 22", "hours >= 22", 18, "features.night: reads .*hours"),
        ("prediction: Medium", "prediction: Middling", 36, "fallback.prediction: 'Middling' is not among"),
        ("test: 0.15", "test: 0.25", 19, "train \\+ validation \\+ test must be 1, not 1.1"),
        ("  time: requested_at\n", "", 8, "label.mature_after: needs source.time"),
        ("  files_changed:  ", "  risk_level:  ", 11, "columns.risk_level: is the label"),
        ("classes: [Low, Medium, High]", "classes: [Low]", 9, "label.classes: must list at least two"),
        # code is refused when the file is read, not when it would run
        ("hour < 6", "__import__('os')", 18, "features.night.expression: calls are not allowed"),
        ("prediction == 'High' and", "prediction.x == 'High' and", 33, "attribute is not allowed"),
        # secrets stay out of the file
        (
            "data/deployments/*.parquet",
            "postgresql://me:secret@db/x::t",
            5,
            "a password does not belong in a model file",
        ),
        # YAML itself
        ("notify: []", "notify: [", 41, "not valid YAML"),
        ("notify: []", "name: again", 40, "a field stands twice: got 'name'"),
    ],
)
def test_a_wrong_file_names_line_field_value_and_what_is_allowed(old, new, line, message):
    with pytest.raises(ModelFileError, match=rf"risk.yaml:{line}: {message}|risk.yaml:{line}: .*{message}") as caught:
        ModelFile.parse(changed(old, new), "risk.yaml")
    assert caught.value.facts.get("line") == line


def test_every_problem_is_told_at_once():
    with pytest.raises(ModelFileError, match=r"(?s)rows.min.*verify.detect"):
        ModelFile.parse(changed("min: 500", "min: x").replace("detect: 0.05", "detect: y"))


@pytest.mark.parametrize("words", ["yes", "no", "on", "off"])
def test_categories_that_yaml_1_1_takes_for_booleans_stay_texts(words):
    model = ModelFile.parse(
        changed("[dev, staging, prod], aliases: {production: prod, Prod: prod}", f"[{words}, other]")
    )
    assert model.columns["environment"].values == (words, "other")


@pytest.mark.parametrize(("written", "read"), [("[0, 1]", ("0", "1")), ("[true, false]", ("true", "false"))])
def test_classes_that_are_not_texts_are_written_as_the_table_is_read(written, read):
    text = changed("[Low, Medium, High]", written).replace("fallback: {prediction: Medium}", "")
    assert ModelFile.parse(text).classes == read


def test_own_estimators_are_candidates_with_a_name():
    text = changed(
        "[logistic_regression, decision_tree", "[{estimator: sklearn.svm.LinearSVC, search: {C: {low: 0.1, high: 1}}}"
    )
    assert ModelFile.parse(text).candidate_names[0] == "linear_svc"
    with pytest.raises(ModelFileError, match=r"candidates.0.serch: unknown field; allowed: estimator"):
        ModelFile.parse(text.replace("search: {C", "serch: {C"))
    with pytest.raises(ModelFileError, match=r"search.C must be a list of choices or"):
        ModelFile.parse(text.replace("{low: 0.1, high: 1}", "{from: 0.1}"))


def test_a_run_may_ask_for_less():
    model = ModelFile.parse(TEXT)
    less = model.only(["random_forest"], trials=3)
    assert (less.candidate_names, less.search.trials) == (("random_forest",), 3)
    assert model.only(None, None) == model
    with pytest.raises(ModelFileError, match="no such candidate: got 'svm'; allowed: logistic_regression"):
        model.only(["svm"])


def test_the_schema_knows_every_field_and_refuses_unknown_ones():
    schema = json.loads(json.dumps(ModelFile.json_schema()))
    assert set(schema["properties"]) == set(ModelFile.model_fields)
    assert schema["additionalProperties"] is False
    undocumented = [
        f"{name}.{field}"
        for name, section in {"": schema, **schema["$defs"]}.items()
        for field, content in section["properties"].items()
        if "description" not in content
    ]
    assert undocumented == []


def test_a_model_survives_json():
    model = ModelFile.parse(TEXT)
    assert ModelFile.model_validate(json.loads(json.dumps(model.model_dump(mode="json")))) == model


@given(st.integers(1, 10**6), st.sampled_from("smhdw"))
def test_durations_round_trip(number, unit):
    duration = parse_duration(f"{number}{unit}")
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(max_size=200))
def test_no_text_makes_the_parser_fail_in_another_way(text):
    try:
        ModelFile.parse(text)
    except StewardError as error:
        assert isinstance(error, ModelFileError)  # noqa: PT017


def test_an_unreadable_model_file_is_a_named_error(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelFileError, match=r"m.yaml cannot be read"):
        ModelFile.load(path)


def test_settings_have_embedded_defaults_and_follow_the_environment(tmp_path):
    embedded = Settings.from_environment({"STEWARD_HOME": str(tmp_path)})
    assert embedded.ledger_url == f"sqlite:///{tmp_path}/ledger.db"
    assert embedded.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert embedded.store == str(tmp_path / "store")
    grown = Settings.from_environment(
        {"STEWARD_STORE": "s3://b", "STEWARD_LEDGER_URL": "postgresql://h/d", "STEWARD_THREADS": "3"}
    )
    assert (grown.store, grown.ledger_url, grown.threads) == ("s3://b", "postgresql://h/d", 3)
    with pytest.raises(SettingsError, match="STEWARD_THREADS must be a whole number: got 'two'"):
        Settings.from_environment({"STEWARD_THREADS": "two"})


def test_models_are_found_by_name(tmp_path):
    settings = Settings.from_environment({"STEWARD_MODELS": str(tmp_path)})
    with pytest.raises(UnknownModel, match=r"allowed: none yet.*steward init"):
        settings.model("risk")
    (tmp_path / "risk.yaml").write_text(TEXT)
    with pytest.raises(ModelFileError, match=r"name must be that of the file: got 'deployment_risk'; allowed: risk"):
        settings.model("risk")
    (tmp_path / "risk.yaml").write_text(TEXT.replace("name: deployment_risk", "name: risk"))
    assert settings.model("risk").name == "risk"
