"""Trained models as skops and ONNX files: the digest is checked first, then every type, and nothing is unpickled.

A skops file is written in one canonical form, so that the same fitted object always gives the same bytes and the
file's SHA-256 is the identity of what was learned.
"""

import importlib
import inspect
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from steward.errors import ArtifactDamaged, ArtifactUntrusted, StewardError
from steward.records import Challenger, File, canonical_json

TRUSTED_PACKAGES = ("sklearn", "steward.core")
"""Their classes may be in an artifact. Their functions may not, nor what their modules import from elsewhere."""

TRUSTED_NAMES = frozenset(
    {
        "builtins.bytes",
        "builtins.dict",
        "builtins.float",
        "builtins.int",
        "builtins.list",
        "builtins.set",
        "builtins.slice",
        "builtins.str",
        "builtins.tuple",
        "collections.OrderedDict",
        "collections.defaultdict",
        "functools.partial",
        "numpy.dtype",
        "numpy.ndarray",
        "numpy.random.mtrand.RandomState",
        "numpy.random._generator.Generator",
        "scipy.interpolate._bsplines.BSpline",
        "scipy.sparse._csr.csr_matrix",
        "scipy.sparse._csc.csc_matrix",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        "sklearn.utils.validation.check_array",
    }
)
"""Further types, and the two functions, that a fitted pipeline holds; skops itself allows scalars, ufuncs, dtypes."""

FIXED_TIME = (1980, 1, 1, 0, 0, 0)
UNSHARED = frozenset({"JsonNode", "TupleNode", "TypeNode", "FunctionNode"})
"""skops nodes of immutable values: whether two places share one of them is an accident of the interpreter."""

OPSET = {"": 21, "ai.onnx.ml": 5}
CONVERTED_OPSET = {"": 21, "ai.onnx.ml": 3}
IR_VERSION = 10
CLEAN_PROCESS_SECONDS = 120
CLEAN_PROCESS = "import json, sys, steward.inference; steward.inference.answer_example(json.load(sys.stdin))"


class Files(Protocol):
    """What is needed of the store: local paths of files whose digest was checked."""

    url: str
    cache: Path

    def fetch(self, file: File) -> Path: ...


class Operators(Protocol):
    """A graph of operators; see `compilation.Graph`."""

    @property
    def width(self) -> int: ...

    @property
    def nodes(self) -> Sequence[tuple[str, tuple[str, ...], str, dict[str, Any]]]: ...

    @property
    def constants(self) -> Mapping[str, np.ndarray]: ...


class Artifacts:
    """Writes and loads the files of trained models.

    Parameters
    ----------
    store : where the files are; checks their digests.
    trusted_types : full names of types that are allowed beside Steward's own list.
    """

    def __init__(self, store: Files, trusted_types: Sequence[str] = ()) -> None:
        self.store = store
        self.trusted_types = frozenset(trusted_types)

    def write_skops(self, pipeline: Any, path: Path) -> None:
        """Write a fitted object; equal objects give equal bytes."""
        import skops.io

        with zipfile.ZipFile(BytesIO(skops.io.dumps(pipeline))) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        _write_canonical(json.loads(members.pop("schema.json")), members, path)

    def load_skops(self, file: File) -> Any:
        """The fitted object in a stored file.

        Raises
        ------
        ArtifactDamaged : the content is not the one that was recorded, or it cannot be read.
        ArtifactUntrusted : it holds a type that is on neither Steward's list nor the operator's.
        """
        import skops.io

        path = self.store.fetch(file)
        try:
            return skops.io.load(path, trusted=self.types(file))
        except (StewardError, MemoryError):
            raise
        except Exception as problem:
            raise ArtifactDamaged(
                "an artifact cannot be loaded",
                got=f"{type(problem).__name__}: {problem}",
                do="Check the package versions that it was written with, or train again",
                uri=file.uri,
            ) from problem

    def types(self, file: File) -> list[str]:
        """The types in a stored skops file that are not plain values; raises ArtifactUntrusted."""
        import skops.io

        named = list(skops.io.get_untrusted_types(file=self.store.fetch(file)))
        self._refuse(named, file)
        return named

    def load_json(self, file: File) -> Any:
        """What a stored JSON file says; raises ArtifactDamaged."""
        try:
            return json.loads(self.store.fetch(file).read_bytes())
        except ValueError as problem:
            raise ArtifactDamaged("a file is not JSON", got=str(problem), do="Train again", uri=file.uri) from problem

    def load_arrays(self, file: File) -> dict[str, np.ndarray]:
        """The arrays in a stored NumPy archive, which holds nothing else; raises ArtifactDamaged."""
        path = self.store.fetch(file)
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (ValueError, OSError, zipfile.BadZipFile) as problem:
            raise ArtifactDamaged(
                "arrays cannot be read", got=str(problem), do="Train again", uri=file.uri
            ) from problem

    def write_arrays(self, arrays: Mapping[str, np.ndarray], path: Path) -> None:
        """Write arrays of numbers; equal arrays give equal bytes."""
        np.savez_compressed(path, allow_pickle=False, **arrays)

    def write_graph(self, graph: Operators, path: Path) -> None:
        """Write a graph of float64 operators as an ONNX file: `features` (n, width) → `answer`."""
        from onnx import TensorProto, helper, numpy_helper

        nodes = [
            helper.make_node(operator, inputs, [output], domain=_domain(operator), **_attributes(attributes))
            for operator, inputs, output, attributes in graph.nodes
        ]
        features = helper.make_tensor_value_info("features", TensorProto.DOUBLE, [None, graph.width])
        answer = helper.make_tensor_value_info(graph.nodes[-1][2], TensorProto.DOUBLE, [None, None])
        constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in graph.constants.items()]
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSET.items()]
        model = helper.make_model(
            helper.make_graph(nodes, "steward", [features], [answer], constants),
            opset_imports=opsets,
            ir_version=IR_VERSION,
            producer_name="steward",
        )
        path.write_bytes(model.SerializeToString(deterministic=True))

    def write_converted(self, estimator: Any, n_features: int, path: Path) -> None:
        """Convert an estimator that Steward cannot write down itself; it takes the prepared rows as float32.

        Whatever the converter raises is passed on: the caller serves by another engine then.
        """
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType

        model = to_onnx(
            estimator,
            name="steward",
            initial_types=[("features", FloatTensorType([None, n_features]))],
            options={id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None,
            target_opset=CONVERTED_OPSET,
        )
        path.write_bytes(model.SerializeToString(deterministic=True))

    def onnx_session(self, file: File, threads: int = 1) -> "OnnxModel":
        """Open a stored ONNX file; raises ArtifactDamaged."""
        return OnnxModel(self.store.fetch(file), threads)

    def answers_in_clean_process(self, challenger: Challenger, timeout: float = CLEAN_PROCESS_SECONDS) -> str | None:
        """Load the files in a fresh Python process and answer the example there; what went wrong, None if nothing."""
        request = {
            "url": self.store.url,
            "cache": str(self.store.cache),
            "trusted_types": sorted(self.trusted_types),
            "challenger": challenger.as_json(),
        }
        command = [sys.executable, "-c", CLEAN_PROCESS]
        try:
            done = subprocess.run(
                command, input=json.dumps(request), capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {timeout:g} seconds"
        if done.returncode == 0:
            return None
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:500]

    def _refuse(self, names: Sequence[str], file: File) -> None:
        refused = [name for name in names if name not in self.trusted_types and not is_trusted(name)]
        if refused:
            raise ArtifactUntrusted(
                "an artifact holds a type that is not on Steward's list",
                got=", ".join(refused),
                allowed="classes of scikit-learn and steward.core, NumPy and SciPy arrays, STEWARD_TRUSTED_TYPES",
                do="Add it to STEWARD_TRUSTED_TYPES if you know where the file is from",
                uri=file.uri,
                types=refused,
            )


class OnnxModel:
    """An ONNX file in ONNX Runtime; thread-safe.

    Parameters
    ----------
    path : an ONNX file written by `Artifacts`.
    threads : threads of one call.

    Raises
    ------
    ArtifactDamaged : ONNX Runtime does not take the file.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as problem:
            raise ArtifactDamaged("an ONNX file cannot be opened", got=str(problem), do="Train again") from problem
        given = self.session.get_inputs()[0]
        self._input, self._single = given.name, given.type == "tensor(float)"
        self._outputs = [self.session.get_outputs()[-1].name]

    def answer(self, features: np.ndarray) -> np.ndarray:
        """Answers for prepared rows, float64 of shape (n, n_features).

        Probabilities of shape (n, k) in the estimator's own order of classes, or predictions of shape (n,).
        """
        given = features.astype(np.float32) if self._single else features
        answer: np.ndarray = self.session.run(self._outputs, {self._input: given})[0]
        if self._single:
            answer = answer.astype(np.float64)
        return answer[:, 0] if answer.ndim == 2 and answer.shape[1] == 1 else answer  # noqa: PLR2004


def is_trusted(name: str) -> bool:
    """Is this full name on Steward's own list?

    >>> is_trusted("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor")
    True
    >>> is_trusted("os.system"), is_trusted("sklearn.datasets._base.load_files")
    (False, False)
    """
    if name in TRUSTED_NAMES:
        return True
    if not name.startswith(tuple(f"{package}." for package in TRUSTED_PACKAGES)):
        return False
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        return False
    return inspect.isclass(found) and found.__module__.startswith(TRUSTED_PACKAGES)


def _domain(operator: str) -> str:
    return "ai.onnx.ml" if operator == "TreeEnsemble" else ""


def _attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    """As ONNX wants them: float64 and uint8 arrays as tensors, integers as lists, types by number."""
    from onnx import TensorProto, numpy_helper

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.tolist() if value.dtype == np.int64 else numpy_helper.from_array(value)
        return TensorProto.DataType.Value(value.upper()) if isinstance(value, str) else value

    return {name: plain(value) for name, value in attributes.items()}


def _write_canonical(schema: dict[str, Any], members: Mapping[str, bytes], path: Path) -> None:
    """Write a skops file whose bytes depend on nothing but the object.

    skops names objects by their memory address and members by address or random UUID, and stamps them with the time.
    Here members are named by content, objects are numbered in the order in which they appear, sets are sorted, and
    immutable values carry no identity.
    """
    names = {name: f"{sha256(content).hexdigest()}{Path(name).suffix}" for name, content in members.items()}
    numbers: dict[int, int] = {}
    for node in _nodes(schema):
        _canonicalise_node(node, names, numbers)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted({names[name]: content for name, content in members.items()}.items()):
            archive.writestr(zipfile.ZipInfo(name, FIXED_TIME), content)
        text = json.dumps(schema, separators=(",", ":"))
        archive.writestr(zipfile.ZipInfo("schema.json", FIXED_TIME), text, zipfile.ZIP_DEFLATED)


def _canonicalise_node(node: dict[str, Any], names: dict[str, str], numbers: dict[int, int]) -> None:
    if node.get("file") in names:
        node["file"] = names[node["file"]]
    if node.get("__loader__") == "SetNode":
        node["content"].sort(key=_without_identity)
    if "__id__" in node:
        address = node.pop("__id__")
        if node.get("__loader__") not in UNSHARED:
            node["__id__"] = numbers.setdefault(address, len(numbers) + 1)


def _without_identity(node: dict[str, Any]) -> str:
    return canonical_json({key: value for key, value in node.items() if key != "__id__"})


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object inside `value`, parents first, in document order."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting.extend(reversed(item.values()))
        elif isinstance(item, list):
            waiting.extend(reversed(item))
