"""What a person sees: tables of answers, and the progress of a training. Nothing here decides or touches anything."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from steward.pipeline import Event, OnEvent

WIDTH = 160
"""Columns where no terminal says how many it has."""

COLOURS = {"promote": "green", "hold": "yellow", "reject": "red", "warning": "yellow", "danger": "red"} | {
    "serving fallback": "red", "falling": "red", "waiting for approval": "yellow", "drifting": "yellow", "held": "yellow",
    "never trained": "yellow", "retraining": "cyan", "healthy": "green",
}  # fmt: skip


def console(stream: TextIO) -> Console:
    """A console that never reads markup or emoji codes in what it prints."""
    width = None if stream.isatty() else WIDTH
    return Console(file=stream, markup=False, emoji=False, highlight=False, width=width)


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]], title: str | None = None) -> Table:
    """A plain table; cells are shown as texts, never read as markup."""
    made = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row))
    return made


def facts(values: Mapping[str, Any]) -> Table:
    """Names and values, a line each."""
    made = Table.grid(padding=(0, 2))
    for name, value in values.items():
        made.add_row(Text(name, style="bold"), Text(plain(value)))
    return made


def line(text: str) -> Text:
    """A line that is never broken, so that a path in it can be copied."""
    return Text(text, no_wrap=True, overflow="ignore")


def plain(value: Any) -> str:
    """A value as people write it.

    >>> [plain(value) for value in (None, True, 0.91349, 12000, "x")]
    ['-', 'yes', '0.9135', '12,000', 'x']
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def interval(estimate: Mapping[str, Any] | None) -> str:
    """An estimate and its interval.

    >>> interval({"value": 0.9134, "low": 0.9, "high": 0.927})
    '0.9134 (0.9000 to 0.9270)'
    """
    if not estimate:
        return "-"
    return f"{estimate['value']:.4f} ({estimate['low']:.4f} to {estimate['high']:.4f})"


def show_status(status: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield Text(f"{status['model']}  {status['description']}", style="bold")
    yield Text(f"{status['state']}: {status['says']}", style=COLOURS[status["state"]])
    yield from (Text(warning, style="yellow") for warning in status["warnings"])
    verdict, trigger, decision = status["last_verdict"], status["last_trigger"], status["last_decision"]
    yield facts(
        {
            **{alias: _standing(status[alias]) for alias in ("champion", "challenger", "previous")},
            "last verdict": f"{verdict['verdict']}: {' '.join(verdict['reasons'])}" if verdict else None,
            "last trigger": f"{trigger['at'][:16]} {trigger['says']}" if trigger else None,
            **{
                name.replace("_", " "): plain(status[name]["value"]) + f"  ({status[name]['why']})"
                for name in ("sealed_rows", "live_accuracy", "estimated_accuracy", "drift", "next_look")
            },
            "last decision": decision and f"{decision['at'][:16]} {decision['reason']}",
            "retraining": status["retrain_schedule"] or "on request",
        }
    )
    if status["last_decisions"]:
        rows = [(entry["sequence"], entry["at"][:16], entry["says"]) for entry in status["last_decisions"]]
        yield table(("#", "at (UTC)", "decision"), rows)


def show_models(models: Iterable[Mapping[str, Any]]) -> Iterator[RenderableType]:
    rows = [_model(model) for model in models]
    columns = ("model", "champion", "state", "what")
    yield table(columns, rows) if rows else Text("No model file yet; `steward init` writes one.")


def _model(model: Mapping[str, Any]) -> tuple[Any, ...]:
    if "error" in model:
        return model["model"], None, Text(model["error"], style="red"), model["what"]
    champion = f"version {model['champion']['version']}" if model["champion"] else "none"
    state, says = Text(model["state"], style=COLOURS[model["state"]]), " ".join([model["says"], *model["warnings"]])
    return model["model"], champion, state, says


def _standing(standing: Mapping[str, Any] | None) -> str:
    if not standing:
        return "none"
    since = f", champion since {standing['champion_since'][:16]}" if standing["champion_since"] else ""
    return f"version {standing['version']}, {standing['age_days']:g} days old{since}"


def show_history(history: Mapping[str, Any]) -> Iterator[RenderableType]:
    rows = [(entry["sequence"], entry["at"][:16], entry["kind"], entry["says"]) for entry in history["entries"]]
    yield (
        table(("#", "at (UTC)", "kind", "what"), rows)
        if rows
        else Text("The ledger holds nothing about this model yet.")
    )
    chain = history["chain"]
    if chain and chain["ok"]:
        yield Text(f"The chain of all {chain['entries']:,} entries is unbroken.", style="green")
        yield line(f"Head: {chain['head']} (keep it elsewhere; `--anchor` shows later that nothing was cut off)")
    elif chain:
        yield Text("The ledger was changed behind Steward's back:", style="bold red")
        yield table(("finding", "entries", "detail"), [_problem(problem) for problem in chain["problems"]])


def _problem(problem: Mapping[str, Any]) -> tuple[str, str, str]:
    return problem["finding"], ", ".join(map(str, problem["sequences"])), problem["detail"]


def show_draft(draft: Mapping[str, Any]) -> Iterator[RenderableType]:
    rows = [(_severity(item), item["column"], item["message"], item["action"]) for item in draft["findings"]]
    if rows:
        yield table(("", "column", "what was noticed", "what the file does about it"), rows)
    yield Text(f"Wrote {draft['path']}. Read it, then: steward check {draft['model']}")


def _severity(finding: Mapping[str, Any]) -> Text:
    return Text(finding["severity"], style=COLOURS.get(finding["severity"], ""))


def show_check(snapshot: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield facts(
        {name: snapshot[name] for name in ("source", "rows", "accepted", "rejected", "immature", "fingerprint")}
    )
    if snapshot["rejections"]:
        broken = [(*rule.partition(":")[::2], count) for rule, count in snapshot["rejections"].items()]
        yield table(("rule", "column", "rows"), broken, "Rejected")
    if failing := [item for item in snapshot["expectations"] if not item["success"]]:
        yield _expectations(failing)
    if snapshot["labels"]:
        yield table(("label", "rows"), snapshot["labels"].items())
    if snapshot["unknown_columns"]:
        yield Text(f"Not in the contract, not used: {', '.join(snapshot['unknown_columns'])}")
    yield from (Text(note) for note in snapshot["notes"])
    if snapshot["data_docs"]:
        yield line(f"Data Docs: {snapshot['data_docs']}")


def _expectations(failing: list[Any]) -> Table:
    rows = [(item["name"], item["column"], item["unexpected"], item["allowed"], item["observed"]) for item in failing]
    return table(("expectation", "column", "rows", "allowed", "observed"), rows, "Not met")


def show_outcome(outcome: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield table(
        ("candidate", "on validation rows", "fit", "one prediction", ""),
        [_candidate(candidate, outcome["winner"]) for candidate in outcome["candidates"]],
    )
    if test := outcome["test"]:
        yield facts(
            {
                f"test {test['metric']}": f"{interval(test)} on {test['rows']:,} sealed rows",
                "difference": f"{interval(test['difference'])} to {_rival(test['champion'])}",
                "overlap": ", ".join(f"{name} {count}" for name, count in test["overlap"].items()),
            }
        )
    verdict = outcome["verdict"] or "no verdict"
    yield Text(verdict, style=f"bold {COLOURS.get(verdict, '')}")
    yield Text("\n".join(outcome["reasons"]))
    yield facts({"version": outcome["version"], "champion": outcome["champion"]})
    if outcome["card"]:
        yield line(f"Card: {outcome['card']}")


def _candidate(candidate: Mapping[str, Any], winner: str) -> tuple[str, ...]:
    note = (
        f"failed: {candidate['error']}" if candidate.get("error") else "chosen" if candidate["name"] == winner else ""
    )
    return (
        candidate["name"],
        interval(candidate["validation"]),
        f"{candidate['fit_seconds']:.2f} s",
        f"{candidate['latency_us']:,.0f} µs",
        note,
    )


def _rival(champion: Mapping[str, Any] | None) -> str:
    if champion is None:
        return "the best constant prediction"
    return f"champion version {champion.get('version')} ({champion['value']:.4f})"


def show_look(look: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What was looked at, what each part says, and the decision with the reasons of every trigger that has to wait."""
    seen, decision = look["observe"], look["decide_retraining"]
    yield facts(
        {
            "version": seen["version"],
            "from": seen["start"],
            "to": seen["end"],
            "rows": f"{seen['rows']:,} ({seen['origin']})",
        }
    )
    for stage, title in LOOKED_AT.items():
        says = look[stage]["says"] or ["nothing to report"]
        yield Group(Text(title, style="bold"), *(Text(f"  {sentence}") for sentence in says))
    yield Text(decision["reason"], style="bold green" if decision["train"] else "bold")
    if refusals := decision["refusals"]:
        rows = [(refusal["kind"], refusal["rule"], refusal["why"], refusal["until"]) for refusal in refusals]
        yield table(("trigger", "held back by", "why", "until"), rows)


LOOKED_AT = {
    "observe": "What was seen",
    "check_quality": "Quality",
    "detect_drift": "Drift",
    "measure_accuracy": "Accuracy",
    "find_features": "New columns",
}


def show_replay(
    replay: Mapping[str, Any], seconds: Mapping[str, Mapping[str, float]], page: str
) -> Iterator[RenderableType]:
    rows = [_course(one, seconds.get(one["name"])) for one in replay["policies"]]
    columns = (
        "policy", f"mean {replay['metric']}", "gain over never", "retrainings", "refused", "openings", "promotions",
        "worse after (surely)", "alarms right/wrong", "seconds",
    )  # fmt: skip
    yield table(
        columns,
        rows,
        title=f"{replay['model']}: {replay['rows']:,} rows in {len(replay['policies'][0]['windows'])} windows",
    )
    for says in replay["says"]:
        yield Text(f"Note: {says}.")
    yield Text(replay["recommendation"]["says"], style="bold")
    if replay["recommendation"]["yaml"]:
        yield Text(replay["recommendation"]["yaml"].rstrip())
    yield line(page)


def _course(course: Mapping[str, Any], seconds: Mapping[str, float] | None) -> tuple[Any, ...]:
    right, wrong = (sum(one["right"] is known for one in course["alarms"]) for known in (True, False))
    return (
        course["name"], course["mean"], interval(course["gain"]), course["retrainings"], course["refused"],
        course["openings"], course["promotions"], f"{course['wrong']} ({course['surely_wrong']})", f"{right}/{wrong}",
        f"{seconds['all']:.0f}" if seconds and seconds["all"] else None,
    )  # fmt: skip


def show_prediction(answer: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield facts({name: answer[name] for name in ("prediction", "confidence", "model_version")})
    if answer["probabilities"]:
        yield table(("class", "probability"), answer["probabilities"].items())
    if answer["unseen"]:
        yield Text(f"Not seen in training: {', '.join(answer['unseen'])}", style="yellow")


def show_scored(scored: Mapping[str, Any]) -> Iterator[RenderableType]:
    rate = scored["rows"] / max(scored["seconds"], 1e-3)
    yield Text(f"{scored['scored']:,} of {scored['rows']:,} rows scored by version {scored['version']}", style="bold")
    yield facts(
        {"answers": scored["output"], "set aside": scored["rejected_output"], "rows per second": f"{rate:,.0f}"}
    )
    if scored["predictions"]:
        yield table(("class", "rows"), scored["predictions"].items())
    yield table(("action", "rows"), scored["actions"].items())
    if scored["rejections"]:
        yield table(("broken rule", "rows"), scored["rejections"].items(), "Rows set aside")
    for said in scored["notes"]:
        yield Text(said, style="yellow")


def show_reproduction(made: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield Text(made["summary"], style="green" if made["identical"] else "bold red")
    yield facts({"recorded": made["recorded"], "rebuilt": made["rebuilt"]})
    if made["identical"] and made["differences"]:
        yield Text(f"Different, and without effect: {'; '.join(made['differences'])}")


def show_findings(findings: Iterable[Mapping[str, Any]]) -> Iterator[RenderableType]:
    yield table(("", "what", "found"), [_finding(finding) for finding in findings])


def _finding(finding: Mapping[str, Any]) -> tuple[Any, ...]:
    mark = Text("ok", style="green") if finding["ok"] else Text("problem", style="bold red")
    todo = "" if finding["ok"] or not finding["do"] else f"\n→ {finding['do']}"
    return mark, finding["name"], f"{finding['detail']}{todo}"


def note(record: Any) -> str:
    """One line about what a step made."""
    kind = getattr(record, "kind", "")
    match kind:
        case "snapshot":
            return f"{record.accepted:,} rows accepted, {record.rejected:,} rejected"
        case "candidate":
            value = record.validation and record.validation.as_json()
            return f"failed: {record.error}" if record.error else f"{record.metric} {interval(value)}"
        case "selection":
            return str(record.reason)
        case "verdict":
            return f"{record.verdict}: {' '.join(record.reasons)}"
        case "promotion":
            return f"version {record.version}, champion is version {record.champion}"
        case "card":
            return str(record.path)
        case "observation":
            return f"{record.rows:,} rows of version {record.version}"
        case "decision":
            return str(record.reason)
    says = getattr(record, "says", ())
    return f"{says[0]}{f' (and {len(says) - 1} more)' if len(says) > 1 else ''}" if says else ""


@contextmanager
def progress(console: Console, trials: int) -> "Iterator[OnEvent]":
    """Shows what a training does: bars on a terminal, a line per finished piece of work elsewhere.

    Parameters
    ----------
    trials : settings that each candidate tries.
    """
    if not console.is_terminal:
        yield _lines(console)
        return
    bars = Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=console,
    )
    with bars:
        yield _bars(bars, trials)


@contextmanager
def progress_of(console: Console, what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar of rows, or whatever is counted, on a terminal; nothing elsewhere."""
    if not console.is_terminal:
        yield None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(console: Console) -> "OnEvent":
    started: dict[tuple[str, str | None], float] = {}

    def on_event(event: "Event") -> None:
        if event.state == "started":
            started[event.stage, event.candidate] = time.monotonic()
        elif event.state == "finished":
            seconds = time.monotonic() - started.get((event.stage, event.candidate), time.monotonic())
            text = f"{event.candidate or event.stage} ({seconds:.1f} s) {note(event.record)}".rstrip()
            console.print(text, soft_wrap=True)

    return on_event


def _bars(bars: Progress, trials: int) -> "OnEvent":
    tasks: dict[tuple[str, str | None], TaskID] = {}
    best: dict[str | None, float] = {}

    def task(event: "Event") -> TaskID:
        where = (event.stage, event.candidate)
        if where not in tasks:
            name = f"  {event.candidate}" if event.candidate else event.stage.replace("_", " ")
            tasks[where] = bars.add_task(name, total=trials if event.candidate else 1, note="")
        return tasks[where]

    def on_event(event: "Event") -> None:
        shown = task(event)
        if event.trial:
            if event.trial.loss is not None:
                best[event.candidate] = min(event.trial.loss, best.get(event.candidate, event.trial.loss))
            loss = best.get(event.candidate)
            bars.update(shown, advance=1, note="" if loss is None else f"best loss {loss:.4f}")
        elif event.state == "finished":
            total = trials if event.candidate else 1
            bars.update(shown, total=total, completed=total, note=note(event.record))

    return on_event


def render(parts: Callable[[], Iterable[RenderableType]]) -> Group:
    """The parts of an answer under each other, with an empty line between."""
    shown: list[RenderableType] = []
    for part in parts():
        shown += [part, Text()]
    return Group(*shown[:-1])
