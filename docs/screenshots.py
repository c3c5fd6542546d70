"""Makes the pictures of Steward's pages that README and guide show: `python docs/screenshots.py [--home FOLDER]`.

Without a home it plays a story in one of its own: a champion of the simulated company, calm days, and then the month that
changes it, looked at every morning. The pages are served here, without Airflow, and Chromium takes their pictures.
"""

# ruff: noqa: INP001

import argparse
import base64
import io
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import uvicorn
from fastapi import FastAPI, Request
from PIL import Image
from selenium import webdriver

from steward import pipeline
from steward.config import ModelFile, Settings
from steward.errors import StewardError
from steward.examples import deployments
from steward.io.predictions import Logged, new_id
from steward.io.workspace import Workspace
from steward.pages.access import Person
from steward.pages.app import create_app
from steward.prediction import Model
from steward.records import Decision

ROOT = Path(__file__).parents[1]
MODEL = "deployment_risk"
CALM, CHANGED, AFTER = 18, 24, 10
"""Days of the story: like the past; changed, until a training on them is due; and those that its champion answers."""
MATURE = 7
"""Days after which a label is final, as the model file says."""
LATE = timedelta(days=2)
"""After a deployment its outcome is known."""
QUICKLY = "candidates: [logistic_regression, decision_tree, gradient_boosting]\nsearch: {trials: 3"
"""The pictures look the same with more."""
DATA = Path("data/deployments")
"""As the model file says, in the folder of the story."""
WIDE, NARROW = 1280, 390
CHROMIUM = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A page, and the part of it that is shown: from `begins` (a selector) so many pixels down."""

    name: str
    path: str
    height: int
    width: int = WIDE
    theme: str = "light"
    begins: str = "body"


def pictures(workspace: Workspace) -> list[Picture]:
    """What README and guide show. The version and the look are those that the home has."""
    champion = workspace.ledger.entries(MODEL, "promotion", newest_first=True, limit=1)[0].body["champion"]
    looks = workspace.ledger.entries(MODEL, Decision.kind)
    moved = [look for look in looks if any(cell[3] for cell in look.body["figures"].get("drift", {}).values())]
    column, end = _strongest(moved[len(moved) // 2].body["figures"]) if moved else ("files_changed", "")
    model = f"/models/{MODEL}"
    return [
        Picture("overview", "/", 385),
        Picture("model", model, 1240),
        Picture("model-dark", model, 1240, theme="dark"),
        Picture("model-phone", model, 1500, width=NARROW),
        Picture("drift", model, 520, begins="#drift"),
        Picture("answers", model, 590, begins="#answers"),
        Picture("distribution", f"{model}/drift/{column}?end={end.replace('+', '%2B')}", 1050),
        Picture("version", f"{model}/versions/{champion}", 1240),
        Picture("lineage", f"{model}/versions/{champion}", 700, begins="#lineage"),
        Picture("decisions", f"/decisions?model={MODEL}", 900),
        Picture("test-rows", f"{model}/test-rows", 700),
    ]


def _strongest(figures: Mapping[str, Any]) -> tuple[str, str]:
    """The column that has moved furthest at a look, and the look's end."""
    drift = figures["drift"]
    return max(drift, key=lambda name: float(drift[name][1])), str(figures["end"])


def take(workspace: Workspace, folder: Path) -> None:
    """Every picture as PNG in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with _served(workspace) as address, tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        for argument in (*CHROMIUM, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            for picture in pictures(workspace):
                (folder / f"{picture.name}.png").write_bytes(_taken(browser, address, picture))
        finally:
            browser.quit()


def _taken(browser: webdriver.Chrome, address: str, picture: Picture) -> bytes:
    size = {"width": picture.width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    theme = {"name": "prefers-color-scheme", "value": picture.theme}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "UTC"})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
    browser.get(address + picture.path)
    time.sleep(0.3)
    find = "const e = document.querySelector(arguments[0]); return [e.getBoundingClientRect().top + scrollY, document.body.scrollHeight]"
    top, end = browser.execute_script(find, picture.begins)
    top = max(0, top - 16)
    part = {"x": 0, "y": top, "width": picture.width, "height": min(picture.height, end - top), "scale": 1}
    asked = {"clip": part, "captureBeyondViewport": True, "format": "png"}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", asked)["data"]
    return _small(Image.open(io.BytesIO(base64.b64decode(shot))))


def _small(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.convert("RGB").save(content, "png", optimize=True)
    return content.getvalue()


class Everybody:
    """Whoever asks is Ana, who may see and do everything."""

    def __init__(self, settings: Settings) -> None:
        self._models = frozenset(path.stem for path in settings.model_paths())

    async def person(self, request: Request) -> Person:  # noqa: ARG002
        return Person("ana")

    def readable(self, person: Person) -> frozenset[str]:  # noqa: ARG002
        return self._models

    def editable(self, person: Person) -> frozenset[str]:  # noqa: ARG002
        return self._models

    def login(self, back: str) -> str:
        return back


class Nobody:
    """Runs nothing."""

    def start(self, request: Request, model: str, kind: str, run_id: str, reason: str) -> None: ...

    def questions(self, request: Request, model: str) -> list[Any]:  # noqa: ARG002
        return []

    def answer(self, request: Request, model: str, run_id: str, *, approve: bool, why: str) -> None: ...

    def run_page(self, model: str, kind: str, run_id: str) -> str:
        return f"/dags/{model}.{kind}/runs/{run_id}"


@contextmanager
def _served(workspace: Workspace) -> Iterator[str]:
    """The pages on a port of this machine."""
    app = FastAPI()
    app.mount("/steward", create_app(Everybody(workspace.settings), Nobody(), workspace, os.urandom(32)))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/steward"
    finally:
        server.should_exit = True
        thread.join()


def play(folder: Path) -> Workspace:
    """The story, in a home of its own."""
    text = (ROOT / "models" / f"{MODEL}.yaml").read_text()
    (folder / "models").mkdir(parents=True)
    (folder / "models" / f"{MODEL}.yaml").write_text(re.sub(r"candidates: .*\nsearch: {trials: \d+", QUICKLY, text))
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    until = midnight - timedelta(days=MATURE + CALM + CHANGED + AFTER)
    deployments.write(DATA, deployments.simulate(until=until))
    home = {"STEWARD_HOME": str(folder / "home"), "STEWARD_MODELS": str(folder / "models")}
    workspace = Workspace(Settings.from_environment(home))
    begins = until + timedelta(days=MATURE)
    _train(workspace, begins, "first version", "ana")
    for day in range(CALM + CHANGED + AFTER):
        world = deployments.TODAY if day < CALM else deployments.MONTH_TWO
        first = deployments.PAST + (day + MATURE) * deployments.PER_DAY
        frame = deployments.simulate(deployments.PER_DAY, first=first, until=until, world=world)
        if day == CALM + CHANGED:
            _train(workspace, begins + timedelta(days=day), "the month has changed", "ana")
        _live(workspace, frame, begins + timedelta(days=day + 1))
    return workspace


def _train(workspace: Workspace, at: datetime, reason: str, by: str, decision: Decision | None = None) -> None:
    try:
        run = f"{by} {at:%Y-%m-%d}"
        pipeline.train(workspace, workspace.model(MODEL), at=at, reason=reason, by=by, run_id=run, decision=decision)
    except StewardError as problem:
        print(f"{at:%Y-%m-%d}  no training: {problem}")  # noqa: T201


def _live(workspace: Workspace, frame: pd.DataFrame, morning: datetime) -> None:
    """A day: the champion answers its deployments, their outcomes come later, and the next morning somebody looks."""
    model = workspace.model(MODEL)
    _serve(workspace, model, frame)
    deployments.write(DATA, frame)
    decision = pipeline.monitor(workspace, model, at=morning).records["decide_retraining"]
    print(f"{morning:%Y-%m-%d}  {getattr(decision, 'reason', '')}")  # noqa: T201
    if isinstance(decision, Decision) and decision.train:
        _train(workspace, morning, decision.reason, "monitor", decision)


def _serve(workspace: Workspace, model: ModelFile, frame: pd.DataFrame) -> None:
    """Answers on record as of the day, which no service can be asked at, and their outcomes as of two days later."""
    champion = Model(model, workspace=workspace)
    records = json.loads(frame[list(model.columns)].to_json(orient="records"))
    rows = []
    for record, asked, key in zip(records, frame["requested_at"], frame["deployment_id"], strict=True):
        answer, at = champion.predict(record), asked.timestamp()
        told = answer["prediction"], answer["confidence"], answer["action"]
        text = json.dumps(record), json.dumps(answer)
        rows.append(Logged(new_id(at), MODEL, at, champion.version, key, *text, *told, control=False, fallback=None))
    workspace.predictions.prepare()
    writer = workspace.predictions.writer(durable=False, patience=30)
    writer.write(rows)
    writer.close()
    outcomes = zip(rows, frame["risk_level"], strict=True)
    arrived = datetime.fromtimestamp(rows[0].at, UTC) + LATE
    found = [{"prediction_id": row.prediction_id, "label": label} for row, label in outcomes]
    workspace.predictions.add_outcomes(model, found, arrived)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--home", type=Path, help="a folder with `home` and `models` in it; played there if it is empty"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (asked.home or Path(scratch) / "story").resolve()
        out = asked.out.resolve()
        environment = {"STEWARD_HOME": str(folder / "home"), "STEWARD_MODELS": str(folder / "models")}
        there = (folder / "home").is_dir()
        folder.mkdir(parents=True, exist_ok=True)
        with chdir(folder):
            take(Workspace(Settings.from_environment(environment)) if there else play(folder), out)
    sizes = {path.name: path.stat().st_size for path in sorted(out.glob("*.png"))}
    for name, size in {**sizes, "together": sum(sizes.values())}.items():
        print(f"{name:24} {size / 1000:7.0f} kB")  # noqa: T201


if __name__ == "__main__":
    main()
