"""Fitted pipelines as plain data that gives the same answers without scikit-learn.

`compile_plan` writes down what comes before the estimator, `compile_estimator` the estimator itself as a small graph of
ONNX operators on float64, made from scikit-learn's own arrays. General converters drop a split's categories, the
direction of missing values and the last digits of thresholds. What is not known here raises TypeError; whether the
result is right is decided by the parity proof.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model._base import LinearModel
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, SplineTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from steward.core import leaf_tables
from steward.core.estimators import BoundedRegressor, WeightedEnsemble
from steward.core.leaf_tables import LeafTables
from steward.core.preparation import Encoding, Json, Matrix, Plan

INPUT = "features"
OUTPUT = "answer"
NEVER = -1.0
"""A code that no row has: a split's set may be empty, an ONNX one may not."""
LESS_OR_EQUAL, MEMBER = 0, 6
"""Node modes of the operator TreeEnsemble."""
SUM = 1


@dataclass
class Graph:
    """A graph of ONNX operators (standard domain, and TreeEnsemble): `features` float64 (n, width) → `answer`.

    Attributes
    ----------
    nodes : (operator, names of inputs, name of the output, attributes) in the order of computation.
    constants : arrays by name.
    """

    width: int
    nodes: list[tuple[str, tuple[str, ...], str, dict[str, Any]]] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)

    def add(self, operator: str, *inputs: "str | NDArray[Any]", **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        names = tuple(one if isinstance(one, str) else self._constant(one) for one in inputs)
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append((operator, names, output, attributes))
        return output

    def finish(self, name: str) -> "Graph":
        """The graph whose answer is this output."""
        self.nodes.append(("Identity", (name,), OUTPUT, {}))
        return self

    def _constant(self, array: NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = array
        return name


def compile_plan(pipeline: Pipeline, *, members: bool = True) -> Plan:
    """Encoder and `prepare` step of a fitted pipeline.

    Parameters
    ----------
    members : of a weighted ensemble, prepare the rows for each member, side by side; else only for the ensemble itself.

    Raises
    ------
    TypeError : a transformer is not among those that Steward's pipelines have.
    """
    encoding, estimator = pipeline[0].encoding, pipeline[-1]
    if isinstance(estimator, WeightedEnsemble) and members:
        blocks = [
            block for member in estimator.members_.values() for block in _blocks(member[:-1], encoding, whole=True)
        ]
    else:
        blocks = _blocks(pipeline[1:-1], encoding, whole=False)
    return Plan(encoding, blocks)


def compile_estimator(pipeline: Pipeline) -> Graph:
    """The last step of a fitted pipeline; its input is the matrix of `compile_plan`.

    Its answer has shape (n, classes), in the order of the estimator's classes, or (n, 1).

    Raises
    ------
    TypeError : the estimator is not among those that can be written down exactly.
    """
    encoding, estimator = pipeline[0].encoding, pipeline[-1]
    codes = 1 + int(max(encoding.unseen.values(), default=0))
    if not isinstance(estimator, WeightedEnsemble):
        graph = Graph(input_width(estimator))
        return graph.finish(_compile(graph, INPUT, estimator, codes))
    widths = [input_width(member[-1]) for member in estimator.members_.values()]
    ends = np.cumsum(widths)
    graph, answers = Graph(int(ends[-1])), []
    for (name, member), width, end in zip(estimator.members_.items(), widths, ends.tolist(), strict=True):
        part = graph.add("Slice", INPUT, np.array([end - width]), np.array([end]), np.array([1]))
        answer = _compile(graph, part, member[-1], codes)
        answers.append(graph.add("Mul", answer, np.array(float(estimator.weights[name]))))
    return graph.finish(graph.add("Sum", *answers))


def compile_tables(pipeline: Pipeline) -> LeafTables:
    """The last step of a fitted pipeline, if it is histogram gradient boosting or several copies of it.

    Raises
    ------
    TypeError : it is something else, or its trees are too large.
    """
    encoding, estimator = pipeline[0].encoding, pipeline[-1]
    if not is_boosted(estimator):
        raise TypeError(f"{type(estimator).__name__} has no tables")
    copies = _copies(estimator)
    if getattr(estimator, "weights", None) is not None or getattr(estimator, "voting", "soft") != "soft":
        raise TypeError("a vote that is not the plain mean")
    codes = 1 + int(max(encoding.unseen.values(), default=0))
    outputs, link = _outputs_and_link(copies[0])
    trees = [list(_boosted_trees(one, codes)) for one in copies]
    return leaf_tables.build(trees, width=input_width(copies[0]), codes=codes, targets=outputs, link=link)


def is_boosted(estimator: Any) -> bool:
    """Whether a fitted estimator is histogram gradient boosting, or several copies of it."""
    kinds = HistGradientBoostingClassifier | HistGradientBoostingRegressor
    return all(isinstance(one, kinds) for one in _copies(estimator))


def _copies(estimator: Any) -> list[Any]:
    found: list[Any] = getattr(estimator, "estimators_", [estimator])
    return found if isinstance(estimator, VotingClassifier | VotingRegressor) else [estimator]


def input_width(estimator: Any) -> int:
    """Columns of the matrix that a fitted estimator takes."""
    return int(getattr(estimator, "regressor_", estimator).n_features_in_)


def answer_prepared(estimator: Any, rows: Matrix) -> Matrix:
    """The estimator's own answers to prepared rows of shape (n, m), for a weighted ensemble to its members' side by side.

    Probabilities of shape (n, classes), or predictions of shape (n,).
    """
    if not isinstance(estimator, WeightedEnsemble):
        return np.asarray(estimator.predict_proba(rows) if hasattr(estimator, "classes_") else estimator.predict(rows))
    ends = np.cumsum([input_width(member[-1]) for member in estimator.members_.values()])
    parts = np.split(rows, ends[:-1], axis=1)
    answers = (
        answer_prepared(member[-1], part) for member, part in zip(estimator.members_.values(), parts, strict=True)
    )
    return np.asarray(sum(estimator.weights[name] * one for name, one in zip(estimator.members_, answers, strict=True)))


def boosting_columns(boosting: Any) -> NDArray[np.int64]:
    """Which input column each column of histogram gradient boosting's trees is: scikit-learn puts categories first."""
    columns = np.arange(boosting.n_features_in_)
    categorical = boosting.is_categorical_
    if boosting._preprocessor is None:  # noqa: SLF001
        return columns
    return np.concatenate([columns[categorical], columns[~categorical]])


def threshold_for_float64(thresholds: Matrix) -> Matrix:
    """Thresholds t' with: x ≤ t' exactly where float32(x) ≤ t, for float64 x.

    scikit-learn's classic trees round their input to float32 first. Rounding is monotonic, so that the last number that
    is rounded to a float32 not above t is the one to compare with.

    >>> third = np.array([np.float32(1 / 3)], dtype=np.float64)
    >>> bool(1 / 3 <= third[0]), bool(1 / 3 <= threshold_for_float64(third)[0]), bool(0.33333336 <= threshold_for_float64(third)[0])
    (True, True, False)
    """
    below = thresholds.astype(np.float32)
    below = np.where(below > thresholds, np.nextafter(below, np.float32(-np.inf)), below)
    with np.errstate(over="ignore"):
        above = np.nextafter(below, np.float32(np.inf))
    middle = (below.astype(np.float64) + above.astype(np.float64)) / 2
    ties_go_down = below.view(np.int32) % 2 == 0
    return np.where(ties_go_down, middle, np.nextafter(middle, -np.inf))


def _blocks(prepare: Any, encoding: Encoding, *, whole: bool) -> list[Json]:
    """Blocks of the steps between encoder and estimator; `whole`: an explicit block even if nothing is done."""
    width = len(encoding.columns) + len(encoding.expressions)
    steps = [step for _, step in prepare.steps if step not in ("passthrough", None)]
    if not steps:
        return [{"columns": list(range(width)), "steps": []}] if whole else []
    if len(steps) != 1 or not isinstance(steps[0], ColumnTransformer):
        raise TypeError(f"no plan for {steps}")
    blocks = []
    for _, transformer, columns in steps[0].transformers_:
        if len(columns) and not isinstance(transformer, str):
            places = [int(column) for column in columns]
            blocks.append({"columns": places, "steps": list(_steps(transformer, places, encoding))})
        elif transformer == "passthrough":
            raise TypeError("no plan for columns that a ColumnTransformer passes through")
    return blocks


def _steps(transformer: Any, columns: list[int], encoding: Encoding) -> Iterator[Json]:
    if isinstance(transformer, Pipeline):
        for _, step in transformer.steps:
            yield from _steps(step, columns, encoding)
        return
    match transformer:
        case SimpleImputer():
            values = transformer.statistics_.astype(np.float64)
            if np.isnan(values).any() or len(values) != len(columns):
                raise TypeError("no plan for an imputer that drops columns")
            marked = transformer.indicator_.features_.tolist() if transformer.add_indicator else []
            yield {"step": "fill", "values": values.tolist(), "marked": marked}
        case MissingIndicator():
            yield {"step": "missing", "marked": transformer.features_.tolist()}
        case StandardScaler(with_mean=True, with_std=True):
            yield {"step": "standardise", "center": transformer.mean_.tolist(), "scale": transformer.scale_.tolist()}
        case SplineTransformer(extrapolation="constant"):
            last = None if transformer.include_bias else -1
            yield {"step": "spline", "columns": [_pieces(one, last) for one in transformer.bsplines_]}
        case QuantileTransformer(output_distribution="normal"):
            references = transformer.references_.tolist()
            yield {"step": "normal", "quantiles": transformer.quantiles_.T.tolist(), "references": references}
        case OneHotEncoder():
            yield _places(transformer, columns, encoding)
        case _:
            raise TypeError(f"no plan for {type(transformer).__name__}")


def _pieces(spline: BSpline, last: int | None) -> Json:
    """A B-spline's polynomials between its knots, found from as many of its values; see `preparation.Spline`."""
    degree = spline.k
    inner = np.unique(spline.t[degree : len(spline.t) - degree])
    starts, lengths = [0.0, *inner[:-1].tolist(), 0.0], [1.0, *np.diff(inner).tolist(), 1.0]
    places = (np.arange(degree + 1) + 0.5) / (degree + 1)
    inverse = np.linalg.inv(np.vander(places, degree + 1))
    low, high = spline(inner[0]), spline(inner[-1])
    low[degree:], high[: len(high) - degree] = 0.0, 0.0
    constant = np.zeros((degree, len(low)))
    pieces = [np.vstack([constant, low])]
    for start, length in zip(starts[1:-1], lengths[1:-1], strict=True):
        pieces.append(inverse @ spline(start + length * places))
    pieces.append(np.vstack([constant, high]))
    coefficients = np.stack(pieces, axis=1)[:, :, :last]
    return {"breaks": inner.tolist(), "starts": starts, "lengths": lengths, "pieces": coefficients.tolist()}


def _places(encoder: OneHotEncoder, columns: list[int], encoding: Encoding) -> Json:
    """Where each code of the columns leads, found by asking the fitted encoder for every code there is."""
    names = list(encoding.columns)
    rows = np.array([[known[0] for known in encoder.categories_]], dtype=np.float64)
    ends = np.cumsum(encoder._n_features_outs)  # noqa: SLF001
    places, start = [], 0
    for position, (column, end) in enumerate(zip(columns, ends.tolist(), strict=True)):
        asked = np.repeat(rows, 2 + int(encoding.unseen[names[column]]), axis=0)
        asked[:, position] = [*range(len(asked) - 1), np.nan]
        answers = np.asarray(encoder.transform(asked))[:, start:end]
        places.append([start + int(row.argmax()) if row.any() else int(ends[-1]) for row in answers])
        start = end
    return {"step": "one_hot", "places": places, "width": int(ends[-1])}


def _compile(graph: Graph, rows: str, estimator: Any, codes: int) -> str:
    """Add an estimator to the graph; `codes`: categories are codes below this number."""
    match estimator:
        case BoundedRegressor():
            inner = _compile(graph, rows, estimator.regressor_, codes)
            scaled = graph.add("Mul", inner, np.array(estimator.scale_))
            centered = graph.add("Add", scaled, np.array(estimator.center_))
            return graph.add("Clip", centered, np.array(estimator.low_), np.array(estimator.high_))
        case HistGradientBoostingClassifier() | HistGradientBoostingRegressor():
            return _histogram_boosting(graph, rows, estimator, codes)
        case GradientBoostingClassifier() | GradientBoostingRegressor():
            return _boosting(graph, rows, estimator)
        case RandomForestClassifier() | RandomForestRegressor() | ExtraTreesClassifier() | ExtraTreesRegressor():
            return _forest(graph, rows, [one.tree_ for one in estimator.estimators_])
        case DecisionTreeClassifier() | DecisionTreeRegressor():
            return _forest(graph, rows, [estimator.tree_])
        case MLPClassifier() | MLPRegressor():
            return _networks(graph, rows, [estimator])
        case VotingClassifier() | VotingRegressor():
            return _vote(graph, rows, estimator, codes)
        case LogisticRegression():
            return _logistic(graph, rows, estimator)
        case LinearModel() if np.ndim(estimator.coef_) == 1:
            weights, intercept = estimator.coef_[:, None], np.atleast_1d(estimator.intercept_)
            return graph.add("Gemm", rows, weights.astype(np.float64), intercept.astype(np.float64))
    raise TypeError(f"{type(estimator).__name__} is not among the estimators that can be written down exactly")


def _logistic(graph: Graph, rows: str, regression: LogisticRegression) -> str:
    weights, intercept = regression.coef_.T.astype(np.float64), regression.intercept_.astype(np.float64)
    if len(intercept) == 1:
        weights, intercept = _log_odds(weights), _log_odds(intercept)
    return graph.add("Softmax", graph.add("Gemm", rows, weights, intercept), axis=1)


def _vote(graph: Graph, rows: str, voting: Any, codes: int) -> str:
    """The mean of several estimators' answers."""
    members = voting.estimators_
    if voting.weights is not None or getattr(voting, "voting", "soft") != "soft":
        raise TypeError("a vote that is not the plain mean")
    if all(isinstance(one, MLPClassifier | MLPRegressor) for one in members):
        return _networks(graph, rows, members)
    answers = [_compile(graph, rows, one, codes) for one in members]
    return graph.add("Div", graph.add("Sum", *answers), np.array(float(len(answers))))


def _networks(graph: Graph, rows: str, networks: Sequence[Any]) -> str:
    """The mean answer of networks of one architecture, computed side by side."""
    if len({(one.activation, one.out_activation_, tuple(map(np.shape, one.coefs_))) for one in networks}) != 1:
        raise TypeError("a mean of networks of different architectures")
    first = networks[0]
    activation = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid", "identity": "Identity"}[first.activation]
    layers = range(len(first.coefs_))
    weights = [np.stack([one.coefs_[layer] for one in networks]).astype(np.float64) for layer in layers]
    biases = [np.stack([one.intercepts_[layer][None] for one in networks]).astype(np.float64) for layer in layers]
    link = first.out_activation_
    if link == "logistic" and first.n_outputs_ == 1:
        link, weights[-1], biases[-1] = "softmax", _log_odds(weights[-1]), _log_odds(biases[-1])
    if link not in ("softmax", "identity") or (link == "identity" and first.n_outputs_ > 1):
        raise TypeError(f"a network with {first.n_outputs_} {link} outputs")
    for layer in layers:
        rows = graph.add("Add", graph.add("MatMul", rows, weights[layer]), biases[layer])
        rows = graph.add(activation, rows) if layer < layers[-1] else rows
    answers = graph.add("Softmax", rows, axis=2) if link == "softmax" else rows
    return graph.add("ReduceMean", answers, np.array([0]), keepdims=0)


def _log_odds(output: Matrix) -> Matrix:
    """One output, the log odds of the second of two classes, as two whose softmax is the same."""
    return np.concatenate([np.zeros_like(output), output], axis=-1)


@dataclass
class _Trees:
    """The attributes of the operator TreeEnsemble, tree by tree.

    A tree comes as arrays of its nodes: `left` and `right` are -1 in leaves.
    """

    roots: list[int] = field(default_factory=list)
    features: list[NDArray[Any]] = field(default_factory=list)
    thresholds: list[Matrix] = field(default_factory=list)
    modes: list[NDArray[Any]] = field(default_factory=list)
    missing_left: list[NDArray[Any]] = field(default_factory=list)
    members: list[float] = field(default_factory=list)
    children: list[NDArray[Any]] = field(default_factory=list)
    """Per tree of shape (2, inner nodes, 2): left and right, and of these: place, is it a leaf?"""
    weights: list[Matrix] = field(default_factory=list)
    targets: list[NDArray[Any]] = field(default_factory=list)
    inner_nodes: int = 0
    leaves: int = 0

    def add(
        self,
        target: int,
        left: NDArray[Any],
        right: NDArray[Any],
        feature: NDArray[Any],
        threshold: Matrix,
        missing_left: NDArray[Any],
        weight: Matrix,
        sets: Sequence[Sequence[float] | None] = (),
    ) -> None:
        """Append a tree; `sets`: per node the codes that go left, None for a numeric split."""
        inner, leaf = np.flatnonzero(left >= 0), np.flatnonzero(left < 0)
        places = np.empty(len(left), dtype=np.int64)
        places[inner] = self.inner_nodes + np.arange(len(inner))
        places[leaf] = self.leaves + np.arange(len(leaf))
        self.roots.append(self.inner_nodes)
        if not len(inner):
            self._add_constant(target, float(weight[0]))
            return
        ends = np.stack([left[inner], right[inner]])
        self.children.append(np.stack([places[ends], left[ends] < 0], axis=2))
        self._add_splits(
            feature[inner], threshold[inner], missing_left[inner], [sets[i] for i in inner.tolist()] if sets else None
        )
        self._add_leaves(target, weight[leaf])

    def attributes(self, targets: int) -> dict[str, Any]:
        """Of the operator, as arrays."""
        children = np.concatenate(self.children, axis=1).astype(np.int64)
        found = {
            "n_targets": targets,
            "aggregate_function": SUM,
            "tree_roots": np.array(self.roots, dtype=np.int64),
            "nodes_featureids": np.concatenate(self.features).astype(np.int64),
            "nodes_splits": np.concatenate(self.thresholds),
            "nodes_modes": np.concatenate(self.modes).astype(np.uint8),
            "nodes_missing_value_tracks_true": np.concatenate(self.missing_left).astype(np.int64),
            "nodes_truenodeids": children[0, :, 0],
            "nodes_trueleafs": children[0, :, 1],
            "nodes_falsenodeids": children[1, :, 0],
            "nodes_falseleafs": children[1, :, 1],
            "leaf_targetids": np.concatenate(self.targets).astype(np.int64),
            "leaf_weights": np.concatenate(self.weights),
        }
        return found | ({"membership_values": np.array(self.members)} if self.members else {})

    def _add_constant(self, target: int, weight: float) -> None:
        """A tree of one leaf becomes a split with the same leaf on both sides: the operator wants a split."""
        self.children.append(np.array([[[self.leaves, 1]], [[self.leaves + 1, 1]]]))
        self._add_splits(np.array([0]), np.array([0.0]), np.array([0]), None)
        self._add_leaves(target, np.array([weight, weight]))

    def _add_splits(
        self, feature: NDArray[Any], threshold: Matrix, missing_left: NDArray[Any], sets: "list[Any] | None"
    ) -> None:
        self.features.append(feature)
        self.missing_left.append(missing_left)
        if sets is None:
            sets = [None] * len(feature)
        modes = np.array([LESS_OR_EQUAL if one is None else MEMBER for one in sets])
        self.modes.append(modes)
        self.thresholds.append(np.where(modes == MEMBER, 0.0, threshold))
        for one in sets:
            if one is not None:
                self.members += [*(one or [NEVER]), np.nan]
        self.inner_nodes += len(feature)

    def _add_leaves(self, target: int, weights: Matrix) -> None:
        self.weights.append(np.asarray(weights, dtype=np.float64))
        self.targets.append(np.full(len(weights), target))
        self.leaves += len(weights)


def _forest(graph: Graph, rows: str, trees: Sequence[Any]) -> str:
    """The mean of the trees' leaf values. The operator finds each tree's leaf; its values are looked up and averaged."""
    if trees[0].n_outputs != 1:
        raise TypeError("trees with several outputs")
    found = _Trees()
    values: list[Matrix] = []
    for target, tree in enumerate(trees):
        leaf = tree.children_left < 0
        numbers = np.zeros(tree.node_count)
        numbers[leaf] = sum(len(one) for one in values) + np.arange(leaf.sum())
        found.add(target, *_classic(tree), numbers)
        values.append(tree.value[leaf, 0, :])
    leaves = graph.add("TreeEnsemble", rows, **found.attributes(len(trees)))
    looked_up = graph.add("Gather", np.concatenate(values), graph.add("Cast", leaves, to="int64"))
    return graph.add("ReduceMean", looked_up, np.array([1]), keepdims=0)


def _classic(tree: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], Matrix, NDArray[Any]]:
    """Left, right, feature, threshold and direction of missing values of scikit-learn's `Tree`."""
    thresholds = threshold_for_float64(tree.threshold.astype(np.float64))
    return tree.children_left, tree.children_right, tree.feature, thresholds, tree.missing_go_to_left


def _boosting(graph: Graph, rows: str, boosting: Any) -> str:
    if not (isinstance(boosting.init_, DummyClassifier | DummyRegressor) or boosting.init_ == "zero"):
        raise TypeError("gradient boosting that starts from another estimator")
    exponential = getattr(boosting, "loss", None) == "exponential"
    factor = 2.0 if exponential else 1.0
    start = boosting._raw_predict_init(np.zeros((1, boosting.n_features_in_)))[0]  # noqa: SLF001
    classes = len(start)
    found, shift = _Trees(), int(hasattr(boosting, "classes_") and classes == 1)
    for stage in boosting.estimators_:
        for target, one in enumerate(stage):
            values = factor * (boosting.learning_rate * one.tree_.value[:, 0, 0] + start[target])
            found.add(target + shift, *_classic(one.tree_), values)
        start = np.zeros(classes)
    return _linked(graph, rows, found, classes + shift, "softmax" if hasattr(boosting, "classes_") else "identity")


def _histogram_boosting(graph: Graph, rows: str, boosting: Any, codes: int) -> str:
    outputs, link = _outputs_and_link(boosting)
    shift = int(link == "sigmoid")
    found = _Trees()
    for tree in _boosted_trees(boosting, codes):
        parts = (tree.left, tree.right, tree.feature, tree.threshold, tree.missing_left, tree.values, tree.sets)
        found.add(tree.target + shift, *parts)
    return _linked(graph, rows, found, outputs + shift, "softmax" if link == "sigmoid" else link)


def _outputs_and_link(boosting: Any) -> tuple[int, leaf_tables.Link]:
    """Sums per row, and what turns them into answers."""
    outputs = len(np.ravel(boosting._baseline_prediction))  # noqa: SLF001
    if hasattr(boosting, "classes_"):
        return outputs, "softmax" if outputs > 1 else "sigmoid"
    name = type(boosting._loss.link).__name__  # noqa: SLF001
    links: dict[str, leaf_tables.Link] = {"IdentityLink": "identity", "LogLink": "exp"}
    if name not in links:
        raise TypeError(f"gradient boosting with {name}")
    return outputs, links[name]


def _boosted_trees(boosting: Any, codes: int) -> Iterator[leaf_tables.Tree]:
    """The trees of histogram gradient boosting; its baseline is in the leaves of the first ones."""
    start = np.ravel(boosting._baseline_prediction)  # noqa: SLF001
    columns, known = boosting_columns(boosting), _known_codes(boosting)
    for stage in boosting._predictors:  # noqa: SLF001
        for target, predictor in enumerate(stage):
            nodes = predictor.nodes
            leaf = nodes["is_leaf"].astype(bool)
            left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
            feature = columns[np.where(leaf, 0, nodes["feature_idx"])]
            sets = [_codes_to_the_left(node, predictor, known, codes) for node in nodes] if known else ()
            missing, values = nodes["missing_go_to_left"], nodes["value"] + start[target]
            yield leaf_tables.Tree(target, left, right, feature, nodes["num_threshold"], missing, values, sets)
        start = np.zeros(len(start))


def _linked(graph: Graph, rows: str, trees: _Trees, targets: int, link: str) -> str:
    """The sum of the trees through a link. Of two classes the first has no trees, so that softmax is the sigmoid."""
    total = graph.add("TreeEnsemble", rows, **trees.attributes(targets))
    links: dict[str, Callable[[], str]] = {
        "softmax": lambda: graph.add("Softmax", total, axis=1),
        "identity": lambda: total,
        "exp": lambda: graph.add("Exp", total),
    }
    return links[link]()


def _known_codes(boosting: Any) -> dict[int, list[float]]:
    """Per categorical column, as the trees see it, the values that it had in training, in the order of its bits."""
    if boosting._preprocessor is None:  # noqa: SLF001
        return {}
    encoder = boosting._preprocessor.named_transformers_["encoder"]  # noqa: SLF001
    return {place: [float(v) for v in known if not np.isnan(v)] for place, known in enumerate(encoder.categories_)}


def _codes_to_the_left(node: Any, predictor: Any, known: dict[int, list[float]], codes: int) -> list[float] | None:
    """The codes that a categorical split sends left; codes that training did not have go where missing values go."""
    if node["is_leaf"] or not node["is_categorical"]:
        return None
    bits = np.unpackbits(predictor.raw_left_cat_bitsets[node["bitset_idx"]].view(np.uint8), bitorder="little")
    values = known[int(node["feature_idx"])]
    left = [value for value, bit in zip(values, bits, strict=False) if bit]
    if node["missing_go_to_left"]:
        left += [float(code) for code in range(codes) if code not in values]
    return left
