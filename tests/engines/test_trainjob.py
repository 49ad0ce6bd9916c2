"""On a cluster several nodes train in a TrainJob: the step submits it, waits, and leaves what torchrun alone leaves."""

import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.config import kube_config

from engines.conftest import Clone, compile_with, require_same_bytes, run_compiled
from engines.test_compile import IMAGE, compiled, executors
from engines.test_kill_methods import SMALL
from engines.trainer_api import Cluster, serving, torchrun
from laws.search_data import prepare_digits, small_config
from odn import steps, trainjob
from odn.config import Config
from odn.errors import TrainingError
from odn.records import parse_record
from odn.searching.folder import SearchFolder
from odn.stages import open as opening
from pipelines import local
from pipelines.platform import PROGRESS, Platform
from repo.kubernetes_schemas import pod, schema_faults
from repo.pipeline import ROOT

STAGE = "train"


def described(mount: Path) -> str:
    """Return the description of two nodes with a process each, which have the volume at this place."""
    platform = Platform(image=IMAGE, nodes=2, pvc="odn-progress", secret="odn-env")
    return json.dumps(json.loads(platform.job(2)) | {"mount": str(mount)})


def settings() -> Config:
    """Return small settings for two processes."""
    return small_config(**SMALL | {"train": SMALL["train"] | {"processes": 2}}, search={"mode": "climb", "target": 0.05, "schedule": [1]})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare a few digits."""
    return prepare_digits(settings(), tmp_path_factory.mktemp("digits"))


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be a step that has a volume and submits jobs."""
    folder = tmp_path / "volume"
    folder.mkdir()
    monkeypatch.setattr(trainjob, "POLL_SECONDS", 0.05)
    for name, value in {
        "ODN_PROGRESS": str(folder),
        trainjob.VARIABLE: described(folder),
        "MLFLOW_TRACKING_URI": "sqlite:///none.db",
    }.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Be on a cluster whose jobs end as the test says."""
    double = Cluster(ends=lambda job: (True, ""))
    with serving(double, tmp_path) as kubeconfig:
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))  # read from KUBECONFIG on import
        yield double


def train_step(folder: Path, *, prepared: Path) -> dict[str, Any]:
    """Run the step that trains the first rung; return its labels."""
    opening.run(settings(), search=SearchFolder(folder / "before"))
    places = {
        "dataset": str(prepared),
        "before": str(folder / "before"),
        "search": str(folder / "search"),
        "table": str(folder / "table.md"),
    }
    return steps.train(settings().to_json(), experiment="tests", depth=1, after=0, **places)


@pytest.mark.slow
def test_the_pipeline_on_nodes_leaves_what_torchrun_leaves(
    cluster: Cluster, volume: Path, clone: Clone, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole YAML with a TrainJob of two nodes for each step that trains, and DVC, whose stages start torchrun, give the same bytes."""
    clone.change("train", processes=2)
    clone.change("search", mode="prune", target=0.3, schedule={"3": {"after": 0}})
    clone.change("prune", epochs=4, budget=0.02, budget_metric="params", finetune_epochs=2)
    clone.repro("evaluate", "export")
    (tmp_path / "params.yaml").write_bytes((clone.folder / "params.yaml").read_bytes())
    cluster.ends = torchrun(programs / "python")
    for name in (trainjob.VARIABLE, "MLFLOW_TRACKING_URI"):  # the YAML has it; the store is one whose tables are there
        monkeypatch.delenv(name)
    for name, value in {"OMP_NUM_THREADS": "1", "KUBECONFIG": kube_config.KUBE_CONFIG_DEFAULT_LOCATION}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(local, "_without_variables", partial(move_volume, to=volume))
    options = ["--nodes", "2", "--pvc", "odn-progress"]
    artifacts = run_compiled(tmp_path, python=programs / "python", monkeypatch=monkeypatch, options=options)

    require_same_bytes(clone, artifacts)
    assert [job["spec"]["trainer"]["args"][2] for job in cluster.posted] == ["train", "truncate"]  # a cut network is judged as it is
    assert cluster.deleted == [job["metadata"]["name"] for job in cluster.posted]
    assert not list((volume / "jobs").iterdir()), "what was shared with a job goes with it"
    assert all({"name": "MLFLOW_EXPERIMENT_NAME", "value": "odn"} in job["spec"]["trainer"]["env"] for job in cluster.posted)


def test_a_failed_job_fails_the_step_with_its_words(
    cluster: Cluster, volume: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kubeflow's reason, and what `odn:` said on a node; another try replaces the job."""
    cluster.ends = lambda job: (False, "loading\nodn: the loss is nan at rung 1\nTraceback\n")
    for _ in range(2):
        with pytest.raises(SystemExit, match="2"):
            train_step(tmp_path, prepared=prepared)
        assert "failed (JobsFailed: all jobs ended): the loss is nan at rung 1; its pods' logs" in capsys.readouterr().err
    assert len(cluster.posted) == 2
    assert len(cluster.deleted) == 1


def test_another_try_of_a_step_finds_its_job(cluster: Cluster, volume: Path, prepared: Path, tmp_path: Path) -> None:
    """A step that dies while it waits submits nothing twice."""
    flags = shared_flags(tmp_path, volume, prepared=prepared)
    nodes = nodes_of()
    name = trainjob.job_name(nodes, settings(), STAGE, flags)
    arguments = trainjob._shared(volume / "jobs" / name, settings(), flags)
    cluster.take(trainjob.manifest(nodes, name=name, arguments=[STAGE, *arguments]))
    (volume / "jobs" / name / "search/found.txt").write_text("it was here")
    trainjob.run(nodes, settings(), STAGE, **flags)
    assert len(cluster.posted) == 1
    assert (tmp_path / "search/found.txt").read_text() == "it was here"


def test_a_newer_image_is_another_job(volume: Path, prepared: Path, tmp_path: Path) -> None:
    """What an older image trains is not taken for what this one would train."""
    flags, nodes = shared_flags(tmp_path, volume, prepared=prepared), nodes_of()
    newer = dataclasses.replace(nodes, image=f"{nodes.image}-newer")
    names = [trainjob.job_name(one, settings(), STAGE, flags) for one in (nodes, nodes, newer)]
    assert names[0] == names[1] != names[2]


def test_a_step_that_is_ended_deletes_its_job(cluster: Cluster, volume: Path, prepared: Path, tmp_path: Path) -> None:
    """A run that a person has ended leaves no nodes at work."""
    ended = threading.Event()
    cluster.ends = lambda job: (ended.wait(30), "")

    def end() -> None:
        while not cluster.posted:
            time.sleep(0.02)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end, daemon=True).start()
    with pytest.raises(SystemExit) as left:
        trainjob.run(nodes_of(), settings(), STAGE, **shared_flags(tmp_path, volume, prepared=prepared))
    ended.set()
    assert left.value.code == 128 + signal.SIGTERM
    assert cluster.deleted == [cluster.posted[0]["metadata"]["name"]]


def test_rights_that_lack_are_named(cluster: Cluster, volume: Path, prepared: Path, tmp_path: Path) -> None:
    """A refusal says what to give the steps."""
    cluster.forbidden = True
    with pytest.raises(TrainingError, match="403: forbidden.*the rights of deploy/trainer.yaml"):
        trainjob.run(nodes_of(), settings(), STAGE, **shared_flags(tmp_path, volume, prepared=prepared))


def test_the_rights_are_those_that_are_used(cluster: Cluster, volume: Path, prepared: Path, tmp_path: Path) -> None:
    """What a step asks for, from a job that fails to one that is deleted, is what deploy/trainer.yaml gives, and no more."""
    flags = shared_flags(tmp_path, volume, prepared=prepared)
    for complete in (False, True):
        cluster.ends = lambda job, complete=complete: (complete, "")  # type: ignore[misc]
        try:
            trainjob.run(nodes_of(), settings(), STAGE, **flags)
        except TrainingError:
            assert not complete
    role = next(one for one in yaml.safe_load_all((ROOT / "deploy/trainer.yaml").read_text()) if one["kind"] == "Role")
    given = {(verb, resource) for rule in role["rules"] for verb in rule["verbs"] for resource in rule["resources"]}
    assert cluster.asked == given


def test_a_node_has_the_rights_of_a_step(volume: Path) -> None:
    """What a job says of its pods, Kubernetes takes: the volume, GPUs, tolerations, labels, and a secret that is named and never held."""
    platform = Platform(
        image=IMAGE, nodes=2, gpus=2, pvc="odn-progress", secret="odn-env", memory="8Gi", cpu="4", node_selector={"pool": "gpu"}
    )
    nodes = parse_record(trainjob.Nodes, platform.job(4))
    spec = trainjob.manifest(nodes, name="odn-train-1", arguments=["train"])["spec"]
    assert (spec["trainer"]["numNodes"], spec["trainer"]["numProcPerNode"]) == (2, 2)
    ((replicated,),) = (patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"] for patch in spec["runtimePatches"])
    template = replicated["template"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    whole = container | {"image": spec["trainer"]["image"], "env": spec["trainer"]["env"], "resources": spec["trainer"]["resourcesPerNode"]}
    assert schema_faults([pod(template["spec"] | {"containers": [whole]})]) == []
    assert whole["resources"]["limits"] == {"nvidia.com/gpu": "2", "memory": "8Gi"}
    assert all("value" not in one for one in spec["trainer"]["env"] if one["name"] != "MLFLOW_EXPERIMENT_NAME")
    assert "env" not in container, "Trainer refuses it there"


def test_with_nodes_a_training_step_only_waits(tmp_path: Path) -> None:
    """It has the volume and the description of its nodes; GPU and memory are theirs."""
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text().replace("  processes: 1 ", "  processes: 4 "))
    options = [
        "--nodes",
        "2",
        "--gpus",
        "2",
        "--memory",
        "8Gi",
        "--pvc",
        "odn-progress",
        "--secret",
        "odn-env",
        "--node-selector",
        "pool=gpu",
    ]
    spec, platform = compiled(tmp_path, *options, params=params)
    for label, one in executors(spec, "train", "check", "truncate").items():
        variables = {pair["name"]: pair["value"] for pair in one["container"]["env"]}
        nodes = parse_record(trainjob.Nodes, variables[trainjob.VARIABLE])
        assert (nodes.nodes, nodes.processes, nodes.gpus, nodes.memory, nodes.image) == (2, 2, 2, "8Gi", IMAGE)
        assert "resources" not in one["container"]
        assert {"pvcMount"} <= set(platform[label])
        assert "nodeSelector" not in platform[label]
    assert "ODN_" not in local._made_local(tmp_path / "pipeline.yaml"), "run-local starts torchrun, and keeps checkpoints in its own folder"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--nodes", "2"], "name its claim with --pvc"),
        (["--nodes", "2", "--pvc", "odn-progress"], "train.processes: 1 cannot be shared out evenly to --nodes 2"),
        (["--nodes", "2", "--gpus", "2", "--pvc", "odn-progress"], "train.processes: 1, but --nodes 2 and --gpus 2 are 4"),
        (["--nodes", "65", "--pvc", "odn-progress"], "--nodes: expected a whole number from 0 to 64; got 65"),
    ],
)
def test_nodes_must_fit_the_settings(options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused when compiled, before a cluster is asked."""
    out = tmp_path / "pipeline.yaml"
    assert compile_with("--params", str(ROOT / "params.yaml"), "--image", IMAGE, "--out", str(out), *options) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def move_volume(spec: dict[str, Any], *, to: Path) -> None:
    """Let the steps of a compiled pipeline find their volume at another place."""
    for executor in spec["deploymentSpec"]["executors"].values():
        for variable in executor["container"].get("env", []):
            variable["value"] = variable["value"].replace(PROGRESS, str(to))


def nodes_of() -> trainjob.Nodes:
    """Return what the step's environment describes."""
    return parse_record(trainjob.Nodes, os.environ[trainjob.VARIABLE])


def shared_flags(folder: Path, volume: Path, *, prepared: Path) -> dict[str, Any]:
    """Return the flags of a training."""
    (folder / "search").mkdir()
    return {"depth": 1, "after": 0, "prepared": prepared, "search": folder / "search", "progress": volume}
