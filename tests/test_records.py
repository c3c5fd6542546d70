"""Records are frozen, plain JSON, and have one identity."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from steward import errors
from steward.errors import MESSAGE_LIMIT, ContractRefused, StewardError
from steward.records import Estimate, Reference, canonical_json, digest_of

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_canonical_json_is_json_and_independent_of_the_order_of_keys(value):
    assert json.loads(canonical_json(value)) == value
    shuffled = dict(reversed(value.items())) if isinstance(value, dict) else value
    assert digest_of(shuffled) == digest_of(value)


def test_records_are_frozen_and_closed():
    reference = Reference(kind="snapshot", uri="u", digest="d")
    assert Reference.model_validate(json.loads(json.dumps(reference.as_json()))) == reference
    with pytest.raises(ValidationError, match="frozen"):
        reference.uri = "v"
    with pytest.raises(ValidationError, match="Extra inputs"):
        Reference(kind="snapshot", uri="u", digest="d", more=1)
    with pytest.raises(ValidationError, match="finite"):
        Estimate(value=float("nan"), low=0, high=1)


NAMED = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StewardError)]


@pytest.mark.parametrize("kind", NAMED)
def test_an_error_survives_a_process_boundary_with_its_facts(kind):
    error = kind("what is wrong", got={"a": 1}, allowed="b", do="try c.", failed=["x"])
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), back.facts) == (kind, str(error), {"failed": ["x"]})
    assert str(back) == "what is wrong: got {'a': 1}; allowed: b. try c."
    assert json.loads(json.dumps(back.as_json()))["error"] == kind.__name__


def test_a_message_is_bounded_but_its_facts_are_whole():
    error = ContractRefused("x", got="y" * 10_000)
    assert len(str(error)) <= MESSAGE_LIMIT
    assert len(error.got) == 10_000
