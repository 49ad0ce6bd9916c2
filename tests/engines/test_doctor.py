"""`python -m pipelines doctor` against Kubernetes' door: one configmap, over real HTTP, through a kubeconfig."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.__main__ import main

SHIPPED = "spec:\n  templateDefaults:\n    retryStrategy:\n      limit: '2'\n      retryPolicy: OnError\n"


@contextmanager
def kubernetes(folder: Path, data: dict[str, str] | None, *, phases: tuple[str, ...] = ()) -> Iterator[None]:
    """Serve the controller's configmap, which can be patched, and workflows in these phases; without data, refuse everything."""

    class Door(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Say nothing."""

        def answer(self, content: dict[str, Any] | None) -> None:
            """Send JSON, or 403."""
            body = json.dumps(content or {"code": 403}).encode()
            self.send_response(403 if content is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            """Answer with the configmap or the workflows."""
            if data is None:
                self.answer(None)
            elif self.path.endswith("/namespaces/kubeflow/workflows"):
                self.answer({"items": [{"metadata": {"name": f"run-{n}"}, "status": {"phase": one}} for n, one in enumerate(phases)]})
            else:
                assert self.path.endswith("/namespaces/kubeflow/configmaps/workflow-controller-configmap"), self.path
                self.answer({"apiVersion": "v1", "kind": "ConfigMap", "data": data})

        def do_PATCH(self) -> None:
            """Change the configmap."""
            assert data is not None
            data.update(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["data"])
            self.answer({"apiVersion": "v1", "kind": "ConfigMap", "data": data})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    config = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "current-context": "x"}
    (folder / "kubeconfig").write_text(yaml.safe_dump(config | {"users": [{"name": "u", "user": {}}]}))
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _own_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))


def test_a_controller_as_shipped_is_found_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kubeflow 2.17.0 lets a killed step end the run; what to do is said, and the exit code is 1."""
    with kubernetes(tmp_path, {"workflowDefaults": SHIPPED}):
        assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "is not tried again (templateDefaults have retryPolicy OnError); to mend it: 'python -m pipelines doctor --mend" in out


@pytest.mark.parametrize("data", [{}, {"workflowDefaults": "spec: {}"}, {"workflowDefaults": SHIPPED.replace("OnError", "OnFailure")}])
def test_a_controller_that_retries_is_well(data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without defaults for templates, what the pipeline asks for holds."""
    with kubernetes(tmp_path, data):
        assert main(["doctor"]) == 0
    assert capsys.readouterr().out == "a training step that fails is tried again\n"


def test_it_is_mended_between_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What else the controller is configured with stays; while a run is going on nothing is changed."""
    data = {"workflowDefaults": SHIPPED + "  ttlStrategy:\n    secondsAfterCompletion: 60\n", "executor": "kept"}
    with kubernetes(tmp_path, data, phases=("Succeeded", "Running")):
        assert main(["doctor", "--mend"]) == 2
    assert "1 runs are going on in kubeflow, such as run-1; mend it when they have ended" in capsys.readouterr().err
    assert "templateDefaults" in data["workflowDefaults"]
    with kubernetes(tmp_path, data, phases=("Succeeded", "Failed")):
        assert main(["doctor", "--mend"]) == 0
    assert yaml.safe_load(data["workflowDefaults"]) == {"spec": {"ttlStrategy": {"secondsAfterCompletion": 60}}}
    assert data["executor"] == "kept"
    assert capsys.readouterr().out == "a training step that fails is tried again\n"


def test_who_may_not_look_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal is one line, with what to do."""
    with kubernetes(tmp_path, None):
        assert main(["doctor"]) == 2
    assert "Kubernetes refuses what concerns the configmap workflow-controller-configmap in kubeflow (403 " in capsys.readouterr().err


def test_without_a_cluster_nothing_is_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No kubeconfig is no traceback."""
    (tmp_path / "kubeconfig").unlink(missing_ok=True)
    assert main(["doctor"]) == 2
    assert "no Kubernetes is configured here" in capsys.readouterr().err
