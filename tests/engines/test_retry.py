"""A training pod that is lost and tried again goes on: where its weights were, and in the run of MLflow that it had begun."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.conftest import files_of, small_settings
from odn import steps
from odn.config import Config, make_config
from odn.tracking.connection import connect
from odn.tracking.place import tracking_place
from stores import put_store
from tracking.mlflow_server import Server

TRAIN = """
import json, sys, time
from odn import steps
from odn.tracking import live
live.LIVE_AFTER, live.FLUSH_SECONDS = 0.0, 120.0
push = live.LiveRun._push
live.LiveRun._push = lambda run: (time.sleep(0.2), push(run))  # an epoch takes long enough to be seen, however busy this machine is
steps.train(**json.loads(sys.argv[1]))
"""
EPOCHS = 40  # enough to be seen, killed and taken up again in the middle


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Start an MLflow server, and let every step find it, beside a run that Kubeflow itself names."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    (tmp_path / "server").mkdir()
    put_store(tmp_path / "server")
    running = Server(tmp_path / "server")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield running
    running.kill()


def one_depth() -> Config:
    """Return settings under which one depth is trained for EPOCHS epochs, and taken as it is."""
    settings = small_settings()
    settings["growth"] |= {"min_epochs": EPOCHS, "max_epochs": EPOCHS}
    settings["search"] |= {"target": 0.05, "cooldown_epochs": 1, "schedule": {"1": {"after": 0}}}
    settings["finish"]["epochs"] = 0
    return make_config(settings)


def child_runs() -> list[Any]:
    """List the runs of depth 1."""
    connection = connect(tracking_place())
    return list(connection.client.search_runs([connection.experiment_id], "tags.`odn.depth` = '1'"))


def epochs_shown() -> list[int]:
    """List the epochs of depth 1 that MLflow shows, over all runs."""
    client = connect(tracking_place()).client
    return [metric.step for run in child_runs() for metric in client.get_metric_history(run.info.run_id, "epoch/val_accuracy")]


@pytest.mark.slow
def test_a_retried_pod_goes_on(server: Server, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed once MLflow shows it, tried again on the same volume: one run, every epoch once, the weights of a quiet training."""
    config, data = one_depth().to_json(), tmp_path / "data"
    prepared = {name: str(data / name) for name in ("dataset", "test", "search", "table")}
    steps.prepare(config, repository="", version="", **prepared)
    train = {"config": config, "depth": 1, "after": 0, "dataset": prepared["dataset"], "before": prepared["search"]}

    def attempt(name: str, *, experiment: str = "odn", volume: str = "volume") -> subprocess.Popen[bytes]:
        arguments = train | {"experiment": experiment, "search": str(tmp_path / name / "search"), "table": str(tmp_path / name / "table")}
        command = [str(programs / "python"), "-m", "train_live", json.dumps(arguments)]
        environment = os.environ | {"ODN_PROGRESS": str(tmp_path / volume)}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)

    (tmp_path / "train_live.py").write_text(TRAIN)

    lost, quiet = attempt("lost"), attempt("quiet", experiment="another", volume="nothing")
    deadline = time.monotonic() + 120
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "odn")
    while not epochs_shown():
        assert lost.poll() is None, "the training ended before MLflow showed it"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(lost.pid, signal.SIGKILL)
    lost.wait()

    assert list(tmp_path.glob("volume/**/*.safetensors"))
    assert attempt("again").wait() == 0
    assert quiet.wait() == 0
    assert files_of(tmp_path / "again") == files_of(tmp_path / "quiet")
    assert not list(tmp_path.glob("volume/**/*.safetensors"))
    assert len(child_runs()) == 1
    assert sorted(epochs_shown()) == list(range(1, EPOCHS + 1))
