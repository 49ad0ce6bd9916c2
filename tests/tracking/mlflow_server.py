"""A real MLflow server over HTTP."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

START_SECONDS = 120


class Server:
    """Run a server on the mlflow.db of a folder, which can be killed and started again; artifacts go there too, or to an s3:// address."""

    def __init__(self, folder: Path, *, artifacts: str = "") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.artifacts = folder, artifacts
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", "sqlite:///mlflow.db"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--artifacts-destination", self.artifacts] if self.artifacts else []
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.process = subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        _wait_for(f"{self.uri}/health", self.process)

    def kill(self) -> None:
        """End the server and its workers as a power cut would."""
        os.killpg(self.process.pid, 9)
        self.process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            direct.open(url, timeout=5).close()
        except OSError:
            assert process.poll() is None, "the MLflow server ended before it answered"
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"the MLflow server did not answer within {START_SECONDS} s")
