"""When outcomes come, what accuracy is to be expected before, and how seldom a watch is wrong."""

import numpy as np
import pytest
from scipy.special import expit

from steward.core import metrics, performance
from steward.core.performance import Calibration, ErrorCalibration, Maturity, Watch, fallen
from steward.records import Estimate

DAY = 86_400.0


@pytest.fixture
def drawn():
    return np.random.default_rng(7)


def test_when_outcomes_come_is_learned_although_some_have_not_come_yet(drawn):
    ages = drawn.uniform(0, 60 * DAY, 5_000)
    delays = drawn.exponential(4 * DAY, 5_000)
    delays[drawn.random(5_000) < 0.3] = np.inf  # those never come
    maturity = Maturity.of(ages, np.where(delays <= ages, delays, np.nan))
    assert maturity.share_at(4 * DAY) == pytest.approx(1 - np.exp(-1), abs=0.03)
    assert maturity.ripe == pytest.approx(4 * DAY * np.log(10), rel=0.12)


@pytest.mark.parametrize(
    ("followed", "known"),
    [(60, True), (22, True), (14, False), (3, False)],
    ids=["long enough", "just long enough", "late ones are not known yet", "young"],
)
def test_nothing_is_ripe_before_late_outcomes_could_have_come(drawn, followed, known):
    ages = drawn.uniform(0, followed * DAY, 3_000)
    delays = drawn.uniform(5 * DAY, 11 * DAY, 3_000)
    maturity = Maturity.of(ages, np.where(delays <= ages, delays, np.nan))
    assert (maturity.ripe is not None) == known


def test_few_arrivals_say_nothing():
    maturity = Maturity.of(np.full(49, 10.0), np.full(49, 1.0))
    assert (maturity.ripe, maturity.reached_at(0.5), maturity.share_at(5.0)) == (None, None, 1.0)


@pytest.mark.parametrize(
    ("share_of_newest", "expected"),
    [(1.0, np.inf), (0.95, np.inf), (0.3, 949.0), (0.0, 949.0)],
)
def test_a_table_is_read_as_far_as_its_labels_are_in(share_of_newest, expected):
    times = np.arange(1_000.0)
    labelled = np.ones(1_000, dtype=bool)
    labelled[950:] = np.arange(50) < 50 * share_of_newest
    assert performance.ripe_until(times, labelled) == expected


def test_rows_that_never_get_a_label_do_not_matter():
    times = np.arange(2_000.0)
    assert performance.ripe_until(times, np.arange(2_000) % 4 == 0) == np.inf


class World:
    """A champion that believes 2x where 2.2x is true: nearly calibrated, as real ones are."""

    def __init__(self, drawn):
        self.drawn = drawn

    def rows(self, count, shift=0.0, spread=1.0, slope=2.2):
        x = self.drawn.normal(shift, spread, count)
        truth = self.drawn.random(count) < expit(slope * x)
        probability = expit(2.0 * x)
        return np.maximum(probability, 1 - probability), (probability > 0.5) == truth


@pytest.mark.parametrize(
    "shift",
    [{}, {"shift": 1.0}, {"shift": 2.0}, {"spread": 0.5}, {"spread": 0.3}],
    ids=["none", "easier", "much easier", "harder", "much harder"],
)
def test_covariate_shift_is_seen_within_two_points_before_labels_come(drawn, shift):
    world = World(drawn)
    errors = []
    for _ in range(20):
        calibration = Calibration.of(*world.rows(2_000))
        confidence, right = world.rows(20_000, **shift)
        estimate = calibration.estimate(calibration.count(confidence))
        assert estimate.low <= estimate.value <= estimate.high
        errors.append(abs(estimate.value - right.mean()))
    assert np.mean(errors) < 0.02


def test_concept_drift_is_not_seen_before_labels_come(drawn):
    world = World(drawn)
    calibration = Calibration.of(*world.rows(2_000))
    before, right = world.rows(20_000)
    after, wrong = world.rows(20_000, slope=0.3)
    estimates = [calibration.estimate(calibration.count(confidence)).value for confidence in (before, after)]
    assert right.mean() - wrong.mean() > 0.15
    assert estimates[0] == pytest.approx(estimates[1], abs=0.01)


def test_the_band_holds_the_truth_where_nothing_shifts(drawn):
    world = World(drawn)
    inside = 0
    for _ in range(100):
        calibration = Calibration.of(*world.rows(1_500))
        confidence, right = world.rows(300)
        estimate = calibration.estimate(calibration.count(confidence))
        inside += estimate.low <= right.mean() <= estimate.high
    assert inside >= 88


@pytest.mark.parametrize("metric", ["rmse", "mae"])
def test_the_error_of_a_regression_is_expected_from_its_predictions(drawn, metric):
    def rows(low, high, count):
        predictions = drawn.uniform(low, high, count)
        return predictions, predictions + drawn.normal(0, predictions)

    known = ErrorCalibration.of(metric, *rows(1, 10, 3_000))
    predictions, truth = rows(6, 10, 5_000)
    live = metrics.score(metric, truth, predictions, ())
    estimate = known.estimate(predictions)
    assert estimate.value == pytest.approx(live, rel=0.06)
    assert estimate.low < live < estimate.high
    assert known.estimate(np.zeros(0)) is None


@pytest.mark.parametrize("rows", [(600, 200, 200), (1, 998, 1), (0, 0, 1_000)])
def test_however_alike_the_answers_every_bin_of_a_regressions_errors_has_rows(rows):
    predictions = np.repeat([0.0, 1.0, 5.0], rows)
    known = ErrorCalibration.of("rmse", predictions, predictions + 1)
    assert min(known.rows) > 0
    assert sum(known.rows) == len(predictions)
    assert known.estimate(predictions).value == pytest.approx(1)


def test_no_rows_no_estimate():
    calibration = Calibration.of(np.array([0.6, 0.9] * 20), np.array([True, False] * 20))
    assert calibration.estimate(calibration.count(np.zeros(0))) is None


PATIENCE = 365 / 0.5


def first_alarm(drawn, rate, rows, windows, known=1_500, wobble=0.0, steps=()):
    """Windows until the alarm, None without one; the verified test is drawn too."""
    watch = Watch.of(errors=int(drawn.binomial(known, 0.1)), rows=known, patience=PATIENCE, steps=steps)
    for window in range(1, windows + 1):
        watch = watch.after(errors=float(drawn.binomial(rows, max(0.0, drawn.normal(rate, wobble)))), rows=rows)
        if watch.alarm:
            return window
    return None


class Naive(Watch):
    """Takes windows for samples."""

    wobble = 0.0


def wobbling(drawn, windows, rows=500, wobble=0.03, fall=(10**9, 0.0)):
    """A year whose error rate differs from day to day by more than samples do, and may rise for good."""
    for window in range(windows):
        rate = drawn.normal(0.1, wobble) + (fall[1] if window >= fall[0] else 0.0)
        yield float(drawn.binomial(rows, max(0.0, rate))), rows


def test_days_that_differ_raise_no_more_alarms_than_the_budget_allows(drawn):
    """A wobble of 3 points of the error rate that means nothing, a month known: half an alarm a year is the watch's share."""
    learned = Watch.of(errors=150, rows=1_500, patience=PATIENCE)
    for errors, rows in wobbling(drawn, 30):
        learned = learned.after(errors=errors, rows=rows)
    assert learned.dispersion == pytest.approx(1 + 500 * 0.03**2 / 0.09, rel=0.6)
    alarms = dict.fromkeys((Watch, Naive), 0)
    for _ in range(20):
        counts = tuple(wobbling(drawn, 180))
        for kind in alarms:
            alarms[kind] += any(
                kind(learned.rate, PATIENCE, counts[:day], learned.steps).alarm for day in range(1, 180)
            )
    assert alarms[Watch] <= 5
    assert alarms[Naive] >= 15


def test_a_rise_is_found_although_days_differ(drawn):
    found = []
    for _ in range(20):
        watch = Watch.of(errors=150, rows=1_500, patience=PATIENCE)
        for window, (errors, rows) in enumerate(wobbling(drawn, 80, fall=(30, 0.08))):
            watch = watch.after(errors=errors, rows=rows)
            if window >= 30 and watch.alarm:
                found.append(window - 29)
                break
    assert len(found) == 20
    assert np.median(found) <= 7


def test_one_step_to_another_level_is_no_wobble(drawn):
    watch = Watch.of(errors=150, rows=1_500, patience=PATIENCE)
    for window in range(40):
        watch = watch.after(errors=float(drawn.binomial(500, 0.1 if window < 20 else 0.3)), rows=500)
    assert watch.dispersion < 2


@pytest.mark.parametrize("rows", [20, 500])
def test_a_hundred_stable_years_raise_few_false_alarms(drawn, rows):
    alarms = sum(first_alarm(drawn, 0.1, rows, 365) is not None for _ in range(100))
    assert alarms <= 50, "half a false alarm a year is the watch's share"


@pytest.mark.parametrize(
    ("rate", "rows", "most"),
    [(0.18, 500, 2), (0.14, 500, 5), (0.18, 70, 8), (0.14, 70, 25)],
    ids=["8 points, many rows", "4 points, many rows", "8 points, few rows", "4 points, few rows"],
)
def test_a_risen_error_rate_is_found(drawn, rate, rows, most):
    found = [first_alarm(drawn, rate, rows, 200) for _ in range(60)]
    assert None not in found
    assert np.median(found) <= most


def test_a_watch_is_what_it_was_after_it_was_put_away():
    watch = Watch.of(errors=100, rows=1_000, patience=365).after(errors=9, rows=40)
    assert Watch.read(watch.as_json()) == watch
    assert watch.after(errors=0, rows=0) is watch
    of_an_earlier_steward = {
        "rate": 0.1,
        "patience": 365.0,
        "dispersion": 1.0,
        "evidence": [3.0] * 4,
        "windows": 5,
        "since": 2,
    }
    assert Watch.read(of_an_earlier_steward).evidence == (0.0,) * 4


ACCURACY = Estimate(value=0.90, low=0.885, high=0.915)
ERROR = Estimate(value=10.0, low=9.0, high=11.0)


@pytest.mark.parametrize(
    ("metric", "live", "floor", "verified", "expected"),
    [
        ("accuracy", (0.80, 0.78, 0.82), 0.85, None, ("floor", 0.05)),
        ("accuracy", (0.80, 0.78, 0.82), 0.81, None, None),
        ("accuracy", (0.80, 0.78, 0.82), None, ACCURACY, ("verified", 0.10)),
        ("accuracy", (0.87, 0.85, 0.89), None, ACCURACY, None),
        ("accuracy", (0.95, 0.94, 0.96), 0.85, ACCURACY, None),
        ("rmse", (12.5, 11.5, 13.5), None, ERROR, ("verified", 0.20)),
        ("rmse", (12.5, 10.5, 14.5), None, ERROR, None),
        ("rmse", (12.5, 11.5, 13.5), 10.0, ERROR, ("floor", 0.20)),
        ("log_loss", (0.5, 0.45, 0.55), 0.4, None, ("floor", 0.1)),
    ],
)
def test_what_counts_as_a_fall(metric, live, floor, verified, expected):
    fall = fallen(Estimate(value=live[0], low=live[1], high=live[2]), floor=floor, verified=verified, metric=metric)
    if expected is None:
        assert fall is None
        return
    assert (fall.against, fall.loss.value) == (expected[0], pytest.approx(expected[1]))
    assert fall.loss.low < fall.loss.value < fall.loss.high
    assert fall.sentence.startswith(f"live {metric} ")


def episodes(drawn, rows, known, days=365, window=7):
    """How often in a stable year a fall begins, with the pause that ends one."""
    sure = performance.sure_of_a_fall(0.5, 365)
    right = drawn.binomial(rows, 0.9, days + window)
    n = known
    verified = metrics.wilson(int(drawn.binomial(n, 0.9)), n, 0.95)
    begun, going = 0, False
    for day in range(days):
        hits, total = int(right[day : day + window].sum()), rows * window
        if fallen(metrics.wilson(hits, total, sure), floor=None, verified=verified):
            begun, going = begun + (not going), True
        elif going and performance.recovered(hits / total, verified.low, "accuracy"):
            going = False
    return begun


@pytest.mark.parametrize(("rows", "known"), [(20, 1_500), (500, 300)])
def test_stable_years_have_few_falls(drawn, rows, known):
    assert np.mean([episodes(drawn, rows, known) for _ in range(30)]) <= 0.5


def test_the_control_share_stands_for_those_that_were_acted_upon(drawn):
    """An action prevents the failure: only the control share shows how often the champion would have been right."""
    risky = drawn.random(20_000) < 0.3
    fails = drawn.random(20_000) < np.where(risky, 0.8, 0.1)
    control = drawn.random(20_000) < 0.2
    prevented = risky & ~control
    right = np.where(prevented, False, fails) == risky
    weight = performance.weights(control, risky)
    estimate = performance.weighted(right.astype(float), weight, confidence=0.95)
    assert right.mean() < 0.8
    assert estimate.low < (fails == risky).mean() < estimate.high
    assert performance.effective(weight) < 20_000 * 0.8
    assert performance.weights([False, False], [True, True]).tolist() == [1.0, 1.0]
