"""One version of a model, ready to answer whoever asks from Python: `from steward import Model`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from steward.config import ModelFile, Settings
from steward.core.actions import Policy
from steward.core.answers import Answering, Answers, Coded
from steward.core.requests import Admitted, Reader, columns_of
from steward.errors import NoChampion, RecordInvalid
from steward.inference import Predictor, registration, trained_as
from steward.io.workspace import Workspace
from steward.records import Challenger, Promotion

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 10
"""The most broken rows of a frame that an error tells of."""


class Model:
    """The champion of a model, or another of its versions; it answers as the service and batch scoring do.

    The version is found in the ledger once, here; a later promotion needs a new `Model`. Safe to share among threads.

    Parameters
    ----------
    name : name of the model file, or the file itself, read.
    version : the champion if None.
    workspace : where everything is; as the environment says if None.

    Attributes
    ----------
    version : the number of the version that answers.
    predictor : the version, loaded. Its `model` is the contract of its own time.
    answering : makes answers of what it computes, by the actions of today's model file.

    Raises
    ------
    UnknownModel, ModelFileError : no such model file, or one that cannot be read.
    NoChampion, VersionUnknown : nothing was promoted yet, or there is no such version.
    ArtifactDamaged, ArtifactUntrusted : the version's files are not those that were recorded.
    """

    def __init__(
        self, name: str | ModelFile, version: int | None = None, *, workspace: Workspace | None = None
    ) -> None:
        workspace = workspace or Workspace(Settings.from_environment())
        model = workspace.model(name) if isinstance(name, str) else name
        self.name = model.name
        self.version, made = trained(workspace, model.name, version)
        self.predictor = Predictor.load(workspace, made)
        self.answering = Answering(made.classes, Policy(model.serve.actions), self.predictor.half_width)
        self._reader = Reader(self.predictor.model, model.serve)

    def __repr__(self) -> str:
        return f"Model({self.name!r}, version={self.version})"

    @overload
    def predict(self, given: Mapping[str, Any]) -> dict[str, Any]: ...

    @overload
    def predict(self, given: "pd.DataFrame") -> "pd.DataFrame": ...

    def predict(self, given: "Mapping[str, Any] | pd.DataFrame") -> "dict[str, Any] | pd.DataFrame":
        """The answer to one record, or to the rows of a frame.

        Parameters
        ----------
        given : a record: what the service takes as JSON. Or a frame with a column per contract column (a nullable one may
            be absent); its other columns are ignored.

        Returns
        -------
        For a record a dict: model, prediction, confidence, probabilities, interval, action, message, unseen, flags,
        model_version. For a frame one with the same index and a line per row: prediction, confidence and
        `probability_<class>` (regression: prediction, low, high), action, message, unseen, flags, model_version.

        Raises
        ------
        RecordInvalid : the record, or a row of the frame, breaks the contract.
        """
        if isinstance(given, Mapping):
            return self._predict_record(given)
        return self._predict_frame(given)

    def answers(self, columns: Mapping[str, Sequence[Any]]) -> Answers:
        """The answers to admitted rows: n values per contract column."""
        return self.answering.many(self.predictor.answer(columns), self.predictor.unseen(columns), columns)

    def _predict_record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        row, flags = self._reader.read(record)
        columns = columns_of([row])
        answer = self.answering.one(self.predictor.answer(columns), self.predictor.unseen(columns), row)
        return {"model": self.name, **answer._asdict(), "flags": list(flags), "model_version": self.version}

    def _predict_frame(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        import pandas as pd

        admitted = self._admit(frame)
        columns = columns_of([row for row, _ in admitted]) or {name: [] for name in self.predictor.model.columns}
        flags = {
            name: np.array([name in found for _, found in admitted])
            for name in sorted({name for _, found in admitted for name in found})
        }
        made = self.answers(columns).as_columns(flags)
        plain = {name: column.spread() if isinstance(column, Coded) else column for name, column in made.items()}
        return pd.DataFrame({**plain, "model_version": self.version}, index=frame.index)

    def _admit(self, frame: "pd.DataFrame") -> list[Admitted]:
        known = frame[[name for name in self.predictor.model.columns if name in frame.columns]]
        values = [column.where(column.notna(), None).tolist() for _, column in known.astype(object).items()]
        rows = zip(*values, strict=True) if values else iter([()] * len(frame))
        admitted, problems = [], []
        for label, row in zip(frame.index, rows, strict=True):
            try:
                admitted.append(self._reader.read(dict(zip(known.columns, row, strict=True))))
            except RecordInvalid as problem:
                problems.append(f"row {label}: {problem}")
        if problems:
            raise RecordInvalid(
                f"{len(problems)} of {len(frame)} rows break the contract",
                got="\n".join(problems[:SHOWN]),
                do="Leave these rows out, or use `steward score`, which sets them aside",
                problems=problems,
            )
        return admitted


def trained(workspace: Workspace, name: str, version: int | None) -> tuple[int, Challenger]:
    """The version's number and what it was trained as: the ledger knows, by the entry of the pipeline about it.

    Raises NoChampion, VersionUnknown.
    """
    entries = workspace.ledger.entries(name, Promotion.kind, newest_first=True)
    if version is None:
        version = entries[0].body["champion"] if entries else None
    if version is None:
        raise NoChampion(f"{name} has no champion yet", do=f"`steward train {name}` trains and verifies one")
    return version, trained_as(workspace, registration(entries, name, version))
