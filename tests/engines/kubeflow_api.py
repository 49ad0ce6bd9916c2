"""A test double of the door of Kubeflow Pipelines: the v2beta1 calls that `kfp.Client` makes, over real HTTP.

It is no Kubeflow. It refuses a pipeline that is not valid IR (400) and a request without the right token (401), and it executes a run with
`kfp.local` in place of a cluster's pods. It can also be what stands in Kubeflow's place on a bad day: a login page, a server that is down,
one that accepts and is silent.
"""

import contextlib
import datetime
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

LOGIN = b"<!DOCTYPE html><html><head><title>Sign in</title><script>var x = 1</script></head><body>Log in to go on</body></html>"


@dataclass(frozen=True, kw_only=True)
class Strange:
    """Answer otherwise than Kubeflow; with `silent`, not before so many seconds have passed; with `breaks`, cut the connection."""

    status: int = 200
    kind: str = "text/html; charset=utf-8"
    body: bytes = LOGIN
    location: str = ""
    silent: float = 0.0
    breaks: bool = False


Answers = Callable[[str, str], Strange | None]  # of a method and a path; None: answer as Kubeflow
Execute = Callable[[str, dict[str, Any]], None]  # the pipeline as YAML and its arguments; raises where a step fails


@dataclass
class Kubeflow:
    """Hold what was posted, by id, and who may post."""

    execute: Execute
    token: str | None = None
    url: str = ""
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring_runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    strange: Answers | None = None
    authorizations: set[str | None] = field(default_factory=set)  # that were sent
    looks: Callable[[], dict[str, Any]] | None = None  # what a run is each time it is asked for, where a test says so itself
    logs: dict[str, str] = field(default_factory=dict)  # of pods
    tasks: Callable[[], dict[str, str]] = dict  # the states of the tasks that have begun, by name

    def start(self, run: dict[str, Any]) -> None:
        """Execute a run in the background, as a cluster would."""

        def work() -> None:
            spec = run["pipeline_spec"].get("pipeline_spec", run["pipeline_spec"])
            try:
                self.execute(yaml.safe_dump(spec), run.get("runtime_config", {}).get("parameters", {}))
                run["state"] = "SUCCEEDED"
            except RuntimeError as error:  # what kfp.local raises for a failing task
                run.update(state="FAILED", error={"code": 2, "message": str(error)})

        run["state"] = "RUNNING"
        threading.Thread(target=work, daemon=True).start()

    def told(self, run_id: str) -> dict[str, Any]:
        """Return a run with the nodes of its tasks; what is not done when it ends has ended as it has."""
        run = dict(self.runs[run_id])
        states = {name: run["state"] if state == "RUNNING" else state for name, state in self.tasks().items()}
        return run | {"run_details": {"task_details": nodes_of(states)}}


def run_nothing(_spec: str, _arguments: dict[str, Any]) -> None:
    """Execute a run that ends well at once."""


@contextlib.contextmanager
def serve(execute: Execute, *, token: str | None = None) -> Iterator[Kubeflow]:
    """Serve on a free port of this machine."""
    kubeflow = Kubeflow(execute, token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Door", (Handler,), {"kubeflow": kubeflow}))
    kubeflow.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield kubeflow
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """Answer for the double that a subclass names."""

    kubeflow: Kubeflow

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def answer(self, content: dict[str, Any], code: int = 200) -> None:
        """Send JSON."""
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def is_strange(self) -> bool:
        """Answer as something else than Kubeflow, where that is asked for."""
        self.kubeflow.authorizations.add(self.headers.get("Authorization"))
        strange = self.kubeflow.strange(self.command, urlparse(self.path).path) if self.kubeflow.strange else None
        if strange is None:
            return False
        self.close_connection = True
        if strange.silent:
            time.sleep(strange.silent)
        if strange.breaks or strange.silent:
            self.connection.shutdown(socket.SHUT_RDWR)
            return True
        self.send_response(strange.status)
        self.send_header("Content-Type", strange.kind)
        self.send_header("Content-Length", str(len(strange.body)))
        if strange.location:
            self.send_header("Location", strange.location)
        self.end_headers()
        self.wfile.write(strange.body)
        return True

    def is_allowed(self) -> bool:
        """Refuse whoever lacks the token."""
        if self.kubeflow.token is None or self.headers.get("Authorization") == f"Bearer {self.kubeflow.token}":
            return True
        self.answer({"error": "no valid token", "code": 16}, 401)
        return False

    def do_GET(self) -> None:
        """Take a GET; anyone may ask for health."""
        url = urlparse(self.path)
        if self.is_strange():
            return
        if url.path.endswith("/healthz"):
            self.answer({"multi_user": False})
        elif self.is_allowed():
            self.get(url.path, parse_qs(url.query))

    def get(self, path: str, query: dict[str, list[str]]) -> None:
        """Answer with what was posted before."""
        if path.endswith("/experiments"):
            wanted = re.search(r'"string_?[vV]alue": ?"([^"]*)"', query.get("filter", [""])[0])
            found = [one for one in self.kubeflow.experiments.values() if wanted is None or one["display_name"] == wanted[1]]
            self.answer({"experiments": found, "total_size": len(found)})
        elif match := re.search(r"/experiments/([^/]+)$", path):
            self.answer(self.kubeflow.experiments[match[1]])
        elif match := re.search(r"/runs/([^/]+)$", path):
            self.answer(self.kubeflow.looks() if self.kubeflow.looks is not None else self.kubeflow.told(match[1]))
        elif match := re.search(r"/nodes/([^/]+)/log$", path):
            self.log(match[1])
        else:
            self.answer({"error": f"this double has no {path}", "code": 5}, 404)

    def log(self, pod: str) -> None:
        """Send what a pod wrote, as plain text; the log of one that is gone cannot be had."""
        if pod not in self.kubeflow.logs:
            self.answer({"error": "pod not found", "code": 5}, 500)
            return
        body = self.kubeflow.logs[pod].encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Take a POST."""
        content = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if not self.is_strange() and self.is_allowed():
            self.post(urlparse(self.path).path, content)

    def post(self, path: str, content: dict[str, Any]) -> None:
        """Keep what is posted under a new id, and start it where it is a run."""
        kind = path.rsplit("/", 1)[1]
        names = {"experiments": "experiment_id", "runs": "run_id", "recurringruns": "recurring_run_id"}
        if kind not in names:
            self.answer({"error": f"this double has no {path}", "code": 5}, 404)
            return
        if (refusal := why_invalid(content)) is not None:
            self.answer({"error": refusal, "code": 3, "message": refusal}, 400)
            return
        now = datetime.datetime.now(datetime.UTC).isoformat()
        made = {**content, names[kind]: str(uuid.uuid4()), "created_at": now}
        store = {"experiments": self.kubeflow.experiments, "runs": self.kubeflow.runs, "recurringruns": self.kubeflow.recurring_runs}[kind]
        store[made[names[kind]]] = made
        if kind == "runs":
            self.kubeflow.start(made)
        self.answer(made)


def nodes_of(steps: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the task details that Kubeflow 2.17 tells of a run: the nodes of Argo's workflow, of which a step is three.

    `steps` holds states by the names of tasks; a step that has ended took 30 seconds.
    """
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    nodes = [_node("entrypoint", "RUNNING", now, now), _node("root-driver", "SUCCEEDED", now, now), _node("root", "RUNNING", now, None)]
    for order, (name, state) in enumerate(steps.items()):
        begin = now - datetime.timedelta(seconds=300 - order)
        end = None if state == "RUNNING" else begin + datetime.timedelta(seconds=30)
        executor = _node("executor", state, begin, end) | {"task_id": f"{name}-pod", "pod_name": f"{name}-executor"}
        nodes.append(_node(f"{name}-driver", "SUCCEEDED", begin, begin))
        nodes.append(_node(name, state, begin, end) | {"child_tasks": [{"pod_name": f"{name}-executor"}]})
        nodes.append(executor)
    nodes.append(_node("condition-1", "SKIPPED", now, now))
    nodes.append(_node("truncate", "SKIPPED", now, now))  # of the branch that was not taken
    return nodes


def _node(name: str, state: str, begin: datetime.datetime, end: datetime.datetime | None) -> dict[str, Any]:
    ended = end.isoformat() if end is not None else "0001-01-01T00:00:00Z"
    times = {"create_time": begin.isoformat(), "start_time": begin.isoformat(), "end_time": ended}
    return {"task_id": f"{name}-node", "display_name": name, "state": state, **times}


def why_invalid(content: dict[str, Any]) -> str | None:
    """Say why a posted pipeline is not valid IR, as the server would; None where it is, or none was posted."""
    posted = content.get("pipeline_spec")
    if posted is None:
        return None
    spec = pipeline_spec_pb2.PipelineSpec()
    try:
        json_format.ParseDict(posted.get("pipeline_spec", posted), spec)
    except json_format.ParseError as error:
        return f"invalid pipeline spec: {error}"
    given = set(content.get("runtime_config", {}).get("parameters", {}))
    unknown = given - set(spec.root.input_definitions.parameters)
    return f"unknown parameters {sorted(unknown)}" if unknown else None
