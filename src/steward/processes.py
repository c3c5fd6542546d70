"""Starts programs and workers, and ends every process that came of them, whatever happens to whoever asked.

Ending a program is not enough: an Airflow scheduler that is killed leaves its workers, and a caller that is killed
leaves everything. So a *keeper* process starts the programs. It adopts their orphans (Linux), and ends the whole
family as soon as its caller closes the pipe between them, which the kernel does for a caller that was killed. Workers
end themselves by a pipe of the same kind.
"""

import contextlib
import ctypes
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

GRACE = 6.0
"""Seconds between asking a program to end and making it."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True)
class Program:
    """A program that the keeper started."""

    name: str
    pid: int
    log: Path

    def tail(self, lines: int = 15) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


class Programs:
    """Programs that end with this block, however it is left.

    Examples
    --------
    >>> with Programs() as programs:
    ...     program = programs.start("greeter", ["echo", "good morning"], {}, Path(os.devnull))
    ...     programs.wait(program, seconds=10)
    0
    """

    def __enter__(self) -> Self:
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "steward.processes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # the terminal's Ctrl-C is for the caller, which then ends us in order
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._keeper.stdin.close()  # type: ignore[union-attr]
        try:
            self._keeper.wait(4 * GRACE)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        self._keeper.stdout.close()  # type: ignore[union-attr]

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Program:
        """Start a program with this environment beside ours; what it writes goes to `log`."""
        request = {"command": list(command), "environment": dict(environment), "log": str(log)}
        return Program(name, self._ask(start=request), log)

    def exit_code(self, program: Program) -> int | None:
        """None while it runs."""
        code: int | None = self._ask(poll=program.pid)
        return code

    def wait(self, program: Program, seconds: float) -> int | None:
        """The exit code, or None if it still runs after so long."""
        end = time.monotonic() + seconds
        while (code := self.exit_code(program)) is None and time.monotonic() < end:
            time.sleep(0.1)
        return code

    def _ask(self, **request: Any) -> Any:
        pipe, answers = self._keeper.stdin, self._keeper.stdout
        if pipe is None or answers is None:
            raise RuntimeError("Programs is used as a context manager")
        pipe.write(json.dumps(request) + "\n")
        pipe.flush()
        answer = json.loads(answers.readline() or '{"error": "the keeper has ended"}')
        if "error" in answer:
            raise OSError(answer["error"])
        return answer["value"]


def keep() -> None:
    """The keeper: serves requests until the pipe is closed or a signal arrives, then ends the family."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    started: dict[int, subprocess.Popen[bytes]] = {}
    try:
        for line in sys.stdin:
            print(json.dumps(_serve(json.loads(line), started)), flush=True)  # noqa: T201 - the answer's pipe
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        end_family(started)


def _leave(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _serve(request: dict[str, Any], started: dict[int, subprocess.Popen[bytes]]) -> dict[str, Any]:
    try:
        if "poll" in request:
            return {"value": started[request["poll"]].poll()}
        process = _start(**request["start"])
    except OSError as problem:
        return {"error": str(problem)}
    started[process.pid] = process
    return {"value": process.pid}


def _start(command: list[str], environment: dict[str, str], log: str) -> subprocess.Popen[bytes]:
    with Path(log).open("ab") as stream:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={**os.environ, **environment},
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - the keeper has one thread
        )


def _die_with_parent() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def end_family(started: Mapping[int, subprocess.Popen[bytes]], grace: float = GRACE) -> None:
    """Ask the programs to end; after `grace` seconds end whatever is left of them and of their descendants."""
    for process in started.values():
        if process.poll() is None:
            process.terminate()
    end = time.monotonic() + grace
    while (family := _family(started)) and time.monotonic() < end:
        _reap(started)
        time.sleep(0.05)
    while family and time.monotonic() < end + grace:
        for member in family:
            with contextlib.suppress(psutil.Error):
                member.kill()
        _reap(started)
        time.sleep(0.05)
        family = _family(started)


def _family(started: Mapping[int, subprocess.Popen[bytes]]) -> list[psutil.Process]:
    """Living descendants, and members of the programs' sessions (where orphans are not adopted)."""
    descendants = {member.pid: member for member in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if os.getsid(process.pid) in started:
                descendants[process.pid] = process
    return [member for member in descendants.values() if _lives(member)]


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def workers(count: int, prepare: Callable[..., Any] | None = None, *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes end with this block: at once where an exception leaves it, and when the caller is killed.

    A pool alone waits for whatever it has begun, and its processes outlive a caller that was killed.

    Parameters
    ----------
    prepare, arguments : called in each process before its first work.
    """
    context = multiprocessing.get_context("forkserver")
    lifeline, held = context.Pipe(duplex=False)
    begin = (lifeline, prepare, arguments)
    with lifeline, held, ProcessPoolExecutor(count, context, initializer=_begin_work, initargs=begin) as pool:
        try:
            yield pool
        except BaseException:
            held.close()
            raise


def _begin_work(lifeline: Connection, prepare: Callable[..., Any] | None, arguments: Sequence[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the caller, which then ends us
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    if prepare:
        prepare(*arguments)


def _end_with(lifeline: Connection) -> None:
    """Nothing is ever sent: what comes is the end of whoever holds the other side."""
    lifeline.poll(None)
    os._exit(1)


def _reap(started: Mapping[int, subprocess.Popen[bytes]]) -> None:
    """Take leave of programs and adopted orphans that have ended, so that no zombie stays."""
    for process in started.values():
        process.poll()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    keep()
