"""The whole pipeline beside a real MLflow server whose artifacts lie in a bucket: what is there afterwards, and comes back by `fetch`."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from engines.conftest import compile_with, files_of, small_settings, write_digits
from odn.config import make_config
from odn.tracking.download import RUN_TAG
from pipelines.__main__ import main
from pipelines.local import last_artifact
from stores import put_store
from tracking.mlflow_server import Server

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

IMAGES, ARTIFACTS = "images", "artifacts"  # buckets


@dataclass(frozen=True)
class Tracked:
    """Hold a finished run of the pipeline, and whom it told."""

    folder: Path
    client: "MlflowClient"
    bucket: Any

    def artifact(self, name: str, component: str) -> dict[str, bytes]:
        """Read the files of an artifact."""
        return files_of(last_artifact(self.folder / "run/run", name, component))

    def parent(self) -> "Run":
        """Return the one run of the experiment that has no parent."""
        runs = self.client.search_runs([self.experiment()])
        (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
        return parent

    def experiment(self) -> str:
        """Return the experiment that was named as an argument."""
        found = self.client.get_experiment_by_name("letters to nobody")
        assert found is not None
        return str(found.experiment_id)


@pytest.fixture(scope="module")
def environment(s3_server: str) -> Iterator[pytest.MonkeyPatch]:
    """Name the object store, and a run that Kubeflow itself would have made in MLflow and tells every step of."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "MLFLOW_"))]:
            patch.delenv(name)
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1"}
        for name, value in {**keys, "AWS_ENDPOINT_URL": s3_server, "MLFLOW_RUN_ID": "0" * 32, "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, value)
        yield patch


@pytest.fixture(scope="module")
def bucket(environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Fill a bucket with digits, one folder a class."""
    import boto3

    client, folder = boto3.Session().client("s3"), tmp_path_factory.mktemp("images")
    write_digits(folder, n=350)
    client.create_bucket(Bucket=ARTIFACTS)
    client.create_bucket(Bucket=IMAGES)
    for path in sorted(folder.rglob("*.png")):
        client.upload_file(str(path), IMAGES, f"digits/{path.relative_to(folder)}")
    return client


@pytest.fixture(scope="module")
def server(bucket: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start an MLflow server that keeps artifacts in the other bucket."""
    folder = tmp_path_factory.mktemp("server")
    put_store(folder)
    running = Server(folder, artifacts=f"s3://{ARTIFACTS}/mlflow")
    yield running
    running.kill()


@pytest.fixture(scope="module")
def tracked(
    programs: Path, server: Server, bucket: Any, environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Tracked:
    """Run the compiled pipeline on the bucket: depth 1 is passed over, and depth 2 accepted."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(yaml.safe_dump(small_settings()))
    environment.chdir(folder)
    environment.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert compile_with("--image", "odn-python:test", "--out", "pipeline.yaml") == 0
    arguments = ["experiment=letters to nobody", "data_source=s3", f"data_root=s3://{IMAGES}/digits", "target=0.45"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(programs / "python"))
        assert main(["run-local", "--package", "pipeline.yaml", "--out", "run", *arguments]) == 0
    return Tracked(folder, MlflowClient(server.uri), bucket)


@pytest.mark.slow
def test_runs_are_a_tree(tracked: Tracked) -> None:
    """One parent, one child for each depth trained, each with its curve and verdict; Kubeflow's own run is left alone."""
    parent = tracked.parent()
    runs = tracked.client.search_runs([tracked.experiment()])
    children = {run.data.tags["odn.depth"]: run for run in runs if run.info.run_id != parent.info.run_id}
    assert {depth: run.data.tags["odn.verdict"] for depth, run in children.items()} == {"1": "expand", "2": "target_reached"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *children.values())} == {"FINISHED"}
    curve = tracked.client.get_metric_history(children["1"].info.run_id, "epoch/val_accuracy")
    history = tracked.artifact("search", "check")["depths/1/history.csv"].decode().splitlines()
    assert [metric.step for metric in curve][: len(history) - 1] == list(range(1, len(history)))
    assert parent.inputs is not None
    assert parent.info.run_name == "digits resnet18 target 0.45"  # the folder's name
    assert {one.dataset.source_type for one in parent.inputs.dataset_inputs} == {"s3"}


@pytest.mark.slow
def test_artifacts_lie_in_the_bucket(tracked: Tracked) -> None:
    """Model, metrics, plots and report, byte for byte what the steps handed on."""
    listed = tracked.bucket.list_objects_v2(Bucket=ARTIFACTS, Prefix="mlflow/")["Contents"]
    there = {one["Key"].partition(f"{tracked.parent().info.run_id}/artifacts/")[2]: one["Key"] for one in listed}
    results = tracked.artifact("results", "export")
    steps = {f"model/{name}": data for name, data in tracked.artifact("model", "truncate").items()}
    steps |= {f"report/{name}": data for name, data in tracked.artifact("report", "report").items()}
    steps |= {name: data for name, data in results.items() if name.startswith(("metrics/", "plots/"))}
    for name, data in steps.items():
        assert tracked.bucket.get_object(Bucket=ARTIFACTS, Key=there[name])["Body"].read() == data, name


@pytest.mark.slow
def test_fetch_brings_the_model_back_and_versions_it(tracked: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By alias and by the Kubeflow run, whose id the version carries: the same bytes, which DVC has in its cache afterwards."""
    version = tracked.client.get_model_version_by_alias("odn-digits", "champion")
    (run,) = (name.removeprefix(RUN_TAG) for name in version.tags if name.startswith(RUN_TAG))
    assert len(version.tags["odn.data.version"]) == 64  # of what lies in the bucket
    monkeypatch.chdir(tmp_path)
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(command, check=True)
    model = tracked.artifact("model", "truncate")
    for reference in ("models:/odn-digits@champion", run):
        assert main(["fetch", reference]) == 0
        assert files_of(tmp_path / "models/odn-digits") == model
        shutil.rmtree(tmp_path / "models/odn-digits")
        subprocess.run([sys.executable, "-m", "dvc", "checkout", "--quiet", "models/odn-digits.dvc"], check=True)
        assert files_of(tmp_path / "models/odn-digits") == model
    assert "/odn-digits" in (tmp_path / "models/.gitignore").read_text()


@pytest.mark.slow
def test_only_changed_data_has_a_new_version(tracked: Tracked) -> None:
    """What a recurring run is cached by: the same while the bucket is the same, another after one image more."""
    from odn import steps

    settings = make_config(small_settings()).to_json()
    changes = {"data.source": "s3", "data.root": f"s3://{IMAGES}/digits"}
    _, first = steps.configure(settings, changes=changes, repository="", revision="")
    _, again = steps.configure(settings, changes=changes, repository="", revision="")
    copied = {"Bucket": IMAGES, "Key": "digits/0/more.png"}
    tracked.bucket.copy_object(**copied, CopySource={"Bucket": IMAGES, "Key": "digits/0/0.png"})
    _, changed = steps.configure(settings, changes=changes, repository="", revision="")
    tracked.bucket.delete_object(**copied)
    assert first == again
    assert first != changed
    used = max((tracked.folder / "run/run").glob("*/configure/executor_output.json"))
    assert first in used.read_text()
