"""Train on several nodes of a cluster: a step submits a TrainJob of Kubeflow Trainer, waits for it, and takes over what it wrote.

The step itself needs no GPU. Inputs and outputs of the job lie on a volume that the step and all nodes mount at one place, below jobs/NAME;
NAME is a digest of what is trained, so that a step that is tried again finds the job of the try before.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odn import __version__
from odn.config import Config
from odn.errors import TrainingError
from odn.files import sha256_of, write_text
from odn.records import Record, parse_record
from odn.training.torchrun import Start, run_processes

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

VARIABLE = "ODN_TRAINJOB"  # of a step: what the nodes of its job get, as JSON
RUNTIME = "torch-distributed"  # the ClusterTrainingRuntime that Kubeflow Trainer brings
GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
OF_JOB = "jobset.sigs.k8s.io/jobset-name"  # label of a node's pod
LOG_LINES = 200
NODE = "node"  # the name of the container that trains, in every runtime
PARTS = {"app.kubernetes.io/part-of": "odn", "app.kubernetes.io/component": "training"}  # labels of a node's pod: MLflow lets it in
GPU = "nvidia.com/gpu"
PASSED_ON = ("MLFLOW_EXPERIMENT_NAME",)  # of a step's own variables
POLL_SECONDS, AWAY_SECONDS = 5.0, 600.0  # between two looks, at most; that the API may give no answer
POLL_SHARE = 0.1  # of the time that a job has taken, between two looks: the step of a short job ends soon after it
GONE_SECONDS = 300.0  # that a job may take to vanish
DONE = {"Complete", "Failed"}
COPIED_BACK = ("search", "model", "metrics", "plots")


@dataclass(frozen=True, kw_only=True)
class Nodes(Record):
    """Say what runs a job: how many nodes of which kind, and what each of them gets."""

    nodes: int
    processes: int  # on each node
    gpus: int  # of each node
    image: str
    runtime: str  # a ClusterTrainingRuntime, which starts torchrun's environment
    pvc: str
    mount: str  # of that volume, in the step and on every node
    secret: str
    keys: tuple[str, ...]  # of the secret: each becomes a variable, where it is there
    cpu: str
    memory: str
    node_selector: dict[str, str]
    user: int  # that the nodes' processes run as
    seconds: int  # that the job may take


def starter() -> Start:
    """Return what starts the processes of a training: a TrainJob where the step's environment describes one, else torchrun, here.

    Raises:
        DataError: the description is damaged.
    """
    text = os.environ.get(VARIABLE)
    return partial(run, parse_record(Nodes, text)) if text else run_processes


def run(nodes: Nodes, config: Config, stage: str, **flags: int | Path) -> None:
    """Run `odn STAGE --flag value …` as a TrainJob, and copy what it wrote to where the flags say.

    Raises:
        TrainingError: the job failed, or the cluster refuses it; the reason is Kubeflow's, or what `odn:` said on a node.
        SystemExit: this step was asked to end; the job is deleted.
    """
    client = _connected()
    name = job_name(nodes, config, stage, flags)
    share = Path(nodes.mount) / "jobs" / name
    if _ended(client, name) == "Failed":  # an earlier try of this step has told why
        _delete(client, name)
    arguments = _shared(share, config, flags)
    if _conditions(client, name) is None:
        _create(client, manifest(nodes, name=name, arguments=[stage, *arguments]))
        sys.stderr.write(f"odn: TrainJob {name}: {nodes.nodes} nodes, {nodes.processes} processes each\n")
    else:
        sys.stderr.write(f"odn: TrainJob {name} of an earlier try of this step is there\n")
    with _deleted_when_ended(client, name):
        how, why = _waited(client, name)
    if how == "Failed":
        raise TrainingError(_reason(client, name, why=why))
    for flag, place in flags.items():
        if flag in COPIED_BACK and isinstance(place, Path):
            shutil.copytree(share / flag, place, dirs_exist_ok=True)
    _delete(client, name)
    shutil.rmtree(share)


def job_name(nodes: Nodes, config: Config, stage: str, flags: Mapping[str, int | Path]) -> str:
    """Return a name that only the same training has: of the settings, the version and image of odn, and what is trained on."""
    content: list[Any] = [__version__, nodes.image, config.to_json(), stage]
    for flag, value in sorted(flags.items()):
        if not isinstance(value, Path):
            content.append([flag, value])
        elif flag == "prepared":
            content.append(sha256_of(value / "dataset.json"))  # which holds the digests of the splits
        elif flag == "search":
            content += [[str(path.relative_to(value)), sha256_of(path)] for path in sorted(value.rglob("*")) if path.is_file()]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    return f"odn-{stage}-{digest}"


def manifest(nodes: Nodes, *, name: str, arguments: list[str]) -> dict[str, Any]:
    """Return the TrainJob: torchrun with `odn` on every node, in the image of the steps, with the rights of a step."""
    from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob

    template = {"spec": {"template": {"metadata": {"labels": PARTS}, "spec": _pod(nodes)}}}
    patch = {
        "manager": "odn/step",
        "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [{"name": NODE, "template": template}]}}},
    }
    job = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "odn"}},
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": "ClusterTrainingRuntime", "name": nodes.runtime},
            "trainer": _trainer(nodes, arguments),
            "runtimePatches": [patch],
            "activeDeadlineSeconds": nodes.seconds,
        },
    }
    # The SDK's own builder gives a node plain values alone: a secret would stand in the manifest.
    checked = TrainerV1alpha1TrainJob.from_dict(job)
    assert checked is not None, "it is given a job"
    return dict(checked.to_dict())


def _trainer(nodes: Nodes, arguments: list[str]) -> dict[str, Any]:
    """Say what every node starts, with which variables and amounts."""
    named = [{"name": one, "value": os.environ[one]} for one in PASSED_ON if one in os.environ]
    secret = [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": nodes.secret, "key": key, "optional": True}}}
        for key in nodes.keys
        if nodes.secret
    ]
    limits = ({GPU: str(nodes.gpus)} if nodes.gpus else {}) | ({"memory": nodes.memory} if nodes.memory else {})
    requests = limits | ({"cpu": nodes.cpu} if nodes.cpu else {})
    resources = {"requests": requests} | ({"limits": limits} if limits else {})
    return {
        "image": nodes.image,
        "numNodes": nodes.nodes,
        "command": ["torchrun"],
        "numProcPerNode": nodes.processes,
        "args": ["-m", "odn", *arguments],
        "env": [*named, *secret],
    } | ({"resourcesPerNode": resources} if requests else {})


def _pod(nodes: Nodes) -> dict[str, Any]:
    """Say what a node's pod mounts, and that it has no rights of the machine's."""
    volumes: list[dict[str, Any]] = [
        {"name": "odn", "persistentVolumeClaim": {"claimName": nodes.pvc}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    places = {"odn": nodes.mount, "tmp": "/tmp", "shm": "/dev/shm"}  # noqa: S108  # in the pod
    container = {
        "name": NODE,
        "volumeMounts": [{"name": one, "mountPath": place} for one, place in places.items()],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    rights = {
        "runAsNonRoot": True,
        "runAsUser": nodes.user,
        "runAsGroup": nodes.user,
        "fsGroup": nodes.user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    pod: dict[str, Any] = {"containers": [container], "volumes": volumes, "securityContext": rights}
    if nodes.gpus:
        pod["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    if nodes.node_selector:
        pod["nodeSelector"] = nodes.node_selector
    return pod


def _shared(share: Path, config: Config, flags: Mapping[str, int | Path]) -> list[str]:
    """Put the inputs on the volume, once, and return the flags that name them there."""
    if not share.exists():
        partial_share = share.with_name(f".{share.name}")
        shutil.rmtree(partial_share, ignore_errors=True)
        write_text(partial_share / "params.json", config.to_json())
        for flag, value in flags.items():
            if isinstance(value, Path) and flag != "progress":
                if value.exists():
                    shutil.copytree(value, partial_share / flag)
                else:
                    (partial_share / flag).mkdir()
        partial_share.rename(share)
    arguments = ["--params", str(share / "params.json")]
    for flag, value in flags.items():
        there = value if flag == "progress" or not isinstance(value, Path) else share / flag
        arguments += [f"--{flag}", str(there)]
    return arguments


def _connected() -> "TrainerClient":
    from kubeflow.trainer import TrainerClient
    from kubernetes.config import ConfigException

    try:
        return TrainerClient()
    except ConfigException as error:
        raise TrainingError(
            f"there is no way to Kubernetes from here ({' '.join(str(error).split())}); a TrainJob needs a cluster"
        ) from None


def _create(client: "TrainerClient", job: dict[str, Any]) -> None:
    from kubernetes.client import ApiException

    backend = client.backend
    try:
        backend.custom_api.create_namespaced_custom_object(GROUP, VERSION, backend.namespace, PLURAL, job)
    except ApiException as error:
        if error.status != 409:  # another try of this step was faster
            raise _refused(error) from None


def _conditions(client: "TrainerClient", name: str) -> list[dict[str, Any]] | None:
    """Return what is said of a job; None where there is no such job."""
    from kubernetes.client import ApiException

    backend = client.backend
    try:
        found = backend.custom_api.get_namespaced_custom_object(GROUP, VERSION, backend.namespace, PLURAL, name)
    except ApiException as error:
        if error.status == 404:
            return None
        raise _refused(error) from None
    return list(found.get("status", {}).get("conditions", []))


def _ended(client: "TrainerClient", name: str) -> str:
    """Return how a job has ended; "" where it has not, or is not there."""
    return next((one["type"] for one in _conditions(client, name) or [] if one["type"] in DONE and one["status"] == "True"), "")


def _waited(client: "TrainerClient", name: str) -> tuple[str, str]:
    """Wait until a job ends; return how, and Kubeflow's words for it.

    Raises:
        TrainingError: the job is gone, or the API has given no answer for ten minutes.
    """
    from urllib3.exceptions import HTTPError

    began = answered = time.monotonic()
    while True:
        try:
            found = _conditions(client, name)
        except (HTTPError, _PassingError) as error:
            if time.monotonic() - answered > AWAY_SECONDS:
                raise TrainingError(f"Kubernetes gives no answer on TrainJob {name} ({error}); the job goes on") from None
        else:
            answered = time.monotonic()
            if found is None:
                raise TrainingError(f"TrainJob {name} was deleted; submit again: the training goes on from the volume")
            for one in found:
                if one["type"] in DONE and one["status"] == "True":
                    return one["type"], " ".join(f"{one.get('reason', '')}: {one.get('message', '')}".split())
        time.sleep(min(POLL_SECONDS, 0.05 + POLL_SHARE * (time.monotonic() - began)))


def _reason(client: "TrainerClient", name: str, *, why: str) -> str:
    """Return Kubeflow's reason of a failure and, where a node's log can be read, what `odn:` said last."""
    from kubernetes.client import ApiException

    core, namespace, said = client.backend.core_api, client.backend.namespace, []
    try:
        pods = core.list_namespaced_pod(namespace, label_selector=f"{OF_JOB}={name}").items
        for pod in sorted(pods, key=lambda one: one.metadata.name):
            log = core.read_namespaced_pod_log(pod.metadata.name, namespace, container=NODE, tail_lines=LOG_LINES)
            said += [line for line in log.splitlines() if line.startswith("odn: ")][-1:]
    except ApiException as error:
        said.append(f"its pods' logs cannot be read ({error.status})")
    words = f": {said[0].removeprefix('odn: ')}" if said else ""
    return f"TrainJob {name} failed ({why}){words}; its pods' logs have the rest; another try goes on from the volume"


def _delete(client: "TrainerClient", name: str) -> None:
    """Delete a job, and wait until it is gone."""
    from kubernetes.client import ApiException

    backend = client.backend
    try:
        backend.custom_api.delete_namespaced_custom_object(GROUP, VERSION, backend.namespace, PLURAL, name)
    except ApiException as error:
        if error.status != 404:
            raise _refused(error) from None
    began = time.monotonic()
    while _conditions(client, name) is not None:
        if time.monotonic() - began > GONE_SECONDS:
            raise TrainingError(f"TrainJob {name} does not go away; delete it by hand: kubectl delete trainjob {name}")
        time.sleep(POLL_SECONDS / 10)


@contextlib.contextmanager
def _deleted_when_ended(client: "TrainerClient", name: str) -> Iterator[None]:
    """Delete the job where this step is asked to end: a run that a person has ended leaves no nodes at work."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        _delete(client, name)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


class _PassingError(TrainingError):
    """Report an answer that may be another in a moment."""


def _refused(error: Any) -> TrainingError:
    """Return what a refusal of Kubernetes means."""
    try:
        said = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        said = error.reason
    words = f"Kubernetes refuses the TrainJob ({error.status}: {' '.join(str(said).split())})"
    if error.status in {401, 403}:
        return TrainingError(f"{words}; give the steps' service account the rights of deploy/trainer.yaml")
    if error.status == 404:
        return TrainingError(f"{words}; install Kubeflow Trainer 2, and its runtime")
    return _PassingError(words) if error.status >= 500 or error.status == 429 else TrainingError(words)
