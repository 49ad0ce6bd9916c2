"""A test double of the door of Kubernetes with Kubeflow Trainer: the calls that a step makes, over real HTTP.

It is no Kubernetes. It refuses a TrainJob that holds what Trainer's own models do not know (422) and a name that is taken (409). In place
of pods it runs a job's command on this machine, once a node, in the environment that Trainer's torch runtime gives.
"""

import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import yaml
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob

NAMESPACE = "kubeflow"
Ends = Callable[[dict[str, Any]], tuple[bool, str]]  # what becomes of a job: whether it is complete, and the log of its first node


@dataclass
class Cluster:
    """Hold the jobs that were posted, what became of them, and what was asked."""

    ends: Ends
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    posted: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)  # by pod
    asked: set[tuple[str, str]] = field(default_factory=set)  # verb and resource
    forbidden: bool = False

    def take(self, job: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Take a job, and begin it."""
        checked = TrainerV1alpha1TrainJob.from_dict(job)
        if checked is None or checked.to_dict() != job:
            return 422, {"message": "a property is unknown"}
        name = job["metadata"]["name"]
        if name in self.jobs:
            return 409, {"message": f"{name} is there"}
        self.jobs[name] = job | {"status": {}}
        self.posted.append(job)
        threading.Thread(target=self._run, args=(name, job), daemon=True).start()
        return 201, job

    def _run(self, name: str, job: dict[str, Any]) -> None:
        complete, log = self.ends(job)
        self.logs[f"{name}-node-0-0-abcde"] = log
        kind, reason = ("Complete", "JobsCompleted") if complete else ("Failed", "JobsFailed")
        if name in self.jobs:
            self.jobs[name]["status"] = {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": "all jobs ended"}]}


def torchrun(python: Path) -> Ends:
    """Return what runs the command of a job, a process a node, with the variables of Trainer's torch runtime."""

    def run(job: dict[str, Any]) -> tuple[bool, str]:
        trainer = job["spec"]["trainer"]
        assert trainer["command"] == ["torchrun"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        nodes, own = trainer["numNodes"], {one["name"]: one["value"] for one in trainer["env"] if "value" in one}
        common = {"PET_NNODES": str(nodes), "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]), "PET_MASTER_ADDR": "127.0.0.1"}
        common |= {"PET_MASTER_PORT": str(port), "PYTHON_EXEC": str(python), "PYTHONUNBUFFERED": "1"}
        command = [str(python), "-m", "torch.distributed.run", *trainer["args"]]
        running = [
            subprocess.Popen(
                command,
                env=os.environ | own | common | {"PET_NODE_RANK": str(node)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for node in range(nodes)
        ]
        logs = [one.communicate()[0] for one in running]
        return not any(one.returncode for one in running), logs[0]

    return run


@contextlib.contextmanager
def serving(cluster: Cluster, folder: Path) -> Iterator[Path]:
    """Answer for a while; yield a kubeconfig that leads here."""
    handler = type("Handler", (_Handler,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    names = {"name": "double", "context": {"cluster": "double", "user": "step", "namespace": NAMESPACE}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "double",
        "contexts": [names],
        "clusters": [{"name": "double", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "step", "user": {}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster

    def do_GET(self) -> None:  # http.server's name
        path, query = urlparse(self.path).path.split("/"), parse_qs(urlparse(self.path).query)
        if path[-2] == "trainjobs":
            self._ask("get", "trainjobs")
            self._answer(*((200, self.cluster.jobs[path[-1]]) if path[-1] in self.cluster.jobs else (404, {"message": "not found"})))
        elif path[-1] == "pods":
            self._ask("list", "pods")
            (job,) = (one.partition("=")[2] for one in query["labelSelector"])
            pods = [{"metadata": {"name": name}} for name in self.cluster.logs if name.startswith(f"{job}-")]
            self._answer(200, {"apiVersion": "v1", "kind": "PodList", "items": pods})
        elif path[-1] == "log":
            self._ask("get", "pods/log")
            self._answer(200, self.cluster.logs[path[-2]])
        else:
            self._answer(404, {"message": "not found"})

    def do_POST(self) -> None:
        self._ask("create", "trainjobs")
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(*((403, {"message": "forbidden"}) if self.cluster.forbidden else self.cluster.take(job)))

    def do_DELETE(self) -> None:
        self._ask("delete", "trainjobs")
        name = urlparse(self.path).path.split("/")[-1]
        self.cluster.deleted.append(name)
        self._answer(200, self.cluster.jobs.pop(name, {}))

    def _ask(self, verb: str, resource: str) -> None:
        self.cluster.asked.add((verb, resource))

    def _answer(self, status: int, content: dict[str, Any] | str) -> None:
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
