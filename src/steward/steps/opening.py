"""The verify step: the sealed rows, opened once."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd

from steward.config import ModelFile
from steward.core import metrics, verification
from steward.errors import ArtifactDamaged, LedgerConflict, OpeningRefused
from steward.inference import Predictor
from steward.io.ledger import Entry
from steward.io.workspace import Workspace
from steward.records import Challenger, File, Reference, Roles, Skill, Test, Verdict
from steward.steps.looks import looks
from steward.steps.rows import rows_of

ANSWERERS = ("challenger", "constant", "champion")


def verify(workspace: Workspace, model: ModelFile, challenger: Reference, *, at: datetime) -> Reference:
    """Open the sealed rows once: claim them in the ledger, then score challenger and champion on them.

    Returns
    -------
    Reference to a `Verdict`.

    Raises
    ------
    OpeningRefused : the rows were opened by another challenger, or the roles are older than another opening.
    """
    return workspace.remember(Verdict, [challenger.digest], lambda: _verdict(workspace, model, challenger, at))


def _verdict(workspace: Workspace, model: ModelFile, reference: Reference, at: datetime) -> Verdict:
    """The recorded verdict on this challenger, or the one that its opening leads to."""
    challenger = workspace.load(Challenger, reference)
    entry = workspace.ledger.find(model.name, "verdict", challenger.digest)
    if entry is None:
        reached = _reach_verdict(workspace, model, reference, challenger, at)
        entry = workspace.ledger.append(model.name, "verdict", challenger.digest, reached, at)
    return Verdict.model_validate({**entry.body, "at": entry.at})


def _reach_verdict(
    workspace: Workspace, model: ModelFile, reference: Reference, challenger: Challenger, at: datetime
) -> dict[str, Any]:
    """A `Verdict` as plain JSON, but for its `at`."""
    test = _open_once(workspace, model, reference, challenger, at)
    opened = read_opened(workspace, model, test)
    roles = workspace.load(Roles, challenger.roles)
    frame, _, _ = rows_of(workspace, model, roles, "test")
    found = verification.slices(
        test.metric,
        {name: frame[name].to_numpy() for name in model.verify.slices},
        opened.truth,
        opened.challenger,
        opened.champion,
        model.classes,
        confidence=model.verify.confidence,
        seed=challenger.seed,
    )
    gates = verification.gates(
        model,
        test,
        opened,
        found,
        latency_ms=challenger.latency_us / 1_000,
        problem=workspace.artifacts.answers_in_clean_process(challenger),
        seed=challenger.seed,
    )
    verdict, reasons = verification.decide(gates)
    reached = Verdict(
        model=model.name,
        challenger=reference,
        digest=challenger.digest,
        verdict=verdict,
        reasons=reasons,
        gates=gates,
        slices=found,
        test=test,
        opening=roles.opening,
        at=at,
    )
    return {name: value for name, value in reached.as_json().items() if name != "at"}


def _open_once(
    workspace: Workspace, model: ModelFile, reference: Reference, challenger: Challenger, at: datetime
) -> Test:
    """The recorded result of this challenger's opening; without one the sealed rows are claimed, then scored.

    Everything that may be missing is loaded before the claim: a damaged file must not cost an opening.
    """
    roles = workspace.load(Roles, challenger.roles)
    contestants = _contestants(workspace, model, challenger)
    _claim(workspace, model, reference, challenger, roles, at)
    subject = str(roles.opening)
    recorded = workspace.ledger.find(model.name, "opening_result", subject)
    if recorded is None:
        test = _score_sealed(workspace, model, challenger, contestants)
        recorded = workspace.ledger.append(model.name, "opening_result", subject, test.as_json(), at)
    return Test.model_validate(recorded.body)


@dataclass(frozen=True)
class Contestant:
    """A trained model, answering as it serves, and what it was trained on."""

    predictor: Predictor
    trained_units: frozenset[str]
    version: int | None = None

    def answers(self, frame: pd.DataFrame, classes: tuple[str, ...]) -> npt.NDArray[np.float64]:
        """As the model file of its own time says; classes that it does not know get 0, columns that are gone are missing."""
        made = self.predictor.made
        gone = np.full(len(frame), np.nan)
        answers = self.predictor.answer(
            {name: frame[name].to_numpy() if name in frame else gone for name in made.inputs}
        )
        if made.classes == classes:
            return answers
        return np.column_stack(
            [answers[:, made.classes.index(name)] if name in made.classes else np.zeros(len(frame)) for name in classes]
        )


def _contestants(
    workspace: Workspace, model: ModelFile, challenger: Challenger
) -> tuple[Contestant, Contestant | None]:
    """The challenger, and the champion if there is one."""
    version = workspace.registry.champion(model.name)
    champion = (
        _contestant(workspace, workspace.load(Challenger, version.challenger), version.number) if version else None
    )
    return _contestant(workspace, challenger), champion


def _contestant(workspace: Workspace, made: Challenger, version: int | None = None) -> Contestant:
    units = pd.read_parquet(workspace.store.fetch(made.trained_units))["unit"]
    return Contestant(Predictor.load(workspace, made), frozenset(units), version)


def _claim(
    workspace: Workspace, model: ModelFile, reference: Reference, challenger: Challenger, roles: Roles, at: datetime
) -> None:
    """Write the opening down before any sealed label is read; raises OpeningRefused if it is not ours to open."""
    ledger, subject = workspace.ledger, str(roles.opening)
    entry = ledger.find(model.name, "opening", subject)
    if entry is None and len(ledger.entries(model.name, "opening")) == roles.opening - 1:
        body = {
            "digest": challenger.digest,
            "challenger": reference.as_json(),
            "name": challenger.name,
            "roles": challenger.roles.as_json(),
            "units": roles.file.as_json(),
            "rows": roles.rows["test"],
        }
        with suppress(LedgerConflict):
            ledger.append(model.name, "opening", subject, body, at)
        entry = ledger.find(model.name, "opening", subject)
    if entry is None or entry.body["digest"] != challenger.digest:
        _refuse_opening(roles, challenger, entry)


def _refuse_opening(roles: Roles, challenger: Challenger, entry: Entry | None) -> NoReturn:
    by = f"{entry.body['name']} {entry.body['digest'][:12]} at {entry.at.isoformat()}" if entry else "nobody"
    raise OpeningRefused(
        f"opening {roles.opening} of {roles.model} cannot be made: these sealed rows were opened by another challenger"
        if entry
        else f"opening {roles.opening} of {roles.model} does not follow the openings in the ledger",
        got=f"{challenger.name} {challenger.digest[:12]}",
        allowed=by,
        do="Run the training again: rows get new roles, and opened ones are trained on",
        opening=roles.opening,
    )


def _score_sealed(
    workspace: Workspace,
    model: ModelFile,
    made: Challenger,
    contestants: tuple[Contestant, Contestant | None],
) -> Test:
    """Both contestants' answers on exactly the same sealed rows, kept as evidence, and their figures."""
    challenger, champion = contestants
    roles = workspace.load(Roles, made.roles)
    frame, truth, units = rows_of(workspace, model, roles, "test")
    _, learned, _ = rows_of(workspace, model, roles, "train", "validation")
    opened = verification.Opened(
        truth=truth,
        challenger=challenger.answers(frame, model.classes),
        constant=metrics.constant(model.metric, learned, model.classes, len(truth)),
        champion=champion.answers(frame, model.classes) if champion else None,
    )
    return verification.examine(
        model,
        opened,
        version=champion.version if champion else None,
        overlap={
            "challenger": _overlap(units, challenger),
            "champion": _overlap(units, champion) if champion else 0,
        },
        predictions=_put_opened(workspace, model, units, opened),
        seed=made.seed,
        asked=_asked(workspace, model, champion.version, roles.opening) if champion else None,
    )


def _asked(workspace: Workspace, model: ModelFile, version: int | None, opening: int) -> Skill | None:
    """What looks at the champion had found about newer rows when the sealed rows were claimed."""
    claim = workspace.ledger.find(model.name, "opening", str(opening))
    before = (
        one for entry, one in looks(workspace, model.name, version) if claim is None or entry.sequence < claim.sequence
    )
    newest = next(before, None)
    return newest.question.skill if newest and newest.question else None


def _overlap(units: npt.NDArray[Any], contestant: Contestant) -> int:
    return sum(unit in contestant.trained_units for unit in units)


def _put_opened(workspace: Workspace, model: ModelFile, units: npt.NDArray[Any], opened: verification.Opened) -> File:
    """Unit, truth and every answer, a line per sealed row; columns are called `challenger:<class>` and so on."""
    frame = pd.DataFrame({"unit": units, "truth": opened.truth})
    for who in ANSWERERS:
        answers = getattr(opened, who)
        if answers is not None:
            frame[_answer_columns(model, who)] = answers.reshape(len(frame), -1)
    with workspace.store.scratch() as folder:
        path = folder / "opened.parquet"
        frame.to_parquet(path, index=False)
        return workspace.store.put(path, path.name)


def read_opened(workspace: Workspace, model: ModelFile, test: Test) -> verification.Opened:
    """What `_put_opened` kept: a repeated step judges the recorded answers and scores nothing again."""
    if test.predictions is None:
        raise ArtifactDamaged("an opening has lost its evidence", got="no predictions", do="Restore the ledger")
    frame = pd.read_parquet(workspace.store.fetch(test.predictions))

    def answers(who: str) -> Any:
        found = frame[_answer_columns(model, who)].to_numpy(float)
        return found if model.classes else found[:, 0]

    return verification.Opened(
        truth=frame["truth"].to_numpy(object if model.classes else float),
        challenger=answers("challenger"),
        constant=answers("constant"),
        champion=answers("champion") if test.champion else None,
    )


def _answer_columns(model: ModelFile, who: str) -> list[str]:
    return [f"{who}:{name}" for name in model.classes or ("prediction",)]
