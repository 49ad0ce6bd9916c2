"""A long training is shown while it runs, and never waits for whoever shows it: on sqlite and on a real server."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from odn.commands import track
from odn.stages import register
from odn.tracking import live
from odn.tracking.connection import connect
from odn.tracking.place import tracking_place
from odn.tracking.runs import new_depth_run, search_run


def epochs(made: Any, accuracies: list[float], *, until: Callable[[int], bool] = bool) -> float:
    """Log one row an epoch and return the longest time that a row took; after each row wait until the caller has seen enough."""
    longest = 0.0
    with live.live_run(made.config, data_sha256=made.manifest.sha256, depth=2, phase="stable", steps_before=0) as run:
        for epoch, accuracy in enumerate(accuracies, start=1):
            begin = time.monotonic()
            run.log({"depth": 2, "phase": "stable", "epoch": epoch, "lr": 0.1, "train_loss": 2 - accuracy, "val_accuracy": accuracy})
            longest = max(longest, time.monotonic() - begin)
            deadline = time.monotonic() + 60
            while not until(epoch) and time.monotonic() < deadline:
                time.sleep(0.1)
    return longest


def steps(made: Any) -> list[int]:
    """List the steps of depth 2 that the server has."""
    connection = connect(tracking_place())
    parent = search_run(connection, made.config, made.manifest.sha256).info.run_id
    runs = connection.client.search_runs([connection.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}' and tags.`odn.depth` = '2'")
    return [metric.step for run in runs for metric in connection.client.get_metric_history(run.info.run_id, "epoch/val_accuracy")]


def test_a_short_training_starts_nothing(store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before LIVE_AFTER seconds no process is started and no store is made."""
    (store / "mlflow.db").unlink()
    made = make_search(store)
    begin = time.monotonic()
    epochs(made, [0.9, 0.95])
    assert time.monotonic() - begin < 10
    assert not (store / "mlflow.db").exists()


def test_a_server_that_was_never_there_is_worth_one_line(
    store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The line names the address without its password, and the way to make up for it."""
    monkeypatch.setattr(live, "LIVE_AFTER", 0.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:hush@127.0.0.1:9")
    said: list[str] = []

    def until(epoch: int) -> bool:
        said.append(capfd.readouterr().err)
        return "failed" in "".join(said)

    epochs(make_search(store), [0.9, 0.95], until=until)
    line = "".join(said)
    assert line == (
        "odn: tracking at http://***@127.0.0.1:9 failed (Connection refused); training goes on, the record is in the stage's files; "
        "'odn track --replay' puts it there later\n"
    )


def test_a_worker_that_hangs_delays_nothing(store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes for ever costs a training neither an epoch's time nor its end."""
    monkeypatch.setattr(live, "LIVE_AFTER", 0.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///fresh.db")  # seconds to import mlflow, seconds to make the tables
    made = make_search(store)
    begin = time.monotonic()
    assert epochs(made, [0.9] * 2000) < 0.5
    assert time.monotonic() - begin < 20


def test_a_server_that_never_answers_delays_nothing(
    store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It takes every connection and says nothing: training neither waits for it nor hears of it."""
    monkeypatch.setattr(live, "LIVE_AFTER", 0.0)
    made = make_search(store)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begin = time.monotonic()
        assert epochs(made, [0.9] * 200) < 0.5
        assert time.monotonic() - begin < 20
    assert "waiting" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_resumed_training_shows_no_epoch_twice(store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are there already are passed over, and the curve runs on in the same run."""
    made = make_search(store)
    connection = connect(tracking_place())
    before = new_depth_run(connection, search_run(connection, made.config, made.manifest.sha256).info.run_id, depth=2)
    connection.client.log_metric(before.info.run_id, "epoch/val_accuracy", 0.9, step=1)
    monkeypatch.setattr(live, "LIVE_AFTER", 0.0)
    epochs(made, [0.9, 0.95], until=lambda epoch: epoch < 2 or len(steps(made)) == 2)
    assert steps(made) == [1, 2]
    parent = search_run(connection, made.config, made.manifest.sha256)
    assert connection.client.get_run(before.info.run_id).info.status == "FINISHED"  # trained, and not judged yet
    assert parent.info.status == "SCHEDULED"


@pytest.mark.slow
def test_a_server_over_http_holds_runs_artifacts_and_the_model(
    server: Any, store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that sqlite holds, a server holds; where artifacts go is its own choice."""
    made = make_search(store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    done = register.run(
        made.config, **made.paths(), registered_weights=store / "work/registered.json", registration=store / ".odn/registration.json"
    )
    assert (done.tracking_uri, done.version, done.champion) == (server.uri, "1", True)
    client = connect(tracking_place()).client
    assert client.get_model_version_by_alias("odn-digits", "champion").run_id == done.run_id
    assert {file.path for file in client.list_artifacts(done.run_id)} == {"metrics", "model", "plots", "report"}
    assert client.get_run(done.run_id).info.artifact_uri.startswith("mlflow-artifacts:/")
    assert track.run(made.config, **made.paths()).new == ()


@pytest.mark.slow
def test_a_server_killed_in_mid_run_loses_nothing(
    server: Any, store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Training sees nothing of it, one line says so, and a replay completes the run that was begun when the server is back."""
    made = make_search(store, seed=1)
    monkeypatch.setattr(live, "LIVE_AFTER", 0.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    said: list[str] = []

    def until(epoch: int) -> bool:
        if epoch == 1:
            return steps(made) == [1]
        if epoch == 2 and server.process.poll() is None:
            server.kill()
        said.append(capfd.readouterr().err)
        return epoch == 3 or "failed" in "".join(said)

    assert epochs(made, [0.9, 0.95, 0.96], until=until) < 0.5
    assert "".join(said).count("\n") == 1
    assert "training goes on" in "".join(said)
    server.start()
    assert track.run(made.config, **made.paths()).new == (1, 2)
    assert steps(made) == list(range(1, 9))
