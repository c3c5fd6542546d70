import base64
import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from steward.config import ModelFile
from steward.records import (
    Approval,
    Candidate,
    Challenger,
    Engine,
    Estimate,
    Expectation,
    File,
    Gate,
    Parity,
    Promotion,
    Reference,
    Roles,
    Selection,
    Slice,
    Snapshot,
    Test,
    TradeOff,
    Trial,
    Verdict,
)
from steward.reports import drawing, plots
from steward.reports.card import Run, render

AT = datetime(2026, 3, 1, 6, tzinfo=UTC)
VALUE = Estimate(value=0.9, low=0.88, high=0.92)
FILE = File(uri="/store/files/aa/aa.parquet", sha256="a" * 64, bytes=1_500_000)
CLASSIFIER = """
name: deployment_risk
description: Risk of a deployment.
task: classification
source: {table: x.parquet, key: id}
label: {column: level, classes: [Low, Medium, High]}
columns: {files: {type: integer}, team: {type: category, open: true}}
features: {many: {expression: "files > 9", why: "more to break"}}
"""
REGRESSOR = """
name: price
task: regression
source: {table: x.parquet, key: id}
label: {column: price}
columns: {area: {type: number}}
"""
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>\n{{ 7 * 7 }} $\\frac{1}$ __x__ \u202e 🦊'


def reference(kind: str) -> Reference:
    return Reference(kind=kind, uri=f"/store/records/{kind}.json", digest=(kind[0] * 64))


def candidate(name: str, error: str | None = None) -> Candidate:
    trials = tuple(
        Trial(number=n, params={}, loss=None if n == 1 else 1 / (n + 1), seconds=1, state="complete") for n in range(6)
    )
    return Candidate(
        name=name, model="m", roles=reference("roles"), params={"depth": 3, "rate": 0.123456}, metric="accuracy",
        validation=VALUE, trials=() if error else trials, error=error,
    )  # fmt: skip


def trade_off(name: str, error: str | None = None) -> TradeOff:
    value = None if error else VALUE
    return TradeOff(
        name=name, value=value, difference=value, within_noise=not error, latency_us=40, bytes=2_000_000,
        fit_seconds=1.5, interpretability=2, error=error,
    )  # fmt: skip


def run(text: str = "plain", *, regression: bool = False, verdict: str = "promote") -> Run:
    """A run whose every free text is `text`."""
    model = ModelFile.parse(REGRESSOR if regression else CLASSIFIER)
    metric = model.metric
    random = np.random.default_rng(0)
    truth = random.normal(size=60) if regression else random.choice(np.array(model.classes, dtype=object), 60)
    answers = truth + 0.1 if regression else random.dirichlet(np.ones(3), 60)
    test = Test(
        rows=1_485, metric=metric, value=0.91, low=0.89, high=0.93, constant=0.54, difference=VALUE, discordance=0.1,
        champion={"version": 3, **VALUE.as_json()}, overlap={"champion": 0, "challenger": 0}, other={"log_loss": 0.3},
        confusion=() if regression else ((9, 1, 0), (1, 9, 1), (0, 1, 9)), predictions=FILE,
    )  # fmt: skip
    return Run(
        model=model,
        snapshot=Snapshot(
            model=model.name, fingerprint="f" * 64, at=AT, source=text, rows=10_000, accepted=9_900, rejected=100,
            immature=10, data=FILE, rejected_rows=FILE, rejections={text: 90}, unknown_columns=(text,), notes=(text,),
            expectations=(Expectation(name="expect_x", column=text, success=False, unexpected=3, allowed=text),),
            labels={} if regression else {"Low": 5_000}, data_docs="/store/pages/contract.html",
        ),
        roles=Roles(
            model=model.name, snapshot=reference("snapshot"), fingerprint="f" * 64, by="key", file=FILE,
            rows={"train": 7_000, "validation": 1_450, "test": 1_450}, needed=800, detect=0.05, opening=2,
            classes={} if regression else {"train": {"Low": 4_000}},
        ),
        candidates=(candidate("decision_tree"), candidate("random_forest"), candidate(text, error=text)),
        selection=Selection(
            model=model.name, roles=reference("roles"), winner="decision_tree", params={}, metric=metric,
            validation=VALUE, reason=text, candidates=(reference("candidate"),),
            table=(trade_off("decision_tree"), trade_off("random_forest"), trade_off(text, error=text)),
        ),
        challenger=Challenger(
            model=model.name, digest="d" * 64, name="decision_tree", params={"how": text},
            selection=reference("selection"), roles=reference("roles"), snapshot=reference("snapshot"),
            fingerprint="f" * 64, trained_rows=8_450, trained_units=FILE, skops=FILE, onnx=None, engine="pipeline",
            parity=Parity(passed=True, rows=9, label_differences=0, largest_difference=0, reason=text), seed=7,
            engines=(
                Engine(name="onnx", parity=Parity(passed=False, rows=9, label_differences=1, largest_difference=1, reason=text)),
            ),
            half_width=2.5 if regression else None,
            threads=1, fit_seconds=1, latency_us=40, classes=model.classes, inputs={}, example={}, metric=metric,
            validation=VALUE, model_file={}, commit=text, code="c" * 64, packages={"numpy": text},
            machine={"processor": text}, run_id=None,
        ),
        verdict=Verdict(
            model=model.name, challenger=reference("challenger"), digest="d" * 64, verdict=verdict, reasons=(text,),
            gates=(Gate(name="floor:accuracy", outcome="unsure", detail=text),), test=test, opening=2, at=AT,
            slices=(
                Slice(column="team", value=text, rows=9, challenger=None, champion=None, difference=None, finding=text),
            ),
        ),
        lineage={"roles": reference("roles"), "verdict": reference("verdict")},
        approval=Approval(
            model=model.name, verdict=reference("verdict"), decision="approved", by=text, why=text, at=AT
        ),
        promotion=Promotion(
            model=model.name, verdict=reference("verdict"), version=4, alias="champion", champion=4, previous=3,
            reasons=(text,), at=AT,
        ),
        truth=truth,
        predictions=answers,
    )  # fmt: skip


class Page(HTMLParser):
    """What a browser would see: elements with attributes, and the text in them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open.pop() != tag:
            continue

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize("verdict", ["promote", "hold", "reject"])
def test_stands_alone(regression: bool, verdict: str) -> None:
    html = render(run(regression=regression, verdict=verdict))
    page = Page(html)
    assert not page.named("script")
    assert not page.named("link")
    for _, attributes in page.elements:
        loaded = [value for name, value in attributes.items() if name in ("src", "xlink:href") and value]
        assert all(value.startswith(("#", "data:")) for value in loaded)
    policy = next(a["content"] for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    [style] = re.findall("<style>(.*?)</style>", html, flags=re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{allowed}';" in policy, "the one style sheet, and nothing that a text could bring along"
    assert not [attributes for _, attributes in page.elements if "style" in attributes]


@pytest.mark.parametrize("without", [["promotion", "approval"], ["truth", "predictions"], []])
def test_says_what_happened(without: list[str]) -> None:
    told = replace(run(), **dict.fromkeys(without))
    text = " ".join(Page(render(told)).text.split())
    for fact in ("0.9100", "+0.9000", "decision tree", "1,485 sealed rows", "f" * 64, "steward reproduce"):
        assert fact in text
    assert ("Version 4 is the champion; version 3 was before" in text) is ("promotion" not in without)


def test_hostile_text_stays_text() -> None:
    page = Page(render(run(HOSTILE)))
    assert not page.named("script")
    assert not page.named("img")
    assert not [attributes for _, attributes in page.elements if any(name.startswith("on") for name in attributes)]
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "\u202e" not in page.text


@pytest.mark.parametrize("link", ["javascript:alert(1)", "data:text/html,x", "vbscript:x", " javascript:alert(1)"])
def test_hostile_link_is_no_link(link: str) -> None:
    base = run()
    page = Page(render(replace(base, snapshot=base.snapshot.model_copy(update={"data_docs": link}))))
    assert not [a for a in page.named("a") if not (a["href"] or "").startswith("#")]


def test_plots_have_text_alternatives_and_their_own_names() -> None:
    page = Page(render(run()))
    described = [attributes["aria-label"] for attributes in page.named("svg") if "aria-hidden" not in attributes]
    assert len(described) == 5
    assert "decision tree: 0.9000 (0.8800 to 0.9200)" in str(described)
    names = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(names) == len(set(names))


def test_same_run_same_page() -> None:
    assert render(run()) == render(run())


def test_follows_the_readers_colours() -> None:
    page = render(run())
    assert "color-scheme: light dark" in page
    drawn = page[page.index("<main>") :]
    assert set(re.findall(r"(?:fill|stroke)=\"(#\w+)", drawn)) <= {"#000000"}
    assert "var(--plot-0)" in drawn


def test_candidate_plots_are_png() -> None:
    told = run()
    drawn = plots.of_candidate(told.candidates[0], told.truth, told.predictions, told.model.classes)
    assert sorted(drawn) == ["calibration.png", "confusion_matrix.png", "search.png"]
    assert all(content.startswith(b"\x89PNG") for content in drawn.values())
    regression: Any = run(regression=True)
    drawn = plots.of_candidate(regression.candidates[2], regression.truth, regression.predictions, ())
    assert list(drawn) == ["predicted_against_true.png"]


@pytest.mark.parametrize("classes", [["$a$", "_b", "<c>"], [f"class {n}" for n in range(40)]])
def test_odd_class_names_can_be_drawn(classes: list[str]) -> None:
    counts = np.eye(len(classes), dtype=int).tolist()
    drawn = drawing.svg(plots.confusion(counts, classes), "x", "a & b")
    assert 'aria-label="a &amp; b"' in drawn
    assert "<c>" not in drawn


def test_confusion_counts_rows_by_truth() -> None:
    answers = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert plots.count_confusion(np.array(["a", "b", "b"], dtype=object), answers, ["a", "b"]) == [[1, 0], [1, 1]]
