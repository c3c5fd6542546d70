"""The pages after a story: a champion falls, is replaced, and taken back."""

import csv
import dataclasses
import io
import json
import math

import pytest

from steward import operations
from steward.errors import ArtifactDamaged, LedgerUnavailable, VersionUnknown
from steward.io.latencies import HOUR, Latency
from steward.io.workspace import Workspace
from steward.views import chain, decisions, drift, model, overview, sealed, version

HOURS = 14.1


@pytest.fixture(scope="module")
def page(told) -> model.ModelPage:
    return model.model_page(told.workspace, told.model, told.day(HOURS))


def test_one_line_tells_how_it_stands(told):
    found = overview.overview(told.workspace, [told.model], told.day(HOURS))
    [row] = found.rows
    assert (row.standing.state, row.champion, row.challenger) == ("falling", 1, None)
    assert row.standing.says.startswith("Live accuracy 0.1")
    assert row.champion_since == told.day(14)
    assert [point.at for point in row.sparkline] == [told.day(6), told.day(13)]
    assert (row.live, row.metric, row.larger_is_better) == (row.sparkline[-1].live, "accuracy", True)
    assert row.per_day == pytest.approx(360 / 7)
    assert (row.sealed.value, row.sealed.why) == (0, "opening 2 used all of them; new labelled rows bring new ones")
    assert row.last_decision is not None
    assert row.last_decision.startswith("version 1 made champion by ada (rollback): <script>")
    assert (found.states, found.says) == ({"falling": 1}, "1 model: 1 falling.")


def test_status_says_the_same(told):
    at = told.day(HOURS)
    [row] = overview.overview(told.workspace, [told.model], at).rows
    status, [line] = (
        operations.status(told.workspace, told.model, at=at),
        operations.standings(told.workspace, [told.model], at=at),
    )
    for document in (status, line):
        assert (document["state"], document["says"], document["warnings"]) == ("falling", row.standing.says, [])
        assert document["sealed_rows"] == {"value": 0, "why": row.sealed.why}
        assert document["live_accuracy"]["value"] == pytest.approx(row.live.value, abs=1e-6)
        assert document["live_accuracy"]["why"] == row.live_why
    assert status["champion"]["version"] == line["champion"]["version"] == row.champion
    assert status["next_look"]["value"] == line["next_look"] == row.next_look.isoformat()
    json.dumps([status, line])


def test_the_timeline_tells_the_story(told, page):
    kinds = [(event.kind, event.version, event.outcome) for event in page.timeline.events]
    assert kinds == [
        ("training", None, None), ("verdict", None, "promote"), ("champion", 1, None), ("alarm", 1, None),
        ("training", None, None), ("verdict", None, "promote"), ("champion", 2, None), ("rollback", 1, None),
    ]  # fmt: skip
    calm, fallen = page.timeline.windows
    assert (calm.served, calm.falling, calm.live.value, calm.verified.value) == (360, False, 1, 1)
    assert (fallen.end, fallen.falling, fallen.version) == (told.day(13), True, 1)
    assert fallen.live.low <= fallen.live.value <= fallen.live.high < 0.3
    assert fallen.estimate.value == 1  # its own confidence does not know better
    assert (
        page.timeline.says
        == f"2 looks; live accuracy from 1.0000 to {fallen.live.value:.4f}; 1 alarm; 2 trainings; 2 new champions; 1 rollback."
    )


def test_a_part_of_the_time(told):
    found = model.model_page(told.workspace, told.model, told.day(HOURS), since=told.day(7), until=told.day(13.9))
    assert [one.end for one in found.timeline.windows] == [told.day(13)]
    assert [event.kind for event in found.timeline.events] == ["alarm", "training", "verdict", "champion"]
    assert [look.end for look in found.drift.looks] == [told.day(13)]
    assert [day.end for day in found.traffic.days] == [told.day(13)]


def test_how_fast_the_service_answers_is_of_the_last_day(told, page):
    assert page.traffic.says == (
        "The service was asked for no single prediction in the last 24 hours, so that its latency is not known."
    )
    now, yesterday = (int(told.day(day).timestamp()) // HOUR * HOUR for day in (HOURS, HOURS - 1.1))
    mostly = Latency((90, 0, 9, 1, *[0] * 13), 0.014)
    slow = Latency((*[0] * 16, 5), 100.0)
    told.workspace.latencies.write("a", {(told.model.name, now): mostly, (told.model.name, yesterday): slow})
    found = model.model_page(told.workspace, told.model, told.day(HOURS)).traffic
    assert {start.timestamp(): one for start, one in found.hours.items()} == {now: mostly}
    assert found.says == (
        "Of 100 requests for one prediction in the last 24 hours half were answered within 0.1 ms, 99 % within 0.5 ms; "
        "on average in 0.14 ms."
    )
    told.workspace.latencies.write("b", {(told.model.name, now): slow})
    found = model.model_page(told.workspace, told.model, told.day(HOURS)).traffic
    assert "99 % in more than 10 s" in found.says


def test_what_is_known_of_the_champion_now_and_at_verification(page):
    assert (page.now.confusion.classes, page.now.confusion.rows) == (("Low", "High"), page.row.live and 417)
    assert page.verified.confusion.counts[0][1] == page.verified.confusion.counts[1][0] == 0
    [bin_now], [bin_then] = page.now.calibration, page.verified.calibration
    assert bin_now.right == pytest.approx(page.row.live.value, abs=1e-6)
    assert (bin_then.right, bin_then.rows) == (1, page.verified.confusion.rows)
    assert page.quality == ()
    assert page.quality_says.endswith("nothing is wrong.")


def test_the_governor_says_what_it_waits_for(told, page):
    governor = page.governor
    [asked] = governor.asked
    assert (asked.kind, asked.rule) == ("accuracy", "sealed rows")
    assert governor.says == f"Wait: {asked.why}."
    assert (governor.train, governor.breaker, governor.used, governor.allowed) == (False, False, 0, 3)
    assert (governor.sealed, governor.missing) == (0, math.ceil(governor.needed / 0.15))
    assert governor.last_training == told.day(13.5)
    assert governor.next_look == page.row.next_look


def test_versions_of_the_model(told, page):
    newest, oldest = page.versions
    assert (newest.number, newest.alias, newest.served_from) == (2, "previous", told.day(13.5))
    assert (oldest.number, oldest.alias, oldest.served_from, oldest.verdict) == (1, "champion", told.day(14), "promote")


def test_drift_by_column_and_look(page):
    assert set(page.drift.columns) == {"files", "stage", "prediction", "confidence"}
    assert [len(row) for row in page.drift.cells] == [2] * 4
    assert page.drift.says == ("Nothing has moved that an alarm was raised for.",)


@pytest.mark.parametrize(("column", "kind"), [("files", "number"), ("stage", "category"), ("prediction", "category")])
def test_both_distributions_of_a_column(told, page, column, kind):
    found = drift.distribution(told.workspace, told.model, column, page.drift.looks[-1].end)
    assert (found.kind, found.window_rows, found.version) == (kind, 360, 1)
    assert len(found.shares) <= drift.BARS
    assert sum(one.reference for one in found.shares) == pytest.approx(1)
    assert sum(one.window for one in found.shares) == pytest.approx(1)
    edges = [(one.low, one.high) for one in found.shares]
    if kind == "number":
        assert (edges[0][0], edges[-1][1]) == (None, None)
        assert [high for _, high in edges[:-1]] == [low for low, _ in edges[1:]]
    assert column in found.says


@pytest.mark.parametrize(
    ("column", "day", "message"), [("nobody", 13, "knows no such column"), ("files", 12, "no look at risk ended then")]
)
def test_a_distribution_that_there_is_not(told, column, day, message):
    with pytest.raises(VersionUnknown, match=message):
        drift.distribution(told.workspace, told.model, column, told.day(day))


def test_the_page_of_a_version(told):
    found = version.version_page(told.workspace, told.model, 1, told.day(HOURS))
    assert (found.alias, found.verdict, found.candidate, found.opening, found.others) == (
        "champion",
        "promote",
        "decision_tree",
        1,
        (2,),
    )
    assert [step.name for step in found.lineage] == [
        "snapshot", "roles", "candidate decision_tree", "selection", "challenger", "opening", "verdict", "promotion",
    ]  # fmt: skip
    assert found.rebuild == "steward reproduce risk 1"
    assert found.card == "risk/version-1.html"
    assert told.workspace.store.has_page(found.card)
    first, second = found.production.reigns
    assert (first.since, first.until) == (told.crowned, told.day(13.5))
    assert (second.since, second.until, second.by) == (told.day(14), None, "ada")
    assert (found.production.looks, found.production.served) == (2, 720)
    assert (found.production.best.value, found.production.worst) == (1, found.production.newest)
    assert [event.kind for event in found.production.alarms] == ["alarm"]
    assert found.calibration
    assert found.problems == ()


def test_a_version_that_there_is_not(told):
    with pytest.raises(VersionUnknown, match=r"no such version: got 9; allowed: 2, 1\. `steward status risk` lists"):
        version.version_page(told.workspace, told.model, 9, told.day(HOURS))


def test_two_versions_side_by_side(told):
    found = version.compare(told.workspace, told.model, 1, 2, told.day(HOURS))
    lines = {(line.topic, line.name): line for line in found.lines}
    assert [line.topic for line in found.lines] == sorted(
        (line.topic for line in found.lines), key=version.TOPICS.index
    )
    assert lines["verification", "on its sealed rows"].better == "left"
    assert lines["production", "newest live value"].right == "unknown"
    assert lines["training", "candidate"].same
    assert not lines["data", "snapshot"].same
    assert (
        found.says
        == f"Versions 1 and 2 differ in {sum(not line.same for line in found.lines)} of {len(found.lines)} points."
    )


def test_decisions_are_paged_and_have_their_evidence(told):
    first = decisions.decisions(told.workspace, decisions.Filter(), size=10)
    rest = decisions.decisions(told.workspace, decisions.Filter(), before=first.before, size=10)
    lines = [*first.lines, *rest.lines]
    assert (len(first.lines), rest.before) == (10, None)
    assert [line.sequence for line in lines] == sorted((line.sequence for line in lines), reverse=True)
    assert "observation" not in {line.kind for line in lines}
    rollback = lines[0]
    assert (rollback.kind, rollback.by, rollback.version, rollback.evidence["act"]) == (
        "promotion",
        "ada",
        1,
        "rollback",
    )
    assert first.chain.ok
    assert first.says.endswith("newest first, older ones follow.")


@pytest.mark.parametrize(
    ("filter", "kinds"),
    [
        (decisions.Filter(kinds=("observation",)), ["observation"] * 2),
        (decisions.Filter(kinds=("promotion", "trigger"), text="SCRIPT"), ["promotion", "trigger"]),
        (decisions.Filter(models=["other"]), []),
        (decisions.Filter(text="nobody wrote this"), []),
    ],
)
def test_decisions_are_filtered(told, filter, kinds):  # noqa: A002
    found = decisions.decisions(told.workspace, filter)
    assert [line.kind for line in found.lines] == kinds
    assert bool(kinds) == found.says.endswith("entries, newest first.")


def test_decisions_can_be_taken_away(told, monkeypatch):
    monkeypatch.setattr(decisions, "EXPORTED", 4)
    wanted = decisions.Filter()
    listed = decisions.decisions(told.workspace, wanted).lines
    as_csv = list(csv.DictReader(io.StringIO("".join(decisions.as_csv(decisions.export(told.workspace, wanted))))))
    as_json = json.loads("".join(decisions.as_json(decisions.export(told.workspace, wanted))))
    assert (
        [int(row["sequence"]) for row in as_csv]
        == [row["sequence"] for row in as_json]
        == [line.sequence for line in listed]
    )
    assert [json.loads(row["body"]) for row in as_csv] == [row["body"] for row in as_json]
    assert list(as_csv[0]) == list(as_json[0]) == list(decisions.COLUMNS)
    assert "".join(decisions.as_csv(iter(()))).strip() == ",".join(decisions.COLUMNS)
    assert json.loads("".join(decisions.as_json(iter(())))) == []


def test_test_rows_and_who_opened_them(told):
    found = sealed.test_rows(told.workspace, told.model, told.day(HOURS))
    newest, oldest = found.openings
    assert (newest.number, newest.by, newest.version, newest.promoted, newest.verdict) == (
        2,
        "eve <b>",
        2,
        True,
        "promote",
    )
    assert (oldest.number, oldest.reason, oldest.at) == (1, "first version", told.crowned)
    assert found.opened == newest.rows + oldest.rows
    assert (found.sealed, found.supports, found.counted_at) == (0, 0, None)
    assert "0 sealed rows; a verdict at 0.95 confidence that finds 0.3 needs" in found.says


def test_the_whole_chain_is_walked_when_somebody_asks(changed):
    workspace = changed.workspace
    before = chain.chain_state(workspace)
    assert (before.ok, before.verified_at) == (True, None)
    assert before.says.endswith("the whole was never checked.")
    after = chain.verify_chain(workspace, by="ada", at=changed.day(15))
    assert (after.ok, after.verified_entries, after.verified_by) == (True, before.entries, "ada")
    assert chain.chain_state(workspace).verified_at == changed.day(15)
    with workspace.ledger.connected(write=True) as connection:
        connection.exec_driver_sql("DROP TRIGGER entries_no_delete")
        connection.exec_driver_sql(f"DELETE FROM entries WHERE sequence = {before.entries}")
    cut = chain.chain_state(workspace)
    assert (cut.ok, len(cut.problems)) == (False, 2)
    assert "entries were cut off" in cut.problems[1]
    assert cut.says.startswith("The chain is broken: 2 problems")


def test_records_that_are_gone_do_not_take_the_page_with_them(changed):
    workspace, at = changed.workspace, changed.day(HOURS)
    whole = model.model_page(workspace, changed.model, at)
    for path in (changed.installation.home / "store" / "records").glob("*/*.json"):
        path.unlink()
    found = model.model_page(Workspace(workspace.settings), changed.model, at)
    assert (found.row, found.timeline, found.drift, found.governor) == (
        whole.row,
        whole.timeline,
        whole.drift,
        whole.governor,
    )
    assert [problem.split()[2] for problem in found.problems] == ["accuracy", "quality", "verdict"]
    shown = version.version_page(workspace, changed.model, 1, at)
    assert (shown.number, shown.candidate, shown.verdict, len(shown.problems)) == (1, None, "promote", 2)
    assert dataclasses.replace(found.verified, says="") == model.Judged("", None, ())
    with pytest.raises(ArtifactDamaged, match="no observation behind"):
        drift.distribution(workspace, changed.model, "files", changed.day(13))


def test_a_ledger_that_is_away_is_a_named_error(told, tmp_path):
    settings = dataclasses.replace(told.workspace.settings, ledger_url=f"sqlite:///{tmp_path}")
    workspace, at = Workspace(settings), told.day(HOURS)
    for ask in (
        lambda: overview.overview(workspace, [told.model], at),
        lambda: model.model_page(workspace, told.model, at),
        lambda: version.version_page(workspace, told.model, 1, at),
        lambda: decisions.decisions(workspace, decisions.Filter()),
        lambda: sealed.test_rows(workspace, told.model, at),
    ):
        with pytest.raises(LedgerUnavailable, match="the ledger's database cannot be used now"):
            ask()
