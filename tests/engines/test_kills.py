"""Killed again and again, at any moment, the pipeline ends with the bytes of a quiet run, and nobody mends anything by hand."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from engines.conftest import ROOT, Clone, files_of, make_clone
from odn.files import write_json

MAKE_REPRO = "python -m pipelines.before_dvc && dvc repro && odn show"  # as the Makefile has it
N_KILLS, LONGEST = int(os.environ.get("ODN_TEST_KILLS", "2")), 4.0  # seconds before a kill
SEED = int(os.environ.get("ODN_TEST_SEED", "0"))
MEASURED = ("metrics/latency.json", "metrics/export_latency.json")
OUTPUTS = ("model", "metrics", "plots", "report", "work/depths", "work/decisions", "work/checks", "work/evaluation", "data")


@pytest.fixture(scope="module")
def quiet(clone: Clone) -> Clone:
    """Run the pipeline undisturbed."""
    prepare(clone)
    clone.run("bash", "-c", MAKE_REPRO)
    for name in MEASURED:  # times of a busy machine would be measured again
        write_json(clone.folder / name, clone.read(name) | {"busy": False})
    clone.run("bash", "-c", MAKE_REPRO)
    return clone


def prepare(clone: Clone) -> None:
    """Give a clone what the Makefile's commands need, in a last commit."""
    shutil.copytree(ROOT / "pipelines", clone.folder / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    clone.commit("The pipeline's commands")


def like(quiet: Clone, folder: Path) -> Clone:
    """Make a clone in which nothing has run, but that knows how fast the network is: that is measured, not computed."""
    made = Clone(make_clone(folder).folder, quiet.environment)
    prepare(made)
    (folder / "metrics").mkdir()
    for name in MEASURED:
        shutil.copyfile(quiet.folder / name, folder / name)
    return made


def run_for(clone: Clone, seconds: float, *, after: str = "") -> bool:
    """Run the commands of `make repro`, and kill them all some seconds after a line of theirs; tell whether they were still at work."""
    log = clone.folder.parent / "log.txt"
    with log.open("w") as out:
        running = subprocess.Popen(
            ["bash", "-c", MAKE_REPRO],
            cwd=clone.folder,
            env=clone.variables() | {"PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while after not in log.read_text() and running.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(seconds)
        killed = running.poll() is None
        if killed:
            os.killpg(running.pid, signal.SIGKILL)
        code = running.wait()
    assert killed or code == 0, log.read_text()
    return killed


def assert_the_same(killed: Clone, quiet: Clone) -> None:
    """Finish the run, and compare all that it makes."""
    killed.run("bash", "-c", MAKE_REPRO)
    for name in OUTPUTS:
        assert files_of(killed.folder / name) == files_of(quiet.folder / name), name
    assert (killed.folder / "dvc.lock").read_text() == (quiet.folder / "dvc.lock").read_text()
    assert killed.repro() == []


@pytest.mark.slow
def test_killed_again_and_again(quiet: Clone, tmp_path: Path) -> None:
    """`kill -9` of everything, N_KILLS times wherever the run is, and twice while it registers: one version in the registry, whole."""
    killed, draw = like(quiet, tmp_path / "clone"), random.Random(SEED)
    for _ in range(N_KILLS):
        run_for(killed, draw.uniform(0, LONGEST))
    for _ in range(2):
        run_for(killed, draw.uniform(0, 1), after="Running stage 'register'")
    assert_the_same(killed, quiet)
    assert killed.read(".odn/registration.json")["aliases"] == ["candidate", "champion"]
    with sqlite3.connect(killed.folder / "mlflow.db") as store:
        assert store.execute("select count(*) from model_versions where current_stage != 'Deleted_Internal'").fetchall() == [(1,)]
