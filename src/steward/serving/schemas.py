"""What the service answers, as structures that are written out in a microsecond."""

from hashlib import sha256

import msgspec

from steward.serving.lineup import Fallback

encode = msgspec.json.Encoder().encode


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """The answer to one record."""

    prediction: str | float
    confidence: float | None
    probabilities: dict[str, float] | None
    interval: dict[str, float] | None
    action: str
    message: str
    model_version: int | None
    prediction_id: str
    fallback: Fallback | None
    unseen: list[str]
    flags: tuple[str, ...]
    control: bool
    logged: bool
    timestamp: str


class Kept(msgspec.Struct, frozen=True, gc=False):
    """What of an answer is on record beside the columns that have their own place."""

    prediction: str | float
    confidence: float | None
    probabilities: dict[str, float] | None
    interval: dict[str, float] | None
    action: str
    unseen: list[str]
    flags: tuple[str, ...]


def is_control(prediction_id: str, share: float) -> bool:
    """Does this prediction belong to the control share? Drawn from its id, so that everybody can check.

    >>> sum(is_control(f"{number:032x}", 0.25) for number in range(1_000))
    244
    """
    return share > 0 and int.from_bytes(sha256(prediction_id.encode()).digest()[:8]) < share * 2**64
