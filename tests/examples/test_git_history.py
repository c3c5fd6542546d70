"""Small repositories with planted bugs and fixes, whose tables are worked out by hand."""

import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
import pytest

from steward.config import ModelFile
from steward.core.contracts import Contract
from steward.errors import OutputRefused, SourceMissing, SourceUnreadable
from steward.examples.git import Repository, spans_of, taken_away
from steward.examples.git_history import WITHIN, spread, write

MONDAY = datetime(2024, 1, 1, 9, tzinfo=UTC)
ANN, BOB = "Ann <ann@example.com>", "Bob <bob@example.com>"


class History:
    """A repository that grows by commits at the moments that a test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, at: datetime = MONDAY, author: str = ANN) -> str:
        name, mail = author.removesuffix(">").split(" <")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_NAME": name for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": mail for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_DATE": at.isoformat() for who in ("AUTHOR", "COMMITTER")},
        }
        command = ["git", "-C", str(self.folder), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    def commit(self, subject: str, day: float, files: dict[str, str | None], author: str = ANN, zone: int = 0) -> str:
        """Write files (None: delete) and commit so many days after the first Monday; answers the hash."""
        for path, text in files.items():
            place = self.folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                place.unlink()
            else:
                place.write_text(text, encoding="utf-8")
        self.git("add", "--all")
        at = (MONDAY + timedelta(days=day)).astimezone(timezone(timedelta(hours=zone)))
        self.git("commit", "--quiet", "--allow-empty", "--message", subject, at=at, author=author)
        return self.git("rev-parse", "HEAD")

    def table(self, **options) -> pd.DataFrame:
        output = self.folder.parent / "commits.parquet"
        write(Repository(self.folder), output, **options)
        return pd.read_parquet(output).set_index("commit")


def lines(*texts: str) -> str:
    return "".join(f"{text}\n" for text in texts)


@pytest.fixture
def history(tmp_path):
    return History(tmp_path / "repository")


@pytest.fixture
def story(history) -> tuple[History, dict[str, str]]:
    """Ann's second commit has the bug that Bob fixes ten days later; the last commit lets the wait end for most."""
    made = {
        "first": history.commit("Begin", 0, {"src/app.py": lines("a = 1", "b = 2"), "README.md": lines("Hello")}),
        "buggy": history.commit("Divide", 1, {"src/app.py": lines("a = 1", "b = 2", "c = a / 0")}, zone=5),
        "clean": history.commit("Explain", 3, {"README.md": lines("Hello", "World")}, BOB),
        "fix": history.commit("Fix the crash", 11, {"src/app.py": lines("a = 1", "b = 2", "c = a / 1")}, BOB),
        "later": history.commit("More", 11.5 + WITHIN.days, {"src/more.py": lines("x = 1")}),
    }
    return history, made


def test_a_bug_is_known_when_its_fix_comes(story):
    history, made = story
    table = history.table()
    assert dict(table["buggy"].items()) == {
        made["first"]: False, made["buggy"]: True, made["clean"]: False, made["fix"]: False, made["later"]: pd.NA,
    }  # fmt: skip
    assert table.loc[made["buggy"], "label_at"] == MONDAY + timedelta(days=11), "when the fix came"
    assert table.loc[made["clean"], "label_at"] == MONDAY + timedelta(days=3) + WITHIN, "when the wait was over"
    assert pd.isna(table.loc[made["later"], "label_at"]), "too young to be known"
    assert list(table["committed_at"]) == [MONDAY + timedelta(days=day) for day in (0, 1, 3, 11, 11.5 + WITHIN.days)]


def test_measures_are_those_of_the_moment(story):
    history, made = story
    table = history.table()
    fix = table.loc[made["fix"]]
    assert {name: fix[name] for name in table.columns if name not in ("committed_at", "buggy", "label_at")} == {
        "files": 1, "new_files": 0, "code_files": 1, "directories": 1, "subsystems": 1,
        "lines_added": 1, "lines_deleted": 1, "spread": 0.0, "lines_before": 3.0,
        "fix": True, "hour": 9, "weekday": 4,
        "earlier_changes": 2.0, "earlier_fixes": 0.0, "authors_before": 1,
        "file_age_days": 11.0, "days_since_change": 10.0,
        "author_commits": 1, "author_recent_commits": 1, "author_changes_here": 0.0,
    }  # fmt: skip
    first = table.loc[made["first"]]
    assert (first["files"], first["new_files"], first["code_files"], first["directories"]) == (2, 2, 1, 2)
    assert first["spread"] == pytest.approx(spread([2, 1]))
    assert pd.isna(first["lines_before"])
    assert pd.isna(first["file_age_days"])
    buggy = table.loc[made["buggy"]]
    assert (buggy["hour"], buggy["weekday"]) == (14, 1), "by the author's clock, five hours ahead"
    later = table.loc[made["later"]]
    assert (later["author_commits"], later["author_recent_commits"]) == (2, 0)


def test_what_comes_later_changes_nothing_but_labels(story):
    """Rows of an older table stand in the newer one, word for word, but for labels that were not known."""
    history, made = story
    before = history.table()
    history.commit("Fix more", 13 + WITHIN.days, {"src/more.py": lines("x = 2")}, BOB)
    after = history.table().loc[before.index]
    measures = before.columns.difference(["buggy", "label_at"])
    pd.testing.assert_frame_equal(before[measures], after[measures])
    known = before["buggy"].notna()
    assert (before.loc[known, "buggy"] == after.loc[known, "buggy"]).all()
    assert after.loc[made["later"], "buggy"]


def test_a_fix_that_comes_too_late_blames_nobody(story):
    history, made = story
    assert not history.table(within=timedelta(days=9))["buggy"].fillna(False).any()
    assert history.table(within=timedelta(days=11)).loc[made["buggy"], "buggy"]


def test_a_renamed_file_keeps_its_past(history):
    code = [f"value_{n} = {n}" for n in range(20)]
    history.commit("Begin", 0, {"old/name.py": lines(*code)})
    buggy = history.commit("Change", 1, {"old/name.py": lines("bad = 0", *code)})
    moved = history.commit("Move", 2, {"old/name.py": None, "new/name with blank.py": lines("bad = 0", *code)}, BOB)
    fix = history.commit("fixes #7", 3, {"new/name with blank.py": lines("bad = 1", *code)})
    table = history.table(within=timedelta(days=2))
    assert table.loc[buggy, "buggy"]
    assert table.loc[moved, ["files", "new_files", "lines_added"]].tolist() == [1, 0, 0]
    assert not table.loc[moved, "fix"]
    assert table.loc[fix, ["earlier_changes", "authors_before", "lines_before", "file_age_days"]].tolist() == [
        3,
        2,
        21,
        3,
    ]


def test_merges_are_no_rows_and_branches_are_read_in_order_of_time(history):
    history.commit("Begin", 0, {"a.py": lines("a = 1")})
    history.git("switch", "--quiet", "--create", "side")
    side = history.commit("Side", 2, {"b.py": lines("b = 1")}, BOB)
    history.git("switch", "--quiet", "main")
    main = history.commit("Fix main", 1, {"a.py": lines("a = 2")})
    history.git("merge", "--quiet", "--no-ff", "--message", "Merge", "side", at=MONDAY + timedelta(days=3))
    table = history.table()
    assert list(table.index)[1:] == [main, side]
    with pytest.raises(SourceUnreadable, match="no commit of this history is a fix"):
        history.table(revision="side")


ODD = ["ein schöner Name.py", 'quote".py', "tab\there.py", "new\nline.py", "-dash.py", "a b/c d.py", "100%.py"]


@pytest.mark.parametrize("path", ODD)
def test_odd_names(history, path):
    history.commit("Begin", 0, {"a.py": lines("a = 1")})
    buggy = history.commit("Odd", 1, {path: lines("odd = 1", "even = 2")})
    history.commit("Fixed it", 2, {path: lines("odd = 2", "even = 2")})
    assert history.table().loc[buggy, "buggy"]


def test_a_name_that_is_not_utf_8(history):
    history.commit("Begin", 0, {"a.py": lines("a = 1")})
    place = os.path.join(os.fsencode(history.folder), b"caf\xe9.py")  # noqa: PTH118 - pathlib has no bytes
    for day, text in enumerate((b"x = 1\n", b"x = 2\n")):
        with open(place, "wb") as file:  # noqa: PTH123
            file.write(text)
        name = history.commit("Fix it" if day else "Write it", day + 1, {})
    table = history.table()
    assert table["buggy"].tolist()[1] is True
    assert table.loc[name, "lines_deleted"] == 1


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (lines("x = 1  # ok", "# a comment"), lines("x = 1  # ok"), "a comment"),
        (lines("x = 1", ""), lines("x = 1"), "a blank line"),
        (lines("x = 1"), lines("    x = 1"), "blanks only"),
        (lines("x = 1"), lines("x = 1", "y = 2"), "nothing is taken away"),
    ],
)
def test_lines_without_code_blame_nobody(history, before, after, why):
    history.commit("Begin", 0, {"b.py": lines("b = 1")})
    history.commit("Write", 1, {"a.py": before})
    history.commit("Fix it", 2, {"a.py": after})
    assert not history.table()["buggy"].fillna(False).any(), why


def test_documents_and_tests_blame_nobody_and_sweeps_neither(history):
    many = {f"src/file_{n}.py": lines(f"value = {n}") for n in range(60)}
    history.commit("Begin", 0, {**many, "tests/test_a.py": lines("assert 1"), "guide.md": lines("Worng")})
    history.commit("Fix guide and expectations", 1, {"tests/test_a.py": lines("assert 2"), "guide.md": lines("Wrong")})
    history.commit("Fix all names", 2, {path: text.replace("value", "worth") for path, text in many.items()})
    assert not history.table()["buggy"].fillna(False).any()


def test_bare_repositories_folders_inside_and_the_order_of_ends(story, tmp_path):
    history, made = story
    whole = history.table()
    bare = tmp_path / "bare.git"
    history.git("clone", "--quiet", "--bare", ".", str(bare))
    for place in (bare, history.folder / "src"):
        written = write(Repository(place), tmp_path / "again.csv", jobs=2)
        again = pd.read_csv(tmp_path / "again.csv", index_col="commit", parse_dates=["committed_at", "label_at"])
        pd.testing.assert_frame_equal(again.astype({"buggy": "boolean"}), whole, check_dtype=False)
        assert (written.rows, written.buggy, written.clean, written.unknown, written.fixes) == (5, 1, 3, 1, 1)
    newest = history.table(limit=2)
    pd.testing.assert_frame_equal(newest, whole.iloc[-2:])
    assert made["later"] in newest.index


def test_progress_ends_with_all_fixes(story, tmp_path):
    seen = []
    write(Repository(story[0].folder), tmp_path / "x.parquet", on_blame=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]


def test_fixes_are_what_the_pattern_says(history, tmp_path):
    history.commit("Begin", 0, {"a.py": lines("a = 1")})
    bug = history.commit("Add", 1, {"a.py": lines("a = 1", "b = 1")})
    history.commit("[behoben] Absturz", 2, {"a.py": lines("a = 1", "b = 2")})
    with pytest.raises(SourceUnreadable, match="no commit of this history is a fix"):
        history.table()
    assert history.table(fix="behoben").loc[bug, "buggy"]


def test_a_persons_settings_change_nothing(story):
    history, _ = story
    expected = history.table()
    settings = {
        "core.quotePath": "false", "diff.noprefix": "true", "diff.mnemonicPrefix": "true", "color.ui": "always",
        "diff.renames": "false", "log.showSignature": "true", "log.date": "relative", "diff.context": "9",
        "blame.ignoreRevsFile": "nowhere", "i18n.logOutputEncoding": "latin1", "log.showRoot": "false",
    }  # fmt: skip
    for name, value in settings.items():
        history.git("config", name, value)
    pd.testing.assert_frame_equal(history.table(), expected)


def test_what_cannot_be_read_says_why(history, tmp_path, monkeypatch):
    with pytest.raises(SourceMissing, match="there is no such folder"):
        Repository(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceUnreadable, match="this is not a git repository"):
        Repository(tmp_path / "empty")
    with pytest.raises(SourceUnreadable, match="the repository has no commits"):
        history.table()
    history.commit("Fix", 0, {"a.py": lines("a = 1")})
    history.commit("Fix", 1, {"a.py": lines("a = 2")})
    with pytest.raises(SourceUnreadable, match="no such branch, tag or commit: got 'nowhere'"):
        history.table(revision="nowhere")
    with pytest.raises(OutputRefused, match=r"no such format: got .*x\.json.*; allowed: .parquet or .csv"):
        write(Repository(history.folder), tmp_path / "x.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputRefused, match="cannot be written"):
        write(Repository(history.folder), tmp_path / "file" / "x.csv")
    history.git("clone", "--quiet", "--depth=1", history.folder.as_uri(), str(tmp_path / "shallow"))
    with pytest.raises(SourceUnreadable, match="this clone is shallow"):
        Repository(tmp_path / "shallow")
    history.git("config", "extensions.partialClone", "origin")
    with pytest.raises(SourceUnreadable, match="this clone is partial"):
        Repository(history.folder)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceMissing, match="git is not installed"):
        Repository(history.folder)


def test_a_damaged_repository_is_named(story):
    history, made = story
    name = history.git("rev-parse", f"{made['buggy']}^{{tree}}")
    shutil.rmtree(history.folder / ".git" / "objects" / name[:2])
    with pytest.raises(SourceUnreadable, match="git cannot read this repository"):
        history.table()


def test_a_patch_is_read_line_by_line():
    patch = (
        b'--- "a/sch\\303\\266n.py"\n+++ "b/sch\\303\\266n.py"\n@@ -1 +1,2 @@\n--- x\n+++ y\n+z\n@@ -7,3 +8,0 @@\n-a\n-\n-b\n'
        b"--- a/two words.py\t\n+++ b/two words.py\t\n@@ -4 +4 @@\n-#include <x>\n\\ No newline at end of file\n+y\n"
    )
    assert taken_away(patch) == {"schön.py".encode(): [1, 7, 9], b"two words.py": [4]}
    assert spans_of([9, 1, 2]) == [(1, 2), (9, 9)]
    assert spans_of([5]) == [(5, 5)]


def test_the_model_file_fits_the_table(story):
    model = ModelFile.load(Path(__file__).parents[2] / "models" / "commit_risk.yaml")
    table = story[0].table().reset_index()
    assert Contract.of(model, MONDAY).missing(tuple(table.columns)) == ()
    assert set(model.columns) == set(table.columns) - {"commit", "committed_at", "buggy", "label_at"}
    assert model.label.mature_after == WITHIN


def test_the_command(story, fresh, tmp_path):
    output = tmp_path / "data" / "commits.csv"
    asked = ("example", "git-history", "--repo", str(story[0].folder), "--output", str(output))
    answer = fresh.ask(*asked, "--limit", "4", "--within", "30d")
    assert answer == {
        "repository": str(story[0].folder), "output": str(output), "rows": 4, "buggy": 1, "clean": 2, "unknown": 1,
        "fixes": 1, "first": "2024-01-02T09:00:00+00:00", "last": (MONDAY + timedelta(days=191.5)).isoformat(),
    }  # fmt: skip
    assert len(pd.read_csv(output)) == 4
    assert fresh.ask(*asked, "--revision", "nowhere", code=1)["error"] == "SourceUnreadable"
    for wrong, what in (("--fix", "("), ("--within", "soon"), ("--limit", "0")):
        refused = fresh.run(*asked, wrong, what)
        assert refused.exit_code == 2
        assert f"Invalid value for '{wrong}'" in refused.stderr
