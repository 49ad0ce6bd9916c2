"""Show a long training in MLflow while it runs, without ever delaying or breaking it.

The rows go through a pipe to a process of its own (`odn.tracking.live_worker`), which alone imports mlflow and talks to the
server. A write that would block is kept for later, and a worker that is gone is forgotten: the record is in the stage's files.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from odn.config import Config
from odn.tracking.place import QUIET

LIVE_AFTER = 10.0  # seconds of training before anything is started: a short training never pays for mlflow
FLUSH_SECONDS = 5.0  # at the end, for what is still on its way
READY = b"ready"
WORKER_ENVIRONMENT = {
    **QUIET,
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}


class LiveRun:
    """Take the rows of one phase of one depth; use it as a context manager."""

    def __init__(self, header: Mapping[str, Any]) -> None:
        self._backlog = (json.dumps(header) + "\n").encode()
        self._worker: subprocess.Popen[bytes] | None = None
        self._begin = time.monotonic()
        self._over = False  # nothing more is sent: the worker is gone, or never came up

    def __enter__(self) -> Self:
        return self

    def log(self, row: Mapping[str, Any]) -> None:
        """Take one epoch: the columns of history.csv. Returns at once, whatever the server does."""
        self._send({"row": {key: value for key, value in row.items() if type(value) in {int, float}}, "time_ms": int(time.time() * 1000)})
        if self._worker is None and not self._over and time.monotonic() - self._begin >= LIVE_AFTER:
            self._start()
        self._push()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._worker is None:
            return
        self._send({"end": "FAILED" if kind is not None else "RUNNING"})
        self._push()
        self._finish(self._worker)

    def _send(self, message: Mapping[str, Any]) -> None:
        if not self._over:
            self._backlog += (json.dumps(message) + "\n").encode()

    def _start(self) -> None:
        environment = {**os.environ, **WORKER_ENVIRONMENT}
        environment.pop("MLFLOW_RUN_ID", None)  # a scheduler's own run is not the one that is meant
        command = [sys.executable, "-W", "ignore", "-m", "odn.tracking.live_worker"]
        try:
            self._worker = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment, start_new_session=True
            )
        except OSError:
            self._over = True
            return
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        os.set_blocking(self._worker.stdin.fileno(), False)
        os.set_blocking(self._worker.stdout.fileno(), False)

    def _push(self) -> None:
        """Write as much of the backlog as the pipe takes."""
        if self._worker is None or self._over:
            return
        assert self._worker.stdin is not None
        try:
            written = os.write(self._worker.stdin.fileno(), self._backlog)
        except BlockingIOError:
            return
        except OSError:
            self._over, self._backlog = True, b""  # the worker has said why, and is gone
            return
        self._backlog = self._backlog[written:]

    def _finish(self, worker: subprocess.Popen[bytes]) -> None:
        """Give a worker that is connected a few seconds to finish; one that is not has nothing that a replay would not do."""
        assert worker.stdin is not None
        assert worker.stdout is not None
        connected = False
        with contextlib.suppress(OSError):  # nothing to read yet, or nobody there
            connected = (os.read(worker.stdout.fileno(), len(READY)) or b"") == READY
        with contextlib.suppress(OSError):
            worker.stdin.close()
        if connected and not self._backlog:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(FLUSH_SECONDS)
        worker.kill()
        worker.wait()
        worker.stdout.close()


def live_run(config: Config, *, data_sha256: Mapping[str, str], depth: int, phase: str, steps_before: int | None = None) -> LiveRun:
    """Return a LiveRun for one phase (stable, trial, finish) of one depth.

    `steps_before` counts the epochs of the depth before this phase, so that the curve runs on; None goes on from what the
    server has.
    """
    return LiveRun(
        {"config": config.to_json(), "data_sha256": dict(data_sha256), "depth": depth, "phase": phase, "steps_before": steps_before}
    )
