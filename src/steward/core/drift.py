"""Have the inputs changed? Windows of a column against the rows that the champion learned from, by their profiles alone.

Five questions are asked of a column: has its location moved, its spread, its shape, its share of missing values, its
share of values that training did not know. Each is asked of the newest window, and of the newest 2 to 28 together, so
that a small steady shift is found although no single window shows it.

Like is compared with like: where the reference's windows show a rhythm, a window is held against the same weekdays, or
the same hours, of the reference.

Real days differ from each other more than samples do. How much more is learned per column from the reference's own
windows and from calm ones since, as a variance between windows; columns lend each other certainty about it (Smyth,
Linear models and empirical Bayes methods, 2004), and what stays uncertain widens the tails.

Location and spread are the first two components of a smooth test on normal scores, and shape is all that is left of the
chi-square beside them (Rayner, Thas and Best, Smooth Tests of Goodness of Fit, 2009). A column's p-values are combined
by Cauchy's rule, which needs no independence (Liu and Xie, Cauchy combination test, 2020), and held against an equal
share of the false alarms that are allowed.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats
from threadpoolctl import threadpool_limits

from steward.core.profiles import Series, running
from steward.records import Estimate, Separation

LENGTHS = (1, 2, 3, 5, 7, 10, 14, 28)
"""Newest windows that are looked at together."""
FEW_WINDOWS = 8
"""Fewer tell nothing of how windows differ."""
MOST_FREEDOM = 60.0
"""However many columns agree on a variance: no model of it is better than this."""
NEGLIGIBLE = 0.1
"""Effects that are surely below this are real and do not matter: standard deviations, or Cohen's w and h."""
SURE = 1.645
"""Standard errors of a one-sided 95 % bound."""
UNNOTICED = 0.05
"""A variance between windows whose p-value is above this is taken for none: were it there, it would be negligible."""
SHARE_OF_ALARMS = 0.5
"""Of the false alarms that are allowed; the other half belongs to accuracy."""
OVERLAP = 3.0
"""Alarms come in runs, because looks share windows, and a run is one alarm: the p-value that a budget of
single looks would have leads to a fifth of its alarms (benchmarks/drift_rates.py), and three times as much to three fifths."""
RHYTHMIC = 0.01
"""A rhythm is believed in where weekdays or hours differ with a p-value below this."""
MOSTLY = 0.6
"""Share of a window that must lie in one weekday or hour for it to be one of them."""
ENOUGH = 2
"""Windows of the reference on the same weekday, or at the same hour, that can be compared with."""
SHAPE_BINS = 10
COMMON = 0.002
"""Share of rows from which a category is looked at on its own."""
NOTHING, SMALLEST_SHARE = 1e-6, 1e-12
SMALLEST_P, LARGEST_P = 1e-300, 0.9

Floats = NDArray[np.float64]
Name = TypeVar("Name")
Question = Literal["location", "spread", "shape", "missing", "unseen"]
MAIN: tuple[Question, ...] = ("location", "spread")
QUESTIONS: tuple[Question, ...] = (*MAIN, "shape", "missing", "unseen")
Like = Literal["all", "weekday", "hour"]
DAY, WEEK = 86_400.0, 604_800.0


@dataclass(frozen=True)
class Finding:
    """What has changed in a column.

    Attributes
    ----------
    windows : how many of the newest windows show it best.
    p : of that question and length.
    effect : standard deviations (location), Cohen's w (spread, shape) or Cohen's h (missing, unseen).
    matters : False for a change that is real and negligible.
    alarm : whether the column's p-values together exceed the budget.
    touched : share of the rows of these windows that lie where the reference has fewer: an upper bound of the
        predictions that it can touch.
    like : whether the reference's rows of the same weekdays or hours were compared with, or all.
    """

    column: str
    question: Question
    windows: int
    p: float
    effect: float
    matters: bool
    alarm: bool
    touched: float
    like: Like = "all"

    def as_json(self) -> dict[str, Any]:
        return vars(self)


@dataclass(frozen=True)
class Report:
    """Every column's findings, the strongest first, and each column's combined p-value."""

    findings: tuple[Finding, ...]
    p_values: dict[str, float]
    level: float
    """Below it a column's p-value is an alarm."""

    @property
    def alarms(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.alarm)


@dataclass(frozen=True)
class _Between:
    """Variance between windows, in units of the variance within, and how sure it is."""

    variance: float = 0.0
    freedom: float = MOST_FREEDOM

    def factor(self, rows: Any) -> Any:
        """How many times more windows of this size differ than samples would."""
        return 1 + rows * self.variance


@dataclass(frozen=True)
class _Raw:
    """How many times more a column's windows of `rows` rows differ than samples would, before it is moderated."""

    factor: float
    freedom: float
    rows: float


@dataclass(frozen=True)
class _Tests:
    """Answers to one question, a value per length."""

    p: Floats
    effect: Floats
    error: Floats

    @property
    def matters(self) -> NDArray[np.bool_]:
        return self.effect + SURE * self.error >= NEGLIGIBLE


class Detector:
    """Knows the reference, and how much windows differ when nothing has changed.

    Parameters
    ----------
    reference : per column the windows of the rows that the champion learned from; one window where they have no time.
    calm : per column the windows since then that are old enough not to be in question and raised no alarm.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def windows(count, shares):
    ...     counts = rng.multinomial(500, shares, size=count).astype(float)
    ...     return {"team": Series("category", counts, np.zeros(count), np.zeros(count))}
    >>> detector = Detector(windows(14, [0.5, 0.3, 0.2]))
    >>> len(detector.examine(windows(1, [0.5, 0.3, 0.2]), level=1e-4).alarms)
    0
    >>> [(one.column, one.question) for one in detector.examine(windows(1, [0.3, 0.5, 0.2]), level=1e-4).alarms]
    [('team', 'shape')]
    """

    def __init__(self, reference: Mapping[str, Series], calm: Mapping[str, Series] | None = None) -> None:
        since = calm or {}
        self._columns = {
            name: _Reference(one, one + since[name] if name in since else one) for name, one in reference.items()
        }
        self._between: dict[str, dict[Question, _Between]] = {name: {} for name in reference}
        for kind in ("number", "category"):
            names = [name for name, column in self._columns.items() if column.kind == kind]
            for question in QUESTIONS:
                raw = [self._columns[name].raw.get(question) for name in names]
                for name, one in zip(names, _moderated(raw), strict=True):
                    self._between[name][question] = one

    def examine(self, recent: Mapping[str, Series], *, level: float) -> Report:
        """Hold the newest windows against the reference.

        Parameters
        ----------
        recent : per column of the reference the newest windows, at most 28 of them are looked at.
        level : p-value below which one column is an alarm; see `level_of`.
        """
        found: list[Finding] = []
        p_values: dict[str, float] = {}
        for name in self._columns:
            asked = self._asked(name, recent[name], looks=1)
            p_values[name] = float(asked.p_values(1)[0])
            found += _findings(name, asked, alarm=p_values[name] < level, level=level)
        return Report(tuple(sorted(found, key=lambda one: (not one.alarm, one.p))), p_values, level)

    def p_values(self, windows: Mapping[str, Series], *, looks: int) -> dict[str, Floats]:
        """What `examine` would have said at each of the newest looks; per column shape (looks,)."""
        return {name: self._asked(name, windows[name], looks).p_values(looks) for name in self._columns}

    def _asked(self, name: str, windows: Series, looks: int) -> "_Asked":
        column, first = self._columns[name], len(windows) - looks
        pairs = [(end + 1, length) for end in range(first, len(windows)) for length in LENGTHS if length <= end + 1]
        ends, lengths = np.array(pairs).T
        window, usual = windows.summed(ends, lengths), column.usual(windows, ends, lengths)
        squared = running(_squared(windows, column.score), ends, lengths)
        tests = dict(column.tests(window, squared, usual, lengths, self._between[name]))
        return _Asked(column, window, usual, ends - first - 1, lengths, tests)


@dataclass(frozen=True)
class _Asked:
    """A column's answers; `look` says which look a value is of."""

    column: "_Reference"
    window: Series
    usual: "_Usual"
    look: NDArray[np.intp]
    lengths: NDArray[np.intp]
    tests: Mapping[Question, _Tests]

    def p_values(self, looks: int) -> Floats:
        """All answers of a look as one, shape (looks,)."""
        p = np.array([np.where(one.matters, one.p, LARGEST_P) for one in self.tests.values()])
        return np.array([_cauchy(p[:, self.look == look]) for look in range(looks)])


def level_of(false_alarms_per_year: float, windows_per_year: float, columns: int) -> float:
    """The p-value of one column in one window that keeps the budget over a year.

    >>> level_of(1, 365, 20)
    0.00041...
    """
    return OVERLAP * false_alarms_per_year / max(1.0, windows_per_year) / max(1, columns)


@dataclass(frozen=True)
class _Cycle:
    """Weeks of days, or days of hours: parts that come again."""

    name: Literal["weekday", "hour"]
    period: float
    parts: int

    @classmethod
    def of(cls, spans: Floats | None) -> "_Cycle | None":
        """The one that windows of this length can show; None if they are too long, or have no time."""
        if spans is None:
            return None
        length = float(np.median(spans[:, 1] - spans[:, 0]))
        if length < DAY:
            return cls("hour", DAY, round(DAY / length))
        return cls("weekday", WEEK, 7) if length < DAY + 1 else None

    def shares(self, spans: Floats) -> Floats:
        """Share of each window's time that lies in each part, shape (windows, parts)."""
        part = self.period / self.parts
        edges = part * np.arange(self.parts)
        whole, rest = np.divmod(spans[:, :, None], self.period)
        passed = whole * part + np.clip(rest - edges, 0, part)
        time = np.diff(passed, axis=1)[:, 0]
        return np.asarray(time / np.maximum(time.sum(axis=1, keepdims=True), NOTHING))

    def parts_of(self, spans: Floats) -> Floats:
        """1 where most of a window lies in a part, else 0, shape (parts, windows)."""
        return (self.shares(spans).T > MOSTLY).astype(float)


@dataclass(frozen=True)
class _Usual:
    """What the reference has at such times, a value per length."""

    like: Like
    share: Floats
    """Of its bins, shape (lengths, bins)."""
    rows: Floats
    missing: Floats
    """Share of all rows, as `unseen` is."""
    unseen: Floats
    all: Floats
    """Rows, with those that are missing or unseen; as `rows`, as many as say as much."""
    squared: Floats
    """Mean of the windows' squared locations."""


class _Rhythm:
    """The reference by weekday or hour. A part with too few windows takes the whole reference for usual.

    Parameters
    ----------
    score : of each bin, whose mean is the location.
    """

    def __init__(self, cycle: _Cycle, reference: Series, score: Floats) -> None:
        self.cycle = cycle
        mine = cycle.parts_of(np.asarray(reference.spans))
        self.known = mine.sum(axis=1) >= ENOUGH
        counts, missing, unseen, everything, squares = (
            np.where(self.known[:, None], mine @ own, own.sum(axis=0))
            for own in (
                reference.counts,
                reference.missing[:, None],
                reference.unseen[:, None],
                reference.rows[:, None],
                _squared(reference, score)[:, None],
            )
        )
        self.rows, self.all = np.maximum(counts.sum(axis=1), 1.0), np.maximum(everything[:, 0], 1.0)
        self.share, self.missing, self.unseen = counts / self.rows[:, None], missing[:, 0], unseen[:, 0]
        self.location, self.squared = self.share @ score, squares[:, 0] / self.rows
        self.pace = np.where(self.known, self.all, self.all[self.known].mean() if self.known.any() else 1.0)

    def usual(self, windows: Series, ends: NDArray[np.intp], lengths: NDArray[np.intp]) -> _Usual:
        weight = self.cycle.shares(np.asarray(windows.spans)) * self.pace
        weight *= (windows.rows / weight.sum(axis=1))[:, None]
        apart = weight @ (self.squared - self.location**2)
        squared = (weight @ self.location) ** 2 / np.maximum(windows.rows, 1.0) + apart
        mix = running(weight, ends, lengths)
        mix /= np.maximum(mix.sum(axis=1, keepdims=True), NOTHING)
        return _Usual(
            like=self.cycle.name,
            share=mix @ self.share,
            rows=1 / (mix**2 / self.rows).sum(axis=1),
            missing=mix @ (self.missing / self.all),
            unseen=mix @ (self.unseen / self.all),
            all=1 / (mix**2 / self.all).sum(axis=1),
            squared=running(squared, ends, lengths) / np.maximum(running(windows.rows, ends, lengths), 1.0),
        )


class _Reference:
    """One column of the reference."""

    def __init__(self, reference: Series, history: Series) -> None:
        self.kind = reference.kind
        self.counts = reference.counts.sum(axis=0)
        self.rows = max(1.0, float(self.counts.sum()))
        self.missing, self.unseen = float(reference.missing.sum()), float(reference.unseen.sum())
        self.all = self.rows + self.missing + self.unseen
        self.window = float((reference.counts.sum(axis=1) ** 2).sum()) / self.rows
        self.share = self.counts / self.rows
        self.main, self.leak = np.empty((len(self.share), 0)), 0.0
        if self.kind == "number":
            self.main, self.leak = _location_and_spread(self.share)
        self.rest = _other_functions(self.share, _groups(self.share, self.kind), self.main)
        cycle = _Cycle.of(reference.spans)
        self.score = self.main[:, 0] if self.kind == "number" else np.zeros(len(self.share))
        self.squared = float(_squared(reference, self.score).sum()) / self.rows
        self.rhythm = _Rhythm(cycle, reference, self.score) if cycle else None
        self.rhythmic: set[Question] = set()
        self.raw = self._spreads(history)

    def usual(self, windows: Series, ends: NDArray[np.intp], lengths: NDArray[np.intp]) -> _Usual:
        """What the reference has at the times of so many windows before each end; as a whole, if it has no rhythm."""
        if self.rhythm and self.rhythmic and windows.spans is not None:
            return self.rhythm.usual(windows, ends, lengths)
        return self.usual_at_any_time(len(lengths))

    def usual_at_any_time(self, count: int) -> _Usual:
        one = np.ones(count)
        return _Usual(
            "all",
            self.share[None, :] * one[:, None],
            self.rows * one,
            self.missing / self.all * one,
            self.unseen / self.all * one,
            self.all * one,
            self.squared * one,
        )

    def tests(
        self, window: Series, squared: Floats, usual: _Usual, lengths: Floats, between: Mapping[Question, _Between]
    ) -> Iterator[tuple[Question, _Tests]]:
        """Every question that can be asked of this column, for windows of several lengths.

        Parameters
        ----------
        squared : `_squared` of the windows, added up as they are.
        """
        rows = np.maximum(window.counts.sum(axis=1), 1.0)
        main, rest = self._means(window.counts, rows, squared)
        like = usual if self.rhythmic.issuperset(MAIN) else self.usual_at_any_time(len(lengths))
        usual_main, _ = self._means(like.share, np.ones(len(lengths)), like.squared)
        for place, question in enumerate(MAIN if main.shape[1] else ()):
            effect = np.abs(main[:, place] - usual_main[:, place])
            error = self._error(between[question], rows, lengths, like.rows)
            p = 2 * special.stdtr(between[question].freedom, -effect / error)
            yield question, _Tests(p, effect, np.sqrt(1 / rows + 1 / like.rows))
        free = rest.shape[1]
        if free:
            known = usual.rows if "shape" in self.rhythmic else self.rows
            sampling = np.sqrt(1 / rows + 1 / known)
            usual_rest = usual.share @ self.rest * ("shape" in self.rhythmic)
            distance = ((rest - usual_rest) ** 2).sum(axis=1)
            error = self._error(between["shape"], rows, lengths, known)
            p = special.fdtrc(free, between["shape"].freedom, distance / free / error**2)
            yield "shape", _Tests(p, np.sqrt(np.maximum(0.0, distance - free * sampling**2)), sampling)
        yield "missing", self._rate("missing", window.missing, window.rows, usual, lengths, between)
        if self.kind == "category":
            yield "unseen", self._rate("unseen", window.unseen, window.rows, usual, lengths, between)

    def touched(self, window: Series, usual: _Usual, position: int) -> float:
        """Total variation distance between reference and window: the share of rows that are somewhere else."""
        own = np.append(window.counts[position], [window.missing[position], window.unseen[position]])
        missing, unseen = usual.missing[position], usual.unseen[position]
        reference = np.append(usual.share[position] * (1 - missing - unseen), [missing, unseen])
        return float(np.abs(own / max(1.0, own.sum()) - reference / max(NOTHING, reference.sum())).sum() / 2)

    def _error(self, between: _Between, rows: Floats, lengths: Floats, known: Any) -> Floats:
        """Of a mean: what windows and reference differ by when nothing has changed."""
        return np.asarray(np.sqrt(between.factor(rows / lengths) / rows + between.factor(self.window) / known))

    def _means(self, counts: Floats, rows: Floats, squared: Floats) -> tuple[Floats, Floats]:
        """Of location and spread, and of the other functions; without `squared` all are 0 on the reference, with variance 1.

        The spread is what windows have on their own: that some lie higher than others is the locations' matter, and would
        make windows together look as if they spread, by chance times rhythm.
        """
        main = counts @ self.main / rows[:, None]
        if self.leak:
            main[:, 1] -= self.leak * squared / rows
        return main, counts @ self.rest / rows[:, None]

    def _rate(
        self,
        question: Literal["missing", "unseen"],
        hits: Floats,
        rows: Floats,
        usual: _Usual,
        lengths: Floats,
        between: Mapping[Question, _Between],
    ) -> _Tests:
        rows = np.maximum(rows, 1.0)
        known, rate = (
            (usual.all, getattr(usual, question))
            if question in self.rhythmic
            else (np.full(len(rows), self.all), np.full(len(rows), getattr(self, question) / self.all))
        )
        own, other = between[question].factor(rows / lengths), between[question].factor(self.window)
        p = _binomial(hits / own, rows / own, rate * known / other, known / other)
        effect = 2 * np.abs(np.arcsin(np.sqrt(hits / rows)) - np.arcsin(np.sqrt(rate)))
        return _Tests(p, effect, np.sqrt(1 / rows + 1 / known))

    def _spreads(self, history: Series) -> dict[Question, _Raw]:
        """How much more than samples the windows of a calm time differ, by question; finds the rhythmic ones too.

        Where a week goes up and down the reference as a whole spreads more than any day: location, spread and shape have
        a rhythm together.
        """
        if len(history) < FEW_WINDOWS:
            return {}
        rows = np.maximum(history.counts.sum(axis=1), 1.0)
        main, rest = self._means(history.counts, rows, _squared(history, self.score))
        parts = self.rhythm.cycle.parts_of(history.spans) if self.rhythm and history.spans is not None else None
        found: dict[Question, _Raw] = {}

        def learn(asked: Mapping[Question, Floats], of: Floats) -> None:
            apart = {} if parts is None else {name: _within_parts(values, of, parts) for name, values in asked.items()}
            if any(p < RHYTHMIC for _, p in apart.values()):
                self.rhythmic.update(asked)
                found.update({name: raw for name, (raw, _) in apart.items()})
            else:
                found.update({name: _within(values, of) for name, values in asked.items()})

        values: dict[Question, Floats] = {name: one[:, None] for name, one in zip(MAIN, main.T, strict=False)}
        learn(values | ({"shape": rest} if rest.shape[1] else {}), rows)
        everything = np.maximum(history.rows, 1.0)
        rates: dict[Question, Floats] = {"missing": history.missing, "unseen": history.unseen}
        for name, hits in rates.items():
            rate = hits.sum() / everything.sum()
            if hits.sum() >= 2 * len(history) and rate < 1:
                learn({name: (hits / everything / np.sqrt(rate * (1 - rate)))[:, None]}, everything)
        return found


def _squared(windows: Series, score: Floats) -> Floats:
    """Squared location of each window, times its rows."""
    return np.asarray((windows.counts @ score) ** 2 / np.maximum(windows.counts.sum(axis=1), 1.0))


def _within(values: Floats, rows: Floats) -> _Raw:
    """How much more than samples windows differ from their mean."""
    size = (rows.sum() - (rows**2).sum() / rows.sum()) / (len(rows) - 1)
    freedom = rows.sum() ** 2 / (rows**2).sum() - 1
    inside, _ = _squares(values, rows, np.ones((1, len(rows))))
    return _Raw(inside / (len(rows) - 1), float(freedom), float(size))


def _within_parts(values: Floats, rows: Floats, parts: Floats) -> tuple[_Raw, float]:
    """The same from the mean of windows of their own weekday or hour, and the p-value of these not differing.

    Parameters
    ----------
    parts : 1 where a window is of a part, else 0, shape (parts, windows).
    """
    parts = parts[parts.sum(axis=1) >= ENOUGH]
    used = parts.any(axis=0)
    between, free = len(parts) - 1, int(used.sum()) - len(parts)
    if between < 1 or free < 1:
        return _within(values, rows), 1.0
    raw = _within(values[used], rows[used])
    inside, across = _squares(values[used], rows[used], parts[:, used])
    p = float(special.fdtrc(between, free, (across / between) / max(NOTHING, inside / free)))
    return _Raw(inside / free, max(1.0, raw.freedom - between), raw.rows), p


def _squares(values: Floats, rows: Floats, parts: Floats) -> tuple[float, float]:
    """Squared deviations of windows from the mean of their part, and of parts from that of all, weighed by their rows;
    each a mean over the functions.
    """
    weighed = values * rows[:, None]
    sums, size = parts @ weighed, parts @ rows
    within = (values * weighed).sum(axis=0) - (sums**2 / size[:, None]).sum(axis=0)
    across = (sums**2 / size[:, None]).sum(axis=0) - sums.sum(axis=0) ** 2 / size.sum()
    return float(np.maximum(0.0, within).mean()), float(across.mean())


def _location_and_spread(share: Floats) -> tuple[Floats, float]:
    """Normal scores of a bin's mid-rank and their squares, orthonormal on the reference, shape (bins, 2); and what a
    squared location adds to the squares, so that a column that moves does not look as if it spread.
    """
    rank = np.clip(np.cumsum(share) - share / 2, SMALLEST_SHARE, 1 - SMALLEST_SHARE)
    location, _ = _standardised(special.ndtri(rank), share)
    spread, size = _standardised(location**2 - (share * location**3).sum() * location, share)
    return np.column_stack([location, spread]), 1 / size if size else 0.0


def _standardised(values: Floats, share: Floats) -> tuple[Floats, float]:
    """Mean 0 and variance 1 under the shares, and what they were divided by; all 0 where nothing varies."""
    centred = values - (share * values).sum()
    size = float(np.sqrt((share * centred**2).sum()))
    return (centred / size, size) if size > NOTHING else (np.zeros_like(values), 0.0)


def _groups(share: Floats, kind: str) -> NDArray[np.intp]:
    """For each bin the group that it belongs to when the shape is looked at."""
    if kind == "number":
        rank = np.cumsum(share) - share / 2
        return np.asarray(np.minimum(rank * SHAPE_BINS, SHAPE_BINS - 1), dtype=np.intp)
    common = share >= COMMON
    groups = np.maximum(np.cumsum(common) - 1, 0)
    return np.asarray(np.where(common, groups, groups.max() + 1), dtype=np.intp)


def _other_functions(share: Floats, groups: NDArray[np.intp], main: Floats) -> Floats:
    """All functions of the groups that are orthogonal to a constant and to the main ones, orthonormal; (bins, d)."""
    root = np.sqrt(np.maximum(share, SMALLEST_SHARE))[:, None]
    known, _ = np.linalg.qr(np.column_stack([np.ones(len(share)), main]) * root)
    left = np.eye(groups.max() + 1)[groups] * root
    left -= known @ (known.T @ left)
    functions, size, _ = np.linalg.svd(left, full_matrices=False)
    return np.asarray(functions[:, size > NOTHING] / root)


def _moderated(raw: Sequence[_Raw | None]) -> list[_Between]:
    """Each column's variance between windows, drawn towards that of all; Smyth 2004, section 6.2."""
    known = [one for one in raw if one and one.factor > 0 and one.freedom > 0]
    if len(known) < 3:  # noqa: PLR2004 - two columns tell nothing of the others
        return [_between(one.factor, one.freedom, one.rows) if one in known and one else _Between() for one in raw]
    factor, freedom = np.array([one.factor for one in known]), np.array([one.freedom for one in known])
    logs = np.log(factor) - special.digamma(freedom / 2) + np.log(freedom / 2)
    excess = logs.var(ddof=1) - special.polygamma(1, freedom / 2).mean()
    prior = 2 * _inverse_trigamma(excess) if excess > NOTHING else np.inf
    centre = float(np.exp(logs.mean() + (special.digamma(prior / 2) - np.log(prior / 2) if np.isfinite(prior) else 0)))
    size = float(np.mean([one.rows for one in known]))
    if np.isinf(prior) and stats.chi2.sf(centre * freedom.sum(), freedom.sum()) > UNNOTICED:
        centre = 1.0
    moderated = []
    for one in raw:
        if one is None or one not in known:
            moderated.append(_between(centre, prior, size))
        elif np.isinf(prior):
            moderated.append(_between(centre, freedom.sum(), one.rows))
        else:
            both = prior + one.freedom
            moderated.append(_between((prior * centre + one.freedom * one.factor) / both, both, one.rows))
    return moderated


def _between(factor: float, freedom: float, rows: float) -> _Between:
    return _Between(max(0.0, factor - 1) / rows, min(freedom, MOST_FREEDOM))


def _inverse_trigamma(value: float) -> float:
    """Newton's method on 1 / trigamma, which is nearly linear; Smyth 2004, appendix."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = special.polygamma(1, x)
        step = trigamma * (1 - trigamma / value) / special.polygamma(2, x)
        x += step
        if abs(step) < 1e-8 * x:
            break
    return float(x)


def _binomial(hits: Floats, rows: Floats, reference: float, reference_rows: float) -> Floats:
    """Two-sided p-values of a rate against the reference's, given both together; counts need not be whole."""
    total, share = hits + reference, rows / (rows + reference_rows)
    none, all_here = hits <= 0, total - hits <= 0
    upper = np.where(none, 1.0, special.betainc(np.where(none, 1, hits), total - hits + 1, share))
    lower = np.where(all_here, 1.0, special.betainc(np.where(all_here, 1, total - hits), hits + 1, 1 - share))
    return np.asarray(np.minimum(1.0, 2 * np.minimum(upper, lower)))


def _cauchy(p_values: Floats) -> float:
    """One p-value from many that may depend on each other; a p-value of 1 must not outweigh all others."""
    p = np.clip(p_values, SMALLEST_P, LARGEST_P)
    mean = float(np.where(p < 1e-8, 1 / (np.pi * p), np.tan((0.5 - p) * np.pi)).mean())  # noqa: PLR2004 - tan loses it
    return 1 / (np.pi * mean) if mean > 1e8 else 0.5 - float(np.arctan(mean)) / np.pi  # noqa: PLR2004


def _findings(name: str, asked: _Asked, *, alarm: bool, level: float) -> Iterator[Finding]:
    """The strongest length of every question whose p-value is below the level; of an alarm, at least the strongest."""
    tests, column = asked.tests, asked.column
    strongest = min(tests, key=lambda question: float(np.where(tests[question].matters, tests[question].p, 1.0).min()))
    for question, one in tests.items():
        judged = np.where(one.matters, one.p, 1.0) if one.matters.any() else one.p
        best = int(np.argmin(judged))
        matters, p = bool(one.matters[best]), float(one.p[best])
        if p < level or (alarm and question == strongest):
            usual = asked.usual if question in column.rhythmic else column.usual_at_any_time(len(judged))
            yield Finding(
                column=name,
                question=question,
                windows=int(asked.lengths[best]),
                p=p,
                effect=float(one.effect[best]),
                matters=matters,
                alarm=alarm and matters,
                touched=column.touched(asked.window, usual, best),
                like=usual.like,
            )


RECENT = max(LENGTHS)
"""Newest windows that are in question; older ones are calm unless they raised an alarm."""
MOST_CALM = 180
"""Calm windows that are remembered."""
EPISODE = 7
"""Windows in a row without an alarm that end one."""


def calm_windows(windows: Sequence[Name], alarms: Collection[Name]) -> list[Name]:
    """Which windows of one column show how much it varies while nothing has changed, oldest first.

    Parameters
    ----------
    windows : every window of the column, oldest first. `alarms` : those in which it raised an alarm.

    >>> windows = [f"day {number}" for number in range(31)]
    >>> calm_windows(windows, {"day 1"})
    ['day 0', 'day 2']
    """
    return [one for one in windows[:-RECENT] if one not in alarms][-MOST_CALM:]


QUESTIONS_SAY = {
    "location": "has moved by {effect:.2g} standard deviations",
    "spread": "spreads differently (w = {effect:.2g})",
    "shape": "is distributed differently (w = {effect:.2g})",
    "missing": "is missing at another rate (h = {effect:.2g})",
    "unseen": "has values that training did not know at another rate (h = {effect:.2g})",
}


LIKE_SAYS = {"all": "", "weekday": ", compared with the same weekdays", "hour": ", compared with the same hours"}


def sentence(finding: Finding, since: str | None) -> str:
    """A finding in words; without `since`, of rows that have no time."""
    what = QUESTIONS_SAY[finding.question].format(effect=finding.effect) + LIKE_SAYS[finding.like]
    weight = "" if finding.matters else "; real, and negligible"
    return (
        f"{finding.column} {what}{f' since {since}' if since else ''}, p = {finding.p:.1g}; "
        f"it touches at most {finding.touched:.0%} of the rows{weight}"
    )


# A classifier for what no column shows alone.


ROWS_TOLD_APART = 2_000
"""Of reference and window each."""
FEWEST_TOLD_APART = 100
FOLDS = 3
USED = 0.01
"""AUC that a column must carry to be named."""


def tell_apart(
    reference: pd.DataFrame, window: pd.DataFrame, *, seed: int, confidence: float = 0.95
) -> Separation | None:
    """How well gradient boosting tells the rows of a window from those of the reference, on rows it has not seen.

    Its AUC is 0.5 where nothing has changed; Lopez-Paz and Oquab, Revisiting classifier two-sample tests, 2017.

    Parameters
    ----------
    reference, window : learning frames: float64, or object for categories. More than 2,000 rows are sampled.

    Returns
    -------
    None with fewer than 100 rows on either side.
    """
    if min(len(reference), len(window)) < FEWEST_TOLD_APART:
        return None
    rng = np.random.default_rng(seed)
    parts = [one.iloc[rng.permutation(len(one))[:ROWS_TOLD_APART]] for one in (reference, window)]
    rows = _coded(pd.concat(parts, ignore_index=True))
    truth = np.repeat([0, 1], [len(one) for one in parts])
    folds = rng.permutation(np.arange(len(rows)) % FOLDS)
    chances = np.zeros((1 + len(rows.columns), len(rows)))
    for fold in range(FOLDS):
        inside, outside = folds != fold, folds == fold
        with threadpool_limits(1):  # as many rows are too few to share between threads
            classifier = _boosting(seed).fit(rows[inside], truth[inside])
            asked = _each_shuffled(rows[outside], rng)
            chances[:, outside] = classifier.predict_proba(asked)[:, 1].reshape(len(chances), -1)
    auc, *without = (_auc(truth, chance) for chance in chances)
    carried = {name: auc - one for name, one in zip(rows, without, strict=True)}
    used = sorted(((loss, name) for name, loss in carried.items() if loss >= USED), reverse=True)
    half = float(stats.norm.ppf((1 + confidence) / 2)) * _auc_error(auc, *np.bincount(truth).tolist())
    estimate = Estimate(value=auc, low=max(0.0, auc - half), high=min(1.0, auc + half))
    return Separation(auc=estimate, rows=len(parts[1]), columns={name: round(loss, 4) for loss, name in used})


def _each_shuffled(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The rows, then the rows with the first column shuffled, with the second …: one question instead of many."""
    asked = {name: np.tile(values.to_numpy(), 1 + len(rows.columns)) for name, values in rows.items()}
    for place, values in enumerate(asked.values(), start=1):
        mine = slice(place * len(rows), (place + 1) * len(rows))
        values[mine] = rng.permutation(values[mine])
    return pd.DataFrame(asked)


def _coded(frame: pd.DataFrame) -> pd.DataFrame:
    """Categories as codes, the most frequent ones apart and all others together."""
    coded = frame.copy()
    for name in frame.select_dtypes(exclude="number"):
        common = frame[name].value_counts().index[:200]
        codes = pd.Categorical(frame[name], categories=common).codes.astype(float)
        coded[name] = np.where(frame[name].isna(), np.nan, codes)
    return coded


def _boosting(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=30, max_leaf_nodes=15, learning_rate=0.2, early_stopping=False, random_state=seed
    )


def _auc(truth: NDArray[np.intp], chance: Floats) -> float:
    ranks = stats.rankdata(chance)
    ones = int(truth.sum())
    zeros = len(truth) - ones
    return float((ranks[truth == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _auc_error(auc: float, zeros: int, ones: int) -> float:
    """Hanley and McNeil, The meaning and use of the area under a ROC curve, 1982."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (ones - 1) * (q1 - auc**2) + (zeros - 1) * (q2 - auc**2)
    return float(np.sqrt(max(0.0, variance) / (ones * zeros)))
