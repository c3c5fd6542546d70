import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from steward.core.compilation import Graph
from steward.core.parity import compare
from steward.errors import ArtifactDamaged, ArtifactUntrusted
from steward.io.artifacts import Artifacts, is_trusted
from steward.io.store import Store
from steward.records import File

CLASSIFIERS = [
    LogisticRegression(),
    DecisionTreeClassifier(max_depth=4, random_state=0),
    RandomForestClassifier(10, random_state=0),
    HistGradientBoostingClassifier(max_iter=10, random_state=0),
    MLPClassifier((8,), max_iter=5, random_state=0),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


@pytest.fixture
def artifacts(store: Store) -> Artifacts:
    return Artifacts(store)


def table(rows: int = 300) -> tuple[pd.DataFrame, np.ndarray]:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "files": random.integers(0, 50, rows).astype(float),
            "team": pd.Series(random.choice(["ops", "web", "data"], rows), dtype=object),
        }
    )
    return frame, np.where(frame["files"] + 20 * (frame["team"] == "ops") > 30, "High", "Low")


def pipeline(estimator: object) -> Pipeline:
    prepare = make_column_transformer(
        (StandardScaler(), ["files"]), (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["team"])
    )
    return Pipeline([("prepare", prepare), ("estimate", estimator)])


def said(path: Path) -> tuple[object, set[bytes]]:
    """What a skops file says, whatever it calls its objects and members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def nameless(node: dict[str, object]) -> dict[str, object]:
        return {name: value for name, value in node.items() if name not in ("__id__", "file")}

    return json.loads(members.pop("schema.json"), object_hook=nameless), set(members.values())


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=lambda e: type(e).__name__)
def test_same_object_gives_same_bytes_and_answers(
    artifacts: Artifacts, store: Store, tmp_path: Path, estimator: object
) -> None:
    frame, truth = table()
    files = []
    for name in ("one.skops", "two.skops"):
        fitted = pipeline(estimator).fit(frame, truth)
        artifacts.write_skops(fitted, tmp_path / name)
        files.append(store.put(tmp_path / name, name))
    assert files[0].sha256 == files[1].sha256
    skops.io.dump(fitted, tmp_path / "theirs.skops")
    assert said(tmp_path / "one.skops") == said(tmp_path / "theirs.skops")
    loaded = artifacts.load_skops(files[0])
    assert np.array_equal(loaded.predict_proba(frame), fitted.predict_proba(frame))


def test_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    """Memory addresses, hash seeds and clocks differ between these two; the sets have no order of their own."""
    code = """
import sys; from pathlib import Path; from sklearn.preprocessing import FunctionTransformer
from steward.io.artifacts import Artifacts
held = FunctionTransformer(kw_args={"names": {"ops", "web", "data", "mail"}, "numbers": {3, 1, 2}})
Artifacts(None).write_skops(held, Path(sys.argv[1]))
"""
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / seed)], check=True, env=environment)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_shared_objects_stay_shared(artifacts: Artifacts, store: Store, tmp_path: Path) -> None:
    shared = np.arange(3.0)
    artifacts.write_skops(
        FunctionTransformer(kw_args={"a": shared, "b": shared, "c": shared + 1}), tmp_path / "x.skops"
    )
    held = artifacts.load_skops(store.put(tmp_path / "x.skops", "x.skops")).kw_args
    assert held["a"] is held["b"]
    assert held["c"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("position", [0, 500, -1])
def test_changed_byte_is_damage(artifacts: Artifacts, store: Store, tmp_path: Path, position: int) -> None:
    file = written(artifacts, store, tmp_path)
    path = Path(file.uri)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))
    for load in (artifacts.load_skops, artifacts.onnx_session, artifacts.load_json):
        with pytest.raises(ArtifactDamaged, match="changed since it was recorded"):
            load(file)


def test_lost_file_is_damage(artifacts: Artifacts, store: Store, tmp_path: Path) -> None:
    file = written(artifacts, store, tmp_path)
    Path(file.uri).unlink()
    with pytest.raises(ArtifactDamaged, match="gone"):
        artifacts.load_skops(file)


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x05\x06" + bytes(18)])
def test_file_that_is_no_artifact(artifacts: Artifacts, store: Store, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd").write_bytes(content)
    file = store.put(tmp_path / "odd", "odd.skops")
    with pytest.raises(ArtifactDamaged, match="cannot be loaded"):
        artifacts.load_skops(file)
    with pytest.raises(ArtifactDamaged, match="cannot be opened"):
        artifacts.onnx_session(file)


class Stranger(DummyRegressor):
    """A type that is on nobody's list."""


def test_type_that_is_not_listed(artifacts: Artifacts, store: Store, tmp_path: Path) -> None:
    artifacts.write_skops(make_pipeline(Stranger()), tmp_path / "x.skops")
    file = store.put(tmp_path / "x.skops", "x.skops")
    name = f"{Stranger.__module__}.Stranger"
    with pytest.raises(ArtifactUntrusted, match=name):
        artifacts.load_skops(file)
    sys.modules[Stranger.__module__] = sys.modules[__name__]
    assert isinstance(Artifacts(store, [name]).load_skops(file)[0], Stranger)


@pytest.mark.parametrize(("module", "function"), [("os", "system"), ("sklearn.datasets._base", "load_files")])
def test_hidden_function_is_refused(
    artifacts: Artifacts, store: Store, tmp_path: Path, module: str, function: str
) -> None:
    """A file that names itself harmless: the artifact's own words count for nothing."""
    artifacts.write_skops(FunctionTransformer(np.log1p), tmp_path / "good.skops")
    with zipfile.ZipFile(tmp_path / "good.skops") as good:
        schema = json.loads(good.read("schema.json"))
    schema["content"]["content"]["func"] |= {"__module__": module, "__class__": function}
    with zipfile.ZipFile(tmp_path / "bad.skops", "w") as bad:
        bad.writestr("schema.json", json.dumps(schema))
    with pytest.raises(ArtifactUntrusted, match=f"{module}.{function}"):
        artifacts.load_skops(store.put(tmp_path / "bad.skops", "bad.skops"))


@pytest.mark.parametrize(
    ("name", "trusted"),
    [
        ("sklearn.tree._tree.Tree", True),
        ("sklearn.neighbors._kd_tree.KDTree", True),
        ("steward.core.features.Encoder", True),
        ("numpy.dtype", True),
        ("sklearn.utils.os", False),  # a module that sklearn happens to import
        ("sklearn.no_such.Thing", False),
        ("sklearn_evil.Thing", False),
        ("steward.io.store.Store", False),
        ("builtins.eval", False),
        ("subprocess.Popen", False),
    ],
)
def test_own_list(name: str, trusted: bool) -> None:
    assert is_trusted(name) is trusted


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", [*CLASSIFIERS, GaussianNB()], ids=lambda e: type(e).__name__)
def test_converted_estimator_answers_alike(
    artifacts: Artifacts, store: Store, tmp_path: Path, estimator: object
) -> None:
    frame, truth = table()
    fitted = pipeline(estimator).fit(frame, truth)
    features = fitted[:-1].transform(frame)
    artifacts.write_converted(fitted[-1], features.shape[1], tmp_path / "x.onnx")
    answers = artifacts.onnx_session(store.put(tmp_path / "x.onnx", "x.onnx")).answer(features)
    assert compare(fitted.predict_proba(frame), answers).passed


def test_graph_answers_in_float64(artifacts: Artifacts, store: Store, tmp_path: Path) -> None:
    graph = Graph(2)
    scaled = graph.add("Mul", "features", np.array([1e-9, 0.0]))
    graph.finish(graph.add("ReduceMean", graph.add("Add", scaled, np.array(1.0)), np.array([1]), keepdims=1))
    artifacts.write_graph(graph, tmp_path / "x.onnx")
    session = artifacts.onnx_session(store.put(tmp_path / "x.onnx", "x.onnx"))
    assert session.answer(np.array([[2.0, 5.0]])).tolist() == [1 + 1e-9]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_json_that_is_none(artifacts: Artifacts, store: Store, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(ArtifactDamaged, match="not JSON"):
        artifacts.load_json(store.put(tmp_path / "plan.json", "plan.json"))


def written(artifacts: Artifacts, store: Store, folder: Path) -> File:
    artifacts.write_skops(pipeline(LogisticRegression()).fit(*table()), folder / "x.skops")
    return store.put(folder / "x.skops", "x.skops")
