"""A search in MLflow is a picture of its record: complete, repeatable, mendable."""

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from odn.commands import track
from odn.errors import TrackingError
from odn.files import write_json
from odn.tracking.connection import Connection, connect
from odn.tracking.place import tracking_place
from odn.tracking.provenance import IMAGE as IMAGE_VARIABLE
from odn.tracking.provenance import provenance
from odn.tracking.replay import Replayed
from odn.tracking.runs import depth_run


def replayed(made: Any) -> tuple[Replayed, Connection]:
    """Replay a made-up search and open the store to look."""
    return track.run(made.config, **made.paths()), connect(tracking_place())


def everything(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Dump every table of a store."""
    with sqlite3.connect(path) as store:
        names = [name for (name,) in store.execute("select name from sqlite_master where type = 'table'")]
        tables = {name: sorted(store.execute(f"select * from {name}"), key=repr) for name in names}
    store.close()
    return tables


def curve(connection: Connection, run_id: str) -> list[tuple[int, float]]:
    """Read the accuracy on val, by step."""
    return sorted((metric.step, metric.value) for metric in connection.client.get_metric_history(run_id, "epoch/val_accuracy"))


def test_a_search_is_one_run_with_a_child_for_each_depth(store: Path, make_search: Callable[..., Any]) -> None:
    """Each depth has its curve by step, its verdict and its reason; the search has its settings, results and data."""
    done, connection = replayed(make_search(store))
    parent, child = (connection.client.get_run(run_id) for run_id in (done.run_id, done.depths[2]))
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (child.info.run_name, child.data.tags["odn.verdict"], child.info.status) == ("depth-2", "target_reached", "FINISHED")
    assert curve(connection, done.depths[2]) == list(enumerate([0.9, 0.95, 0.96, 0.97, 0.98, 0.97, 0.975, 0.98], start=1))
    assert (parent.data.params["search.target"], parent.data.metrics["test_accuracy"]) == ("0.97", 0.98)
    assert parent.inputs is not None
    assert {tag.value for entry in parent.inputs.dataset_inputs for tag in entry.tags} == {"train", "val", "test"}
    assert {file.path for file in connection.client.list_artifacts(done.run_id)} == {"metrics", "model", "plots", "report"}


def test_replaying_again_changes_nothing(store: Path, make_search: Callable[..., Any]) -> None:
    """Every table of the store stays as it is, row for row."""
    made = make_search(store)
    first, _ = replayed(made)
    before = everything(store / "mlflow.db")
    second, _ = replayed(made)
    assert everything(store / "mlflow.db") == before
    assert (first.new, second.new, first.run_id) == ((1, 2), (), second.run_id)
    assert second.describe() == f"run {first.run_id} with 2 depths at sqlite:///mlflow.db: every depth was there already"


def test_a_search_that_is_not_over_is_shown_as_far_as_it_is(store: Path, make_search: Callable[..., Any]) -> None:
    """No run that no process works on is RUNNING: the search awaits its next step; when it is over, the same runs are completed."""
    made = make_search(store, finished=False)
    verdict = made.paths()["search"].judged(2) / "verdict.json"
    content = verdict.read_text()
    verdict.unlink()
    done, connection = replayed(made)
    runs = [connection.client.get_run(run_id) for run_id in (done.run_id, *done.depths.values())]
    assert [run.info.status for run in runs] == ["SCHEDULED", "FINISHED", "FINISHED"]
    verdict.write_text(content)
    later, _ = replayed(made)
    assert (later.depths, later.new) == (done.depths, (2,))


def test_what_an_earlier_search_left_is_not_shown(store: Path, make_search: Callable[..., Any]) -> None:
    """Depths behind an untrained one, and results for another target, belong to another search."""
    made = make_search(store)
    numbers = json.loads((store / "metrics/search.json").read_text())
    write_json(store / "metrics/search.json", numbers | {"target": 0.5})
    (made.paths()["search"].trained(1) / "metrics.json").unlink()
    done, connection = replayed(made)
    assert done.depths == {}
    assert "test_accuracy" not in connection.client.get_run(done.run_id).data.metrics


@pytest.mark.parametrize("last", [0.96, 0.5])
def test_a_live_curve_is_completed_if_it_is_the_same_and_replaced_if_not(store: Path, make_search: Callable[..., Any], last: float) -> None:
    """Either way each step holds one point, the record's."""
    made = make_search(store)
    connection = connect(tracking_place())
    from odn.tracking.runs import new_depth_run, search_run

    parent = search_run(connection, made.config, made.manifest.sha256)
    live = new_depth_run(connection, parent.info.run_id, depth=2).info.run_id
    for step, value in ((1, 0.9000000004), (3, last)):
        connection.client.log_metric(live, "epoch/val_accuracy", value, step=step)
    done, _ = replayed(made)
    assert (done.depths[2] == live) is (last == 0.96)
    assert [step for step, _ in curve(connection, done.depths[2])] == list(range(1, 9))
    assert depth_run(connection, done.run_id, depth=2).info.run_id == done.depths[2]  # type: ignore[union-attr]


def test_a_scheduler_s_own_run_is_left_alone(store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """MLFLOW_RUN_ID in the environment does no harm."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    done, _ = replayed(make_search(store))
    assert done.run_id != "0" * 32


def test_a_server_that_is_away_is_named_without_its_password(
    store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says where, why, that nothing is lost, and the way out."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:hush@127.0.0.1:9")
    with pytest.raises(
        TrackingError, match=r"http://\*\*\*@127\.0\.0\.1:9 cannot be used \(Connection refused\).*odn track --replay"
    ) as caught:
        replayed(make_search(store))
    assert "hush" not in str(caught.value)


def test_a_damaged_store_is_a_tracking_error(store: Path, make_search: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged sqlite file is refused in one line."""
    (store / "broken.db").write_text("this is no database, however long it is looked at" * 40)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///broken.db")
    with pytest.raises(TrackingError, match=r"sqlite:///broken\.db cannot be used"):
        replayed(make_search(store))


def test_a_deleted_experiment_is_named_with_the_way_out(store: Path, make_search: Callable[..., Any]) -> None:
    """MLflow keeps deleted experiments: it has to be restored, or another one chosen."""
    connection = connect(tracking_place())
    connection.client.delete_experiment(connection.experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore"):
        replayed(make_search(store))


def test_provenance_names_commit_data_model_and_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tracked by git and changed counts as dirty, except what every run writes; what is unknown has no tag."""
    assert set(provenance(tmp_path)) == {"odn.version"}
    (tmp_path / "data.dvc").write_text("outs:\n- md5: d1.dir\n  path: data\n")
    (tmp_path / "dvc.lock").write_text("stages:\n  truncate:\n    outs:\n    - path: model\n      md5: m1.dir\n")
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.c", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.c"}
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, env={**os.environ, **who})
    (tmp_path / "dvc.lock").write_text((tmp_path / "dvc.lock").read_text() + "\n")
    tags = provenance(tmp_path)
    assert (tags["odn.dvc.data"], tags["odn.dvc.model"], tags["odn.git.dirty"]) == ("d1.dir", "m1.dir", "false")
    (tmp_path / "data.dvc").write_text("")
    assert provenance(tmp_path)["odn.git.dirty"] == "true"
    monkeypatch.setenv(IMAGE_VARIABLE, f"registry.example/odn@sha256:{'0' * 64}")
    assert provenance(tmp_path)["odn.image"] == f"registry.example/odn@sha256:{'0' * 64}"
