from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steward.config import Split
from steward.core import splitting
from steward.core.splitting import Round, role_of, round_at, unit_of
from steward.errors import NotEnoughSealedRows, RolesFixed
from steward.io.tables import Session

SHARES = Split(train=0.7, validation=0.15, test=0.15)
BY_TIME = Split(by="time", train=0.6, validation=0.2, test=0.2)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    session = Session(1, tmp_path_factory.mktemp("tables"))
    yield session
    session.close()


def units(texts):
    return np.frombuffer(b"".join(map(unit_of, texts)), np.uint8).reshape(-1, splitting.UNIT_BYTES)


def named(codes):
    return [splitting.ROLES[code] for code in codes]


def test_the_role_of_a_key_stays_over_versions():
    """Changing this would let a model see rows that were sealed."""
    assert unit_of("deployment-1").hex() == "6d187e3ec9dc766201d6ab8c1f1fba57"
    letters = [role_of(unit_of(f"deployment-{i}"), SHARES)[:2] for i in range(5, 15)]
    assert " ".join(letters) == "tr tr tr tr tr tr tr tr te va"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(exclude_categories=("Cs",))), min_size=1, max_size=30))
def test_many_rows_get_what_the_reference_says(session, texts):
    table = session.load(pa.table({"text": texts}))
    digests = session.arrow(table.select(digest=table.text.hexdigest("sha256").left(32)))["digest"].combine_chunks()
    found = splitting.units_of(digests)
    assert [unit.tobytes() for unit in found] == [unit_of(text) for text in texts]
    assert splitting.units_of_groups(pa.chunked_array([texts])).tobytes() == found.tobytes()
    assert splitting.units_in(splitting.column_of(found)[1:]).tobytes() == found[1:].tobytes()
    assert named(splitting.roles_by_unit(found, SHARES)) == [role_of(unit_of(text), SHARES) for text in texts]


def test_shares_are_met():
    counted = [role_of(unit_of(str(i)), SHARES) for i in range(20_000)]
    assert [counted.count(role) / 20_000 for role in splitting.ROLES] == pytest.approx([0.7, 0.15, 0.15], abs=0.01)


def test_test_rows_stay_when_only_train_and_validation_change():
    other = Split(train=0.5, validation=0.35, test=0.15)
    units = [unit_of(str(i)) for i in range(2_000)]
    assert [u for u in units if role_of(u, SHARES) == "test"] == [u for u in units if role_of(u, other) == "test"]


def test_opened_units_are_train():
    texts = units([str(i) for i in range(200)])
    roles = splitting.roles_by_unit(texts, SHARES)
    sealed = texts[roles == splitting.CODES["test"]]
    again = splitting.with_opened(roles, texts, [sealed[:3], sealed[3:5]])
    assert (roles != again).sum() == 5
    assert named(again[roles != again]) == ["train"] * 5


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"test": 0.2, "train": 0.65}, "test"),
        ({"test": 0.1, "train": 0.75}, "test"),
        ({"by": "group", "group": "team"}, "by"),
        ({"by": "time"}, "by"),
    ],
)
def test_opened_roles_stay_as_they_are(change, field):
    before = [SHARES.model_dump(mode="json")]
    changed = SHARES.model_copy(update=change)
    splitting.require_same_split(changed, [])
    with pytest.raises(RolesFixed, match=rf"split.{field} was changed .* Set split.{field} back"):
        splitting.require_same_split(changed, before)


def test_the_line_between_train_and_validation_may_move():
    splitting.require_same_split(Split(train=0.5, validation=0.35, test=0.15), [SHARES.model_dump(mode="json")])
    splitting.require_same_split(BY_TIME.model_copy(update={"test": 0.3}), [BY_TIME.model_dump(mode="json")])


def times(*hours):
    return np.array([NOON.replace(tzinfo=None) + timedelta(hours=hour) for hour in hours], dtype="datetime64[us]")


def moment(hour):
    return NOON + timedelta(hours=hour)


def test_the_first_round_cuts_oldest_first():
    assert splitting.next_round(times(*range(10)), [], BY_TIME) == Round(moment(5), moment(7), moment(9))


def test_a_round_takes_only_newer_rows():
    first = Round(moment(5), moment(7), moment(9))
    assert splitting.next_round(times(*range(20)), [first], BY_TIME) == Round(moment(15), moment(17), moment(19))
    assert splitting.next_round(times(*range(10)), [first], BY_TIME) is None


def test_equal_times_stay_together():
    cut = splitting.next_round(times(0, 1, 1, 1, 1, 1, 1, 1, 2, 3), [], BY_TIME)
    assert {round_at(moment(1), [cut])} == {"train"}
    assert cut == Round(moment(1), moment(1), moment(3))


def test_late_rows_fall_into_the_block_of_their_time():
    rounds = [Round(moment(5), moment(7), moment(9)), Round(moment(15), moment(17), moment(19))]
    hours = [-3, 5, 5.5, 7.2, 9, 9.5, 16, 18.9, 25]
    found = named(splitting.roles_by_time(times(*hours), rounds))
    assert found == [round_at(moment(hour), rounds) for hour in hours]
    assert found == ["train", "train", "validation", "test", "test", "train", "validation", "test", "train"]


def test_a_round_survives_json():
    cut = Round(moment(1), moment(2), moment(3))
    assert Round.read(cut.as_json()) == cut


def test_tally_counts_roles_and_classes():
    roles = np.array([splitting.CODES[role] for role in ("train", "train", "test")], np.uint8)
    total, classes = splitting.tally(roles, pa.array(["a", "a", "b"]), ("a", "b", "c"))
    assert total == {"train": 2, "validation": 0, "test": 1}
    assert classes["train"] == {"a": 2, "b": 0, "c": 0}
    assert classes["test"]["b"] == 1
    assert splitting.tally(roles, None, ()) == (total, {})


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (
            {"train": {"a": 70, "b": 7}, "validation": {"a": 15, "b": 1}, "test": {"a": 15, "b": 0}},
            ("class b has no row for test",),
        ),
        ({role: {"a": 100, "b": 10} for role in splitting.ROLES}, ()),
        ({}, ()),
    ],
)
def test_missing_classes_are_noted(classes, said):
    assert splitting.notes(classes, "key") == said


def test_uneven_shares_are_noted():
    classes = {"train": {"a": 900, "b": 100}, "validation": {"a": 90, "b": 10}, "test": {"a": 50, "b": 50}}
    assert "more than chance" in splitting.notes(classes, "time")[0]


def test_too_few_sealed_rows_say_how_many_are_missing():
    with pytest.raises(
        NotEnoughSealedRows, match=r"10 sealed test rows .* 100 are needed.* about 600 more labelled"
    ) as caught:
        splitting.require_sealed(10, 100, SHARES, 0.05)
    assert caught.value.facts == {"missing": 600, "sealed": 10, "needed": 100}
    splitting.require_sealed(100, 100, SHARES, 0.05)
