"""What is wrong with rows that came in, and with the table that they came from.

Rows are counted where they are, against the same rules as at training; what the counts mean is judged here.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

from scipy import stats

from steward.config import ModelFile
from steward.core import contracts
from steward.core.contracts import Contract
from steward.core.profiles import Baseline, ColumnProfile, Profile
from steward.records import QualityFinding

MOST_VALUES = 20
"""Illegal values per category that are named."""
ALIKE = 0.7
"""Ratcliff and Obershelp's similarity from which one text may be a misspelling of another."""
CLEARLY = 0.05
"""By how much the nearest value is nearer than the second."""
MORE_MISSING = 0.05
"""A share of missing values that is this much above training's is told of."""
CHANCE = 0.001
EXPECTED = 10
"""Rows that a window must be expected to have before it is remarkable that it has hardly any."""
HARDLY = 0.2
NOW_TOLD = {
    "not_null": "have no value",
    "type": "cannot be read",
    "finite": "are infinite",
    "between": "are out of range",
    "in_set": "are no legal category",
}


@dataclass(frozen=True)
class Facts:
    """What was counted in the source.

    Attributes
    ----------
    problem : why it could not be read; nothing else is known then.
    columns : its columns and their types; `before`: at the look before, None if this is the first.
    rows : in the whole table. `looked` : of these, rows whose time lies in the window; all where rows have no time.
    newest : the newest time in the table.
    broken : rows looked at that break a rule, by rule and column, such as `between:files_changed`.
    values : per category the illegal values and their rows, the most frequent ones.
    nulls : rows looked at without a value, by column.
    doubles : rows looked at whose key stands on another of them too, but for one per key.
    """

    problem: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] | None = None
    rows: int = 0
    looked: int = 0
    newest: str | None = None
    broken: dict[str, int] = field(default_factory=dict)
    values: dict[str, dict[str, int]] = field(default_factory=dict)
    nulls: dict[str, int] = field(default_factory=dict)
    doubles: int = 0

    def as_json(self) -> dict[str, Any]:
        return vars(self)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        return cls(**document)


@dataclass(frozen=True)
class Incoming:
    """What came in, and what it is judged by.

    Attributes
    ----------
    model : the model file of today.
    rows_per_day : of the reference; None where its rows have no time.
    unseen : per category the values that training did not know, with their rows.
    """

    model: ModelFile
    facts: Facts
    origin: Literal["predictions", "source", "nothing"]
    profile: Profile
    unseen: Mapping[str, Mapping[str, int]]
    baseline: Baseline
    start: datetime
    end: datetime
    rows_per_day: float | None


def judge(found: Incoming) -> tuple[QualityFinding, ...]:
    """Everything that is wrong, what concerns the whole table first."""
    if found.facts.problem:
        return (
            QualityFinding(kind="source", column=None, says=f"the source cannot be read: {found.facts.problem}"),
            *_of_values(found),
        )
    return (*_of_table(found), *_of_rows(found), *_of_values(found))


def _of_table(found: Incoming) -> Iterator[QualityFinding]:
    facts, model = found.facts, found.model
    if not facts.rows:
        yield QualityFinding(kind="empty", column=None, says="the source has no rows")
    for column in Contract.incoming(model, found.end).missing(tuple(facts.columns)):
        yield QualityFinding(
            kind="schema", column=column, says=f"the source has no column {column} any more", rows=facts.looked, share=1
        )
    for column, kind in (facts.before or facts.columns).items():
        now = facts.columns.get(column)
        if now is not None and now != kind:
            yield QualityFinding(kind="schema", column=column, says=f"{column} was {kind} and is {now} now")
    for column in facts.columns:
        if column not in (facts.before or facts.columns):
            yield QualityFinding(kind="schema", column=column, says=f"the source has a new column {column}")
    yield from _stale(found)


def _stale(found: Incoming) -> Iterator[QualityFinding]:
    """Rows with outcomes come late: what is stale is older than they may be.

    Where served predictions and their outcomes become rows, the source itself need not grow.
    """
    facts, model = found.facts, found.model
    through_log = model.source.outcomes and found.origin == "predictions"
    if facts.newest:
        newest = datetime.fromisoformat(facts.newest).replace(tzinfo=UTC)
        if not through_log and found.end - newest > model.monitor.window + model.label.mature_after:
            yield QualityFinding(
                kind="stale", column=None, says=f"the newest row of the source is from {newest:%Y-%m-%d %H:%M}"
            )
        elif newest > found.end + timedelta(days=1):
            says = f"the source has rows of the future: the newest is from {newest:%Y-%m-%d %H:%M}"
            yield QualityFinding(kind="stale", column=None, says=says)
    expected = (found.rows_per_day or 0) * ((found.end - found.start) / timedelta(days=1))
    if found.origin != "predictions" and expected >= EXPECTED and found.profile.rows < HARDLY * expected:
        says = f"{found.profile.rows:,} rows came in where about {expected:,.0f} are usual"
        yield QualityFinding(kind="stale", column=None, says=says, rows=found.profile.rows)


def _of_rows(found: Incoming) -> Iterator[QualityFinding]:
    """Rows of the source that break the contract, and keys that stand twice."""
    facts, looked = found.facts, max(1, found.facts.looked)
    for name, rows in facts.broken.items():
        rule, _, column = name.partition(":")
        if rule != "in_set":
            says = f"{column}: {_rows(rows, looked)} {NOW_TOLD[rule]}{_allowed(found.model, rule, column)}"
            yield QualityFinding(kind="contract", column=column, says=says, rows=rows, share=rows / looked)
    for column, values in facts.values.items():
        legal = found.model.columns[column].values or ()
        rows = facts.broken.get(f"in_set:{column}", 0)
        yield _category(column, values, legal, rows, looked, "no legal category")
    if facts.doubles:
        says = f"{_rows(facts.doubles, looked)} have a key that stands on another row too"
        yield QualityFinding(
            kind="duplicates", column=None, says=says, rows=facts.doubles, share=facts.doubles / looked
        )


def _of_values(found: Incoming) -> Iterator[QualityFinding]:
    """Values that training did not know, or not so many of them."""
    reference = found.baseline.whole
    for name, column in found.profile.columns.items():
        bins, known = found.baseline.bins[name], reference.columns[name]
        if not known.rows or not found.profile.rows:
            continue
        if name in found.unseen and name not in found.facts.values:
            legal = (*bins.levels, *bins.rare)
            yield _category(name, found.unseen[name], legal, column.unseen, found.profile.rows, "unknown to training")
        yield from _range(name, column, known)
        yield from _missing(name, column, known)


def _category(
    column: str, values: Mapping[str, int], legal: Sequence[str], rows: int, looked: int, what: str
) -> QualityFinding:
    """Illegal or unknown values of one category, each with the value that it may have been meant for."""
    meant = {value: nearest(value, legal) for value in values}
    named = ", ".join(f"{value!r} ({n:,}{_meant(meant[value])})" for value, n in list(values.items())[:5])
    more = f" and {len(values) - 5} more" if len(values) > 5 else ""  # noqa: PLR2004
    return QualityFinding(
        kind="category",
        column=column,
        says=f"{column}: {_rows(rows, looked)} are {what}: {named}{more}",
        rows=rows,
        share=min(1.0, rows / looked),
        suggestions=meant,
    )


def _meant(value: str | None) -> str:
    return f", perhaps {value!r}" if value else ""


def nearest(value: str, known: Iterable[str]) -> str | None:
    """The known value that this one is a misspelling of; None where nobody can tell.

    >>> nearest("Mail", ["Male", "Female"]), nearest(" FEMALE", ["Male", "Female"]), nearest("Girl", ["Male", "Female"])
    ('Male', 'Female', None)
    """
    folded, text = {name: name.strip().casefold() for name in known}, value.strip().casefold()
    same = [name for name, other in folded.items() if other == text]
    if same or text.isdigit():
        return same[0] if len(same) == 1 else None
    alike = sorted(
        ((difflib.SequenceMatcher(None, text, other, autojunk=False).ratio(), name) for name, other in folded.items()),
        reverse=True,
    )[:2]
    if not alike or alike[0][0] < ALIKE or (len(alike) > 1 and alike[0][0] - alike[1][0] < CLEARLY):
        return None
    return alike[0][1]


def _range(name: str, column: ColumnProfile, known: ColumnProfile) -> Iterator[QualityFinding]:
    """Numbers further outside of what training knew than that is wide."""
    if None in (column.minimum, column.maximum, known.minimum, known.maximum):
        return
    low, high = float(known.minimum or 0), float(known.maximum or 0)
    for value, beyond, bound in (
        (float(column.maximum or 0), float(column.maximum or 0) - high, high),
        (float(column.minimum or 0), low - float(column.minimum or 0), low),
    ):
        if beyond > high - low and beyond > 0:
            says = f"{name} reaches {value:g}; training knew {low:g} to {high:g}"
            yield QualityFinding(kind="range", column=name, says=says, suggestions={f"{value:g}": f"{bound:g}"})


def _missing(name: str, column: ColumnProfile, known: ColumnProfile) -> Iterator[QualityFinding]:
    """More missing values than training had, surely and by much; or nothing else."""
    rows, trained = column.rows, known.rows
    if not rows or not trained:
        return
    share, before = column.missing / rows, known.missing / trained
    surely = stats.binom.sf(column.missing - 1, rows, max(before, 1 / trained)) < CHANCE
    if share > before + MORE_MISSING and surely:
        what = "has no value in any row" if column.missing == rows else f"has no value in {_rows(column.missing, rows)}"
        says = f"{name} {what}; in training {before:.1%}"
        yield QualityFinding(kind="missing", column=name, says=says, rows=column.missing, share=share)


def _rows(rows: int, of: int) -> str:
    return f"{rows:,} of {of:,} rows ({rows / of:.1%})"


def _allowed(model: ModelFile, rule: str, name: str) -> str:
    column = model.columns.get(name)
    if rule != "between" or column is None:
        return ""
    low, high = ("…" if bound is None else f"{bound:g}" for bound in (column.min, column.max))
    return f" ({low} to {high})"


# Counting where the rows are: Ibis expressions, nothing is computed here.


def complete(source: Any, contract: Contract) -> Any:
    """The source with every column that the contract needs; those that it lacks are null."""
    import ibis

    return source.mutate(**{name: ibis.null("string") for name in contract.missing(tuple(source.columns))})


def within(rows: Any, start: datetime, end: datetime) -> Any:
    """Rows that `contracts.flagged` or `contracts.cleaned` made whose time lies in a window."""
    import ibis

    first, last = (ibis.literal(one.astimezone(UTC).replace(tzinfo=None), "timestamp") for one in (start, end))
    return rows.filter((rows[contracts.TIME] >= first) & (rows[contracts.TIME] < last))


def counts(rows: Any, contract: Contract) -> dict[str, Any]:
    """What is counted of marked rows, by name: Ibis expressions over them."""
    nulls = {f"nulls:{field.name}": rows[field.name].isnull().sum().fill_null(0) for field in contract.fields}
    doubles = rows[contracts.KEY].count() - rows[contracts.KEY].nunique()
    return {"looked": rows.count(), "doubles": doubles, **nulls, **contracts.broken(rows, contract)}


def illegal(rows: Any, contract: Contract) -> Any | None:
    """The illegal values of every category: Ibis table of `column`, `value` and `n`; None if no value can be illegal."""
    import ibis

    code = contracts.RULES.index("in_set") + 1
    parts = []
    for i, one in enumerate(contract.fields):
        if one.values:
            wrong = rows.filter(rows[f"!{i}"] == code)
            counted = wrong.group_by(value=wrong[one.name]).aggregate(n=lambda found: found.count())
            top = counted.order_by([counted.n.desc(), "value"]).limit(MOST_VALUES)
            parts.append(top.select("value", "n", column=ibis.literal(one.column)))
    return ibis.union(*parts) if len(parts) > 1 else parts[0] if parts else None


def facts(
    contract: Contract, columns: Mapping[str, str], counted: Mapping[str, Any], values: Sequence[Mapping[str, Any]]
) -> Facts:
    """What was counted, by the names that people know."""
    absent = contract.missing(tuple(columns))
    broken = {
        f"{rule}:{one.column}": counted[f"{rule}:{i}"]
        for i, one in enumerate(contract.fields)
        for rule in one.rules
        if counted[f"{rule}:{i}"] and one.column not in absent
    }
    illegal_values: dict[str, dict[str, int]] = {}
    for line in values:
        illegal_values.setdefault(line["column"], {})[line["value"]] = line["n"]
    return Facts(
        columns=dict(columns),
        looked=counted["looked"],
        broken=broken,
        values=illegal_values,
        nulls={one.column: counted[f"nulls:{one.name}"] for one in contract.fields if counted[f"nulls:{one.name}"]},
        doubles=counted["doubles"],
    )
