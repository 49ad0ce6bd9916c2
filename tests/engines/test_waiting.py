"""Waiting for a run: what a real Kubeflow 2.17 says of one, told to a person by the names of our steps."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines import kubeflow_api
from engines.conftest import compile_with
from engines.kubeflow_api import Kubeflow, nodes_of
from pipelines import cluster
from pipelines.compiled import read_compiled
from pipelines.door import ClusterError, Limits
from pipelines.errors import RunFailedError
from pipelines.progress import names_of, steps_of

RUN = "6a1b"
ROOT = Path(__file__).parents[2]
QUICK = Limits(connect=0.5, get=2.0, post=2.0, poll=0.02, patience=0.5, heartbeat=60.0, frozen=60.0)
NAMES = {"prepare": "prepare the data", "train": "train rung 1", "check": "is rung 1 enough?", "truncate": "finish the network"}
NAMES |= {"check-2": "is rung 2 enough?", "check-3": "is rung 3 enough?", "register": "register the model"}


@pytest.fixture
def kubeflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubeflow]:
    """Serve a Kubeflow whose run a test writes itself."""
    monkeypatch.delenv("KFP_TOKEN", raising=False)
    with kubeflow_api.serve(kubeflow_api.run_nothing) as double:
        monkeypatch.setenv("KFP_HOST", double.url)
        yield double


def waited(kubeflow: Kubeflow, *looks: dict[str, Any], limits: Limits = QUICK) -> None:
    """Wait for a run that is at each look what is given, and stays what is given last."""
    left = list(looks)

    def run() -> dict[str, Any]:
        return {"run_id": RUN, **(left.pop(0) if len(left) > 1 else left[0])}

    kubeflow.looks = run
    cluster.wait(cluster.connect(limits), RUN, names=NAMES)


def look(state: str, **steps: str) -> dict[str, Any]:
    """Return a run in a state, with the nodes of its steps."""
    return {"state": state, "run_details": {"task_details": nodes_of(steps)}}


def test_steps_are_told_by_their_names(kubeflow: Kubeflow, capsys: pytest.CaptureFixture[str]) -> None:
    """Drivers, executors, graphs and branches that were not taken are no steps; the last line says how the run ended."""
    waited(
        kubeflow,
        look("RUNNING", prepare="RUNNING"),
        look("RUNNING", prepare="SUCCEEDED", train="RUNNING"),
        look("SUCCEEDED", prepare="SUCCEEDED", train="SUCCEEDED", check="SUCCEEDED"),
    )
    told = [line.partition(" s  ")[2] for line in capsys.readouterr().out.splitlines()]
    assert told == [
        "prepare the data: begins",
        "prepare the data: done, 30 s",
        "train rung 1: begins",
        "train rung 1: done, 30 s",
        "is rung 1 enough?: done, 30 s",
        "the run has succeeded; steps done: 3",
    ]


def test_the_table_of_rungs_grows_as_they_are_judged(kubeflow: Kubeflow, capsys: pytest.CaptureFixture[str]) -> None:
    """Each row once, from the log of the step that judged it; the last step tells those from the cache, and how the search ended."""
    rows = [f"rung {n}: 9{n}.00% on val, {n},000 bytes, 0.{n} full-network epochs: expand" for n in (1, 2, 3)]
    log = "".join(f"odn table: {row}\n" for row in rows)
    begun = {"train": "SUCCEEDED", "check": "SUCCEEDED", "check-2": "SUCCEEDED"}
    ended = {**begun, "check-3": "SUCCEEDED", "register": "SUCCEEDED"}
    kubeflow.logs = {  # the third rung came from the cache
        "train-executor": "odn table: not a step that judges\n",
        "check-executor": f"rung 1 trial\n{log[: len(log) // 3]}some\n",
        "check-2-executor": log[: len(log) // 3 * 2],
        "register-executor": f"{log}odn table: target 92.50% reached at rung 3\n",
    }
    waited(kubeflow, look("RUNNING", train="RUNNING"), look("RUNNING", **begun), look("SUCCEEDED", **ended))
    told = [line.partition(" s  ")[2] for line in capsys.readouterr().out.splitlines()]
    assert [line for line in told if line.startswith(("rung", "target"))] == [*rows, "target 92.50% reached at rung 3"]
    assert told.index(rows[0]) == told.index("is rung 1 enough?: done, 30 s") + 1
    assert told[-1] == "the run has succeeded; target 92.50% reached at rung 3; steps done: 5"


def test_a_failed_step_is_named_in_its_own_words(kubeflow: Kubeflow) -> None:
    """With what odn said in its pod, and the command that shows the rest."""
    kubeflow.logs = {"train-executor": "Traceback of kfp\nodn: the loss is not finite in step 3; lower train.lr\nmore\n"}
    with pytest.raises(RunFailedError) as failure:
        waited(kubeflow, look("FAILED", prepare="SUCCEEDED", train="FAILED"))
    first, said, where = failure.value.lines
    assert f"run {RUN} ended as FAILED at the step 'train rung 1'; see {kubeflow.url}/#/runs/details/{RUN}" in first
    assert said == "the step said: the loss is not finite in step 3; lower train.lr"
    assert where.endswith(f"kubectl -n kubeflow logs -c main --tail=20 --prefix -l pipeline/runid={RUN}")


def test_without_a_log_the_reason_of_kubeflow_is_told(kubeflow: Kubeflow) -> None:
    """A pod that was killed wrote nothing, and its log may be gone."""
    with pytest.raises(RunFailedError, match=r"at the step 'train rung 1' \(OOMKilled\); see"):
        waited(kubeflow, look("FAILED", train="FAILED") | {"error": {"code": 2, "message": "OOMKilled"}})


def test_details_that_freeze_do_not_end_a_wait(kubeflow: Kubeflow, capsys: pytest.CaptureFixture[str]) -> None:
    """Past 1 MiB Kubeflow says no more of the steps; the state of the run stays right, and is followed."""
    frozen = look("RUNNING", prepare="SUCCEEDED")
    limits = Limits(connect=0.5, get=2.0, post=2.0, poll=0.02, patience=0.5, heartbeat=60.0, frozen=0.1)
    waited(kubeflow, *[frozen] * 20, look("SUCCEEDED", prepare="SUCCEEDED"), limits=limits)
    out = capsys.readouterr().out
    assert out.count("Kubeflow no longer tells what the steps do") == 1
    assert out.splitlines()[-1].endswith("the run has succeeded; steps done: 1")


def test_a_long_step_shows_life(kubeflow: Kubeflow, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing changes a line says now and then what is running, and for how long."""
    limits = Limits(connect=0.5, get=2.0, post=2.0, poll=0.02, patience=0.5, heartbeat=0.1, frozen=60.0)
    waited(kubeflow, *[look("RUNNING", train="RUNNING")] * 20, look("SUCCEEDED", train="SUCCEEDED"), limits=limits)
    assert "the run goes on; train rung 1: running, " in capsys.readouterr().out


def test_a_run_that_is_ended_by_a_person_says_so(kubeflow: Kubeflow) -> None:
    """Kubeflow calls it FAILED, as it does at a deadline, and no step has failed."""
    with pytest.raises(RunFailedError, match=f"run {RUN} ended as FAILED; see"):
        waited(kubeflow, look("FAILED", prepare="SUCCEEDED", train="RUNNING"))


def test_a_retried_step_has_the_pods_of_all_tries() -> None:
    """The words of the last one are looked for first."""
    from kfp_server_api.models import V2beta1PipelineTaskDetail as Node
    from kfp_server_api.models import V2beta1Run, V2beta1RunDetails

    retry = Node(task_id="r", display_name="executor", child_tasks=[_child("p0"), _child("p1")])
    pods = [Node(task_id=f"p{n}", display_name=f"executor({n})", pod_name=f"pod-{n}", state="FAILED") for n in (0, 1)]
    step = Node(task_id="t", display_name="train", state="FAILED", child_tasks=[_child("r")])
    run = V2beta1Run(run_details=V2beta1RunDetails(task_details=[step, retry, *pods]))
    (found,) = steps_of(run, NAMES, now=datetime.datetime.now(datetime.UTC))
    assert found.pods == ("pod-0", "pod-1")


def test_every_step_of_a_pipeline_has_a_name(tmp_path: Path) -> None:
    """Of all levels, each once."""
    out = tmp_path / "pipeline.yaml"
    assert compile_with("--params", str(ROOT / "params.yaml"), "--image", "odn-python:test", "--out", str(out)) == 0
    names = names_of(read_compiled(out))
    assert {"train rung 8", "is rung 1 enough?", "finish the network", "register the model"} <= set(names.values())
    assert not [name for name in names if name.startswith(("condition", "finish"))]


def test_a_kubeflow_that_falls_silent_ends_a_wait_with_the_page(kubeflow: Kubeflow) -> None:
    """The run itself goes on."""
    kubeflow.looks = lambda: {"run_id": RUN, "state": "RUNNING"}
    client = cluster.connect(QUICK)
    kubeflow.strange = lambda _method, path: kubeflow_api.Strange(status=503) if "/runs/" in path else None
    with pytest.raises(ClusterError) as failure:
        cluster.wait(client, RUN, names=NAMES)
    assert failure.value.lines[-1].startswith(f"run {RUN} goes on without this command; see ")


def _child(task_id: str) -> Any:
    from kfp_server_api.models import PipelineTaskDetailChildTask

    return PipelineTaskDetailChildTask(task_id=task_id)
