"""A model that is served, falls, is trained again and taken back: what the pages have to tell."""

import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from steward import operations, pipeline
from steward.config import ModelFile
from steward.io.predictions import Logged, new_id
from steward.io.workspace import Workspace
from steward.prediction import Model

DAY = timedelta(days=1)
HOSTILE = "<script>alert('1')</script> {{ 7*7 }} \u202e"
PER_DAY = 60
KEPT = ("prediction", "confidence", "probabilities", "interval", "action", "unseen", "flags")


@dataclass
class Story:
    """What happened, and where."""

    installation: Any
    crowned: datetime
    """When version 1 became champion."""

    @property
    def began(self) -> datetime:
        """The noon after: no look is due earlier or later for the hour at which the tests are run."""
        return (self.crowned + DAY).replace(hour=12, minute=0, second=0, microsecond=0)

    @property
    def workspace(self) -> Workspace:
        return self.installation.workspace

    @property
    def model(self) -> ModelFile:
        return self.workspace.model("risk")

    def day(self, number: float) -> datetime:
        return self.began + number * DAY

    def serve(self, first: int, last: int, flipped: bool = False) -> None:
        """So many days of predictions, whose outcomes come a day later."""
        workspace, model = self.workspace, self.model
        champion, drawn = Model(model, workspace=workspace), random.Random(first)
        rows, outcomes = [], []
        for place in range((last - first) * PER_DAY):
            at = self.day(first).timestamp() + place * DAY.total_seconds() / PER_DAY + 1
            files = drawn.randint(0, 1000)
            record = {"files": files, "stage": drawn.choice(["dev", "prod"])}
            told = champion.predict(record)
            answer = json.dumps({name: told[name] for name in KEPT})
            logged = (told["prediction"], told["confidence"], told["action"], False, None)
            rows.append(Logged(new_id(at), "risk", at, champion.version, None, json.dumps(record), answer, *logged))
            label = "High" if (files > 500) != flipped else "Low"
            outcomes.append({"prediction_id": rows[-1].prediction_id, "label": label})
        workspace.predictions.prepare()
        writer = workspace.predictions.writer(durable=False, patience=5)
        writer.write(rows)
        writer.close()
        for place in range(0, len(rows), PER_DAY):
            arrived = datetime.fromtimestamp(rows[place].at, UTC) + DAY
            workspace.predictions.add_outcomes(model, outcomes[place : place + PER_DAY], arrived)

    def look(self, day: float) -> pipeline.Look:
        return pipeline.monitor(self.workspace, self.model, at=self.day(day))

    def add_rows(self, count: int) -> None:
        """Labelled rows of the new time come to the source."""
        drawn = random.Random(count)
        with self.installation.rows.open("a") as lines:
            for number in range(count):
                files = drawn.randint(0, 1000)
                lines.write(
                    f"new-{number},{files},{drawn.choice(['dev', 'prod'])},{'Low' if files > 500 else 'High'}\n"
                )


@pytest.fixture(scope="session")
def told(champion, tmp_path_factory) -> Story:
    """The whole story, told once; nobody changes it."""
    installation = champion[0].copy(tmp_path_factory.mktemp("story"))
    crowned = installation.workspace.ledger.entries("risk", "promotion")[0]
    story = Story(installation, crowned.at)
    story.serve(0, 6)
    story.look(6)
    story.serve(6, 12, flipped=True)
    story.look(13)
    story.add_rows(600)
    pipeline.train(story.workspace, story.model, at=story.day(13.5), reason=HOSTILE, by="eve <b>", run_id="second")
    operations.rollback(story.workspace, story.model, 1, why=HOSTILE, by="ada", at=story.day(14))
    return story


@pytest.fixture
def changed(told, tmp_path) -> Story:
    """A copy of the story, to go on with."""
    return Story(told.installation.copy(tmp_path), told.crowned)
