"""What an opening showed: the test's figures, gates, and the three-way verdict that they lead to.

A gate turns figures into pass, unsure or fail and one sentence. Nothing here reads a file or knows a clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, hypot, sqrt
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from steward.config import CLASSIFICATION_METRICS, REGRESSION_METRICS, ModelFile, Verify
from steward.core import metrics
from steward.records import Estimate, File, Gate, Skill, Slice, Test

Outcome = Literal["pass", "unsure", "fail"]
Array = NDArray[Any]

POWER = 0.80
ERROR_CORRELATION = 0.5
"""Assumed of two models whose discordance nobody has measured."""

SLICE_ROWS = 30
"""Fewer rows than this are not compared: their interval would reach from very bad to very good."""
SLICE_VALUES = 50
"""A column's rarer values beyond this many share one line."""
SLICE_BINS = 4
"""A number with more values than this many bins allows is cut at its quartiles."""
KEPT = 0.9
"""How much a comparison counts after the next one: what happened long ago says little about now."""
LOOKS_ERROR = 0.25
"""Looks may be wrong a quarter as often as sealed rows may: what they add to false promotions is an eighth."""
SKILLS = {"classification": "brier", "regression": "rmse"}

VERDICTS: dict[Outcome, Literal["promote", "hold", "reject"]] = {"fail": "reject", "unsure": "hold", "pass": "promote"}


@dataclass(frozen=True)
class Opened:
    """Truth and all answers on the sealed rows, scored once.

    Shapes as in `metrics`; `champion` is None for a first version.
    """

    truth: Array
    challenger: Array
    constant: Array
    champion: Array | None


def examine(
    model: ModelFile,
    opened: Opened,
    *,
    version: int | None,
    overlap: Mapping[str, int],
    predictions: File | None,
    seed: int,
    asked: Skill | None = None,
) -> Test:
    """The figures of an opening.

    Parameters
    ----------
    version : of the champion; None for a first version, which is compared with the best constant.
    overlap : sealed rows that champion and challenger were trained on.
    asked : what the looks at the champion found, when they asked whether newer rows would teach a better model.
    """
    metric, classes, truth = model.metric, model.classes, opened.truth
    how: dict[str, Any] = {"confidence": model.verify.confidence, "seed": seed}
    opponent = opened.constant if opened.champion is None else opened.champion
    own = metrics.interval(metric, truth, opened.challenger, classes, **how)
    return Test(
        rows=len(truth),
        metric=metric,
        value=own.value,
        low=own.low,
        high=own.high,
        constant=metrics.score(metric, truth, opened.constant, classes),
        champion=None
        if opened.champion is None
        else {"version": version, **metrics.interval(metric, truth, opened.champion, classes, **how).as_json()},
        difference=metrics.paired(metric, truth, opened.challenger, opponent, classes, **how),
        skill=None
        if opened.champion is None
        else skill(SKILLS[model.task], truth, opened.challenger, opened.champion, classes, seed=seed),
        asked=None if opened.champion is None else asked,
        discordance=metrics.discordance(truth, opened.challenger, opponent, classes),
        overlap=dict(overlap),
        other={
            name: metrics.score(name, truth, opened.challenger, classes)
            for name in (CLASSIFICATION_METRICS if classes else REGRESSION_METRICS)
            if name != metric
        },
        confusion=metrics.confusion(truth, opened.challenger, classes) if classes else (),
        predictions=predictions,
    )


def skill(metric: str, truth: Array, new: Array, old: Array, classes: Sequence[str], *, seed: int) -> Skill:
    """How much better `new` answers than `old`, by `metric`, paired; shapes as in `metrics`.

    An error smaller than 1 / n is not believed: where both answer alike every row says the same.
    """
    found = metrics.paired(metric, truth, new, old, classes, confidence=0.95, seed=seed)
    error = (found.high - found.low) / (2 * float(norm.ppf(0.975)))
    return Skill(value=found.value, error=max(error, 1 / len(truth)), rows=len(truth))


def pooled(before: Skill, now: Skill) -> Skill:
    """Comparisons with the same champion, one after the other; what was found before counts `KEPT` as much as at its time.

    Each stands for its rows, so that a mean over all of them is estimated (stratified, as the rows of each are new).

    >>> first = Skill(value=0.01, error=0.01, rows=100)
    >>> both = pooled(first, first)
    >>> both.value, round(both.error, 4), both.rows
    (0.01, 0.0071, 190.0)
    """
    kept = KEPT * before.rows
    rows = kept + now.rows
    return Skill(
        value=(kept * before.value + now.rows * now.value) / rows,
        error=hypot(kept * before.error, now.rows * now.error) / rows,
        rows=rows,
    )


def of_looks(asked: Skill, confidence: float) -> Estimate:
    """What looks at a champion found, as sure as they have to be to start a training or to speak in a verdict.

    Parameters
    ----------
    confidence : of a verdict by sealed rows.

    >>> of_looks(Skill(value=0.0251, error=0.01, rows=100), 0.95).low > 0
    True
    """
    return asked.interval(1 - LOOKS_ERROR * (1 - confidence))


def gates(
    model: ModelFile,
    test: Test,
    opened: Opened,
    found: Sequence[Slice],
    *,
    latency_ms: float,
    problem: str | None,
    seed: int,
) -> tuple[Gate, ...]:
    """Everything that this model's challenger has to prove, in the order in which people ask.

    Parameters
    ----------
    found : the slices of the same opening.
    latency_ms : time of one prediction, milliseconds.
    problem : what went wrong in the clean process, if anything.
    """
    rules, metric, classes = model.verify, model.metric, model.classes
    how: dict[str, Any] = {"confidence": rules.confidence, "seed": seed}
    over_constant = metrics.paired(metric, opened.truth, opened.challenger, opened.constant, classes, **how)
    floors = [
        floor(name, least, metrics.interval(name, opened.truth, opened.challenger, classes, **how))
        for name, least in rules.floor.items()
    ]
    return (
        *(
            [champion(metric, test.difference, rules, test.champion["version"], test.skill, test.asked)]
            if test.champion
            else []
        ),
        better_than_constant(metric, test.value, test.constant, over_constant, first=test.champion is None),
        *floors,
        *([no_worse_slice(found)] if rules.slices else []),
        *([latency(latency_ms, rules.max_latency_ms)] if rules.max_latency_ms else []),
        loads(problem),
        no_overlap(test.overlap),
    )


def better_than_constant(
    metric: str, value: float, constant: float, difference: Estimate, *, first: bool = True
) -> Gate:
    """Is the challenger better than the best constant prediction? `difference` is paired; positive is better.

    A first version has to prove it. A later one is measured by its champion, and only must not be surely worse.
    """
    outcome: Outcome = "pass" if difference.low > 0 else "fail" if difference.high <= 0 else "unsure"
    if not first and outcome == "unsure":
        outcome = "pass"
    better = "is better than" if difference.low > 0 else "is not surely worse than"
    words = {"pass": better, "unsure": "is not clearly better than", "fail": "is no better than"}
    return Gate(
        name="better_than_constant",
        outcome=outcome,
        detail=f"{metric} {value:.4f} {words[outcome]} the best constant prediction's {constant:.4f}: "
        f"difference {_shown(difference)}.",
        figures={
            "value": value,
            "constant": constant,
            "difference": difference.value,
            "low": difference.low,
            "high": difference.high,
        },
    )


def floor(metric: str, least: float, estimate: Estimate) -> Gate:
    """Does the metric reach what the model file demands? For errors `least` is the largest that is allowed."""
    sign = 1 if metrics.larger_is_better(metric) else -1
    reachable = estimate.high if sign > 0 else estimate.low
    outcome: Outcome = (
        "pass" if sign * estimate.value >= sign * least else "unsure" if sign * reachable >= sign * least else "fail"
    )
    words = {"pass": "keeps", "unsure": "misses, but within its interval,", "fail": "misses"}
    return Gate(
        name=f"floor:{metric}",
        outcome=outcome,
        detail=f"{metric} {_shown(estimate, signed=False)} {words[outcome]} the demanded {least:g}.",
        figures={"floor": least, **estimate.as_json()},
    )


def champion(
    metric: str,
    difference: Estimate,
    rules: Verify,
    version: str | int,
    skill: Skill | None = None,
    asked: Skill | None = None,
) -> Gate:
    """Is the challenger better than the champion, or with a margin not worse by more than that?

    Passes if the whole interval lies above -margin; with margin 0 a tie is not enough. Fails if the whole interval
    lies below -margin. Anything else is not enough evidence of its own. It passes if looks at the champion have shown, with
    a quarter of the error that `confidence` allows, that newer rows teach a better model, on rows that neither had learned,
    and the sealed rows agree: the challenger is no worse on them by `metric`, and better by its squared errors.

    Parameters
    ----------
    difference, skill : of the sealed rows.
    asked : of the looks; None where nobody asked.
    """
    margin = rules.margin
    outcome: Outcome = "pass" if difference.low > -margin else "fail" if difference.high < -margin else "unsure"
    aim = f"{'better' if margin == 0 else f'at most {margin:g} worse'} than champion version {version}"
    words = {"pass": f"is {aim}", "unsure": f"cannot be told to be {aim}", "fail": f"is not {aim}"}
    detail = f"On the same rows the challenger {words[outcome]}: {metric} difference {_shown(difference)}."
    figures = {"margin": margin, "champion": version, **difference.as_json()}
    if outcome == "unsure" and asked and skill:
        looks = of_looks(asked, rules.confidence)
        figures |= {f"asked_{name}": value for name, value in looks.as_json().items()}
        if looks.low > 0 and skill.value > 0 and difference.value >= 0:
            outcome, detail = "pass", f"The challenger is {aim}. {_of_looks(looks)}. The sealed rows agree: "
            detail += f"squared errors {skill.value:+.4f}, {metric} difference {_shown(difference)}."
        else:
            detail += f" {_of_looks(looks)}; of the sealed rows: {skill.value:+.4f}."
    return Gate(name="champion", outcome=outcome, detail=detail, figures=figures)


def _of_looks(found: Estimate) -> str:
    sure = "surely" if found.low > 0 else "not surely"
    return (
        f"Looks found that newer rows teach models whose squared errors are {sure} smaller than this champion's on labelled "
        f"rows that neither had learned: {_shown(found)}"
    )


def slices(
    metric: str,
    columns: Mapping[str, Array],
    truth: Array,
    challenger: Array,
    champion: Array | None,
    classes: Sequence[str],
    *,
    confidence: float,
    seed: int,
) -> tuple[Slice, ...]:
    """The comparison on the rows of each value of each slice column.

    The intervals of all comparisons hold together at `confidence` (Bonferroni), so that many slices do not raise a
    false alarm between them. Without a champion only the challenger's own score is given.

    Parameters
    ----------
    columns : by name, arrays (n,) of categories or numbers; a number of many values is cut at its quartiles.
    """
    groups = [(name, *group) for name, values in columns.items() for group in _groups(values)]
    compared = sum(rows.sum() >= SLICE_ROWS for _, _, rows in groups)
    shared = 1 - (1 - confidence) / max(compared, 1)
    found = []
    for column, value, rows in groups:
        n = int(rows.sum())
        if n < SLICE_ROWS:
            found.append(_unjudged(column, value, n))
            continue
        old = None if champion is None else champion[rows]
        arguments: dict[str, Any] = {"confidence": shared, "seed": seed}
        difference = (
            old if old is None else metrics.paired(metric, truth[rows], challenger[rows], old, classes, **arguments)
        )
        found.append(
            Slice(
                column=column,
                value=value,
                rows=n,
                challenger=metrics.interval(metric, truth[rows], challenger[rows], classes, **arguments),
                champion=old if old is None else metrics.score(metric, truth[rows], old, classes),
                difference=difference,
                finding=_finding(difference),
            )
        )
    return tuple(found)


def no_worse_slice(found: Sequence[Slice]) -> Gate:
    """Is any slice significantly worse than the champion?"""
    worse = [one for one in found if one.difference is not None and one.difference.high < 0]
    compared = sum(one.difference is not None for one in found)
    few = sum(one.challenger is None for one in found)
    named = "; ".join(f"{one.column} = {one.value} ({one.rows} rows, {_shown(one.difference)})" for one in worse)
    fine = (
        f"None of {compared} slices is significantly worse than the champion"
        if compared
        else "There is no champion to compare slices with"
    )
    detail = f"Worse than the champion where {named}" if worse else fine
    return Gate(
        name="slices",
        outcome="fail" if worse else "pass",
        detail=f"{detail}; {few} slices have too few rows." if few else f"{detail}.",
        figures={"compared": compared, "worse": len(worse), "too_few_rows": few},
    )


def latency(milliseconds: float, most: float) -> Gate:
    """Is one prediction fast enough?"""
    fits = milliseconds <= most
    return Gate(
        name="latency",
        outcome="pass" if fits else "fail",
        detail=f"One prediction takes {milliseconds:.3g} ms; {'within' if fits else 'more than'} the allowed {most:g} ms.",
        figures={"milliseconds": milliseconds, "allowed": most},
    )


def loads(problem: str | None) -> Gate:
    """Did the artifact load in a clean process and answer? `problem` is what went wrong there."""
    return Gate(
        name="loads",
        outcome="pass" if problem is None else "fail",
        detail="The artifact loads in a clean process and answers."
        if problem is None
        else f"The artifact does not answer in a clean process: {problem.rstrip('.')}.",
    )


def no_overlap(overlap: Mapping[str, int]) -> Gate:
    """Was nobody trained on a sealed row? `overlap` counts such rows for champion and challenger."""
    counts = ", ".join(f"{who} {count}" for who, count in overlap.items())
    clean = not any(overlap.values())
    return Gate(
        name="overlap",
        outcome="pass" if clean else "fail",
        detail=f"Sealed rows that were trained on: {counts}{'' if clean else '; the comparison is worth nothing'}.",
        figures=dict(overlap),
    )


def decide(gates: Sequence[Gate]) -> tuple[Literal["promote", "hold", "reject"], tuple[str, ...]]:
    """The verdict, and the sentences of the gates that led to it: any fail rejects, any unsure holds.

    >>> passed, unsure = loads(None), floor("accuracy", 0.8, Estimate(value=0.79, low=0.77, high=0.81))
    >>> decide([passed, unsure])
    ('hold', ('accuracy 0.7900 (0.7700 to 0.8100) misses, but within its interval, the demanded 0.8.',))
    """
    outcomes = {gate.outcome for gate in gates}
    worst: Outcome = "fail" if "fail" in outcomes else "unsure" if "unsure" in outcomes else "pass"
    return VERDICTS[worst], tuple(gate.detail for gate in gates if gate.outcome == worst)


def needed_rows(
    model: ModelFile, *, baseline: float | None = None, discordance: float | None = None, detect: float | None = None
) -> int:
    """Sealed rows that find a difference of `detect` with 80 % power at `verify.confidence`, paired.

    Classification, McNemar's test (Connor 1987, Biometrics 43:207): with psi the share of discordant rows,
    n = (z_confidence sqrt(psi) + z_power sqrt(psi - detect²))² / detect² + 1 / detect, where the last term pays for
    the exact test. Without a measured discordance two models of error e are assumed whose errors correlate 0.5:
    psi = e (1 - e). The other classification metrics are planned as accuracy is.

    Regression: the log ratio of two root mean squared errors with normal errors whose squares correlate 0.5 has
    variance 0.5 / n, so n = 0.5 (z_confidence + z_power)² / detect². Heavier tails need more rows; the verdict's
    interval is honest about them, only its power is not 80 %.

    Parameters
    ----------
    baseline : accuracy of what has to be beaten: the champion, or the best constant for a first version; 0.5 (the
        most rows) if unknown.
    discordance : share of discordant rows at the last opening.
    detect : a difference to plan for that is larger than `verify.detect`, such as the loss a trigger measured.

    >>> model = ModelFile.model_validate({
    ...     "name": "risk", "task": "classification", "source": {"table": "t.csv", "key": "id"},
    ...     "label": {"column": "y", "classes": ["no", "yes"]}, "columns": {"x": {"type": "number"}}})
    >>> needed_rows(model, baseline=0.89), needed_rows(model, baseline=0.82, detect=0.07)
    (325, 249)
    """
    difference = max(model.verify.detect, detect or 0.0)
    z_confidence, z_power = float(norm.ppf((1 + model.verify.confidence) / 2)), float(norm.ppf(POWER))
    if model.task == "regression":
        return ceil((1 - ERROR_CORRELATION) * ((z_confidence + z_power) / difference) ** 2)
    error = 0.5 if baseline is None else 1 - baseline
    assumed = 2 * error * (1 - error) * (1 - ERROR_CORRELATION)
    psi = max(assumed if discordance is None else discordance, difference)
    planned = (z_confidence * sqrt(psi) + z_power * sqrt(psi - difference**2)) ** 2 / difference**2
    return ceil(planned + 1 / difference)


def _groups(values: Array) -> list[tuple[str, NDArray[np.bool_]]]:
    """Names and row masks of a column's values, the most frequent first; together they cover every row once."""
    column = pd.Series(values)
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > SLICE_BINS:
        column = pd.qcut(column, SLICE_BINS, duplicates="drop").astype(object)
    named = np.array(["missing" if pd.isna(value) else _name(value) for value in column], dtype=object)
    counts = pd.Series(named).value_counts()
    frequent = sorted(counts.index, key=lambda name: (-counts[name], name))
    groups = [(str(name), named == name) for name in frequent[:SLICE_VALUES]]
    rest = frequent[SLICE_VALUES:]
    return [*groups, (f"{len(rest)} rarer values", np.isin(named, rest))] if rest else groups


def _name(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _unjudged(column: str, value: str, rows: int) -> Slice:
    return Slice(
        column=column, value=value, rows=rows, challenger=None, champion=None, difference=None, finding="too few rows"
    )


def _finding(difference: Estimate | None) -> str:
    if difference is None:
        return "no champion to compare with"
    if difference.high < 0:
        return "worse than the champion"
    return "better than the champion" if difference.low > 0 else "no difference found"


def _shown(estimate: Estimate | None, *, signed: bool = True) -> str:
    if estimate is None:
        return "unknown"
    sign = "+" if signed else ""
    return f"{estimate.value:{sign}.4f} ({estimate.low:{sign}.4f} to {estimate.high:{sign}.4f})"
