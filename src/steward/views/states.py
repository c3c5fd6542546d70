"""How a model stands, in one word and one sentence: the same words in the pages and in `steward status`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, get_args

from steward.config import ModelFile
from steward.core.retraining import TO_BEGIN, TO_END
from steward.io.ledger import Entry
from steward.io.predictions import Last
from steward.io.workspace import Workspace
from steward.records import Estimate, figure

State = Literal[
    "serving fallback",
    "falling",
    "waiting for approval",
    "drifting",
    "held",
    "never trained",
    "retraining",
    "healthy",
]
"""In the order in which they need somebody's attention."""
STATES: tuple[State, ...] = get_args(State)
CALM: tuple[State, ...] = ("retraining", "healthy")
NEWEST = ("promotion", "trigger", "verdict", "approval", "failure", "opening", "snapshot")
"""Kinds of entries whose newest one is needed."""
HOLDING = ("cooldown", "budget", "sealed rows")
"""Rules that hold back what is wanted; by the others it is not."""
LOOKS = 2
"""Looks that are read for every model: a decision upon an event alone may follow one."""
POINTS = 30
"""Looks of which the live value alone is read."""
PROMOTIONS = 10
"""Promotions, or challengers that were not promoted, that are read for every model."""


@dataclass(frozen=True)
class Standing:
    """The state of a model.

    Attributes
    ----------
    says : one sentence with the figures behind the word.
    warnings : what is also true and wants a look, such as a look that is overdue; a sentence each.
    """

    state: State
    says: str
    warnings: tuple[str, ...] = ()

    @property
    def attention(self) -> tuple[int, int]:
        """Sorts by how much attention a model needs, the most first; a warning lifts one that seems well to those held."""
        lifted = self.warnings and self.state in CALM
        return STATES.index("held" if lifted else self.state), -len(self.warnings)


@dataclass(frozen=True)
class Known:
    """What the ledger and the prediction log know of a model at a moment."""

    model: ModelFile
    at: datetime
    newest: Mapping[str, Entry]
    """By kind."""
    promotions: tuple[Entry, ...]
    looks: tuple[Entry, ...]
    """Entries `decision`; both oldest first."""
    live: tuple[tuple[datetime, list[float] | None], ...]
    """Live value with its interval, after each of the last looks, oldest first."""
    answered: Last | None
    """What answered the newest prediction."""

    @property
    def champion(self) -> int | None:
        """The version that serves."""
        return self.promotions[-1].body["champion"] if self.promotions else None

    @property
    def previous(self) -> int | None:
        return self.promotions[-1].body["previous"] if self.promotions else None

    @property
    def challenger(self) -> int | None:
        """A version that was verified after the champion and not promoted."""
        newest = self.promotions[-1].body if self.promotions else {"alias": None}
        return newest["version"] if newest["alias"] == "challenger" else None

    @cached_property
    def crowned(self) -> Entry | None:
        """Since when the champion serves."""
        return next((one for one in reversed(self.promotions) if one.body["alias"] == "champion"), None)

    @property
    def look(self) -> Entry | None:
        return self.looks[-1] if self.looks else None

    @cached_property
    def measured(self) -> Entry | None:
        """The newest look that has left figures; a decision upon an event alone has none."""
        return next((one for one in reversed(self.looks) if one.body.get("figures", {}).get("end")), None)

    @property
    def seen(self) -> Mapping[str, Any]:
        """Figures of that look, at whichever version."""
        return self.measured.body["figures"] if self.measured else {}

    @property
    def figures(self) -> Mapping[str, Any]:
        """The same, if it was at the version that serves now."""
        return self.seen if self.seen.get("version") == self.champion else {}

    @property
    def looked_at(self) -> datetime | None:
        return datetime.fromisoformat(self.seen["end"]) if self.seen else self.look.at if self.look else None

    @cached_property
    def training(self) -> Entry | None:
        """The trigger of a training that is running, or is about to begin."""
        trigger = self.newest.get("trigger")
        if trigger is None or self.since(trigger, "verdict", "failure"):
            return None
        lasts = TO_BEGIN if "decision" in trigger.body else TO_END
        return trigger if self.at - trigger.at < lasts else None

    def since(self, entry: Entry | None, *kinds: str) -> Entry | None:
        """The newest entry of these kinds that was added after another one."""
        after = [self.newest[kind] for kind in kinds if kind in self.newest]
        found = [one for one in after if entry is None or one.sequence > entry.sequence]
        return max(found, key=lambda one: one.sequence, default=None)


def known(workspace: Workspace, models: Sequence[ModelFile], at: datetime) -> list[Known]:
    """What is known of each of these models, in five queries."""
    names = [model.name for model in models]
    newest = workspace.ledger.newest(names, NEWEST)
    promotions = workspace.ledger.newest(names, ["promotion"], PROMOTIONS)
    looks = workspace.ledger.newest(names, ["decision"], LOOKS)
    live = workspace.ledger.series(names, "decision", ("figures", "live"), POINTS)
    answered = workspace.predictions.newest(names)
    return [
        Known(
            model=model,
            at=at,
            newest={kind: newest[model.name, kind][-1] for kind in NEWEST if (model.name, kind) in newest},
            promotions=tuple(promotions.get((model.name, "promotion"), ())),
            looks=tuple(looks.get((model.name, "decision"), ())),
            live=tuple(live.get(model.name, ())),
            answered=answered.get(model.name),
        )
        for model in models
    ]


def standing(found: Known) -> Standing:
    """The first state that holds, and what else wants a look."""
    state, says = next(_states(found))
    return Standing(state, says, tuple(_warnings(found)))


def _states(found: Known) -> Iterator[tuple[State, str]]:
    """Every state that holds; one that names what is done about it comes before what is wrong."""
    figures, name = found.figures, found.model.name
    if found.training:
        yield "retraining", f"Training since {_minute(found.training.at)}: {found.training.body['reason']}."
    if found.champion is None:
        yield "never trained", f"No version serves: {_why_none(found)}."
    if found.answered and found.answered.fallback:
        yield "serving fallback", _fallback(found, found.answered)
    if (waiting := _waiting(found)) is not None:
        yield (
            "waiting for approval",
            f"A challenger is to be promoted and waits for a person since {_minute(waiting.at)}.",
        )
    if figures.get("fallen_since") or figures.get("alarm_since"):
        yield "falling", _falling(figures)
    if figures.get("since"):
        yield "drifting", _drifting(figures)
    if (why := _held(found)) is not None:
        yield "held", why
    yield "healthy", _healthy(found, figures) + f" {_to_do(found, name)}".rstrip()


def _why_none(found: Known) -> str:
    if (failure := found.newest.get("failure")) is not None:
        return f"the last training ended without a verdict ({failure.body['what']})"
    if found.promotions:
        return f"version {found.promotions[-1].body['version']} was not promoted ({_why_not(found)})"
    return f"`steward train {found.model.name}` trains the first one"


def _fallback(found: Known, last: Last) -> str:
    by = f"version {last.version}" if last.version is not None else "the constant of serve.fallback"
    moment = datetime.fromtimestamp(last.at, found.at.tzinfo)
    return f"The last prediction, at {_minute(moment)}, was answered by {by}, not by the champion."


def _waiting(found: Known) -> Entry | None:
    """The verdict that a person has to answer."""
    verdict = found.newest.get("verdict")
    if verdict is None or verdict.body["verdict"] != "promote" or found.model.approve != "person":
        return None
    crowned = found.crowned is not None and found.crowned.sequence > verdict.sequence
    return None if crowned or found.since(verdict, "approval") else verdict


def _falling(figures: Mapping[str, Any]) -> str:
    since = _day(figures.get("fallen_since") or figures["alarm_since"])
    live, verified = estimate(figures.get("live")), estimate(figures.get("verified"))
    if live is None:
        return f"Answers are wrong more often than verified, since {since}."
    against = f"; verified {figure(verified.value)}" if verified else ""
    return (
        f"Live {figures['metric']} {live.shown} on {figures['labelled']:,} labelled rows, worse since {since}{against}."
    )


def _drifting(figures: Mapping[str, Any]) -> str:
    columns = sorted(figures["since"], key=lambda name: (figures["since"][name], name))
    loss = estimate(figures.get("expected_loss"))
    cost = f"; it is thought to cost {loss.shown}" if loss and loss.low > 0 else "; it is not thought to cost accuracy"
    moved = "has" if len(columns) == 1 else "have"
    return f"{', '.join(columns)} {moved} moved, since {_day(figures['since'][columns[0]])}{cost}."


def _held(found: Known) -> str | None:
    """Why a version that somebody or something asked for is not there; a schedule asks for nothing in particular."""
    look, trigger = found.look, found.newest.get("trigger")
    if look is not None and look.body.get("ask_a_person"):
        return f"{_sentence(look.body['reason'])} Somebody has to look."
    ended = found.since(trigger, "verdict", "failure") if trigger else None
    crowned = found.crowned is not None and ended is not None and found.crowned.sequence > ended.sequence
    if trigger is not None and ended is not None and not crowned:
        if ended.kind == "failure":
            return f"The last training ended without a verdict: {_sentence(ended.body['what'])}"
        if trigger.body["trigger"] != "schedule":
            return f"The last challenger was not promoted: {_sentence(_why_not(found))}"
    held = [
        one for one in (look.body["refusals"] if look else ()) if one["rule"] in HOLDING and one["kind"] != "new_rows"
    ]
    return f"A retraining is asked for and held back: {_sentence(held[0]['why'])}" if held else None


def _healthy(found: Known, figures: Mapping[str, Any]) -> str:
    live = estimate(figures.get("live"))
    if live is not None:
        return f"Live {figures['metric']} {live.shown} on {figures['labelled']:,} labelled rows: as verified."
    return f"Version {found.champion} serves; how right it is live is not known yet."


def _to_do(found: Known, name: str) -> str:
    """What makes more known."""
    if not found.figures:
        return f"Nobody has looked at this version yet: `steward monitor {name}` does."
    return "" if found.figures.get("live") else "Outcomes of its predictions are waited for."


def _warnings(found: Known) -> Iterator[str]:
    monitor, last = found.model.monitor, found.looked_at or (found.crowned.at if found.crowned else None)
    due = monitor.next_look(last) if last else None
    after = monitor.next_look(due) if due else None
    if found.champion is not None and after is not None and found.at > after:
        yield f"No look at the model since {_minute(last)}, although monitor.schedule is {monitor.schedule}."
    expected, floor = estimate(found.figures.get("estimate")), found.figures.get("floor")
    same = found.figures.get("metric") == found.figures.get("estimate_metric") == "accuracy"
    if expected and floor is not None and same and expected.high < floor:
        yield f"Before labels, accuracy {expected.shown} is expected, under the floor of {floor:g}."


def estimate(three: Sequence[float] | None) -> Estimate | None:
    """A value with its interval, as `figures` of an entry keep it."""
    return Estimate(value=three[0], low=three[1], high=three[2]) if three else None


def _why_not(found: Known) -> str:
    """Why the last challenger was not promoted: what its verdict says first, or what stood against one to promote."""
    verdict = found.newest.get("verdict")
    newest = found.promotions[-1] if found.promotions else verdict
    reasons = newest.body.get("reasons") if newest else None
    if not reasons:
        return "no reason is on record"
    return str(reasons[-1 if verdict and verdict.body["verdict"] == "promote" else 0]).rstrip(".")


def _sentence(text: str) -> str:
    return f"{text.rstrip('.')}."


def _day(moment: str) -> str:
    return moment[:10]


def _minute(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "its promotion"
