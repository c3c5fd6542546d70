"""A column that the contract does not know: what kind it is, and what it would add."""

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steward.config import Column, ModelFile
from steward.core import estimators, metrics
from steward.records import Estimate

FOLDS = 3
PARAMS = {"learning_rate": 0.1, "max_iter": 60}
FEWEST_ROWS = 200
"""Labelled rows with which it is worth trying."""
MOST_ROWS = 5_000
NUMERIC = 0.95
"""Share of the values that must be numbers for a column of texts to be one of numbers."""
CONFIDENCE = 0.99
"""Of the gain: many columns are tried, and often."""


def kind_of(values: pd.Series) -> Literal["number", "category"]:
    """Number or category, from its values.

    >>> kind_of(pd.Series(["1", "2.5", None])), kind_of(pd.Series(["a", "b"]))
    ('number', 'category')
    """
    there = values.dropna()
    readable = pd.to_numeric(there, errors="coerce").notna().mean() if len(there) else 0
    return "number" if readable >= NUMERIC else "category"


def gain(model: ModelFile, frame: pd.DataFrame, extra: pd.Series, truth: NDArray[Any], *, seed: int) -> Estimate | None:
    """What a column adds to the metric: gradient boosting with and without it, by cross-validation on the same rows.

    Parameters
    ----------
    frame, extra, truth : n rows that are not sealed; a learning frame of the contract, the column, and the labels.

    Returns
    -------
    The difference, positive where the column helps; None where too few rows have a label, or all the same.
    """
    if len(frame) < FEWEST_ROWS or len(np.unique(truth.astype(str))) < 2:  # noqa: PLR2004
        return None
    kind = kind_of(extra)
    column = Column(type=kind, nullable=True, **({"open": True} if kind == "category" else {}))
    wider = model.model_copy(update={"columns": {**model.columns, str(extra.name): column}})
    values = (
        pd.to_numeric(extra, errors="coerce") if kind == "number" else extra.astype(object).where(extra.notna(), None)
    )
    with_it = frame.assign(**{str(extra.name): values.to_numpy()})
    folds = np.random.default_rng(seed).permutation(np.arange(len(frame)) % FOLDS)
    without = _out_of_fold(model, frame, truth, folds, seed)
    better = _out_of_fold(wider, with_it, truth, folds, seed)
    return metrics.paired(model.metric, truth, better, without, model.classes, confidence=CONFIDENCE, seed=seed)


def _out_of_fold(
    model: ModelFile, frame: pd.DataFrame, truth: NDArray[Any], folds: NDArray[np.intp], seed: int
) -> NDArray[np.float64]:
    answers: NDArray[np.float64] = np.zeros((len(frame), len(model.classes)) if model.classes else len(frame))
    for fold in range(FOLDS):
        inside, outside = folds != fold, folds == fold
        pipeline = estimators.build(model, "gradient_boosting", PARAMS, seed=seed, threads=1)
        estimators.fit(pipeline, frame[inside], truth[inside], threads=1)
        answers[outside] = estimators.predictions(pipeline, frame[outside], model)
    return answers
