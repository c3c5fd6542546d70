"""`steward init` and `steward train` on tables that nobody made for Steward, touched up by hand as a user would."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from steward.io.workspace import Workspace
from steward.records import Candidate, Record, Roles, Snapshot, Verdict

if TYPE_CHECKING:
    from conftest import Installation

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Table:
    """A table, what `init` is told about it, and what a person then changes in the draft: (old text, new text)."""

    path: str
    label: str
    candidates: str
    told: tuple[str, ...] = ()
    edits: tuple[tuple[str, str], ...] = ()


TABLES = {
    "rails": Table("ci_travis_a/rails.csv.gz", "build_failed", "decision_tree, logistic_regression"),
    "openstack": Table(
        "jit_issta21/openstack_k_feature.csv.gz",
        "bug",
        "decision_tree, logistic_regression",
        ("--time", "date"),
        (("# split: {by: time}", "split: {by: time}"),),
    ),
    "hypothyroid": Table("hypothyroid/hypothyroid.csv.gz", "Class", "decision_tree, random_forest"),
    "horse_colic": Table(
        "horse_colic/horse-colic.csv.gz",
        "surgical_lesion",
        "decision_tree, logistic_regression",
        edits=(("  outcome: ", "  # outcome: "),),
    ),
    "adult": Table(
        "adult/adult_train.csv.gz",
        "income",
        "decision_tree, logistic_regression",
        edits=(("min: 10000}", "min: 1000}"),),
    ),
    "ames_housing": Table("ames_housing/AmesHousing.csv.gz", "SalePrice", "linear_regression, decision_tree"),
}
CROSS_VALIDATED = {"horse_colic", "hypothyroid", "ames_housing"}
"""Tables with too few rows for validation rows to choose by themselves."""


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_a_real_table_from_init_to_verdict(
    name: str, fresh: "Installation", new_workspace: Callable[[Path], Workspace], shared_data: Path
) -> None:
    table = TABLES[name]
    new_workspace(fresh.home)
    data = ("--data", str(shared_data / table.path), "--label", table.label)
    path = Path(fresh.ask("init", name, *data, *table.told)["path"])
    text = path.read_text()
    for old, new in table.edits:
        assert old in text
        text = text.replace(old, new)
    path.write_text(f"{text}\ncandidates: [{table.candidates}]\nsearch: {{trials: 2, folds: 2}}\n")

    outcome = fresh.ask("train", name)
    assert outcome["verdict"] in ("promote", "hold", "reject")
    assert outcome["test"]["overlap"] == {"challenger": 0, "champion": 0}
    assert outcome["test"]["low"] <= outcome["test"]["value"] <= outcome["test"]["high"]
    assert [candidate["error"] for candidate in outcome["candidates"]] == [None, None]

    (verdict,) = records_of(fresh, Verdict)
    roles = rows_add_up(fresh, outcome)
    assert verdict.test.rows == roles.rows["test"] >= roles.needed
    assert roles.by == ("time" if name == "openstack" else "key")
    folded = "cross_validation" if name in CROSS_VALIDATED else "validation"
    assert {candidate.chosen_on for candidate in records_of(fresh, Candidate)} == {folded}


def rows_add_up(fresh: "Installation", outcome: dict[str, Any]) -> Roles:
    """Every source row is accepted or rejected, and every accepted row has one role."""
    (snapshot,) = records_of(fresh, Snapshot)
    assert snapshot.fingerprint == outcome["snapshot"]
    assert snapshot.rows == snapshot.accepted + snapshot.rejected
    assert (snapshot.accepted, snapshot.rejected) == (outcome["accepted"], outcome["rejected"])
    (roles,) = records_of(fresh, Roles)
    assert sum(roles.rows.values()) == snapshot.accepted
    return roles


def records_of(fresh: "Installation", kind: type[R]) -> list[R]:
    store = fresh.workspace.store
    paths = Path(store.root).glob(f"records/{kind.kind}/*.json")
    return [kind.model_validate(store.read_record(kind.kind, path.stem)) for path in paths]
