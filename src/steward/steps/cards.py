"""The report step: the HTML card of a run."""

from steward.config import ModelFile
from steward.io.workspace import Workspace
from steward.records import (
    Approval,
    Candidate,
    Card,
    Challenger,
    Promotion,
    Reference,
    Roles,
    Selection,
    Snapshot,
    Verdict,
)
from steward.reports import card
from steward.steps.opening import read_opened


def report(workspace: Workspace, model: ModelFile, subject: Reference) -> Reference:
    """Write the HTML card of a run.

    Parameters
    ----------
    subject : a `Verdict` (before approval) or a `Promotion`.

    Returns
    -------
    Reference to a `Card`.
    """
    return workspace.remember(Card, [subject.digest], lambda: _card(workspace, model, subject))


def _card(workspace: Workspace, model: ModelFile, subject: Reference) -> Card:
    run = _run(workspace, model, subject)
    page = f"version-{run.promotion.version}" if run.promotion else f"opening-{run.verdict.opening}"
    with workspace.store.scratch() as folder:
        path = folder / f"{page}.html"
        path.write_text(card.render(run), encoding="utf-8")
        file = workspace.store.put(path, path.name)
        shown = workspace.store.put_page(path, f"{model.name}/{path.name}")
        if run.challenger.run_id:
            workspace.registry.log_card(run.challenger.run_id, path)
    return Card(model=model.name, of=subject, file=file, path=shown, run_id=run.challenger.run_id)


def _run(workspace: Workspace, model: ModelFile, subject: Reference) -> card.Run:
    """Everything that led to a verdict or a promotion."""
    promotion = workspace.load(Promotion, subject) if subject.kind == Promotion.kind else None
    reference = promotion.verdict if promotion else subject
    verdict = workspace.load(Verdict, reference)
    challenger = workspace.load(Challenger, verdict.challenger)
    chosen = workspace.load(Selection, challenger.selection)
    said = workspace.ledger.find(model.name, Approval.kind, reference.digest)
    opened = read_opened(workspace, model, verdict.test) if verdict.test.predictions else None
    lineage = {
        "roles": challenger.roles,
        **{f"candidate {_candidate_name(workspace, one)}": one for one in chosen.candidates},
        "selection": challenger.selection,
        "challenger": verdict.challenger,
        "verdict": reference,
    }
    return card.Run(
        model=model,
        snapshot=workspace.load(Snapshot, challenger.snapshot),
        roles=workspace.load(Roles, challenger.roles),
        candidates=tuple(workspace.load(Candidate, one) for one in chosen.candidates),
        selection=chosen,
        challenger=challenger,
        verdict=verdict,
        lineage=lineage | ({"promotion": subject} if promotion else {}),
        approval=Approval.model_validate({**said.body, "model": model.name, "at": said.at}) if said else None,
        promotion=promotion,
        truth=opened.truth if opened else None,
        predictions=opened.challenger if opened else None,
    )


def _candidate_name(workspace: Workspace, reference: Reference) -> str:
    return workspace.load(Candidate, reference).name
