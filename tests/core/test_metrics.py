import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn import metrics as sklearn_metrics

from steward.config import CLASSIFICATION_METRICS, REGRESSION_METRICS
from steward.core import metrics

CLASSES = ("Low", "Medium", "High")


def classified(seed=0, n=400, skill=1.5, shares=(0.6, 0.3, 0.1)):
    """Truth (n,) and two paired sets of probabilities (n, k) of equally good models."""
    generator = np.random.default_rng(seed)
    codes = generator.choice(len(shares), n, p=shares)
    common = generator.normal(size=(n, len(shares)))

    def probabilities():
        logits = 0.7 * common + 0.7 * generator.normal(size=(n, len(shares)))
        logits[np.arange(n), codes] += skill
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    return np.array(CLASSES, dtype=object)[codes], probabilities(), probabilities()


def sklearn_score(metric, truth, predictions):
    hard = metrics.labels(predictions, CLASSES)
    columns = [sorted(CLASSES).index(name) for name in CLASSES]
    by_name = predictions[:, np.argsort(columns)]
    one_hot = truth[:, None] == np.array(CLASSES, dtype=object)
    return {
        "accuracy": lambda: sklearn_metrics.accuracy_score(truth.astype(str), hard.astype(str)),
        "balanced_accuracy": lambda: sklearn_metrics.balanced_accuracy_score(truth.astype(str), hard.astype(str)),
        "f1_macro": lambda: sklearn_metrics.f1_score(truth.astype(str), hard.astype(str), average="macro"),
        "roc_auc": lambda: sklearn_metrics.roc_auc_score(truth.astype(str), by_name, multi_class="ovr"),
        "log_loss": lambda: sklearn_metrics.log_loss(truth.astype(str), by_name),
        "brier": lambda: np.mean(np.sum((predictions - one_hot) ** 2, axis=1)),
    }[metric]()


@pytest.mark.parametrize("metric", CLASSIFICATION_METRICS)
def test_classification_scores_are_scikit_learns(metric):
    truth, predictions, _ = classified()
    assert metrics.score(metric, truth, predictions, CLASSES) == pytest.approx(
        sklearn_score(metric, truth, predictions)
    )


def test_areas_count_ties_as_half():
    truth = np.array(["no", "yes"] * 50, dtype=object)
    coarse = np.random.default_rng(0).integers(0, 4, 100) / 4
    expected = sklearn_metrics.roc_auc_score(truth == "yes", coarse)
    assert metrics.score("roc_auc", truth, np.column_stack([1 - coarse, coarse]), ["no", "yes"]) == pytest.approx(
        expected
    )


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("rmse", sklearn_metrics.root_mean_squared_error),
        ("mae", sklearn_metrics.mean_absolute_error),
        ("r2", sklearn_metrics.r2_score),
    ],
)
def test_regression_scores_are_scikit_learns(metric, expected):
    truth, noise = np.random.default_rng(0).normal(size=(2, 200))
    assert metrics.score(metric, truth, truth + noise / 3, ()) == pytest.approx(expected(truth, truth + noise / 3))


@pytest.mark.parametrize("metric", CLASSIFICATION_METRICS)
@pytest.mark.parametrize(
    "present",
    [
        pytest.param(["Low"], id="one class, as in a small slice"),
        pytest.param(["Low", "Medium"], id="a class missing"),
        pytest.param([*CLASSES], id="a row a class"),
    ],
)
@pytest.mark.parametrize("certain", [False, True], ids=["uniform", "wrongly certain"])
def test_every_score_and_interval_is_finite_and_in_order(metric, present, certain):
    truth = np.array(present * 4, dtype=object)
    wrong = np.roll(np.eye(3), 1, axis=1)[[CLASSES.index(name) for name in truth]]
    predictions = wrong if certain else np.full((len(truth), 3), 1 / 3)
    estimate = metrics.interval(metric, truth, predictions, CLASSES, confidence=0.95, seed=1)
    difference = metrics.paired(metric, truth, predictions, wrong, CLASSES, confidence=0.95, seed=1)
    for one in (estimate, difference):
        assert np.isfinite([one.low, one.value, one.high]).all()
        assert one.low <= one.value <= one.high


@pytest.mark.parametrize("metric", REGRESSION_METRICS)
@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        pytest.param(0.0, 0.0, 0.0, id="both perfect"),
        pytest.param(1.0, 0.0, -1.0, id="champion perfect"),
        pytest.param(0.0, 1.0, 1.0, id="challenger perfect"),
    ],
)
def test_a_regression_without_error_has_a_finite_difference(metric, a, b, expected):
    truth = np.arange(20.0)
    found = metrics.paired(metric, truth, truth + a, truth + b, (), confidence=0.95, seed=1)
    assert found.value == pytest.approx(expected)


@pytest.mark.parametrize("metric", CLASSIFICATION_METRICS)
def test_a_positive_difference_means_better(metric):
    truth, good, _ = classified(skill=4, n=1_000)
    _, poor, _ = classified(skill=0.5, n=1_000)
    assert metrics.paired(metric, truth, good, poor, CLASSES, confidence=0.95, seed=1).low > 0
    assert metrics.paired(metric, truth, poor, good, CLASSES, confidence=0.95, seed=1).high < 0


@pytest.mark.parametrize(
    "metric", [name for name in (*CLASSIFICATION_METRICS, *REGRESSION_METRICS) if name != "accuracy"]
)
def test_the_same_answers_differ_by_exactly_0(metric):
    if metric in REGRESSION_METRICS:
        truth, one = np.random.default_rng(0).normal(size=(2, 333))
        classes = ()
    else:
        (truth, one, _), classes = classified(n=333), CLASSES
    found = metrics.paired(metric, truth, one, one.copy(), classes, confidence=0.95, seed=1)
    assert (found.low, found.value, found.high) == (0, 0, 0), "a tie must not be promoted by rounding"


@pytest.mark.parametrize(("metric", "share"), [("rmse", 0.5), ("mae", 0.5), ("r2", 0.75)])
def test_a_regressions_difference_is_the_share_of_the_error_that_is_saved(metric, share):
    truth, noise = np.random.default_rng(0).normal(size=(2, 300))
    found = metrics.paired(metric, truth, truth + noise / 2, truth + noise, (), confidence=0.95, seed=1)
    assert found.value == pytest.approx(share)


@pytest.mark.parametrize("metric", [*CLASSIFICATION_METRICS, *REGRESSION_METRICS])
def test_swapping_the_models_turns_the_sign_and_the_same_seed_repeats(metric):
    if metric in REGRESSION_METRICS:
        truth, one, other = np.random.default_rng(0).normal(size=(3, 150))
        classes = ()
    else:
        (truth, one, other), classes = classified(), CLASSES
    found = [
        metrics.paired(metric, truth, *pair, classes, confidence=0.9, seed=3) for pair in [(one, other), (other, one)]
    ]
    assert np.sign(found[0].value) == -np.sign(found[1].value)
    assert metrics.paired(metric, truth, one, other, classes, confidence=0.9, seed=3) == found[0]


@pytest.mark.parametrize(
    ("only_a", "only_b", "n"),
    [(6, 0, 50), (5, 0, 50), (20, 8, 400), (19, 9, 400), (0, 0, 10), (10, 0, 10), (0, 10, 10)],
)
def test_an_accuracy_is_better_only_where_the_exact_mcnemar_test_says_so(only_a, only_b, n):
    found = metrics.accuracy_difference(only_a, only_b, n, 0.95)
    discordant = only_a + only_b
    exact = binomtest(only_a, discordant, alternative="greater").pvalue if discordant else 1.0
    assert found.low <= 0 or exact <= 0.025
    assert -1 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(("only_a", "only_b", "n"), [(60, 30, 1_500), (1, 0, 44), (3, 9, 60)])
def test_tangos_bound_is_where_his_score_statistic_is_the_normal_quantile(only_a, only_b, n):
    """With the likelihood under the constraint maximised by brute force instead of his closed form."""
    bound = metrics._tango(only_a, only_b, n, 0.95)
    share_b = np.linspace(max(0, -bound) + 1e-9, (1 - bound) / 2 - 1e-9, 200_001)
    likelihood = only_a * np.log(share_b + bound) + only_b * np.log(share_b)
    likelihood += (n - only_a - only_b) * np.log(1 - 2 * share_b - bound)
    most_likely = share_b[np.argmax(likelihood)]
    statistic = (only_a - only_b - n * bound) / np.sqrt(n * (2 * most_likely + bound * (1 - bound)))
    assert statistic == pytest.approx(norm.ppf(0.975), abs=1e-3)


def test_a_hopeless_tie_has_a_narrow_interval_around_0():
    found = metrics.accuracy_difference(0, 0, 1_500, 0.95)
    assert found.value == 0
    assert -0.003 < found.low < 0 < found.high < 0.003


@pytest.mark.parametrize("metric", [*CLASSIFICATION_METRICS, *REGRESSION_METRICS])
def test_intervals_cover_the_true_difference(metric):
    """200 repetitions of two equally good models: neither end may exclude 0 more often than 2.5 % plus chance."""
    above = below = 0
    for seed in range(200):
        if metric in REGRESSION_METRICS:
            truth, one, other = np.random.default_rng(seed).standard_t(5, size=(3, 200))
            classes = ()
        else:
            (truth, one, other), classes = classified(seed, n=200), CLASSES
        found = metrics.paired(metric, truth, one, other, classes, confidence=0.95, seed=seed)
        above, below = above + (found.low > 0), below + (found.high < 0)
    assert max(above, below) <= 13, "above what 2.5 % explain at the 0.1 % level"


def test_a_few_rows_that_make_the_whole_difference_convince_nobody():
    truth = np.array(["Low"] * 1_500, dtype=object)
    right = np.tile([1.0, 0.0, 0.0], (1_500, 1))
    nearly = right.copy()
    nearly[:4] = [0.0, 1.0, 0.0]
    for metric in ("accuracy", "balanced_accuracy"):
        assert metrics.paired(metric, truth, right, nearly, CLASSES, confidence=0.95, seed=1).low <= 0


@pytest.mark.parametrize(
    ("metric", "truth", "classes", "expected"),
    [
        ("log_loss", np.array(["Low", "Low", "High"], dtype=object), CLASSES, [2 / 3, 0, 1 / 3]),
        ("rmse", np.array([1.0, 2.0, 6.0]), (), 3.0),
        ("r2", np.array([1.0, 2.0, 6.0]), (), 3.0),
        ("mae", np.array([1.0, 2.0, 6.0]), (), 2.0),
    ],
)
def test_the_best_constant(metric, truth, classes, expected):
    found = metrics.constant(metric, truth, classes, 4)
    assert len(found) == 4
    assert found[0] == pytest.approx(expected)


def test_discordance_counts_rows_that_exactly_one_gets_right():
    truth = np.array(["Low", "Low", "High", "High"], dtype=object)
    low, high = np.tile([1.0, 0, 0], (4, 1)), np.tile([0, 0, 1.0], (4, 1))
    assert metrics.discordance(truth, low, high, CLASSES) == 1
    assert metrics.discordance(truth, low, low, CLASSES) == 0


def test_wilson_is_never_certain():
    found = metrics.wilson(50, 50, 0.95)
    z2 = norm.ppf(0.975) ** 2
    assert found.low == pytest.approx(50 / (50 + z2))
    assert found.high == 1
