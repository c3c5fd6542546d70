"""What an operator can set: `ModelFile` says what to look after, `Settings` says where things live."""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from steward.documents import Document
from steward.errors import ModelFileError, SettingsError, UnknownModel
from steward.expressions import Expression

FAMILIES = ("logistic_regression", "decision_tree", "random_forest", "gradient_boosting", "neural_network")
"""Candidate families of a classification; for a regression `linear_regression` stands where `logistic_regression` does."""

REGRESSION_FAMILIES = ("linear_regression", *FAMILIES[1:])
CLASSIFICATION_METRICS = ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "log_loss", "brier")
REGRESSION_METRICS = ("rmse", "mae", "r2")
ERRORS = frozenset({"log_loss", "brier", "rmse", "mae"})
"""Metrics of which less is better."""
Trigger = Literal["data_drift", "concept_drift", "accuracy", "new_feature", "event"]
DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(s|m|h|d|w)$")
SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
NAME = r"^[a-z][a-z0-9_]{0,62}$"
SCHEDULE_FIELDS = 5
LOOKS = 70
"""Of a schedule, to learn how often it comes."""


def parse_duration(value: object) -> object:
    """`7d`, `24h`, `30m` as a timedelta; anything else is left to pydantic.

    >>> parse_duration("36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    if isinstance(value, str):
        match = DURATION.match(value.strip())
        if not match:
            raise ValueError("a duration is a number and one of s, m, h, d, w, such as 7d or 24h")
        return timedelta(seconds=float(match[1]) * SECONDS[match[2]])
    return value


def format_duration(value: timedelta) -> str:
    """The shortest text that `parse_duration` reads back.

    >>> format_duration(timedelta(days=7)), format_duration(timedelta(hours=36))
    ('1w', '36h')
    """
    seconds = value.total_seconds()
    for unit, size in reversed(SECONDS.items()):
        if seconds and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:g}s"


def _schedule(value: object) -> object:
    if isinstance(value, str) and not value.startswith("@") and len(value.split()) != SCHEDULE_FIELDS:
        raise ValueError("a schedule is a cron expression of five fields, or @hourly, @daily, @weekly, @monthly")
    return value


def _class_name(value: object) -> object:
    """Classes are texts; YAML's booleans and numbers are written as the accept step reads them from a table."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _is_number(value: str | float) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _past(value: object) -> object:
    """`all`, a duration as text, or a number of rows."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("a history is `all`, a duration such as 90d, or a number of rows")
    if value == "all":
        return value
    if (value if isinstance(value, int) else _length(value)) <= 0:
        raise ValueError("a history must hold something")
    return value


def _half_life(value: object) -> object:
    if value != "none" and (not isinstance(value, str) or _length(value) <= 0):
        raise ValueError("a recency is `none`, or the duration after which a row counts half, such as 90d")
    return value


def _length(duration: str) -> float:
    return float(parse_duration(duration).total_seconds())  # type: ignore[attr-defined]


def _without_password(place: str) -> str:
    if re.search(r"://[^/@:$]*:[^/@$]+@", place):
        raise ValueError("a password does not belong in a model file; write ${NAME} and set it in the environment")
    return place


def _safe_expression(value: str) -> str:
    Expression.parse(value)
    return value


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
]
Schedule = Annotated[str, BeforeValidator(_schedule)]
History = Annotated[str | int, BeforeValidator(_past)]
HalfLife = Annotated[str, BeforeValidator(_half_life)]
ClassName = Annotated[str, BeforeValidator(_class_name, json_schema_input_type=str | int | float | bool)]
SafeExpression = Annotated[str, BeforeValidator(_safe_expression, json_schema_input_type=str)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the model file: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Source(Section):
    table: str
    """Path, glob or URL of Parquet or CSV files, or a SQL table: `postgresql://…::schema.table`,
    `duckdb:///file.db::table`. `${NAME}` is replaced from the environment, so that no password stands in the file."""
    key: str | tuple[str, ...]
    """The column, or columns, that name a row for life; unique. Of several, those that are also `nullable` columns may be
    missing, as long as one is there."""
    time: str | None = None
    """The column that says when the row happened: a timestamp, ISO text, or seconds since 1970."""
    outcomes: bool = False
    """Mature outcomes of served predictions become rows too."""
    missing: tuple[str, ...] = ("",)
    """Texts that mean "no value", such as `?` or `NA`; compared after surrounding blanks are removed."""

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,) if isinstance(self.key, str) else self.key

    @field_validator("table")
    @classmethod
    def _no_password(cls, table: str) -> str:
        return _without_password(table)

    @field_validator("key")
    @classmethod
    def _some_key(cls, key: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not key:
            raise ValueError("names no column")
        return key


class Label(Section):
    column: str
    """The column that holds the truth."""
    classes: tuple[ClassName, ...] | None = None
    """Legal labels, in the order in which they are shown; required for classification."""
    aliases: Mapping[str, ClassName] = {}
    """Other spellings of a class."""
    mature_after: Duration = timedelta(0)
    """How old a row must be before its label is final; needs `source.time`."""
    min: float | None = None
    """Regression: the smallest legal label."""
    max: float | None = None
    """Regression: the largest legal label."""


class Column(Section):
    type: Literal["integer", "number", "category", "boolean"]
    """What the values are."""
    min: float | None = None
    """The smallest legal number."""
    max: float | None = None
    """The largest legal number."""
    values: tuple[ClassName, ...] | None = None
    """Legal categories; without it, and with `open: true`, any text is legal."""
    aliases: Mapping[str, ClassName] = {}
    """Other spellings of a category."""
    open: bool = False
    """New categories are allowed and counted as unseen."""
    nullable: bool = False
    """May the value be missing?"""
    description: str = ""
    """Shown in the card and in the service's documentation."""

    @model_validator(mode="after")
    def _fits_type(self) -> Self:
        numeric = self.type in ("integer", "number")
        if not numeric and (self.min is not None or self.max is not None):
            raise ValueError(f"min and max need type integer or number, not {self.type}")
        if self.type != "category" and (self.values or self.aliases or self.open):
            raise ValueError(f"values, aliases and open need type category, not {self.type}")
        if self.type == "category" and not self.open and not self.values:
            raise ValueError("a category needs `values`, or `open: true`")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if self.values and not self.open and (lost := set(self.aliases.values()) - set(self.values)):
            raise ValueError(f"aliases lead to {sorted(lost)}, which are not among values {list(self.values)}")
        return self


class Rows(Section):
    max_rejected: Share = 0.02
    """The largest share of rows that may break the contract before the table is refused."""
    min: Annotated[int, Field(ge=1)] = 1
    """The fewest accepted rows to go on with."""


class Feature(Section):
    expression: SafeExpression
    """Python syntax over the columns: comparisons, arithmetic, `and or not in`, no calls."""
    why: str = ""
    """What the feature is for; shown in the card."""


class Split(Section):
    by: Literal["key", "time", "group"] = "key"
    """What decides a row's role: a stable hash of its key, its time, or a stable hash of its group."""
    train: Share = 0.70
    """Share of rows that models learn from."""
    validation: Share = 0.15
    """Share of rows that choose between models."""
    test: Share = 0.15
    """Share of rows kept sealed until the choice is verified."""
    group: str | None = None
    """The column whose rows stay together; required with `by: group`."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:  # noqa: PLR2004
            raise ValueError(f"train + validation + test must be 1, not {total:g}")
        if min(self.train, self.validation, self.test) <= 0:
            raise ValueError("train, validation and test must each be above 0")
        if (self.by == "group") != (self.group is not None):
            raise ValueError("`group: COLUMN` belongs to `by: group`, and is required there")
        return self


class OwnEstimator(Section):
    """A user's own scikit-learn estimator as a candidate."""

    estimator: Annotated[str, Field(pattern=r"^[A-Za-z_][\w]*(\.[A-Za-z_][\w]*)+$")]
    """Dotted path of the class, such as `sklearn.ensemble.ExtraTreesClassifier`."""
    params: Mapping[str, Any] = {}
    """Fixed parameters of the estimator."""
    search: Mapping[str, Any] = {}
    """Parameters to search: a list of choices, or `{low, high}` with optional `log: true`, `integer: true`."""
    name: Annotated[str, Field(pattern=NAME)] | None = None
    """How the candidate is called; the class's name in snake case otherwise."""

    @property
    def candidate(self) -> str:
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.estimator.rsplit(".", 1)[-1])
        return self.name or words.lower()

    @model_validator(mode="after")
    def _search_is_readable(self) -> Self:
        for name, space in self.search.items():
            choices = isinstance(space, list | tuple) and len(space) > 0
            interval = isinstance(space, Mapping) and {"low", "high"} <= set(space) <= {"low", "high", "log", "integer"}
            if not choices and not interval:
                raise ValueError(f"search.{name} must be a list of choices or {{low, high, log, integer}}")
        return self


class Train(Section):
    """How much of the past candidates learn from. Of several choices each candidate finds its own, on the newest rows."""

    history: Annotated[tuple[History, ...], Field(min_length=1)] = ("all",)
    """The pasts to choose from: `all`, the last so long, such as `90d`, or the newest so many rows; needs `source.time`."""
    recency: Annotated[tuple[HalfLife, ...], Field(min_length=1)] = ("none",)
    """The half-lives to choose from: after `90d` a row counts half, with `none` all count alike. Estimators that take no
    sample weights have no such choice; needs `source.time`."""

    @property
    def looks_at_times(self) -> bool:
        """Does it matter how old a row is?"""
        return self.history != ("all",) or self.recency != ("none",)

    @model_validator(mode="after")
    def _once(self) -> Self:
        for name, choices in {"history": self.history, "recency": self.recency}.items():
            if len(set(choices)) != len(choices):
                raise ValueError(f"{name} holds a choice twice")
        return self


class Search(Section):
    trials: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Settings tried per candidate."""
    cross_validate_below: Annotated[int, Field(ge=0)] = 8_000
    """With fewer train and validation rows than this, cross-validation chooses instead of the validation rows."""
    folds: Annotated[int, Field(ge=2, le=50)] = 5
    """Folds of that cross-validation."""


class Select(Section):
    metric: str | None = None
    """What the choice is made on; `accuracy` for classification and `rmse` for regression unless said otherwise."""
    prefer: Literal["simplest_within_noise", "best"] = "simplest_within_noise"
    """The cheapest candidate that is not measurably worse than the best, or simply the best."""


class Verify(Section):
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of every interval of the verdict."""
    margin: Annotated[float, Field(ge=0)] = 0.0
    """How much worse than the champion is still acceptable (regression: as a share of the champion's error)."""
    detect: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The difference worth finding: decides how many sealed rows a run needs (regression: as a share of the error)."""
    floor: Mapping[str, float] = {}
    """Metric values that a version must reach, such as `accuracy: 0.80`."""
    slices: tuple[str, ...] = ()
    """Columns whose values are looked at one by one."""
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    """The longest that one prediction may take."""


class Action(Section):
    when: SafeExpression | None = None
    """Condition over `prediction`, `confidence`, `probabilities` and the record's columns."""
    do: str | None = None
    """The action if the condition holds."""
    otherwise: str | None = None
    """The action if no condition before it held."""
    say: str = ""
    """A message for a person."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.otherwise is None) == (self.when is None or self.do is None):
            raise ValueError("an action is {when, do} or {otherwise}")
        return self


class Fallback(Section):
    prediction: ClassName | float
    """What is answered when no version can answer."""


class Serve(Section):
    actions: tuple[Action, ...] = ()
    """The first whose condition holds is recommended."""
    fallback: Fallback | None = None
    """The constant answer when neither champion nor previous version can answer."""
    log: Literal["durable", "crash_safe", "relaxed"] = "crash_safe"
    """What a logged prediction survives: power loss, a killed process, or neither for the last moments."""
    log_away: Literal["spool", "refuse"] = "spool"
    """While the log's database is away: answer and keep the row in a local file until it is back, or refuse."""
    control: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of requests whose action is `proceed` whatever the prediction, so that a risk that is always acted upon can
    still be measured."""
    unknown_fields: Literal["refuse", "ignore"] = "refuse"
    """What happens to a request with a field that the model does not know."""
    out_of_range: Literal["refuse", "flag"] = "refuse"
    """What happens to a request with a number outside `min` and `max` of its column."""
    deadline_ms: Annotated[float, Field(gt=0)] = 1_000
    """The longest that a version may take before the next one down answers."""


class Score(Section):
    input: str | None = None
    """What the batch DAG scores: path, glob, URL or SQL table, written as `source.table`."""
    output: str | None = None
    """Where the answers go: a Parquet or CSV file, or a SQL table."""
    schedule: Schedule | None = None
    """When; after every promotion unless said otherwise."""
    contract: Literal["warn", "stop"] = "stop"
    """What happens when more rows than `rows.max_rejected` break the contract."""
    drift: Literal["warn", "stop"] = "warn"
    """What happens when the rows have drifted from those that the champion learned from."""

    @field_validator("input", "output")
    @classmethod
    def _no_password(cls, place: str | None) -> str | None:
        return place and _without_password(place)

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.input is None) != (self.output is None):
            raise ValueError("score needs both input and output, or neither")
        return self


class AccuracyWatch(Section):
    floor: float | None = None
    """Live accuracy under which retraining is asked for."""


@cache
def _times_a_year(schedule: str) -> float:
    from croniter import croniter

    start = datetime(2026, 1, 1, tzinfo=UTC)
    moments = croniter(schedule, start)
    last = [moments.get_next(datetime) for _ in range(LOOKS)][-1]
    return float(LOOKS * timedelta(days=365.25) / (last - start))


@lru_cache(maxsize=1_024)
def _following(schedule: str | None, after: datetime) -> datetime | None:
    from croniter import croniter

    found: datetime | None = croniter(schedule, after).get_next(datetime) if schedule else None
    return found


class Monitor(Section):
    schedule: Schedule | None = "@daily"
    """When the champion is looked at."""
    window: Duration = timedelta(days=7)
    """How much of the past one look covers."""
    false_alarms_per_year: Annotated[float, Field(gt=0)] = 2
    """How many alarms a year are acceptable when nothing has changed."""
    accuracy: AccuracyWatch = AccuracyWatch()
    """What is demanded of live accuracy."""
    shadow: Duration = timedelta(days=3)
    """How long after a promotion the previous champion answers in shadow, to be gone back to if it was better."""

    @property
    def looks_per_year(self) -> float:
        """How often the schedule comes; once a day where there is none.

        >>> [round(Monitor(schedule=at).looks_per_year) for at in ("@daily", "0 * * * *", None)]
        [365, 8766, 365]
        """
        return _times_a_year(self.schedule or "@daily")

    def next_look(self, after: datetime) -> datetime | None:
        """None without a schedule."""
        return _following(self.schedule, after)


class Retrain(Section):
    schedule: Schedule | None = None
    """When to train whatever happens."""
    new_rows: int | float | None = 0.05
    """Labelled rows that are a reason to train: so many, or so large a share of those that the last training had."""
    on: tuple[Trigger, ...] = ("data_drift", "concept_drift", "accuracy", "new_feature", "event")
    """Triggers that may start a training."""
    cooldown: Duration = timedelta(hours=24)
    """The shortest time between two trainings that triggers asked for."""
    max_per_week: Annotated[int, Field(ge=0)] = 3
    """The most trainings a week that triggers may ask for."""

    @field_validator("new_rows", mode="before")
    @classmethod
    def _rows_or_share(cls, given: Any) -> Any:
        if given is None or (type(given) is int and given >= 1) or (type(given) is float and 0 < given < 1):
            return given
        raise ValueError("must be a number of rows from 1 on, a share above 0 and below 1, or null")

    @property
    def continuous(self) -> int | None:
        """Labelled rows that a scheduled training waits for; None where they are not counted in rows."""
        return self.new_rows if isinstance(self.new_rows, int) else None

    def enough_rows(self, learned: int) -> int | None:
        """Labelled rows since a training that had so many which are a reason for the next one.

        >>> [Retrain(new_rows=rows).enough_rows(3_010) for rows in (0.05, 400, None)]
        [151, 400, None]
        """
        return math.ceil(self.new_rows * learned) if isinstance(self.new_rows, float) else self.new_rows

    def next_training(self, after: datetime) -> datetime | None:
        """By the schedule; None without one."""
        return _following(self.schedule, after)


class ModelFile(Section):
    """One model to look after."""

    name: Annotated[str, Field(pattern=NAME)]
    """Name of the model file, of the DAGs and of the registered model."""
    description: str = ""
    """What is predicted, for whom."""
    task: Literal["classification", "regression"]
    """Predict a class or a number."""
    source: Source
    """Where the rows are."""
    label: Label
    """What is predicted."""
    columns: Annotated[dict[str, Column], Field(min_length=1)]
    """The contract; other columns are reported, never used silently."""
    rows: Rows = Rows()
    """What the whole table must look like."""
    features: dict[str, Feature] = {}
    """Engineered features, computed by the same code at training and at inference."""
    split: Split = Split()
    """How rows get their roles."""
    candidates: Annotated[tuple[str | OwnEstimator, ...], Field(min_length=1)] | None = None
    """What competes: families by name, `ensemble`, or your own estimators. All five families unless said otherwise."""
    train: Train = Train()
    """How much of the past candidates learn from."""
    search: Search = Search()
    """How each candidate is tuned."""
    select: Select = Select()
    """How the winner is chosen."""
    verify: Verify = Verify()
    """What the winner has to prove on sealed rows."""
    approve: Literal["automatic", "person"] = "automatic"
    """Does a person confirm a promotion?"""
    serve: Serve = Serve()
    """How answers are given."""
    score: Score = Score()
    """What the batch DAG scores."""
    monitor: Monitor = Monitor()
    """How the champion is watched."""
    retrain: Retrain = Retrain()
    """When to train again."""
    notify: tuple[str, ...] = ()
    """Apprise URLs that hear of what happens."""

    @property
    def families(self) -> tuple[str, ...]:
        """The built-in candidate families of this task."""
        return FAMILIES if self.task == "classification" else REGRESSION_FAMILIES

    @property
    def metric(self) -> str:
        return self.select.metric or ("accuracy" if self.task == "classification" else "rmse")

    @property
    def classes(self) -> tuple[str, ...]:
        """Legal labels of a classification; empty for a regression."""
        return self.label.classes or ()

    @property
    def candidate_names(self) -> tuple[str, ...]:
        chosen = self.candidates or self.families
        return tuple(item if isinstance(item, str) else item.candidate for item in chosen)

    def own_estimator(self, candidate: str) -> OwnEstimator | None:
        """The user's estimator behind a candidate's name, if it is one."""
        for item in self.candidates or ():
            if isinstance(item, OwnEstimator) and item.candidate == candidate:
                return item
        return None

    def only(self, candidates: Sequence[str] | None = None, trials: int | None = None) -> "ModelFile":
        """The same model with fewer candidates or another number of trials, as a run's parameters ask for.

        Raises ModelFileError for a candidate that the file does not name.
        """
        chosen = dict(zip(self.candidate_names, self.candidates or self.families, strict=True))
        if unknown := [name for name in candidates or () if name not in chosen]:
            raise ModelFileError(
                f"{self.name} has no such candidate", got=unknown[0], allowed=", ".join(chosen), do="Name one of these"
            )
        changed = self.model_dump(mode="json", by_alias=True)
        if candidates:
            kept = [chosen[name] for name in candidates]
            changed["candidates"] = [i if isinstance(i, str) else i.model_dump(mode="json") for i in kept]
        if trials:
            changed["search"]["trials"] = trials
        return ModelFile.model_validate(changed)

    @model_validator(mode="after")
    def _label_fits_task(self) -> Self:
        if self.task == "classification":
            classes = self.label.classes or ()
            if len(set(classes)) < 2:  # noqa: PLR2004
                raise ValueError("label.classes must list at least two different classes for a classification")
            if len(set(classes)) != len(classes):
                raise ValueError("label.classes holds a class twice")
            if lost := set(self.label.aliases.values()) - set(classes):
                raise ValueError(f"label.aliases lead to {sorted(lost)}, which are not among label.classes")
            if self.label.min is not None or self.label.max is not None:
                raise ValueError("label.min and label.max belong to a regression")
        elif self.label.classes or self.label.aliases:
            raise ValueError("label.classes and label.aliases belong to a classification")
        return self

    @model_validator(mode="after")
    def _columns_exist(self) -> Self:
        if self.label.column in self.columns:
            raise ValueError(f"columns.{self.label.column} is the label; a model must not be told the answer")
        if self.label.mature_after and self.source.time is None:
            raise ValueError("label.mature_after needs source.time")
        if self.source.outcomes and self.split.group and self.split.group not in {*self.columns, *self.source.keys}:
            raise ValueError("source.outcomes needs split.group to be a column, so that a prediction knows its group")
        if self.train.looks_at_times and self.source.time is None:
            raise ValueError("train.history needs source.time, as train.recency does")
        if self.split.by == "time" and self.source.time is None:
            raise ValueError("split.by: time needs source.time")
        for name, feature in self.features.items():
            if name in self.columns:
                raise ValueError(f"features.{name} has the name of a column")
            if lost := Expression.parse(feature.expression).names - set(self.columns):
                raise ValueError(f"features.{name} reads {sorted(lost)}, which are not among columns")
        if unknown := set(self.verify.slices) - set(self.columns):
            raise ValueError(f"verify.slices names {sorted(unknown)}, which are not among columns")
        known = {"prediction", "confidence", "probabilities", *self.columns}
        for action in self.serve.actions:
            if action.when and (lost := Expression.parse(action.when).names - known):
                raise ValueError(f"serve.actions reads {sorted(lost)}; known are {sorted(known)}")
            if action.when:
                self._try_condition(action.when)
        return self

    def _try_condition(self, when: str) -> None:
        """Evaluate a condition once, so that texts compared with numbers, and unknown classes, are found here."""
        row: dict[str, Any] = {name: "a" if column.type == "category" else 1.0 for name, column in self.columns.items()}
        row |= {"prediction": self.classes[0] if self.classes else 1.0, "confidence": 1.0}
        row["probabilities"] = dict.fromkeys(self.classes, 1.0)
        try:
            Expression.parse(when).evaluate(row)
        except KeyError as problem:
            raise ValueError(f"serve.actions: {when!r} asks for a class {problem} that label.classes lacks") from None
        except TypeError as problem:
            raise ValueError(f"serve.actions: {when!r} mixes texts and numbers ({problem})") from None

    @model_validator(mode="after")
    def _choices_exist(self) -> Self:
        metrics = CLASSIFICATION_METRICS if self.task == "classification" else REGRESSION_METRICS
        for field, names in {"select.metric": (self.metric,), "verify.floor": tuple(self.verify.floor)}.items():
            if unknown := [name for name in names if name not in metrics]:
                raise ValueError(f"{field} knows no metric {unknown[0]!r}; allowed: {', '.join(metrics)}")
        known = (*self.families, "ensemble")
        for item in self.candidates or ():
            if isinstance(item, str) and item not in known:
                raise ValueError(f"candidates knows no {item!r}; allowed: {', '.join(known)}, or {{estimator: …}}")
        if len(set(self.candidate_names)) != len(self.candidate_names):
            raise ValueError("candidates holds a name twice")
        if self.candidate_names == ("ensemble",):
            raise ValueError("candidates: an ensemble needs other candidates to be made of")
        fallback = self.serve.fallback
        if fallback and self.task == "classification" and fallback.prediction not in self.classes:
            raise ValueError(f"serve.fallback.prediction {fallback.prediction!r} is not among label.classes")
        if fallback and self.task == "regression" and not _is_number(fallback.prediction):
            raise ValueError(f"serve.fallback.prediction {fallback.prediction!r} is no number")
        return self

    @classmethod
    def load(cls, path: Path) -> "ModelFile":
        """Read and check a model file; raises ModelFileError naming file, line, field, value and what is allowed."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise ModelFileError(
                f"{path} cannot be read", got=str(problem), do="Check path and permission"
            ) from problem
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, where: str = "<text>") -> "ModelFile":
        """As `load`, from text; `where` names it in errors."""
        document = Document.parse(text, where)
        try:
            return cls.model_validate(document.content)
        except ValidationError as problem:
            raise _explain(problem, document) from problem

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of the file, for editors and `steward schema`."""
        schema = cls.model_json_schema(mode="validation")
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _explain(problem: ValidationError, document: Document) -> ModelFileError:
    """One error that lists every problem with its line."""
    errors = _without_union_noise(problem.errors())
    problems = [f"{document.where}:{document.line_of(error['loc'])}: {_sentence(error)}" for error in errors]
    line = document.line_of(errors[0]["loc"])
    return ModelFileError("\n".join(problems), do="`steward schema` prints every field", line=line, problems=problems)


def _sentence(error: Mapping[str, Any]) -> str:
    """Field, problem, value and what is allowed."""
    location = error["loc"]
    field = ".".join(str(part) for part in location) or "model file"
    if error["type"] == "missing":
        return f"{field}: required field is missing"
    if error["type"] == "extra_forbidden":
        message = f"unknown field; allowed: {', '.join(_allowed_fields(location[:-1]))}"
    else:
        message = error["msg"].removeprefix("Value error, ").removeprefix(f"{field} ").removeprefix(f"{field}: ")
    got = error.get("input")
    return f"{field}: {message}" + (f" (got {got!r})" if isinstance(got, str | int | float | bool) else "")


def _without_union_noise(errors: Sequence[Any]) -> list[Any]:
    """Where a field may have one of several forms, only the problems of the form that was meant."""
    kept = []
    for error in errors:
        where = tuple(
            p
            for p in error["loc"]
            if isinstance(p, int) or not (p in ("str", "float") or "[" in p or p == "OwnEstimator")
        )
        other_form = error["type"] in ("string_type", "float_type") and where != error["loc"] and len(errors) > 1
        if not other_form:
            kept.append({**error, "loc": where or _named_field(error["msg"])})
    return kept or list(errors)


def _named_field(message: str) -> tuple[str, ...]:
    """Rules over several fields begin with the field they speak of: `label.classes must …`."""
    first = message.removeprefix("Value error, ").split(" ", 1)[0].rstrip(":")
    parts = tuple(first.split("."))
    return parts if parts[0] in ModelFile.model_fields else ()


def _allowed_fields(location: Sequence[str | int]) -> list[str]:
    """Names of the fields allowed at a location, from the sections' own types."""
    section: Any = ModelFile
    for part in location:
        fields = getattr(section, "model_fields", {})
        candidates = list(_sections(fields[part].annotation)) if part in fields else [section]
        section = candidates[0] if candidates else section
    return sorted(section.model_fields)


def _sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _sections(argument)


@dataclass(frozen=True)
class Settings:
    """Where things live; read from the environment once, by whoever starts Steward."""

    home: Path
    """`STEWARD_HOME`: folder of everything embedded (default `./.steward`)."""
    store: str
    """`STEWARD_STORE`: fsspec URL of snapshots, artifacts and reports (default: `store` in the home)."""
    ledger_url: str
    """`STEWARD_LEDGER_URL`: SQLAlchemy URL of the ledger (default: SQLite in the home)."""
    models: Path
    """`STEWARD_MODELS`: folder of model files (default `./models`)."""
    tracking_uri: str
    """`MLFLOW_TRACKING_URI`: MLflow's tracking and registry (default: SQLite in the home)."""
    threads: int = 1
    """`STEWARD_THREADS`: threads of one fit."""
    jobs: int = 1
    """`STEWARD_JOBS`: candidates trained side by side by `steward train`."""
    trusted_types: tuple[str, ...] = ()
    """`STEWARD_TRUSTED_TYPES`: comma-separated types allowed in artifacts beside Steward's own list."""
    mlflow_ui: str | None = None
    """`STEWARD_MLFLOW_UI`: where a browser finds MLflow (default: the tracking URI, if that is a web address)."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read the environment; raises SettingsError for a value that cannot be used."""
        env = os.environ if environment is None else environment
        home = Path(env.get("STEWARD_HOME") or ".steward").expanduser().absolute()
        trusted = env.get("STEWARD_TRUSTED_TYPES", "")
        tracking_uri = env.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"
        return cls(
            home=home,
            store=env.get("STEWARD_STORE") or str(home / "store"),
            ledger_url=env.get("STEWARD_LEDGER_URL") or f"sqlite:///{home / 'ledger.db'}",
            models=Path(env.get("STEWARD_MODELS") or "models").expanduser().absolute(),
            tracking_uri=tracking_uri,
            threads=_positive(env, "STEWARD_THREADS", 1),
            jobs=_positive(env, "STEWARD_JOBS", max(1, min(2, os.cpu_count() or 1))),
            trusted_types=tuple(name.strip() for name in trusted.split(",") if name.strip()),
            mlflow_ui=env.get("STEWARD_MLFLOW_UI") or (tracking_uri if tracking_uri.startswith("http") else None),
        )

    def model_paths(self) -> tuple[Path, ...]:
        """Every model file, sorted by name."""
        return tuple(sorted([*self.models.glob("*.yaml"), *self.models.glob("*.yml")]))

    def model(self, name: str) -> ModelFile:
        """The model file of this name; raises UnknownModel or ModelFileError."""
        for path in self.model_paths():
            if path.stem == name:
                return self.model_at(path)
        known = ", ".join(path.stem for path in self.model_paths()) or "none yet"
        raise UnknownModel(
            f"no model file of this name in {self.models}", got=name, allowed=known, do="`steward init` writes one"
        )

    @staticmethod
    def model_at(path: Path) -> ModelFile:
        """What one of `model_paths` says; raises ModelFileError."""
        model = ModelFile.load(path)
        if model.name != path.stem:
            raise ModelFileError(f"{path}: name must be that of the file", got=model.name, allowed=path.stem)
        return model


def _positive(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name)
    if not text:
        return default
    if not text.isdigit() or int(text) < 1:
        raise SettingsError(f"{name} must be a whole number", got=text, allowed="1 and above")
    return int(text)
