"""The approve and promote steps: a person's answer, and what becomes of a verdict."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from steward.config import ModelFile
from steward.io.ledger import Entry
from steward.io.workspace import Workspace
from steward.records import Approval, Challenger, Promotion, Reference, Verdict


def approve(
    workspace: Workspace,
    model: ModelFile,
    verdict: Reference,
    *,
    decision: Literal["approved", "refused", "timed_out"],
    by: str,
    why: str,
    at: datetime,
) -> Reference:
    """Put a person's answer on record. The first answer stands; the same answer again finds it.

    Returns
    -------
    Reference to an `Approval`, whose `at` is that of the first answer.

    Raises
    ------
    LedgerConflict : this verdict was answered differently.
    """
    answer = {"verdict": verdict.as_json(), "decision": decision, "by": by, "why": why}
    entry = workspace.ledger.append(model.name, Approval.kind, verdict.digest, answer, at)
    return workspace.remember(
        Approval, [entry.digest], lambda: Approval.model_validate({**answer, "model": model.name, "at": entry.at})
    )


def promote(
    workspace: Workspace, model: ModelFile, verdict: Reference, *, approval: Reference | None = None, at: datetime
) -> Reference:
    """Register the challenger and, if verdict and approval allow, make it the champion. Twice is the same as once.

    The decision is in the ledger before an alias moves, so that a repeated step carries out the recorded decision, and
    leaves the aliases alone if somebody has decided otherwise since.

    Returns
    -------
    Reference to a `Promotion`.
    """
    inputs = [verdict.digest, approval.digest if approval else None]
    return workspace.remember(Promotion, inputs, lambda: _promotion(workspace, model, verdict, approval, at))


def _promotion(
    workspace: Workspace, model: ModelFile, reference: Reference, approval: Reference | None, at: datetime
) -> Promotion:
    verdict = workspace.load(Verdict, reference)
    version = _registered(workspace, verdict)
    subject = (approval or reference).digest
    entry = workspace.ledger.find(model.name, "promotion", subject)
    if entry is None:
        said = workspace.load(Approval, approval) if approval else None
        aliases = workspace.registry.aliases(model.name)
        decided = _decide_promotion(model, reference, verdict, said, version, aliases, at)
        entry = workspace.ledger.append(model.name, "promotion", subject, decided.as_json(), at)
    decided = Promotion.model_validate(entry.body)
    newest, *_ = workspace.ledger.entries(model.name, "promotion", newest_first=True, limit=1)
    if newest.sequence == entry.sequence:
        move_aliases(workspace, decided)
    return decided


def _registered(workspace: Workspace, verdict: Verdict) -> int:
    challenger = workspace.load(Challenger, verdict.challenger)
    return workspace.registry.register(
        challenger,
        verdict.challenger,
        verdict,
        skops=workspace.store.fetch(challenger.skops),
        onnx=workspace.store.fetch(challenger.onnx) if challenger.onnx else None,
        types=workspace.artifacts.types(challenger.skops),
    )


def _decide_promotion(
    model: ModelFile,
    reference: Reference,
    verdict: Verdict,
    approval: Approval | None,
    version: int,
    aliases: Mapping[str, int],
    at: datetime,
) -> Promotion:
    """A rejected version gets no alias: it is kept as evidence, and nothing should find it by name."""
    serving, obstacle = aliases.get("champion"), _obstacle(model, verdict, approval, aliases.get("champion"))
    promoted = verdict.verdict == "promote" and obstacle is None
    kept: Literal["challenger"] | None = None if verdict.verdict == "reject" else "challenger"
    return Promotion(
        model=model.name,
        verdict=reference,
        version=version,
        alias="champion" if promoted else kept,
        champion=version if promoted else serving,
        previous=serving if promoted else aliases.get("previous"),
        reasons=(*verdict.reasons, obstacle) if obstacle else verdict.reasons,
        at=at,
    )


def _obstacle(model: ModelFile, verdict: Verdict, approval: Approval | None, serving: int | None) -> str | None:
    """Why a version whose verdict is to promote is not promoted, None if nothing stands against it."""
    if verdict.verdict != "promote":
        return None
    if approval and approval.decision != "approved":
        return f"Not approved: {approval.decision.replace('_', ' ')}, {approval.by}: {approval.why}"
    if approval is None and model.approve == "person":
        return "No person has approved it yet."
    compared = verdict.test.champion["version"] if verdict.test.champion else None
    if compared != serving:
        return f"It was compared with {_shown(compared)}, but {_shown(serving)} serves now."
    return None


def _shown(version: int | None) -> str:
    return "no champion" if version is None else f"version {version}"


def enthrone(
    workspace: Workspace,
    registered: Promotion,
    *,
    act: str,
    why: str,
    by: str,
    at: datetime,
    subject: str | None = None,
) -> Entry:
    """Make a registered version the champion, for a reason that is on record before an alias moves.

    Parameters
    ----------
    registered : what the pipeline decided about the version when it was registered.
    subject : identity of the act; the same one again carries out what the ledger says of it. Named for `at` if None.
    """
    subject, model, number = subject or f"{act} {at.isoformat()}", registered.model, registered.version
    entry = workspace.ledger.find(model, Promotion.kind, subject)
    if entry is None:
        serving = workspace.registry.aliases(model).get("champion")
        changed = {"alias": "champion", "champion": number, "previous": serving, "reasons": (why,), "at": at}
        body = {**registered.model_copy(update=changed).as_json(), "act": act, "by": by}
        entry = workspace.ledger.append(model, Promotion.kind, subject, body, at)
    newest, *_ = workspace.ledger.entries(model, Promotion.kind, newest_first=True, limit=1)
    if newest.sequence == entry.sequence:
        move_aliases(workspace, _of_hand(entry))
    return entry


def _of_hand(entry: Entry) -> Promotion:
    return Promotion.model_validate({name: value for name, value in entry.body.items() if name not in ("act", "by")})


def move_aliases(workspace: Workspace, promotion: Promotion) -> None:
    """The old champion is named `previous` before it stops being the champion: at no moment is there none."""
    registry, model = workspace.registry, promotion.model
    if promotion.alias == "challenger":
        registry.move(model, "challenger", promotion.version)
    if promotion.alias == "champion":
        if promotion.previous is not None:
            registry.move(model, "previous", promotion.previous)
        registry.move(model, "champion", promotion.version)
        if "challenger" in registry.aliases(model):
            registry.move(model, "challenger", None)
