"""How right is the champion: on mature outcomes, and by its own confidence before they arrive.

A young window holds the outcomes that came fast, and those are not like the others: so a window is read only when enough
of its outcomes can have arrived. An estimate from confidence sees rows that are harder than before; it cannot see that
the old answer is no longer right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm, t

from steward.core import metrics
from steward.records import Estimate, Reliability, figure

RIPE = 0.9
"""Share of the outcomes that will ever come which makes a window mature."""
FOLLOWED = 2.0
"""Arrivals must have been followed so many times longer than most took: else those that come late are not known yet."""
RELIABILITY_BINS = 10
FEWEST_DELAYS = 50
"""With fewer arrivals nothing is said about when outcomes come."""
CALIBRATION_BINS = 20
RISES = (0.02, 0.04, 0.08, 0.16)
"""By how much the error rate may have risen; the watch bets on all of them."""
REMEMBERED = 200
"""Windows that the watch keeps: what has been going on for longer is no news."""
FEWEST_STEPS = 7
"""With fewer steps from window to window nothing is said about how much windows differ."""
MEDIAN_OF_SQUARE = 0.4549
"""Of a squared standard normal variable, whose mean is 1."""
METHOD_ERROR = 0.01
"""Of an accuracy that is estimated from confidence, under covariate shift."""
METHOD_SHARE = 0.05
"""The same of a regression's error, as a share of it."""
UNSURE = 0.1
"""The reference's error rate is taken from the upper end of its 80 % interval, so that its own error raises no alarm."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Maturity:
    """When outcomes arrive: `share[i]` of those that will ever come have come at the age `age[i]`, in seconds.

    Kaplan and Meier's estimate of 1 - survival, up to the oldest age that was observed, over its last value.
    """

    age: tuple[float, ...] = ()
    share: tuple[float, ...] = ()
    followed: float = 0.0
    """Seconds since the oldest prediction that it was learned from."""

    @classmethod
    def of(cls, ages: Floats, delays: Floats) -> "Maturity":
        """Learn from predictions: seconds since each was made, and until its outcome came, NaN where it has not.

        >>> ages = np.full(100, 10.0)
        >>> Maturity.of(ages, np.linspace(0.1, 5.0, 100)).reached_at(0.9)
        4.5...
        """
        arrived = ~np.isnan(delays)
        if arrived.sum() < FEWEST_DELAYS:
            return cls()
        time = np.where(arrived, delays, ages)
        moments, came = np.unique(time[arrived], return_counts=True)
        waiting = len(time) - np.searchsorted(np.sort(time), moments, side="left")
        come = 1 - np.cumprod(1 - came / waiting)
        kept = np.unique(np.linspace(0, len(moments) - 1, 200).astype(int))
        return cls(tuple(moments[kept].tolist()), tuple((come[kept] / come[-1]).tolist()), float(ages.max()))

    @property
    def ripe(self) -> float | None:
        """The age from which a prediction is read; None until it is known when outcomes have come.

        >>> delays = np.linspace(1.0, 10.0, 100)
        >>> Maturity.of(np.full(100, 15.0), delays).ripe, Maturity.of(np.full(100, 20.0), delays).ripe
        (None, 9.0...)
        """
        age = self.reached_at(RIPE)
        return age if age is not None and FOLLOWED * age <= self.followed else None

    def reached_at(self, share: float = RIPE) -> float | None:
        """The age at which this share of outcomes has come; None if that is not known."""
        if not self.age:
            return None
        return float(self.age[int(np.searchsorted(self.share, share))])

    def share_at(self, age: float) -> float:
        """The share of outcomes that have come at this age; 1 where nothing is known, as if they all came at once."""
        if not self.age:
            return 1.0
        position = int(np.searchsorted(self.age, age, side="right"))
        return self.share[position - 1] if position else 0.0


def ripe_until(times: Floats, labelled: NDArray[np.bool_], parts: int = 20) -> float:
    """The time up to which rows have as many labels as older rows have; shapes (n,), n > 0.

    For tables, which do not say when a label came: rows are cut by time into equal parts, and a part is ripe if its share
    of labels is at least `RIPE` of what the older half of the rows has. Infinity where the newest part is ripe.

    >>> ripe_until(np.arange(100.0), np.arange(100) < 80)
    79.0
    """
    order = np.argsort(times, kind="stable")
    pieces = [piece for piece in np.array_split(order, parts) if len(piece)]
    settled = labelled[order[: (len(order) + 1) // 2]].mean()
    for place, piece in enumerate(pieces):
        if labelled[piece].mean() < RIPE * settled:
            return float(times[pieces[place - 1][-1]]) if place else -np.inf
    return np.inf


@dataclass(frozen=True)
class Calibration:
    """How often the champion was right at each height of its confidence, on rows that it had not learned from.

    Attributes
    ----------
    edges : inner edges of the confidence bins, rising. `rows`, `right` : per bin; `right` after smoothing.
    """

    edges: tuple[float, ...]
    rows: tuple[int, ...]
    right: tuple[float, ...]

    @classmethod
    def of(cls, confidence: Floats, right: NDArray[np.bool_]) -> "Calibration":
        """Learn from rows with known truth; shapes (n,). Bins hold equal shares; a bin that is empty of evidence leans
        on its neighbours, because accuracy rises with confidence (isotonic regression).
        """
        from sklearn.isotonic import isotonic_regression

        edges = np.unique(np.quantile(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]))
        place = np.searchsorted(edges, confidence, side="right")
        rows = np.bincount(place, minlength=len(edges) + 1)
        hits = np.bincount(place, weights=right, minlength=len(edges) + 1)
        rate = (hits + right.mean()) / (rows + 1)
        smooth = isotonic_regression(rate, sample_weight=rows + 1)
        return cls(tuple(edges.tolist()), tuple(rows.tolist()), tuple(np.asarray(smooth).tolist()))

    def count(self, confidence: Floats) -> Floats:
        """Rows per bin."""
        place = np.searchsorted(self.edges, confidence, side="right")
        return np.bincount(place, minlength=len(self.edges) + 1).astype(float)

    def estimate(self, counts: Floats, *, confidence: float = 0.95) -> Estimate | None:
        """Accuracy to expect on rows whose confidence falls into the bins like this; None without rows.

        The band holds the chance of these rows and what the calibration itself does not know. Guillory et al., Predicting
        with confidence on unseen distributions, 2021; NannyML's CBPE.
        """
        total = counts.sum()
        if not total:
            return None
        share, right, rows = counts / total, np.array(self.right), np.array(self.rows)
        value = float((share * right).sum())
        variance = (share * right * (1 - right)).sum() / total + (share**2 * right * (1 - right) / (rows + 1)).sum()
        half = float(norm.ppf((1 + confidence) / 2)) * sqrt(variance)
        return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


def reliability(answers: Floats, truth: NDArray[Any], classes: Sequence[str]) -> tuple[Reliability, ...]:
    """Share of right answers by their confidence, in bins that hold about equally many of n rows; answers are (n, k).

    >>> answers = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    >>> [one.right for one in reliability(answers, np.array(["a", "b", "b"], dtype=object), ["a", "b"])]
    [1.0, 0.5]
    """
    if not len(answers):
        return ()
    confidence, right = answers.max(axis=1), metrics.labels(answers, classes) == truth
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, RELIABILITY_BINS + 1)[1:-1]))
    place = np.searchsorted(edges, confidence, side="right")
    bins = [place == number for number in np.unique(place)]
    return tuple(
        Reliability(confidence=float(confidence[mine].mean()), right=float(right[mine].mean()), rows=int(mine.sum()))
        for mine in bins
    )


@dataclass(frozen=True)
class ErrorCalibration:
    """How large a regression's errors were at each height of its prediction, on rows that it had not learned from.

    Attributes
    ----------
    edges : inner edges of the bins of predictions, rising. `rows` : per bin.
    error, spread : per bin the mean of the errors (squared for `rmse`), and their standard deviation.
    """

    metric: Literal["rmse", "mae"]
    edges: tuple[float, ...]
    rows: tuple[int, ...]
    error: tuple[float, ...]
    spread: tuple[float, ...]

    @classmethod
    def of(
        cls, metric: Literal["rmse", "mae"], predictions: Floats, truth: Floats, height: Floats | None = None
    ) -> "ErrorCalibration":
        """Learn from rows with known truth; shapes (n,). `height` is what the bins are of, if not the predictions. Every bin has rows."""
        height = predictions if height is None else height
        bins = max(1, min(CALIBRATION_BINS, len(truth) // FEWEST_DELAYS))
        edges = np.unique(np.quantile(height, np.linspace(0, 1, bins + 1)[1:-1]))
        edges = edges[np.diff(np.searchsorted(np.sort(height), edges), prepend=0) > 0]
        place = np.searchsorted(edges, height, side="right")
        errors = np.abs(predictions - truth) ** (2 if metric == "rmse" else 1)
        parts = [errors[place == number] for number in range(len(edges) + 1)]
        return cls(
            metric,
            tuple(edges.tolist()),
            tuple(len(part) for part in parts),
            tuple(float(part.mean()) for part in parts),
            tuple(float(part.std()) for part in parts),
        )

    def estimate(self, predictions: Floats, *, confidence: float = 0.95) -> Estimate | None:
        """The metric to expect on rows that were answered so, shape (n,); None without rows."""
        total = len(predictions)
        if not total:
            return None
        place = np.searchsorted(self.edges, predictions, side="right")
        share = np.bincount(place, minlength=len(self.rows)) / total
        error, variance = np.array(self.error), np.array(self.spread) ** 2
        value = float((share * error).sum())
        known = (share**2 * variance / np.maximum(1, self.rows)).sum()
        half = float(norm.ppf((1 + confidence) / 2)) * sqrt((share * variance).sum() / total + known)
        ends = (value, max(0.0, value - half), value + half)
        value, low, high = (sqrt(end) for end in ends) if self.metric == "rmse" else ends
        return Estimate(value=value, low=low, high=high)


@dataclass(frozen=True)
class Watch:
    """A sequential test of one error rate: has it risen? Its false-alarm rate holds however long it goes on.

    A Shiryaev-Roberts e-detector (Shin, Ramdas and Rinaldo, E-detectors, 2023): per rise that is betted on, the evidence
    of every window is multiplied, and each window may be the first of the change. Without a change the mean time to an
    alarm is at least `patience` windows.

    Real days differ from each other by more than samples do. How much is learned from the steps between neighbouring windows,
    of which a change moves only one, and by their median, which one step does not move; what is known at the end judges all
    windows anew.

    Attributes
    ----------
    rate : error rate that is still no reason to worry.
    counts : errors and rows of the newest windows, the oldest first.
    steps : from window to window, what each says of the variance of the error rate beside that of samples; those of versions
        before this one too.

    Examples
    --------
    >>> watch = Watch.of(errors=110, rows=1_000, patience=365)
    >>> for _ in range(3):
    ...     watch = watch.after(errors=36, rows=200)
    >>> watch.alarm
    True
    """

    rate: float
    patience: float
    counts: tuple[tuple[float, float], ...] = ()
    steps: tuple[float, ...] = ()
    windows: int = 0

    @classmethod
    def of(cls, *, errors: int, rows: int, patience: float, steps: Sequence[float] = ()) -> "Watch":
        """Start from the verified test: so many errors on so many rows.

        Parameters
        ----------
        patience : windows that may pass, on average, until a false alarm.
        steps : of the watch over the version before.
        """
        rate = float(beta.ppf(1 - UNSURE, errors + 1, max(1, rows - errors)))
        return cls(rate=min(rate, 0.98), patience=patience, steps=tuple(steps))

    def after(self, *, errors: float, rows: float) -> "Watch":
        """The watch one mature window later; a window without rows changes nothing."""
        if rows <= 0:
            return self
        steps = (*self.steps, _step(self.counts[-1], (errors, rows))) if self.counts else self.steps
        return Watch(
            self.rate,
            self.patience,
            (*self.counts, (errors, rows))[-REMEMBERED:],
            steps[-REMEMBERED:],
            self.windows + 1,
        )

    @property
    def wobble(self) -> float:
        """Variance of the error rate between windows, beside that of samples; 0 until enough windows were seen."""
        return max(0.0, float(np.median(self.steps))) if len(self.steps) >= FEWEST_STEPS else 0.0

    @property
    def dispersion(self) -> float:
        """How many times more the errors of a window as large as those seen vary than those of a sample; at least 1.

        >>> Watch(rate=0.1, patience=365, counts=((9.0, 100.0),), steps=(0.0009,) * 9).dispersion
        2.0
        """
        rows = sum(rows for _, rows in self.counts) / max(1, len(self.counts))
        return float(self._dispersions(np.array([rows]))[0])

    def _dispersions(self, rows: Floats) -> Floats:
        return np.asarray(1 + rows * self.wobble / (self.rate * (1 - self.rate)))

    @property
    def evidence(self) -> tuple[float, ...]:
        """Per rise that is betted on; an alarm when their mean reaches `patience`. Every window may be the first of the change."""
        if not self.counts:
            return (0.0,) * len(RISES)
        errors, rows = np.array(self.counts).T
        new = np.minimum(0.99, self.rate + np.array(RISES))[:, None]
        ratio = errors * np.log(new / self.rate) + (rows - errors) * np.log((1 - new) / (1 - self.rate))
        since = np.cumsum((ratio / self._dispersions(rows))[:, ::-1], axis=1)
        return tuple(np.exp(np.minimum(since, 600.0)).sum(axis=1).tolist())

    @property
    def alarm(self) -> bool:
        return sum(self.evidence) / len(RISES) >= self.patience

    def as_json(self) -> dict[str, Any]:
        kept = {**vars(self), "counts": [list(one) for one in self.counts], "steps": list(self.steps)}
        return {**kept, "evidence": list(self.evidence), "wobble": self.wobble, "alarm": self.alarm}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Watch":
        """From its `as_json`; one of an earlier Steward, which kept no counts, begins anew."""
        counts = tuple((float(errors), float(rows)) for errors, rows in document.get("counts", ()))
        plain = {name: document[name] for name in ("rate", "patience", "windows")}
        return cls(counts=counts, steps=tuple(document.get("steps", ())), **plain)


def _step(before: tuple[float, float], now: tuple[float, float]) -> float:
    """What the step between two windows says of the variance of the rate between windows, beside that of samples."""
    (errors, rows), (more, others) = before, now
    rate = (errors + more + 1) / (rows + others + 2)
    squared = (errors / rows - more / others) ** 2
    return (squared / MEDIAN_OF_SQUARE - rate * (1 - rate) * (1 / rows + 1 / others)) / 2


@dataclass(frozen=True)
class Fall:
    """What accuracy says about the champion.

    Attributes
    ----------
    against : what it was held against: the floor of the model file, or the verified test.
    loss : how much of the metric is gone, positive; with its interval.
    """

    against: Literal["floor", "verified"]
    metric: str
    live: Estimate
    reference: float
    loss: Estimate

    @property
    def sentence(self) -> str:
        name = "the floor" if self.against == "floor" else "what was verified"
        return f"live {self.metric} {self.live.shown} is worse than {name}, {figure(self.reference)}"


def fallen(live: Estimate, *, floor: float | None, verified: Estimate | None, metric: str = "accuracy") -> Fall | None:
    """Whether a live metric is surely below the floor, or below the whole interval of the verified one.

    Of errors such as `rmse` the floor is the largest that is allowed, and the loss of a regression is a share of the live
    error, as in `metrics.paired`.

    >>> live = Estimate(value=0.80, low=0.78, high=0.82)
    >>> fallen(live, floor=0.85, verified=None).loss.value
    0.05
    >>> fallen(live, floor=0.81, verified=None) is None
    True
    >>> fallen(Estimate(value=10, low=9, high=11), floor=8, verified=None, metric="rmse").loss.value
    0.2
    """
    if floor is not None and _worse(live, floor, metric):
        return Fall("floor", metric, live, floor, _loss(live, floor, 0.0, metric))
    if verified is not None and _worse(
        live, verified.low if metrics.larger_is_better(metric) else verified.high, metric
    ):
        error = (verified.high - verified.low) / 2
        return Fall("verified", metric, live, verified.value, _loss(live, verified.value, error, metric))
    return None


def widened(estimate: Estimate, dispersion: float) -> Estimate:
    """An interval over several windows that differ from each other by so many times more than samples do.

    >>> wide = widened(Estimate(value=0.8, low=0.7, high=0.85), 4.0)
    >>> round(wide.low, 3), round(wide.high, 3)
    (0.6, 0.9)
    """
    times = sqrt(dispersion)
    low, high = (estimate.value + (end - estimate.value) * times for end in (estimate.low, estimate.high))
    return Estimate(value=estimate.value, low=low, high=high)


def recovered(value: float, reference: float, metric: str) -> bool:
    """Whether a fall is over: the value itself is back. A fall begins with its whole interval and ends with its value, so
    that it does not begin anew every other day.
    """
    return value >= reference if metrics.larger_is_better(metric) else value <= reference


def _worse(live: Estimate, level: float, metric: str) -> bool:
    return live.high < level if metrics.larger_is_better(metric) else live.low > level


def _loss(live: Estimate, reference: float, error: float, metric: str) -> Estimate:
    scale = 1.0
    if metric in metrics.REGRESSION:
        scale = 1 - live.value if metric == "r2" else live.value
    value = abs(reference - live.value) / scale
    half = sqrt(((live.high - live.low) / 2) ** 2 + error**2) / scale
    return Estimate(value=round(value, 12), low=value - half, high=value + half)


def sure_of_a_fall(false_alarms: float, looks: float) -> float:
    """The confidence of an interval that, looked at so often, is wrong about one side so many times.

    >>> round(sure_of_a_fall(1, 365), 4)
    0.9945
    """
    return max(0.95, 1 - 2 * min(1.0, false_alarms / looks))


def weighted(values: Floats, weight: Floats, *, confidence: float) -> Estimate:
    """The weighted mean of values with Student's interval on the effective number of rows; shapes (n,).

    >>> weighted(np.array([1.0, 0.0] * 50), np.ones(100), confidence=0.95)
    Estimate(value=0.5, low=0.40..., high=0.59...)
    """
    total = weight.sum()
    value = float((weight * values).sum() / total)
    error = sqrt((weight**2 * (values - value) ** 2).sum()) / total
    half = error * float(t.isf((1 - confidence) / 2, max(1.0, effective(weight) - 1)))
    return Estimate(value=value, low=value - half, high=value + half)


def effective(weight: Floats) -> float:
    """How many rows of equal weight say as much (Kish 1965).

    >>> effective(np.array([1.0, 1.0, 0.0]))
    2.0
    """
    squares = float((weight**2).sum())
    return float(weight.sum() ** 2 / squares) if squares else 0.0


def expected_loss(calibration: Calibration | ErrorCalibration, reference: Floats, counts: Floats) -> Estimate | None:
    """What these rows cost against the reference's, by the champion's own answers; None without rows.

    Of a classification how much accuracy; of a regression which share of its error is more than it was, as the loss of
    `Fall` is.

    Limits are of 90 %, so that the low one is passed by chance once in twenty times; they hold the method's own error too,
    which no number of rows removes.

    Parameters
    ----------
    reference, counts : rows per bin of the calibration.

    >>> calibration = Calibration(edges=(0.7,), rows=(1_000, 1_000), right=(0.6, 0.95))
    >>> loss = expected_loss(calibration, np.array([500.0, 500.0]), np.array([800.0, 200.0]))
    >>> round(loss.value, 3), loss.low > 0
    (0.105, True)
    >>> errors = ErrorCalibration("mae", edges=(7.0,), rows=(1_000, 1_000), error=(1.0, 3.0), spread=(1.0, 2.0))
    >>> loss = expected_loss(errors, np.array([500.0, 500.0]), np.array([200.0, 800.0]))
    >>> round(loss.value, 3), loss.low > 0
    (0.231, True)
    """
    if not counts.sum() or not reference.sum():
        return None
    now, before, rows = counts / counts.sum(), reference / reference.sum(), np.array(calibration.rows)
    if isinstance(calibration, Calibration):
        wrong, power = 1 - np.array(calibration.right), 1.0
        unsure = wrong * (1 - wrong)
    else:
        wrong, power = np.array(calibration.error), 0.5 if calibration.metric == "rmse" else 1.0
        unsure = np.array(calibration.spread) ** 2
    more, variance = float(((now - before) * wrong).sum()), ((now - before) ** 2 * unsure / (rows + 1)).sum()
    for share, total in ((now, counts.sum()), (before, reference.sum())):
        variance += ((share * wrong**2).sum() - (share * wrong).sum() ** 2) / total
    if isinstance(calibration, Calibration):
        value, error = more, sqrt(variance + METHOD_ERROR**2)
    else:
        live = max(1e-300, float((now * wrong).sum()))
        left = max(1e-300, 1 - more / live)
        value = 1 - left**power
        error = sqrt(variance * (power * left ** (power - 1) / live) ** 2 + METHOD_SHARE**2)
    half = float(norm.ppf(0.95)) * error
    return Estimate(value=value, low=value - half, high=value + half)


def weights(control: Sequence[bool], acted: Sequence[bool]) -> Floats:
    """Weight of each labelled prediction, so that rows whose outcome nobody acted upon stand for those that were.

    Where an action prevents the outcome (a stopped deployment cannot fail), only the control share shows what would have
    been: acted rows weigh 0, their control twins what all of them would have (Horvitz and Thompson, 1952).

    >>> weights([False, True, False], [False, True, True]).tolist()
    [1.0, 2.0, 0.0]
    """
    is_control, was_acted = np.array(control, dtype=bool), np.array(acted, dtype=bool)
    twins = is_control & was_acted
    if not twins.any():
        return np.ones(len(is_control))
    weight = np.where(was_acted & ~is_control, 0.0, 1.0)
    return np.where(twins, was_acted.sum() / twins.sum(), weight)
