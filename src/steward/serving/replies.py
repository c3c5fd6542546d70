"""What is answered → what is put on record, and what is replied once that is done: for one record, and for many at once.

Many records go through column by column, because Python's cost is per call and not per value.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import msgspec

from steward.core.actions import PROCEED
from steward.core.answers import Answer, Answers
from steward.core.requests import Admitted, AdmittedRecords
from steward.io.predictions import Logged, key_of, new_id, new_ids
from steward.serving.bodies import Record
from steward.serving.lineup import Answered, Lineup
from steward.serving.schemas import Kept, Prediction, encode, is_control
from steward.serving.timestamps import timestamp

_encode_lines = msgspec.json.Encoder().encode_lines


class Given(NamedTuple):
    """The answers to one request."""

    rows: Sequence[Logged]
    """For the prediction log."""
    body: Callable[[bool], bytes]
    """The reply's JSON, by whether the rows are in the database."""
    unseen: Mapping[str, int]
    """Values that training did not know, by column."""
    flags: Iterable[tuple[str, ...]]


def reply_to_one(lineup: Lineup, record: Record, answered: Answered[Admitted, Answer], at: float) -> Given:
    """One record's; raises RecordInvalid if its key is none."""
    (row, flags), answer, version, fallback = answered.admitted, answered.answer, answered.version, answered.fallback
    prediction_id = new_id(at)
    control = is_control(prediction_id, lineup.model.serve.control)
    if control:
        answer = answer._replace(action=PROCEED, message="")
    prediction, confidence, probabilities, interval, action, message, unseen = answer
    kept = Kept(prediction, confidence, probabilities, interval, action, unseen, flags)
    logged_row = Logged(
        prediction_id, lineup.model.name, at, version, key_of(lineup.contract, record), encode(row).decode(),
        encode(kept).decode(), _text(prediction), confidence, action, control, fallback,
    )  # fmt: skip

    def body(logged: bool) -> bytes:
        return encode(
            Prediction(
                prediction, confidence, probabilities, interval, action, message, version, prediction_id, fallback,
                unseen, flags, control, logged, timestamp(at),
            )
        )  # fmt: skip

    return Given((logged_row,), body, dict.fromkeys(unseen, 1), (flags,))


def reply_to_many(
    lineup: Lineup, records: Sequence[Record], answered: Answered[AdmittedRecords, Answers], at: float
) -> Given:
    """A batch's, with the same contents; raises RecordInvalid if a key is none."""
    flags, version, fallback = answered.admitted.flags, answered.version, answered.fallback
    ids = new_ids(at, len(records))
    controls = [is_control(prediction_id, lineup.model.serve.control) for prediction_id in ids]
    predictions, confidences, probabilities, intervals, actions, messages, unseen = answered.answer.as_lists()
    if any(controls):
        actions = [PROCEED if control else action for action, control in zip(actions, controls, strict=True)]
        messages = ["" if control else message for message, control in zip(messages, controls, strict=True)]
    kept = map(Kept, predictions, confidences, probabilities, intervals, actions, unseen, flags)
    named = frozenset(lineup.contract.source.keys)
    keys = [None if named.isdisjoint(record) else key_of(lineup.contract, record) for record in records]
    rows = map(
        Logged, ids, repeat(lineup.model.name), repeat(at), repeat(version), keys, _lines(answered.admitted.rows()),
        _lines(kept), map(_text, predictions), confidences, actions, controls, repeat(fallback),
    )  # fmt: skip

    def body(logged: bool) -> bytes:
        made = map(
            Prediction, predictions, confidences, probabilities, intervals, actions, messages, repeat(version), ids,
            repeat(fallback), unseen, flags, controls, repeat(logged), repeat(timestamp(at)),
        )  # fmt: skip
        return encode({"predictions": list(made)})

    counts = {name: sum(map(bool, found)) for name, found in answered.answer.unseen.items()}
    return Given(list(rows), body, {name: count for name, count in counts.items() if count}, flags)


def _lines(values: Iterable[Any]) -> list[str]:
    """The JSON of each value, encoded in one call: a line feed in JSON is never part of a text."""
    return _encode_lines(list(values)).decode().removesuffix("\n").split("\n")


def _text(prediction: str | float) -> str:
    return prediction if isinstance(prediction, str) else repr(prediction)
