"""Records of a batch are put on record, and answered, as each of them would be alone."""

import asyncio
import json

import numpy as np
import pytest

from steward.config import ModelFile
from steward.core.actions import Policy
from steward.core.answers import Answering
from steward.core.requests import Reader
from steward.serving.lineup import Contender, Engine, Lineup
from steward.serving.replies import reply_to_many, reply_to_one

MODEL = """
{name: m, task: TASK, source: {table: t.csv, key: id}, label: LABEL,
 columns: {files: {type: integer, min: 0, max: 9, nullable: true}, team: {type: category, open: true}},
 serve: {out_of_range: flag, unknown_fields: ignore, control: CONTROL, fallback: {prediction: FALLBACK},
         actions: [{when: "files > 3 or team == 'a'", do: look, say: "Look\\ntwice"}]}}
"""
TASKS = {
    "classification": {"LABEL": "{column: y, classes: [Low, High]}", "FALLBACK": "High"},
    "regression": {"LABEL": "{column: y}", "FALLBACK": "1.5"},
}
RECORDS = [
    {"files": 7, "team": "a", "id": "r1"},
    {"files": None, "team": 'two\nlines, "quotes"\u2028', "id": 2},
    {"files": 12, "team": "b", "extra": 1},
    {"files": 0, "team": "new"},
]


class Known:
    """Stands for a loaded version: answers depend on the row alone."""

    engine = "tables"

    def __init__(self, model):
        self.model = model

    def answer(self, columns):
        share = np.array([0.3 if files is None else files / 16 for files in columns["files"]])
        return share if self.model.task == "regression" else np.column_stack([1 - share, share])

    def unseen(self, columns):
        return {"team": [team not in ("a", "b") for team in columns["team"]]}


def lineup_of(task: str, control: str, *, answers: bool) -> Lineup:
    text = MODEL
    for word, meaning in {"TASK": task, "CONTROL": control, **TASKS[task]}.items():
        text = text.replace(word, meaning)
    model = ModelFile.parse(text)
    answering = Answering(model.classes, Policy(model.serve.actions), 0.25)
    contender = Contender(Engine(1, Known(model)), Reader(model, model.serve), answering, None)
    return Lineup(model, (contender,) if answers else (), 1, None)


def without_identity(rows, body):
    """Everything but id, time and what is drawn from them."""
    stored = [(*row[3:5], json.loads(row.record), json.loads(row.answer), *row[7:]) for row in rows]
    drawn = ("prediction_id", "timestamp")
    return stored, [{name: value for name, value in each.items() if name not in drawn} for each in body]


@pytest.mark.parametrize("answers", [True, False], ids=["version", "constant"])
@pytest.mark.parametrize("control", ["0.0", "0.999999999"])
@pytest.mark.parametrize("task", TASKS)
def test_many_are_answered_and_kept_as_each_alone(task, control, answers):
    lineup = lineup_of(task, control, answers=answers)
    alone = [reply_to_one(lineup, r, asyncio.run(lineup.answer(r)), 1.5e9) for r in RECORDS]
    together = reply_to_many(
        lineup, RECORDS, asyncio.run(lineup.answer_many(RECORDS, lineup.reader.read_many(RECORDS))), 1.5e9
    )
    rows, bodies = [row for given in alone for row in given.rows], [json.loads(given.body(True)) for given in alone]
    many = json.loads(together.body(True))["predictions"]
    assert without_identity(together.rows, many) == without_identity(rows, bodies)
    assert [row.prediction_id for row in together.rows] == [each["prediction_id"] for each in many]
    assert together.unseen == ({"team": 2} if answers else {})
    assert list(together.flags) == [flags for given in alone for flags in given.flags]
