"""The first model file of a table: what was found out about it, as YAML that a person reads and changes."""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steward.config import ModelFile
from steward.core import inspection
from steward.core.inspection import (
    AFTERWARDS,
    CLOSED,
    ID_NAME,
    IDENTIFIER,
    KEPT,
    LEFT_OUT,
    RARE_CLASS,
    UNIQUE_ENOUGH,
    ColumnFacts,
    Finding,
    Judged,
    TableFacts,
    Target,
    Task,
    kind_of,
    limits,
    spaced,
)
from steward.errors import ModelFileError, SourceUnreadable

UNIQUE_CONTENT = 0.75
"""Share of rows that a key made of content must tell apart."""
KEY_MISSING = 0.01
"""Share of rows that may lack a column of such a key, and are rejected."""
KEY_COLUMNS = 8
KEY_CANDIDATES = 15
"""The next column of such a key is one of these many with the most different values."""
IMBALANCE = 0.9
RARE_SHARE = 0.05
MANY_REJECTED = 0.01
SLICE_VALUES = 8
DETECTABLE = (0.05, 0.06, 0.08, 0.10, 0.12, 0.15, 0.20, 0.25, 0.30, 0.40, 0.50)
PLAIN = re.compile(r"[A-Za-z_](?:[\w ./()+&<>=$^-]*[\w.)+/-])?")
YAML_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


@dataclass(frozen=True)
class Draft:
    model_file_text: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Key:
    columns: tuple[str, ...]
    distinct: int
    missing: int
    """Rows in which a part of the key is missing."""
    contents: int
    """Different rows, as far as the model file looks at them: rows that agree in everything are kept once."""

    def repeated(self, rows: int) -> int:
        return rows - self.contents

    @property
    def contradicting(self) -> int:
        """Rows with the key of another, but other values: at least; which is right nobody knows."""
        return 2 * max(0, self.contents - self.distinct)


NeededRows = Callable[[ModelFile, float | None, float], int]
"""Sealed rows that show a difference, given what the best constant prediction reaches (None: unknown)."""

CountDistinct = Callable[[Sequence[Sequence[str]]], list[int]]
"""For each combination of columns, the number of different rows; a missing value counts as a value."""


def draft(
    name: str,
    facts: TableFacts,
    sample: pd.DataFrame,
    count_distinct: CountDistinct,
    needed_rows: NeededRows,
    *,
    label: str,
    key: Sequence[str] = (),
    time: str | None = None,
    task: Task | None = None,
) -> Draft:
    """A model file for a table, and what was found on the way.

    Parameters
    ----------
    sample : rows of the table in its order, shape (n, columns): texts without surrounding blanks, or None.
    count_distinct : asks the engine; only called to look for a key.
    needed_rows : tells how many sealed rows a difference takes; `verify.detect` follows from it.
    key, time, task : as the user says; looked for otherwise.

    Raises
    ------
    ModelFileError : no such column, no key, or a label that cannot be learned.
    SourceUnreadable : the table has no rows.
    """
    _check_names(facts, label, key, time)
    tokens = inspection.missing_tokens(facts)
    facts = inspection.without_tokens(facts, tokens)
    sample = sample.where(~sample.isin(tokens), None)
    target = inspection.find_target(facts, label, task)
    moment = time or _find_time(facts, label)
    judged = inspection.judge_columns(facts, sample, target, moment)
    columns = key or _unique_column(facts, label) or _content_key(facts, judged, count_distinct, label, moment)
    chosen = _measured(facts, judged, columns, count_distinct)
    writer = _Writer(name, facts, tokens, target, moment, chosen, judged, sample)
    return Draft(writer.text(needed_rows), tuple(sorted(writer.findings(asked_time=time), key=_worst_first)))


def _worst_first(finding: Finding) -> int:
    return ("danger", "warning", "note").index(finding.severity)


def _check_names(facts: TableFacts, label: str, key: Sequence[str], time: str | None) -> None:
    known = [column.name for column in facts.columns]
    for option, names in (("--label", [label]), ("--key", key), ("--time", [time] if time else [])):
        if unknown := [name for name in names if name not in known]:
            raise ModelFileError(
                f"{option}: the table has no such column",
                got=unknown[0],
                allowed=", ".join(known),
                do="Name one of these",
            )
    if not facts.rows:
        raise SourceUnreadable("the table has no rows", got=facts.table, do="Check the file")


def _find_time(facts: TableFacts, label: str) -> str | None:
    """The only column of moments, if there is one that is always there and never a sentinel."""
    moments = [
        c.name
        for c in facts.columns
        if c.name != label and kind_of(c) == "time" and not c.missing and not c.minimum < 0
        and not AFTERWARDS.search(spaced(c.name))
    ]  # fmt: skip
    return moments[0] if len(moments) == 1 else None


def _measured(facts: TableFacts, judged: dict[str, Judged], columns: Sequence[str], count: CountDistinct) -> Key:
    looked_at = [
        c.name for c in facts.columns if c.name in columns or c.name not in judged or not judged[c.name].left_out
    ]
    distinct, contents = count([columns, looked_at])
    required = [c for c in facts.columns if c.name in columns and not (len(columns) > 1 and _nullable(c, judged))]
    missing = max((column.missing for column in required), default=0)
    return Key(tuple(columns), distinct, missing, contents)


def _nullable(column: ColumnFacts, judged: dict[str, Judged]) -> bool:
    """Will it be a column of the contract that may be missing? Then it may be missing in a key of several columns too."""
    return column.missing > 0 and column.name in judged and not judged[column.name].left_out


def _unique_column(facts: TableFacts, label: str) -> tuple[str, ...]:
    """A column of texts or whole numbers without doubles; one that is named like an id before the others."""
    unique = [
        column
        for column in facts.columns
        if column.distinct == column.rows
        and column.name != label
        and kind_of(column) in ("integer", "category", "text")
    ]
    ranked = sorted(unique, key=lambda c: (not ID_NAME.search(c.name), kind_of(c) != "category"))
    return tuple(column.name for column in ranked[:1])


def _content_key(
    facts: TableFacts, judged: dict[str, Judged], count: CountDistinct, label: str, moment: str | None
) -> tuple[str, ...]:
    """The fewest columns whose values together tell rows apart: greedily the column that tells most."""
    usable = [
        c
        for c in facts.columns
        if c.name != label and c.distinct > 1 and (c.missing <= KEY_MISSING * facts.rows or _nullable(c, judged))
    ]
    usable = [c for c in usable if c.name == moment or "duplicate" not in _kinds(judged[c.name])]
    usable.sort(key=lambda c: (c.name != moment, -c.distinct))
    before = [c for c in usable if c.name == moment or not _kinds(judged[c.name]) & {"leak", "afterwards"}]
    discrete = [c for c in before if kind_of(c) != "number"]
    pools = [[c.name for c in pool] for pool in (discrete, before, usable) if pool]
    reachable = count(pools) if pools else [0]
    if reachable[-1] < UNIQUE_CONTENT * facts.rows:
        raise ModelFileError(
            "no column, and no combination of columns, tells the rows apart",
            got=f"{reachable[-1]:,} different rows of {facts.rows:,}",
            do="Add a column that names each row for life, such as a number given when the row is written, and pass it as --key",
        )
    enough = next(i for i, different in enumerate(reachable) if different >= UNIQUE_ENOUGH * reachable[-1])
    return _fewest(pools[enough], reachable[enough], count)


def _fewest(pool: Sequence[str], enough: int, count: CountDistinct) -> tuple[str, ...]:
    """Greedily the column that tells most rows apart; the whole pool where a few columns do not do it."""
    chosen: list[str] = []
    reached = 0
    while reached < enough:
        if len(chosen) == KEY_COLUMNS:
            return tuple(pool)
        rest = [name for name in pool if name not in chosen][:KEY_CANDIDATES]
        counts = count([[*chosen, name] for name in rest])
        reached = max(counts)
        chosen.append(rest[counts.index(reached)])
    return tuple(chosen)


def _kinds(one: Judged) -> set[str]:
    return {finding.kind for finding in one.findings}


class _Writer:
    """Puts decisions into YAML that a person reads and changes."""

    def __init__(
        self, name: str, facts: TableFacts, tokens: tuple[str, ...], target: Target, moment: str | None,
        key: Key, judged: dict[str, Judged], sample: pd.DataFrame,
    ) -> None:  # fmt: skip
        self.name, self.facts, self.tokens, self.target = name, facts, tokens, target
        self.moment, self.key, self.judged, self.sample = moment, key, judged, sample
        in_key = key.columns if len(key.columns) == 1 else ()
        self.kept = [one for one in judged.values() if not one.left_out and one.name not in in_key]
        self.out = [one for one in judged.values() if one.left_out and one.name not in in_key]
        if not self.kept:
            raise ModelFileError(
                "no column is left to learn from", got=[one.name for one in self.out], do="Check the table"
            )

    def text(self, needed_rows: NeededRows) -> str:
        """The file, with the smallest difference worth finding that a table of this size can show."""
        model = ModelFile.parse("\n".join(self._lines(DETECTABLE[0])))
        sealed = self._sealed()
        enough = [detect for detect in DETECTABLE if needed_rows(model, self._baseline(), detect) <= sealed]
        return "\n".join(self._lines(enough[0] if enough else DETECTABLE[-1])) + "\n"

    def _sealed(self) -> float:
        """Test rows that the hash will give at least: it draws, so that small tables may get fewer than their share."""
        accepted = self.facts.rows * (1 - self._rejected())
        return 0.15 * accepted - 2 * math.sqrt(0.15 * 0.85 * accepted)

    def _baseline(self) -> float | None:
        return self.target.share if self.target.task == "classification" else None

    def _lines(self, detect: float) -> Iterator[str]:
        yield f"# Drafted from {self.facts.rows:,} rows of {len(self.facts.columns)} columns. Read it through, then: steward check {self.name}"
        yield f"name: {self.name}"
        yield f"description: {quoted(f'Predicts {self.target.facts.name}.')}   # say for whom, and what it decides"
        yield f"task: {self.target.task}{self._why_task()}"
        yield from self._source()
        yield from self._label()
        yield from self._columns()
        yield from self._rest(detect)

    def _why_task(self) -> str:
        if not self.target.guessed:
            return ""
        return (
            f"   # {len(self.target.classes)} different whole numbers; if they are a quantity, `init --task regression`"
        )

    def _source(self) -> Iterator[str]:
        yield "source:"
        yield f"  table: {quoted(self.facts.table)}"
        keys = [quoted(name) for name in self.key.columns]
        if len(keys) == 1:
            yield f"  key: {keys[0]}{self._why_key()}"
        else:
            yield "  # No column names a row, so its content does: a row whose content changes counts as a new row."
            yield f"  key: [{', '.join(keys)}]{self._why_key()}"
        if self.moment:
            yield f"  time: {quoted(self.moment)}"
        if self.tokens:
            texts = ", ".join(json.dumps(text, ensure_ascii=False) for text in ("", *self.tokens))
            yield f'  missing: [{texts}]   # these texts mean "no value", in every column'

    def _why_key(self) -> str:
        parts = list(self._key_problems())
        return f"   # {'; '.join(parts)}" if parts else ""

    def _key_problems(self) -> Iterator[str]:
        if repeated := self.key.repeated(self.facts.rows):
            yield f"{repeated:,} rows repeat another and are kept once"
        if self.key.contradicting:
            yield f"about {self.key.contradicting:,} rows have the key of another but other values: rejected"
        if self.key.missing:
            yield f"{self.key.missing:,} rows lack it: rejected"

    def _label(self) -> Iterator[str]:
        target = self.target
        yield "label:"
        yield f"  column: {quoted(target.facts.name)}"
        if target.task == "classification":
            shares = ", ".join(f"{count / target.facts.present:.1%}" for _, count in target.counts)
            yield f"  classes: [{', '.join(quoted(name) for name in target.classes)}]   # {shares}"
            if target.aliases:
                yield f"  aliases: {{{_pairs(target.aliases)}}}"
        else:
            low, high = limits(target.facts)
            yield f"  min: {low}"
            yield f"  max: {high}   # {_seen(target.facts)}"
        if self.moment:
            yield "  # mature_after: 7d   # how long until a label is final?"

    def _columns(self) -> Iterator[str]:
        width = max(len(quoted(one.name)) for one in self.kept) + 1
        yield "columns:"
        for one in self.kept:
            comment = "; ".join([*self._seen(one), *(f"CHECK: {f.message}" for f in one.findings if f.action == KEPT)])
            yield f"  {quoted(one.name) + ':':<{width}} {{{', '.join(column_fields(one))}}}{f'   # {comment}' if comment else ''}"
        if self.out:
            yield "  # Left out; remove the `#` of what you know better."
            for one in self.out:
                reason = "; ".join(f.message for f in one.findings if f.action == LEFT_OUT)
                yield f"  # {quoted(one.name)}: {{{', '.join(column_fields(one))}}}   # {reason}"

    def _seen(self, one: Judged) -> Iterator[str]:
        if one.kind in ("integer", "number"):
            yield _seen(one.facts)
        elif one.kind == "category" and (one.facts.distinct > CLOSED or one.facts.once):
            yield f"{one.facts.distinct:,} different"
        if one.facts.missing:
            yield f"{one.facts.missing / one.facts.rows:.1%} missing"

    def _rejected(self) -> float:
        """Share of rows that will break the contract: no label, no key, or the key of another row."""
        wrong = sum(one.facts.present - one.facts.numbers for one in self.kept if one.kind in ("integer", "number"))
        if self.target.task == "regression":
            wrong += self.target.facts.present - self.target.facts.numbers
        wrong += self.key.contradicting + self.key.missing
        return min(0.9, (self.target.facts.missing + wrong) / self.facts.rows)

    def _rest(self, detect: float) -> Iterator[str]:
        rejected = self._rejected()
        many = rejected >= MANY_REJECTED
        allowed = math.ceil(rejected * 120 + 1) / 100 if many else 2 * MANY_REJECTED
        why = f"   # {rejected:.1%} of these rows will be rejected: no label, or no key of their own" if many else ""
        yield f"rows: {{max_rejected: {allowed:g}, min: {_round_down(self.facts.rows / 2)}}}{why}"
        yield from self._features()
        if self.moment:
            yield "# split: {by: time}   # the newest rows verify; without it a stable hash of the key decides"
        yield f"verify:\n  detect: {detect:g}   # the smallest difference that {self.facts.rows:,} rows can show"
        yield from self._floor()
        if values := self._slices():
            yield f"  slices: [{', '.join(values)}]   # no group may do worse than under the champion"
        yield f"serve:\n  fallback: {{prediction: {self._fallback()}}}   # answered when no version can answer"
        yield '# retrain: {schedule: "0 6 * * 1", new_rows: ' + str(max(100, _round_down(self.facts.rows / 10))) + "}"

    def _features(self) -> Iterator[str]:
        apart = [one for one in self.kept if one.sentinels and IDENTIFIER.fullmatch(one.name)]
        if apart:
            yield "# features:"
        for one in apart:
            condition = " or ".join(f"{one.name} == {value}" for value in one.sentinels)
            yield f'#   {one.name}_unknown: {{expression: "{condition}", why: "a code for no value, not a quantity"}}'

    def _floor(self) -> Iterator[str]:
        target = self.target
        if target.task == "regression":
            spread = np.nanstd(target.values(self.sample))
            yield f"  # floor: {{rmse: {spread / 2:.3g}}}   # always answering the mean has {spread:.3g}"
            return
        most = max(target.counts, key=lambda item: item[1])[0]
        yield f"  # floor: {{accuracy: {(1 + target.share) / 2:.2f}}}   # always answering {quoted(most)} reaches {target.share:.2f}"
        if target.share >= IMBALANCE or min(c for _, c in target.counts) < RARE_SHARE * target.facts.present:
            yield "  # Accuracy hardly sees the rare classes; consider `select: {metric: balanced_accuracy}`, or f1_macro."

    def _slices(self) -> list[str]:
        """The two closed categories whose smallest group is largest."""
        closed = [
            one
            for one in self.kept
            if one.kind == "category" and one.facts.distinct <= SLICE_VALUES and not one.facts.once
        ]
        return [quoted(one.name) for one in sorted(closed, key=lambda one: -min(n for _, n in one.facts.top))[:2]]

    def _fallback(self) -> str:
        if self.target.task == "classification":
            return quoted(max(self.target.counts, key=lambda item: item[1])[0])
        return f"{np.nanmedian(self.target.values(self.sample)):.6g}"

    def findings(self, *, asked_time: str | None) -> Iterator[Finding]:
        """What was found about the table, the label, and then each column."""
        target, facts = self.target, self.facts
        if facts.separator and facts.separator != ",":
            yield Finding(None, "separator", "note", f"columns are separated by {facts.separator!r}", "read so")
        if blanks := [column.name for column in facts.columns if column.blanks]:
            yield Finding(None, "blanks", "note", f"blanks around values in {_list(blanks)}", "removed when read")
        if odd := [one.name for one in self.kept if not IDENTIFIER.fullmatch(one.name)]:
            yield Finding(None, "name", "note", f"expressions cannot use these names: {_list(odd)}", "quoted")
        if self.tokens:
            yield Finding(
                None, "missing", "note", f'{_list(list(map(repr, self.tokens)))} stand for "no value"', "source.missing"
            )
        problems = "; ".join(self._key_problems())
        if len(self.key.columns) > 1:
            message = f"no column names a row{'; ' if problems else ''}{problems}"
            yield Finding(None, "key", "warning", message, f"its content does: {', '.join(self.key.columns)}")
        elif problems:
            yield Finding(self.key.columns[0], "key", "warning", problems, "the rows are kept aside, with reasons")
        if self.moment and self.moment != asked_time:
            yield Finding(self.moment, "time", "note", "is the only moment in the table", "source.time")
        yield from self._label_findings(target)
        for one in self.judged.values():
            if one.name not in self.key.columns or len(self.key.columns) > 1:
                yield from one.findings

    def _label_findings(self, target: Target) -> Iterator[Finding]:
        name = target.facts.name
        if target.facts.missing:
            yield Finding(name, "label", "warning", f"{target.facts.missing:,} rows have no label", "they are rejected")
        if target.aliases:
            yield Finding(
                name, "label", "warning", f"classes in other spellings: {_pairs(target.aliases)}", "label.aliases"
            )
        if target.guessed:
            yield Finding(
                name,
                "label",
                "note",
                f"{len(target.classes)} whole numbers are taken for classes",
                "task: classification",
            )
        for text, count in target.counts:
            if count < RARE_CLASS:
                yield Finding(name, "rare_class", "warning", f"class {text!r} has {count} rows: too few to learn", KEPT)
        if target.task == "classification" and target.share >= IMBALANCE:
            yield Finding(
                name, "imbalance", "warning", f"one class is {target.share:.1%} of the rows", "choose select.metric"
            )


def column_fields(one: Judged) -> Iterator[str]:
    """The contract of one column, field by field.

    >>> facts = ColumnFacts("sex", "text", 9, 1, 2, 0, (("f", 5), ("m", 3)))
    >>> list(column_fields(Judged(facts, "category")))
    ['type: category', 'values: [f, m]', 'nullable: true']
    """
    column = one.facts
    if one.kind in ("integer", "number"):
        low, high = limits(column)
        yield from (f"type: {one.kind}", f"min: {low}", f"max: {high}")
    elif one.kind == "boolean":
        yield "type: boolean"
    else:
        yield "type: category"
        stable = column.distinct <= CLOSED and not column.once
        values = [text for text, _ in column.top if text not in dict(one.aliases)]
        yield f"values: [{', '.join(quoted(text) for text in sorted(values))}]" if stable and values else "open: true"
        if one.aliases:
            yield f"aliases: {{{_pairs(one.aliases)}}}"
    if column.missing:
        yield "nullable: true"


def quoted(text: str) -> str:
    """A text as YAML, in quotes where it would be read as something else.

    >>> [quoted(text) for text in ("Low", "1", "true", "a: b", "No phone service", " x")]
    ['Low', '"1"', '"true"', '"a: b"', 'No phone service', '" x"']
    """
    plain = PLAIN.fullmatch(text) and text.lower() not in YAML_WORDS and " #" not in text
    return text if plain else json.dumps(text, ensure_ascii=False)


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{quoted(text)}: {quoted(chosen)}" for text, chosen in pairs)


def _seen(column: ColumnFacts) -> str:
    return f"seen {column.minimum:.6g} to {column.maximum:.6g}"


def _list(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _round_down(value: float) -> int:
    """The next smaller 1, 2 or 5 times a power of ten, at least 1."""
    if value < 1:
        return 1
    power = int(10 ** math.floor(math.log10(value)))
    return next(step * power for step in (5, 2, 1) if step * power <= value)
