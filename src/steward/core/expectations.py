"""Great Expectations' judgement of a table, over the counts of the contract's scan.

The contract's fields become a suite; its expectations ask an execution engine for their metrics, and that engine answers
from what was counted where the data is. The page is Great Expectations' own.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

from steward.core.contracts import EXAMPLES, Contract, Field, labels
from steward.errors import ContractRefused
from steward.records import Expectation

LARGEST = 1.7976931348623157e308
ONE_AT_A_TIME = Lock()


@dataclass(frozen=True)
class Finding:
    """What the scan found about one expectation."""

    expectation: Any
    rule: str
    column: str | None
    rows: int
    nulls: int = 0
    unexpected: int = 0
    values: tuple[str, ...] = ()
    observed: Any = None


@dataclass(frozen=True)
class Judgement:
    """Great Expectations' answer: `page` is its HTML, `failed` names what a refusal names."""

    expectations: tuple[Expectation, ...]
    page: str
    result: dict[str, Any]

    @property
    def failed(self) -> tuple[Expectation, ...]:
        return tuple(expectation for expectation in self.expectations if not expectation.success)


def judge(
    contract: Contract,
    columns: Sequence[str],
    found: Mapping[str, Any] | None = None,
    unexpected: Mapping[str, Sequence[str]] | None = None,
) -> Judgement:
    """Let Great Expectations judge a table from what the scan counted.

    Parameters
    ----------
    columns : the source's columns.
    found : the values of `totals` and `broken`; None if columns are missing, so that nothing could be counted.
    unexpected : the values of `examples`.
    """
    findings = list(_existence(contract, columns))
    if found is not None:
        findings += [
            *_value_findings(contract, found, unexpected or {}),
            *_table_findings(contract, found, unexpected or {}),
        ]
    with _configured_once():
        results = [_validate(finding) for finding in findings]
        return Judgement(
            tuple(_expectation(finding, result) for finding, result in zip(findings, results, strict=True)),
            *_page(contract, results),
        )


@contextmanager
def _configured_once() -> Iterator[None]:
    """Great Expectations makes an expectation's configuration anew whenever it looks at it: 5,000 times for one table,
    two thirds of the judging. Meanwhile it is made once.
    """
    from great_expectations.expectations.expectation import Expectation as Kind

    made: dict[int, tuple[Any, Any]] = {}

    def configuration(expectation: Any) -> Any:
        if id(expectation) not in made:
            made[id(expectation)] = expectation, plain.fget(expectation)
        return made[id(expectation)][1]

    with ONE_AT_A_TIME:
        plain = Kind.configuration
        Kind.configuration = property(configuration)
        try:
            yield
        finally:
            Kind.configuration = plain


def refusal(contract: Contract, judgement: Judgement, columns: Sequence[str], data_docs: str) -> ContractRefused:
    """The error for a table that breaks the contract, naming every failed expectation."""
    failed = judgement.failed
    missing = contract.missing(columns)
    told = [_told(expectation, columns) for expectation in failed]
    return ContractRefused(
        f"the table breaks the contract of {contract.model.name} ({len(failed)} of {len(judgement.expectations)} expectations)",
        got="; ".join(told),
        allowed=f"columns {', '.join(columns)}" if missing else None,
        do=f"Correct the source or the contract; {data_docs} shows every expectation",
        failed=[f"{expectation.name}:{expectation.column or 'table'}" for expectation in failed],
        missing=list(missing),
        data_docs=data_docs,
    )


def _told(expectation: Expectation, columns: Sequence[str]) -> str:
    where = expectation.column or "table"
    if expectation.name == "expect_column_to_exist":
        near = difflib.get_close_matches(where, columns, n=1, cutoff=0.5)
        return f"no column {where}" + (f" (nearest is {near[0]!r})" if near else "")
    return f"{where}: {expectation.name} ({expectation.allowed}), {expectation.observed}"


def _existence(contract: Contract, columns: Sequence[str]) -> Iterable[Finding]:
    import great_expectations.expectations as gxe

    for column in dict.fromkeys(field.column for field in contract.fields):
        yield Finding(gxe.ExpectColumnToExist(column=column), "exists", column, 0, observed=list(columns))


def _value_findings(
    contract: Contract, found: Mapping[str, Any], unexpected: Mapping[str, Sequence[str]]
) -> Iterable[Finding]:
    mostly = _mostly(contract)
    for i, field in enumerate(contract.fields):
        nulls = found.get(f"nulls:{i}", found.get(f"not_null:{i}", 0))
        for rule in field.rules:
            number, values = found[f"{rule}:{i}"], tuple(unexpected.get(f"{rule}:{i}") or ())
            yield Finding(
                value_expectation(field, rule, mostly), rule, field.column, found["batch"], nulls, number, values
            )
            nulls += number if rule in ("type", "finite") else 0  # what cannot be read has no value to look at


def _mostly(contract: Contract) -> float:
    return round(1 - contract.model.rows.max_rejected, 12)


def value_expectation(field: Field, rule: str, mostly: float) -> Any:
    """The Great Expectations object of one rule of one field."""
    import great_expectations.expectations as gxe

    at = {"column": field.column, "mostly": mostly}
    match rule:
        case "not_null":
            return gxe.ExpectColumnValuesToNotBeNull(**at)
        case "type":
            return gxe.ExpectColumnValuesToBeOfType(type_=PYTHON_TYPES[field.type], **at)
        case "finite":
            return gxe.ExpectColumnValuesToBeBetween(min_value=-LARGEST, max_value=LARGEST, **at)
        case "between":
            return gxe.ExpectColumnValuesToBeBetween(min_value=field.min, max_value=field.max, **at)
    return gxe.ExpectColumnValuesToBeInSet(value_set=list(field.values), **at)


PYTHON_TYPES = {"integer": "int", "number": "float", "boolean": "bool", "time": "datetime"}


def _table_findings(
    contract: Contract, found: Mapping[str, Any], unexpected: Mapping[str, Sequence[str]]
) -> Iterable[Finding]:
    import great_expectations.expectations as gxe

    keys, rows = contract.model.source.keys, contract.model.rows
    mostly = _mostly(contract)
    unique = (
        gxe.ExpectColumnValuesToBeUnique(column=keys[0], mostly=mostly)
        if len(keys) == 1
        else gxe.ExpectCompoundColumnsToBeUnique(column_list=list(keys), mostly=mostly)
    )
    nulls = found["batch"] - found["keyed"]
    values = tuple(unexpected.get("unique") or ())
    yield Finding(unique, "unique", ", ".join(keys), found["batch"], nulls, found["unique"], values)
    yield Finding(
        gxe.ExpectColumnValuesToBeInSet(column="accepted", value_set=[True], mostly=mostly),
        "max_rejected",
        None,
        found["batch"],
        0,
        found["batch"] - found["accepted"],
    )
    yield Finding(gxe.ExpectTableRowCountToBeBetween(min_value=rows.min), "min", None, found["accepted"])
    label = contract.model.label.column
    different = (
        found["labels"] if "labels" in found else sum(1 for number in labels(contract, found).values() if number)
    )
    yield Finding(
        gxe.ExpectColumnUniqueValueCountToBeBetween(column=label, min_value=2), "varies", label, 0, observed=different
    )


def _validate(finding: Finding) -> Any:
    """Great Expectations' own verdict on one expectation; it asks, the scan's counts answer."""
    engine = _scan_engine()()
    engine.finding = finding
    asked = {"result_format": {"result_format": "SUMMARY", "partial_unexpected_count": EXAMPLES}}
    needed = finding.expectation.get_validation_dependencies(execution_engine=engine, runtime_configuration=dict(asked))
    metrics = engine.resolve_metrics(needed.get_metric_configurations())
    result = finding.expectation.metrics_validate(metrics, runtime_configuration=dict(asked), execution_engine=engine)
    result.exception_info = {"raised_exception": False, "exception_message": None, "exception_traceback": None}
    return result


@cache
def _scan_engine() -> Any:
    from great_expectations.execution_engine import PandasExecutionEngine

    class ScanEngine(PandasExecutionEngine):  # type: ignore[misc]
        """Answers metrics from counts that were made where the data is."""

        finding: Finding

        def resolve_metrics(self, metrics_to_resolve: Iterable[Any], *_: Any, **__: Any) -> dict[Any, Any]:
            return {metric.id: _answer(metric.metric_name, self.finding) for metric in metrics_to_resolve}

    return ScanEngine


def _answer(metric: str, finding: Finding) -> Any:
    import numpy as np

    match metric.rpartition(".")[2]:
        case "row_count":
            return finding.rows
        case "columns" | "count":
            return finding.observed
        case "column_types":
            return [{"name": finding.column, "type": np.dtype("O")}]
        case "unexpected_values":
            return list(finding.values)
        case "unexpected_count":
            of_nulls = metric.startswith("column_values.nonnull")
            return finding.nulls if of_nulls and finding.rule != "not_null" else finding.unexpected
        case "filtered_row_count":
            return finding.rows - finding.nulls
    return [] if metric.endswith("index_list") else None


def _expectation(finding: Finding, result: Any) -> Expectation:
    settings = finding.expectation.configuration.kwargs
    shown = {
        name: value
        for name, value in settings.items()
        if name not in ("column", "column_list", "batch_id") and value is not None
    }
    return Expectation(
        name=result.expectation_config.type,
        column=finding.column,
        success=bool(result.success),
        unexpected=finding.unexpected,
        allowed=_allowed(shown, finding),
        observed=_observed(result.result, finding),
    )


def _allowed(settings: Mapping[str, Any], finding: Finding) -> str:
    if finding.rule == "max_rejected":
        return f"at most {1 - settings.get('mostly', 1):.4g} of the rows rejected"
    text = ", ".join(f"{name} {value}" for name, value in settings.items() if name != "mostly" or value < 1)
    return text if len(text) <= ALLOWED_LENGTH else f"{text[:ALLOWED_LENGTH]}…"


ALLOWED_LENGTH = 300


def _observed(result: Mapping[str, Any], finding: Finding) -> str:
    if finding.rule == "exists":
        return "there" if finding.column in finding.observed else "not there"
    if "observed_value" in result:
        return str(result["observed_value"])
    shown = ", ".join(dict.fromkeys(map(repr, finding.values[:3])))
    return f"{finding.unexpected} of {finding.rows} rows" + (f", such as {shown}" if shown else "")


def _page(contract: Contract, results: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """Great Expectations' Data Docs page of this validation, and the validation result as JSON."""
    from great_expectations.core import ExpectationSuiteValidationResult, RunIdentifier
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    passed = sum(bool(result.success) for result in results)
    name = contract.model.name
    validation = ExpectationSuiteValidationResult(
        success=passed == len(results),
        results=list(results),
        suite_name=name,
        statistics={
            "evaluated_expectations": len(results),
            "successful_expectations": passed,
            "unsuccessful_expectations": len(results) - passed,
            "success_percent": 100 * passed / len(results),
        },
        meta={
            "great_expectations_version": _version(),
            "expectation_suite_name": name,
            "run_id": RunIdentifier(run_name=name, run_time=contract.at),
            "active_batch_definition": {},
            "batch_spec": {},
        },
    )
    document = ValidationResultsPageRenderer(run_info_at_end=True).render(validation)
    return _offline(DefaultJinjaPageView().render(document)), validation.to_json_dict()


def _offline(page: str) -> str:
    """The same page without what it would fetch from elsewhere, in a plain style of its own."""
    alone = re.sub(r"<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*https?:[^>]*>", "", page, flags=re.DOTALL)
    alone = re.sub(r"url\('https?:[^']*'\)", "none", alone)
    return alone.replace("</head>", f"<style>{STYLE}</style></head>", 1)


STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1100px; padding: 1.5rem; }
ul, ol { padding-left: 1.2rem; }
table { border-collapse: collapse; margin: .5rem 0; width: 100%; }
th, td { border-bottom: 1px solid #8884; padding: .35rem .6rem; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; }
.badge { background: #8883; border-radius: .6rem; font-size: .85em; padding: .05rem .5rem; }
.alert { background: #8882; border-radius: .4rem; padding: .6rem 1rem; }
.text-success { color: #1a7f37; }
.text-danger { color: #cf222e; }
.text-warning { color: #9a6700; }
.text-success::before { content: "\\2713"; }
.text-danger::before { content: "\\2717"; }
h4, h5, h6 { font-size: 1.05rem; margin: 0; }
tr > :first-child { min-width: 4rem; }
a[href^="../"] { color: inherit; pointer-events: none; text-decoration: none; }
.sticky-top, .sticky > .mb-3, .modal, .collapse:not(.show), .close, .cooltip span, footer { display: none; }
"""


def _version() -> str:
    import great_expectations

    return str(great_expectations.__version__)
