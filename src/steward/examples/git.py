"""A git repository as commits with what each changed, and the commits that a fix blames.

Reads with git itself, in a work tree or a bare repository, and changes nothing there. Who is to blame for a bug is asked
the way of Śliwerski, Zimmermann and Zeller, When do changes induce fixes?, 2005 (SZZ): who last touched the lines that a
fix takes away. Lines without code (blank, brackets, comments) and files without code (documents, tests) blame nobody, and
a change that only moves blanks is no change. A fix that only adds lines blames nobody either: that is the method's limit.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from subprocess import DEVNULL, PIPE
from tempfile import TemporaryFile
from typing import IO

from steward.errors import SourceMissing, SourceUnreadable

FIX = r"\b(fix(e[sd]|ing)?|bug(s|fix|fixes)?|hotfix(es)?|defects?|regressions?|revert(s|ed)?)\b"
"""A commit whose subject says so mends something."""
SAYS_ISSUE = re.compile(r"\bfix(e[sd])?:? +(gh-|issue +)?#?\d+\b", re.IGNORECASE)
"""So does one whose text names the issue, as in "fixes #12"."""
NO_BUG = re.compile(
    r"\b(typos?|docs?|documentation|docstrings?|readme|changelog|spelling|grammar|comments?|tests?|ci|travis|"
    r"lint|pylint|flake8|mypy|style|format(ting)?|whitespace|indent(ation)?|warnings?)\b",
    re.IGNORECASE,
)
"""Except where what is mended is not the program."""
NO_CODE = re.compile(
    rb"(^|/)(docs?|tests?|testing|specs?|fixtures|vendor|third_party|node_modules)/"
    rb"|(^|/)(test_[^/]*|[^/]*[._-](test|spec)\.[^/]*|(change|authors|licen[cs]e|news|readme)[^/]*)$"
    rb"|\.(adoc|csv|lock|markdown|md|po|pot|rst|svg|tsv|txt)$",
    re.IGNORECASE,
)
"""Paths of documents, tests and other people's code."""
NO_CODE_LINE = re.compile(rb"\s*(#(?!\s*(include|define|undef|if|el|end|pragma))|//|/\*|\*\s|\*/|[\s{}()\[\];,]*$)")
MOST_FILES = 50
"""A fix that touches more files with code than this is a sweep through the tree; it blames nobody."""

FIELDS = ("%H", "%ct", "%aE", "%ad", "%P", "%B")
COUNTS = re.compile(rb"\n?(-|\d+)\t(-|\d+)\t(.*)", re.DOTALL)
HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+")
BLAMED = re.compile(rb"^([0-9a-f]{40,64}) \d+ \d+ \d+$")
OWN = ("core.quotePath=true", "log.showSignature=false", "log.showRoot=true")
SETTINGS = [word for setting in (*OWN, "i18n.logOutputEncoding=UTF-8") for word in ("-c", setting)]
"""What would change the answers, if a person has set it otherwise."""
FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS")
BLOCK = 1 << 20


@dataclass(frozen=True)
class Change:
    """What a commit did to one file; the counts of a binary file are 0."""

    path: bytes
    before: bytes
    """Its path before this commit: another one where the file was renamed."""
    added: int
    deleted: int

    @property
    def has_code(self) -> bool:
        return has_code(self.path)


@dataclass(frozen=True)
class Commit:
    """One commit that is no merge."""

    name: str
    """Its hash."""
    time: int
    """When it was committed, in seconds since 1970."""
    author: str
    hour: int
    """By the author's own clock, as is the weekday, of which Monday is 0."""
    weekday: int
    parent: str | None
    """None for the first of a history."""
    message: str
    changes: tuple[Change, ...]


def has_code(path: bytes) -> bool:
    """Can a bug be in this file?

    >>> [has_code(path) for path in (b"src/app.py", b"docs/app.py", b"tests/test_app.py", b"README.md", b"Makefile")]
    [True, False, False, False, True]
    """
    return NO_CODE.search(path) is None


def is_fix(message: str, pattern: "re.Pattern[str]") -> bool:
    """Does a commit say that it mends the program?

    >>> says = re.compile(FIX, re.IGNORECASE)
    >>> [is_fix(text, says) for text in ("Fixed a crash", "Add prefix", "Fix typo", "Sort keys. Fixes #12", "Fixtures")]
    [True, False, False, True, False]
    """
    subject = message.lstrip().split("\n", 1)[0]
    mends = pattern.search(subject) or SAYS_ISSUE.search(message)
    return bool(mends) and not NO_BUG.search(subject)


class Repository:
    """A git repository on this machine.

    Raises
    ------
    SourceMissing : there is no such folder, or no git.
    SourceUnreadable : it is no repository, or one whose history is not all here.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise SourceMissing("there is no such folder", got=str(path), do="Name the folder of a git repository")
        self.path = path
        self.environment = {name: value for name, value in os.environ.items() if name not in FOREIGN} | {
            "LC_ALL": "C",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
        }
        shallow = self._answer("rev-parse", "--is-shallow-repository").strip() == b"true"
        top = self._find("rev-parse", "--show-toplevel")
        self.path = Path(os.fsdecode(top.removesuffix(b"\n"))) if top else path
        if shallow:
            raise SourceUnreadable(
                "this clone is shallow: the commits that a fix would blame are not in it",
                got=str(path),
                do="Run `git fetch --unshallow` in it",
            )
        if self._find("config", "--get", "extensions.partialClone"):
            raise SourceUnreadable(
                "this clone is partial: the contents of old files are not in it",
                got=str(path),
                do="Clone it without --filter",
            )

    def commits(self, revision: str) -> Iterator[Commit]:
        """Every commit up to a revision that is no merge; no child before its parents, otherwise the oldest first.

        Raises SourceUnreadable for a repository without commits, or without this revision.
        """
        self._require(revision)
        form = "--format=" + "%x00".join(FIELDS)
        shape = ("-z", "--numstat", "-M", "--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=all")
        order = ("--no-merges", "--date-order", "--reverse", "--date=format:%H %u")
        return _commits(self._tokens("log", form, *shape, *order, "--end-of-options", revision))

    def _require(self, revision: str) -> None:
        if self._find("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}") is None:
            empty = not self._answer("rev-list", "--all", "--max-count=1").strip()
            raise SourceUnreadable(
                "the repository has no commits" if empty else "the repository has no such branch, tag or commit",
                got=str(self.path) if empty else revision,
                do="Commit something first" if empty else "`git branch --all` lists the branches",
            )

    def blamed(self, fix: Commit, since: int) -> set[str]:
        """Hashes of the commits not older than `since` (seconds) that last touched what a fix takes away."""
        touched = [change for change in fix.changes if change.has_code and change.deleted]
        if fix.parent is None or not touched or len(touched) > MOST_FILES:
            return set()
        shape = ("-p", "-U0", "-w", "-M", "--diff-filter=MR", "--no-color", "--no-ext-diff", "--no-textconv")
        prefixes = ("--src-prefix=a/", "--dst-prefix=b/", "--ignore-submodules=all")
        patch = self._answer("diff-tree", *shape, *prefixes, fix.parent, fix.name)
        blamed: set[str] = set()
        for path, lines in taken_away(patch).items():
            if has_code(path) and lines:
                blamed |= self._last_touched(path, lines, fix.parent, since)
        return blamed

    def _last_touched(self, path: bytes, lines: Iterable[int], revision: str, since: int) -> set[str]:
        spans = [f"-L{first},{last}" for first, last in spans_of(lines)]
        options = ("--incremental", "-w", "--root", "--no-ignore-revs-file", f"--max-age={since}")
        return _blamed(self._answer("blame", *options, *spans, revision, "--", os.fsdecode(path)))

    def _tokens(self, *arguments: str) -> Iterator[bytes]:
        """What git says, cut at every NUL; never all of it in memory."""
        with TemporaryFile() as problems, self._started(*arguments, stderr=problems) as process:
            rest = b""
            for block in iter(lambda: process.stdout.read(BLOCK), b""):  # type: ignore[union-attr]
                *whole, rest = (rest + block).split(b"\0")
                yield from whole
            if process.wait():
                problems.seek(0)
                raise self._unreadable(problems.read())
            if rest:
                yield rest

    def _answer(self, *arguments: str) -> bytes:
        with self._started(*arguments) as process:
            answer, problem = process.communicate()
        if process.returncode:
            raise self._unreadable(problem)
        return answer

    def _find(self, *arguments: str) -> bytes | None:
        """What git says, or None where it finds nothing."""
        with self._started(*arguments) as process:
            answer, _ = process.communicate()
        return None if process.returncode else answer

    def _started(self, *arguments: str, stderr: IO[bytes] | int = PIPE) -> "subprocess.Popen[bytes]":
        command = ["git", "-C", str(self.path), "--no-pager", *SETTINGS, *arguments]
        try:
            return subprocess.Popen(command, stdin=DEVNULL, stdout=PIPE, stderr=stderr, env=self.environment)
        except FileNotFoundError as problem:
            raise SourceMissing("git is not installed", do="Install git 2.30 or later") from problem

    def _unreadable(self, problem: bytes) -> SourceUnreadable:
        said = problem.decode(errors="replace").strip().removeprefix("fatal: ")
        if "not a git repository" in said:
            return SourceUnreadable("this is not a git repository", got=str(self.path), do="Name its folder")
        return SourceUnreadable(
            "git cannot read this repository", got=said or str(self.path), do="Run `git fsck` in it"
        )


def taken_away(patch: bytes) -> dict[bytes, list[int]]:
    r"""Per path before the change, the numbers of the lines with code that a patch without context takes away.

    >>> taken_away(b"--- a/x.py\n+++ b/x.py\n@@ -3,2 +3 @@\n-bad = 1\n-# why\n+good = 1\n")
    {b'x.py': [3]}
    """
    lines: dict[bytes, list[int]] = {}
    path, number, left = b"", 0, 0
    for line in patch.split(b"\n"):
        if left and line.startswith(b"-"):
            if not NO_CODE_LINE.match(line, 1):
                lines[path].append(number)
            number, left = number + 1, left - 1
        elif line.startswith(b"--- "):
            path = _path(line[4:])
            lines[path] = []
        elif hunk := HUNK.match(line):
            number, left = int(hunk[1]), int(hunk[2] or 1)
    return lines


def spans_of(lines: Iterable[int]) -> list[tuple[int, int]]:
    """Line numbers as spans, both ends included.

    >>> spans_of([3, 4, 9])
    [(3, 4), (9, 9)]
    """
    numbers = sorted(lines)
    breaks = [0, *(place for place, (one, other) in enumerate(pairwise(numbers), 1) if other > one + 1), len(numbers)]
    return [(numbers[first], numbers[last - 1]) for first, last in pairwise(breaks)]


def _path(shown: bytes) -> bytes:
    """A path of a patch's header: quoted where it holds anything unusual, followed by a tab where it holds blanks."""
    shown = shown.removesuffix(b"\t")
    if shown.startswith(b'"'):
        shown = shown[1:-1].decode("unicode_escape").encode("latin-1")
    return shown.removeprefix(b"a/")


def _commits(tokens: Iterator[bytes]) -> Iterator[Commit]:
    """Fields of a commit, then its counts: those have tabs, and a hash, which begins the next commit, has none."""
    name = next(tokens, b"")
    while name:
        time, author, moment, parents, message = (next(tokens) for _ in FIELDS[1:])
        changes, following = [], next(tokens, b"")
        while counts := COUNTS.match(following):
            before = after = counts[3]
            if not after:
                before, after = next(tokens), next(tokens)
            changes.append(Change(after, before, _number(counts[1]), _number(counts[2])))
            following = next(tokens, b"")
        hour, weekday = moment.split()
        yield Commit(
            name=name.decode(),
            time=int(time),
            author=author.decode(errors="replace").lower(),
            hour=int(hour),
            weekday=int(weekday) - 1,
            parent=parents.decode().split(" ")[0] or None,
            message=message.decode(errors="replace"),
            changes=tuple(changes),
        )
        name = following


def _number(count: bytes) -> int:
    return 0 if count == b"-" else int(count)


def _blamed(said: bytes) -> set[str]:
    """Of `git blame --incremental`: commits, without those at the boundary, which stand for all that is older."""
    names: set[str] = set()
    older: set[str] = set()
    name = ""
    for line in said.split(b"\n"):
        if found := BLAMED.match(line):
            name = found[1].decode()
            names.add(name)
        elif line == b"boundary":
            older.add(name)
    return names - older
