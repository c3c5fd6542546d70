"""A version, loaded and ready to answer.

What is imported here is imported by the service: NumPy and ONNX Runtime. scikit-learn and pandas come only with versions
whose engine needs them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steward.config import ModelFile
from steward.core.leaf_tables import LeafTables
from steward.core.preparation import Encoding, Plan
from steward.errors import ArtifactDamaged, VersionUnknown
from steward.records import Challenger, File, Promotion, Verdict

if TYPE_CHECKING:
    from steward.io.artifacts import Artifacts, OnnxModel
    from steward.io.ledger import Entry
    from steward.io.workspace import Workspace

Answers = NDArray[np.float64]
Columns = Mapping[str, Sequence[Any] | NDArray[Any]]
Engine = Callable[[Columns], Answers]
"""Columns of n rows → probabilities of shape (n, known classes) in the estimator's order, or predictions (n,)."""


class Predictor:
    """One version of a model; may be called from several threads at once.

    Attributes
    ----------
    made : what it was trained as.
    model : the model file of its own time: contract and features come from there.
    engine : what answers: "tables", "onnx", "estimator" or "pipeline".
    half_width : regression: the truth is within prediction ± half_width at the confidence of `verify`; None if unknown.
    """

    def __init__(self, made: Challenger, encoding: Encoding, engine: Engine, known: Sequence[Any]) -> None:
        self.made = made
        self.model = ModelFile.model_validate(made.model_file)
        self.engine = made.engine
        self.half_width = made.half_width
        self._encoding = encoding
        self._engine = engine
        self._positions = [made.classes.index(str(name)) for name in known]
        self._ordered = self._positions == list(range(len(made.classes)))

    @classmethod
    def load(cls, workspace: "Workspace", made: Challenger) -> "Predictor":
        """Read a version's files; raises ArtifactDamaged or ArtifactUntrusted."""
        return cls.open(workspace.artifacts, made)

    @classmethod
    def open(cls, artifacts: "Artifacts", made: Challenger) -> "Predictor":
        """As `load`, without a workspace."""
        if made.engine == "pipeline":
            pipeline = artifacts.load_skops(made.skops)
            return cls(made, pipeline[0].encoding, pipeline_engine(pipeline, made.inputs), _classes(pipeline[-1]))
        plan = Plan.from_json(artifacts.load_json(_present(made.plan, made)))
        if made.engine == "estimator":
            estimator = artifacts.load_skops(made.skops)[-1]
            return cls(made, plan.encoding, estimator_engine(plan, estimator), _classes(estimator))
        if made.engine == "tables":
            tables = LeafTables.read(artifacts.load_arrays(_present(made.tables, made)))
            return cls(made, plan.encoding, tables_engine(plan, tables), made.known_classes)
        session = artifacts.onnx_session(_present(made.onnx, made))
        return cls(made, plan.encoding, onnx_engine(plan, session), made.known_classes)

    def answer(self, columns: Columns) -> Answers:
        """Answers for rows that keep the contract.

        Parameters
        ----------
        columns : per contract column n values: numbers (NaN or None where missing), or texts and None.

        Returns
        -------
        Probabilities of shape (n, classes) in the order of `made.classes`; for a regression predictions of shape (n,).
        """
        answers = self._engine(columns)
        if self._ordered:
            return answers
        aligned = np.zeros((len(answers), len(self.made.classes)))
        aligned[:, self._positions] = answers
        return aligned

    def unseen(self, columns: Columns) -> dict[str, list[bool]]:
        """Per category column, which values training did not know; a missing value is not one of them."""
        return self._encoding.unseen_values(columns)


def registration(entries: "Iterable[Entry]", name: str, version: int) -> "Entry":
    """The newest entry that the pipeline made about a version of a model; one made by hand has an `act`.

    Parameters
    ----------
    entries : the model's `promotion` entries, in any order.

    Raises
    ------
    VersionUnknown : there is none.
    """
    ordered = sorted(entries, key=lambda entry: entry.sequence)
    made: dict[int, Entry] = {entry.body["version"]: entry for entry in ordered if "act" not in entry.body}
    if version not in made:
        known = ", ".join(map(str, sorted(made))) or "none yet"
        raise VersionUnknown(
            f"{name} has no such version", got=version, allowed=known, do=f"`steward history {name}` lists them"
        )
    return made[version]


def trained_as(workspace: "Workspace", registered: "Entry") -> Challenger:
    """What a version was trained as, by the pipeline's entry about it."""
    verdict = workspace.load(Verdict, Promotion.model_validate(registered.body).verdict)
    return workspace.load(Challenger, verdict.challenger)


def tables_engine(plan: Plan, tables: LeafTables) -> Engine:
    """Rows prepared by a plan, answered by tables of boosted trees."""
    return lambda columns: tables.answer(plan.matrix(columns))


def onnx_engine(plan: Plan, model: "OnnxModel") -> Engine:
    """Rows prepared by a plan, answered by ONNX Runtime."""
    return lambda columns: model.answer(plan.matrix(columns))


def estimator_engine(plan: Plan, estimator: Any) -> Engine:
    """Rows prepared by a plan, answered by the last step of a scikit-learn pipeline; one thread."""
    from threadpoolctl import ThreadpoolController

    predict = estimator.predict_proba if hasattr(estimator, "classes_") else estimator.predict
    threads = ThreadpoolController()

    def answer(columns: Columns) -> Answers:
        with threads.limit(limits=1):
            return _plain(predict(plan.matrix(columns)))

    return answer


def pipeline_engine(pipeline: Any, inputs: Mapping[str, str]) -> Engine:
    """A whole scikit-learn pipeline on a pandas frame; one thread.

    Parameters
    ----------
    inputs : contract columns and their types.
    """
    import pandas as pd

    from steward.core import estimators

    predict = pipeline.predict_proba if hasattr(pipeline[-1], "classes_") else pipeline.predict
    kinds = {name: object if kind == "category" else float for name, kind in inputs.items()}

    def answer(columns: Columns) -> Answers:
        frame = pd.DataFrame({name: pd.Series(columns[name], dtype=kind) for name, kind in kinds.items()})
        with estimators.steady(1):
            return _plain(predict(frame))

    return answer


def _classes(estimator: Any) -> Sequence[Any]:
    found: Sequence[Any] = getattr(estimator, "classes_", ())
    return found


def _plain(answers: Any) -> Answers:
    found = np.asarray(answers, dtype=np.float64)
    return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found  # noqa: PLR2004


def _present(file: File | None, made: Challenger) -> File:
    if file is None:
        raise ArtifactDamaged(
            f"the record of {made.name} names no file for its engine", got=made.engine, do="Train again"
        )
    return file


def answer_example(request: Mapping[str, Any]) -> None:
    """The body of `Artifacts.answers_in_clean_process`; any problem is an exception, hence exit code 1."""
    from pathlib import Path

    from steward.io.artifacts import Artifacts
    from steward.io.store import Store

    made = Challenger.model_validate(request["challenger"])
    artifacts = Artifacts(Store(request["url"], Path(request["cache"])), request["trusted_types"])
    answer = Predictor.open(artifacts, made).answer({name: [made.example.get(name)] for name in made.inputs})
    if len(answer) != 1 or not np.isfinite(answer).all():
        raise ArtifactDamaged("the artifact does not answer its example", got=answer.tolist())
