"""The candidates: pipelines, search spaces, and how readable each is.

A pipeline has three steps: `encode` (learning frame → float64 matrix), `prepare` (matrix → matrix without missing
values where the estimator needs that) and `estimate`. So `pipeline[:-1]` is float64 preprocessing and `pipeline[-1]`
alone is what can become ONNX. Spaces and first points were measured on 11 real tables.
"""

import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, SplineTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.validation import has_fit_parameter
from threadpoolctl import threadpool_limits

from steward.config import ModelFile, OwnEstimator
from steward.core import history
from steward.core.features import Encoder, column_positions
from steward.core.history import Lesson
from steward.errors import CandidateFailed

FEW_ROWS = 8_000
MANY_ROWS = 10_000
ONE_HOT_LEVELS = 12
OWN_INTERPRETABILITY = 4
TREES = 100
BOOSTING_PATIENCE = 20
MAX_EPOCHS = 60
NETWORKS = 8
BOOSTINGS = 3
BOOSTED_TREES = 1_000
"""Of all copies together: an answer through many more takes longer than 20 ms."""

Values = NDArray[Any]
Params = Mapping[str, Any]
Space = Mapping[str, Any]
"""Parameter → list of choices, or `{low, high}` with optional `log: true`, `integer: true`; as in a model file."""
Numbers = Literal["standard", "normal", "spline"]
Estimator = Any


@dataclass(frozen=True)
class Setup:
    """What every estimator is told, whatever its parameters."""

    model: ModelFile
    seed: int
    threads: int

    @property
    def classifies(self) -> bool:
        return self.model.task == "classification"


@dataclass(frozen=True)
class Family:
    """A kind of candidate."""

    interpretability: int
    """1 reads like a table, 5 not at all."""
    first: tuple[Params, ...]
    """Settings to try before any search; {} is the estimator's own defaults."""
    space: Callable[[int], Space]
    """Search space for a number of training rows."""
    prepare: Callable[[Setup, Params], Any]
    """The transformer between encoder and estimator, unfitted, or "passthrough"."""
    estimator: Callable[[Setup, Params], Estimator]
    prepared_by: tuple[str, ...] = ()
    """The parameters that `prepare` reads."""
    stages: Literal["rounds", "epochs", "trees"] | None = None
    """How it is trained step by step; how many rounds or epochs are kept is found by early stopping."""
    most: Callable[[int], int] = lambda _: 0
    """For a number of training rows, the most stages."""
    copies: Callable[[ModelFile, Params], int] = lambda _model, _params: 1
    """How many, of different seeds, give their mean answer; a search measures one, which is cheaper."""
    go_on: float = 50.0
    """Percentile of the finished settings that a setting must be within, at every stage, not to be given up."""


class BoundedRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor on the standardised label, whose answers never leave the range of the training labels.

    Linear and neural regression extrapolate: one house took the error of a whole table from 24,000 to 90,000.
    Fitted: `regressor_` on the standardised label, and `bound`, which turns its answers into labels.

    Examples
    --------
    >>> bounded = BoundedRegressor(Ridge(alpha=1e-9)).fit([[0.0], [1.0]], [10.0, 20.0])
    >>> bounded.predict([[0.5], [9.0]]).round(3).tolist()
    [15.0, 20.0]
    """

    def __init__(self, regressor: Estimator) -> None:
        self.regressor = regressor

    def fit(self, matrix: Values, truth: Values, sample_weight: Values | None = None) -> Self:
        self._measure(np.asarray(truth, dtype=float))
        self.regressor_ = clone(self.regressor).fit(matrix, self._standardise(truth), **_told(sample_weight))
        return self

    def partial_fit(self, matrix: Values, truth: Values, sample_weight: Values | None = None) -> Self:
        """One epoch; the first call learns the label's range."""
        if not hasattr(self, "regressor_"):
            self._measure(np.asarray(truth, dtype=float))
            self.regressor_ = clone(self.regressor)
        self.regressor_.partial_fit(matrix, self._standardise(truth), **_told(sample_weight))
        return self

    def predict(self, matrix: Values) -> Values:
        return self.bound(self.regressor_.predict(matrix))

    def bound(self, standardised: Values) -> Values:
        """Answers of `regressor_`, of any shape, as labels of shape (n,)."""
        return np.clip(self.center_ + self.scale_ * np.ravel(standardised), self.low_, self.high_)

    def _measure(self, truth: Values) -> None:
        self.center_, self.scale_ = float(truth.mean()), float(truth.std()) or 1.0
        self.low_, self.high_ = float(truth.min()), float(truth.max())

    def _standardise(self, truth: Values) -> Values:
        return (np.asarray(truth, dtype=float) - self.center_) / self.scale_


class WeightedEnsemble(BaseEstimator):  # type: ignore[misc]
    """The weighted mean of several pipelines' answers; `fit` trains every member.

    Parameters
    ----------
    members : pipelines from the encoder's matrix to an answer, by candidate name.
    weights : their weights, by the same names; they add up to 1.
    """

    def __init__(self, members: dict[str, Pipeline], weights: dict[str, float]) -> None:
        self.members = members
        self.weights = weights

    def fit(self, matrix: Values, truth: Values, lessons: Mapping[str, Lesson] | None = None) -> Self:
        """`lessons` says what each member learns, where that is not all rows alike."""
        taught = lessons or dict.fromkeys(self.members, Lesson())
        self.members_ = {
            name: taught[name].teach(clone(member), matrix, truth) for name, member in self.members.items()
        }
        first = next(iter(self.members_.values()))
        if hasattr(first, "classes_"):
            self.classes_ = first.classes_
        return self

    def predict_proba(self, matrix: Values) -> Values:
        return self._mean({name: member.predict_proba(matrix) for name, member in self.members_.items()})

    def predict(self, matrix: Values) -> Values:
        if hasattr(self, "classes_"):
            winners: Values = np.take(self.classes_, self.predict_proba(matrix).argmax(axis=1))
            return winners
        return self._mean({name: member.predict(matrix) for name, member in self.members_.items()})

    def _mean(self, answers: Mapping[str, Values]) -> Values:
        return np.asarray(sum(self.weights[name] * answer for name, answer in answers.items()))


def build(model: ModelFile, candidate: str, params: Params, *, seed: int, threads: int) -> Pipeline:
    """The unfitted pipeline of a candidate: learning frame in; class names or numbers out.

    Parameters
    ----------
    params : as a search chose them. Of an `ensemble`: `{members: {candidate: {weight, params}}}`.
    threads : of one fit, for estimators that have threads of their own; answers are always given by one.

    Raises
    ------
    CandidateFailed : a user's estimator cannot be imported, or is none for this task.
    """
    setup = Setup(model, seed, threads)
    if candidate == "ensemble":
        estimator: Estimator = WeightedEnsemble(
            {name: _numeric_pipeline(setup, name, member["params"]) for name, member in params["members"].items()},
            {name: member["weight"] for name, member in params["members"].items()},
        )
        return Pipeline([("encode", Encoder.of(model)), ("prepare", "passthrough"), ("estimate", estimator)])
    return Pipeline([("encode", Encoder.of(model)), *_numeric_pipeline(setup, candidate, params).steps])


def fit(
    pipeline: Pipeline, frame: pd.DataFrame, truth: Values, *, threads: int, lesson: Lesson | None = None
) -> Pipeline:
    """Train a pipeline in place with a fixed number of threads, so that the same seed gives the same bits."""
    with steady(threads):
        (lesson or Lesson()).teach(pipeline, frame, labels(truth))
    return answer_alone(pipeline)


def takes_weights(model: ModelFile, candidate: str) -> bool:
    """Can rows count more or less for this candidate's estimator? Raises CandidateFailed if it cannot be made."""
    first = family(model, candidate).first[0]
    return bool(has_fit_parameter(build(model, candidate, first, seed=0, threads=1)[-1], "sample_weight"))


def predictions(pipeline: Pipeline, frame: pd.DataFrame, model: ModelFile) -> Values:
    """Probabilities of shape (n, classes), columns as `model.classes`; for a regression the values, shape (n,).

    One thread: boosting waits at a barrier after every tree, which on a busy machine takes longer than the tree.
    """
    with steady(1):
        if model.task == "regression":
            return np.asarray(pipeline.predict(frame), dtype=np.float64).ravel()
        return align(pipeline.predict_proba(frame), pipeline.classes_, model.classes)


def align(probabilities: Values, known: Values, classes: tuple[str, ...]) -> Values:
    """Probabilities of the classes that training knew as those of all classes; the others get 0.

    >>> align(np.array([[0.3, 0.7]]), np.array(["High", "Low"]), ("Low", "Medium", "High")).tolist()
    [[0.7, 0.0, 0.3]]
    """
    aligned = np.zeros((len(probabilities), len(classes)))
    aligned[:, [classes.index(str(name)) for name in known]] = probabilities
    return aligned


def family(model: ModelFile, candidate: str) -> Family:
    """The family of a candidate; a user's own estimator is a family of its own. Raises CandidateFailed."""
    own = model.own_estimator(candidate)
    if own is not None:
        return _own_family(own)
    if candidate not in FAMILIES:
        raise CandidateFailed("no such candidate", got=candidate, allowed=", ".join(FAMILIES))
    return FAMILIES[candidate]


def copies(model: ModelFile, candidate: str, params: Params) -> dict[str, int]:
    """The parameter that makes a found setting the mean of several copies, or {}.

    Log loss and squared error are convex, so that the mean's is at most the copies' mean error (Jensen's inequality);
    it is lower the more they differ. On rows kept aside from the real tables: 0.3 to 1 % for three copies of boosting,
    1 to 2 % for eight networks.
    """
    count = family(model, candidate).copies(model, params)
    return {"copies": count} if count > 1 else {}


def interpretability(model: ModelFile, candidate: str) -> int:
    """From 1, reads like a table, to 5, not at all."""
    return 5 if candidate == "ensemble" else family(model, candidate).interpretability


def origin(model: ModelFile, candidate: str) -> str | None:
    """Version of the package that a user's estimator is from; None for the built-in families."""
    own = model.own_estimator(candidate)
    if own is None:
        return None
    try:
        return str(getattr(importlib.import_module(own.estimator.split(".")[0]), "__version__", "unknown"))
    except ImportError:
        return "not installed"


def labels(truth: Values) -> Values:
    """Truth as scikit-learn and skops like it best: texts of fixed width, or float64."""
    truth = np.asarray(truth)
    return truth.astype(str) if truth.dtype == object else truth


def answer_alone(pipeline: Pipeline) -> Pipeline:
    """One thread for answers: forests add their trees up in the order in which threads finish."""
    for name in [name for name in pipeline.get_params() if name.split("__")[-1] == "n_jobs"]:
        pipeline.set_params(**{name: 1})
    for member in getattr(pipeline[-1], "members_", {}).values():
        answer_alone(member)
    return pipeline


@contextmanager
def steady(threads: int) -> Iterator[None]:
    """A fixed number of BLAS and OpenMP threads; warnings that the search causes on purpose are not shown."""
    with threadpool_limits(limits=threads), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")
        yield


def _told(weights: Values | None) -> dict[str, Values]:
    return {} if weights is None else {"sample_weight": weights}


def _numeric_pipeline(setup: Setup, candidate: str, params: Params) -> Pipeline:
    kind, own = family(setup.model, candidate), history.own(params)
    return Pipeline([("prepare", kind.prepare(setup, own)), ("estimate", kind.estimator(setup, own))])


def _scaled(setup: Setup, params: Params) -> ColumnTransformer:
    """Numbers on one scale, with their missing values marked; categories one-hot."""
    numbers, categories = column_positions(setup.model)
    impute = SimpleImputer(strategy="median", keep_empty_features=True)
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(impute, *_scalers(params.get("numbers", "standard"), setup.seed)), numbers),
            ("missing", MissingIndicator(error_on_new=False), numbers),
            ("categories", _one_hot(), categories),
        ]
    )


def _scalers(numbers: Numbers, seed: int) -> list[Any]:
    match numbers:
        case "spline":
            return [SplineTransformer(n_knots=6, knots="quantile", include_bias=False)]
        case "normal":
            normal = QuantileTransformer(output_distribution="normal", subsample=10_000, random_state=seed)
            return [normal, StandardScaler()]
    return [StandardScaler()]


def _one_hot() -> OneHotEncoder:
    return OneHotEncoder(min_frequency=5, handle_unknown="infrequent_if_exist", sparse_output=False)


def _filled(setup: Setup, params: Params) -> ColumnTransformer:  # noqa: ARG001 - the signature of `Family.prepare`
    """No missing values, for trees: those trained with NaN become wrong ONNX (sklearn-onnx issue 1253).

    Short closed categories become one-hot, which reads well in a tree; the others stay codes, which trees can split.
    """
    numbers, categories = column_positions(setup.model)
    declared = [len(column.values or ()) if not column.open else 0 for column in setup.model.columns.values()]  # noqa: PD011 - no pandas
    short = [position for position in categories if 0 < declared[position] <= ONE_HOT_LEVELS]
    return ColumnTransformer(
        [
            ("numbers", SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), numbers),
            ("short", _one_hot(), short),
            ("codes", SimpleImputer(strategy="constant", fill_value=-1), [p for p in categories if p not in short]),
        ]
    )


def _linear(setup: Setup, params: Params) -> Estimator:
    strength = params.get("C", 1.0)
    if setup.classifies:
        return LogisticRegression(C=strength, max_iter=300, tol=1e-3)
    return BoundedRegressor(Ridge(alpha=1 / strength))


def _tree(setup: Setup, params: Params) -> Estimator:
    kind = DecisionTreeClassifier if setup.classifies else DecisionTreeRegressor
    return kind(**params, random_state=setup.seed)


def _forest(setup: Setup, params: Params) -> Estimator:
    extra = params["kind"] == "extra_trees"
    if setup.classifies:
        kind = ExtraTreesClassifier if extra else RandomForestClassifier
    else:
        kind = ExtraTreesRegressor if extra else RandomForestRegressor
    rest = {name: value for name, value in params.items() if name != "kind"}
    return kind(**{"n_estimators": TREES, **rest}, n_jobs=setup.threads, random_state=setup.seed)


def _boosting(setup: Setup, params: Params) -> Estimator:
    kind = HistGradientBoostingClassifier if setup.classifies else HistGradientBoostingRegressor
    native = _native_categories(setup.model)
    boosting = kind(
        **{name: value for name, value in params.items() if name != "copies"},
        categorical_features=native or None,
        early_stopping=False,
        n_iter_no_change=BOOSTING_PATIENCE,
        tol=0,
        random_state=setup.seed,
    )
    return _averaged(setup, boosting, params)


def _boosting_copies(model: ModelFile, params: Params) -> int:
    """One where every feature is looked at, since then the seed changes nothing."""
    if params["max_features"] == 1:
        return 1
    trees = params["max_iter"] * (len(model.classes) if len(model.classes) > 2 else 1)  # noqa: PLR2004 - two need one
    return int(min(BOOSTINGS, BOOSTED_TREES // trees))


def _native_categories(model: ModelFile) -> list[int]:
    """Categories of three and more values; two values are a number, which ONNX can split too."""
    two = 2
    return [
        position
        for position, column in enumerate(model.columns.values())
        if column.type == "category" and (column.open or len(column.values or ()) > two)  # noqa: PD011 - no pandas
    ]


def _network(setup: Setup, params: Params) -> Estimator:
    epochs = params.get("max_iter", MAX_EPOCHS)
    network = {
        "hidden_layer_sizes": (params["width"],) * params["layers"],
        "alpha": params["alpha"],
        "learning_rate_init": params["learning_rate"],
        "batch_size": 128,
        "max_iter": epochs,
        "n_iter_no_change": epochs + 1,
        "tol": 0.0,
        "random_state": setup.seed,
    }
    if setup.classifies:
        return _averaged(setup, MLPClassifier(**network), params)
    return BoundedRegressor(_averaged(setup, MLPRegressor(**network), params))


def _averaged(setup: Setup, estimator: Estimator, params: Params) -> Estimator:
    """So many copies as the parameters say, each with a seed of its own, which answer with their mean."""
    count = params.get("copies", 1)
    if count == 1:
        return estimator
    seeds = [(setup.seed + i) % 2**32 for i in range(count)]
    members = [(f"copy{i}", clone(estimator).set_params(random_state=seed)) for i, seed in enumerate(seeds)]
    return VotingClassifier(members, voting="soft") if setup.classifies else VotingRegressor(members)


def _boosting_space(rows: int) -> Space:
    return {
        "learning_rate": {"low": 0.015, "high": 0.12 if rows < FEW_ROWS else 0.3, "log": True},
        "max_leaf_nodes": {"low": 4, "high": 128, "log": True, "integer": True},
        "min_samples_leaf": {"low": 2, "high": 200, "log": True, "integer": True},
        "l2_regularization": {"low": 1e-8, "high": 10.0, "log": True},
        "max_features": {"low": 0.2, "high": 1.0},
    }


def _point(*values: float) -> Params:
    return dict(zip(_boosting_space(0), values, strict=True))


LINEAR = Family(
    interpretability=1,
    first=({"C": 0.1, "numbers": "spline"}, {"C": 1.0, "numbers": "standard"}),
    space=lambda _: {"C": {"low": 1e-3, "high": 100.0, "log": True}, "numbers": ["standard", "normal", "spline"]},
    prepare=_scaled,
    estimator=_linear,
    prepared_by=("numbers",),
)
FAMILIES: dict[str, Family] = {
    "logistic_regression": LINEAR,
    "linear_regression": LINEAR,
    "decision_tree": Family(
        interpretability=2,
        first=({"max_depth": 6, "min_samples_leaf": 20},),
        space=lambda _: {
            "max_depth": {"low": 2, "high": 16, "integer": True},
            "min_samples_leaf": {"low": 1, "high": 200, "log": True, "integer": True},
        },
        prepare=_filled,
        estimator=_tree,
    ),
    "random_forest": Family(
        interpretability=3,
        first=(
            {"kind": "random_forest", "max_features": 0.5, "min_samples_leaf": 5},
            {"kind": "random_forest", "max_features": "sqrt", "min_samples_leaf": 1},
            {"kind": "extra_trees", "max_features": 1.0, "min_samples_leaf": 3},
        ),
        space=lambda _: {
            "kind": ["random_forest", "extra_trees"],
            "max_features": ["sqrt", 0.25, 0.5, 0.75, 1.0],
            "min_samples_leaf": {"low": 1, "high": 30, "log": True, "integer": True},
        },
        prepare=_filled,
        estimator=_forest,
        stages="trees",
        most=lambda _: TREES,
    ),
    "gradient_boosting": Family(
        interpretability=4,
        first=(
            _point(0.1, 31, 5, 1.0, 0.4),
            _point(0.05, 31, 5, 1.0, 0.4),
            _point(0.05, 63, 5, 1.0, 0.4),
            _point(0.1, 15, 5, 1.0, 0.4),
        ),
        space=_boosting_space,
        prepare=lambda _setup, _params: "passthrough",
        estimator=_boosting,
        stages="rounds",
        copies=_boosting_copies,
        most=lambda rows: 3_000 if rows > MANY_ROWS else 1_000,
    ),
    "neural_network": Family(
        interpretability=5,
        first=({"width": 64, "layers": 2, "alpha": 0.01, "learning_rate": 2e-3},),
        space=lambda _: {
            "width": {"low": 16, "high": 128, "log": True, "integer": True},
            "layers": {"low": 1, "high": 3, "integer": True},
            "alpha": {"low": 1e-6, "high": 0.1, "log": True},
            "learning_rate": {"low": 3e-4, "high": 1e-2, "log": True},
        },
        prepare=lambda setup, _params: _scaled(setup, {"numbers": "normal"}),
        estimator=_network,
        stages="epochs",
        copies=lambda _model, _params: NETWORKS,
        most=lambda _: MAX_EPOCHS,
    ),
}


def _own_family(own: OwnEstimator) -> Family:
    return Family(
        interpretability=OWN_INTERPRETABILITY,
        first=({},),
        space=lambda _: own.search,
        prepare=lambda setup, _params: _scaled(setup, {}),
        estimator=lambda setup, params: _own_estimator(setup, own, params),
    )


def _own_estimator(setup: Setup, own: OwnEstimator, params: Params) -> Estimator:
    kind = _import(own.estimator)
    needed = "predict_proba" if setup.classifies else "predict"
    if not (inspect.isclass(kind) and issubclass(kind, BaseEstimator) and hasattr(kind, needed)):
        raise CandidateFailed(
            "not a scikit-learn estimator for this task",
            got=own.estimator,
            allowed=f"a class with fit and {needed} for {setup.model.task}",
            do="Change candidates in the model file",
        )
    known = inspect.signature(kind).parameters
    given = {"random_state": setup.seed, "n_jobs": setup.threads}
    try:
        return kind(**{name: value for name, value in given.items() if name in known} | {**own.params, **params})
    except TypeError as problem:
        raise CandidateFailed(f"{own.estimator} does not take these parameters", got=str(problem)) from problem


def _import(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as problem:
        raise CandidateFailed(
            "an estimator of the model file cannot be imported",
            got=path,
            allowed="the dotted path of an installed class",
            do=f"Install its package or correct the path ({problem})",
        ) from problem
