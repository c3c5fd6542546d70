"""Dashboard and alerts for the service, held against what it counts."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from steward.serving.metrics import Metrics

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
PANELS = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
EXPRESSIONS = [*PANELS, *((rule["alert"], rule["expr"]) for rule in RULES)]
OF_PROMETHEUS = {"up", "job", "instance", "le"}
WORDS = re.compile(r"\b(?:steward|process|up)(?:_\w+)?\b(?=[{\[)\s]|$)")
LABELS = re.compile(r"(?:by|ignoring|on) \(([^)]*)\)|(\w+)(?:=~|!=|!~|=)\"")


def counted() -> Metrics:
    """One of everything."""
    metrics = Metrics(lambda: {"risk": {"champion": 1}}, {})
    metrics.observe("predict", "risk", 200, 0.1)
    for counter in (metrics.predictions, metrics.fallbacks, metrics.unseen, metrics.flags):
        counter["risk", "x"] += 1
    metrics.unlogged[("risk",)] += 1
    return metrics


@pytest.fixture(scope="module")
def labels() -> dict[str, set[str]]:
    """Labels of every series."""
    families = text_string_to_metric_families(counted().text().decode())
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS, ids=[title for title, _ in EXPRESSIONS])
def test_every_expression_asks_for_what_the_service_counts(served, labels, title, expression):
    told = set(re.findall(r"^# TYPE (\w+) ", served.ask("GET", "/metrics").body.decode(), re.MULTILINE))
    named = set(WORDS.findall(expression))
    assert named, title
    unknown = {name for name in named if re.sub(r"_bucket$", "", name) not in told | {"up"}}
    assert not unknown
    asked = {name.strip() for several, one in LABELS.findall(expression) for name in (several or one).split(",")}
    known = set().union(*(labels.get(name, set()) for name in named)) | OF_PROMETHEUS
    assert not asked - known


def test_every_metric_of_the_service_is_on_the_dashboard(served):
    text = served.ask("GET", "/metrics").body.decode()
    ours = set(re.findall(r"^# TYPE (steward_\w+) ", text, re.MULTILINE))
    shown = " ".join(expression for _, expression in PANELS)
    assert ours
    assert {name for name in ours if name not in shown} == set()


def test_every_alert_says_what_and_what_to_do():
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is of Debian's package prometheus")
def test_prometheus_takes_every_expression(tmp_path):
    values = {"$__rate_interval": "5m", "$model": ".*", "$job": ".*"}
    rules = [{"record": f"shown:{number}", "expr": expression} for number, (_, expression) in enumerate(PANELS)]
    for rule in rules:
        for name, value in values.items():
            rule["expr"] = rule["expr"].replace(name, value)
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    subprocess.run(["promtool", "check", "rules", FOLDER / "alerts.yaml", tmp_path / "panels.yaml"], check=True)
