"""A run is RUNNING while a process works on it, and no longer: whoever writes next closes what a killed process left."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from odn.commands import track
from odn.tracking import alive, live
from odn.tracking.connection import Connection, connect
from odn.tracking.place import tracking_place
from odn.tracking.runs import depth_run, new_depth_run, search_run


def begun(made: Any) -> tuple[Connection, str]:
    """Make the runs of a search and of its depth 2, and return the latter's id."""
    connection = connect(tracking_place())
    parent = search_run(connection, made.config, made.manifest.sha256)
    return connection, str(new_depth_run(connection, parent.info.run_id, depth=2).info.run_id)


def status(connection: Connection, run_id: str) -> str:
    """Return what MLflow says of a run."""
    return str(connection.client.get_run(run_id).info.status)


@pytest.mark.parametrize(
    ("worker", "age", "is_closed"),
    [
        ("another-kernel/pid:[1]/7:99", 60, False),
        ("another-kernel/pid:[1]/7:99", 3600, True),
        ("{here}/1:0", 0, True),  # a process of that number, which began at another time
        ("{own}", 3600, False),  # it lives, and its beats do not get through
        ("/7", 60, False),  # from where no numbers of processes are known
    ],
)
def test_what_is_gone_is_closed(worker: str, age: int, is_closed: bool, store: Path, make_search: Callable[..., Any]) -> None:
    """A process beside this one is looked at; of one elsewhere the last beat tells."""
    connection, run_id = begun(make_search(store))
    tags = {"odn.worker": worker.format(here=alive.own_name().rpartition("/")[0], own=alive.own_name())}
    for name, value in {**tags, "odn.beat": str(int((time.time() - age) * 1000))}.items():
        connection.client.set_tag(run_id, name, value)
    assert alive.close_dead(connection) == ([run_id] if is_closed else [])
    assert status(connection, run_id) == ("KILLED" if is_closed else "RUNNING")


def test_a_process_that_was_killed_is_gone(store: Path) -> None:
    """Also while nobody has asked how it ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = alive._process(str(child.pid))
    child.kill()
    while alive._process(str(child.pid)) and child.returncode is None:
        time.sleep(0.01)
    assert name
    assert not alive._process(str(child.pid))
    child.communicate()


def test_a_live_run_that_was_closed_is_opened_again(store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its beats came too late for somebody: the next one says that it goes on."""
    connection, run_id = begun(make_search(store))
    monkeypatch.setattr(alive, "BEAT_SECONDS", 0.05)
    with alive.attended(connection, run_id):
        assert alive.close_dead(connection) == []
        connection.client.set_terminated(run_id, status="KILLED")
        deadline = time.monotonic() + 10
        while status(connection, run_id) != "RUNNING" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert status(connection, run_id) == "RUNNING"


@pytest.mark.slow
def test_a_pod_that_is_killed_leaves_no_running_run(store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With all its processes, the one that tells MLflow among them: `odn track` leaves a live training alone, and closes a dead one."""
    made = make_search(store, finished=False)
    (made.paths()["search"].judged(2) / "verdict.json").unlink()
    monkeypatch.setattr(live, "LIVE_AFTER", 0.0)
    connection = connect(tracking_place())
    parent = search_run(connection, made.config, made.manifest.sha256).info.run_id
    with live.live_run(made.config, data_sha256=made.manifest.sha256, depth=2, phase="stable", steps_before=0) as run:
        run.log({"epoch": 1, "val_accuracy": 0.9})
        deadline = time.monotonic() + 60
        while (child := depth_run(connection, parent, depth=2)) is None or "epoch/val_accuracy" not in child.data.metrics:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        track.run(made.config, **made.paths())
        assert [status(connection, one) for one in (parent, child.info.run_id)] == ["RUNNING", "RUNNING"]
        assert run._worker is not None
        run._worker.kill()
    assert [status(connection, one) for one in (parent, child.info.run_id)] == ["RUNNING", "RUNNING"]  # MLflow knows no better
    assert track.run(made.config, **made.paths()).describe().endswith("; closed 2 runs whose process is gone")
    assert [status(connection, one) for one in (parent, child.info.run_id)] == ["KILLED", "KILLED"]
