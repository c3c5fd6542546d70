"""However Steward ends, no process of its stays: of the demo, of a program, of a program's children."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from steward.processes import Programs, workers


def processes_of(folder: Path) -> list[str]:
    """Processes that work in this folder, or speak of it, and live."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if str(folder) in process.cwd() or str(folder) in " ".join(process.cmdline()):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def wait_for_silence(folder: Path, seconds: float = 40) -> list[str]:
    end = time.monotonic() + seconds
    while (left := processes_of(folder)) and time.monotonic() < end:
        time.sleep(0.2)
    return left


@pytest.mark.slow
@pytest.mark.airflow
@pytest.mark.timeout(900)
def test_a_signal_in_a_training_leaves_nothing_of_the_demo(played):
    """The last of the tests that share a started Airflow: it ends it."""
    run_id = played.api.trigger("deployment_risk.train", {"trials": 1, "reason": "again"})
    while not any(task["state"] == "running" for task in played.api.tasks("deployment_risk.train", run_id)):
        time.sleep(0.1)
    played.process.send_signal(signal.SIGTERM)
    assert played.process.wait(60) == 128 + signal.SIGTERM
    assert processes_of(played.folder) == []


FAMILY = """
import os, signal, sys, time
from pathlib import Path
from steward.processes import Programs
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
with Programs() as programs:
    grandchild = f"{sys.executable} -c 'import signal,time; signal.signal(15, 1); time.sleep(600)' {sys.argv[1]} & sleep 600"
    programs.start("shell", ["sh", "-c", f"({grandchild}) & sleep 600; : {sys.argv[1]}"], {}, Path(sys.argv[1], "log"))
    print("started", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_orphans_that_ignore_signals_end_with_the_caller(number, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as caller:
        assert caller.stdout.readline() == "started\n"
        time.sleep(0.5)
        assert len(processes_of(tmp_path)) >= 3
        caller.send_signal(number)
        try:
            caller.wait(40)
        finally:
            caller.kill()
    assert wait_for_silence(tmp_path) == []


WORK = """
import os, signal, subprocess, sys, time
from pathlib import Path
from steward.processes import workers

def work(number):
    Path(sys.argv[1], str(number)).touch()
    time.sleep(600)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with workers(2) as pool:
        pool.submit(work, 1).add_done_callback(print), pool.submit(work, 2)
        while len(os.listdir(sys.argv[1])) < 3:
            time.sleep(0.05)
        print("started", flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize("all_of_them", [False, True], ids=["the caller", "the process group"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_workers_end_with_their_caller_whatever_they_are_doing(number, all_of_them, tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    with subprocess.Popen(
        [sys.executable, "work.py", str(tmp_path)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as caller:  # fmt: skip
        assert caller.stdout.readline() == "started\n"
        assert len(processes_of(tmp_path)) >= 3
        os.killpg(caller.pid, number) if all_of_them else caller.send_signal(number)
        assert "ForkServerProcess" not in caller.communicate()[1]
    assert wait_for_silence(tmp_path) == []


def test_workers_that_are_let_finish_do(tmp_path):
    with workers(2, os.chdir, str(tmp_path)) as pool:
        found = [pool.submit(os.getcwd) for _ in range(3)]
    assert [one.result() for one in found] == [str(tmp_path)] * 3


def test_a_program_that_cannot_start_is_an_error(tmp_path):
    with Programs() as programs, pytest.raises(OSError, match="no-such-program"):
        programs.start("nothing", ["no-such-program"], {}, tmp_path / "log")


def test_a_program_tells_its_exit_code_and_its_last_lines(tmp_path):
    with Programs() as programs:
        program = programs.start("three", ["sh", "-c", "seq 20; exit 3"], {}, tmp_path / "log")
        assert programs.wait(program, 10) == 3
        assert program.tail(2) == "19\n20"
