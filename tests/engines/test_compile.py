"""What is compiled: valid IR, prose for a person, and every setting of the cluster where it belongs."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from engines.conftest import compile_with
from engines.pods import pod_spec
from odn.config import load_config, read_config
from pipelines.compiled import read_compiled
from pipelines.graph import NAME
from repo.kubernetes_schemas import pod, schema_faults

ROOT = Path(__file__).parents[2]
IMAGE = "registry.example/odn-python:3f2a91c"


def compiled(folder: Path, *arguments: str, params: Path = ROOT / "params.yaml") -> tuple[dict[str, Any], dict[str, Any]]:
    """Compile; return the pipeline spec, and what the platform gives each executor."""
    out = folder / "pipeline.yaml"
    assert compile_with("--params", str(params), "--image", IMAGE, "--out", str(out), *arguments) == 0
    documents = list(yaml.safe_load_all(out.read_text()))
    return documents[0], documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compile ResNet-34, 16 depths, with every option."""
    folder = tmp_path_factory.mktemp("everything")
    params = folder / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text().replace("  mode: climb ", "  mode: growth "))
    options = ["--backbone", "resnet34", "--gpus", "1", "--secret", "odn-env", "--pvc", "odn-progress", "--memory", "8Gi", "--cpu", "4"]
    return compiled(folder, *options, "--node-selector", "pool=gpu", params=params)


def executors(spec: dict[str, Any], *names: str) -> dict[str, dict[str, Any]]:
    """Return the executors of components, by label."""
    found = spec["deploymentSpec"]["executors"]
    return {label: one for label, one in found.items() if label.removeprefix("exec-").rstrip("-0123456789") in names}


def test_the_same_settings_compile_to_the_same_bytes(tmp_path: Path) -> None:
    """Compiling twice changes nothing, so that a diff of the YAML means something."""
    compiled(tmp_path / "a")
    compiled(tmp_path / "b")
    assert (tmp_path / "a/pipeline.yaml").read_bytes() == (tmp_path / "b/pipeline.yaml").read_bytes()


def test_every_step_runs_in_the_image_that_was_named(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """One image, and nothing is installed when a step starts."""
    containers = [one["container"] for one in everything[0]["deploymentSpec"]["executors"].values()]
    assert {container["image"] for container in containers} == {IMAGE}
    assert "pip install" not in str(containers)
    told = [container["env"] for container in containers if {"name": "ODN_IMAGE", "value": IMAGE} in container.get("env", [])]
    assert len(told) == 1, "the step that registers, which names it beside the model"


def test_sixteen_depths_are_sixteen_levels(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """ResNet-34 trains and judges up to 16 depths, and can end at each; what ends a search is written down once."""
    assert counted(everything[0], "train", "check", "finish") == {"train": 16, "check": 16, "finish": 16}
    ending = ("truncate", "evaluate", "export", "report", "register")
    assert counted(everything[0], *ending) == dict.fromkeys(ending, 1)


def test_rungs_of_a_grid_are_trained_at_once(tmp_path: Path) -> None:
    """None waits for another, nor for a verdict; each is judged when it and all before it are there."""
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text().replace("  mode: climb ", "  mode: grid "))
    spec, platform = compiled(tmp_path, "--backbone", "resnet34", params=params)
    tasks = spec["root"]["dag"]["tasks"]
    assert {name: one["dependentTasks"] for name, one in tasks.items() if name.startswith("train")} == {
        f"train{suffix}": ["configure", "prepare"] for suffix in ("", *(f"-{rung}" for rung in range(2, 10)))
    }
    assert tasks["check-9"]["dependentTasks"] == ["check-8", "configure", "prepare", "train-9"]
    assert "check-9" in tasks["finish"]["dependentTasks"]
    assert specification_bytes(spec, platform) < 100_000


def test_a_ladder_has_a_level_for_each_rung(tmp_path: Path) -> None:
    """Another backbone brings all rungs up to it, and names say what they count."""
    spec, _ = compiled(tmp_path, "--backbone", "resnet34")
    assert counted(spec, "train") == {"train": 9}
    assert "name: train rung 9\n" in yaml.safe_dump(spec)


def test_weights_of_this_machine_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pod sees no file of ours; a bucket, or timm's own weights, are compiled for every depth of the backbone."""
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["search"]["ladder"] = "prefix"
    for weights in ("lite0.safetensors", "timm"):
        settings["model"] |= {"backbone": "timm/tf_efficientnet_lite0", "weights": weights}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
        if weights == "timm":
            compiled(tmp_path, params=tmp_path / "params.yaml")
        else:
            options = ["--params", str(tmp_path / "params.yaml"), "--image", IMAGE, "--out", str(tmp_path / "pipeline.yaml")]
            assert compile_with(*options) == 2
            assert "a cluster's steps do not see lite0.safetensors" in capsys.readouterr().err


def test_names_read_like_prose(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """What the page of a run shows is a sentence or part of one."""
    text = yaml.safe_dump(everything[0])
    for name in (
        "check the settings",
        "prepare the data",
        "train depth 16",
        "is depth 7 enough?",
        "finish depth 2",
        "finish the network",
        "register the model",
    ):
        assert f"name: {name}\n" in text or f"name: '{name}'" in text, name


def test_the_defaults_of_a_run_are_the_settings(tmp_path: Path) -> None:
    """What params.yaml says is what a run without arguments does."""
    spec, config = compiled(tmp_path, "--secret", "odn-env")[0], load_config(ROOT / "params.yaml")
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert inputs["config"]["defaultValue"] == config.to_short_json()
    assert read_config(inputs["config"]["defaultValue"]) == config
    assert inputs["target"]["defaultValue"] == config.search.target
    assert inputs["data_source"]["defaultValue"] == config.data.source
    assert spec["pipelineInfo"]["name"] == NAME


def test_training_steps_get_the_gpu_and_the_rest_does_not(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """train, check and truncate train; a GPU for the others would stand idle."""
    spec, platform = everything
    for label, one in executors(spec, "train", "check", "truncate").items():
        assert one["container"]["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
        assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in platform[label]["tolerations"]
        assert platform[label]["nodeSelector"]["labels"] == {"pool": "gpu"}
        assert platform[label]["pvcMount"][0]["mountPath"] == "/progress"
        assert {"name": "ODN_PROGRESS", "value": "/progress"} in one["container"]["env"]
    for label, one in executors(spec, "configure", "prepare", "evaluate", "export", "report", "register").items():
        assert "accelerator" not in one["container"].get("resources", {})
        assert "pvcMount" not in platform[label]


def test_steps_without_a_gpu_run_in_the_image_for_cpus(tmp_path: Path) -> None:
    """Where one is named; a node without a GPU then never pulls CUDA."""
    spec = compiled(tmp_path, "--gpus", "1", "--cpu-image", "odn-python:test-cpu")[0]
    images = {label: one["container"]["image"] for label, one in spec["deploymentSpec"]["executors"].items()}
    assert {label for label, image in images.items() if image == IMAGE} == {"exec-train", "exec-check", "exec-truncate"}
    assert set(images.values()) == {IMAGE, "odn-python:test-cpu"}


def test_an_image_that_no_step_would_run_in_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without GPUs all steps are alike."""
    given = ["--params", str(ROOT / "params.yaml"), "--image", "odn-python:test", "--out", str(tmp_path / "p.yaml")]
    assert compile_with(*given, "--cpu-image", "odn-python:test-cpu") == 2
    assert "--cpu-image: no step has a GPU without --gpus" in capsys.readouterr().err


def test_only_training_is_retried(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """A lost node is worth another try of a training, which goes on where it was; a wrong setting is not."""
    for name, task in tasks_of(everything[0]):
        retried = name.startswith(("train", "check", "truncate"))
        assert ("retryPolicy" in task) == retried, name
        if retried:
            assert task["retryPolicy"]["maxRetryCount"] == 2
            assert task["retryPolicy"]["backoffFactor"] == 2.0
            assert int(task["retryPolicy"]["backoffMaxDuration"].removesuffix("s")) > 3 * 86400  # Argo ends the last try by it


def test_only_what_must_be_done_again_is_not_cached(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """The settings step looks whether data has changed, and a registration is an action; all else is taken from the cache."""
    for name, task in tasks_of(everything[0]):
        cached = task.get("cachingOptions", {}).get("enableCache", False)
        assert cached == (not name.startswith(("configure", "register"))), name


def test_secrets_are_named_and_never_held(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Every step is told which secret to read; the YAML has no value of one."""
    for label, one in everything[1].items():
        keys = {pair["secretKey"] for pair in one["secretAsEnv"][0]["keyToEnv"]}
        assert {"MLFLOW_TRACKING_URI", "AWS_SECRET_ACCESS_KEY"} <= keys, label
        assert one["secretAsEnv"][0]["secretName"] == "odn-env"
        assert one["securityContext"]["runAsNonRoot"] is True


def test_every_step_has_a_limit_of_time(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """A step that hangs does not hold its node for ever."""
    assert all(one["activeDeadlineSeconds"] in {"3600", 3600, "86400", 86400} for one in everything[1].values())


def test_kubernetes_takes_every_pod(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """With every option, the pod of each step is one that Kubernetes' own schemas allow, oldest version and newest."""
    spec, platform = everything
    specs = [pod_spec(executor, platform[label]) for label, executor in spec["deploymentSpec"]["executors"].items()]
    assert len(specs) == 9
    assert schema_faults([pod(one) for one in specs]) == []


@pytest.mark.parametrize("image", ["odn-python", "odn-python:latest", "odn python:1", ""])
def test_an_image_without_a_fixed_tag_is_refused(image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kubeflow's cache would not see it change."""
    assert compile_with("--params", str(ROOT / "params.yaml"), "--image", image, "--out", str(tmp_path / "p.yaml")) == 2
    assert "--image" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_damaged_yaml_is_refused(tmp_path: Path) -> None:
    """What is no pipeline is not submitted."""
    from odn.errors import MissingInputError

    (tmp_path / "p.yaml").write_text("root: 3\n")
    with pytest.raises(MissingInputError, match="holds no compiled pipeline"):
        read_compiled(tmp_path / "p.yaml")


def test_the_largest_workflow_is_small(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Argo keeps a workflow in one object of 1 MiB; 16 depths with every option stay below half of it to their end."""
    spec, platform = everything
    config = len(spec["root"]["inputDefinitions"]["parameters"]["config"]["defaultValue"])
    assert specification_bytes(spec, platform) < 300_000
    assert specification_bytes(spec, platform) + node_bytes(spec, platform, config=config) < 2**20 / 2


def specification_bytes(spec: dict[str, Any], platform: dict[str, Any]) -> int:
    """Foresee the specification of the Argo workflow that Kubeflow 2.17 makes, within some percent of one that was measured (588,186).

    It holds each different executor once, what the platform says of each label, each component, and each task twice: in the
    component of its graph, and as the argument of its driver, with the templates around it.
    """
    tasks = [task for _, task in all_tasks(spec)]
    once = [spec["components"], spec["deploymentSpec"], spec["root"], platform, tasks]
    return sum(map(size, once)) + 900 * len(tasks)


def node_bytes(spec: dict[str, Any], platform: dict[str, Any], *, config: int) -> int:
    """Foresee the nodes of a run to the last depth, as Argo compresses them (310,000 were measured when each held the whole config).

    What a step's pod is given stands with its driver and with itself, and shrinks to about half.
    """
    labels = ["configure", "prepare", *["train", "check"] * 16, "truncate", "evaluate", "report", "register"]
    executors = spec["deploymentSpec"]["executors"]
    return sum(size(executors[f"exec-{label}"]) + size(platform[f"exec-{label}"]) + config for label in labels)


def size(part: Any) -> int:
    """Count the bytes of JSON."""
    return len(json.dumps(part, separators=(",", ":")))


def counted(spec: dict[str, Any], *names: str) -> dict[str, int]:
    """Count the tasks of components."""
    found = [task["componentRef"]["name"] for _, task in all_tasks(spec)]
    return {name: found.count(f"comp-{name}") for name in names}


def all_tasks(spec: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """List the tasks of all levels."""
    dags = [spec["root"], *spec["components"].values()]
    return [(name, task) for dag in dags if "dag" in dag for name, task in dag["dag"]["tasks"].items()]


def tasks_of(spec: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """List the tasks of all levels that run a container."""
    return [(name, task) for name, task in all_tasks(spec) if "executorLabel" in spec["components"][task["componentRef"]["name"]]]
