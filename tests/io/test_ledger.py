import sqlite3
import subprocess
import sys
import traceback
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DatabaseError

from steward.errors import LedgerConflict, LedgerUnavailable, SettingsError
from steward.io.ledger import GENESIS, MIGRATIONS, REVISIONS, Ledger, Wanted

AT = datetime(2026, 1, 5, 6, tzinfo=UTC)
APPEND = """
import sys
from datetime import UTC, datetime
from steward.io.ledger import Ledger
url, worker, count = sys.argv[1:]
ledger = Ledger(url)
for number in range(int(count)):
    ledger.append("m", "trigger", f"{worker}-{number}", {"number": number}, datetime(2026, 1, 5, tzinfo=UTC))
"""
CLAIM = """
import sys
from datetime import UTC, datetime
from steward.errors import LedgerConflict
from steward.io.ledger import Ledger
url, worker = sys.argv[1:]
try:
    Ledger(url).append("m", "opening", "1", {"digest": worker}, datetime(2026, 1, 5, tzinfo=UTC))
    print("opened")
except LedgerConflict:
    print("refused")
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'home' / 'ledger.db'}"
    server = request.getfixturevalue("server")
    name = f"ledger_{abs(hash(request.node.nodeid))}"
    execute(f"{server}postgres", f"CREATE DATABASE {name}")
    return f"{server}{name}"


@pytest.fixture
def ledger(url: str) -> Ledger:
    return Ledger(url)


def execute(url: str, *statements: str) -> None:
    """SQL as somebody would type it, past Steward."""
    engine = create_engine(make_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def fill(ledger: Ledger, count: int = 6) -> None:
    for number in range(1, count + 1):
        ledger.append("m", "trigger", f"run-{number}", {"number": number}, AT + timedelta(hours=number))


def drop_guards(ledger: Ledger) -> None:
    names = ["entries_no_update", "entries_no_delete"]
    if ledger.url.get_backend_name() == "sqlite":
        execute(str(ledger.url), *(f"DROP TRIGGER {name}" for name in (*names, "entries_no_replace")))
    else:
        url = ledger.url.render_as_string(hide_password=False)
        execute(url, *(f"DROP TRIGGER {name} ON entries" for name in names))


def tamper(ledger: Ledger, *statements: str) -> list[tuple[str, tuple[int, ...]]]:
    drop_guards(ledger)
    execute(ledger.url.render_as_string(hide_password=False), *statements)
    problems = ledger.verify().problems
    return [(problem.finding, problem.sequences) for problem in problems if problem.finding != "guard missing"]


def test_an_entry_is_found_again(ledger: Ledger) -> None:
    body = {"value": 1.5, "missing": None, "list": ["ü", True], "nul": "\x00"}
    entry = ledger.append("m", "snapshot", "abc", body, AT.astimezone(timezone(timedelta(hours=2))))
    assert (entry.sequence, entry.at, entry.body, entry.previous) == (1, AT, body, GENESIS)
    assert ledger.find("m", "snapshot", "abc") == entry
    assert ledger.find("m", "snapshot", "other") is None
    assert entry.as_json()["at"] == "2026-01-05T06:00:00+00:00"


def test_entries_by_model_kind_and_order(ledger: Ledger) -> None:
    fill(ledger, 3)
    ledger.append("m", "verdict", "v", {}, AT)
    ledger.append("other", "trigger", "run-1", {}, AT)
    assert [entry.sequence for entry in ledger.entries()] == [1, 2, 3, 4, 5]
    assert [entry.sequence for entry in ledger.entries("m", "trigger")] == [1, 2, 3]
    assert [entry.sequence for entry in ledger.entries("m", newest_first=True, limit=2)] == [4, 3]
    assert ledger.verify().ok


def test_several_entries_are_added_or_none(ledger: Ledger) -> None:
    news = [("decision", "1", {"train": True}), ("trigger", "fall", {"by": "monitor"})]
    first = ledger.append_all("risk", news, AT, guard=(("trigger",), 0))
    assert [entry.sequence for entry in first] == [1, 2]
    assert ledger.append_all("risk", news, AT, guard=(("trigger",), 2)) == first
    with pytest.raises(LedgerConflict, match="another trigger of risk"):
        ledger.append_all("risk", [("decision", "2", {})], AT, guard=(("trigger", "verdict"), 1))
    with pytest.raises(LedgerConflict, match="another trigger of risk"):
        ledger.append_all("risk", [("decision", "2", {}), ("trigger", "fall", {})], AT, guard=((), 0))
    ledger.append_all("other", [("decision", "2", {})], AT, guard=(("trigger",), 0))
    assert [entry.model for entry in ledger.entries()] == ["risk", "risk", "other"]
    assert ledger.verify().ok


def test_the_same_again_is_the_same_entry_and_another_body_is_refused(ledger: Ledger) -> None:
    first = ledger.append("m", "opening", "1", {"digest": "a"}, AT)
    assert ledger.append("m", "opening", "1", {"digest": "a"}, AT + timedelta(days=1)) == first
    with pytest.raises(LedgerConflict, match=r"already holds another opening of m under this subject: got '1'"):
        ledger.append("m", "opening", "1", {"digest": "b"}, AT)
    assert ledger.entries() == [first]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = '{}' WHERE sequence = 2",
        "DELETE FROM entries WHERE sequence = 2",
        "INSERT OR REPLACE INTO entries SELECT 2, at, model, kind, 'x', body, 'p', 'd' FROM entries WHERE sequence = 2",
        "INSERT OR REPLACE INTO entries SELECT 9, at, model, kind, subject, body, 'p', 'd' FROM entries WHERE sequence = 2",
        "TRUNCATE entries",
    ],
)
def test_the_database_refuses_changes(ledger: Ledger, statement: str) -> None:
    backend = ledger.url.get_backend_name()
    if ("TRUNCATE" in statement and backend == "sqlite") or ("REPLACE" in statement and backend == "postgresql"):
        pytest.skip("another database's statement")
    fill(ledger, 3)
    with pytest.raises(DatabaseError, match="append-only"):
        execute(ledger.url.render_as_string(hide_password=False), statement)
    assert ledger.verify().ok


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["UPDATE entries SET body = '{\"number\":9}' WHERE sequence = 3"], [("changed", (3,))]),
        (["UPDATE entries SET body = '{ \"number\":3}' WHERE sequence = 3"], [("changed", (3,))]),
        (["UPDATE entries SET at = '2020-01-01T00:00:00.000000+00:00' WHERE sequence = 1"], [("changed", (1,))]),
        (
            ["UPDATE entries SET subject = subject || 'x' WHERE sequence IN (2, 6)"],
            [("changed", (2,)), ("changed", (6,))],
        ),
        (["DELETE FROM entries WHERE sequence = 3"], [("removed", (3,))]),
        (["DELETE FROM entries WHERE sequence IN (1, 2)"], [("removed", (1, 2))]),
        (["DELETE FROM entries WHERE sequence IN (3, 4, 5)"], [("removed", (3, 4, 5))]),
        (
            [
                "UPDATE entries SET sequence = 100 WHERE sequence = 2",
                "UPDATE entries SET sequence = 2 WHERE sequence = 3",
                "UPDATE entries SET sequence = 3 WHERE sequence = 100",
            ],
            [("moved", (2,)), ("moved", (3,))],
        ),
        (
            ["DELETE FROM entries WHERE sequence = 5", "UPDATE entries SET sequence = 5 WHERE sequence = 6"],
            [("moved", (5,))],
        ),
        (
            [
                "UPDATE entries SET sequence = 7 WHERE sequence = 6",
                "INSERT INTO entries SELECT 6, at, model, kind, 'new', body, 'p', 'd' FROM entries WHERE sequence = 5",
            ],
            [("changed", (6,)), ("moved", (7,))],
        ),
    ],
    ids=["body", "blank", "moment", "two", "one", "first", "middle", "swapped", "closed gap", "made up"],
)
def test_verify_names_what_was_done(
    ledger: Ledger, statements: list[str], expected: list[tuple[str, tuple[int, ...]]]
) -> None:
    fill(ledger)
    assert tamper(ledger, *statements) == expected


def test_verify_finds_an_entry_whose_digest_was_made_to_fit(ledger: Ledger, tmp_path: Path) -> None:
    fill(ledger)
    forger = Ledger(f"sqlite:///{tmp_path / 'forged.db'}")
    fill(forger, 2)
    forged = forger.append("m", "trigger", "run-3", {"number": 33}, AT)
    change = f"UPDATE entries SET body = '{{\"number\":33}}', at = '2026-01-05T06:00:00.000000+00:00', digest = '{forged.digest}'"
    assert tamper(ledger, f"{change} WHERE sequence = 3") == [("inserted", (4,))]


def test_a_cut_off_end_needs_an_anchor(ledger: Ledger) -> None:
    fill(ledger)
    head = ledger.verify().head
    assert ledger.verify(anchor=head).ok
    assert tamper(ledger, "DELETE FROM entries WHERE sequence > 4") == []
    problems = ledger.verify(anchor=head).as_json()["problems"]
    assert [problem["finding"] for problem in problems] == ["guard missing", "guard missing", "anchor missing"]


@pytest.fixture
def busy(ledger: Ledger) -> Ledger:
    """Two models that take turns: each even hour a trigger of `a`, then a verdict of `b`."""
    for number in range(1, 7):
        ledger.append(
            "a", "trigger", f"run-{number}", {"reason": f"Größe 100% {number}"}, AT + timedelta(hours=2 * number)
        )
        ledger.append("b", "verdict", f"v-{number}", {"verdict": "hold"}, AT + timedelta(hours=2 * number + 1))
    return ledger


@pytest.mark.parametrize(
    ("wanted", "sequences"),
    [
        (Wanted(), [12, 11, 10, 9, 8]),
        (Wanted(models=["a"]), [11, 9, 7, 5, 3]),
        (Wanted(models=[]), []),
        (Wanted(kinds=["verdict"]), [12, 10, 8, 6, 4]),
        (Wanted(models=["a"], kinds=["verdict"]), []),
        (Wanted(since=AT + timedelta(hours=12)), [12, 11]),
        (Wanted(until=AT + timedelta(hours=4)), [2, 1]),
        (Wanted(text="RUN-3"), [5]),
        (Wanted(text="größe 100% 6"), [11]),
        (Wanted(text="1_0"), []),
        (Wanted(text='": "'), []),
    ],
)
def test_entries_are_searched_newest_first(busy: Ledger, wanted: Wanted, sequences: list[int]) -> None:
    found = busy.search(wanted, limit=5)
    assert [entry.sequence for entry in found.entries] == sequences
    assert (found.before is None) == (len(sequences) < 5)


def test_a_search_goes_on_where_it_stopped(busy: Ledger) -> None:
    found, seen = busy.search(Wanted(kinds=["verdict"]), limit=4), list[int]()
    seen += [entry.sequence for entry in found.entries]
    found = busy.search(Wanted(kinds=["verdict"]), before=found.before, limit=4)
    assert [*seen, *(entry.sequence for entry in found.entries)] == [12, 10, 8, 6, 4, 2]
    assert found.before is None


def test_a_text_is_looked_for_piece_by_piece(busy: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steward.io.ledger.SEARCHED", 4)
    first = busy.search(Wanted(text="run-2"), limit=5)
    assert (first.entries, first.before) == ((), 9)
    second = busy.search(Wanted(text="run-2"), before=first.before, limit=5)
    assert (second.entries, second.before) == ((), 5)
    third = busy.search(Wanted(text="run-2"), before=second.before, limit=5)
    assert ([entry.subject for entry in third.entries], third.before) == (["run-2"], 1)
    assert busy.search(Wanted(text="run-2"), before=third.before, limit=5).before is None


def test_the_newest_entries_of_every_model_and_kind(busy: Ledger) -> None:
    found = busy.newest(["a", "b", "nobody"], ["trigger", "verdict"], 2)
    assert {key: [entry.sequence for entry in mine] for key, mine in found.items()} == {
        ("a", "trigger"): [9, 11], ("b", "verdict"): [10, 12],
    }  # fmt: skip
    assert [len(mine) for mine in busy.newest(["a"], ["trigger"], 100).values()] == [6]
    assert busy.newest([], ["trigger"]) == {}


def test_a_place_of_the_newest_bodies(ledger: Ledger) -> None:
    for number, figures in enumerate([{"live": [0.9, 0.8, 1.0]}, {"live": None}, {}, {"live": [0.5, 0.4, 0.6]}]):
        ledger.append("m", "decision", str(number), {"figures": figures}, AT + timedelta(hours=number))
    found = ledger.series(["m", "nobody"], "decision", ("figures", "live"), 3)
    assert found == {
        "m": [
            (AT + timedelta(hours=1), None),
            (AT + timedelta(hours=2), None),
            (AT + timedelta(hours=3), [0.5, 0.4, 0.6]),
        ]
    }
    assert ledger.series([], "decision", ("figures",), 3) == {}


def test_size_and_moments(ledger: Ledger) -> None:
    assert ledger.size() == (0, GENESIS)
    fill(ledger, 2)
    assert ledger.size() == (2, ledger.entries()[-1].digest)
    assert (ledger.at(2), ledger.at(3)) == (AT + timedelta(hours=2), None)
    assert (ledger.holds(ledger.size()[1]), ledger.holds("f" * 64)) == (True, False)


def test_the_end_of_a_chain_is_verified_alone(ledger: Ledger) -> None:
    fill(ledger)
    assert (ledger.verify(after=4).ok, ledger.verify(after=4).entries, ledger.verify().entries) == (True, 2, 6)
    assert tamper(ledger, "UPDATE entries SET body = '{}' WHERE sequence = 2") == [("changed", (2,))]
    assert [one.finding for one in ledger.verify(after=4).problems] == ["guard missing"] * 2
    execute(
        ledger.url.render_as_string(hide_password=False),
        "UPDATE entries SET body = '{}' WHERE sequence = 6",
        "DELETE FROM entries WHERE sequence = 4",
    )
    found = [(one.finding, one.sequences) for one in ledger.verify(after=4).problems]
    assert found[2:] == [("removed", (4,)), ("changed", (6,))]


def test_processes_take_turns_even_while_the_schema_is_made(url: str) -> None:
    run = [sys.executable, "-c", APPEND, url]
    workers = [subprocess.Popen([*run, str(worker), "12"], stderr=subprocess.PIPE) for worker in range(4)]
    assert [worker.communicate()[1].decode()[-500:] for worker in workers] == [""] * 4
    ledger = Ledger(url)
    assert [entry.sequence for entry in ledger.entries()] == list(range(1, 49))
    assert ledger.verify().ok


def test_of_two_processes_one_opens(url: str) -> None:
    run = [sys.executable, "-c", CLAIM, url]
    workers = [subprocess.Popen([*run, str(worker)], stdout=subprocess.PIPE) for worker in range(3)]
    answers = sorted(worker.communicate()[0].decode().strip() for worker in workers)
    assert answers == ["opened", "refused", "refused"]


def test_the_code_knows_every_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    walked = ScriptDirectory.from_config(config).walk_revisions()
    assert [script.revision for script in walked] == list(reversed(REVISIONS))


def test_a_newer_schema_is_refused(ledger: Ledger) -> None:
    fill(ledger, 1)
    execute(ledger.url.render_as_string(hide_password=False), "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerUnavailable, match=r"newer Steward .* got 'schema 9999'; allowed: up to .*Install"):
        Ledger(ledger.url.render_as_string(hide_password=False)).entries()


def test_a_locked_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    fill(Ledger(f"sqlite:///{path}"), 1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = Ledger(f"sqlite:///{path}", timeout=0.2)
    with pytest.raises(LedgerUnavailable, match=r"database is locked .*is not locked"):
        waiting.append("m", "trigger", "run", {}, AT)
    assert len(waiting.entries()) == 1
    other.execute("ROLLBACK")
    other.close()
    assert waiting.append("m", "trigger", "run", {}, AT).sequence == 2


def test_a_locked_postgresql_says_so(server: str) -> None:
    url = f"{server}postgres"
    fill(Ledger(url), 1)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE entries IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(LedgerUnavailable, match="lock timeout"):
            Ledger(url, timeout=0.3).append("m", "trigger", "run", {}, AT)
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("postgresql://u:geheim@127.0.0.1:1/d?sslpassword=geheim", LedgerUnavailable, "refused"),
        ("postgresql//u:geheim@host", SettingsError, "a URL that names no database"),
        ("mysql+nothing://u:geheim@host/d", SettingsError, "allowed: sqlite:///path or postgresql://"),
        ("sqlite://", SettingsError, "would forget everything"),
        ("sqlite:////proc/nowhere/ledger.db", LedgerUnavailable, "No such file"),
        ("sqlite:////etc/passwd", LedgerUnavailable, "not a database"),
    ],
)
def test_what_cannot_be_opened_is_named_without_its_password(url: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        Ledger(url, timeout=2).entries()
    assert "geheim" not in "".join(traceback.format_exception(caught.value))


def test_a_moment_needs_a_time_zone(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="needs a time zone"):
        ledger.append("m", "trigger", "run", {}, datetime(2026, 1, 5))  # noqa: DTZ001
