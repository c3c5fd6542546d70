"""The command line: every command is a door to one function.

The answer goes to stdout, everything else to stderr. Exit code 0: done; 1: refused with a named error; 2: wrong usage;
130 and 143: interrupted (Ctrl-C, SIGTERM). What a command needs is imported when it runs, so that `--help` answers at once.
"""

import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, cast

import typer

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from pathlib import Path
    from types import FrameType

    from rich.console import Console, RenderableType

    from steward.config import ModelFile
    from steward.errors import StewardError
    from steward.io.workspace import Workspace

RESUMABLE = "Interrupted. Nothing half-done is left: run the same command again and it goes on where it stopped."

app = typer.Typer(
    name="steward",
    help="Keeps tabular models in production honest and current.",
    epilog="Start here: steward init NAME --data FILE --label COLUMN, then steward train NAME",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The model: models/NAME.yaml describes it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with exactly one JSON document on stdout.")]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise typer.BadParameter("the reason goes on record; say something")
    return text.strip()


def _duration(text: str) -> str:
    from steward.config import parse_duration

    try:
        parse_duration(text)
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from problem
    return text


def _duration_or_none(text: str | None) -> str | None:
    return text and _duration(text)


def _pattern(text: str | None) -> str | None:
    import re

    try:
        re.compile(text or "")
    except re.error as problem:
        raise typer.BadParameter(f"{text!r} is no regular expression ({problem})") from problem
    return text


def _moment(text: str) -> "datetime":
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError as problem:
        raise typer.BadParameter(f"{text!r} is no time; write it like 2026-03-02T06:00") from problem
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Why = Annotated[str, typer.Option("--why", help="The reason; goes on record.", callback=_not_blank)]


@dataclass(frozen=True)
class Answer:
    """What a command has to say: as JSON, and as what a person reads."""

    document: Any
    parts: "Callable[[], Iterable[RenderableType]] | None" = None
    """None where JSON is the only form."""
    exit_code: int = 0


def door(
    example: str, group: typer.Typer = app, name: str | None = None
) -> Callable[[Callable[..., Answer]], Callable[..., None]]:
    """Makes a command of a function that answers.

    The command has `--json` beside the function's own options; it prints the answer, and turns every failure into one
    clear message and an exit code.
    """

    def register(body: Callable[..., Answer]) -> Callable[..., None]:
        @wraps(body)
        def command(*, as_json: bool, **options: Any) -> None:
            with _only_answers_on_stdout() as stdout:
                code = _run(lambda: body(**options), stdout, as_json=as_json)
            raise typer.Exit(code)

        own = inspect.signature(body)
        flag = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)
        command.__signature__ = own.replace(parameters=[*own.parameters.values(), flag])  # type: ignore[attr-defined]
        return group.command(name, epilog=f"Example: {example}")(command)

    return register


def _run(ask: Callable[[], Answer], stdout: TextIO, *, as_json: bool) -> int:
    """Answer, or say why not; the exit code."""
    from steward.errors import StewardError

    try:
        answer = ask()
        if as_json or answer.parts is None:
            _print_json(answer.document, stdout)
        else:
            _print(answer.parts, stdout)
    except StewardError as problem:
        return _refuse(problem, stdout, as_json=as_json)
    except KeyboardInterrupt as stopped:
        return _interrupted(stopped)
    except BrokenPipeError:
        return _leave_quietly()
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as problem:  # noqa: BLE001 - the last line of defence, which shows what it caught
        return _explain_unexpected(problem, stdout, as_json=as_json)
    return answer.exit_code


def _refuse(problem: "StewardError", stdout: TextIO, *, as_json: bool) -> int:
    if as_json:
        _print_json(problem.as_json(), stdout)
    _say(f"{problem.name}: {problem}")
    return 1


def _explain_unexpected(problem: Exception, stdout: TextIO, *, as_json: bool) -> int:
    if os.environ.get("STEWARD_DEBUG"):
        raise problem
    what = f"{type(problem).__name__}: {' '.join(str(problem).split())[:500]}"
    if as_json:
        _print_json({"error": "Unexpected", "what": what, "do": "STEWARD_DEBUG=1 shows the traceback"}, stdout)
    _say(f"Unexpected {what} (STEWARD_DEBUG=1 shows the traceback)")
    return 1


def _leave_quietly() -> int:
    """The reader of our output has gone, as `| head` does; Python would complain while it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


@contextmanager
def _only_answers_on_stdout() -> Iterator[TextIO]:
    """Gives the real stdout to whoever answers, and stderr to every library and process that prints."""
    stdout = sys.stdout
    stdout.flush()
    if not _is_the_process_stdout(stdout):
        with redirect_stdout(sys.stderr):
            yield stdout
        return
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding=stdout.encoding, errors="backslashreplace") as answers:
            yield answers
    finally:
        stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _is_the_process_stdout(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 1
    except (OSError, ValueError):
        return False


def _print_json(document: Any, stdout: TextIO) -> None:
    stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    stdout.flush()


def _print(parts: "Callable[[], Iterable[RenderableType]]", stdout: TextIO) -> None:
    from steward.terminal import console, render

    console(stdout).print(render(parts))
    stdout.flush()


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _stderr() -> "Console":
    from steward.terminal import console

    return console(sys.stderr)


def _workspace() -> "Workspace":
    from steward.config import Settings
    from steward.io.workspace import Workspace

    return Workspace(Settings.from_environment())


def _open(name: str) -> "tuple[Workspace, ModelFile]":
    workspace = _workspace()
    return workspace, workspace.model(name)


def _now() -> "datetime":
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _person() -> str:
    """Who is at the keyboard, as far as the operating system knows."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


@app.callback(invoke_without_command=True)
def steward(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from steward import __version__

        typer.echo(f"steward {__version__}")
        raise typer.Exit


@door("steward init churn --data customers.csv --label left --key customer_id")
def init(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What the model is called: lower-case letters, digits, _.")
    ],
    *,
    data: Annotated[str, typer.Option(help="The table: path, glob or URL of Parquet or CSV, or a SQL table.")],
    label: Annotated[str, typer.Option(help="The column to predict.")],
    key: Annotated[
        list[str] | None, typer.Option(help="The column that names a row for life; may be given several times.")
    ] = None,
    time: Annotated[str | None, typer.Option(help="The column that says when a row happened.")] = None,
    task: Annotated[
        Literal["classification", "regression"] | None,
        typer.Option(help="Predict a class or a number; seen from the label without it."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing model file.")] = False,
) -> Answer:
    """Look at a table and write models/NAME.yaml: types, ranges, categories, and warnings about what looks wrong."""
    from steward import initialisation, terminal

    workspace = _workspace()
    path = _free_path(workspace.settings.models, name, force=force)
    drafted = initialisation.draft(workspace, name, data, label=label, key=key or (), time=time, task=task)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(drafted.model_file_text, encoding="utf-8")
    findings = [dict(vars(finding)) for finding in drafted.findings]
    document = {"model": name, "path": str(path), "findings": findings}
    return Answer(document, lambda: terminal.show_draft(document))


def _free_path(folder: "Path", name: str, *, force: bool) -> "Path":
    """Where the model file goes; raises ModelFileError if one is there and must stay."""
    from steward.errors import ModelFileError

    taken = [path for path in (folder / f"{name}.yaml", folder / f"{name}.yml") if path.exists()]
    if taken and not force:
        raise ModelFileError("this model file exists already", got=str(taken[0]), do="--force replaces it")
    return taken[0] if taken else folder / f"{name}.yaml"


@door("steward check deployment_risk")
def check(name: Name) -> Answer:
    """Hold the data against the contract: how many rows are accepted, which are rejected and why."""
    from steward import steps, terminal
    from steward.records import Snapshot

    workspace, model = _open(name)
    snapshot = workspace.load(Snapshot, steps.accept(workspace, model, at=_now())).as_json()
    return Answer(snapshot, lambda: terminal.show_check(snapshot))


@door('steward train deployment_risk --reason "a new team joined"')
def train(
    name: Name,
    *,
    reason: Annotated[str, typer.Option(help="Why now; goes on record.", callback=_not_blank)] = "asked for by hand",
    candidate: Annotated[
        list[str] | None, typer.Option(help="Only this candidate; may be given several times.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Settings tried per candidate.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stop before sealed rows are opened: no verdict, no promotion.")
    ] = False,
) -> Answer:
    """Train every candidate, choose one, verify it once on sealed rows, and promote it if it earned that."""
    from steward import pipeline, terminal

    workspace, model = _open(name)
    at = _now()
    with terminal.progress(_stderr(), trials or model.search.trials) as on_event:
        outcome = pipeline.train(
            workspace,
            model,
            at=at,
            reason=reason,
            by=_person(),
            run_id=f"by-hand-{at.isoformat()}",
            candidates=candidate,
            trials=trials,
            dry_run=dry_run,
            on_event=on_event,
        ).as_json()
    return Answer(outcome, lambda: terminal.show_outcome(outcome))


@door("steward monitor deployment_risk")
def monitor(
    name: Name,
    *,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="The moment to look from, ISO 8601, UTC where no zone is said; now.",
            callback=lambda text: text and _moment(text).isoformat(),
        ),
    ] = None,
) -> Answer:
    """Look at what the champion sees and how right it is, and decide whether a training would help."""
    from steward import pipeline, terminal

    moment = _moment(at) if at else _now()
    workspace, model = _open(name)
    with terminal.progress(_stderr(), 1) as on_event:
        look = pipeline.monitor(workspace, model, at=moment, on_event=on_event).as_json()
    return Answer(look, lambda: terminal.show_look(look))


@door("""steward predict deployment_risk '{"files_changed": 40, "environment": "prod", ...}'""")
def predict(
    name: Name,
    record: Annotated[str, typer.Argument(metavar="JSON", help="One record as a JSON object; - reads it from stdin.")],
) -> Answer:
    """Ask the champion about one record."""
    from steward import operations, terminal

    workspace, model = _open(name)
    answer = operations.predict(workspace, model, _record(sys.stdin.read() if record == "-" else record))
    return Answer(answer, lambda: terminal.show_prediction(answer))


def _record(text: str) -> dict[str, Any]:
    from steward.errors import RecordInvalid

    do = """Write it like '{"files_changed": 3}'"""
    try:
        found = json.loads(text)
    except ValueError as problem:
        raise RecordInvalid(f"the record is not JSON ({problem})", got=text, do=do) from problem
    if not isinstance(found, dict):
        raise RecordInvalid("the record is not a JSON object", got=text, do=do)
    return found


@door("steward score deployment_risk waiting.parquet answers.parquet")
def score(
    name: Name,
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="What to score: path, glob or URL of Parquet or CSV, or a SQL table.")
    ],
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="Where the answers go: a Parquet or CSV file, or a SQL table.")
    ],
) -> Answer:
    """Ask the champion about every row of a table; rows that break the contract are set aside beside the output."""
    from steward import steps, terminal

    workspace, model = _open(name)
    with terminal.progress_of(_stderr(), "rows") as on_progress:
        scored = steps.score(workspace, model, source, output, at=_now(), on_progress=on_progress).as_json()
    return Answer(scored, lambda: terminal.show_scored(scored))


@door("steward status deployment_risk")
def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One model; all of them without it.")] = None,
) -> Answer:
    """Show how models stand, in one word and one sentence, those that need attention first; of one model everything."""
    from steward import operations, terminal

    at = _now()
    if name is not None:
        found = operations.status(*_open(name), at=at)
        return Answer(found, lambda: terminal.show_status(found))
    workspace = _workspace()
    models, broken = _readable(workspace)
    all_found = [*broken, *operations.standings(workspace, models, at=at)]
    return Answer({"models": all_found}, lambda: terminal.show_models(all_found))


def _readable(workspace: "Workspace") -> "tuple[list[ModelFile], list[dict[str, Any]]]":
    """The models, and what is wrong with each file that cannot be read: it does not hide the others."""
    from steward.errors import ModelFileError

    models, broken = [], []
    for path in workspace.settings.model_paths():
        try:
            models.append(workspace.model(path.stem))
        except ModelFileError as problem:
            broken.append({"model": path.stem, **problem.as_json()})
    return models, broken


@door("steward history deployment_risk --verify")
def history(
    name: Name,
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that no entry was changed, removed or moved.")
    ] = False,
    anchor: Annotated[
        str | None, typer.Option(help="Head digest of an earlier --verify: also check that nothing was cut off.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind, such as verdict or promotion.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the newest so many.")] = None,
) -> Answer:
    """Show every decision about a model with its reason, oldest first."""
    from steward import operations, terminal

    workspace, model = _open(name)
    entries = operations.history(workspace, model, kind=kind, limit=limit)
    chain = workspace.ledger.verify(anchor) if verify or anchor else None
    document = {
        "model": name,
        "entries": [{**entry.as_json(), "says": operations.describe(entry)} for entry in entries],
        "chain": chain.as_json() if chain else None,
    }
    return Answer(document, lambda: terminal.show_history(document), exit_code=1 if chain and not chain.ok else 0)


@door('steward promote deployment_risk 4 --why "approved by the risk board"')
def promote(
    name: Name,
    version: Annotated[int, typer.Argument(help="The version that shall serve; `steward status NAME` shows them.")],
    *,
    why: Why,
) -> Answer:
    """Make a version the champion by hand, on record."""
    from steward import notices, operations, terminal

    (workspace, model), at = _open(name), _now()
    moved = operations.promote_by_hand(workspace, model, version, why=why, by=_person(), at=at)
    notices.tell_of_move(workspace, model, moved, at=at)
    return Answer(moved, lambda: [terminal.facts(moved)])


@door('steward rollback deployment_risk --why "complaints since Monday"')
def rollback(
    name: Name,
    version: Annotated[
        int | None, typer.Argument(help="Where to go back to; the previous champion without it.")
    ] = None,
    *,
    why: Why,
) -> Answer:
    """Go back to an earlier version, on record."""
    from steward import notices, operations, terminal

    (workspace, model), at = _open(name), _now()
    moved = operations.rollback(workspace, model, version, why=why, by=_person(), at=at)
    notices.tell_of_move(workspace, model, moved, at=at)
    return Answer(moved, lambda: [terminal.facts(moved)])


@door("steward reproduce deployment_risk 4")
def reproduce(
    name: Name, version: Annotated[int, typer.Argument(help="The version; `steward status NAME` shows them.")]
) -> Answer:
    """Train a version again from its recorded inputs and compare; exit code 1 if the result differs."""
    from steward import reproduction, terminal

    workspace, _ = _open(name)
    made = reproduction.reproduce(workspace, name, version)
    return Answer(
        made.as_json(), lambda: terminal.show_reproduction(made.as_json()), exit_code=0 if made.identical else 1
    )


@door("steward replay deployment_risk --every 7d --label-delay 2d")
def replay(
    name: Name,
    *,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="What is older is known when the replay begins; after a quarter of the rows.",
            callback=lambda text: text and _moment(text).isoformat(),
        ),
    ] = None,
    windows: Annotated[int | None, typer.Option(min=2, help="So many windows of equally many rows; 20.")] = None,
    every: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Windows of this length.", callback=_duration_or_none)
    ] = None,
    label_delay: Annotated[
        str | None,
        typer.Option(
            metavar="DELAY",
            help="When labels arrive: 7d, a column, exponential(3d), lognormal(2d, 0.8), uniform(1d, 3d); label.mature_after.",
        ),
    ] = None,
    policies: Annotated[
        str | None,
        typer.Option(
            metavar="RULES",
            help="Separated by blanks: never, every:N, floor:X, drift, steward, steward:FIELD=VALUE,…, module:function.",
        ),
    ] = None,
    candidate: Annotated[
        list[str] | None, typer.Option(help="Only this candidate; may be given several times.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Settings tried per candidate.")] = None,
    seed: Annotated[int, typer.Option(help="Of label delays that are drawn.")] = 0,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; STEWARD_JOBS.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget an earlier replay of the same.")] = False,
) -> Answer:
    """Play the past as if Steward had been running, under several retraining policies, and compare what they led to."""
    from datetime import datetime

    from steward import terminal
    from steward.config import Settings, parse_duration
    from steward.replay import replay as play
    from steward.replay import write_page

    settings = Settings.from_environment()
    model = settings.model(name).only(candidate, trials)
    with terminal.progress_of(_stderr(), "windows and trainings") as on_progress:
        found = play(
            model,
            settings,
            start=datetime.fromisoformat(start) if start else None,
            windows=windows,
            every=cast("timedelta", parse_duration(every)) if every else None,
            label_delay=label_delay,
            policies=policies.split(" ") if policies else None,
            seed=seed,
            jobs=jobs,
            fresh=fresh,
            on_event=lambda made: on_progress(made.done, made.total) if on_progress else None,
        )
    document, page = found.as_json(), str(write_page(found))
    return Answer(document, lambda: terminal.show_replay(document, found.seconds, page))


@door("steward report deployment_risk 4")
def report(
    name: Name,
    version: Annotated[int | None, typer.Argument(help="Which version; the champion without it.")] = None,
) -> Answer:
    """Write a version's HTML card (data, candidates, choice, test, lineage) and print its path."""
    from steward import operations, steps, terminal
    from steward.records import Card

    workspace, model = _open(name)
    subject = operations.promotion_of(workspace, model, version)
    card = workspace.load(Card, steps.report(workspace, model, subject))
    return Answer({"model": name, "path": card.path, "sha256": card.file.sha256}, lambda: [terminal.line(card.path)])


@door("steward prune deployment_risk --older-than 180d --dry-run")
def prune(
    name: Name,
    *,
    older_than: Annotated[str, typer.Option(help="Age, such as 180d or 12h.", callback=_duration)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
) -> Answer:
    """Delete old predictions and outcomes, but none that a training still needs; goes on record."""
    from steward import retention, terminal
    from steward.config import parse_duration

    workspace, model = _open(name)
    age = cast("timedelta", parse_duration(older_than))
    pruned = retention.prune(workspace, model, age, by=_person(), at=_now(), dry_run=dry_run).as_json()
    return Answer(pruned, lambda: [terminal.facts(pruned)])


@door("steward schema > steward.schema.json")
def schema() -> Answer:
    """Print the JSON Schema of model files, for editors."""
    from steward.config import ModelFile

    return Answer(ModelFile.json_schema())


@door("steward doctor")
def doctor() -> Answer:
    """Look whether everything is there that a training needs, and say what to do if not."""
    from steward import diagnosis, terminal
    from steward.config import Settings

    findings = [finding.as_json() for finding in diagnosis.examine(Settings.from_environment())]
    ok = all(finding["ok"] for finding in findings)
    return Answer({"ok": ok, "findings": findings}, lambda: terminal.show_findings(findings), exit_code=0 if ok else 1)


@app.command(epilog="Example: steward serve --port 8000")
def serve(
    *,
    host: Annotated[str, typer.Option(help="Interface to listen on; another than loopback needs keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")] = 8000,
    certificate: Annotated[
        str | None, typer.Option(help="PEM file of a TLS certificate; without it something else has to encrypt.")
    ] = None,
    private_key: Annotated[str | None, typer.Option(help="PEM file of the certificate's key.")] = None,
    access_log: Annotated[bool, typer.Option(help="One JSON line per request on stderr.")] = True,
) -> None:
    """Answer over HTTP for every model file, follow promotions, and put each prediction on record; ends with a signal."""
    from steward.config import Settings
    from steward.errors import StewardError
    from steward.serving.server import Listening, serve

    try:
        serve(Settings.from_environment(), Listening(host, port, certificate, private_key, access_log=access_log))
    except StewardError as problem:
        raise typer.Exit(_refuse(problem, sys.stdout, as_json=False)) from problem


keys = typer.Typer(name="keys", help="API keys of the service.", no_args_is_help=True)
app.add_typer(keys)


@door("steward keys add release-bot --model deployment_risk --rights predict", keys)
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who will use the key; in the access log.")],
    *,
    model: Annotated[list[str] | None, typer.Option(help="A model it is for; every model without it.")] = None,
    rights: Annotated[str, typer.Option(help="What it may do: predict, outcomes, or both.")] = "predict,outcomes",
    rate: Annotated[float, typer.Option(min=0.1, help="Requests per second.")] = 1_000.0,
) -> Answer:
    """Make an API key and print it, this once; a running service knows it within seconds."""
    from steward import terminal
    from steward.config import Settings
    from steward.serving.access import EVERY_MODEL, KeyFile

    file = KeyFile(Settings.from_environment().home)
    key, secret = file.add(name, model or [EVERY_MODEL], rights.split(","), rate=rate, at=_now())
    document = {**_shown_key(key.as_json()), "key": secret}
    return Answer(document, lambda: [terminal.facts(document)])


@door("steward keys list", keys, "list")
def list_keys() -> Answer:
    """Show who has an API key, and for what."""
    from steward import terminal
    from steward.config import Settings
    from steward.serving.access import KeyFile

    found = [_shown_key(key.as_json()) for key in KeyFile(Settings.from_environment().home).read() or ()]
    return Answer({"keys": found}, lambda: [terminal.facts(key) for key in found])


@door("steward keys revoke release-bot", keys)
def revoke(name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key.")]) -> Answer:
    """Take an API key away; a running service forgets it within seconds."""
    from steward import terminal
    from steward.config import Settings
    from steward.serving.access import KeyFile

    key = _shown_key(KeyFile(Settings.from_environment().home).revoke(name).as_json())
    return Answer(key, lambda: [terminal.facts(key)])


def _shown_key(key: dict[str, Any]) -> dict[str, Any]:
    return {name: ", ".join(v) if isinstance(v, list) else v for name, v in key.items() if name != "sha256"}


example = typer.Typer(name="example", help="Tables to try Steward on.", no_args_is_help=True)
app.add_typer(example)


@door("steward example git-history --repo .", example, "git-history")
def git_history(
    *,
    repo: Annotated[str, typer.Option(metavar="PATH", help="Folder of the repository; may be a bare one.")],
    output: Annotated[
        str, typer.Option(metavar="FILE", help="Parquet or CSV file, written anew.")
    ] = "data/commits.parquet",
    revision: Annotated[str, typer.Option(help="Branch, tag or commit whose past is the history.")] = "HEAD",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the newest so many commits become rows.")] = None,
    within: Annotated[
        str, typer.Option(help="How long a fix may take to blame a commit, such as 180d.", callback=_duration)
    ] = "180d",
    fix: Annotated[
        str | None, typer.Option(metavar="REGEX", help="How the subject of a fix reads here.", callback=_pattern)
    ] = None,
) -> Answer:
    """Write a table of a git repository's commits: what was known then, and whether a fix blamed them later."""
    from pathlib import Path

    from steward import terminal
    from steward.config import parse_duration
    from steward.examples.git import FIX, Repository
    from steward.examples.git_history import write

    age = cast("timedelta", parse_duration(within))
    with terminal.progress_of(_stderr(), "fixes") as on_blame:
        written = write(
            Repository(Path(repo)),
            Path(output),
            revision=revision,
            limit=limit,
            within=age,
            fix=fix or FIX,
            jobs=os.cpu_count() or 1,
            on_blame=on_blame,
        ).as_json()
    return Answer(written, lambda: [terminal.facts(written)])


@door("steward example flights", example)
def flights(
    *,
    output: Annotated[str, typer.Option(metavar="FILE", help="Parquet file, written anew.")] = "data/flights.parquet",
    share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Only this share of the flights, always the same ones.")
    ] = 1.0,
) -> Answer:
    """Write the table of flights that left New York in 2013, as they were known before they did."""
    from pathlib import Path

    from steward import terminal
    from steward.examples.flights import write

    written = write(Path(output), share=share).as_json()
    return Answer(written, lambda: [terminal.facts(written)])


@app.command(epilog="Example: steward demo --once")
def demo(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="End with the story; exit code 0 if every step of it happened.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Set aside what is in STEWARD_HOME and begin anew.")] = False,
) -> None:
    """Run the whole example: a training in Airflow, a champion that serves, a month that changes the world, and what follows."""
    from steward import demo

    raise typer.Exit(demo.run(once=once, fresh=fresh))


def main() -> None:
    """The `steward` command."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except KeyboardInterrupt as stopped:
        sys.exit(_interrupted(stopped))


def _interrupt(number: int, _frame: "FrameType | None") -> None:
    """Leaves every `with` block in order, as Ctrl-C does."""
    raise KeyboardInterrupt(number)


def _interrupted(stopped: KeyboardInterrupt) -> int:
    """Say so; 130, or 143 after SIGTERM."""
    _say(RESUMABLE)
    return 128 + (stopped.args[0] if stopped.args else signal.SIGINT)
