"""What is compiled: valid IR, prose for a person, and every setting of the cluster where it belongs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from engines.conftest import compile_with
from engines.pods import pod_spec
from odn.config import load_config
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


def test_sixteen_depths_are_sixteen_levels(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """ResNet-34 trains and judges up to 16 depths, and can end at each."""
    counts = {
        name: len(executors(everything[0], name)) for name in ("train", "check", "truncate", "evaluate", "export", "report", "register")
    }
    assert counts == dict.fromkeys(counts, 16)


def test_a_ladder_has_a_level_for_each_rung(tmp_path: Path) -> None:
    """Another backbone brings all rungs up to it, and names say what they count."""
    spec, _ = compiled(tmp_path, "--backbone", "resnet34")
    assert len(executors(spec, "train")) == 9
    assert "name: train rung 9\n" in yaml.safe_dump(spec)


def test_names_read_like_prose(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """What the page of a run shows is a sentence or part of one."""
    text = yaml.safe_dump(everything[0])
    for name in ("check the settings", "prepare the data", "train depth 16", "is depth 7 enough?", "cut at depth 2", "register the model"):
        assert f"name: {name}\n" in text or f"name: '{name}'" in text, name


def test_the_defaults_of_a_run_are_the_settings(tmp_path: Path) -> None:
    """What params.yaml says is what a run without arguments does."""
    spec, config = compiled(tmp_path, "--secret", "odn-env")[0], load_config(ROOT / "params.yaml")
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert inputs["config"]["defaultValue"] == config.to_json()
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


def test_only_training_is_retried(everything: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """A lost node is worth another try of a training, which goes on where it was; a wrong setting is not."""
    for name, task in tasks_of(everything[0]):
        retried = name.startswith(("train", "check", "truncate"))
        assert ("retryPolicy" in task) == retried, name
        if retried:
            assert task["retryPolicy"]["maxRetryCount"] == 2
            assert task["retryPolicy"]["backoffFactor"] == 2.0


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
    different = [one for index, one in enumerate(specs) if one not in specs[:index]]  # the 16 of a component are alike
    assert len(different) == 9
    assert schema_faults([pod(one) for one in different]) == []


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


def tasks_of(spec: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """List the tasks of all levels that run a container."""
    dags = [spec["root"], *spec["components"].values()]
    tasks = [(name, task) for dag in dags if "dag" in dag for name, task in dag["dag"]["tasks"].items()]
    return [(name, task) for name, task in tasks if not name.startswith("condition")]
