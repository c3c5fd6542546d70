"""Follows the ledger: which version of each model serves, without a restart.

A thread looks at the model files and at the newest promotion of each model every second, loads what is new, and then
replaces a model's whole lineup in one assignment. Requests only ever read that one reference.
"""

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from steward.config import ModelFile, Settings
from steward.core.actions import Policy
from steward.core.answers import Answering
from steward.core.requests import Reader
from steward.errors import StewardError
from steward.inference import Predictor, registration, trained_as
from steward.io.ledger import Entry, Ledger
from steward.io.workspace import Workspace
from steward.records import Challenger, Promotion
from steward.serving.lineup import Contender, Engine, Fallback, Lineup

INTERVAL = 1.0
"""Seconds between two looks."""
RETRY_SECONDS = 30.0
"""A version that could not be loaded is tried again after this."""
LOCK_SECONDS = 2.0
KEPT = 4
"""Loaded versions of one model that are kept, so that going back and forth loads nothing twice."""

journal = logging.getLogger("steward.serving")


class Standing(NamedTuple):
    """What the ledger says about a model."""

    sequence: int = 0
    champion: int | None = None
    previous: int | None = None


class ReadFile(NamedTuple):
    """A model file as it was read: a change of the stamp means that it was written since."""

    stamp: tuple[int, int, int]
    model: ModelFile | None
    problem: str | None


class Failure(NamedTuple):
    problem: str
    retry_at: float


class Versions:
    """The lineups of every model, kept current by a thread.

    Attributes
    ----------
    lineups : by model; replaced, never changed.
    problems : what is missing, by model or, about the ledger, under an empty name.
    is_complete : was everything looked at once?
    """

    def __init__(self, settings: Settings, interval: float = INTERVAL) -> None:
        self.lineups: Mapping[str, Lineup] = MappingProxyType({})
        self.problems: Mapping[str, tuple[str, ...]] = MappingProxyType({})
        self.is_complete = False
        self._settings = settings
        self._workspace = Workspace(settings)
        self._ledger = Ledger(settings.ledger_url, LOCK_SECONDS)
        self._interval = interval
        self._files: dict[Path, ReadFile] = {}
        self._standings: dict[str, Standing] = {}
        self._engines: dict[tuple[str, int], Engine] = {}
        self._failures: dict[tuple[str, int], Failure] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="versions", daemon=True)

    def start(self) -> None:
        """Look for the first time, then go on in a thread."""
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._interval)
        for engine in self._engines.values():
            engine.close()

    def numbers(self) -> dict[str, dict[str, int | None]]:
        """Champion and previous version by model."""
        return {name: {"champion": each.champion, "previous": each.previous} for name, each in self.lineups.items()}

    def missing(self) -> dict[str, list[str]]:
        """What stands between each model and its champion's answers; empty if all is well."""
        found = {name: list(texts) for name, texts in self.problems.items()}
        for name, lineup in self.lineups.items():
            resting = [f"version {c.engine.number} {c.engine.problem}" for c in lineup.contenders if c.engine.problem]
            texts = [*lineup.problems, *resting]
            if lineup.champion is None:
                texts.append("no champion yet")
            if texts:
                found.setdefault(name, []).extend(texts)
        return found

    def refresh(self) -> None:
        """Look once; raises nothing that belongs to one model or to the ledger."""
        problems: dict[str, tuple[str, ...]] = {}
        models = self._read_files(problems)
        self._ask_ledger(models, problems)
        self.lineups = MappingProxyType({name: self._lineup(model) for name, model in models.items()})
        self.problems = MappingProxyType(problems)
        self.is_complete = True

    def _follow(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self.refresh()
            except Exception:  # noqa: BLE001 - the thread must go on, whatever it meets
                journal.exception("the service goes on with the versions it has")

    def _read_files(self, problems: dict[str, tuple[str, ...]]) -> dict[str, ModelFile]:
        """Every model file that can be read, or could be once."""
        files = {}
        for path in self._settings.model_paths():
            files[path] = self._read_file(path)
            if problem := files[path].problem:
                problems[path.stem] = (problem,)
        self._files = files
        return {path.stem: read.model for path, read in files.items() if read.model is not None}

    def _read_file(self, path: Path) -> ReadFile:
        known = self._files.get(path)
        try:
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if known and known.stamp == stamp:
                return known
            return ReadFile(stamp, self._settings.model(path.stem), None)
        except (StewardError, OSError) as problem:
            journal.warning("model file %s is not used: %s", path.stem, problem)
            what = f"the model file cannot be used ({type(problem).__name__})"
            return ReadFile(known.stamp if known else (0, 0, 0), known.model if known else None, what)

    def _ask_ledger(self, models: Mapping[str, ModelFile], problems: dict[str, tuple[str, ...]]) -> None:
        try:
            for name in models:
                newest = self._ledger.entries(name, Promotion.kind, newest_first=True, limit=1)
                self._standings[name] = _standing(newest[0]) if newest else Standing()
        except StewardError as problem:
            journal.warning("the ledger is away; the service goes on with what it knows: %s", problem)
            problems[""] = (f"the ledger does not answer ({problem.name})",)

    def _lineup(self, model: ModelFile) -> Lineup:
        """The lineup as it should be now; the old one if nothing has changed."""
        standing = self._standings.get(model.name, Standing())
        old = self.lineups.get(model.name)
        if old and old.model is model and old.sequence == standing.sequence and not self._is_retry_due(old):
            return old
        problems: list[str] = []
        places: list[tuple[int | None, Fallback | None]] = [(standing.champion, None)]
        if standing.previous != standing.champion:
            places.append((standing.previous, "previous"))
        contenders = []
        for number, fallback in places:
            engine = None if number is None else self._engine(model, number, problems)
            if engine:
                contenders.append(_contender(engine, model, fallback))
        self._forget_old(model.name, {each.engine.number for each in contenders})
        journal.info("%s: version %s serves, %s before", model.name, standing.champion, standing.previous)
        return Lineup(
            model, tuple(contenders), standing.champion, standing.previous, standing.sequence, tuple(problems)
        )

    def _is_retry_due(self, lineup: Lineup) -> bool:
        failures = [
            self._failures.get((lineup.model.name, number or 0)) for number in (lineup.champion, lineup.previous)
        ]
        return any(failure and time.monotonic() >= failure.retry_at for failure in failures)

    def _engine(self, model: ModelFile, number: int, problems: list[str]) -> Engine | None:
        """A version, loaded; None, and a problem more, if that is not possible now."""
        place = (model.name, number)
        engine = self._engines.pop(place, None)
        failure = self._failures.get(place)
        if engine is None and (failure is None or time.monotonic() >= failure.retry_at):
            try:
                engine = Engine(number, Predictor.load(self._workspace, self._made(model.name, number)))
                self._failures.pop(place, None)
            except Exception as problem:  # noqa: BLE001 - whatever is wrong with a version, the others serve
                journal.warning("version %s of %s cannot be loaded: %s", number, model.name, problem)
                failure = Failure(f"version {number}: {type(problem).__name__}", time.monotonic() + RETRY_SECONDS)
                self._failures[place] = failure
        if engine is not None:
            self._engines[place] = engine  # at the end: used last
        elif failure is not None:
            problems.append(failure.problem)
        return engine

    def _made(self, name: str, number: int) -> Challenger:
        """What a version was trained as; the pipeline's own entry about it leads there."""
        return trained_as(self._workspace, registration(self._ledger.entries(name, Promotion.kind), name, number))

    def _forget_old(self, name: str, used: set[int]) -> None:
        """The engines of a model that were used longest ago; a request that still has one can finish."""
        mine = [number for model, number in self._engines if model == name]
        for number in [number for number in mine if number not in used][: max(0, len(mine) - KEPT)]:
            self._engines.pop((name, number)).close()


def _standing(entry: Entry) -> Standing:
    body: Mapping[str, Any] = entry.body
    return Standing(entry.sequence, body["champion"], body["previous"])


def _contender(engine: Engine, model: ModelFile, fallback: Fallback | None) -> Contender:
    """A version that reads records by its own contract and is treated as the model file says now."""
    predictor = engine.predictor
    policy = Policy(model.serve.actions)
    answering = Answering(predictor.made.classes, policy, predictor.half_width)
    return Contender(engine, Reader(predictor.model, model.serve), answering, fallback)
