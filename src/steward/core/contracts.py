"""The contract: what the columns of a source must look like, and which rows break it.

As Ibis expressions a contract cleans every value, marks every row with the rules that it breaks, and counts, where the
data is. `core.expectations` lets Great Expectations judge the counts.

Cleaning: blanks around texts go; `source.missing` tokens and NaN become null; aliases become what they stand for; numbers
in texts are read; classes and categories are text, whole numbers among them without a decimal point (`0`, not `0.0`);
booleans are 1/0, true/false, t/f, yes/no, y/n, on/off; times are timestamps, dates, ISO text or seconds since 1970, in UTC.

A row is
- *immature* if it is younger than `label.mature_after`: kept aside, breaks no rule;
- *repeated* if a row with the same key and the same values came before: kept aside, nothing is lost;
- *rejected* if it breaks a rule; of a key of several columns, those may be missing that are nullable columns of the model,
  as long as one is there; rows with the same key and different values are all rejected: nobody knows which is right.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import add, and_
from typing import Any, Literal

from steward.config import ModelFile

KEY, TIME, LABEL, GROUP = "@key", "@time", "@label", "@group"
"""Columns of a snapshot beside those of the contract."""
DIGEST = "@digest"
"""The first 16 bytes of the SHA-256 of a row's key."""
DIGITS = 32
"""Digits of a digest while it is text."""

RULES = ("not_null", "type", "finite", "between", "in_set")
"""Rules of one value; the first that is broken counts. Codes of a row are positions in this list, from 1."""

REPEATED, NOT_UNIQUE = 1, 2
TRUE, FALSE = ("1", "true", "t", "yes", "y", "on", "1.0"), ("0", "false", "f", "no", "n", "off", "0.0")
WHOLE_BELOW = 2**63 - 1024
MANY_CATEGORIES = 255
MANY_DIFFERENT = 1_000
"""Different values are counted up to this many."""
EXAMPLES = 20

Bound = float | int


@dataclass(frozen=True)
class Field:
    """One column of the source as the contract sees it.

    `name` is its column in the snapshot, `column` the one in the source.
    """

    name: str
    column: str
    type: Literal["integer", "number", "category", "boolean", "time"]
    nullable: bool = False
    min: Bound | None = None
    max: Bound | None = None
    values: tuple[str, ...] = ()
    aliases: Mapping[str, str] | None = None

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that a value of this field can break."""
        return tuple(
            rule
            for rule, applies in zip(
                RULES,
                (
                    not self.nullable,
                    self.type != "category",
                    self.type == "number",
                    self.min is not None or self.max is not None,
                    bool(self.values),
                ),
                strict=True,
            )
            if applies
        )


@dataclass(frozen=True)
class Contract:
    """The contract of a model file.

    Parameters
    ----------
    fields : every column that is checked.
    at : the moment as of which labels are mature; time-zone aware.
    """

    model: ModelFile
    fields: tuple[Field, ...]
    at: datetime

    @classmethod
    def of(cls, model: ModelFile, at: datetime) -> "Contract":
        """The contract that a model file asks for."""
        return cls(model, (*_key_fields(model), *_role_fields(model), *_column_fields(model)), at)

    @classmethod
    def unlabelled(cls, model: ModelFile, at: datetime, *, with_ranges: bool = True) -> "Contract":
        """The contract for rows that are to be predicted: no label, no maturity, and a key may be missing or double.

        Parameters
        ----------
        with_ranges : does a number outside `min` and `max` of its column break the contract?
        """
        final = model.model_copy(update={"label": model.label.model_copy(update={"mature_after": timedelta(0)})})
        keys = (replace(field, nullable=True) for field in _key_fields(model))
        columns = (field if with_ranges else replace(field, min=None, max=None) for field in _column_fields(model))
        return cls(final, (*keys, *columns), at)

    @classmethod
    def incoming(cls, model: ModelFile, at: datetime) -> "Contract":
        """As `unlabelled`, and with the time, by which rows are chosen."""
        contract = cls.unlabelled(model, at)
        column = model.source.time
        times = (Field(TIME, column, "time", nullable=True),) if column else ()
        return replace(contract, fields=(*contract.fields, *times))

    @property
    def key_fields(self) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.name.startswith(KEY))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the snapshot, in order."""
        named = tuple(field.name for field in self.fields if not field.name.startswith(KEY))
        return (KEY, *named)

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns of the snapshot whose texts stand in many rows each."""
        return tuple(f.name for f in self.fields if f.type == "category" and not f.name.startswith(KEY))

    @property
    def repetitive(self) -> tuple[str, ...]:
        """Columns of the snapshot whose values stand in many rows each."""
        return (*self.texts, *(field.name for field in self.fields if field.type == "integer"))

    @property
    def mature_before(self) -> datetime | None:
        wait = self.model.label.mature_after
        return self.at - wait if wait > timedelta(0) else None

    def missing(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Columns that the contract needs and the source lacks."""
        return tuple(dict.fromkeys(field.column for field in self.fields if field.column not in columns))

    def unknown(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Columns of the source that the contract does not speak of."""
        return tuple(column for column in columns if column not in {field.column for field in self.fields})


def _key_fields(model: ModelFile) -> Iterable[Field]:
    lacking = _may_lack(model)
    for number, (column, may_lack) in enumerate(zip(model.source.keys, lacking, strict=True)):
        whole = number == 0 and all(lacking)  # this field stands for the key as a whole, which is never missing
        yield Field(f"{KEY}{number}", column, "category", nullable=may_lack and not whole)


def _may_lack(model: ModelFile) -> tuple[bool, ...]:
    """Which parts of the key may be missing: of several, those that are nullable columns."""
    keys, columns = model.source.keys, model.columns
    return tuple(len(keys) > 1 and key in columns and columns[key].nullable for key in keys)


def _role_fields(model: ModelFile) -> Iterable[Field]:
    label, source = model.label, model.source
    if source.time:
        yield Field(TIME, source.time, "time", nullable=not (label.mature_after or model.split.by == "time"))
    if model.task == "classification":
        yield Field(LABEL, label.column, "category", values=model.classes, aliases=label.aliases)
    else:
        yield Field(LABEL, label.column, "number", min=label.min, max=label.max)
    if model.split.group:
        yield Field(GROUP, model.split.group, "category")


def _column_fields(model: ModelFile) -> Iterable[Field]:
    for name, column in model.columns.items():
        legal = () if column.open else column.values or ()
        yield Field(name, name, column.type, column.nullable, column.min, column.max, legal, column.aliases)


# The scan: Ibis expressions, nothing is computed here.


Stage = Callable[[Any], Any]
"""Gives an intermediate Ibis table a name of its own, so that nobody has to compile one huge expression."""


def flagged(source: Any, contract: Contract, stage: Stage, carried: Mapping[str, str] | None = None) -> Any:
    """Every source row, cleaned and marked.

    Parameters
    ----------
    carried : columns of the source that stay as they are, by the name that they get.

    Returns
    -------
    Ibis table with the snapshot's columns; `!row` the source row as JSON; `?<i>` field i's value as text; `!<i>` the code
    of the rule it breaks (0: none); `!legal`, true if there is none; `!immature`; `!key` (0, REPEATED or NOT_UNIQUE; 0 until
    `with_duplicates`); `!batch`, true for rows that count; `!accepted`.
    """
    import ibis

    cleaned = stage(
        source.select(
            **{f"={i}": _cleaned(source[field.column], contract) for i, field in enumerate(contract.fields)},
            **{f"?{i}": source[field.column].cast("string") for i, field in enumerate(contract.fields)},
            **{"!row": _json(source)},
            **{name: source[column] for name, column in (carried or {}).items()},
        )
    )
    valued = stage(
        cleaned.mutate(**{field.name: _value(cleaned[f"={i}"], field) for i, field in enumerate(contract.fields)})
    )
    lacking = _may_lack(contract.model)
    key = _joined([valued[field.name] for field in contract.key_fields], lacking)
    looked_at = {i: (valued[field.name], valued[f"={i}"], field) for i, field in enumerate(contract.fields)}
    if all(lacking):
        looked_at[0] = (key, key, contract.fields[0])
    marked = stage(
        valued.mutate(
            **{f"!{i}": _code(*what) for i, what in looked_at.items()},
            **{KEY: key},
            **{"!immature": _immature(valued, contract)},
            **{"!legal": reduce(and_, [_legal(*what) for what in looked_at.values()])},
            **{"!key": ibis.literal(0, "int32")},
        )
    )
    return stage(_with_verdict(marked))


def cleaned(source: Any, contract: Contract, stage: Stage) -> Any:
    """Every source row as `flagged` cleans it, and not judged, in a third of the time: Ibis table of `@key` and every field's
    values.
    """
    clean = stage(
        source.select(**{f"={i}": _cleaned(source[field.column], contract) for i, field in enumerate(contract.fields)})
    )
    valued = stage(
        clean.select(**{field.name: _value(clean[f"={i}"], field) for i, field in enumerate(contract.fields)})
    )
    key = _joined([valued[field.name] for field in contract.key_fields], _may_lack(contract.model))
    return valued.mutate(**{KEY: key})


def duplicated_keys(rows: Any) -> Any:
    """Keys that stand on several mature rows: Ibis table with the one column `@key`."""
    mature = rows.filter(~rows["!immature"], rows[KEY].notnull())
    counted = mature.group_by(KEY).aggregate(n=mature.count())
    return counted.filter(counted.n > 1).select(KEY)


def with_duplicates(rows: Any, keys: Any, contract: Contract, stage: Stage) -> Any:
    """Rows whose `!key` tells copies and conflicts; rows with the `keys` come last, in the order of their keys."""
    import ibis

    names = [name for name in rows.columns if name not in ("!batch", "!accepted")]
    mark = stage(rows.select(*names, **{"!double": ~rows["!immature"] & rows[KEY].isin(keys[KEY]).fill_null(False)}))
    double = mark.filter(mark["!double"])
    same = ibis.window(group_by=[double[name] for name in contract.columns], order_by=double["!row"])
    ranked = stage(double.mutate(**{"!rank": ibis.row_number().over(same)}))
    versions = (ranked["!rank"] == 0).sum().over(ibis.window(group_by=ranked[KEY]))
    code = ibis.cases((ranked["!rank"] > 0, REPEATED), (versions > 1, NOT_UNIQUE), else_=0).cast("int32")
    coded = ranked.mutate(**{"!key": code}).order_by(KEY, "!rank", "!row").select(*names)
    alone = mark.filter(~mark["!double"]).select(*names)
    return stage(_with_verdict(stage(alone.union(coded))))


def accepted(rows: Any, contract: Contract) -> Any:
    """The snapshot: rows that break no rule, in the source's order, with the `@digest` of each key in hex."""
    kept = rows.filter(rows["!accepted"])
    return kept.select(*contract.columns, **{DIGEST: _digest(kept[KEY])})


def set_aside(rows: Any) -> Any:
    """The other rows."""
    return rows.filter(~rows["!accepted"])


def digests(aside: Any) -> Any:
    """The `@digest` of each key that was set aside though its row is mature: a key that stands there is taken."""
    kept = aside.filter(~aside["!immature"], aside[KEY].notnull())
    return kept.select(**{DIGEST: _digest(kept[KEY])})


def _digest(key: Any) -> Any:
    return key.hexdigest("sha256").left(DIGITS)


def rejected(rows: Any, contract: Contract) -> Any:
    """One line per broken rule: Ibis table of key, rule, column, value and the source row as JSON."""
    import ibis

    kept = set_aside(rows)
    key = ", ".join(contract.model.source.keys)

    def line(rule: Any, column: str, value: Any) -> Any:
        return ibis.struct({"rule": rule, "column": ibis.literal(column), "value": value})

    def maybe(condition: Any, rule: Any, column: str, value: Any) -> Any:
        return ibis.ifelse(condition, line(rule, column, value), ibis.null())

    counts = ~kept["!immature"] & (kept["!key"] != REPEATED)
    time = contract.model.source.time or ""
    lines = [
        maybe(kept["!immature"], ibis.literal("label_immature"), time, _text_of_time(kept)),
        maybe(~kept["!immature"] & (kept["!key"] == REPEATED), ibis.literal("repeated"), key, kept[KEY]),
        maybe(~kept["!immature"] & (kept["!key"] == NOT_UNIQUE), ibis.literal("unique"), key, kept[KEY]),
        *(
            maybe(counts & (kept[f"!{i}"] > 0), _rule_name(kept[f"!{i}"]), field.column, kept[f"?{i}"])
            for i, field in enumerate(contract.fields)
        ),
    ]
    spread = kept.select(
        key=kept[KEY], row=kept["!row"], line=ibis.array(lines).filter(lambda item: item.notnull()).unnest()
    )
    return spread.select(
        key=spread.key,
        rule=spread.line["rule"],
        column=spread.line["column"],
        value=spread.line["value"],
        row=spread.row,
    )


def aside(rows: Any, contract: Contract) -> dict[str, Any]:
    """What is counted of the rows that are `set_aside`, by name: Ibis expressions over them."""
    batch = rows["!batch"]
    found: dict[str, Any] = {
        "rejected": rows.count(),
        "immature": _times(rows["!immature"]),
        "batch": _times(batch),
        "repeated": _times(~rows["!immature"] & (rows["!key"] == REPEATED)),
        "unique": _times(batch & (rows["!key"] == NOT_UNIQUE)),
        "keyed": _times(batch & rows[KEY].notnull()),
    }
    nulls = {
        f"nulls:{i}": _times(batch & rows[field.name].isnull() & (rows[f"!{i}"] == 0))
        for i, field in enumerate(contract.fields)
        if field.nullable
    }
    return found | nulls | broken(rows, contract)


NOTHING_ASIDE = {"rejected": 0, "immature": 0, "batch": 0, "repeated": 0, "unique": 0, "keyed": 0}


class AcceptedRows:
    """What is counted of accepted rows, block by block."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.rows = 0
        self.nulls: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.different: dict[str, set[Any]] = {name: set() for name in self._open()}

    def _open(self) -> Iterable[str]:
        if self.contract.model.task == "regression":
            yield LABEL
        for field in self.contract.fields:
            if field.type == "category" and not field.values and not field.name.startswith("@"):
                yield field.name

    def add(self, block: Any) -> None:
        """Count the rows of an Arrow table with the snapshot's columns."""
        self.rows += block.num_rows
        self.nulls.update({name: block[name].null_count for name in self.contract.columns})
        if self.contract.model.task == "classification":
            counted = block[LABEL].value_counts().to_pylist()
            self.labels.update({count["values"]: count["counts"] for count in counted})
        for name, values in self.different.items():
            if len(values) <= MANY_DIFFERENT:
                values.update(block[name].drop_null().unique().to_pylist()[: MANY_DIFFERENT + 1])

    def joined(self, aside: Mapping[str, int]) -> dict[str, Any]:
        """The counts of a whole table, from these and those of the rows that were set aside."""
        found: dict[str, Any] = {"rows": self.rows + aside["rejected"], "accepted": self.rows, **aside}
        found |= {name: aside[name] + self.rows for name in ("batch", "keyed")}
        for i, field in enumerate(self.contract.fields):
            if field.nullable:
                found[f"nulls:{i}"] = aside.get(f"nulls:{i}", 0) + self.nulls[field.name]
            if field.name in self.different:
                found[f"categories:{i}"] = len(self.different[field.name])
            found |= {f"{rule}:{i}": aside.get(f"{rule}:{i}", 0) for rule in field.rules}
        if self.contract.model.task == "regression":
            return found | {"labels": len(self.different[LABEL])}
        return found | {f"label:{name}": self.labels[name] for name in self.contract.model.classes}


def broken(rows: Any, contract: Contract) -> dict[str, Any]:
    """How often each rule of each field is broken, by name; all 0 in a table without rejected rows."""
    return {
        f"{rule}:{i}": _times(rows["!batch"] & (rows[f"!{i}"] == RULES.index(rule) + 1))
        for i, field in enumerate(contract.fields)
        for rule in field.rules
    }


def _times(condition: Any) -> Any:
    """How often a condition holds; 0 in a table without rows."""
    return condition.sum().fill_null(0)


def examples(rows: Any, contract: Contract, found: Mapping[str, Any]) -> Any:
    """A few unexpected values of every broken rule, as one row of lists, from the rows that were `set_aside`."""
    batch = rows["!batch"]
    lists = {
        f"{rule}:{i}": rows[f"?{i}"]
        .fill_null("")
        .collect(where=batch & (rows[f"!{i}"] == RULES.index(rule) + 1))[:EXAMPLES]
        for i, field in enumerate(contract.fields)
        for rule in field.rules
        if found[f"{rule}:{i}"]
    }
    if found["unique"]:
        lists["unique"] = rows[KEY].collect(where=batch & (rows["!key"] == NOT_UNIQUE))[:EXAMPLES]
    return rows.aggregate(**lists, rows=rows.count())


def _with_verdict(rows: Any) -> Any:
    batch = ~rows["!immature"] & (rows["!key"] != REPEATED)
    return rows.mutate(**{"!batch": batch, "!accepted": ~rows["!immature"] & (rows["!key"] == 0) & rows["!legal"]})


def _json(source: Any) -> Any:
    import ibis

    return ibis.struct({name: source[name] for name in source.columns}).cast("json").cast("string")


def _cleaned(raw: Any, contract: Contract) -> Any:
    """Missing values as null; texts without the blanks around them."""
    tokens = contract.model.source.missing
    kind = raw.type()
    if kind.is_string():
        return _without(tokens, _stripped(raw))
    if kind.is_numeric() and not kind.is_boolean():
        numbers = [number for number in map(_number_of, tokens) if number is not None]
        missing = raw.isin(numbers) if numbers else None
        if kind.is_floating():
            missing = raw.isnan() if missing is None else raw.isnan() | missing
        return raw if missing is None else missing.ifelse(None, raw)
    return raw


def _stripped(raw: Any) -> Any:
    """Texts without blanks around them; most have none, and a look at the first and last letter costs a fifth."""
    return ((raw < FIRST_LETTER) | (raw.right(1) < FIRST_LETTER)).ifelse(raw.strip(), raw)


FIRST_LETTER = "!"
"""Blanks sort before it, and nothing else does but what is never printed."""


def _without(tokens: Sequence[str], text: Any) -> Any:
    if len(tokens) == 1:
        return text.nullif(tokens[0])
    return text.isin(tokens).ifelse(None, text) if tokens else text


def _number_of(token: str) -> float | None:
    try:
        return float(token)
    except ValueError:
        return None


def _value(clean: Any, field: Field) -> Any:
    """The legal form of a cleaned value; null where it cannot be read."""
    match field.type:
        case "integer":
            number = _number(clean)
            if clean.type().is_integer():
                return number
            whole = (number % 1 == 0) & (number.abs() < WHOLE_BELOW)
            return whole.ifelse(number, None).try_cast("int64")
        case "number":
            return _number(clean).cast("float64")
        case "boolean":
            return _boolean(clean)
        case "time":
            return _time(clean)
    text = _text(clean)
    return text.substitute(dict(field.aliases), else_=text) if field.aliases else text


def _number(clean: Any) -> Any:
    kind = clean.type()
    if kind.is_string():
        number = clean.try_cast("float64")
        return number.isnan().ifelse(None, number)
    if kind.is_boolean():
        return clean.cast("int64")
    if kind.is_integer():
        return clean.cast("int64")
    return clean.cast("float64") if kind.is_numeric() else _nothing("float64")


def _nothing(kind: str) -> Any:
    import ibis

    return ibis.null(kind)


def _text(clean: Any) -> Any:
    kind = clean.type()
    if kind.is_floating() or kind.is_decimal():
        number = clean.cast("float64")
        whole = (number % 1 == 0) & (number.abs() < 2**53)
        return whole.ifelse(number.try_cast("int64").cast("string"), number.cast("string"))
    return clean if kind.is_string() else clean.cast("string")


def _boolean(clean: Any) -> Any:
    import ibis

    if clean.type().is_boolean():
        return clean
    text = _text(clean).lower()
    return ibis.cases((text.isin(TRUE), True), (text.isin(FALSE), False), else_=None)


def _time(clean: Any) -> Any:
    """A moment in UTC, without a time zone, because engines reckon with zones slowly; `with_time_zone` says it again."""
    import ibis

    kind = clean.type()
    if kind.is_timestamp() or kind.is_date():
        return (clean if getattr(kind, "timezone", None) is None else clean.cast("timestamp('UTC')")).cast("timestamp")
    if kind.is_unknown():  # times in nanoseconds with a zone, which Ibis 12 has no name for
        return clean.try_cast("timestamp('UTC')").cast("timestamp")
    if kind.is_numeric() and not kind.is_boolean():
        return _moment(clean.cast("float64"))
    if kind.is_string():
        written = clean.try_cast("timestamp('UTC')").cast("timestamp")
        return ibis.coalesce(written, _moment(clean.try_cast("float64")))
    return _nothing("timestamp")


def _moment(seconds: Any) -> Any:
    """Seconds since 1970 as a time; null outside the years 1 to 9999."""
    import ibis

    legal = seconds.between(-62_135_596_800, 253_402_300_799)
    whole = legal.ifelse(seconds, None)
    return ibis.timestamp("1970-01-01 00:00:00") + (whole * 1_000_000).round().try_cast("int64").as_interval("us")


def with_time_zone(block: Any) -> Any:
    """An Arrow table of accepted rows whose times say that they are in UTC."""
    import pyarrow as pa

    if TIME not in block.column_names:
        return block
    place = block.column_names.index(TIME)
    return block.set_column(place, TIME, block[TIME].cast(pa.timestamp("us", "UTC")))


def _code(value: Any, clean: Any, field: Field) -> Any:
    """The rule that a value breaks: its position in RULES from 1, or 0."""
    import ibis

    broken: list[tuple[Any, int]] = [(clean.isnull(), 0 if field.nullable else 1)]
    if field.type != "category":
        broken.append((value.isnull(), 2))
    rules = [(~kept, RULES.index(rule) + 1) for rule, kept in _kept(value, clean, field)]
    return ibis.cases(*broken, *rules, else_=0).cast("int8")


def _legal(value: Any, clean: Any, field: Field) -> Any:
    """True or false, never null: no rule is broken. Says what `_code` says, in words that an engine checks fast."""
    legal = reduce(and_, (kept for _, kept in _kept(value, clean, field)), value.notnull())
    return clean.isnull() | legal if field.nullable else legal


def _kept(value: Any, clean: Any, field: Field) -> Iterable[tuple[str, Any]]:
    """Rules of a value that is there, and the condition that it keeps each."""
    if field.type == "number" and not clean.type().is_integer():
        yield "finite", ~value.isinf()
    if field.min is not None:
        yield "between", value >= field.min
    if field.max is not None:
        yield "between", value <= field.max
    if field.values:
        yield "in_set", value.isin(field.values)


def _rule_name(code: Any) -> Any:
    return code.cases(*((number, rule) for number, rule in enumerate(RULES, start=1)))


def _immature(rows: Any, contract: Contract) -> Any:
    import ibis

    before = contract.mature_before
    if before is None:
        return ibis.literal(False)
    moment = before.astimezone(UTC).replace(tzinfo=None)
    return (rows[TIME] > ibis.literal(moment, "timestamp")).fill_null(False)


def _text_of_time(rows: Any) -> Any:
    return rows[TIME].cast("string") if TIME in rows.columns else _nothing("string")


def _joined(parts: Sequence[Any], lacking: Sequence[bool]) -> Any:
    """One text per key: the text itself, or several as `length:text,` so that no two keys look alike.

    A part that is missing where it may be is `-,`; the key is null if another is, or all are.
    """
    import ibis

    if len(parts) == 1:
        return parts[0]
    pieces = [part.length().cast("string") + ":" + part + "," for part in parts]
    joined = reduce(
        add, [piece.fill_null("-,") if lack else piece for piece, lack in zip(pieces, lacking, strict=True)]
    )
    return ibis.coalesce(*parts).isnull().ifelse(None, joined) if all(lacking) else joined


def share_rejected(found: Mapping[str, Any]) -> float:
    """Share of rows that break a rule, among the mature rows without copies."""
    return (found["batch"] - found["accepted"]) / found["batch"] if found["batch"] else 0.0


def rejections(contract: Contract, found: Mapping[str, Any]) -> dict[str, int]:
    """Broken rules by rule and column, such as `between:files_changed`; only those that occur."""
    key = ",".join(contract.model.source.keys)
    named: dict[str, int] = {}
    for i, field in enumerate(contract.fields):
        for rule in field.rules:
            name = f"{rule}:{field.column}"
            named[name] = named.get(name, 0) + found[f"{rule}:{i}"]
    table = {
        f"unique:{key}": found["unique"],
        f"repeated:{key}": found["repeated"],
        f"label_immature:{contract.model.source.time}": found["immature"],
    }
    return {name: number for name, number in (named | table).items() if number}


def notes(contract: Contract, found: Mapping[str, Any]) -> tuple[str, ...]:
    """What a person should know of a table that the contract accepts."""
    said = []
    if found["repeated"]:
        said.append(f"{found['repeated']} rows are exact copies of another row; one of each stays")
    for i, field in enumerate(contract.fields):
        if found.get(f"categories:{i}", 0) > MANY_CATEGORIES:
            number = found[f"categories:{i}"]
            said.append(f"{field.column} has {number if number <= MANY_DIFFERENT else 'very many'} different values")
        if field.nullable and found["batch"] and found.get(f"nulls:{i}") == found["batch"]:
            said.append(f"{field.column} has no value in any row")
    return tuple(said)


def labels(contract: Contract, found: Mapping[str, Any]) -> dict[str, int]:
    """Accepted rows per class; empty for a regression."""
    return {name: found[f"label:{name}"] for name in contract.model.classes}
