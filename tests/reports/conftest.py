"""Views as the pages get them, of any length and with any text, and a reader of HTML that sees what a browser would."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from steward.io.latencies import Latency
from steward.records import Estimate, Gate, Parity, QualityFinding, Reliability, Slice, TradeOff
from steward.views.drift import Cell, Distribution, DriftMap, Look, Share
from steward.views.governor import Asked, Governor
from steward.views.model import Confusion, Day, Judged, ModelPage, SliceRow, Traffic, VersionLine
from steward.views.overview import Point, Row, Sealed
from steward.views.states import Standing
from steward.views.timeline import Event, Timeline, Window
from steward.views.version import Compared, Comparison, Production, Reign, Step, VersionPage

BEGIN = datetime(2026, 1, 8, tzinfo=UTC)
HOSTILE = (
    '"><script>alert(1)</script><img src=x onerror=alert(2)>\n{{ 7 * 7 }} {% raw %} $\\frac{1}$ __x__ \u202eevil\u202c '
    + "x" * 300
)
VOID = frozenset({"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source"})


def estimate(value: float, width: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - width, high=value + width)


def past(looks: int, text: str = "plain", per_version: int = 120) -> Timeline:
    """A look per day. Each version falls after a while, raises alarms, and is followed by the next one."""
    random = np.random.default_rng(0)
    events = [Event(BEGIN, "champion", text, "pipeline", 1, "promote", 3)]
    windows = []
    for number in range(looks):
        version, age = 1 + number // per_version, number % per_version
        start = BEGIN + timedelta(days=number)
        if age == 0 and number:
            events += [
                Event(start - timedelta(hours=9), "trigger", text, "monitor", None, None, number),
                Event(start - timedelta(hours=8), "training", text, "monitor", None, None, number),
                Event(start - timedelta(hours=2), "verdict", text, "pipeline", version, "promote", number),
                Event(start, "champion", text, "pipeline", version, "promote", number),
            ]
        if age == per_version // 2:
            events.append(Event(start, "verdict", text, "pipeline", version + 50, "hold", number))
        late = max(0.0, age / per_version - 0.6)
        live = estimate(0.91 - 0.35 * late + random.normal(0, 0.006)) if age > 6 or looks < 20 else None
        alarms = ("team", "files_changed") if late > 0.05 else ()
        windows.append(
            Window(
                start=start, end=start + timedelta(days=1), version=version, rows=80, served=80, live=live, labelled=480,
                metric="accuracy", floor=0.85, verified=estimate(0.908, 0.015), estimate=estimate(0.9 - 0.1 * late, 0.01),
                estimate_metric="accuracy", expected_loss=None, alarms=alarms, falling=late > 0.2, quality=0, train=False, says=text,
                sequence=number,
            )
        )  # fmt: skip
    return Timeline(
        metric="accuracy", larger_is_better=True, windows=tuple(windows), events=tuple(events), looks=looks, every=1,
        since=BEGIN if windows else None, until=windows[-1].end if windows else None, says=text,
    )  # fmt: skip


def drift_map(looks: int, columns: int = 7, text: str = "plain") -> DriftMap:
    names = ("team", "files_changed", "hour", "environment", "previous_failures", "prediction", "confidence")
    names = (text, *names[1:]) if text != "plain" else names
    names = tuple(names[: min(columns, 7)]) + tuple(f"column_{number}" for number in range(7, columns))
    days = tuple(
        Look(BEGIN + timedelta(days=n), BEGIN + timedelta(days=n + 1), 1, 0 if n == 2 else 80, 1e-4)
        for n in range(looks)
    )
    return DriftMap(
        names, days, tuple(tuple(_cell(row, n, looks) for n in range(looks)) for row in range(columns)), 0, (text,)
    )


def _cell(row: int, look: int, looks: int) -> Cell:
    late = look > 0.6 * looks
    if row == 0 and late:
        return Cell(1.1, "unseen", 7e-18, alarm=True, touched=0.27, lasting=True)
    if row == 1 and late:
        return Cell(0.1 * (look % 9), "location", 1e-7, alarm=look % 3 > 0, touched=0.4, lasting=True)
    if row == 2 and look % 7 == 3:
        return Cell(0.04, "spread", 1e-6, matters=False, touched=0.01)
    return Cell()


def row(text: str = "plain", **changes: Any) -> Row:
    told: dict[str, Any] = {
        "name": "deployment_risk", "description": text, "task": "classification",
        "standing": Standing("falling", text, (text,)), "champion": 3, "champion_since": BEGIN, "challenger": None,
        "metric": "accuracy", "larger_is_better": True, "live": estimate(0.82), "live_why": text, "floor": 0.85,
        "sparkline": (Point(BEGIN, estimate(0.9)),), "per_day": 80.0, "per_day_why": text, "sealed": Sealed(None, text),
        "next_look": BEGIN, "next_training": BEGIN, "last_decision": text, "last_decided_at": BEGIN, "looked_at": BEGIN,
    }  # fmt: skip
    return Row(**{**told, **changes})


def governor(text: str = "plain", **changes: Any) -> Governor:
    asked = (
        Asked("data_drift", text, BEGIN, 0.02, "expected loss", text, None),
        Asked("accuracy", text, BEGIN, 0.07, "sealed rows", text, BEGIN + timedelta(days=9)),
    )
    told: dict[str, Any] = {
        "says": text, "decided_at": BEGIN, "train": False, "asked": asked, "cooldown": timedelta(hours=24),
        "cooldown_until": None, "used": 1, "allowed": 3, "breaker": False, "sealed": 310, "needed": 420, "missing": 734,
        "new_rows": 640, "new_rows_wanted": 1000, "running_since": None, "last_training": BEGIN,
        "last_training_says": text, "schedule": "0 6 * * 1", "next_scheduled": BEGIN, "next_look": BEGIN,
    }  # fmt: skip
    return Governor(**{**told, **changes})


CURVE = tuple(Reliability(confidence=0.45 + 0.1 * n, right=0.4 + 0.1 * n, rows=20 * 3**n) for n in range(6))


def judged(text: str, name: str = "Low") -> Judged:
    return Judged(text, Confusion((name, "Medium", "High"), ((600, 30, 2), (40, 300, 21), (0, 18, 90))), CURVE)


def model_page(looks: int = 54, text: str = "plain", **changes: Any) -> ModelPage:
    """A model's page whose every free text is `text`."""
    told: dict[str, Any] = {
        "at": BEGIN + timedelta(days=looks, hours=1), "confidence": 0.95, "row": row(text), "timeline": past(looks, text),
        "drift": drift_map(min(looks, 60), text=text),
        "quality": (
            QualityFinding(kind="category", column=text, says=text, rows=12, share=0.004, suggestions={text: text, "x": None}),
        ),
        "quality_says": text, "now": judged(text, text if text != "plain" else "Low"), "verified": judged(text),
        "slices": (
            SliceRow("team", text, 120, estimate(0.8, 0.05), estimate(0.9), moved=True),
            SliceRow("environment", "prod", 90, estimate(0.89, 0.05), None, moved=False),
        ),
        "traffic": Traffic(
            tuple(
                Day(BEGIN + timedelta(days=n), BEGIN + timedelta(days=n + 1), 80 + n % 7 * 10, 80.0 + n % 7 * 10)
                for n in range(looks)
            ),
            {text: 80}, capped=False, newest=BEGIN, hours={BEGIN + timedelta(days=looks): Latency((8, 0, 2, *[0] * 14), 0.0031)},
            latency_us=83.0, latency_allowed_ms=20, says=text,
        ),
        "governor": governor(text),
        "versions": (
            VersionLine(3, BEGIN, "promote", text, "champion", BEGIN),
            VersionLine(2, BEGIN, "hold", text, "challenger", None),
            VersionLine(1, BEGIN, "promote", text, "previous", BEGIN),
        ),
        "problems": (text,),
    }  # fmt: skip
    return ModelPage(**{**told, **changes})


def empty_model_page(**changes: Any) -> ModelPage:
    """A model that was never trained."""
    told: dict[str, Any] = {
        "row": row(
            standing=Standing("never trained", "It was never trained."), champion=None, champion_since=None, live=None,
            live_why="nobody has looked at it yet", per_day=None, per_day_why="nothing serves", looked_at=None,
        ),
        "drift": DriftMap((), (), (), 0, ()), "quality": (), "quality_says": "Nobody has looked yet.",
        "timeline": Timeline("accuracy", True, (), (), 0, 1, None, None, "Nobody has looked yet."),
        "now": Judged("No outcome is known.", None, ()), "verified": Judged("Nothing was verified.", None, ()),
        "slices": (), "versions": (), "problems": (),
        "traffic": Traffic((), {}, False, None, {}, None, None, "Nothing was served."),
        "governor": governor(
            says=None, decided_at=None, asked=(), sealed=None, needed=None, missing=None, new_rows=None,
            last_training=None, last_training_says=None, schedule=None, next_scheduled=None, next_look=None,
        ),
    }  # fmt: skip
    return model_page(0, **{**told, **changes})


def distribution(text: str = "plain", **changes: Any) -> Distribution:
    names = (text if text != "plain" else "checkout", "search", "payments")
    told: dict[str, Any] = {
        "model": "deployment_risk", "column": "team", "kind": "category", "start": BEGIN,
        "end": BEGIN + timedelta(days=1), "version": 1, "reference_rows": 8450, "window_rows": 80,
        "shares": tuple(Share(name, None, None, 0.5 / (n + 1), 0.3) for n, name in enumerate(names)),
        "missing": (0.0, 0.01), "unseen": (0.0, 0.25), "values": {text: 12},
        "cell": Cell(1.1, "unseen", 7e-18, alarm=True, touched=0.27), "findings": (text,), "says": text,
    }  # fmt: skip
    return Distribution(**{**told, **changes})


def version_page(number: int = 3, text: str = "plain", **changes: Any) -> VersionPage:
    windows = past(30, text).windows
    told: dict[str, Any] = {
        "model": "deployment_risk", "number": number, "alias": "champion", "registered_at": BEGIN, "verdict": "promote",
        "reasons": (text,), "challenger": "c" * 64, "candidate": text if text != "plain" else "gradient_boosting",
        "params": {"depth": 3, "how": text}, "selection_reason": text,
        "table": (
            TradeOff(
                name="gradient_boosting", value=estimate(0.9), difference=estimate(0.0), within_noise=True, latency_us=40,
                bytes=2_000_000, fit_seconds=1.5, interpretability=4,
            ),
            TradeOff(
                name=text, value=None, difference=None, within_noise=False, latency_us=0, bytes=0, fit_seconds=0,
                interpretability=0, error=text,
            ),
        ),
        "metric": "accuracy", "validation": estimate(0.9), "test": estimate(0.91), "test_rows": 1_485, "opening": 2,
        "constant": 0.54, "champion_then": 1, "champion_value": 0.8, "difference": estimate(0.11),
        "gates": (Gate(name=text, outcome="unsure", detail=text),),
        "slices": (
            Slice(column="team", value=text, rows=9, challenger=None, champion=None, difference=None, finding=text),
        ),
        "confusion": ((600, 30, 2), (40, 300, 21), (0, 18, 90)), "calibration": CURVE,
        "classes": (text if text != "plain" else "Low", "Medium", "High"), "confidence": 0.95, "fingerprint": "f" * 64,
        "accepted": 9_900, "rejected": 100, "roles": {"train": 7_000, "validation": 1_450, "test": 1_450},
        "trained_rows": 8_450, "labels": {text: 5_000}, "engine": "tables",
        "parity": Parity(passed=True, rows=9, label_differences=0, largest_difference=0, reason=text),
        "latency_us": 40.0, "bytes": 2_000_000, "packages": {"numpy": text}, "commit": text, "run_id": "r" * 32,
        "lineage": (
            Step("snapshot", text, BEGIN, "f" * 64, None, 1), Step("roles", text, None, "a" * 64, "/store/roles", None),
            Step("verdict", text, BEGIN, "b" * 64, None, 4), Step("promotion", text, BEGIN, None, None, 5),
        ),
        "production": Production(
            (Reign(BEGIN, None, text, text),), windows, 1, 30, 2_400,
            (Event(BEGIN + timedelta(days=25), "alarm", text, "monitor", number, None, 9),),
            estimate(0.92), estimate(0.8), estimate(0.82), text,
        ),
        "card": "/store/pages/card.html", "rebuild": f"steward reproduce deployment_risk {number}", "others": (2, 1),
        "problems": (text,),
    }  # fmt: skip
    return VersionPage(**{**told, **changes})


def comparison(text: str = "plain") -> Comparison:
    lines = (
        Compared("data", "rows accepted", "9,900", "11,800", same=False),
        Compared("training", "winner", text, text, same=True),
        Compared("verification", "accuracy", "0.9080", "0.9120", same=False, better="right"),
    )
    return Comparison("deployment_risk", version_page(1, text), version_page(3, text), lines, text)


class Link:
    """Addresses as the pages make them, near enough."""

    def __call__(self, kind: str, **names: Any) -> str:
        asked = {name: value for name, value in names.items() if value is not None}
        return f"/steward/{kind}?{urlencode(asked)}"

    def asset(self, name: str) -> str:
        return f"/static/{name}"


@dataclass
class Element:
    """An element of a page, with the text in it."""

    tag: str
    attributes: dict[str, str | None]
    parent: "Element | None" = None
    children: "list[Element]" = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join("".join(self.parts).split())

    def all(self, tag: str, **attributes: str) -> "list[Element]":
        """Every element below with this tag, and these words in its attributes; `class_` stands for `class`."""
        found = []
        for child in self.children:
            wanted = attributes.items()
            if child.tag == tag and all(
                word in (child.attributes.get(name.rstrip("_")) or "").split() for name, word in wanted
            ):
                found.append(child)
            found += child.all(tag, **attributes)
        return found

    def one(self, tag: str, **attributes: str) -> "Element":
        (found,) = self.all(tag, **attributes)
        return found

    def by_id(self, name: str) -> "Element":
        (found,) = [element for element in self.everything() if element.attributes.get("id") == name]
        return found

    def everything(self) -> "list[Element]":
        return [below for child in self.children for below in (child, *child.everything())]


class Reader(HTMLParser):
    """HTML as a tree; refuses what does not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = self.here = Element("", {})
        self.feed(html)
        self.close()
        assert self.here is self.root, f"<{self.here.tag}> is never closed"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        made = Element(tag, dict(attributes), self.here)
        self.here.children.append(made)
        if tag not in VOID:
            self.here = made

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.here.children.append(Element(tag, dict(attributes), self.here))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.here.tag, f"</{tag}> within <{self.here.tag}>"
        assert self.here.parent is not None
        self.here = self.here.parent

    def handle_data(self, data: str) -> None:
        above: Element | None = self.here
        while above is not None:
            above.parts.append(data)
            above = above.parent


@dataclass(frozen=True)
class Views:
    """What the tests take."""

    model_page: Callable[..., ModelPage] = model_page
    empty_model_page: Callable[..., ModelPage] = empty_model_page
    version_page: Callable[..., VersionPage] = version_page
    comparison: Callable[..., Comparison] = comparison
    distribution: Callable[..., Distribution] = distribution
    past: Callable[..., Timeline] = past
    drift_map: Callable[..., DriftMap] = drift_map
    governor: Callable[..., Governor] = governor
    row: Callable[..., Row] = row
    hostile: str = HOSTILE


@pytest.fixture(scope="session")
def views() -> Views:
    return Views()


@pytest.fixture(scope="session")
def read() -> Callable[[str], Element]:
    """HTML → its tree."""
    return lambda html: Reader(html).root


@pytest.fixture(scope="session")
def frame() -> Mapping[str, Any]:
    """What the pages put around a page, without them."""
    seen = SimpleNamespace(
        person="anna", here="model", model="deployment_risk", may_act=True, token="t", drawn_at=BEGIN
    )
    return {"link": Link(), "frame": seen}
