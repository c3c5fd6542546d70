"""Frozen values that cross steps, all plain JSON.

A step takes references and returns one `Reference`; what stands behind it is one of the records below, kept in the
store under an address that is the digest of the step's inputs, configuration and code version.
"""

import hashlib
import json
from datetime import datetime
from statistics import NormalDist
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict


def canonical_json(value: Any) -> str:
    """JSON with one spelling per value: sorted keys, no blanks, no NaN.

    >>> canonical_json({"b": 1, "a": [1.5, None]})
    '{"a":[1.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(*parts: Any) -> str:
    """SHA-256 (hex, 64 characters) of plain JSON values."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


class Value(BaseModel):
    """A frozen value made of plain JSON; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, readable by `model_validate`."""
        return self.model_dump(mode="json")


class Record(Value):
    """A value that stands in the store on its own; `kind` names its folder."""

    kind: ClassVar[str]


class Reference(Value):
    """What a step returns: which kind of record, where it is, and its identity.

    `digest` is the address: the digest of the inputs, configuration and code version that made the record.
    """

    kind: str
    uri: str
    digest: str


class File(Value):
    """One immutable file in the store."""

    uri: str
    sha256: str
    bytes: int


def figure(value: float) -> str:
    """A metric's value as sentences and pages have it: the same digits everywhere, and no more than tell values apart.

    >>> figure(0.9), figure(23456.7), figure(0.0000123)
    ('0.9000', '23,457', '1.2e-05')
    """
    if abs(value) >= 1_000:  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.0001 else f"{value:.2g}"  # noqa: PLR2004


class Estimate(Value):
    """A value with its confidence interval."""

    value: float
    low: float
    high: float

    @property
    def shown(self) -> str:
        """As sentences have it.

        >>> Estimate(value=0.9, low=0.88, high=0.92).shown
        '0.9000 (0.8800 to 0.9200)'
        """
        return f"{figure(self.value)} ({figure(self.low)} to {figure(self.high)})"


class Expectation(Value):
    """One expectation of the contract and how it went."""

    name: str
    """The Great Expectations type, such as `expect_column_values_to_be_between`."""
    column: str | None
    success: bool
    unexpected: int = 0
    """Rows that break it."""
    allowed: str = ""
    observed: str = ""


class Snapshot(Record):
    """The accepted rows of one moment; `data` is Parquet."""

    kind: ClassVar[str] = "snapshot"
    model: str
    fingerprint: str
    at: datetime
    source: str
    rows: int
    """Rows in the source; always `accepted + rejected`."""
    accepted: int
    rejected: int
    immature: int
    """Of the rejected rows, those whose label is not final yet; they break no rule."""
    data: File
    rejected_rows: File | None
    """Parquet with one line per broken rule: key, rule, column, value, and the row as JSON."""
    rejections: dict[str, int]
    """Rejected rows by rule and column, such as `between:files_changed`."""
    expectations: tuple[Expectation, ...]
    unknown_columns: tuple[str, ...]
    notes: tuple[str, ...] = ()
    labels: dict[str, int]
    """Accepted rows per class; empty for a regression."""
    data_docs: str | None
    """Where Great Expectations' page of this validation is."""


class Roles(Record):
    """Which row is train, validation or test; `file` is Parquet, a line per snapshot row, in its order."""

    kind: ClassVar[str] = "roles"
    model: str
    snapshot: Reference
    fingerprint: str
    by: str
    split: dict[str, Any] = {}
    """`split` of the model file."""
    file: File
    rows: dict[str, int]
    """Rows per role: train, validation, test."""
    classes: dict[str, dict[str, int]]
    """Rows per role and class."""
    needed: int
    """Sealed rows that this model needs to decide anything."""
    detect: float
    """The difference that this many rows can find."""
    opening: int
    """The number that the next opening of this model gets."""
    notes: tuple[str, ...] = ()


class Trial(Value):
    """One setting that the search tried."""

    number: int
    params: dict[str, Any]
    loss: float | None
    """Log loss or root mean squared error on the rows that choose; None if it failed or was pruned."""
    seconds: float
    state: Literal["complete", "pruned", "failed"]
    stages: tuple[int, ...] = ()
    """Per fold that it reached, the rounds, epochs or trees that were trained; 1 where there are no such stages."""


class Candidate(Record):
    """The best setting of one candidate, and how it does on the rows that choose."""

    kind: ClassVar[str] = "candidate"
    name: str
    model: str
    roles: Reference
    params: dict[str, Any] = {}
    metric: str
    validation: Estimate | None = None
    loss: float | None = None
    predictions: File | None = None
    """Parquet, a line per row that chooses, in the roles' order: one column per class, or `prediction`."""
    chosen_on: Literal["validation", "cross_validation"] = "validation"
    trials: tuple[Trial, ...] = ()
    search_seconds: float = 0
    fit_seconds: float = 0
    latency_us: float = 0
    """Time of one prediction through the pipeline: the fastest of some calls."""
    bytes: int = 0
    """Size of the skops artifact."""
    interpretability: int = 0
    """1 reads like a table, 5 not at all."""
    error: str | None = None
    run_id: str | None = None


class TradeOff(Value):
    """A line of the table that a choice is made from."""

    name: str
    value: Estimate | None
    difference: Estimate | None
    """To the best candidate on the same rows; positive is better than the best."""
    within_noise: bool
    latency_us: float
    bytes: int
    fit_seconds: float
    interpretability: int
    error: str | None = None


class Selection(Record):
    """The winner and why."""

    kind: ClassVar[str] = "selection"
    model: str
    roles: Reference
    winner: str
    params: dict[str, Any]
    metric: str
    validation: Estimate
    reason: str
    table: tuple[TradeOff, ...]
    candidates: tuple[Reference, ...]


class Parity(Value):
    """Proof that two engines give the same answers."""

    passed: bool
    rows: int
    label_differences: int
    largest_difference: float
    reason: str


class Engine(Value):
    """An engine that was tried, and whether it may serve."""

    name: Literal["tables", "onnx", "estimator", "pipeline"]
    parity: Parity


class Challenger(Record):
    """The winner, trained on train and validation rows, as files."""

    kind: ClassVar[str] = "challenger"
    model: str
    digest: str
    """Identity of the trained artifact; an opening is claimed by it."""
    name: str
    params: dict[str, Any]
    selection: Reference
    roles: Reference
    snapshot: Reference
    fingerprint: str
    trained_rows: int
    trained_units: File
    """Parquet of the unit digests of every row that it was trained on; overlap is counted against it."""
    skops: File
    plan: File | None = None
    """Encoder and preparation as JSON, for engines that need no pandas; None for `pipeline`."""
    onnx: File | None
    """The estimator on prepared rows; None if no ONNX graph answers as it does."""
    tables: File | None = None
    """Boosted trees as tables of bits, on prepared rows; None for other estimators."""
    engine: Literal["tables", "onnx", "estimator", "pipeline"]
    """What serves: tables, ONNX Runtime, the estimator's own prediction on prepared rows, or the whole pipeline."""
    parity: Parity
    """The proof that this engine answers as the pipeline does."""
    engines: tuple[Engine, ...] = ()
    """Every engine that was tried, the fastest first; the first that passed serves."""
    half_width: float | None = None
    """Regression: the truth was within prediction ± this for `verify.confidence` of the rows that chose the winner."""
    seed: int
    threads: int
    fit_seconds: float
    latency_us: float
    classes: tuple[str, ...]
    known_classes: tuple[str, ...] = ()
    """The classes that training saw, in the order in which the estimator answers."""
    inputs: dict[str, str]
    """Contract columns and their types, in the order in which the pipeline takes them."""
    example: dict[str, Any]
    """One record that may be sent for prediction."""
    metric: str
    validation: Estimate
    model_file: dict[str, Any]
    commit: str | None
    code: str
    """Digest of Steward's own code."""
    packages: dict[str, str]
    machine: dict[str, str]
    run_id: str | None = None


class Gate(Value):
    """One thing a challenger has to prove."""

    name: str
    outcome: Literal["pass", "unsure", "fail"]
    detail: str
    """One sentence with the figures."""
    figures: dict[str, float | int | str | None] = {}


class Slice(Value):
    """The comparison on the rows with one value of one column."""

    column: str
    value: str
    rows: int
    challenger: Estimate | None
    champion: float | None
    difference: Estimate | None
    finding: str


class Skill(Value):
    """How much one model is better than another on the same rows; positive is better.

    Unless something else is said by squared errors, which tell two models apart on fewer rows than right and wrong do.
    Classification: squared distance of the probabilities from the truth (Brier); regression: the share of the other's root
    mean squared error that is saved.
    """

    value: float
    error: float
    """Standard error of `value`."""
    rows: float
    """Rows that count: where old ones count less it need not be whole."""

    def interval(self, confidence: float) -> Estimate:
        """
        >>> Skill(value=0.02, error=0.01, rows=100).interval(0.95).low > 0
        True
        """
        half = NormalDist().inv_cdf((1 + confidence) / 2) * self.error
        return Estimate(value=self.value, low=self.value - half, high=self.value + half)


class Test(Value):
    """The result of one opening."""

    __test__: ClassVar[bool] = False
    rows: int
    metric: str
    value: float
    low: float
    high: float
    constant: float
    """The same metric for the best constant prediction, which is learned on the training rows."""
    champion: dict[str, Any] | None
    """`version`, `value`, `low`, `high` of the champion on the same rows; None for a first version."""
    difference: Estimate
    """Challenger minus champion (minus constant for a first version), paired; positive is better."""
    skill: Skill | None = None
    """Against the champion; None for a first version."""
    asked: Skill | None = None
    """What looks at the champion found before this opening, when they asked whether newer rows would teach a better model
    (`DirectQuestion`); None where nobody asked."""
    discordance: float
    """Classification: share of rows on which exactly one of the two is right; the next run's planning uses it."""
    overlap: dict[str, int]
    """Sealed rows that champion or challenger was trained on; both must be 0."""
    other: dict[str, float] = {}
    """Further metrics of the challenger, by name."""
    confusion: tuple[tuple[int, ...], ...] = ()
    predictions: File | None = None


class Verdict(Record):
    """What the opening showed."""

    kind: ClassVar[str] = "verdict"
    model: str
    challenger: Reference
    digest: str
    verdict: Literal["promote", "hold", "reject"]
    reasons: tuple[str, ...]
    gates: tuple[Gate, ...]
    slices: tuple[Slice, ...]
    test: Test
    opening: int
    at: datetime


class Approval(Record):
    """What a person said to a promotion."""

    kind: ClassVar[str] = "approval"
    model: str
    verdict: Reference
    decision: Literal["approved", "refused", "timed_out"]
    by: str
    why: str
    at: datetime


class Promotion(Record):
    """What became of a verified challenger in the registry."""

    kind: ClassVar[str] = "promotion"
    model: str
    verdict: Reference
    version: int
    alias: Literal["champion", "challenger"] | None
    """What the version is now; None for a rejected one, which is registered as evidence only."""
    champion: int | None
    """The version that serves now."""
    previous: int | None
    reasons: tuple[str, ...]
    at: datetime


class Change(Value):
    """A share of a batch's rows beside that of the rows that the version learned from."""

    share: float
    training: float | None
    """None where it is not known."""


class Scored(Value):
    """What became of a batch."""

    model: str
    version: int
    """The version that answered every row."""
    at: datetime
    input: str
    output: str
    rejected_output: str | None
    """Where the rows are that were set aside; None if there are none."""
    rows: int
    """Rows in the input; always `scored + rejected`."""
    scored: int
    rejected: int
    rejections: dict[str, int]
    """Rejected rows by rule and column, such as `between:files_changed`."""
    predictions: dict[str, int]
    """Scored rows per class; empty for a regression."""
    actions: dict[str, int]
    """Scored rows per recommended action."""
    missing: dict[str, Change]
    """Per column that may be missing."""
    unseen: dict[str, Change]
    """Per category column: values that training did not know."""
    notes: tuple[str, ...]
    seconds: float


class Card(Record):
    """The HTML card of a run."""

    kind: ClassVar[str] = "card"
    model: str
    of: Reference
    file: File
    path: str
    """Where a person opens it."""
    run_id: str | None = None
    """The MLflow run that keeps a copy."""


class ReferenceProfile(Record):
    """What the rows that a version learned from look like; windows are held against it."""

    kind: ClassVar[str] = "reference_profile"
    model: str
    challenger: str
    """Digest of the version's artifact."""
    rows: int
    windows: int
    """1 where the rows have no time."""
    days: float | None
    """Length of a window; None where the rows have no time."""
    file: File
    """JSON: bins, windows, and the answers on the rows that chose the winner; `core.profiles.Baseline`."""
    accuracy: Estimate | None
    """Of a classification, on the rows that chose the winner."""
    calibration: dict[str, Any] | None
    """How often the winner was right at each height of its confidence, or how far off a regression's at each height of its
    prediction; `core.performance.Calibration` or `ErrorCalibration`."""


class Observation(Record):
    """One look: what came in since the last one."""

    kind: ClassVar[str] = "observation"
    model: str
    version: int
    """The champion."""
    start: datetime
    end: datetime
    """Rows from `start` (included) to `end` (not included)."""
    origin: Literal["predictions", "source", "nothing"]
    """Whether the rows are served predictions, or rows of the source whose time lies in the window."""
    rows: int
    reference: Reference
    """The version's `ReferenceProfile`."""
    bins: str
    """SHA-256 of its file: profiles over the same bins add up."""
    profile: File
    """JSON of a `core.profiles.Profile` over the bins of the reference."""
    unseen: dict[str, dict[str, int]] = {}
    """Per category the values that training did not know, and their rows; the most frequent ones."""
    source: dict[str, Any]
    """What was counted in the source: `core.quality.Facts`."""
    says: tuple[str, ...]
    triggers: tuple[dict[str, Any], ...] = ()


class QualityFinding(Value):
    """Something that is wrong with rows or table."""

    kind: Literal["source", "schema", "stale", "empty", "contract", "category", "range", "missing", "duplicates"]
    column: str | None
    says: str
    """One sentence with the figures."""
    rows: int = 0
    """Rows that it concerns."""
    share: float = 0.0
    suggestions: dict[str, str | None] = {}
    """Value → nearest known value; None: nobody can tell, ask."""


class Quality(Record):
    """What is wrong with the rows of a look and with the source."""

    kind: ClassVar[str] = "quality"
    model: str
    observation: Reference
    findings: tuple[QualityFinding, ...]
    says: tuple[str, ...]
    triggers: tuple[dict[str, Any], ...] = ()


class DriftFinding(Value):
    """What has changed in a column."""

    column: str
    question: Literal["location", "spread", "shape", "missing", "unseen"]
    since: datetime
    windows: int
    """Looks that show it best together."""
    p: float
    effect: float
    matters: bool
    """False for a change that is real and negligible."""
    alarm: bool
    touched: float
    """Share of rows, at most, that it can touch."""
    like: Literal["all", "weekday", "hour"] = "all"
    """Whether it was held against the reference's rows of the same weekdays or hours, or against all."""
    says: str


class Separation(Value):
    """How well a classifier tells the window's rows from those of the reference."""

    auc: Estimate
    rows: int
    columns: dict[str, float]
    """By how much the AUC falls without what a column says; those that matter."""


class Drift(Record):
    """How far the inputs and answers have moved from those that the version learned from."""

    kind: ClassVar[str] = "drift"
    model: str
    observation: Reference
    version: int
    level: float
    """p-value of one column below which it is an alarm."""
    windows: int
    """Looks at this version so far that had rows."""
    findings: tuple[DriftFinding, ...]
    since: dict[str, datetime]
    """Columns in alarm, and since when; an alarm lasts until seven looks in a row are calm."""
    separation: Separation | None
    expected_loss: Estimate | None
    """How much accuracy the change costs by the champion's own confidence, or which share of a regression's error by its
    predictions: an estimate, which cannot see concept drift."""
    says: tuple[str, ...]
    triggers: tuple[dict[str, Any], ...]


class NewFeature(Value):
    """A column of the source that the contract does not know."""

    column: str
    type: str
    since: datetime | None
    """When the first row has a value, or when a look first saw the column."""
    filled: float
    """Share of the rows since then that have a value."""
    rows: int
    """Labelled rows that it was tried on; 0 if it could not be tried."""
    filled_rows: int = 0
    """Rows of the source that had a value when it was tried: it is tried again when there are a quarter more."""
    metric: str
    gain: Estimate | None
    """What it adds to the metric on validation rows; positive is better."""
    says: str


class NewFeatures(Record):
    """Columns of the source that the contract does not know, and what they would add."""

    kind: ClassVar[str] = "new_features"
    model: str
    observation: Reference
    features: tuple[NewFeature, ...]
    says: tuple[str, ...]
    triggers: tuple[dict[str, Any], ...]


class DirectQuestion(Value):
    """Would the champion's own kind of model, trained on the newest labelled rows too, be better on those that come next?

    It is asked at look after look of one version, each time on rows that neither had learned from; the last answers count most.
    """

    asked_at: datetime
    """For the last time."""
    winner: str
    rows: int
    """That both answered, in all looks."""
    gain: Skill
    """The same as `skill`, in the model's metric."""
    skill: Skill
    """New against champion, paired."""
    fit_seconds: float = 0.0
    """Of the last time."""
    until: dict[str, float] = {}
    """How far rows were asked, seconds since 1970: of served predictions and of the source."""
    units: File | None = None
    """Of a source without time, the units that were asked."""


class Shadow(Value):
    """The version before this one, asked the same."""

    version: int
    rows: int
    difference: Estimate
    """Champion minus previous, paired; positive is better."""
    until: datetime
    rolled_back: bool = False


class Reliability(Value):
    """Answers of about the same confidence, and how many of them were right."""

    confidence: float
    """On average."""
    right: float
    """Share."""
    rows: int


class Accuracy(Record):
    """How right the champion is, as far as it is known at a look."""

    kind: ClassVar[str] = "accuracy"
    model: str
    observation: Reference
    version: int
    at: datetime
    metric: str
    """Of `live`, `verified` and `floor`."""
    start: datetime | None = None
    end: datetime | None = None
    """The window of `live`; None where rows have no time, or there are none."""
    rows: int = 0
    """Labelled rows of the window whose time has come."""
    served: int = 0
    """Of these, served predictions; the others are rows of the source that the champion has answered now."""
    waiting: int = 0
    """Served predictions that are too young to be read."""
    left_out: int = 0
    """Labelled rows that are sealed, or could become so: nobody looks at them before an opening."""
    live: Estimate | None = None
    floor: float | None = None
    verified: Estimate | None = None
    estimate: Estimate | None = None
    """What is to be expected of the look's rows by the champion's own confidence, before their labels are here."""
    estimate_metric: str = "accuracy"
    slices: tuple[Slice, ...] = ()
    """Figures of the champion stand under `challenger`."""
    moved: tuple[str, ...] = ()
    """Slices that are surely worse than they were when the version was verified."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Classification: rows of the window by true class and answered class."""
    calibration: tuple[Reliability, ...] = ()
    """Classification: rows of the window by confidence, rising."""
    verified_calibration: tuple[Reliability, ...] = ()
    """The same of the rows that the version was verified on."""
    ripe_after: float | None = None
    """Seconds after which most outcomes have come, as learned; None if it is not known."""
    watch: dict[str, Any]
    """`core.performance.Watch` after this look."""
    read: int = 0
    """Rows that `watch` has read in this look; it reads every row once."""
    read_until: dict[str, float] = {}
    """How far `watch` has read, seconds since 1970: of served predictions and of the source."""
    read_rows: File | None = None
    """Of a source without time, the units that `watch` has read."""
    fallen_since: datetime | None = None
    alarm_since: datetime | None = None
    question: DirectQuestion | None = None
    shadow: Shadow | None = None
    new_rows: int = 0
    """Labelled rows of the source that no training has seen."""
    sealed: int = 0
    """Of these, those that are sealed: what a verdict can be based upon."""
    triggers: tuple[dict[str, Any], ...] = ()
    says: tuple[str, ...] = ()


class Decision(Record):
    """Train now, or wait; and why."""

    kind: ClassVar[str] = "decision"
    model: str
    subject: str
    """End of the look, or the moment itself where there was none."""
    at: datetime
    train: bool
    reason: str
    trigger: dict[str, Any] | None = None
    """What the training is for."""
    cause: str | None = None
    """Identity of the training to start: of runs that name it only the first one trains."""
    detect: float | None = None
    """The loss that was measured, for `split`: it needs fewer sealed rows than `verify.detect` may."""
    refusals: tuple[dict[str, Any], ...] = ()
    ask_a_person: bool = False
    parts: dict[str, Reference] = {}
    """What it is based upon, by kind of record."""
    figures: dict[str, Any] = {}
    """What the look found, in small: `steps.figures`."""
    triggers: tuple[dict[str, Any], ...] = ()
    says: tuple[str, ...] = ()
