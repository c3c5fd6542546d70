"""Columns that nobody declared: since when, how complete, and what they would add."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from steward import steps
from steward.config import Column
from steward.core import novelty
from steward.records import NewFeatures

DAY = timedelta(days=1)
FIRST = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def found(company):
    def ask(model=None, at=FIRST):
        workspace, model = company.workspace, model or company.model
        reference = steps.find_features(workspace, model, steps.observe(workspace, model, at=at))
        assert steps.find_features(workspace, model, steps.observe(workspace, model, at=at)) == reference
        return workspace.load(NewFeatures, reference)

    return ask


def puzzle(count, seed):
    """Rows whose outcome only the new column tells."""
    rng = np.random.default_rng(seed)
    outcome = rng.choice(["Low", "High"], count)
    return outcome, np.where(rng.random(count) < 0.1, "a", np.where(outcome == "High", "b", "c"))


def test_nothing_new(found):
    assert found().features == ()


def test_a_column_that_tells_the_outcome(company, found):
    outcome, hint = puzzle(1_200, 1)
    company.add(company.rows(1_200, FIRST - DAY, days=3, outcome=outcome, hint=hint))
    (feature,) = found().features
    assert (feature.column, feature.type, feature.since.date()) == ("hint", "string", (FIRST - 4 * DAY).date())
    assert feature.filled > 0.8
    assert feature.gain.low > 0.2
    assert feature.rows > 500
    assert "take it into `columns` of the model file" in feature.says
    assert found().triggers == ()


def test_a_column_of_noise_is_within_noise(company, found):
    company.add(company.rows(800, FIRST, noise=np.random.default_rng(1).normal(size=800)))
    (feature,) = found().features
    assert feature.gain.low <= 0
    assert "within noise" in feature.says


@pytest.mark.parametrize(("values", "filled"), [(None, 0), ([*["x"] * 5, *[None] * 45], 0.1)], ids=["empty", "few"])
def test_hardly_any_value(company, found, values, filled):
    company.add(company.rows(50, FIRST, hint=values))
    (feature,) = found().features
    assert (feature.gain, feature.filled) == (None, pytest.approx(filled, abs=0.1))
    assert "too few labelled rows" in feature.says


def test_a_column_that_somebody_declared_is_a_trigger(company, found):
    company.add(company.rows(100, FIRST, hint=1.0))
    columns = {**company.model.columns, "hint": Column(type="number", nullable=True)}
    wider = company.model.model_copy(update={"columns": columns})
    (trigger,) = found(wider).triggers
    assert (trigger["kind"], trigger["cause"]) == ("new_feature", "new_feature:1:hint")


def test_a_source_that_is_gone(company, found):
    company.serve(company.rows(10, FIRST))
    company.table.unlink()
    assert found().features == ()


def test_sealed_rows_are_not_tried(company, found, monkeypatch):
    """Every row sealed: nothing is left to try."""
    outcome, hint = puzzle(600, 2)
    company.add(company.rows(600, FIRST, outcome=outcome, hint=hint))
    monkeypatch.setattr("steward.core.splitting.roles_by_unit", lambda units, _: np.full(len(units), 2, np.uint8))
    (feature,) = found().features
    assert (feature.rows, feature.gain) == (0, None)


def test_what_a_column_adds_is_remembered_until_there_is_more_of_it(company, monkeypatch):
    """A look that finds nothing new does not train; a quarter more values are a reason to."""
    measured = []
    gain = novelty.gain
    monkeypatch.setattr(novelty, "gain", lambda *given, **how: measured.append(1) or gain(*given, **how))
    outcome, hint = puzzle(600, 1)
    company.add(company.rows(600, FIRST, outcome=outcome, hint=hint))
    first = looked(company, FIRST)
    assert looked(company, FIRST + DAY).features == first.features
    assert len(measured) == 1
    outcome, hint = puzzle(300, 2)
    company.add(company.rows(300, FIRST + 2 * DAY, outcome=outcome, hint=hint))
    assert looked(company, FIRST + 2 * DAY).features[0].rows > first.features[0].rows
    assert len(measured) == 2


def looked(company, at):
    """A look with its decision, which is what the next one remembers."""
    workspace, model = company.workspace, company.model
    seen = steps.observe(workspace, model, at=at)
    found = steps.find_features(workspace, model, seen)
    steps.decide_retraining(workspace, model, [seen, found], at=at)
    return workspace.load(NewFeatures, found)
