"""The program ends at once, and loses nothing: what Python does at its own end is done."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

FULL = Path("/dev/full")
PROGRAM = """
import atexit, sys, tempfile, threading, time
import odn.__main__ as command
kept = tempfile.TemporaryDirectory()
def late():
    time.sleep(0.2)
    print("thread", flush=True)
def main():
    threading.Thread(target=late).start()
    atexit.register(print, "handler")
    print(kept.name)
    return 2
command.main = main
command.program()
"""


def run(program: str, *, stdout: int | IO[str] = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own, whose output is buffered as Python does by itself."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=environment, text=True, check=False)


def test_threads_handlers_and_output_come_before_the_end() -> None:
    """A thread that is at work ends, exit handlers run after it, temporary folders go, and the exit code is the command's."""
    done = run(PROGRAM)
    assert (done.returncode, done.stderr) == (2, "")
    folder, *rest = done.stdout.splitlines()
    assert rest == ["thread", "handler"]
    assert not Path(folder).exists()


def test_an_exception_ends_it_as_it_ends_python() -> None:
    """With a traceback: it is a fault of ours, and must be seen."""
    program = "import odn.__main__ as command\ndef main():\n    1 / 0\ncommand.main = main\ncommand.program()"
    done = run(program)
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
def test_output_that_nobody_can_keep_fails_the_program() -> None:
    """Buffered lines are written at the end; where they cannot be, the exit code says so."""
    program = "import odn.__main__ as command\ncommand.main = lambda: print('said') or 0\ncommand.program()"
    with FULL.open("w") as full:
        done = run(program, stdout=full)
    assert (done.returncode, done.stderr) == (2, "odn: the output could not be written: [Errno 28] No space left on device\n")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """Such as `odn show | head -1`."""
    program = "import odn.__main__ as command\ncommand.main = lambda: print('said') or 0\ncommand.program()"
    reading, writing = os.pipe()
    os.close(reading)
    done = run(program, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
