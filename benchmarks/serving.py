"""Predictions over HTTP: Steward against the servers that people use, and against what parsing the same body costs.

One gradient boosting pipeline of five features and three classes, with the settings that Steward's champion has. Every
server runs in one process (MLServer: its own one worker) on the first core, the load generator on another, one server
measured at a time while the others are stopped (SIGSTOP), in turns, medians over the rounds. Steward logs each prediction
before it answers, at the level that its name says; its peers log nothing. Peers are installed into environments of their
own below `--work`, which are kept.

    python benchmarks/serving.py --work /tmp/serving --rounds 3                   # everything; installs for minutes
    python benchmarks/serving.py --work /tmp/serving --only floor_asgi floor_fastapi fastapi_sklearn
    python benchmarks/serving.py --work /tmp/serving --kill 100000                # kill -9 under load, then count
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import textwrap
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROWS = 6_000
BATCH = 1_000
DIFFERENT = 500
"""Records that take turns."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "STEWARD_JOBS"), "1")
FLOORS = ("floor_asgi", "floor_fastapi")
PEERS = ("fastapi_sklearn", "mlflow", "mlserver", "bentoml", "litserve")
LEVELS = ("relaxed", "crash_safe", "durable")
WEB = ("fastapi", "uvicorn[standard]", "msgspec")
SKLEARN = ("scikit-learn==1.9.1", "pandas==3.1.1", "joblib")
PACKAGES = {
    "web": (*WEB, *SKLEARN),
    "mlflow": ("mlflow==3.17.2", *SKLEARN),
    "mlserver": ("mlserver==1.7.1", "uvloop<0.22", *SKLEARN),
    "bentoml": ("bentoml==1.4.39", *SKLEARN),
    "litserve": ("litserve==0.2.19", *SKLEARN),
}
MODEL_FILE = """
name: risk
task: classification
source: {{table: {rows}, key: id}}
label: {{column: risk, classes: [Low, Medium, High]}}
columns:
  files_changed: {{type: integer, min: 0, max: 1000}}
  lines_changed: {{type: integer, min: 0, max: 100000}}
  test_coverage: {{type: number, min: 0, max: 1}}
  team: {{type: category, open: true}}
  environment: {{type: category, values: [dev, staging, prod]}}
candidates: [gradient_boosting]
search: {{trials: 2, cross_validate_below: 0}}
verify: {{detect: 0.2}}
serve:
  log: {level}
  actions: [{{when: "prediction == 'High' and confidence >= 0.6", do: ask, say: Ask a senior}}, {{otherwise: proceed}}]
"""
FIT = """
import json, sys, joblib, pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
rows = pd.read_csv(sys.argv[1])
numbers, texts = ["files_changed", "lines_changed", "test_coverage"], ["team", "environment"]
steps = ColumnTransformer([("n", StandardScaler(), numbers), ("c", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts)])
params = json.loads(sys.argv[2])
copies = params.pop("copies", 1)
forests = [HistGradientBoostingClassifier(early_stopping=False, random_state=seed, **params) for seed in range(copies)]
forest = forests[0] if copies == 1 else VotingClassifier([(f"copy{seed}", one) for seed, one in enumerate(forests)], voting="soft")
model = Pipeline([("prepare", steps), ("model", forest)]).fit(rows[numbers + texts], rows["risk"])
joblib.dump(model, "model.joblib")
"""
ANSWER = """
import uuid, datetime, joblib, pandas as pd
model = joblib.load("model.joblib")
classes = [str(name) for name in model.classes_]
def answer(records):
    found = []
    for shares in model.predict_proba(pd.DataFrame(records)):
        best = int(shares.argmax())
        label, confidence = classes[best], float(shares[best])
        found.append({"prediction": label, "confidence": confidence, "probabilities": dict(zip(classes, map(float, shares))),
            "action": "ask" if label == "High" and confidence >= 0.6 else "proceed", "model_version": 1,
            "prediction_id": uuid.uuid4().hex, "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat()})
    return found
"""
RECORD = """
from typing import Any
from fastapi import FastAPI
from pydantic import BaseModel
class Record(BaseModel):
    files_changed: int
    lines_changed: int
    test_coverage: float
    team: str
    environment: str
class Answer(BaseModel):
    prediction: str
    confidence: float
    probabilities: dict[str, float]
    action: str
    model_version: int
    prediction_id: str
    timestamp: str
app = FastAPI()
"""
CONSTANT = """
FIXED = {"prediction": "High", "confidence": 0.7, "probabilities": {"Low": 0.1, "Medium": 0.2, "High": 0.7}, "action": "ask",
    "model_version": 1, "prediction_id": "0" * 32, "timestamp": "2026-01-01T00:00:00+00:00"}
"""
SCRIPTS = {
    "floor_asgi": CONSTANT
    + """
import msgspec
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    found = msgspec.json.decode(body) if body else None
    told = msgspec.json.encode([FIXED] * len(found) if isinstance(found, list) else FIXED)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(told)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})
""",
    "floor_fastapi": RECORD
    + CONSTANT
    + """
@app.post("/predict", response_model=Answer)
async def predict(record: Record) -> Any:
    return FIXED
@app.post("/batch", response_model=list[Answer])
async def batch(records: list[Record]) -> Any:
    return [FIXED] * len(records)
""",
    "fastapi_sklearn": RECORD
    + ANSWER
    + """
@app.post("/predict", response_model=Answer)
async def predict(record: Record) -> Any:
    return answer([record.model_dump()])[0]
@app.post("/batch", response_model=list[Answer])
async def batch(records: list[Record]) -> Any:
    return answer([record.model_dump() for record in records])
""",
    "bentoml": ANSWER
    + """
import bentoml
@bentoml.service(workers=1, traffic={"timeout": 60})
class Risk:
    @bentoml.api
    def predict(self, record: dict) -> dict:
        return answer([record])[0]
    @bentoml.api
    def batch(self, records: list[dict]) -> list[dict]:
        return answer(records)
""",
    "litserve": ANSWER
    + """
import sys
import litserve
class Risk(litserve.LitAPI):
    def setup(self, device):
        pass
    def decode_request(self, request):
        return request
    def predict(self, request):
        return answer(request) if isinstance(request, list) else answer([request])[0]
    def encode_response(self, output):
        return output
if __name__ == "__main__":
    litserve.LitServer(Risk(), accelerator="cpu", workers_per_device=1).run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False, log_level="error")
""",
    "mlserver": """
import joblib, pandas as pd
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, PandasCodec
from mlserver.types import InferenceRequest, InferenceResponse
class Risk(MLModel):
    async def load(self):
        self.model = joblib.load("model.joblib")
        return True
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        shares = self.model.predict_proba(PandasCodec.decode_request(payload))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("probabilities", shares)])
""",
}
SAVE_MLFLOW = """
import joblib, mlflow.sklearn
mlflow.sklearn.save_model(joblib.load("model.joblib"), "saved", serialization_format="cloudpickle", pip_requirements=["scikit-learn"],
    pyfunc_predict_fn="predict_proba")
"""


@dataclass
class Contender:
    """A server: how it is started, what it is sent."""

    name: str
    command: list[str]
    folder: Path
    port: int
    single: tuple[str, Any] = ("/predict", None)
    batch: tuple[str, Any] = ("/batch", None)
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    startup: float = 0.0

    def start(self, core: int) -> None:
        began = time.perf_counter()
        log = (self.folder / f"{self.name}.log").open("ab")
        environment = {**os.environ, **ONE_THREAD, **self.environment}
        environment["PATH"] = f"{Path(self.command[0]).parent}:{environment['PATH']}"
        self.process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        os.sched_setaffinity(self.process.pid, {core})
        request = requests_of(self)[0][0]
        while True:
            if self.process.poll() is not None or time.perf_counter() - began > 120:
                raise RuntimeError(f"{self.name} did not start; see {log.name}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(10)
                connection.sendall(request)
                if b" 200 " in connection.recv(64):
                    break
            time.sleep(0.01)
        self.startup = time.perf_counter() - began

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def end(self) -> None:
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            if self.process is not None:
                self.process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        self.signal(signal.SIGKILL)

    def family(self) -> list[Any]:
        import psutil

        assert self.process is not None
        return [parent := psutil.Process(self.process.pid), *parent.children(recursive=True)]

    def megabytes(self) -> float:
        return float(sum(one.memory_info().rss for one in self.family()) / 2**20)

    def cpu_seconds(self) -> float:
        return float(sum(sum(one.cpu_times()[:2]) for one in self.family()))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def record_of(drawn: random.Random) -> dict[str, Any]:
    return {
        "files_changed": drawn.randint(0, 200),
        "lines_changed": drawn.randint(0, 5_000),
        "test_coverage": round(drawn.random(), 3),
        "team": drawn.choice(["web", "data", "core", "mobile", "infra"]),
        "environment": drawn.choice(["dev", "staging", "prod"]),
    }


def risk_of(record: dict[str, Any], drawn: random.Random) -> str:
    danger = record["files_changed"] / 200 + record["lines_changed"] / 5_000 - record["test_coverage"]
    danger += (record["environment"] == "prod") * 0.4 + drawn.gauss(0, 0.2)
    return "High" if danger > 1.1 else "Medium" if danger > 0.5 else "Low"


def write_rows(path: Path) -> None:
    drawn = random.Random(1)
    records = [record_of(drawn) for _ in range(ROWS)]
    lines = [",".join(("id", *records[0], "risk"))]
    lines += [",".join(map(str, (number, *r.values(), risk_of(r, drawn)))) for number, r in enumerate(records)]
    path.write_text("\n".join(lines) + "\n")


def steward(work: Path, level: str, trained: Path) -> Contender:
    """An installation of its own per level, copied anew from the trained one."""
    folder = work / f"steward_{level}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(trained, folder)
    (folder / "models" / "risk.yaml").write_text(MODEL_FILE.format(rows=work / "rows.csv", level=level))
    environment = {"STEWARD_HOME": str(folder / "home"), "STEWARD_MODELS": str(folder / "models")}
    port = free_port()
    command = [sys.executable, "-m", "steward", "serve", "--port", str(port)]
    url = "/v1/models/risk/predict"
    return Contender(f"steward_{level}", command, folder, port, (url, None), (f"{url}/batch", None), environment)


def train(work: Path) -> Path:
    """The installation that the others are copies of; made once."""
    folder = work / "trained"
    if (folder / "done").exists():
        return folder
    write_rows(work / "rows.csv")
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "models" / "risk.yaml").write_text(MODEL_FILE.format(rows=work / "rows.csv", level="crash_safe"))
    environment = {"STEWARD_HOME": str(folder / "home"), "STEWARD_MODELS": str(folder / "models")}
    command = [sys.executable, "-m", "steward", "train", "risk", "--json"]
    done = subprocess.run(
        command, env={**os.environ, **ONE_THREAD, **environment}, capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout)["champion"] == 1, done.stdout + done.stderr
    (folder / "done").write_text(json.dumps(parameters(folder)))
    return folder


def parameters(folder: Path) -> dict[str, Any]:
    """The champion's settings, as scikit-learn names them."""
    (made,) = (folder / "home" / "store").rglob("*challenger*/*.json")
    found = json.loads(made.read_text())["body"]["params"]
    known = (
        "learning_rate",
        "max_iter",
        "max_leaf_nodes",
        "max_depth",
        "min_samples_leaf",
        "l2_regularization",
        "max_features",
        "copies",
    )
    return {name: value for name, value in found.items() if name in known}


def peer(work: Path, name: str, params: dict[str, Any]) -> Contender:
    """A server in an environment of its own, with a model that it fitted itself."""
    folder = work / name
    folder.mkdir(exist_ok=True)
    python = environment(work, name if name in PACKAGES else "web")
    if name in SCRIPTS:
        (folder / "app.py").write_text(SCRIPTS[name])
    if name not in FLOORS:
        shutil.copy(fitted(work, params), folder)
    if name == "mlflow":
        shutil.rmtree(folder / "saved", ignore_errors=True)
        subprocess.run([python, "-c", SAVE_MLFLOW], cwd=folder, check=True)
    port, binaries = free_port(), python.parent
    uvicorn = [
        str(python),
        "-m",
        "uvicorn",
        "app:app",
        "--port",
        str(port),
        "--log-level",
        "warning",
        "--no-access-log",
    ]
    made = Contender(name, uvicorn, folder, port)
    if name == "mlflow":
        options = ["--env-manager", "local", "--workers", "1", "--port", str(port)]
        made.command = [str(binaries / "mlflow"), "models", "serve", "-m", "saved", *options]
        made.single = made.batch = ("/invocations", "records")
    if name == "bentoml":
        made.command = [str(binaries / "bentoml"), "serve", "app:Risk", "--port", str(port), "--host", "127.0.0.1"]
        made.single, made.batch = ("/predict", "record"), ("/batch", "batch")
    if name == "litserve":
        made.command, made.single, made.batch = (
            [str(python), "app.py", str(port)],
            ("/predict", None),
            ("/predict", None),
        )
    if name == "mlserver":
        ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
        (folder / "settings.json").write_text(json.dumps({"debug": False, "parallel_workers": 1, **ports}))
        (folder / "model-settings.json").write_text(json.dumps({"name": "risk", "implementation": "app.Risk"}))
        made.command = [str(binaries / "mlserver"), "start", "."]
        made.single = made.batch = ("/v2/models/risk/infer", "columns")
    return made


def fitted(work: Path, params: dict[str, Any]) -> Path:
    """The peers' model with the champion's settings; made anew when they have changed."""
    folder, settings = work / "fitted", json.dumps(params)
    folder.mkdir(exist_ok=True)
    stamp, model = folder / "done", folder / "model.joblib"
    if not stamp.exists() or stamp.read_text() != settings:
        command = [environment(work, "web"), "-c", FIT, work / "rows.csv", settings]
        subprocess.run(command, cwd=folder, check=True, env={**os.environ, **ONE_THREAD})
        stamp.write_text(settings)
    return model


def environment(work: Path, name: str) -> Path:
    """The Python of an environment; its packages are installed once."""
    folder = work / "environments" / name
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        command = ["nice", python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES[name]]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        (folder / "installed").write_text("\n".join(PACKAGES[name]))
    return python


def body_of(form: str | None, records: list[dict[str, Any]], *, many: bool) -> Any:
    """The same records as each server wants them."""
    if form == "records":
        return {"dataframe_records": records}
    if form == "record":
        return {"record": records[0]}
    if form == "batch":
        return {"records": records}
    if form == "columns":
        kinds = {int: "INT64", float: "FP64", str: "BYTES"}
        return {
            "parameters": {"content_type": "pd"},
            "inputs": [
                {"name": name, "shape": [len(records), 1], "datatype": kinds[type(value)], "data": [r[name] for r in records],
                 **({"parameters": {"content_type": "str"}} if isinstance(value, str) else {})}
                for name, value in records[0].items()
            ],
        }  # fmt: skip
    return records if many else records[0]


def requests_of(contender: Contender) -> tuple[list[bytes], bytes]:
    """Requests with one record each, and one with many."""
    drawn = random.Random(7)
    records = [record_of(drawn) for _ in range(BATCH)]

    def encoded(path: str, body: Any) -> bytes:
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        return head.encode() + content

    path, form = contender.single
    singles = [encoded(path, body_of(form, [record], many=False)) for record in records[:DIFFERENT]]
    path, form = contender.batch
    return singles, encoded(path, body_of(form, records, many=True))


class Connection(asyncio.Protocol):
    """Sends a request, waits for its answer, sends the next, and notes how long each took."""

    def __init__(self, requests: list[bytes], until: float, done: asyncio.Future[None]) -> None:
        self.requests, self.until, self.done = requests, until, done
        self.number = 0
        self.buffer = b""
        self.latencies: list[float] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.number += 1
        self.began = time.perf_counter()
        self.transport.write(self.requests[self.number % len(self.requests)])

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not is_complete(self.buffer):
            return
        now = time.perf_counter()
        if not self.buffer.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(RuntimeError(self.buffer[:500].decode(errors="replace")))
            return
        self.latencies.append(now - self.began)
        self.buffer = b""
        if now < self.until:
            self.send()
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, _problem: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError("the server closed the connection"))


def is_complete(answer: bytes) -> bool:
    head = answer.find(b"\r\n\r\n")
    if head < 0:
        return False
    lower = answer[:head].lower()
    place = lower.find(b"content-length:")
    if place < 0:
        return answer.endswith(b"0\r\n\r\n")
    return len(answer) >= head + 4 + int(lower[place + 15 :].split(b"\r\n")[0])


async def load(port: int, requests: list[bytes], connections: int, seconds: float) -> tuple[list[float], float]:
    """Latencies of all requests, and how long it took."""
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    futures = [loop.create_future() for _ in range(connections)]
    made = []
    for number, done in enumerate(futures):
        turned = requests[number * 7 % len(requests) :] + requests[: number * 7 % len(requests)]
        _, protocol = await loop.create_connection(
            lambda turned=turned, done=done: Connection(turned, began + seconds, done), "127.0.0.1", port
        )
        made.append(protocol)
    await asyncio.gather(*futures)
    took = time.perf_counter() - began
    for protocol in made:
        protocol.transport.close()
    return [latency for protocol in made for latency in protocol.latencies], took


def measure(contender: Contender, seconds: float, found: dict[str, dict[str, list[float]]]) -> None:
    import uvloop

    singles, batch = requests_of(contender)
    kept = found[contender.name]
    for name, requests, connections in (
        ("c1", singles, 1),
        ("c8", singles, 8),
        ("c64", singles, 64),
        ("batch", [batch], 1),
    ):
        before = contender.cpu_seconds()
        latencies, took = uvloop.run(load(contender.port, requests, connections, seconds))
        kept[f"{name}_ms"].append(statistics.median(latencies) * 1_000)
        kept[f"{name}_per_s"].append(len(latencies) / took)
        kept[f"{name}_cpu_us"].append((contender.cpu_seconds() - before) / len(latencies) * 1e6)
    kept["mb"].append(contender.megabytes())


def compare(contenders: list[Contender], rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """The first round warms up and is dropped where there are more."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(rounds + (rounds > 1)):
        for contender in contenders:
            contender.signal(signal.SIGCONT)
            time.sleep(0.2)
            measure(contender, seconds, found)
            contender.signal(signal.SIGSTOP)
        if number == 0 and rounds > 1:
            found.clear()
    return found


def show(contenders: list[Contender], found: dict[str, dict[str, list[float]]]) -> None:
    medians = {c.name: {name: statistics.median(v) for name, v in found[c.name].items()} for c in contenders}
    columns = ("c1_ms", "c1_cpu_us", "c8_per_s", "c8_cpu_us", "c64_per_s", "batch_ms", "batch_cpu_us", "mb")
    print(f"{'':20}" + "".join(f"{name:>12}" for name in (*columns, "start_s")))
    for contender in contenders:
        values = [*(medians[contender.name][name] for name in columns), contender.startup]
        print(f"{contender.name:20}" + "".join(f"{value:12.3f}" for value in values))
    print()
    aims(medians)


def aims(medians: dict[str, dict[str, float]]) -> None:
    def tell(what: str, reached: float, aim: str, *, good: bool) -> None:
        print(f"{'yes' if good else 'NO ':4} {what}: {reached:.1f} (aim {aim})")

    relaxed, safe = medians.get("steward_relaxed"), medians.get("steward_crash_safe")
    if relaxed and (floor := medians.get("floor_fastapi")):
        ratio = relaxed["c1_ms"] / floor["c1_ms"]
        tell("one prediction, relaxed, times the constant FastAPI endpoint", ratio, "<= 2", good=ratio <= 2)
    if relaxed and safe:
        ratio = relaxed["c8_per_s"] / safe["c8_per_s"]
        tell("8 connections, relaxed / crash_safe", ratio, "<= 2", good=ratio <= 2)
    for name in PEERS:
        if name not in medians or not relaxed or not safe:
            continue
        other = medians[name]
        faster = other["c1_ms"] / relaxed["c1_ms"]
        tell(f"one prediction, relaxed, faster than {name}", faster, ">= 20", good=faster >= 20)
        for load_name in ("c8", "c64"):
            more = safe[f"{load_name}_per_s"] / other[f"{load_name}_per_s"]
            tell(f"{load_name} at crash_safe, times {name}", more, ">= 25", good=more >= 25)
        faster = other["batch_ms"] / safe["batch_ms"]
        tell(f"batch of {BATCH}, faster than {name}", faster, ">= 3", good=faster >= 3)


def kill_under_load(contender: Contender, wanted: int, core: int) -> None:
    """Kill -9 at random moments while 8 connections ask; then every answered prediction must be on record once."""
    from steward.config import Settings
    from steward.io.workspace import Workspace

    answered: list[str] = []
    stop = asyncio.Event()
    singles, _ = requests_of(contender)

    async def ask() -> None:
        number = 0
        while not stop.is_set():
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                reader, writer = await asyncio.open_connection("127.0.0.1", contender.port)
                while not stop.is_set():
                    number += 1
                    writer.write(singles[number % len(singles)])
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                    answered.append(json.loads(await reader.readexactly(length))["prediction_id"])
                writer.close()
            await asyncio.sleep(0.02)

    async def kill() -> int:
        drawn, kills = random.Random(3), 0
        while len(answered) < wanted:
            await asyncio.sleep(drawn.uniform(0.3, 2.0))
            contender.signal(signal.SIGKILL)
            assert contender.process is not None
            contender.process.wait()
            kills += 1
            await asyncio.to_thread(contender.start, core)
        stop.set()
        return kills

    async def both() -> int:
        asking = [asyncio.create_task(ask()) for _ in range(8)]
        kills = await kill()
        await asyncio.gather(*asking)
        return kills

    contender.start(core)
    kills = asyncio.run(both())
    contender.end()
    store = Workspace(Settings.from_environment(contender.environment)).predictions
    kept = [row.prediction_id for block in store.blocks("risk") for row in block]
    lost, twice = set(answered) - set(kept), len(kept) - len(set(kept))
    print(
        f"{contender.name}: {len(answered)} answered, {kills} kills, {len(lost)} lost, {twice} twice, {len(kept)} on record"
    )
    assert not lost
    assert not twice


def main() -> None:
    parser = argparse.ArgumentParser(
        description=textwrap.dedent(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "steward-serving")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="per point")
    parser.add_argument("--only", nargs="*", default=[*FLOORS, *PEERS], help="floors and peers to compare with")
    parser.add_argument("--levels", nargs="*", default=list(LEVELS))
    parser.add_argument(
        "--kill", type=int, default=0, help="instead: kill the service under load until so many are answered"
    )
    asked = parser.parse_args()
    work = asked.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    trained = train(work)
    cores = sorted(os.sched_getaffinity(0))
    contenders = [steward(work, level, trained) for level in asked.levels]
    if asked.kill:
        for contender in contenders:
            if contender.name != "steward_relaxed":
                kill_under_load(contender, asked.kill, cores[0])
        return
    params = json.loads((trained / "done").read_text())
    contenders += [peer(work, name, params) for name in asked.only]
    os.sched_setaffinity(0, {cores[-1]})
    try:
        for contender in contenders:
            contender.start(cores[0])
            contender.signal(signal.SIGSTOP)
        found = compare(contenders, asked.rounds, asked.seconds)
    finally:
        for contender in contenders:
            contender.end()
    print(
        f"{len(os.sched_getaffinity(0))} core for the client, 1 for the servers; load {os.getloadavg()[0]:.1f}; {params}"
    )
    show(contenders, found)


if __name__ == "__main__":
    main()
