"""When labels arrive: after a constant time, at the time that a column says, or after a time that is drawn."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from steward.config import parse_duration
from steward.errors import ReplayRefused

DRAWN = re.compile(r"^(exponential|lognormal|uniform)\((.+)\)$")
FORMS = (
    "a duration such as 7d, a column of the source, exponential(MEAN), lognormal(MEDIAN, SIGMA), uniform(LEAST, MOST)"
)
Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Delay:
    """How long labels take.

    Attributes
    ----------
    kind : what the figures mean.
    figures : seconds: of the constant, the mean, the median and its logarithmic spread, or the least and the most.
    column : the source's column that says when.
    """

    kind: Literal["constant", "column", "exponential", "lognormal", "uniform"]
    figures: tuple[float, ...] = ()
    column: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Delay":
        """Read `--label-delay`; raises ReplayRefused.

        >>> Delay.parse("36h").figures, Delay.parse("labelled_at").column, Delay.parse("uniform(1d, 3d)").kind
        ((129600.0,), 'labelled_at', 'uniform')
        """
        drawn = DRAWN.match(text.strip())
        try:
            if drawn:
                return cls(drawn[1], _figures(drawn[1], drawn[2]))  # type: ignore[arg-type]
            if text.strip()[:1].isdigit():
                return cls("constant", (_seconds(text),))
        except ValueError as problem:
            raise ReplayRefused(
                f"the label delay cannot be read ({problem})", got=text, allowed=FORMS, do="Check --label-delay"
            ) from problem
        return cls("column", column=text.strip())

    def arrivals(
        self, times: Seconds, column: Seconds | None, keys: Iterable[str | None], seed: int
    ) -> tuple[Seconds, tuple[str, ...]]:
        """When each row's label arrives, never before the row; infinite where the column does not say.

        Parameters
        ----------
        times : seconds since 1970, shape (n,).
        column : what the source's column says, the same shape.
        keys : what a delay is drawn by, so that a row's stays the same whatever rows there are.
        """
        if column is not None:
            early = column < times
            says = f"{early.sum():,} labels are dated before their row; they count as known at once"
            found = np.where(np.isnan(column), np.inf, np.maximum(column, times))
            return found, (says,) if early.any() else ()
        if self.kind == "constant":
            return times + self.figures[0], ()
        return times + self._drawn(np.array([_uniform(key, seed) for key in keys])), ()

    def _drawn(self, uniform: Seconds) -> Seconds:
        if self.kind == "exponential":
            return -self.figures[0] * np.log1p(-uniform)
        if self.kind == "uniform":
            least, most = self.figures
            return least + uniform * (most - least)
        median, sigma = self.figures
        normal = np.array([NormalDist().inv_cdf(one) for one in uniform])
        return np.asarray(median * np.exp(sigma * normal))


def _figures(kind: str, text: str) -> tuple[float, ...]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != (1 if kind == "exponential" else 2):
        raise ValueError(f"{kind} has another number of figures")
    if kind == "lognormal":
        return _seconds(parts[0]), float(parts[1])
    found = tuple(_seconds(part) for part in parts)
    if kind == "uniform" and found[0] > found[1]:
        raise ValueError("the least is above the most")
    return found


def _seconds(text: str) -> float:
    found = parse_duration(text)
    if not isinstance(found, timedelta):
        raise TypeError(text)
    return found.total_seconds()


def _uniform(key: str | None, seed: int) -> float:
    """Above 0 and below 1, by the key."""
    number = int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:6], "big")
    return (number + 0.5) / 2**48
