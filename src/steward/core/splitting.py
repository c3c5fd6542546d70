"""Which row is for what: train, validation or test.

A *unit* is what gets a role: a row (its key) or a group. Its identity is the SHA-256 of its text, so that every engine,
version and language gives it the same role, today and in ten years. Read as a number between 0 and 1, the digest lies in
the test share, the validation share above it, or the rest: as long as the shares stay, so does every role.

By time, rows are cut once into blocks and keep them: a *round* takes the rows that are newer than the last round's end and
cuts them, oldest first, into train, validation and test. Equal times stay together; a row that arrives late falls into the
block that its time belongs to.
"""

import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from steward.config import Split
from steward.errors import NotEnoughSealedRows, RolesFixed

Role = Literal["train", "validation", "test"]
ROLES: tuple[Role, ...] = ("train", "validation", "test")
CODES = {role: code for code, role in enumerate(ROLES)}
UNIT_BYTES = 16
CHANCE = 0.001
"""Shares of classes that differ between roles less probably than this are worth a note."""

Codes = NDArray[np.uint8]
"""Roles as their positions in `ROLES`."""
Units = NDArray[np.uint8]
"""Units, shape (n, 16)."""


def unit_of(text: str) -> bytes:
    """The identity of a key or group: 16 bytes.

    >>> unit_of("deployment-1").hex()
    '6d187e3ec9dc766201d6ab8c1f1fba57'
    """
    return hashlib.sha256(text.encode()).digest()[:UNIT_BYTES]


def units_of(digests: Any) -> Units:
    """Units of an Arrow array of units in hex: `unit_of` for texts that an engine has hashed.

    >>> import pyarrow as pa
    >>> digests = pa.array([hashlib.sha256(b"deployment-1").hexdigest()[:32]])
    >>> units_of(digests).tobytes() == unit_of("deployment-1")
    True
    """
    start, size = digests.offset * 2 * UNIT_BYTES, len(digests) * 2 * UNIT_BYTES
    raw = binascii.unhexlify(memoryview(digests.buffers()[2])[start : start + size]) if size else b""
    return np.frombuffer(raw, np.uint8).reshape(-1, UNIT_BYTES)


def units_in(column: Any) -> Units:
    """Units of an Arrow column that holds them."""
    import pyarrow as pa

    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks)
    raw: Units = np.frombuffer(whole.buffers()[1], np.uint8).reshape(-1, UNIT_BYTES)
    units: Units = raw[whole.offset : whole.offset + len(whole)]
    return units


def column_of(units: Units) -> Any:
    """Units as an Arrow array of 16 bytes each."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.binary(UNIT_BYTES), len(units), [None, pa.py_buffer(units)])


def any_twice(keys: Sequence[NDArray[np.uint64]]) -> bool:
    """Does any number stand twice? Of two different keys they are the same once in 2**64 pairs, which costs a look.

    >>> any_twice([np.array([3, 1], np.uint64), np.array([2, 3], np.uint64)])
    True
    """
    ordered = np.sort(np.concatenate([*keys, np.zeros(0, np.uint64)]))
    return bool((ordered[1:] == ordered[:-1]).any())


def units_of_groups(column: Any) -> Units:
    """`unit_of` for every text of an Arrow column; each different text is hashed once."""
    encoded = column.combine_chunks().dictionary_encode()
    different: Units = np.frombuffer(b"".join(map(unit_of, encoded.dictionary.to_pylist())), np.uint8)
    units: Units = different.reshape(-1, UNIT_BYTES)[encoded.indices.to_numpy()]
    return units


def with_opened(roles: Codes, units: Units, opened: Sequence[Units]) -> Codes:
    """The same roles, but test rows whose unit was opened are train rows."""
    if not opened:
        return roles
    known = np.isin(numbers_of(units), np.concatenate([numbers_of(sealed) for sealed in opened]))
    return np.where((roles == CODES["test"]) & known, np.uint8(CODES["train"]), roles)


def require_same_split(split: Split, before: Sequence[Mapping[str, Any]]) -> None:
    """Raise RolesFixed if roles that were opened were given in another way.

    Once sealed rows were opened, models have learned from the rows beside them, and remember which; another `by`, group
    or test share would make test rows of some of these. Shares of a split by time hold for new rows only, and the line
    between validation and train may move: neither makes an old row a test row.

    Parameters
    ----------
    before : `split` of the model file at each opening.
    """
    fixed = ("by", "group") if split.by == "time" else ("by", "group", "test")
    asked = split.model_dump(mode="json")
    for given in before:
        changed = [name for name in fixed if name in given and given[name] != asked[name]]
        if changed:
            raise RolesFixed(
                f"split.{changed[0]} was changed after sealed rows were opened: rows that models learned from would become test rows",
                got=asked[changed[0]],
                allowed=given[changed[0]],
                do=f"Set split.{changed[0]} back, or start anew under another model name",
                field=f"split.{changed[0]}",
            )


def numbers_of(units: Units) -> NDArray[np.uint64]:
    """The first half of each unit as a number, shape (n,): where a unit lies between 0 and 2**64."""
    return units[:, :8].copy().view(">u8").ravel().astype(np.uint64)


def thresholds(split: Split) -> tuple[int, int]:
    """Units whose first half is below the first number are test, below the second validation.

    >>> [hex(number) for number in thresholds(Split(train=0.5, validation=0.25, test=0.25))]
    ['0x4000000000000000', '0x8000000000000000']
    """
    return _part(split.test), _part(split.test + split.validation)


def _part(share: float) -> int:
    return round(share * 2**52) << 12


def role_of(unit: bytes, split: Split) -> Role:
    """The role of a unit by its digest alone.

    >>> role_of(unit_of("deployment-1"), Split())
    'train'
    """
    number = int.from_bytes(unit[:8], "big")
    test, validation = thresholds(split)
    return "test" if number < test else "validation" if number < validation else "train"


def roles_by_unit(units: Units, split: Split) -> Codes:
    """`role_of` for many units: codes, shape (n,)."""
    numbers = numbers_of(units)
    test, validation = (np.uint64(number) for number in thresholds(split))
    return np.select(
        [numbers < test, numbers < validation],
        [np.uint8(CODES["test"]), np.uint8(CODES["validation"])],
        np.uint8(CODES["train"]),
    )


def roles_by_time(times: NDArray[np.datetime64], rounds: Sequence["Round"]) -> Codes:
    """`round_at` for many times: codes, shape (n,).

    Parameters
    ----------
    times : (n,) in UTC.
    """
    ends = np.array([_naive(getattr(cut, role)) for cut in rounds for role in ROLES], dtype="datetime64[us]")
    codes = np.array([*(CODES[role] for _ in rounds for role in ROLES), CODES["train"]], dtype=np.uint8)
    return codes[np.searchsorted(ends, times, side="left")]


@dataclass(frozen=True)
class Round:
    """One cut by time; each block ends with its time, inclusive."""

    train: datetime
    validation: datetime
    test: datetime

    @classmethod
    def read(cls, body: Mapping[str, str]) -> "Round":
        return cls(**{name: datetime.fromisoformat(body[name]) for name in ROLES})

    def as_json(self) -> dict[str, str]:
        return {name: getattr(self, name).isoformat() for name in ROLES}


def next_round(times: NDArray[np.datetime64], rounds: Sequence[Round], split: Split) -> Round | None:
    """The cut of the rows that are newer than every round; None if there are none.

    Parameters
    ----------
    times : (n,) times of the rows in UTC, in any order.
    """
    newer = np.sort(times if not rounds else times[times > _naive(rounds[-1].test)])
    if not len(newer):
        return None
    cuts = (split.train, split.train + split.validation, 1.0)
    ends = [newer[max(0, ceil(round(share * len(newer), 6)) - 1)] for share in cuts]
    return Round(*(end.astype("datetime64[us]").item().replace(tzinfo=UTC) for end in ends))


def _naive(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")


def round_at(time: datetime, rounds: Sequence[Round]) -> Role:
    """The role of a time by the rounds alone; train after the last one's end.

    >>> day = [datetime(2026, 1, day, tzinfo=UTC) for day in (7, 8, 10)]
    >>> round_at(datetime(2026, 1, 9, tzinfo=UTC), [Round(*day)])
    'test'
    """
    for cut in rounds:
        for role in ROLES:
            if time <= getattr(cut, role):
                return role
    return "train"


def tally(roles: Codes, labels: Any, classes: Sequence[str]) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Rows per role, and per role and class (empty for a regression).

    Parameters
    ----------
    labels : Arrow array of class names, n rows; not looked at for a regression.
    """
    total = dict(zip(ROLES, np.bincount(roles, minlength=len(ROLES)).tolist(), strict=True))
    if not classes:
        return total, {}
    encoded = labels.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    pairs = roles.astype(np.int64) * len(names) + encoded.indices.to_numpy()
    counts = np.bincount(pairs, minlength=len(ROLES) * len(names)).reshape(len(ROLES), -1)
    found = {role: dict(zip(names, counts[code].tolist(), strict=True)) for role, code in CODES.items()}
    return total, {role: {name: found[role].get(name, 0) for name in classes} for role in ROLES}


def notes(classes: Mapping[str, Mapping[str, int]], by: str) -> tuple[str, ...]:
    """What a person should know of the classes in the roles: reported, not forced."""
    if not classes:
        return ()
    table = np.array([[classes[role][name] for name in classes[role]] for role in ROLES])
    names = list(classes["train"])
    said = [
        f"class {names[column]} has no row for {role}"
        for row, role in enumerate(ROLES)
        for column in np.flatnonzero((table[row] == 0) & (table.sum(axis=0) > 0))
    ]
    kept = table[:, table.sum(axis=0) > 0]
    if kept.shape[1] > 1 and (kept.sum(axis=1) > 0).all() and chi2_contingency(kept).pvalue < CHANCE:
        said.append(f"the shares of the classes differ between the roles by more than chance (split by {by})")
    return tuple(said)


def require_sealed(sealed: int, needed: int, split: Split, detect: float) -> None:
    """Raise NotEnoughSealedRows, with the number of labelled rows still missing, unless `sealed` rows can decide."""
    if sealed >= needed:
        return
    missing = ceil((needed - sealed) / split.test)
    raise NotEnoughSealedRows(
        f"{sealed} sealed test rows are too few to find a difference of {detect:g}: {needed} are needed",
        got=f"{sealed} sealed rows",
        allowed=f"at least {needed}",
        do=f"Wait for about {missing} more labelled rows ({split.test:.0%} of new rows become test rows), or raise verify.detect",
        missing=missing,
        sealed=sealed,
        needed=needed,
    )
