"""Tell the runs that a process works on from those whose process is gone, and close these.

Who shows a training in MLflow names itself in its runs (tag `odn.worker`) and says each minute that it is there (tag `odn.beat`). MLflow
itself never learns that a process was killed, or a pod with all its processes, and would call their runs RUNNING for ever.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from odn.tracking.connection import Connection, failures

if TYPE_CHECKING:
    from mlflow.entities import Run

WORKER, BEAT = "odn.worker", "odn.beat"  # tags: the process; when it was last there, in milliseconds since 1970
BEAT_SECONDS = 60.0
DEAD_AFTER = 900.0  # seconds without a beat; clocks of two machines may differ by minutes
MOST = 1000  # runs that are looked at
AT_WORK = f"attributes.status = 'RUNNING' and tags.`{WORKER}` LIKE '%'"


@contextlib.contextmanager
def attended(connection: Connection, *run_ids: str) -> Iterator[None]:
    """Keep runs RUNNING, and say in them that this process is there, while the block lasts.

    A server that is away is tried again each minute: a run that another process closed meanwhile is then opened again.

    Raises:
        Exception: one of `failures()`, at the beginning.
    """
    over = threading.Event()

    def beat() -> None:
        for run_id in run_ids:
            connection.client.set_tag(run_id, WORKER, own_name())
            connection.client.set_tag(run_id, BEAT, str(int(time.time() * 1000)))
            connection.client.update_run(run_id, status="RUNNING")

    def beats() -> None:
        while not over.wait(BEAT_SECONDS):
            with contextlib.suppress(*failures()):  # told by whoever logs
                beat()

    beat()
    thread = threading.Thread(target=beats, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def close_dead(connection: Connection) -> list[str]:
    """Close the runs of the experiment that are RUNNING and whose process is gone, as KILLED; return their ids.

    Raises:
        Exception: one of `failures()`.
    """
    found = connection.client.search_runs([connection.experiment_id], AT_WORK, max_results=MOST)
    dead = [run.info.run_id for run in found if not is_attended(run)]
    for run_id in dead:
        connection.client.set_terminated(run_id, status="KILLED")
    return dead


def is_attended(run: "Run") -> bool:
    """Tell whether a process works on a run: known for sure of processes beside this one, by the last beat of all others."""
    worker, beat = run.data.tags.get(WORKER), run.data.tags.get(BEAT)
    if run.info.status != "RUNNING" or worker is None or beat is None:
        return False
    place, _, process = worker.rpartition("/")
    if place and place == _place():
        return process == _process(process.partition(":")[0])
    return time.time() - int(beat) / 1000 < DEAD_AFTER


def own_name() -> str:
    """Return the name of this process that no other has: the kernel since it started, the space of its numbers, its number and age."""
    return f"{_place()}/{_process('self') or os.getpid()}"


def _place() -> str:
    """Return where a process number means something; "" where that cannot be known, and only beats tell."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _process(number: str) -> str:
    """Return a process's number and when it started, as Linux counts it; "" where there is none, or it is dead and not buried."""
    try:
        pid, _, rest = Path(f"/proc/{number}/stat").read_text().partition(" ")
    except OSError:
        return ""
    state, *fields = rest.rpartition(") ")[2].split()
    return "" if state in {"Z", "X"} else f"{pid}:{fields[18]}"
