"""Frozen values that cross steps, all plain JSON.

A step takes references and returns one `Reference`; what stands behind it is one of the records below, kept in the
store under an address that is the digest of the step's inputs, configuration and code version.
"""

import hashlib
import json
from datetime import datetime
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


class Estimate(Value):
    """A value with its confidence interval."""

    value: float
    low: float
    high: float


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
    onnx: File | None
    engine: Literal["onnx", "skops"]
    parity: Parity
    seed: int
    threads: int
    fit_seconds: float
    latency_us: float
    classes: tuple[str, ...]
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
