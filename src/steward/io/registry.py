"""MLflow: runs of a training, registered versions, aliases.

A training is one run, found again by a tag when a step is repeated; each candidate is a nested run. MLflow keeps no
history of aliases: Steward's ledger does.
"""

import fcntl
import logging
import os
import re
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from steward.errors import RegistryUnavailable, VersionUnknown
from steward.records import Candidate, Challenger, Reference, Verdict, canonical_json, digest_of

Alias = Literal["champion", "challenger", "previous"]

LOCK_SECONDS = 5.0
"""How long a SQLite database of MLflow may be locked by somebody else before that is an error."""

DATABASE_ATTEMPTS = 3
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""MLflow waits for minutes, reports home and draws bars unless told not to; an operator's own values win."""

METRICS_PER_BATCH = 1_000
PARAM_LENGTH = 6_000
TRAINING = "steward.training"
CANDIDATE = "steward.candidate"
CHALLENGER = "steward.challenger"
REFERENCE = "steward.challenger_reference"
PARENT = "mlflow.parentRunId"


@dataclass(frozen=True)
class Version:
    """A registered version of a model."""

    model: str
    number: int
    digest: str
    """Identity of the trained artifact."""
    challenger: Reference
    verdict: str
    """promote, hold or reject: what the opening showed."""
    reason: str
    aliases: tuple[str, ...]
    run_id: str | None
    at: datetime


class Registry:
    """Runs, versions and aliases in MLflow.

    Every method raises RegistryUnavailable if MLflow does not answer.

    Parameters
    ----------
    tracking_uri : database URL or address of an MLflow server.
    home : folder for the lock file and, unless a server keeps them, MLflow's artifacts.
    """

    def __init__(self, tracking_uri: str, home: Path) -> None:
        self.tracking_uri = tracking_uri
        self.home = home
        self._threads = threading.RLock()
        self._holding = False

    def training_run(self, model: str, roles: Reference, facts: Mapping[str, str] | None = None) -> str:
        """The run of the training on these roles: made once, found again afterwards; answers its id."""
        tags = {TRAINING: roles.digest, "steward.model": model, **_tags(facts)}
        with self._locked(), self._answering():
            experiment = self._experiment(model)
            return self._find_run(experiment, {TRAINING: roles.digest}) or self._create_run(
                experiment, f"training {roles.digest[:8]}", tags
            )

    def log_candidate(
        self,
        model: str,
        roles: Reference,
        candidate: Candidate,
        plots: Callable[[], Mapping[str, bytes]] | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> str:
        """Write a candidate as a nested run, once; answers its id.

        Parameters
        ----------
        plots : draws PNG or SVG content by file name; asked only if the run is new.
        facts : what the candidate was trained on and with: snapshot, commit, hardware, `package.<name>` and the like.
        """
        parent = self.training_run(model, roles, facts)
        identity = digest_of(roles.digest, candidate.name, candidate.params, len(candidate.trials), candidate.error)
        with self._locked(), self._answering():
            experiment = self._experiment(model)
            if run_id := self._find_run(experiment, {CANDIDATE: identity}, finished=True):
                return run_id
            tags = {CANDIDATE: identity, PARENT: parent, "steward.name": candidate.name, **_tags(facts)}
            run_id = self._create_run(experiment, candidate.name, tags)
        with self._answering():
            self._log_result(run_id, candidate)
            self._log_files(run_id, plots() if plots else {}, "plots")
            self.client.set_terminated(run_id, "FAILED" if candidate.error else "FINISHED")
        return run_id

    def log_card(self, run_id: str, path: Path) -> None:
        """Add the card to a run and end the run."""
        with self._answering():
            self.client.log_artifact(run_id, str(path))
            self.client.set_terminated(run_id, "FINISHED")

    def register(
        self,
        challenger: Challenger,
        reference: Reference,
        verdict: Verdict,
        *,
        skops: Path,
        onnx: Path | None = None,
        types: Sequence[str] = (),
    ) -> int:
        """Make the challenger a version of its model, once; answers the version's number.

        Parameters
        ----------
        reference : leads back to the challenger in Steward's store.
        skops, onnx : local copies of its files, which become an MLflow model.
        types : type names that skops has to be told about when MLflow loads the file.
        """
        import mlflow

        with self._locked(), self._answering():
            if found := self._find_version(challenger.model, challenger.digest):
                return int(found.version)
            run_id = challenger.run_id or self._find_run(
                self._experiment(challenger.model), {TRAINING: challenger.roles.digest}
            )
            logged = self._log_model(challenger, run_id, skops, onnx, types)
            self._ensure_registered(challenger.model, str(challenger.model_file.get("description", "")))
            mlflow.set_tracking_uri(self.tracking_uri)  # `models:/` is resolved by the process's own, not the client's
            created = self.client.create_model_version(
                challenger.model,
                source=f"models:/{logged}",
                run_id=run_id,
                model_id=logged,
                tags=_version_tags(challenger, reference, verdict),
                description=" ".join(verdict.reasons),
            )
            return int(created.version)

    def aliases(self, model: str) -> dict[str, int]:
        """Version numbers by alias; empty for a model that has no version yet."""
        with self._answering():
            found = self._or_none(lambda: self.client.get_registered_model(model))
            return {alias: int(number) for alias, number in found.aliases.items()} if found else {}

    def move(self, model: str, alias: Alias, version: int | None) -> None:
        """Point an alias at a version, or at none."""
        with self._answering():
            if version is None:
                self.client.delete_registered_model_alias(model, alias)
            else:
                self.client.set_registered_model_alias(model, alias, str(version))

    def champion(self, model: str) -> Version | None:
        """The version that serves."""
        number = self.aliases(model).get("champion")
        return None if number is None else self.version(model, number)

    def version(self, model: str, number: int) -> Version:
        """A version by its number; raises VersionUnknown."""
        with self._answering():
            found = self._or_none(lambda: self.client.get_model_version(model, str(number)))
        if found is None or REFERENCE not in found.tags:
            known = ", ".join(str(version.number) for version in self.versions(model)) or "none yet"
            raise VersionUnknown(
                f"{model} has no such version", got=number, allowed=known, do="`steward status` lists them"
            )
        return _version(found, self.aliases(model))

    def versions(self, model: str) -> list[Version]:
        """Every version that Steward registered, newest first."""
        with self._answering():
            aliases = self.aliases(model)
            found = self._pages(lambda token: self.client.search_model_versions(f"name = '{model}'", page_token=token))
        versions = [_version(item, aliases) for item in found if REFERENCE in item.tags]
        return sorted(versions, key=lambda version: -version.number)

    @cached_property
    def client(self) -> Any:
        """MLflow's own client; the database is created, or found, by one process at a time."""
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        for name in ("mlflow", "alembic", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        import mlflow.store.db.utils
        from mlflow import MlflowClient

        mlflow.store.db.utils.MAX_RETRY_COUNT = DATABASE_ATTEMPTS
        with self._locked(), self._answering():
            self._wait_for_database()
            client = MlflowClient(self.tracking_uri, self.tracking_uri)
            client.search_registered_models(max_results=1)
            return client

    @property
    def _embedded(self) -> bool:
        return not self.tracking_uri.startswith(("http://", "https://", "databricks"))

    def _wait_for_database(self) -> None:
        """A locked SQLite file is noticed here within seconds; MLflow itself would wait for each of its statements."""
        path = self.tracking_uri.removeprefix("sqlite:///")
        if path != self.tracking_uri:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.rollback()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time on this machine: MLflow has no "create unless there", and its migrations race."""
        with self._threads:
            if self._holding:
                yield
                return
            with self._answering():
                self.home.mkdir(parents=True, exist_ok=True)
                stream = (self.home / "mlflow.lock").open("w")
            with stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                self._holding = True
                try:
                    yield
                finally:
                    self._holding = False

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turns every way in which MLflow can be away into RegistryUnavailable."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except MlflowException as problem:
            if problem.error_code not in ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "BAD_REQUEST"):
                raise
            raise self._unavailable(problem) from problem
        except (SQLAlchemyError, sqlite3.Error, OSError) as problem:
            raise self._unavailable(problem) from problem

    def _unavailable(self, problem: Exception) -> RegistryUnavailable:
        reason = " ".join(str(problem).split())
        return RegistryUnavailable(
            "MLflow does not answer",
            got=_without_password(f"{self.tracking_uri}: {reason}")[:400],
            do="Check MLFLOW_TRACKING_URI and that its server or database is up, then run again",
        )

    def _experiment(self, model: str) -> str:
        found = self.client.get_experiment_by_name(model)
        if found:
            return str(found.experiment_id)
        location = (self.home / "mlflow-artifacts" / model).absolute().as_uri() if self._embedded else None
        return str(self.client.create_experiment(model, artifact_location=location))

    def _find_run(self, experiment: str, tags: Mapping[str, str], *, finished: bool = False) -> str | None:
        """The oldest run with these tags. With `finished`, runs that a kill left half-written are deleted."""
        condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        runs = self.client.search_runs([experiment], condition, order_by=["attributes.start_time ASC"])
        if finished:
            for run in [run for run in runs if run.info.status == "RUNNING"]:
                self.client.delete_run(run.info.run_id)
            runs = [run for run in runs if run.info.status != "RUNNING"]
        return str(runs[0].info.run_id) if runs else None

    def _create_run(self, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        return str(self.client.create_run(experiment, tags=dict(tags), run_name=name).info.run_id)

    def _log_result(self, run_id: str, candidate: Candidate) -> None:
        """Parameters, results and the search's curve, in as few calls as MLflow allows."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(datetime.now(UTC).timestamp() * 1_000)
        metrics = [Metric(name, value, now, step) for name, value, step in _metrics(candidate)]
        params = [Param(name, str(value)[:PARAM_LENGTH]) for name, value in candidate.params.items()]
        tags = [RunTag("steward.error", candidate.error)] if candidate.error else []
        self.client.log_batch(run_id, metrics[:METRICS_PER_BATCH], params[:100], tags)
        for start in range(METRICS_PER_BATCH, len(metrics), METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics[start : start + METRICS_PER_BATCH])

    def _log_files(self, run_id: str, files: Mapping[str, bytes], folder: str) -> None:
        if files:
            with tempfile.TemporaryDirectory() as local:
                for name, content in files.items():
                    Path(local, name).write_bytes(content)
                self.client.log_artifacts(run_id, local, folder)

    def _log_model(
        self, challenger: Challenger, run_id: str | None, skops: Path, onnx: Path | None, types: Sequence[str]
    ) -> str:
        """The challenger's files as an MLflow model; answers MLflow's id for it."""
        experiment = self._experiment(challenger.model)
        condition = f"tags.`{CHALLENGER}` = '{challenger.digest}'"
        for found in self.client.search_logged_models([experiment], condition):
            if str(found.status) == "READY":
                return str(found.model_id)
            self.client.delete_logged_model(found.model_id)
        logged = self.client.create_logged_model(
            experiment,
            name=challenger.name,
            source_run_id=run_id,
            tags={CHALLENGER: challenger.digest},
            params={name: str(value)[:PARAM_LENGTH] for name, value in challenger.params.items()},
        )
        with tempfile.TemporaryDirectory() as local:
            _write_model_folder(Path(local), challenger, run_id, logged.model_id, skops, onnx, types)
            self.client.log_model_artifacts(logged.model_id, local)
        self.client.finalize_logged_model(logged.model_id, "READY")
        return str(logged.model_id)

    def _ensure_registered(self, model: str, description: str) -> None:
        if self._or_none(lambda: self.client.get_registered_model(model)) is None:
            self.client.create_registered_model(model, description=description)

    def _find_version(self, model: str, digest: str) -> Any:
        found = self.client.search_model_versions(f"name = '{model}' and tags.`{CHALLENGER}` = '{digest}'")
        return min(found, key=lambda version: int(version.version)) if found else None

    def _or_none(self, ask: Callable[[], Any]) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return ask()
        except MlflowException as problem:
            if problem.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _pages(self, ask: Callable[[str | None], Any]) -> Iterator[Any]:
        token = None
        while True:
            page = ask(token)
            yield from page
            token = page.token
            if not token:
                return


def _tags(facts: Mapping[str, str] | None) -> dict[str, str]:
    return {f"steward.{name}": str(value) for name, value in (facts or {}).items()}


def _metrics(candidate: Candidate) -> Iterator[tuple[str, float, int]]:
    """Name, value and step; steps are trial numbers."""
    if candidate.validation:
        yield f"validation_{candidate.metric}", candidate.validation.value, 0
        yield f"validation_{candidate.metric}_low", candidate.validation.low, 0
        yield f"validation_{candidate.metric}_high", candidate.validation.high, 0
    if candidate.loss is not None:
        yield "validation_loss", candidate.loss, 0
    for name in ("search_seconds", "fit_seconds", "latency_us", "bytes"):
        yield name, float(getattr(candidate, name)), 0
    best = float("inf")
    for trial in candidate.trials:
        if trial.loss is not None:
            best = min(best, trial.loss)
            yield "trial_loss", trial.loss, trial.number
            yield "best_loss", best, trial.number


def _version_tags(challenger: Challenger, reference: Reference, verdict: Verdict) -> dict[str, str]:
    return {
        CHALLENGER: challenger.digest,
        REFERENCE: canonical_json(reference.as_json()),
        "steward.verdict": verdict.verdict,
        "steward.reason": " ".join(verdict.reasons)[:PARAM_LENGTH],
        "steward.snapshot": challenger.fingerprint,
        "steward.commit": challenger.commit or "",
        "steward.candidate_name": challenger.name,
        "steward.engine": challenger.engine,
    }


def _version(found: Any, aliases: Mapping[str, int]) -> Version:
    return Version(
        model=found.name,
        number=int(found.version),
        digest=found.tags[CHALLENGER],
        challenger=Reference.model_validate_json(found.tags[REFERENCE]),
        verdict=found.tags.get("steward.verdict", ""),
        reason=found.tags.get("steward.reason", ""),
        aliases=tuple(sorted(alias for alias, number in aliases.items() if number == int(found.version))),
        run_id=found.run_id or None,
        at=datetime.fromtimestamp(found.creation_timestamp / 1_000, UTC),
    )


def _write_model_folder(
    folder: Path,
    challenger: Challenger,
    run_id: str | None,
    model_id: str,
    skops: Path,
    onnx: Path | None,
    types: Sequence[str],
) -> None:
    """A folder that MLflow can show and load. `log_model` would infer the requirements by importing everything."""
    from mlflow.models import Model, ModelSignature
    from mlflow.models.utils import _save_example

    (folder / "model.skops").write_bytes(skops.read_bytes())
    if onnx:
        (folder / "model.onnx").write_bytes(onnx.read_bytes())
    requirements = [f"{name}=={version}" for name, version in challenger.packages.items() if name != "python"]
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    model = Model(
        run_id=run_id,
        model_id=model_id,
        signature=ModelSignature(inputs=_schema(challenger), outputs=_answer_schema(challenger)),
        metadata={"challenger": challenger.digest, "engine": challenger.engine, "snapshot": challenger.fingerprint},
        model_size_bytes=challenger.skops.bytes,
    )
    _save_example(model, _example(challenger), str(folder))
    model.add_flavor(
        "python_function",
        loader_module="mlflow.sklearn",
        model_path="model.skops",
        predict_fn="predict",
        python_version=challenger.packages.get("python"),
        env={"virtualenv": "python_env.yaml"},
    )
    model.add_flavor(
        "sklearn",
        pickled_model="model.skops",
        sklearn_version=challenger.packages.get("scikit-learn"),
        serialization_format="skops",
        skops_trusted_types=list(types),
        code=None,
    )
    (folder / "python_env.yaml").write_text(
        f"python: {challenger.packages.get('python')}\ndependencies: [-r requirements.txt]\n", encoding="utf-8"
    )
    model.save(str(folder / "MLmodel"))


def _schema(challenger: Challenger) -> Any:
    from mlflow.types import ColSpec, DataType, Schema

    columns = (
        ColSpec(DataType.string if kind == "category" else DataType.double, name, required=False)
        for name, kind in challenger.inputs.items()
    )
    return Schema(list(columns))


def _answer_schema(challenger: Challenger) -> Any:
    from mlflow.types import ColSpec, DataType, Schema

    return Schema([ColSpec(DataType.string if challenger.classes else DataType.double, "prediction")])


def _example(challenger: Challenger) -> Any:
    import pandas as pd

    values = {
        name: value if kind == "category" or value is None else float(value)
        for name, kind in challenger.inputs.items()
        for value in [challenger.example.get(name)]
    }
    return pd.DataFrame([values])


def _without_password(text: str) -> str:
    return re.sub(r"(?<=//)[^/@\s]*@", "", text)
