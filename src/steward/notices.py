"""What people are told, and when: a sentence or two about records that somebody has to know of."""

import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from steward.config import ModelFile
from steward.core.retraining import FOR_A_PERSON
from steward.errors import ContractRefused, StewardError
from steward.io.notifications import Notice, tell
from steward.io.workspace import Workspace
from steward.records import Promotion, Record, Verdict, digest_of

TOLD = {
    "data_drift": "drift",
    "accuracy": "accuracy has fallen",
    "concept_drift": "the old answers are no longer right",
}
"""Triggers that people hear of, and how a message about one begins."""
LEVELS = {"promote": "success", "hold": "info", "reject": "warning"}
log = logging.getLogger(__name__)


def tell_of(workspace: Workspace, model: ModelFile, record: Record, *, at: datetime, link: str | None = None) -> int:
    """Tell people what a record means for them, each cause once; answers how many messages were sent. Never raises."""
    return _tell(workspace, model, notices_of(model.name, record), at, link)


def tell_of_failure(
    workspace: Workspace, model: ModelFile, run: str, problem: BaseException, *, at: datetime, link: str | None = None
) -> int:
    """Tell people that a run has failed, or that its table was refused. Never raises."""
    return _tell(workspace, model, [failure(model.name, run, problem)], at, link)


def tell_of_move(workspace: Workspace, model: ModelFile, moved: Mapping[str, Any], *, at: datetime) -> int:
    """Tell people that a champion was moved by hand. Never raises."""
    return _tell(workspace, model, [moved_by_hand(model.name, moved)], at, None)


def _tell(workspace: Workspace, model: ModelFile, notices: Any, at: datetime, link: str | None) -> int:
    if not model.notify:
        return 0
    try:
        link = link or workspace.settings.mlflow_ui
        return tell(workspace.ledger, model.name, model.notify, notices, link=link, at=at)
    except Exception as problem:  # noqa: BLE001 - whatever is wrong with a message, the run goes on
        log.warning("a message could not be made: %s", type(problem).__name__)
        return 0


def notices_of(model: str, record: Record) -> Iterator[Notice]:
    """The messages that a record is worth; most are worth none."""
    if isinstance(record, Verdict):
        yield _of_verdict(model, record)
    elif isinstance(record, Promotion) and record.alias == "champion":
        text = f"Version {record.version} serves now{_after(record.previous)}. {' '.join(record.reasons)}"
        yield Notice(
            f"promotion {record.verdict.digest}", f"{model}: version {record.version} promoted", text, "success"
        )
    elif record.kind == "decision":
        yield from _of_decision(model, record.as_json())
    else:
        yield from _of_look(model, record.as_json())


def _of_verdict(model: str, verdict: Verdict) -> Notice:
    test = verdict.test
    figures = f"{test.metric} {test.value:.4f} ({test.low:.4f} to {test.high:.4f}) on {test.rows:,} sealed rows."
    against = f" Champion version {test.champion['version']}: {test.champion['value']:.4f}." if test.champion else ""
    text = f"{figures}{against} {' '.join(verdict.reasons)}"
    return Notice(f"verdict {verdict.digest}", f"{model}: verdict {verdict.verdict}", text, LEVELS[verdict.verdict])  # type: ignore[arg-type]


def _of_look(model: str, record: Mapping[str, Any]) -> Iterator[Notice]:
    """What a part of a look found: its triggers, and a rollback if it led to one."""
    says = "\n".join(record.get("says") or ())
    for trigger in record.get("triggers") or ():
        if trigger["kind"] in TOLD:
            reason = trigger["reason"]
            text = says if reason in says else f"{reason}\n{says}".strip()
            yield Notice(trigger["cause"], f"{model}: {TOLD[trigger['kind']]}", text, "warning")
    if (shadow := record.get("shadow")) and shadow["rolled_back"]:
        yield _of_shadow(model, record, shadow)


def _of_shadow(model: str, record: Mapping[str, Any], shadow: Mapping[str, Any]) -> Notice:
    """The version before answered in shadow, was right more often, and serves again."""
    worse, difference = record["version"], shadow["difference"]
    figures = (
        f"{difference['value']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f}) on {shadow['rows']:,} rows"
    )
    text = f"Version {shadow['version']} serves again: version {worse} was worse on the same rows, {figures}."
    title = f"{model}: rolled back to version {shadow['version']}"
    return Notice(f"rollback of version {worse} {record['at']}", title, text, "failure")


def _of_decision(model: str, decision: Mapping[str, Any]) -> Iterator[Notice]:
    """Training alone does not help any more, or was in vain too often."""
    if not decision["ask_a_person"]:
        return
    for refusal in decision["refusals"]:
        if refusal["rule"] in FOR_A_PERSON:
            yield Notice(
                f"{refusal['rule']} {refusal['cause']}", f"{model}: somebody has to look", refusal["why"], "failure"
            )
            return


def moved_by_hand(model: str, moved: Mapping[str, Any]) -> Notice:
    """Of what `operations.rollback`, or a promotion by hand, answered."""
    done = "rolled back to" if moved["act"] == "rollback" else "promoted by hand:"
    text = f"Version {moved['version']} serves now{_after(moved['previous'])}, by {moved['by']}: {moved['why']}"
    return Notice(f"{moved['act']} {moved['at']}", f"{model}: {done} version {moved['version']}", text, "warning")


def failure(model: str, run: str, problem: BaseException) -> Notice:
    """A run that failed; a refused table is one cause, however many runs it stops."""
    if isinstance(problem, ContractRefused):
        cause = f"contract refused {digest_of(problem.what, problem.facts.get('failed'))[:32]}"
        return Notice(cause, f"{model}: the table was refused", str(problem), "failure")
    what = str(problem) if isinstance(problem, StewardError) else "the log says what happened"
    return Notice(f"failed {run}", f"{model}: a run failed", f"{run}: {type(problem).__name__}: {what}", "failure")


def _after(previous: int | None) -> str:
    return f" after version {previous}" if previous is not None else ""
