import numpy as np
import pytest

from steward.config import ModelFile, Verify
from steward.core import metrics, verification
from steward.records import Estimate, Skill

CLASSES = ("no", "yes")


def model_file(**verify):
    return ModelFile.model_validate(
        {
            "name": "risk",
            "task": "classification",
            "source": {"table": "t.csv", "key": "id"},
            "label": {"column": "y", "classes": list(CLASSES)},
            "columns": {"team": {"type": "category", "open": True}},
            "verify": verify,
        }
    )


def estimate(low, high):
    return Estimate(value=(low + high) / 2, low=low, high=high)


def answers(truth, wrong):
    """Probabilities that are right but on the rows of `wrong`."""
    says_yes = (truth == "yes") ^ wrong
    return np.where(says_yes[:, None], [0.1, 0.9], [0.9, 0.1])


def opened(n=1_500, challenger=0.1, champion=0.12, seed=0):
    generator = np.random.default_rng(seed)
    truth = generator.choice(np.array(CLASSES, dtype=object), n)
    hard = generator.random(n)
    return verification.Opened(
        truth=truth,
        challenger=answers(truth, hard < challenger),
        constant=np.tile([0.5, 0.5], (n, 1)),
        champion=None if champion is None else answers(truth, hard < champion),
    )


@pytest.mark.parametrize(
    ("low", "high", "margin", "outcome"),
    [
        pytest.param(0.001, 0.03, 0.0, "pass", id="better"),
        pytest.param(-0.001, 0.03, 0.0, "unsure", id="perhaps better"),
        pytest.param(0.0, 0.0, 0.0, "unsure", id="a tie does not promote"),
        pytest.param(-0.03, -0.001, 0.0, "fail", id="worse"),
        pytest.param(-0.009, 0.01, 0.01, "pass", id="not worse by more than the margin"),
        pytest.param(0.0, 0.0, 0.01, "pass", id="a tie is within the margin"),
        pytest.param(-0.02, 0.01, 0.01, "unsure", id="perhaps worse by more than the margin"),
        pytest.param(-0.03, -0.02, 0.01, "fail", id="worse by more than the margin"),
    ],
)
def test_champion_gate(low, high, margin, outcome):
    gate = verification.champion("accuracy", estimate(low, high), Verify(margin=margin), 3)
    assert gate.outcome == outcome
    assert "champion version 3" in gate.detail


@pytest.mark.parametrize(
    ("metric", "low", "high", "least", "outcome"),
    [
        ("accuracy", 0.78, 0.84, 0.80, "pass"),
        ("accuracy", 0.76, 0.81, 0.80, "unsure"),
        ("accuracy", 0.70, 0.79, 0.80, "fail"),
        ("log_loss", 0.30, 0.40, 0.40, "pass"),
        ("log_loss", 0.35, 0.55, 0.40, "unsure"),
        ("log_loss", 0.45, 0.55, 0.40, "fail"),
    ],
)
def test_floor_is_three_way_and_knows_the_metrics_direction(metric, low, high, least, outcome):
    assert verification.floor(metric, least, estimate(low, high)).outcome == outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.1, 0.2, "pass"), (-0.1, 0.2, "unsure"), (-0.2, -0.1, "fail"), (0.0, 0.0, "fail")],
)
def test_better_than_constant(low, high, outcome):
    gate = verification.better_than_constant("accuracy", 0.8, 0.7, estimate(low, high))
    assert gate.outcome == outcome


@pytest.mark.parametrize(
    ("gate", "outcome"),
    [
        (verification.latency(20, 20), "pass"),
        (verification.latency(20.1, 20), "fail"),
        (verification.loads(None), "pass"),
        (verification.loads("ImportError: no module"), "fail"),
        (verification.no_overlap({"challenger": 0, "champion": 0}), "pass"),
        (verification.no_overlap({"challenger": 0, "champion": 1}), "fail"),
    ],
)
def test_gates_of_facts(gate, outcome):
    assert gate.outcome == outcome
    assert gate.detail.endswith(".")


PASS, UNSURE, FAIL = (
    verification.champion("accuracy", estimate(low, low + 0.01), Verify(), 1) for low in (0.01, -0.005, -0.03)
)


@pytest.mark.parametrize(
    ("gates", "verdict", "because"),
    [
        ((PASS, PASS), "promote", (PASS, PASS)),
        ((PASS, UNSURE), "hold", (UNSURE,)),
        ((PASS, UNSURE, FAIL), "reject", (FAIL,)),
    ],
)
def test_the_worst_outcome_decides(gates, verdict, because):
    assert verification.decide(gates) == (verdict, tuple(gate.detail for gate in because))


def by_team(data, teams, confidence=0.95):
    found = verification.slices(
        "accuracy", {"team": teams}, data.truth, data.challenger, data.champion, CLASSES, confidence=confidence, seed=1
    )
    return {one.value: one for one in found}


def test_a_slice_that_is_worse_fails_and_is_named():
    generator = np.random.default_rng(0)
    truth = generator.choice(np.array(CLASSES, dtype=object), 900)
    teams = np.array(["ops", "web", "new"] * 300, dtype=object)
    hard = generator.random(900)
    data = verification.Opened(
        truth=truth,
        challenger=answers(truth, np.where(teams == "web", hard < 0.3, hard < 0.05)),
        champion=answers(truth, hard < 0.1),
        constant=np.tile([0.5, 0.5], (900, 1)),
    )
    found = by_team(data, teams)
    assert found["web"].finding == "worse than the champion"
    gate = verification.no_worse_slice(tuple(found.values()))
    assert gate.outcome == "fail"
    assert "team = web (300 rows" in gate.detail


def test_small_slices_are_counted_but_not_judged():
    teams = np.array(["ops"] * 1_480 + ["tiny"] * 20, dtype=object)
    found = by_team(opened(), teams)
    assert (found["tiny"].finding, found["tiny"].rows, found["tiny"].difference) == ("too few rows", 20, None)
    assert "1 slices have too few rows." in verification.no_worse_slice(tuple(found.values())).detail


def test_a_first_versions_slices_have_nobody_to_be_worse_than():
    teams = np.array(["ops", "web"] * 750, dtype=object)
    found = by_team(opened(champion=None), teams)
    assert {one.finding for one in found.values()} == {"no champion to compare with"}
    assert verification.no_worse_slice(tuple(found.values())).outcome == "pass"


@pytest.mark.parametrize(
    ("values", "names"),
    [
        pytest.param(np.array([0.0, 1.0, np.nan] * 100), {"0", "1", "missing"}, id="boolean"),
        pytest.param(np.array(["a", None, "b"] * 100, dtype=object), {"a", "b", "missing"}, id="category"),
    ],
)
def test_slices_have_names_that_people_know(values, names):
    assert set(by_team(opened(300), values)) == names


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.arange(300.0), id="a number is cut at its quartiles"),
        pytest.param(np.array([str(i % 130) for i in range(300)], dtype=object), id="rare values share a line"),
        pytest.param(np.full(300, np.nan), id="nothing but missing"),
        pytest.param(np.array([0.0] * 290 + list(range(10))), id="nearly constant"),
    ],
)
def test_slices_cover_every_row_once(values):
    found = by_team(opened(300), values)
    assert sum(one.rows for one in found.values()) == 300
    assert len(found) <= verification.SLICE_VALUES + 1


def test_forty_slices_of_two_equally_good_models_raise_no_false_alarm():
    alarms = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        truth = generator.choice(np.array(CLASSES, dtype=object), 2_000)
        data = verification.Opened(
            truth=truth,
            challenger=answers(truth, generator.random(2_000) < 0.2),
            champion=answers(truth, generator.random(2_000) < 0.2),
            constant=np.tile([0.5, 0.5], (2_000, 1)),
        )
        teams = np.array([f"team {i % 40}" for i in range(2_000)], dtype=object)
        alarms += verification.no_worse_slice(tuple(by_team(data, teams).values())).outcome == "fail"
    assert alarms <= 4, "5 % of 40 is 2"


def assess(model, data, overlap=None, problem=None):
    overlap = overlap or {"challenger": 0, "champion": 0}
    version = None if data.champion is None else 4
    test = verification.examine(model, data, version=version, overlap=overlap, predictions=None, seed=1)
    found = verification.gates(model, test, data, (), latency_ms=1, problem=problem, seed=1)
    return test, {gate.name: gate.outcome for gate in found}


def test_an_opening_has_all_its_figures():
    test, outcomes = assess(model_file(floor={"accuracy": 0.8, "roc_auc": 0.8}, max_latency_ms=20), opened())
    assert test.champion is not None
    assert test.champion["version"] == 4
    assert test.difference.value == pytest.approx(test.value - test.champion["value"])
    assert test.discordance == pytest.approx(test.difference.value), "every row that the champion alone gets is none"
    assert sum(map(sum, test.confusion)) == test.rows == 1_500
    assert set(test.other) == {"balanced_accuracy", "f1_macro", "roc_auc", "log_loss", "brier"}
    assert outcomes == {
        "overlap": "pass",
        "better_than_constant": "pass",
        "champion": "pass",
        "floor:accuracy": "pass",
        "floor:roc_auc": "pass",
        "latency": "pass",
        "loads": "pass",
    }


def test_a_first_version_is_held_against_the_best_constant():
    test, outcomes = assess(model_file(), opened(champion=None), overlap={"challenger": 0})
    assert test.champion is None
    assert test.difference.value == pytest.approx(test.value - test.constant)
    assert "champion" not in outcomes


def test_overlap_makes_every_other_figure_worthless():
    _, outcomes = assess(model_file(), opened(challenger=0.0), overlap={"challenger": 1, "champion": 0})
    assert outcomes["overlap"] == "fail"


REGRESSION = ModelFile.model_validate(
    {
        "name": "price",
        "task": "regression",
        "source": {"table": "t.csv", "key": "id"},
        "label": {"column": "y"},
        "columns": {"x": {"type": "number"}},
        "verify": {"detect": 0.1},
    }
)


def test_planning_for_the_running_example():
    assert verification.needed_rows(model_file(), baseline=0.5) < 1_500, (
        "10,000 rows seal 1,500: enough for a first version"
    )
    assert 240 <= verification.needed_rows(model_file(), baseline=0.82, detect=0.07) <= 300, "a fall of 7 points"


def test_planning_never_asks_for_less_than_the_model_file():
    assert verification.needed_rows(model_file(), baseline=0.8, detect=0.01) == verification.needed_rows(
        model_file(), baseline=0.8
    )
    never = verification.needed_rows(model_file(), baseline=0.8, discordance=0.0)
    assert never == verification.needed_rows(model_file(), baseline=0.8, discordance=0.05), (
        "a difference needs discordance"
    )


@pytest.mark.parametrize(("discordance", "detect"), [(0.15, 0.07), (0.10, 0.05), (0.06, 0.03), (0.25, 0.05)])
def test_planned_rows_find_the_difference_four_times_in_five(discordance, detect):
    n = verification.needed_rows(model_file(detect=detect), discordance=discordance)
    shares = [(discordance + detect) / 2, (discordance - detect) / 2, 1 - discordance]
    drawn = np.random.default_rng(0).multinomial(n, shares, size=600)
    found = np.mean([metrics.accuracy_difference(int(a), int(b), n, 0.95).low > 0 for a, b, _ in drawn])
    assert 0.76 <= found <= 0.88


def test_planned_rows_of_a_regression_find_the_difference_four_times_in_five():
    n = verification.needed_rows(REGRESSION)
    generator = np.random.default_rng(0)
    correlation = np.sqrt(verification.ERROR_CORRELATION)
    found = []
    for seed in range(200):
        common, own, other = generator.normal(size=(3, n))
        worse = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
        better = 0.9 * (np.sqrt(correlation) * common + np.sqrt(1 - correlation) * other)
        found.append(metrics.paired("rmse", np.zeros(n), better, worse, (), confidence=0.95, seed=seed).low > 0)
    assert 0.72 <= np.mean(found) <= 0.9


def skill(value, error=0.006, rows=300):
    return Skill(value=value, error=error, rows=rows)


def test_what_is_long_ago_counts_little():
    """Ten comparisons without a gain, then ten that gain: the gain is seen, and not as if it had always been there."""
    found = skill(0.0)
    for value in [0.0] * 9 + [0.02] * 10:
        found = verification.pooled(found, skill(value))
    assert found.value == pytest.approx(0.02 * (1 - 0.9**10) / (1 - 0.9**20))
    assert 300 * 8 < found.rows < 300 / (1 - verification.KEPT)
    assert found.interval(0.998).low > 0


def test_a_champion_that_nothing_beats_is_seldom_called_beaten():
    """Twelve comparisons of models that are equally good; the last word is wrong as often as it says."""
    generator = np.random.default_rng(0)
    called = []
    for _ in range(2_000):
        found = skill(generator.normal(0, 0.006))
        for _ in range(11):
            found = verification.pooled(found, skill(generator.normal(0, 0.006)))
        called.append(found.interval(0.95).low > 0)
    assert 0.015 <= np.mean(called) <= 0.035


@pytest.mark.parametrize(
    ("own", "squared", "asked", "outcome"),
    [
        pytest.param((-0.01, 0.03), 0.002, (0.001, 0.01), "pass", id="the sealed rows agree with sure looks"),
        pytest.param((-0.01, 0.03), -0.001, (0.001, 0.01), "unsure", id="its squared errors are larger"),
        pytest.param((-0.03, 0.01), 0.002, (0.001, 0.01), "unsure", id="it looks worse by the metric"),
        pytest.param((-0.01, 0.03), 0.002, (-0.001, 0.01), "unsure", id="looks that are not sure enough"),
        pytest.param((-0.01, 0.03), 0.002, None, "unsure", id="nobody asked"),
        pytest.param((-0.03, -0.001), 0.002, (0.001, 0.01), "fail", id="surely worse on the sealed rows"),
        pytest.param((0.001, 0.03), -0.001, (-0.01, -0.001), "pass", id="sure by itself"),
    ],
)
def test_looks_help_where_the_sealed_rows_cannot_tell(own, squared, asked, outcome):
    looks = asked and Skill(value=sum(asked) / 2, error=(asked[1] - asked[0]) / 2 / 2.4977, rows=900)
    gate = verification.champion("accuracy", estimate(*own), Verify(), 3, skill(squared), looks)
    assert gate.outcome == outcome
    spoken = asked is not None and own[0] < 0 < own[1]
    assert ("Looks found that newer rows teach" in gate.detail) == spoken
    assert gate.detail.startswith("The challenger is better than champion version 3. ") == (
        spoken and outcome == "pass"
    )
    if spoken:
        assert gate.figures["asked_low"] == pytest.approx(asked[0], abs=1e-5)


def test_squared_errors_are_compared_with_the_champions_only():
    better = assess(model_file(), opened(challenger=0.05, champion=0.2))[0].skill
    assert better.value - 2 * better.error > 0
    assert better.rows == 1_500
    assert assess(model_file(), opened(champion=None))[0].skill is None
    same = assess(model_file(), opened(challenger=0.1, champion=0.1))[0].skill
    assert (same.value, same.error) == (0.0, 1 / 1_500), "answers that are the same are no perfect knowledge"


def test_a_later_version_only_must_not_be_surely_worse_than_the_constant():
    unsure = estimate(-0.01, 0.02)
    assert verification.better_than_constant("accuracy", 0.9, 0.89, unsure).outcome == "unsure"
    later = verification.better_than_constant("accuracy", 0.9, 0.89, unsure, first=False)
    assert (later.outcome, "is not surely worse than" in later.detail) == ("pass", True)
    assert (
        verification.better_than_constant("accuracy", 0.8, 0.89, estimate(-0.1, -0.05), first=False).outcome == "fail"
    )
