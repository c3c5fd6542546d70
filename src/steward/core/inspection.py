"""What the columns of a table are, and what is suspicious about them.

A table comes as facts that an engine has counted over every row, and as a sample of rows for what no count shows: a
column that knows the answer, or one that says what another says already.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steward.errors import ModelFileError

Kind = Literal["integer", "number", "category", "boolean", "time", "text", "constant", "empty"]
Severity = Literal["note", "warning", "danger"]
Task = Literal["classification", "regression"]

MISSING_TOKENS = ("?", "NA", "N/A", "n/a", "na", "#N/A", "NaN", "nan", "NULL", "null", "Null", "nil", "\\N", "<NA>")
"""Texts that mean "no value" wherever they stand."""

MISSING_AMONG_NUMBERS = (
    "-",
    "--",
    ".",
    "..",
    "unknown",
    "Unknown",
    "UNKNOWN",
    "none",
    "None",
    "missing",
    "*",
    "x",
    "X",
)
"""Texts that mean "no value" among numbers, and may be a category of their own elsewhere."""

SENTINELS = (-1, -9, -99, -999, -9999, 99, 999, 9999, 99999, 999999)
"""Numbers that people write for "no value"."""

AFTERWARDS = re.compile(
    r"(?<![a-z])(after|afterwards|actual|actually|outcome|closed|resolved|resolution|finished|completed|final|ended|"
    r"cancel+ed|refund(ed)?|chargeback|duration|elapsed)(?![a-z])"
)
BEFORE = re.compile(r"(?<![a-z])(prev|previous|prior|last|history|planned|scheduled|sched|expected|old)(?![a-z])")
ORDERS = (
    ("no", "yes"), ("false", "true"), ("n", "y"), ("f", "t"), ("negative", "positive"), ("good", "bad"),
    ("very low", "low", "medium", "moderate", "high", "very high", "critical"), ("none", "minor", "major", "critical"),
    ("small", "medium", "large"), ("cold", "warm", "hot"), ("poor", "fair", "good", "excellent"),
)  # fmt: skip

NAMED_RANGES = {
    "hour": (0, 23),
    "minute": (0, 59),
    "weekday": (0, 7),
    "day": (0, 366),
    "month": (1, 12),
    "percent": (0, 100),
}
LISTED = 60
"""Facts list this many of a column's most frequent values."""
CLOSED = 30
"""A category with more values than this stays open to new ones."""
CLASSES = 10
"""Whole numbers with at most this many values are taken for classes, not for a quantity."""
FREE_TEXT_WORDS = 4
MANY_CATEGORIES = 1_000
RARE_CLASS = 10
NEARLY_CONSTANT = 0.995
SOLE_PREDICTOR = 0.95
STRONG_PREDICTOR = 0.80
UNIQUE_ENOUGH = 0.98
NAMED_AND_NEARLY_UNIQUE = 0.9
BINS = 200
UNIX_SECONDS = (631_152_000, 4_102_444_800)
"""1990 to 2100: whole numbers in this range are moments, not quantities."""
IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
ID_NAME = re.compile(
    r"(^|_|\b)(id|key|uuid|guid|no|nr|number|code|hash|pid|index|order)$|^id(_|\b)|[a-z]I[Dd]$", re.IGNORECASE
)


@dataclass(frozen=True)
class ColumnFacts:
    """What an engine has counted about one column over all rows; texts are without surrounding blanks."""

    name: str
    native: Literal["text", "number", "boolean", "time"]
    """How the source stores it; a CSV file stores texts."""
    rows: int
    missing: int
    """Rows without a value, or with an empty text."""
    distinct: int
    once: int
    """Values that occur exactly once."""
    top: tuple[tuple[str, int], ...]
    """Most frequent values first; all of them if there are at most `LISTED`."""
    odd: tuple[tuple[str, int], ...] = ()
    """Most frequent values that are no numbers."""
    numbers: int = 0
    """Rows whose value is a finite number."""
    whole: int = 0
    """Rows whose value is a whole number."""
    minimum: float = math.nan
    maximum: float = math.nan
    decimal_commas: int = 0
    """Rows like `3,14`."""
    dates: int = 0
    """Rows whose text is a date or a timestamp."""
    blanks: int = 0
    """Rows with blanks around the value."""
    leading_zeros: int = 0
    """Rows like `007`: digits that are a code, not a quantity."""
    words: float = 1.0
    """Mean number of words."""

    @property
    def present(self) -> int:
        return self.rows - self.missing


@dataclass(frozen=True)
class TableFacts:
    """What an engine has counted about a table."""

    table: str
    """As it is written into `source.table`."""
    rows: int
    columns: tuple[ColumnFacts, ...]
    separator: str | None = None
    """Of a text file."""

    def column(self, name: str) -> ColumnFacts | None:
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True)
class Finding:
    """Something that a person should know about the table."""

    column: str | None
    kind: str
    severity: Severity
    message: str
    action: str
    """What the draft does about it."""


def missing_tokens(facts: TableFacts) -> tuple[str, ...]:
    """Texts in this table that mean "no value", in order of their first column.

    >>> age = ColumnFacts("age", "text", 9, 0, 3, 1, (("7", 6), ("unknown", 2), ("8", 1)), (("unknown", 2),), numbers=7)
    >>> missing_tokens(TableFacts("t.csv", 9, (age,)))
    ('unknown',)
    """
    found: dict[str, None] = {}
    for column in facts.columns:
        among_numbers = column.numbers > column.present / 2
        known = (*MISSING_TOKENS, *MISSING_AMONG_NUMBERS) if among_numbers else MISSING_TOKENS
        values = (*column.odd, *column.top)
        found |= {text: None for text, _ in values if text in known and column.native == "text"}
    return tuple(found)


def without_tokens(facts: TableFacts, tokens: Sequence[str]) -> TableFacts:
    """The same facts with the tokens counted as missing."""
    return replace(facts, columns=tuple(_without_tokens(column, tokens) for column in facts.columns))


def _without_tokens(column: ColumnFacts, tokens: Sequence[str]) -> ColumnFacts:
    counts = {text: count for text, count in (*column.odd, *column.top) if text in tokens}
    return replace(
        column,
        missing=column.missing + sum(counts.values()),
        distinct=column.distinct - len(counts),
        once=column.once - sum(count == 1 for count in counts.values()),
        top=tuple(item for item in column.top if item[0] not in tokens),
        odd=tuple(item for item in column.odd if item[0] not in tokens),
    )


def kind_of(column: ColumnFacts) -> Kind:
    """What the values of a column are; needs facts without missing tokens.

    >>> kind_of(ColumnFacts("code", "text", 9, 0, 2, 0, (("007", 6), ("012", 3)), numbers=9, whole=9, leading_zeros=9))
    'category'
    """
    if not column.present:
        return "empty"
    if column.distinct == 1:
        return "constant"
    if column.native in ("boolean", "time"):
        return "boolean" if column.native == "boolean" else "time"
    if _is_moment(column):
        return "time"
    if _mostly(column.numbers, column) and not column.leading_zeros:
        return "integer" if column.whole == column.numbers else "number"
    return "text" if column.words >= FREE_TEXT_WORDS and column.distinct > CLOSED else "category"


def _mostly(count: int, column: ColumnFacts) -> bool:
    """All but at most one in fifty: the others are mistakes that the contract rejects."""
    return count >= UNIQUE_ENOUGH * column.present


def _is_moment(column: ColumnFacts) -> bool:
    low, high = UNIX_SECONDS
    name = re.search(r"date|time|stamp|_at$|unix|epoch", column.name, re.IGNORECASE)
    seconds = column.whole == column.numbers and column.maximum >= low and column.maximum <= high
    unix = seconds and name is not None and (column.minimum >= low or column.minimum in SENTINELS)
    return (unix and _mostly(column.numbers, column)) or (_mostly(column.dates, column) and not column.numbers)


def limits(column: ColumnFacts) -> tuple[float, float]:
    """A legal range around what was seen: wide enough for tomorrow, narrow enough to catch a slipped digit.

    >>> limits(ColumnFacts("files", "text", 9, 0, 9, 9, (), numbers=9, whole=9, minimum=1, maximum=1543))
    (0, 5000)
    >>> limits(ColumnFacts("hour", "text", 99, 0, 24, 0, (), numbers=99, whole=99, minimum=0, maximum=23))
    (0, 23)
    >>> limits(ColumnFacts("share", "text", 99, 0, 90, 0, (), numbers=99, whole=2, minimum=0, maximum=0.97))
    (0, 1)
    """
    low, high = column.minimum, column.maximum
    for word, (least, most) in NAMED_RANGES.items():
        if word in spaced(column.name).split() and least <= low and high <= most:
            return least, most
    whole = column.whole == column.numbers
    span = high - low
    if whole and column.distinct == span + 1 and column.distinct <= 2 * CLOSED:
        return int(low), int(high)
    if low >= 0 and high <= 1 and not whole:
        return 0, 1
    if low > span:
        step = _round_up(span)
        return _plain(math.floor((low - span) / step) * step), _plain(math.ceil((high + span) / step) * step)
    return _plain(-_round_up(2 * -low) if low < 0 else 0), _plain(_round_up(2 * high) if high > 0 else 0)


def _round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-12))


def _plain(value: float) -> float:
    return int(value) if value == int(value) else float(f"{value:.12g}")


def sentinels(column: ColumnFacts, sample: pd.Series) -> tuple[float, ...]:
    """Numbers that stand far from all others and are what people write for "no value"."""
    numbers = pd.to_numeric(sample, errors="coerce").dropna()
    found = []
    for value in {column.minimum, column.maximum} & set(map(float, SENTINELS)):
        others = numbers[numbers != value]
        count = len(numbers) - len(others)
        alone = len(others) and (others.min() >= 0 if value < 0 else others.max() < value / 2)
        if alone and count >= max(2, len(numbers) / 1_000):
            found.append(_plain(value))
    return tuple(sorted(found))


def other_spellings(values: Sequence[tuple[str, int]]) -> dict[str, str]:
    """Values that differ from a more frequent one in case, blanks or a final dot only.

    >>> other_spellings([(">50K", 90), ("<=50K", 70), (">50K.", 30), ("<=50k", 2)])
    {'>50K.': '>50K', '<=50k': '<=50K'}
    """
    chosen: dict[str, str] = {}
    aliases = {}
    for text, _ in sorted(values, key=lambda item: -item[1]):
        form = re.sub(r"\s+", " ", text).strip().rstrip(".").casefold()
        if form and chosen.setdefault(form, text) != text:
            aliases[text] = chosen[form]
    return aliases


@dataclass(frozen=True)
class Target:
    """What is predicted."""

    facts: ColumnFacts
    task: Task
    classes: tuple[str, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()
    """Rows per class, other spellings included."""
    aliases: tuple[tuple[str, str], ...] = ()
    guessed: bool = False
    """Was the task guessed from a few whole numbers?"""

    @property
    def share(self) -> float:
        """Share of the most frequent class: what the best constant reaches."""
        return max(count for _, count in self.counts) / self.facts.present

    def values(self, sample: pd.DataFrame) -> NDArray[np.float64]:
        """Class numbers or label values of the sample, shape (n,); NaN where there is none."""
        column = sample[self.facts.name]
        if self.task == "regression":
            return np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
        order = {name: float(number) for number, name in enumerate(self.classes)}
        return np.asarray(column.replace(dict(self.aliases)).map(order), dtype=np.float64)


def find_target(facts: TableFacts, label: str, task: Task | None) -> Target:
    column = facts.column(label)
    if column is None or column.distinct < 2:  # noqa: PLR2004
        got = column.top[0][0] if column and column.top else None
        raise ModelFileError(
            f"{label} has fewer than two different values; there is nothing to learn",
            got=got,
            do="Choose another --label",
        )
    number = kind_of(column) in ("integer", "number", "time")
    named_class = re.search(r"class|categor|label|target", label, re.IGNORECASE) and column.distinct <= LISTED
    few = column.whole == column.numbers and (column.distinct <= CLASSES or named_class)
    if (task or ("regression" if number and not few else "classification")) == "regression":
        if not number:
            raise ModelFileError(
                "a regression needs numbers as label", got=f"{label}: {column.top[0][0]!r}", do="Predict classes"
            )
        return Target(column, "regression")
    if column.distinct > LISTED:
        raise ModelFileError(
            f"{label} has too many different values for classes", got=column.distinct, allowed=f"2 to {LISTED}",
            do="Group them, or predict a number",
        )  # fmt: skip
    aliases = other_spellings(column.top)
    counts = {text: count for text, count in column.top if text not in aliases}
    for text, count in column.top:
        if text in aliases:
            counts[aliases[text]] += count
    if len(counts) < 2:  # noqa: PLR2004
        raise ModelFileError(
            f"{label} has one class in different spellings", got=list(counts), do="Choose another --label"
        )
    classes = _in_order(counts)
    guessed = number and task is None and column.distinct > 2  # noqa: PLR2004
    return Target(
        column, "classification", classes, tuple((c, counts[c]) for c in classes), tuple(aliases.items()), guessed
    )


def _in_order(counts: dict[str, int]) -> tuple[str, ...]:
    """Classes as a person would list them: by number, by meaning, otherwise the most frequent first.

    >>> _in_order({"High": 2, "Low": 9, "Medium": 5})
    ('Low', 'Medium', 'High')
    """
    for order in ORDERS:
        if all(name.casefold() in order for name in counts):
            return tuple(sorted(counts, key=lambda name: order.index(name.casefold())))
    try:
        return tuple(sorted(counts, key=float))
    except ValueError:
        return tuple(sorted(counts, key=lambda name: (-counts[name], name)))


def predictive_power(values: pd.Series, kind: Kind, truth: NDArray[np.float64], task: Task) -> float:
    """How much of the label one column tells on rows that were not looked at: 0 nothing, 1 everything.

    Each value (each of 200 ranges of a number) predicts what it went with in the other half of the rows. Accuracy is
    rescaled so that the most frequent class is 0; for a regression it is the coefficient of determination.
    """
    known = ~np.isnan(truth)
    codes = _codes(values[known], kind)
    y = truth[known]
    half = np.arange(len(y)) % 2 == 0
    scale = np.unique(y, return_inverse=True)[1].astype(np.float64) if task == "classification" else y
    guess = np.empty(len(y))
    for learn in (half, ~half):
        guess[~learn] = _look_up(codes, scale, learn, task)[~learn]
    if task == "regression":
        spread = float(((y - y.mean()) ** 2).sum())
        return max(0.0, 1 - float(((y - guess) ** 2).sum()) / spread) if spread else 0.0
    most = np.bincount(scale.astype(np.int64)).max() / len(scale)
    return max(0.0, float(((guess == scale).mean() - most) / (1 - most))) if most < 1 else 0.0


def _codes(values: pd.Series, kind: Kind) -> NDArray[np.int64]:
    if kind in ("integer", "number", "time"):
        numbers = pd.to_numeric(values, errors="coerce")
        if numbers.nunique() > BINS:
            return np.asarray(pd.qcut(numbers, BINS, labels=False, duplicates="drop").fillna(-1), dtype=np.int64) + 1
        values = numbers
    return np.asarray(pd.factorize(values)[0], dtype=np.int64) + 1


def _look_up(
    codes: NDArray[np.int64], y: NDArray[np.float64], learn: NDArray[np.bool_], task: Task
) -> NDArray[np.float64]:
    size = int(codes.max()) + 1
    if task == "regression":
        sums = np.bincount(codes[learn], weights=y[learn], minlength=size)
        counts = np.bincount(codes[learn], minlength=size)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), y[learn].mean())
        return np.asarray(means[codes], dtype=np.float64)
    classes = int(y.max()) + 1
    table = np.bincount(codes[learn] * classes + y[learn].astype(np.int64), minlength=size * classes)
    scores = table.reshape(size, classes) + np.bincount(y[learn].astype(np.int64), minlength=classes) / (2 * len(y))
    return np.asarray(scores.argmax(axis=1)[codes], dtype=np.float64)


def duplicates(sample: pd.DataFrame) -> dict[str, str]:
    """Columns that say what an earlier one says already: the same values, or one to one other names for them.

    >>> duplicates(pd.DataFrame({"a": list("xyxy"), "b": list("1212"), "c": list("1122")}))
    {'b': 'a'}
    """
    first: dict[bytes, str] = {}
    found = {}
    for name in sample:
        codes, values = pd.factorize(sample[name])
        content = codes.tobytes()
        if len(values) > len(sample) / 2:  # nearly unique columns are one to one by nature: the values have to agree
            content = pd.util.hash_array(sample[name].to_numpy(dtype=object)).tobytes()
        if len(values) > 1 and (earlier := first.setdefault(content, str(name))) != name:
            found[str(name)] = earlier
    return found


@dataclass(frozen=True)
class Judged:
    """What becomes of one column."""

    facts: ColumnFacts
    kind: Kind
    findings: tuple[Finding, ...] = ()
    left_out: bool = False
    aliases: tuple[tuple[str, str], ...] = ()
    sentinels: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        return self.facts.name


def judge_columns(facts: TableFacts, sample: pd.DataFrame, target: Target, moment: str | None) -> dict[str, Judged]:
    truth = target.values(sample)
    kinds = {column.name: kind_of(column) for column in facts.columns}
    features = [column for column in facts.columns if column.name not in (target.facts.name, moment)]
    numbers_first = sorted((c.name for c in features), key=lambda name: kinds[name] not in ("integer", "number"))
    same = duplicates(sample[numbers_first])
    judged = {}
    for column in features:
        one = Judged(column, kinds[column.name])
        problems = _problems(one, sample, truth, target, same)
        aliases = other_spellings(column.top) if one.kind == "category" and column.distinct <= LISTED else {}
        far = sentinels(column, sample[column.name]) if one.kind in ("integer", "number") else ()
        found = (*problems, *_remarks(one, aliases, far))
        judged[column.name] = replace(
            one,
            findings=found,
            left_out=any(f.action == LEFT_OUT for f in found),
            aliases=tuple(aliases.items()),
            sentinels=far,
        )
    return judged


LEFT_OUT = "left out: commented in the model file"
KEPT = "kept; decide"


def _problems(
    one: Judged, sample: pd.DataFrame, truth: NDArray[np.float64], target: Target, same: dict[str, str]
) -> Iterator[Finding]:
    """Reasons to leave a column out, or to think about it; the first that leaves it out is enough."""
    column, name = one.facts, one.name
    if one.kind == "empty":
        yield Finding(name, "empty", "warning", "has no value in any row", LEFT_OUT)
    elif one.kind == "constant":
        share = f" and {column.missing:,} missing" if column.missing else ""
        yield Finding(name, "constant", "warning", f"is {column.top[0][0]!r} in every row{share}", LEFT_OUT)
    elif name in same:
        yield Finding(name, "duplicate", "warning", f"says one to one what {same[name]} says", LEFT_OUT)
    elif finding := _identity(one, sample):
        yield finding
    elif one.kind == "time":
        yield Finding(name, "date", "note", "is a moment; models learn from what it implies, not from it", LEFT_OUT)
    elif one.kind == "text":
        yield Finding(name, "free_text", "warning", f"is free text ({column.distinct:,} different values)", LEFT_OUT)
    else:
        yield from _leaks(one, sample[name], truth, target)


def _identity(one: Judged, sample: pd.DataFrame) -> Finding | None:
    column = one.facts
    least = NAMED_AND_NEARLY_UNIQUE if ID_NAME.search(one.name) else UNIQUE_ENOUGH
    if column.distinct < least * column.present or one.kind == "number" or column.present < RARE_CLASS:
        return None
    if one.kind == "integer":
        numbers = pd.to_numeric(sample[one.name], errors="coerce").dropna()
        rising = bool(numbers.is_monotonic_increasing or numbers.is_monotonic_decreasing)
        if not rising and not ID_NAME.search(one.name):
            return None
        words = "counts the rows" if rising else "is named like an id and is different in nearly every row"
        return Finding(one.name, "id", "warning", words, LEFT_OUT)
    if one.kind in ("time", "text"):
        return None
    return Finding(one.name, "id", "warning", "is different in nearly every row", LEFT_OUT)


def _leaks(one: Judged, values: pd.Series, truth: NDArray[np.float64], target: Target) -> Iterator[Finding]:
    label = target.facts.name
    power = predictive_power(values, one.kind, truth, target.task)
    missing = predictive_power(values.isna().astype(int).astype(str), "category", truth, target.task)
    shared = _words(one.name) & _words(label)
    if max(power, missing) >= SOLE_PREDICTOR:
        what = "whether it is missing" if missing >= SOLE_PREDICTOR else "it"
        yield Finding(
            one.name,
            "leak",
            "danger",
            f"{what} alone predicts {label} (power {max(power, missing):.2f} of 1)",
            LEFT_OUT,
        )
    elif (gone := _missing_with_label(values, truth)) is not None:
        yield Finding(
            one.name, "afterwards", "danger",
            f"is missing in {gone:.0%} of the rows without {label}, and hardly elsewhere: known only afterwards?", LEFT_OUT,
        )  # fmt: skip
    elif power >= STRONG_PREDICTOR:
        action = LEFT_OUT if shared else KEPT
        yield Finding(one.name, "leak", "danger", f"alone predicts {label} well (power {power:.2f} of 1)", action)
    elif AFTERWARDS.search(spaced(one.name)) and not BEFORE.search(spaced(one.name)):
        yield Finding(one.name, "afterwards", "warning", "sounds like something known only afterwards", KEPT)


def _missing_with_label(values: pd.Series, truth: NDArray[np.float64]) -> float | None:
    """Share of the rows without a label in which the column is missing too, if that is conspicuous."""
    unlabelled = np.isnan(truth)
    if unlabelled.sum() < RARE_CLASS or unlabelled.all():
        return None
    gone = values.isna().to_numpy()
    inside, outside = float(gone[unlabelled].mean()), float(gone[~unlabelled].mean())
    return inside if inside >= 0.5 and outside < inside / 20 else None  # noqa: PLR2004


def spaced(name: str) -> str:
    """`closedAt`, `closed_at` and `Closed At` as `closed at`."""
    return re.sub(r"[\W_]+", " ", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)).lower()


def _words(name: str) -> set[str]:
    return {word for word in spaced(name).split() if len(word) > 2}  # noqa: PLR2004


def _remarks(one: Judged, aliases: dict[str, str], far: Sequence[float]) -> Iterator[Finding]:
    """What is worth knowing of a column that stays."""
    column, name = one.facts, one.name
    numeric = one.kind in ("integer", "number")
    if column.native == "text" and column.decimal_commas > column.present / 2:
        yield Finding(name, "decimal_comma", "danger", "holds numbers with decimal commas, read as text", KEPT)
    if numeric and (wrong := column.present - column.numbers):
        shown = ", ".join(repr(text) for text, _ in column.odd[:5])
        yield Finding(
            name, "mixed", "warning", f"{wrong:,} values among the numbers are none: {shown}", "these rows are rejected"
        )
    elif one.kind == "category" and column.numbers > RARE_CLASS and not column.leading_zeros:
        yield Finding(
            name, "mixed", "note", f"{column.numbers:,} values are numbers, the others are not", "read as category"
        )
    if one.kind == "category" and column.leading_zeros:
        yield Finding(name, "code", "note", "digits with leading zeros are codes", "read as category")
    if aliases:
        shown = ", ".join(f"{text!r} → {chosen!r}" for text, chosen in list(aliases.items())[:5])
        yield Finding(name, "spelling", "note", f"other spellings: {shown}", "aliases")
    if far:
        yield Finding(
            name, "sentinel", "warning", f"{', '.join(map(str, far))} stands apart: a code for no value?", KEPT
        )
    if one.kind == "category" and column.distinct > MANY_CATEGORIES:
        yield Finding(name, "many_categories", "note", f"has {column.distinct:,} different values", "open category")
    if one.kind not in ("constant", "empty") and column.top and column.top[0][1] >= NEARLY_CONSTANT * column.rows:
        share = column.top[0][1] / column.rows
        yield Finding(name, "nearly_constant", "note", f"is {column.top[0][0]!r} in {share:.2%} of the rows", KEPT)
