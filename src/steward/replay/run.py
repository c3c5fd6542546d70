"""A replay from the beginning to the end: the past, the first version, every policy, and what they led to."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from steward.config import ModelFile, Settings, format_duration
from steward.core import metrics
from steward.errors import ReplayRefused
from steward.io.store import scratch_folder, sha256_of
from steward.io.workspace import Workspace
from steward.processes import workers
from steward.records import digest_of
from steward.replay import governed, plain, results
from steward.replay.delays import Delay
from steward.replay.past import ASKED, TABLE, Past, Window, prepare, windows
from steward.replay.policies import Policy, shipped
from steward.replay.results import Facts, Judge, Replay
from steward.replay.stage import Place, replayed
from steward.reports import replay as pages

WINDOWS = 20
"""How many, unless somebody says otherwise."""
POLL = 0.5
"""Seconds between two looks at how far the others are."""


@dataclass(frozen=True)
class Progress:
    """How far a replay is, in windows and trainings."""

    done: int
    total: int
    what: str


OnProgress = Callable[[Progress], None]


def replay(
    model: ModelFile,
    settings: Settings,
    *,
    start: datetime | None = None,
    windows: int | None = None,
    every: timedelta | None = None,
    label_delay: str | None = None,
    policies: Sequence[str | Policy] | None = None,
    seed: int = 0,
    jobs: int | None = None,
    fresh: bool = False,
    on_event: OnProgress = lambda _: None,
) -> Replay:
    """Play the past of a model as if Steward had been running, under several policies.

    Nothing of production is written: everything is in a folder named by what decides the replay, so that the same replay again
    goes on where it stopped, and another policy is added to those that were played.

    Parameters
    ----------
    start : what is older is known when the replay begins; after a quarter of the rows if None.
    windows, every : so many windows of equally many rows (20 if neither is given), or windows of such a length.
    label_delay : see `Delay.parse`; `label.mature_after` if None.
    policies : see `Policy.parse`; never, every window, every fifth, the floor and Steward as configured if None.
    seed : of delays that are drawn.
    jobs : processes; `settings.jobs` if None.
    fresh : forget an earlier replay of the same.

    Raises
    ------
    ReplayRefused : no times, too few rows, or a policy that cannot be read.
    SourceMissing, SourceUnreadable, SourceUnavailable
    """
    if windows is not None and every is not None:
        raise ReplayRefused("a replay has windows of so many rows, or of such a length", do="Give --windows or --every")
    chosen = _chosen(policies, model)
    delay = Delay.parse(label_delay or format_duration(model.label.mature_after))
    played = replayed(model)
    place, says = _place(settings, played, delay, (start, windows, every, seed), fresh=fresh)
    past = plain.past_of(place.past, played)
    course = _Course(place, played, past, _windows(past, start, windows, every), chosen, says)
    course.play(settings.jobs if jobs is None else jobs, on_event)
    return course.result(label_delay or format_duration(model.label.mature_after), seed)


def write_page(replay: Replay) -> Path:
    """Write the replay as an HTML page, and as JSON, into its folder; answers the page's path."""
    folder, document = Path(replay.folder), replay.as_json()
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / "replay.json").write_text(text, encoding="utf-8")
    page = folder / "replay.html"
    page.write_text(pages.render(document, replay.seconds), encoding="utf-8")
    return page


def _chosen(policies: Sequence[str | Policy] | None, model: ModelFile) -> tuple[Policy, ...]:
    named = policies if policies is not None else shipped(model)
    read = [one if isinstance(one, Policy) else Policy.parse(one, model) for one in named]
    if not read:
        raise ReplayRefused("a replay needs at least one policy", do="Name one with --policies")
    return tuple({one.name: one for one in read}.values())


def _windows(past: Past, start: datetime | None, count: int | None, every: timedelta | None) -> tuple[Window, ...]:
    return windows(past, start, count=count or (None if every else WINDOWS), every=every)


def _place(
    settings: Settings, model: ModelFile, delay: Delay, asked: tuple[Any, ...], *, fresh: bool
) -> tuple[Place, tuple[str, ...]]:
    """The folder of this replay; the source is read into it. What a person should know of the past."""
    workspace, parent = Workspace(settings), settings.home / "replays"
    seed = asked[-1]
    with scratch_folder(parent / "work") as arriving:
        says = prepare(workspace, model, delay, arriving / "past", seed)
        content = [sha256_of(arriving / "past" / name) for name in (TABLE, ASKED)]
        known = [model.model_dump(mode="json", by_alias=True), [str(one) for one in asked], content, workspace.code]
        place = Place(parent / f"{model.name}-{digest_of(*known)[:12]}", settings)
        if fresh:
            place.remove()
        if not place.past.exists():
            place.folder.mkdir(parents=True, exist_ok=True)
            (arriving / "past").rename(place.past)
    return place, says


@dataclass(frozen=True)
class _Course:
    """A replay that is being played."""

    place: Place
    model: ModelFile
    past: Past
    windows: Sequence[Window]
    policies: Sequence[Policy]
    says: tuple[str, ...]

    @property
    def trainings(self) -> plain.Trainings:
        return plain.Trainings(self.place, self.model, self.windows)

    @property
    def looking(self) -> list[Policy]:
        return [one for one in self.policies if one.governed]

    @property
    def counted(self) -> list[int]:
        """Windows at whose end a plain training is sure to happen; what the last one would teach serves nobody."""
        wanted = (one for one in self.policies if not one.governed)
        return sorted({window.number for one in wanted for window in self.windows[:-1] if one.asks(window.number)})

    def play(self, jobs: int, on_event: OnProgress) -> None:
        total = len(self.looking) * len(self.windows) + len(self.counted) + 1
        on_event(Progress(0, total, "first version"))
        self._first()
        self.trainings.train(0)
        if jobs == 1:
            self._play_here(total, on_event)
        else:
            self._play_side_by_side(jobs, total, on_event)
        on_event(Progress(total, total, "done"))

    def _play_here(self, total: int, on_event: OnProgress) -> None:
        with threadpool_limits(self.place.settings.threads):
            for policy in self.looking:
                self._governed(policy).run(lambda _: on_event(Progress(self._done(), total, "windows")))
            for number in self.counted:
                self.trainings.train(number)
                on_event(Progress(self._done(), total, "plain trainings"))

    def _play_side_by_side(self, jobs: int, total: int, on_event: OnProgress) -> None:
        settings, folder = self.place.settings, self.place.folder
        with workers(jobs, threadpool_limits, settings.threads) as pool:
            waiting: set[Future[Any]] = {
                pool.submit(_governed_there, settings, folder, self.model, self.windows, policy)
                for policy in self.looking
            }
            waiting |= {
                pool.submit(plain.train_there, settings, folder, self.model, self.windows, number)
                for number in self.counted
            }
            while waiting:
                done, waiting = wait(waiting, POLL, FIRST_COMPLETED)
                for one in done:
                    one.result()
                on_event(Progress(self._done(), total, "windows and trainings"))

    def _governed(self, policy: Policy) -> governed.Course:
        return governed.Course(self.place, policy, slug(policy), self.past, self.windows, self.model)

    def _done(self) -> int:
        played = sum(
            (self.place.of(slug(one)) / f"{window.number}.json").exists()
            for one in self.looking
            for window in self.windows
        )
        trained = sum((self.place.folder / "plain" / f"{number}.json").exists() for number in self.counted)
        return 1 + played + trained

    def result(self, label_delay: str, seed: int) -> Replay:
        judge = Judge(self.model, self.past)
        never = self.trainings.answers(0)
        if never is None:
            raise ReplayRefused("there is no first version", do="Run the replay again with --fresh")
        first = self._first()
        courses, seconds = [], {"first": [first["seconds"]], "plain": self._plain_seconds()}
        for policy in self.policies:
            facts, tests = self._facts(policy, first)
            courses.append(results.course_of(judge, policy, facts, np.asarray(never), tests))
            seconds[policy.name] = self._seconds(policy)
        return Replay(
            model=self.model.name,
            metric=self.model.metric,
            larger_is_better=metrics.larger_is_better(self.model.metric),
            start=self.windows[0].start,
            end=self.windows[-1].end,
            rows=len(never),
            before=len(self.past) - len(never),
            label_delay=label_delay,
            seed=seed,
            policies=tuple(courses),
            recommendation=results.recommend(courses, self.model.metric),
            says=(*self.says, *first["says"], *self._noticed()),
            seconds=results.seconds_of(seconds),
            folder=str(self.place.folder),
        )

    def _first(self) -> dict[str, Any]:
        start = self.windows[0].start
        return governed.first_version(self.place, self.past.model_at(start, start), start)

    def _facts(self, policy: Policy, first: dict[str, Any]) -> tuple[list[Facts], dict[int, float]]:
        """What a policy left behind, window by window, and what the openings of its versions showed."""
        if not policy.governed:
            return [_of_plain(one) for one in plain.play(self.trainings, policy)], {}
        name, tests = slug(policy), {}
        for made in [first, *(self._document(name, window) for window in self.windows)]:
            training = made["training"]
            if training and training["test"]:
                tests[training["version"]] = training["test"]["value"]
        left = [_of_governed(self.place, name, window, self._document(name, window)) for window in self.windows]
        return left, tests

    def _document(self, name: str, window: Window) -> dict[str, Any]:
        path = self.place.of(name) / f"{window.number}.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def _seconds(self, policy: Policy) -> list[dict[str, float]]:
        if not policy.governed:
            return []
        return [self._document(slug(policy), window)["seconds"] for window in self.windows]

    def _plain_seconds(self) -> list[dict[str, float]]:
        paths = sorted((self.place.folder / "plain").glob("*.json"))
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    def _noticed(self) -> Iterable[str]:
        """What of the windows a person should know."""
        empty = [one.number for one in self.windows if not _rows(self.past.asked(one))]
        unlabelled, one_class = [], []
        for window in self.windows:
            rows = self.past.asked(window)
            known = self.past.truth[rows][self.past.labelled[rows]]
            if _rows(rows) and not len(known):
                unlabelled.append(window.number)
            if self.model.classes and len(known) and len(set(known)) == 1:
                one_class.append(window.number)
        yield from (
            f"{_numbers(found)} {what}"
            for found, what in (
                (empty, "without rows: a gap in the times"),
                (unlabelled, "without a label: nothing is known of how good the answers were"),
                (one_class, "with labels of one class only"),
            )
            if found
        )


def _rows(rows: slice) -> int:
    return int(rows.stop - rows.start)


def _numbers(found: Sequence[int]) -> str:
    shown = ", ".join(map(str, found[:10])) + (", …" if len(found) > 10 else "")  # noqa: PLR2004
    return f"window {shown} is" if len(found) == 1 else f"{len(found)} windows ({shown}) are"


def slug(policy: Policy) -> str:
    """A folder's name for a policy."""
    name = re.sub(r"[^a-z0-9]+", "-", policy.name.lower()).strip("-")[:40]
    return f"{name}-{hashlib.sha256(policy.name.encode()).hexdigest()[:8]}"


def _governed_there(
    settings: Settings, folder: Path, model: ModelFile, windows: Sequence[Window], policy: Policy
) -> None:
    """A governed policy in another process."""
    place = Place(folder, settings)
    governed.Course(place, policy, slug(policy), plain.past_of(place.past, model), windows, model).run()


def _of_plain(one: plain.Served) -> Facts:
    training = {"verdict": None, "promoted": True} if one.trained else None
    return Facts(one.window, one.version, one.raw, one.rival, one.reason, training, one.error)


def _of_governed(place: Place, name: str, window: Window, made: dict[str, Any]) -> Facts:
    raw = governed.raw_answers(place, name, window.number)
    refused = made["refused"] and f"{made['refused']['error']}: {made['refused']['what']}"
    return Facts(
        window=window,
        version=made["version"],
        raw=np.zeros(0) if raw is None else raw,
        rival=governed.raw_answers(place, name, window.number, rival=True),
        reason=made["decision"] and made["decision"]["reason"],
        training=made["training"],
        refused=refused or None,
        look=made["look"],
    )
