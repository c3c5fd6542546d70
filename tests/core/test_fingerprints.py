from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from steward.core import fingerprints
from steward.io.tables import Session
from steward.records import digest_of

TYPES = {"i": pa.int64(), "f": pa.float64(), "b": pa.bool_(), "t": pa.timestamp("us", tz="UTC"), "s": pa.string()}
KINDS = {"i": "integer", "f": "number", "b": "boolean", "t": "time", "s": "text"}
CELLS = {
    "i": st.integers(-(2**63), 2**63 - 1),
    "f": st.floats(allow_nan=False),
    "b": st.booleans(),
    "t": st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    "s": st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
}
ROWS = st.lists(st.tuples(*(st.none() | CELLS[name] for name in TYPES)), min_size=1, max_size=6)
SLOWER = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    session = Session(1, tmp_path_factory.mktemp("tables"))
    yield session
    session.close()


def measured(table):
    return fingerprints.fingerprint(fingerprints.types(table.schema), [table])


def arrow(rows):
    return pa.table({name: pa.array([row[i] for row in rows], kind) for i, (name, kind) in enumerate(TYPES.items())})


def fingerprint(rows):
    return measured(arrow(rows))


def reference(rows):
    numbers = [fingerprints.row_number(row, list(KINDS.values())) for row in rows]
    first = sum(map(fingerprints.mixed, numbers)) % 2**64
    second = sum(fingerprints.mixed(number ^ fingerprints.SECOND) for number in numbers) % 2**64
    parts = [str(len(rows)), str(first), str(second)]
    return digest_of(fingerprints.FORMAT, [list(kind) for kind in KINDS.items()], parts)


@SLOWER
@given(rows=ROWS)
def test_blocks_do_what_the_definition_says(rows):
    assert fingerprint(rows) == reference(rows)


@SLOWER
@given(rows=ROWS, random=st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert fingerprint(shuffled) == fingerprint(rows)


@SLOWER
@given(rows=ROWS, data=st.data())
def test_any_change_of_one_cell_shows(rows, data):
    row, column = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, len(TYPES) - 1))
    value = data.draw(st.none() | list(CELLS.values())[column])
    assume(repr(value) != repr(rows[row][column]))
    changed = [list(cells) for cells in rows]
    changed[row][column] = value
    assert fingerprint(changed) != fingerprint(rows)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param({"a": [None]}, {"a": [""]}, id="null and empty text"),
        pytest.param({"a": [None]}, {"a": ["None"]}, id="null and the word None"),
        pytest.param({"a": [1]}, {"a": [1.0]}, id="integer and number"),
        pytest.param({"a": [1]}, {"a": [True]}, id="integer and boolean"),
        pytest.param({"a": [1]}, {"a": ["1"]}, id="integer and text"),
        pytest.param({"a": [0.0]}, {"a": [-0.0]}, id="zero and minus zero"),
        pytest.param({"a": ["x"], "b": [None]}, {"a": [None], "b": ["x"]}, id="null moves"),
        pytest.param({"a": ["xy"], "b": ["z"]}, {"a": ["x"], "b": ["yz"]}, id="a letter moves to the next column"),
        pytest.param({"a": [1], "b": [2]}, {"a": [2], "b": [1]}, id="values of two columns swapped"),
        pytest.param({"a": [1], "b": [2]}, {"b": [1], "a": [2]}, id="names of two columns swapped"),
        pytest.param({"a": [1, 2], "b": [3, 4]}, {"a": [1, 2], "b": [4, 3]}, id="cells swapped between rows"),
        pytest.param({"a": [1, 2]}, {"a": [1, 2, 2]}, id="row twice"),
        pytest.param({"a": [1, 1, 2, 2]}, {"a": [1, 1, 1, 2]}, id="other row twice"),
        pytest.param({"a": ["a\0b"]}, {"a": ["a"]}, id="zero byte"),
        pytest.param(
            {"a": [datetime(2026, 1, 1, tzinfo=UTC)]},
            {"a": [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=1)]},
            id="a microsecond",
        ),
    ],
)
def test_tables_that_look_alike_differ(first, second):
    assert measured(pa.table(first)) != measured(pa.table(second))


@SLOWER
@given(rows=ROWS, data=st.data())
def test_blocks_dictionaries_and_slices_do_not_matter(rows, data):
    table = arrow(rows)
    cut = data.draw(st.integers(0, len(rows)))
    encoded = table.set_column(4, "s", table["s"].combine_chunks().dictionary_encode())
    kinds = fingerprints.types(table.schema)
    parts = [encoded.slice(0, cut), table.slice(cut)]
    assert fingerprints.fingerprint(kinds, parts) == measured(table) == measured(encoded)


def test_words_that_are_known_already_are_taken():
    table = pa.table({"s": ["a", "b"]})
    content = fingerprints.Content({"s": "text"})
    content.add(table, {"s": np.array([fingerprints.word(text, "text") for text in "ab"], np.uint64)})
    assert content.fingerprint == measured(table)


def test_rows_past_the_ten_thousandth_count():
    numbers = list(range(40_000))
    changed = [*numbers[:35_000], -1, *numbers[35_001:]]
    assert measured(pa.table({"a": numbers})) != measured(pa.table({"a": changed}))


def test_more_columns_than_a_mask_holds():
    wide = {f"c{i}": pa.array([None if i == 70 else i], pa.int64()) for i in range(130)}
    moved = wide | {"c70": pa.array([70], pa.int64()), "c71": pa.array([None], pa.int64())}
    assert measured(pa.table(wide)) != measured(pa.table(moved))


def test_the_digest_stays_over_versions():
    """A recorded fingerprint must be found again by every later version."""
    rows = [(1, 0.5, True, datetime(2026, 1, 1, tzinfo=UTC), "é"), (None,) * 5]
    assert fingerprint(rows) == reference(rows) == ("7b14104dfedee7598e9726573f5ec54f8181d7ee1306bb80da325cf4e88c7508")


def compared(session, first, second):
    one, two = (session.load(pa.Table.from_pandas(table, preserve_index=False)) for table in (first, second))
    counts, examples = fingerprints.changes(one, two, "id")
    return fingerprints.difference(
        fingerprints.types(one.schema().to_pyarrow()),
        fingerprints.types(two.schema().to_pyarrow()),
        "id",
        session.row(counts),
        session.rows(examples),
    )


def test_a_difference_is_named(session):
    first = pd.DataFrame({"id": ["a", "b", "c"], "x": [1, 2, 3], "y": [1.0, 2.0, 3.0], "old": [1, 1, 1]})
    second = pd.DataFrame({"id": ["b", "c", "d"], "x": [2, 4, 5], "y": ["2.0", "3.0", "4.0"], "new": [1, 1, 1]})
    found = compared(session, first, second)
    assert (found.added, found.removed, found.retyped) == (("new",), ("old",), ("y",))
    assert (found.only_first, found.only_second, found.changed) == (1, 1, {"x": 1})
    assert found.example == {"key": "c", "x": ("3", "4")}
    assert str(found).startswith(
        "column new was added; column old was removed; column y has another type; 1 rows are gone"
    )


def test_no_difference(session):
    table = pd.DataFrame({"id": ["a", "b"], "x": [1.0, None]})
    assert str(compared(session, table, table.iloc[::-1])) == "no difference"
