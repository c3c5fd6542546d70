import numpy as np
import pytest

from steward.core import selection
from steward.errors import NoCandidate
from steward.records import Candidate, Reference

CLASSES = ("no", "yes")
ROLES = Reference(kind="roles", uri="r", digest="0" * 64)
ROWS = 1_500


def candidate(name, *, latency=100.0, size=10_000, seconds=1.0, interpretability=3, error=None):
    return Candidate(
        name=name,
        model="risk",
        roles=ROLES,
        metric="accuracy",
        latency_us=latency,
        bytes=size,
        fit_seconds=seconds,
        interpretability=interpretability,
        error=error,
    )


def right_on(share, first=0):
    """Probabilities that are right on `share` of all rows (the truth is always yes), wrong from row `first` on."""
    wrong = (np.arange(ROWS) - first) % ROWS < round((1 - share) * ROWS)
    return np.where(wrong[:, None], [0.9, 0.1], [0.1, 0.9])


TRUTH = np.array(["yes"] * ROWS, dtype=object)


def choose(candidates, predictions, prefer="simplest_within_noise", metric="accuracy"):
    return selection.choose(
        candidates, predictions, TRUTH, CLASSES, metric=metric, prefer=prefer, confidence=0.95, seed=1
    )


def test_a_cheaper_candidate_within_noise_wins():
    dear, cheap = candidate("forest", latency=900), candidate("tree", latency=100)
    found = choose([dear, cheap], {"forest": right_on(0.905), "tree": right_on(0.903, first=700)})
    assert found.winner == "tree"
    assert found.reason == (
        "tree (accuracy 0.9033) is within one standard error of forest, the best of 2 candidates (0.9053), "
        "and cheaper: latency 100 µs instead of 900 µs."
    )


def test_a_cheaper_candidate_that_is_measurably_worse_loses():
    dear, cheap = candidate("forest", latency=900), candidate("tree", latency=100)
    found = choose([dear, cheap], {"forest": right_on(0.92), "tree": right_on(0.86)})
    assert found.winner == "forest"
    assert "none within one standard error of it is clearly cheaper" in found.reason
    assert [line.within_noise for line in found.table] == [True, False]


def test_best_is_best_whatever_it_costs():
    dear, cheap = candidate("forest", latency=900), candidate("tree", latency=100)
    found = choose([dear, cheap], {"forest": right_on(0.905), "tree": right_on(0.903, first=700)}, prefer="best")
    assert found.winner == "forest"
    assert found.reason == "forest has the best accuracy of 2 candidates, 0.9053."


@pytest.mark.parametrize(
    ("costs", "winner"),
    [
        pytest.param(
            {"latency": 150, "size": 1}, "second", id="less than twice the latency is timer noise: size decides"
        ),
        pytest.param({"latency": 250, "size": 1}, "first", id="latency comes before size"),
        pytest.param({"seconds": 0.1}, "second", id="then fit time"),
        pytest.param({"seconds": 0.9, "interpretability": 1}, "second", id="then what a person can read"),
        pytest.param({}, "first", id="then the better score"),
    ],
)
def test_the_order_of_costs(costs, winner):
    found = choose(
        [candidate("first"), candidate("second", **costs)],
        {"first": right_on(0.905), "second": right_on(0.903, first=700)},
    )
    assert found.winner == winner


def test_jitter_of_the_timer_does_not_change_the_winner():
    generator = np.random.default_rng(0)
    answers = {"forest": right_on(0.905), "tree": right_on(0.903, first=700), "linear": right_on(0.904, first=300)}
    base = {"forest": (2_000, 5_000_000), "tree": (300, 20_000), "linear": (290, 8_000)}
    winners = {
        choose(
            [
                candidate(name, latency=base[name][0] * generator.uniform(0.8, 1.25), size=base[name][1])
                for name in base
            ],
            answers,
        ).winner
        for _ in range(30)
    }
    assert winners == {"linear"}


@pytest.mark.parametrize("metric", ["log_loss", "brier"])
def test_the_best_of_an_error_is_the_smallest(metric):
    sharp, vague = right_on(1.0), np.tile([0.4, 0.6], (ROWS, 1))
    found = choose([candidate("vague"), candidate("sharp")], {"vague": vague, "sharp": sharp}, metric=metric)
    assert found.winner == "sharp"
    difference = found.table[0].difference
    assert difference is not None
    assert difference.value < 0


def test_a_failed_candidate_stands_in_the_table_with_its_error():
    found = choose([candidate("tree"), candidate("network", error="ValueError: no")], {"tree": right_on(0.9)})
    assert found.winner == "tree"
    assert found.reason == "tree is the only candidate that could be trained (accuracy 0.9)."
    assert found.table[1].error == "ValueError: no"
    assert found.table[1].value is None


def test_nobody_left_is_an_error_with_all_reasons():
    with pytest.raises(NoCandidate, match=r"no candidate could be trained: got 'tree: boom; forest: bang'"):
        choose([candidate("tree", error="boom"), candidate("forest", error="bang")], {})
