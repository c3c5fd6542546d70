"""Search for a candidate's best setting: on validation rows or by cross-validation, seeded and repeatable.

The search minimises log loss, or root mean squared error, whatever metric the selection reports later: it tells settings
apart on fewer rows. Trials are counted, never timed, so that the same seed leads to the same trials.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline

from steward.config import ModelFile
from steward.core import history
from steward.core.estimators import Space, align, build, copies, family, fit, labels, steady, takes_weights
from steward.core.features import Encoder
from steward.core.history import Lesson
from steward.errors import CandidateFailed
from steward.records import Trial

SMALLEST_PROBABILITY = 1e-7
PRUNE_AFTER_TRIALS = 3
PRUNE_AFTER_EPOCHS = 4
RACE_ERRORS = 1.0
FOLD_STEP = 10_000
"""Rounds and epochs of the first fold are steps 0, 1, …; whole folds are steps from here on."""
EPOCHS_PATIENCE = 6
PROGRESS = (1.0, 2.0, 4.0)
"""Rounds times learning rate of gradient boosting at which a hopeless setting is given up."""
ENSEMBLE_MEMBERS = 40
ENSEMBLE_GAIN = 1e-4

Values = NDArray[Any]
Told = Mapping[str, Values]
"""Sample weights, where rows do not all count alike."""
Split = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Positions of the rows to fit on, and of the rows that choose."""
Report = Callable[[int, float], None]
"""Takes a step and the loss so far; ends a hopeless trial by raising optuna.TrialPruned."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    params : best setting, with the rounds or epochs that early stopping found and the copies that a refit averages.
    loss : log loss or root mean squared error of `predictions`.
    predictions : of the best setting, one copy, on the rows that choose: the validation rows, or out-of-fold on train
        rows followed by validation rows; of those the newest where it matters how old a row is (see `history.judges`).
        Shape (n, classes) or (n,).
    rows : positions of the rows that choose among train rows followed by validation rows, in their order.
    fit_seconds : of the best setting on one set of fit rows, preparation included.
    """

    params: dict[str, Any]
    loss: float
    trials: tuple[Trial, ...]
    predictions: Values
    rows: NDArray[np.intp]
    chosen_on: Literal["validation", "cross_validation"]
    search_seconds: float
    fit_seconds: float


def search(  # noqa: PLR0913 - what is searched, on which rows, and how
    model: ModelFile,
    candidate: str,
    train_frame: pd.DataFrame,
    train_truth: Values,
    validation_frame: pd.DataFrame,
    validation_truth: Values,
    *,
    groups: Values | None = None,
    times: Values | None = None,
    seed: int,
    threads: int,
    known: Mapping[str, Any] | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> SearchResult:
    """Try `model.search.trials` settings of a candidate, known good ones first, the rest proposed by Optuna's TPE.

    Parameters
    ----------
    groups : of train rows followed by validation rows; the rows of a group stay in one fold.
    times : of train rows followed by validation rows, seconds since 1970; needed for `model.train`.
    known : the setting of an earlier training, to be tried before all others.
    on_trial : called after each setting.

    Raises
    ------
    CandidateFailed : every setting failed; carries the first failure.
    """
    truth = np.concatenate([train_truth, validation_truth])
    frame = pd.concat([train_frame, validation_frame], ignore_index=True)
    splits = folds(model, truth, len(train_truth), groups=groups, times=times, seed=seed)
    tried = Search(candidate, Rows(model, frame, truth, splits, times), seed=seed, threads=threads, known=known)
    for _ in range(model.search.trials):
        trial = tried.try_next()
        if on_trial:
            on_trial(trial)
    return tried.result()


def refit(
    model: ModelFile,
    candidate: str,
    params: Mapping[str, Any],
    frame: pd.DataFrame,
    truth: Values,
    *,
    times: Values | None = None,
    seed: int,
    threads: int,
) -> Pipeline:
    """The candidate's pipeline trained on these rows, or on those of them that its parameters say.

    Parameters
    ----------
    times : of the rows, seconds since 1970; needed for `model.train`.

    Raises
    ------
    CandidateFailed : with the estimator's own reason.
    """
    if times is None and history.looks_at_times(params):
        raise CandidateFailed(f"{candidate} learns from a part of the past, and these rows have no times", got=params)
    lesson = None if times is None else Lesson.of(params, times)
    try:
        pipeline = build(model, candidate, params, seed=seed, threads=threads)
        return fit(pipeline, frame, truth, threads=threads, lesson=lesson)
    except (ValueError, TypeError, ArithmeticError) as problem:
        raise CandidateFailed(f"{candidate} cannot be trained", got=_reason(problem)) from problem


def folds(
    model: ModelFile,
    truth: Values,
    train_rows: int,
    *,
    groups: Values | None = None,
    times: Values | None = None,
    seed: int,
) -> tuple[Split, ...]:
    """Which rows fit and which choose; the same for every candidate.

    One split into train and validation rows, or seeded folds under `search.cross_validate_below` rows: stratified,
    never dividing a group. Rows split by time are not folded, since a fold would learn from the future.

    Parameters
    ----------
    truth : of train rows followed by validation rows.
    times : of the same rows; with them only the newest rows choose (see `history.judges`).
    """
    splits = _folds(model, truth, train_rows, groups, seed)
    if times is None:
        return splits
    choosing = np.sort(np.concatenate([choose for _, choose in splits]))
    judges = choosing[history.judges(model.train, times[choosing])]
    judged = tuple((fit, choose[np.isin(choose, judges)]) for fit, choose in splits)
    return tuple(split for split in judged if len(split[1]))


def _folds(model: ModelFile, truth: Values, train_rows: int, groups: Values | None, seed: int) -> tuple[Split, ...]:
    positions = np.arange(len(truth))
    one: tuple[Split, ...] = ((positions[:train_rows], positions[train_rows:]),)
    if model.split.by == "time" or len(truth) >= model.search.cross_validate_below:
        return one
    units = len(truth) if groups is None else len(np.unique(groups))
    count = min(model.search.folds, units)
    if count < 2:  # noqa: PLR2004 - one group cannot be divided
        return one
    classify = model.task == "classification"
    stratify = classify and bool(np.unique(labels(truth), return_counts=True)[1].max() >= count)
    splitter = _splitter(stratified=stratify, grouped=groups is not None, count=count, seed=seed)
    with steady(1):
        return tuple(splitter.split(positions, labels(truth), groups))


def greedy_weights(
    predictions: Mapping[str, Values],
    truth: Values,
    classes: Sequence[str] = (),
    *,
    limit: int = ENSEMBLE_MEMBERS,
    gain: float = ENSEMBLE_GAIN,
) -> dict[str, float]:
    """Weights of an ensemble by greedy selection with replacement, starting from the best candidate.

    Caruana et al., Ensemble selection from libraries of models, 2004.

    Parameters
    ----------
    predictions : per candidate, on the same rows.
    gain : stop when the best addition lowers the loss by a smaller share of it.

    Examples
    --------
    >>> truth = np.array([1.0, 2.0, 3.0])
    >>> greedy_weights({"low": truth - 1, "high": truth + 1, "wild": truth * 9}, truth)
    {'high': 0.5, 'low': 0.5}
    """
    losses = {name: loss_of(values, truth, classes) for name, values in predictions.items()}
    chosen = [min(losses, key=lambda name: (losses[name], name))]
    lowest, total = losses[chosen[0]], predictions[chosen[0]]
    while len(chosen) < limit:
        means = {name: (total + values) / (len(chosen) + 1) for name, values in predictions.items()}
        losses = {name: loss_of(mean, truth, classes) for name, mean in means.items()}
        added = min(losses, key=lambda name: (losses[name], name))
        if lowest - losses[added] < gain * abs(lowest):
            break
        chosen.append(added)
        lowest, total = losses[added], total + predictions[added]
    return {name: chosen.count(name) / len(chosen) for name in sorted(set(chosen))}


def loss_of(predictions: Values, truth: Values, classes: Sequence[str] = ()) -> float:
    """Log loss (probabilities at least 1e-7), or root mean squared error where there are no classes.

    >>> loss_of(np.array([[0.5, 0.5]]), np.array(["a"], dtype=object), ("a", "b"))
    0.693...
    """
    return _total(losses_of(predictions, truth, classes), classes)


def losses_of(predictions: Values, truth: Values, classes: Sequence[str] = ()) -> Values:
    """Per row: negative log probability of the truth, or squared error; shape (n,)."""
    if not classes:
        return np.asarray((predictions - truth) ** 2)
    position = {name: index for index, name in enumerate(classes)}
    right = predictions[np.arange(len(truth)), [position[str(name)] for name in truth]]
    return np.asarray(-np.log(np.clip(right, SMALLEST_PROBABILITY, 1)))


def _total(losses: Values, classes: Sequence[str]) -> float:
    mean = float(losses.mean())
    return mean if classes else float(np.sqrt(mean))


@dataclass(frozen=True)
class _Fold:
    """One split, encoded; `missing` classes, if any, are those that only its choosing rows have."""

    fit: Values
    fit_truth: Values
    choose: Values
    choose_truth: Values
    positions: NDArray[np.intp]
    times: Values | None = None
    """Of the rows to fit on."""


class Rows:
    """The rows that searches learn from and choose on: encoded once per fold, prepared once per way of preparing.

    Parameters
    ----------
    frame, truth : train rows followed by validation rows.
    splits : of these rows; see `folds`.
    times : of these rows, seconds since 1970; with them a setting may say how much of the past it learns from.
    """

    def __init__(
        self,
        model: ModelFile,
        frame: pd.DataFrame,
        truth: Values,
        splits: tuple[Split, ...],
        times: Values | None = None,
    ) -> None:
        self.model = model
        self.frame = frame
        self.truth = truth
        self.splits = splits
        self.times = times
        self.fit_rows = len(splits[0][0])
        self._folds: dict[tuple[int, str | int], _Fold] = {}
        self._prepared: dict[tuple[Any, ...], tuple[_Fold, float]] = {}

    def prepared(
        self, number: int, pipeline: Pipeline, key: tuple[Any, ...], past: str | int = "all"
    ) -> tuple[_Fold, float]:
        """A fold after the pipeline's `prepare` step, and the seconds that this took; `key` names the way."""
        fold, step = self._fold(number, past), pipeline["prepare"]
        if step == "passthrough":
            return fold, 0.0
        if (number, past, key) not in self._prepared:
            started = time.perf_counter()
            fitted = step.fit(fold.fit, fold.fit_truth)
            ready = _Fold(
                fitted.transform(fold.fit),
                fold.fit_truth,
                fitted.transform(fold.choose),
                fold.choose_truth,
                fold.positions,
                fold.times,
            )
            self._prepared[number, past, key] = ready, time.perf_counter() - started
        return self._prepared[number, past, key]

    def _fold(self, number: int, past: str | int) -> _Fold:
        """A split, encoded by what is known of that much of the past."""
        if (number, past) not in self._folds:
            fit_rows, choose = self.splits[number]
            if self.times is not None:
                fit_rows = fit_rows[history.kept({history.HISTORY: past}, self.times[fit_rows])]
            self._folds[number, past] = self._encode(fit_rows, choose)
        return self._folds[number, past]

    def _encode(self, fit_rows: Values, choose: Values) -> _Fold:
        encoder = Encoder.of(self.model).fit(self.frame.iloc[fit_rows])
        texts = labels(self.truth)
        return _Fold(
            encoder.transform(self.frame.iloc[fit_rows]),
            texts[fit_rows],
            encoder.transform(self.frame.iloc[choose]),
            texts[choose],
            choose,
            None if self.times is None else self.times[fit_rows],
        )


@dataclass
class _Best:
    """The best setting so far; `losses` has one place per row, NaN for rows that do not choose.

    `early` are those of a part of a forest's trees, on the rows that choose in the first fold.
    """

    params: dict[str, Any] = field(default_factory=dict)
    loss: float = np.inf
    predictions: Values = field(default_factory=lambda: np.empty(0))
    rows: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    losses: Values = field(default_factory=lambda: np.empty(0))
    early: Values = field(default_factory=lambda: np.empty(0))
    seconds: float = 0.0


class Search:
    """A search that goes setting by setting, for whoever decides after each whether to go on; see `search`.

    Attributes
    ----------
    trials : the settings tried so far.
    """

    def __init__(
        self, candidate: str, rows: Rows, *, seed: int, threads: int, known: Mapping[str, Any] | None = None
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.model = rows.model
        self.candidate = candidate
        self.rows = rows
        self.seed = seed
        self.threads = threads
        self.family = family(rows.model, candidate)
        self.dimensions = self._dimensions()
        self.space = {**self.family.space(rows.fit_rows), **self.dimensions}
        self.first = self._first(known or {})
        pruner = optuna.pruners.PercentilePruner(self.family.go_on, PRUNE_AFTER_TRIALS)
        self.study = optuna.create_study(sampler=_sampler(seed), pruner=pruner)
        self.best = _Best()
        self.trials: list[Trial] = []
        self.stages: list[int] = []
        self.early = self.best.early
        self.failure: Exception | None = None

    @property
    def found(self) -> bool:
        """Whether any setting could be trained to its end."""
        return bool(np.isfinite(self.best.loss))

    def try_next(self) -> Trial:
        """Try one more setting; whatever an estimator raises is that setting's result."""
        with steady(self.threads):
            trial = self._try(len(self.trials))
        self.trials.append(trial)
        return trial

    def result(self) -> SearchResult:
        """What was found so far; raises CandidateFailed with the first failure if every setting failed."""
        if not self.found:
            raise CandidateFailed(
                f"every setting of {self.candidate} failed", got=_reason(self.failure), do="Read the first failure"
            ) from self.failure
        return SearchResult(
            params=self.best.params | copies(self.model, self.candidate, self.best.params),
            loss=self.best.loss,
            trials=tuple(self.trials),
            predictions=self.best.predictions,
            rows=self.best.rows,
            chosen_on="validation" if len(self.rows.splits) == 1 else "cross_validation",
            search_seconds=sum(trial.seconds for trial in self.trials),
            fit_seconds=self.best.seconds,
        )

    def _dimensions(self) -> dict[str, list[Any]]:
        """How much of the past to learn from, where the model file leaves a choice."""
        train = self.model.train
        if self.rows.times is None or not train.looks_at_times:
            return {}
        return history.space(train, weights=takes_weights(self.model, self.candidate))

    def _first(self, known: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
        """Settings to try before the search: the known one, and the family's first with every choice of the past."""
        one, *others = history.starts(self.dimensions)
        best, *rest = self.family.first
        first = [*({**best, **start} for start in (one, *others)), *({**setting, **one} for setting in rest)]
        offered = self.dimensions
        before = {name: v for name, v in known.items() if name in self.space and v in offered.get(name, (v,))}
        return ({**one, **before}, *(each for each in first if each != before)) if before else tuple(first)

    def _try(self, number: int) -> Trial:
        import optuna

        first = self.first[number] if number < len(self.first) else None
        if first:
            self.study.enqueue_trial(dict(first))
        trial = self.study.ask()
        asked = self.dimensions if first is not None and not history.own(first) else self.space
        params = _suggest(trial, asked)
        started = time.perf_counter()
        loss: float | None = None
        self.stages = []
        try:
            loss = self._evaluate(params, trial)
            state: Literal["complete", "pruned", "failed"] = "complete"
            self.study.tell(trial, loss)
        except optuna.TrialPruned:
            state = "pruned"
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        except Exception as caught:  # noqa: BLE001 - whatever an estimator raises is this setting's result
            state, self.failure = "failed", self.failure or caught
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        seconds = time.perf_counter() - started
        return Trial(number=number, params=params, loss=loss, seconds=seconds, state=state, stages=tuple(self.stages))

    def _evaluate(self, params: dict[str, Any], trial: Any) -> float:
        """Loss of a setting over all folds; keeps its predictions if it is the best so far."""
        started = time.perf_counter()
        folds, classes = self.rows.splits, self.model.classes
        predictions = np.zeros((len(self.rows.truth), len(classes)) if classes else len(self.rows.truth))
        losses = np.full(len(self.rows.truth), np.nan)
        scored = np.empty(0, dtype=np.intp)
        rounds, preparing = [], 0.0
        for number in range(len(folds)):
            report = _report(trial) if number == 0 else None
            fold, seconds = self._prepared(number, params)
            kept, predictions[fold.positions] = self._fit_fold(fold, params, report)
            rounds.append(kept)
            preparing += seconds
            losses[fold.positions] = losses_of(predictions[fold.positions], self.rows.truth[fold.positions], classes)
            scored = np.concatenate([scored, fold.positions])
            loss = _total(losses[scored], classes)
            if number < len(folds) - 1:
                trial.report(loss, FOLD_STEP + number)
                self._race(losses[scored], self.best.losses[scored] if self.found else None)
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss}")
        if loss < self.best.loss:
            kept_params = params | ({"max_iter": max(1, round(np.mean(rounds)))} if any(rounds) else {})
            seconds = (time.perf_counter() - started + preparing) / len(folds)
            scored.sort()
            self.best = _Best(kept_params, loss, predictions[scored], scored, losses, self.early, seconds)
        return loss

    def _race(self, losses: Values, best: Values | None) -> None:
        """Give a setting up that is behind the best so far on the same rows, by more than a standard error.

        After López-Ibáñez et al., The irace package, 2016: what loses on the first folds is spared the others.
        """
        import optuna

        behind = losses - (losses if best is None else best)
        if behind.mean() > RACE_ERRORS * behind.std() / np.sqrt(len(behind)):
            raise optuna.TrialPruned

    def _prepared(self, number: int, params: dict[str, Any]) -> tuple[_Fold, float]:
        key = self.family.prepare, self.seed, *(params.get(name) for name in self.family.prepared_by)
        return self.rows.prepared(number, self._pipeline(params), key, params.get(history.HISTORY, "all"))

    def _pipeline(self, params: dict[str, Any]) -> Pipeline:
        return build(self.model, self.candidate, params, seed=self.seed, threads=self.threads)

    def _fit_fold(self, fold: _Fold, params: dict[str, Any], report: Report | None) -> tuple[int, Values]:
        """Stages kept (0 where early stopping does not decide) and predictions on the fold's choosing rows."""
        estimator = self._pipeline(params)[-1]
        most = self.family.most(len(fold.fit))
        weights = None if fold.times is None else history.weights(params, fold.times)
        told = {} if weights is None else {"sample_weight": weights}
        self.stages.append(most if self.family.stages == "trees" else 1)
        match self.family.stages:
            case "rounds":
                return self._fit_rounds(estimator, fold, told, most, params["learning_rate"], report)
            case "epochs":
                return self._fit_epochs(estimator, fold, told, most, report)
            case "trees" if report:
                self.stages[-1] = most // 4
                estimator.set_params(warm_start=True, n_estimators=most // 4).fit(fold.fit, fold.fit_truth, **told)
                self.early = losses_of(self._answer(estimator, fold.choose), fold.choose_truth, self.model.classes)
                report(0, _total(self.early, self.model.classes))
                self._race(self.early, self.best.early if self.found else None)
                self.stages[-1] = most
                estimator.set_params(n_estimators=most)
        return 0, self._answer(estimator.fit(fold.fit, fold.fit_truth, **told), fold.choose)

    def _fit_rounds(
        self, estimator: Any, fold: _Fold, told: Told, most: int, learning_rate: float, report: Report | None
    ) -> tuple[int, Values]:
        """Gradient boosting stops early but does not return to its best round: `staged_predict` does.

        Settings are compared at equal progress, which is rounds times learning rate.
        """
        known = np.isin(fold.choose_truth, fold.fit_truth) if self.model.classes else np.full(len(fold.choose), True)
        estimator.set_params(early_stopping=True, warm_start=report is not None)
        goals = [most] if report is None else _goals(most, learning_rate)
        for step, goal in enumerate(goals):
            estimator.set_params(max_iter=goal)
            estimator.fit(fold.fit, fold.fit_truth, X_val=fold.choose[known], y_val=fold.choose_truth[known], **told)
            self.stages[-1] = estimator.n_iter_
            if report and goal < most:
                report(step, -float(max(estimator.validation_score_)))
            if estimator.n_iter_ < goal:
                break
        best = max(1, int(np.argmax(estimator.validation_score_)))
        staged = estimator.staged_predict_proba if self.model.classes else estimator.staged_predict
        return best, self._align(estimator, next(islice(staged(fold.choose), best - 1, None)))

    def _fit_epochs(
        self, estimator: Any, fold: _Fold, told: Told, most: int, report: Report | None
    ) -> tuple[int, Values]:
        """A network's own early stopping watches accuracy; this one watches the loss. Single precision is faster."""
        fit, choose = fold.fit.astype(np.float32), fold.choose.astype(np.float32)
        known = {"classes": np.unique(fold.fit_truth)} if self.model.classes else {}
        best, lowest, answers = 0, np.inf, np.empty(0)
        for epoch in range(1, most + 1):
            estimator.partial_fit(fit, fold.fit_truth, **(known if epoch == 1 else {}), **told)
            self.stages[-1] = epoch
            current = self._answer(estimator, choose)
            loss = self._loss(current, fold)
            if loss < lowest:
                best, lowest, answers = epoch, loss, current
            if report and epoch >= PRUNE_AFTER_EPOCHS:
                report(epoch, lowest)
            if epoch - best >= EPOCHS_PATIENCE:
                break
        return best, answers

    def _loss(self, answers: Values, fold: _Fold) -> float:
        return loss_of(answers, fold.choose_truth, self.model.classes)

    def _answer(self, estimator: Any, matrix: Values) -> Values:
        if not self.model.classes:
            return np.asarray(estimator.predict(matrix), dtype=np.float64).ravel()
        return self._align(estimator, estimator.predict_proba(matrix))

    def _align(self, estimator: Any, answers: Values) -> Values:
        return align(answers, estimator.classes_, self.model.classes) if self.model.classes else answers


def _goals(most: int, learning_rate: float) -> list[int]:
    """Rounds after which to compare, the last of them `most`."""
    return [*(goal for goal in (ceil(part / learning_rate) for part in PROGRESS) if goal < most), most]


def _sampler(seed: int) -> Any:
    import optuna

    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=6)


def _suggest(trial: Any, space: Space) -> dict[str, Any]:
    return {name: _suggest_one(trial, name, values) for name, values in space.items()}


def _suggest_one(trial: Any, name: str, values: Any) -> Any:
    if not isinstance(values, Mapping):
        return trial.suggest_categorical(name, list(values))
    suggest = trial.suggest_int if values.get("integer") else trial.suggest_float
    return suggest(name, values["low"], values["high"], log=values.get("log", False))


def _report(trial: Any) -> Report:
    import optuna

    def report(step: int, loss: float) -> None:
        trial.report(loss, step)
        if trial.should_prune():
            raise optuna.TrialPruned

    return report


def _splitter(*, stratified: bool, grouped: bool, count: int, seed: int) -> Any:
    match stratified, grouped:
        case True, True:
            return StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        case True, False:
            return StratifiedKFold(count, shuffle=True, random_state=seed)
        case False, True:
            return GroupKFold(count, shuffle=True, random_state=seed)
    return KFold(count, shuffle=True, random_state=seed)


def _reason(problem: BaseException | None) -> str:
    return f"{type(problem).__name__}: {problem}"
