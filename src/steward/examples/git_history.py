"""A git repository as a table to learn from: what was known when a commit was made, and whether a fix blamed it later.

The measures are those of Kamei et al., A large-scale empirical study of just-in-time quality assurance, 2013, without the
names of people. A row is `buggy` if, within so many days, a fix took away lines that the commit had written (see `git`).
Only then is it known to be clean: a commit that is younger has no label yet, and `label_at` says when each label came.
"""

import re
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from math import log2
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from steward.errors import OutputRefused, SourceUnreadable
from steward.examples.git import FIX, Change, Commit, Repository, is_fix

OUTPUT = Path("data/commits.parquet")
WITHIN = timedelta(days=180)
"""How long a fix may take to blame a commit; `label.mature_after` of models/commit_risk.yaml is the same."""
RECENT = timedelta(days=90).total_seconds()
DAY = 86_400
FORMATS = (".parquet", ".csv")

OnBlame = Callable[[int, int], None]
"""Takes how many fixes have been asked whom they blame, and of how many."""


@dataclass(frozen=True)
class Written:
    """What `write` found, and where it put it."""

    repository: str
    output: str
    rows: int
    buggy: int
    clean: int
    unknown: int
    """Commits that are too young to be known to be clean."""
    fixes: int
    first: str
    last: str

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, for `--json`."""
        return asdict(self)


def write(
    repository: Repository,
    output: Path = OUTPUT,
    *,
    revision: str = "HEAD",
    limit: int | None = None,
    within: timedelta = WITHIN,
    fix: str = FIX,
    jobs: int = 1,
    on_blame: OnBlame | None = None,
) -> Written:
    """Read a repository's history and write it as a Parquet or CSV file.

    Parameters
    ----------
    limit : only the newest so many commits become rows; what their authors and files did before still counts.
    within : how long a fix may take to blame a commit.
    fix : regular expression; a commit whose subject has it mends something.
    jobs : fixes that are looked into at the same time.

    Raises
    ------
    SourceUnreadable : the repository has no commits, or none of them is a fix.
    OutputRefused : the file is neither Parquet nor CSV, or cannot be written.
    """
    if output.suffix not in FORMATS:
        raise OutputRefused("the table has no such format", got=str(output), allowed=" or ".join(FORMATS))
    commits = list(repository.commits(revision))
    says = re.compile(fix, re.IGNORECASE)
    fixes = [commit for commit in commits if is_fix(commit.message, says)]
    if not fixes:
        raise SourceUnreadable(
            "no commit of this history is a fix, so nothing would ever be blamed",
            got=f"{len(commits)} commits that are no merges",
            do="Say with --fix how subjects of fixes read here",
        )
    rows = commits[-limit:] if limit else commits
    begin = min(commit.time for commit in rows)
    later = [commit for commit in fixes if commit.time >= begin]
    blamed = blamed_at(repository, later, within, jobs=jobs, on_blame=on_blame)
    frame = table(rows, commits, fixes, blamed, within)
    _keep(frame, output)
    return _written(repository, output, frame, len(fixes))


def _written(repository: Repository, output: Path, frame: pd.DataFrame, fixes: int) -> Written:
    buggy, times = frame["buggy"], frame["committed_at"]
    return Written(
        repository=str(repository.path),
        output=str(output),
        rows=len(frame),
        buggy=int(buggy.sum()),
        clean=int((~buggy).sum()),
        unknown=int(buggy.isna().sum()),
        fixes=fixes,
        first=times.min().isoformat(),
        last=times.max().isoformat(),
    )


def blamed_at(
    repository: Repository, fixes: Sequence[Commit], within: timedelta, *, jobs: int, on_blame: OnBlame | None = None
) -> dict[str, int]:
    """Per blamed commit, when the first fix blamed it, in seconds since 1970."""
    days = int(within.total_seconds())
    first: dict[str, int] = {}
    with ThreadPoolExecutor(jobs) as pool:
        asked = [pool.submit(repository.blamed, fix, max(1, fix.time - days)) for fix in fixes]
        try:
            for done, (fix, answer) in enumerate(zip(fixes, asked, strict=True), 1):
                for name in answer.result():
                    first[name] = min(fix.time, first.get(name, fix.time))
                if on_blame:
                    on_blame(done, len(fixes))
        finally:
            pool.shutdown(cancel_futures=True)
    return first


def table(
    rows: Sequence[Commit],
    commits: Iterable[Commit],
    fixes: Iterable[Commit],
    blamed: Mapping[str, int],
    within: timedelta,
) -> pd.DataFrame:
    """One row per commit, the oldest first: name, time, measures, label, and when the label came.

    Parameters
    ----------
    rows : the commits that become rows; the last of them says how far this history is known.
    commits : the whole history, for what was before them.
    blamed : see `blamed_at`.
    """
    wanted, mending = {commit.name for commit in rows}, {commit.name for commit in fixes}
    past = Past()
    measured = []
    for commit in commits:
        if commit.name in wanted:
            measured.append(_named(commit) | past.measure(commit, fix=commit.name in mending))
        past.add(commit, fix=commit.name in mending)
    frame = pd.DataFrame(measured)
    newest = rows[-1].time
    wait = int(within.total_seconds())
    labels = [_label(commit, blamed.get(commit.name), newest, wait) for commit in rows]
    frame["buggy"] = pd.array([label for label, _ in labels], dtype="boolean")
    frame["label_at"] = pd.Series(
        [at and datetime.fromtimestamp(at, UTC) for _, at in labels], dtype="datetime64[us, UTC]"
    )
    return frame.sort_values("committed_at", kind="stable", ignore_index=True)


@dataclass
class _File:
    """A file so far."""

    since: int
    changed: int
    lines: int = 0
    changes: int = 0
    fixes: int = 0
    authors: "Counter[str]" = field(default_factory=Counter)


class Past:
    """What was known before a commit: add every commit of a history in its order, and measure each before it is added.

    A file keeps its past when it is renamed. On branches side by side "before" is what was committed earlier.
    """

    def __init__(self) -> None:
        self.files: dict[bytes, _File] = {}
        self.authored: dict[str, list[int]] = {}

    def measure(self, commit: Commit, *, fix: bool) -> dict[str, Any]:
        """The row of a commit; means over files are over those that are not new."""
        changes = commit.changes
        known = [found for change in changes if (found := self.files.get(change.before))]
        authored = self.authored.get(commit.author, [])
        paths = [change.path.rpartition(b"/")[0] for change in changes]
        return {
            "files": len(changes),
            "new_files": len(changes) - len(known),
            "code_files": sum(change.has_code for change in changes),
            "directories": len(set(paths)),
            "subsystems": len({path.partition(b"/")[0] for path in paths}),
            "lines_added": sum(change.added for change in changes),
            "lines_deleted": sum(change.deleted for change in changes),
            "spread": spread([change.added + change.deleted for change in changes]),
            "lines_before": _mean(found.lines for found in known),
            "fix": fix,
            "hour": commit.hour,
            "weekday": commit.weekday,
            "earlier_changes": _mean(found.changes for found in known),
            "earlier_fixes": _mean(found.fixes for found in known),
            "authors_before": len({name for found in known for name in found.authors}),
            "file_age_days": _mean(max(0, commit.time - found.since) / DAY for found in known),
            "days_since_change": _mean(max(0, commit.time - found.changed) / DAY for found in known),
            "author_commits": len(authored),
            "author_recent_commits": len(authored) - bisect_right(authored, commit.time - RECENT),
            "author_changes_here": _mean(found.authors[commit.author] for found in known),
        }

    def add(self, commit: Commit, *, fix: bool) -> None:
        """Let a commit become part of the past."""
        insort(self.authored.setdefault(commit.author, []), commit.time)
        for change in commit.changes:
            self._change(change, commit, fix=fix)

    def _change(self, change: Change, commit: Commit, *, fix: bool) -> None:
        file = self.files.get(change.before) or _File(commit.time, commit.time)
        self.files[change.path] = file
        file.lines = max(0, file.lines + change.added - change.deleted)
        file.changed = max(file.changed, commit.time)
        file.changes += 1
        file.fixes += fix
        file.authors[commit.author] += 1


def spread(lines: Sequence[int]) -> float:
    """How evenly changed lines lie over the files: 0 all in one, 1 as many in each; entropy over its largest value.

    >>> spread([10]), spread([5, 5]), round(spread([9, 1]), 3)
    (0.0, 1.0, 0.469)
    """
    total = sum(lines)
    shares = [count / total for count in lines if count]
    return min(1.0, sum(-share * log2(share) for share in shares) / log2(max(2, len(lines))))


def _mean(values: Iterable[float]) -> float | None:
    found: Iterator[float] | list[float] = list(values)
    return float(fmean(found)) if found else None


def _named(commit: Commit) -> dict[str, Any]:
    return {"commit": commit.name, "committed_at": datetime.fromtimestamp(commit.time, UTC)}


def _label(commit: Commit, blamed: int | None, newest: int, wait: int) -> tuple[bool | None, int | None]:
    """Buggy since a fix said so, clean since the wait is over, or not known yet."""
    if blamed is not None and blamed <= commit.time + wait:
        return True, max(blamed, commit.time)
    if commit.time + wait <= newest:
        return False, commit.time + wait
    return None, None


def _keep(frame: pd.DataFrame, output: Path) -> None:
    part = output.with_name(f".{output.name}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.suffix == ".parquet":
            frame.to_parquet(part, index=False)
        else:
            frame.to_csv(part, index=False)
        part.replace(output)
    except OSError as problem:
        raise OutputRefused("the table cannot be written", got=str(problem), do="Name another --output") from problem
