"""Submitting: a real `kfp.Client` against a double of Kubeflow's door, which executes what is posted."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import components, local

from components.configure import configure
from engines import kubeflow_api
from engines.conftest import compile_with, small_settings
from engines.kubeflow_api import Kubeflow
from odn.config import changed, read_config
from pipelines import cluster
from pipelines.__main__ import main
from pipelines.arguments import SETTINGS
from pipelines.compiled import read_compiled
from pipelines.door import Limits
from stores import put_store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Compile small settings in a folder of their own."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(small_settings()))
    monkeypatch.chdir(tmp_path)
    for name in ("KFP_HOST", "KFP_TOKEN", "KFP_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cluster, "LIMITS", Limits(poll=0.2))
    assert compile_with("--image", "odn-python:test", "--secret", "odn-env") == 0
    return tmp_path


@pytest.fixture
def kubeflow(folder: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubeflow]:
    """Serve a Kubeflow that asks for a token and runs what it is sent."""
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    put_store(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")  # what the secret holds on a cluster

    def execute(spec: str, arguments: dict[str, Any]) -> None:
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(folder / "root"), raise_on_error=True)
        components.load_component_from_text(spec)(**arguments)

    def say(line: str, end: str = "\n") -> None:
        """Keep what a step says as the log of its pod, where kfp.local prints it."""
        pod = f"{list(tasks())[-1]}-executor"
        double.logs[pod] = double.logs.get(pod, "") + line + end

    def tasks() -> dict[str, str]:
        *ended, last = [path.name for path in sorted((folder / "root").glob("*/*"), key=lambda path: path.stat().st_ctime_ns)] or [""]
        return {**dict.fromkeys(ended, "SUCCEEDED"), **({last: "RUNNING"} if last else {})}  # kfp.local runs one after the other

    with kubeflow_api.serve(execute, token="let-me-in") as double:
        double.tasks = tasks
        monkeypatch.setattr("kfp.local.subprocess_task_handler.print", say, raising=False)
        monkeypatch.setenv("KFP_HOST", double.url)
        monkeypatch.setenv("KFP_TOKEN", "let-me-in")
        yield double


@pytest.mark.slow
def test_a_run_is_submitted_and_waited_for(kubeflow: Kubeflow, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The posted pipeline runs to a registered model; the page of the run is printed, the exit code is 0."""
    assert main(["submit", "--wait", "--name", "first", "target=0.15", "experiment=mine"]) == 0
    (run,) = kubeflow.runs.values()
    shown = capsys.readouterr().out
    assert f"{kubeflow.url}/#/runs/details/{run['run_id']}" in shown
    assert "is depth 1 enough?: done" in shown
    assert "driver" not in shown
    rows = re.findall(r" s  depth 1: [\d.]+% on val, [\d,]+ bytes, [\d.]+ full-network epochs: target reached\n", shown)
    assert len(rows) == 1
    assert re.search(
        r"the run has succeeded; target 15.00% reached at depth 1; kept: [\d,]+ bytes, .*% on test .*; steps done: \d+\n$", shown
    )
    assert run["runtime_config"]["parameters"] == {"target": 0.15, "experiment": "mine"}
    assert [one["display_name"] for one in kubeflow.experiments.values()] == ["mine"]
    assert list((folder / "root").glob("*/register/registration/registration.json"))


@pytest.mark.slow
def test_a_failing_step_fails_the_command(kubeflow: Kubeflow, capsys: pytest.CaptureFixture[str]) -> None:
    """Data that is not there ends the run as FAILED and the command with 1, naming the page to look at."""
    assert main(["submit", "--wait", "data_source=folder", "data_root=gone"]) == 1
    error = capsys.readouterr().err
    assert "ended as FAILED at the step 'prepare the data'" in error
    assert f"{kubeflow.url}/#/runs/details/" in error


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("traget=0.9", "the pipeline has no argument traget (did you mean target?)"),
        ("target=high", "argument target: expected a number; got 'high'"),
        ("seed=1.5", "argument seed: expected a whole number; got '1.5'"),
        ("target", "expected NAME=VALUE, such as target=0.99; got 'target'"),
        ("target=2", "search.target: must be a number > 0 and < 1; got 2.0"),
        ("target=nan", "argument target: expected a number; got 'nan'"),
        ("target=1e999", "argument target: expected a number; got '1e999'"),
        ("target=true", "argument target: expected a number; got 'true'"),
        ("target=0_1", "argument target: expected a number; got '0_1'"),
        ("target=\u0661", "argument target: expected a number"),
        ("seed=-1", "seed: must be a whole number ≥ 0"),
        (f"seed={'9' * 5000}", "argument seed: expected a whole number"),
        ("max_epochs=0", "growth.max_epochs: must be a whole number ≥ 1"),
        ("data_source=nope", "data.source: must be one of"),
        ("data_source=s3", "data.root: must name where the images are"),
        ("data_root=\udcff", "argument data_root: expected text in UTF-8"),
        ("config={}", "missing setting seed"),
        ("config=[", "the config is not valid JSON"),
        ("experiment= ", "argument experiment: expected a name"),
        ("experiment=a\nodn: all is well", "argument experiment: expected a name"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_sent(
    argument: str, message: str, kubeflow: Kubeflow, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kubeflow itself would drop it silently, and run with the default."""
    assert main(["submit", argument]) == 2
    assert message in capsys.readouterr().err
    assert not kubeflow.runs


def test_arguments_are_checked_as_the_first_step_does(folder: Path) -> None:
    """Each argument takes the place of the setting that components/configure.py puts it in."""
    compiled = read_compiled(folder / "build/pipeline.yaml")
    given = {"target": 0.5, "data_source": "folder", "data_root": "photos", "max_epochs": 7, "epochs": 9, "seed": 3}
    config = compiled["root"]["inputDefinitions"]["parameters"]["config"]["defaultValue"]
    done = configure.python_func(config=config, **given, repository="", revision="")
    assert set(given) == set(SETTINGS)
    assert done[0] == changed(read_config(config), {SETTINGS[name]: value for name, value in given.items()}).to_short_json()


def test_a_missing_token_says_where_to_put_it(
    kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that asks for one gets the way out printed, not a traceback."""
    monkeypatch.delenv("KFP_TOKEN")
    assert main(["submit"]) == 2
    assert "refuses (401 Unauthorized); set KFP_TOKEN" in capsys.readouterr().err
    assert not kubeflow.runs


def test_a_token_is_never_printed(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even a wrong one."""
    monkeypatch.setenv("KFP_TOKEN", "secret-of-mine")
    assert main(["submit"]) == 2
    out = capsys.readouterr()
    assert "secret-of-mine" not in out.out + out.err


def test_a_host_that_does_not_answer_is_said_so(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A closed port, and a host that is not set at all."""
    monkeypatch.setenv("KFP_HOST", "http://127.0.0.1:9")
    assert main(["submit"]) == 2
    assert "Kubeflow Pipelines at http://127.0.0.1:9 does not answer (Connection refused)" in capsys.readouterr().err
    monkeypatch.delenv("KFP_HOST")
    assert main(["submit"]) == 2
    assert "KFP_HOST is not set" in capsys.readouterr().err


def test_a_yaml_that_is_no_pipeline_is_refused_by_the_server(kubeflow: Kubeflow) -> None:
    """The double checks what it is sent against KFP's own schema."""
    assert kubeflow_api.why_invalid({"pipeline_spec": {"root": {"dag": {"tusks": {}}}}}) is not None


def test_a_recurring_run_is_made(kubeflow: Kubeflow, capsys: pytest.CaptureFixture[str]) -> None:
    """One run at a time, at the given times, with the given arguments."""
    assert main(["schedule", "--name", "nightly", "--cron", "0 0 3 * * *", "data_source=s3", "data_root=s3://bucket/photos"]) == 0
    (made,) = kubeflow.recurring_runs.values()
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert int(made["max_concurrency"]) == 1
    assert made["no_catchup"] is True
    assert made["runtime_config"]["parameters"]["data_root"] == "s3://bucket/photos"
    assert made["recurring_run_id"] in capsys.readouterr().out


def test_submitting_before_compiling_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to send yet."""
    monkeypatch.chdir(tmp_path)
    assert main(["submit"]) == 2
    assert "run 'python -m pipelines compile' first" in capsys.readouterr().err
