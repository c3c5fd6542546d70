"""How often the champion's gate is wrong: false promotions of equally good models, and the power to find better ones.

Simulated answers of two models with correlated errors, verified by the gate as shipped (margin 0, confidence 0.95).
A promotion of an equally good model is false; promise 3 allows 2.5 %. Beside it stands the percentile bootstrap, which
most tools use, on the same draws.

    python benchmarks/verdicts.py [--comparisons 1000]
"""

import argparse
from collections.abc import Callable
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from steward.config import Verify
from steward.core import metrics, verification
from steward.records import Skill

CLASSES = ("Low", "Medium", "High")
SHARES = (0.6, 0.3, 0.1)
SIZES = (100, 300, 1_500)
CLASSIFICATION = ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "log_loss", "brier")
REGRESSION = ("rmse", "mae", "r2")
PERCENTILE_RESAMPLES = 400
BETTER_SKILL, BETTER_ERROR = 0.25, 0.92
LOOKS = 4

Array = NDArray[np.float64]
Draw = tuple[Array, Array, Array]


def classified(generator: np.random.Generator, n: int, gain: float) -> Draw:
    """Truth (n,), challenger and champion (n, 3): logits with shared and own noise; `gain` sharpens the challenger."""
    codes = generator.choice(len(SHARES), n, p=SHARES)
    common = generator.normal(size=(n, len(SHARES)))
    answers = []
    for skill in (2.2 + gain, 2.2):
        logits = 0.8 * common + 0.6 * generator.normal(size=(n, len(SHARES)))
        logits[np.arange(n), codes] += skill
        answers.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    return np.array(CLASSES, dtype=object)[codes], answers[0], answers[1]


def measured(generator: np.random.Generator, n: int, shrink: float) -> Draw:
    """Truth (n,), challenger and champion (n,): errors with heavy tails (Student, 5 degrees) that correlate 0.7."""
    truth = 3 * generator.normal(size=n)
    common, own, other = generator.standard_t(5, size=(3, n))
    return truth, truth + shrink * (0.84 * common + 0.55 * own), truth + 0.84 * common + 0.55 * other


def promoted(metric: str, draw: Draw, seed: int) -> bool:
    """What the gate says."""
    classes = CLASSES if metric in CLASSIFICATION else ()
    difference = metrics.paired(metric, *draw, classes, confidence=0.95, seed=seed)
    return verification.champion(metric, difference, Verify(), 1).outcome == "pass"


def percentile(metric: str, draw: Draw, generator: np.random.Generator) -> bool:
    """What a percentile bootstrap of the difference says."""
    truth, a, b = draw
    classes = CLASSES if metric in CLASSIFICATION else ()
    sign = 1 if metrics.larger_is_better(metric) else -1
    differences = []
    for _ in range(PERCENTILE_RESAMPLES):
        rows = generator.integers(0, len(truth), len(truth))
        scores = [metrics.score(metric, truth[rows], answers[rows], classes) for answers in (a, b)]
        differences.append(sign * (scores[0] - scores[1]))
    return bool(np.quantile(differences, 0.025) > 0)


def share(decide: Callable[[int], bool], comparisons: int) -> float:
    return sum(decide(seed) for seed in range(comparisons)) / comparisons


def line(metric: str, n: int, comparisons: int, *, with_percentile: bool) -> str:
    draw, none, better = (classified, 0.0, BETTER_SKILL) if metric in CLASSIFICATION else (measured, 1.0, BETTER_ERROR)

    def at(seed: int, effect: float) -> Draw:
        return draw(np.random.default_rng((seed, n)), n, effect)

    false = share(lambda seed: promoted(metric, at(seed, none), seed), comparisons)
    power = share(lambda seed: promoted(metric, at(seed, better), seed), comparisons)
    text = f"{metric:18} {n:6,} {false:8.1%} {power:8.1%}"
    if with_percentile:
        repeats = max(comparisons // 4, 1)
        usual = share(lambda seed: percentile(metric, at(seed, none), np.random.default_rng(seed)), repeats)
        text += f" {usual:12.1%}"
    return text


def accuracy_table(comparisons: int) -> None:
    """Exact draws of the discordant rows: false promotions by discordance, and power of three points."""
    print(f"accuracy, {comparisons * 10:,} comparisons each: share promoted")
    print(f"{'rows':>6} {'discordance':>12} {'equal':>8} {'3 points better':>16}")
    generator = np.random.default_rng(0)
    for n in (300, 500, 1_500, 5_000):
        for discordant in (0.06, 0.10, 0.20):
            found = []
            for gain in (0.0, 0.03):
                shares = [(discordant + gain) / 2, (discordant - gain) / 2, 1 - discordant]
                counts, times = np.unique(
                    generator.multinomial(n, shares, comparisons * 10), axis=0, return_counts=True
                )
                passed = [metrics.accuracy_difference(int(a), int(b), n, 0.95).low > 0 for a, b, _ in counts]
                found.append(float(np.dot(passed, times) / times.sum()))
            print(f"{n:6,} {discordant:12.2f} {found[0]:8.2%} {found[1]:16.1%}")


def looks_table(comparisons: int) -> None:
    """An opening after four looks, each with its question; sealed rows are 15 % of all."""
    print(
        f"\nan opening after four looks, {comparisons:,} times each: share promoted, by the sealed rows alone and with the looks"
    )
    print(f"{'newer rows teach':>16} {'challenger':>12} {'accuracy':>9} {'sealed':>6} {'alone':>8} {'with looks':>11}")
    effects = {"equal": 0.0, "a little better": 0.08, "better": BETTER_SKILL, "worse": -BETTER_SKILL}
    for taught, last in (
        ("equal", "equal"), ("equal", "worse"), ("better", "equal"), ("better", "worse"), ("a little better", "a little better"),
        ("better", "better"),
    ):  # fmt: skip
        for n in (150, 400, 1_500):
            alone = helped = 0
            gains = []
            for seed in range(comparisons):
                generator = np.random.default_rng((seed, n, 7))
                draws = [classified(generator, round(n * 0.85 / 0.15 / LOOKS), effects[taught]) for _ in range(LOOKS)]
                looks = reduce(verification.pooled, (skill(draw, seed) for draw in draws))
                newest = classified(generator, n, effects[last])
                difference = metrics.paired("accuracy", *newest, CLASSES, confidence=0.95, seed=seed)
                gains.append(difference.value)
                alone += verification.champion("accuracy", difference, Verify(), 1).outcome == "pass"
                both = verification.champion("accuracy", difference, Verify(), 1, skill(newest, seed), looks)
                helped += both.outcome == "pass"
            shown = f"{alone / comparisons:8.1%} {helped / comparisons:11.1%}"
            print(f"{taught:>16} {last:>12.12} {np.mean(gains):+9.3f} {n:6,} {shown}", flush=True)


def skill(draw: Draw, seed: int) -> Skill:
    return verification.skill("brier", *draw, CLASSES, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=1_000)
    parser.add_argument("--percentile", action="store_true", help="beside the percentile bootstrap (slow)")
    options = parser.parse_args()
    accuracy_table(options.comparisons)
    looks_table(max(options.comparisons // 4, 1))
    print(f"\nall metrics, {options.comparisons:,} simulated comparisons each")
    print(
        f"{'metric':18} {'rows':>6} {'equal':>8} {'better':>8}" + (f" {'percentile':>12}" if options.percentile else "")
    )
    for metric in (*CLASSIFICATION, *REGRESSION):
        for n in SIZES:
            print(line(metric, n, options.comparisons, with_percentile=options.percentile), flush=True)


if __name__ == "__main__":
    main()
