"""How right is the champion: on mature outcomes, and by its own confidence before they arrive.

A young window holds the outcomes that came fast, and those are not like the others: so a window is read only when enough
of its outcomes can have arrived. An estimate from confidence sees rows that are harder than before; it cannot see that
the old answer is no longer right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm, t

from steward.core import metrics
from steward.records import Estimate

RIPE = 0.9
"""Share of the outcomes that will ever come which makes a window mature."""
FOLLOWED = 2.0
"""Arrivals must have been followed so many times longer than most took: else those that come late are not known yet."""
FEWEST_DELAYS = 50
"""With fewer arrivals nothing is said about when outcomes come."""
CALIBRATION_BINS = 20
RISES = (0.02, 0.04, 0.08, 0.16)
"""By how much the error rate may have risen; the watch bets on all of them."""
METHOD_ERROR = 0.01
"""Of an accuracy that is estimated from confidence, under covariate shift."""
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
    def of(cls, metric: Literal["rmse", "mae"], predictions: Floats, truth: Floats) -> "ErrorCalibration":
        """Learn from rows with known truth; shapes (n,)."""
        bins = max(1, min(CALIBRATION_BINS, len(truth) // FEWEST_DELAYS))
        edges = np.unique(np.quantile(predictions, np.linspace(0, 1, bins + 1)[1:-1]))
        place = np.searchsorted(edges, predictions, side="right")
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

    Attributes
    ----------
    rate : error rate that is still no reason to worry.
    evidence : so far, per bet; an alarm when their mean reaches `patience`.
    dispersion : how many times more error counts of windows vary than a binomial; 1 where windows are like samples.

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
    dispersion: float = 1.0
    evidence: tuple[float, ...] = (0.0,) * len(RISES)
    windows: int = 0
    since: int = 0
    """Windows that the strongest evidence goes back."""

    @classmethod
    def of(cls, *, errors: int, rows: int, patience: float, dispersion: float = 1.0) -> "Watch":
        """Start from the verified test: so many errors on so many rows.

        Parameters
        ----------
        patience : windows that may pass, on average, until a false alarm.
        """
        rate = float(beta.ppf(1 - UNSURE, errors + 1, max(1, rows - errors)))
        return cls(rate=min(rate, 0.98), patience=patience, dispersion=max(1.0, dispersion))

    def after(self, *, errors: float, rows: float) -> "Watch":
        """The watch one mature window later; a window without rows changes nothing."""
        if rows <= 0:
            return self
        evidence = tuple(
            min(1e300, (1 + before) * exp(self._log_ratio(rise, errors, rows)))
            for rise, before in zip(RISES, self.evidence, strict=True)
        )
        strongest = max(evidence)
        since = self.since + 1 if strongest > 1 else 0
        return Watch(self.rate, self.patience, self.dispersion, evidence, self.windows + 1, since)

    @property
    def alarm(self) -> bool:
        return sum(self.evidence) / len(self.evidence) >= self.patience

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "evidence": list(self.evidence), "alarm": self.alarm}

    @classmethod
    def read(cls, document: dict[str, Any]) -> "Watch":
        kept = {name: value for name, value in document.items() if name != "alarm"}
        return cls(**{**kept, "evidence": tuple(kept["evidence"])})

    def _log_ratio(self, rise: float, errors: float, rows: float) -> float:
        """Log likelihood ratio of the risen rate against the old one, tempered by the dispersion."""
        new = min(0.99, self.rate + rise)
        ratio = errors * log(new / self.rate) + (rows - errors) * log((1 - new) / (1 - self.rate))
        return min(600.0, ratio / self.dispersion)


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
        shown = f"{self.live.value:.3f} ({self.live.low:.3f} to {self.live.high:.3f})"
        return f"live {self.metric} {shown} is worse than {name}, {self.reference:.3f}"


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


def expected_loss(calibration: Calibration, reference: Floats, counts: Floats) -> Estimate | None:
    """How much accuracy these rows cost against the reference's, by the champion's own confidence; None without rows.

    Limits are of 90 %, so that the low one is passed by chance once in twenty times; they hold the method's own error too,
    which no number of rows removes.

    Parameters
    ----------
    reference, counts : rows per bin of the calibration.

    >>> calibration = Calibration(edges=(0.7,), rows=(1_000, 1_000), right=(0.6, 0.95))
    >>> loss = expected_loss(calibration, np.array([500.0, 500.0]), np.array([800.0, 200.0]))
    >>> round(loss.value, 3), loss.low > 0
    (0.105, True)
    """
    if not counts.sum() or not reference.sum():
        return None
    right, rows = np.array(calibration.right), np.array(calibration.rows)
    now, before = counts / counts.sum(), reference / reference.sum()
    variance = METHOD_ERROR**2 + ((now - before) ** 2 * right * (1 - right) / (rows + 1)).sum()
    for share, total in ((now, counts.sum()), (before, reference.sum())):
        variance += ((share * right**2).sum() - (share * right).sum() ** 2) / total
    value = float(((before - now) * right).sum())
    half = float(norm.ppf(0.95)) * sqrt(variance)
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
