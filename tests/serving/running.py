"""`odn serve` as a process of its own, and plain HTTP to ask it."""

import http.client
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

STOP_SECONDS = 30


class Running:
    """Hold a server that listens at a free port, until the block ends."""

    def __init__(self, model: Path) -> None:
        command = [sys.executable, "-m", "odn", "serve", "--model", str(model), "--port", "0"]
        self.errors = (model.parent / "stderr.txt").open("w+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        assert self.process.stdout is not None
        lines = "".join(self.process.stdout.readline() for _ in range(2))
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", lines)
        assert found is not None, f"the server ended before it listened: {lines}{self.said()}"
        self.port = int(found[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> int:
        """Ask it to end as Kubernetes does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=STOP_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.errors.close()
        return code

    def said(self) -> str:
        """Return what it wrote to standard error."""
        return Path(self.errors.name).read_text()

    def connection(self) -> http.client.HTTPConnection:
        """Return a connection of its own, as each thread of a client needs one."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(
        self, path: str, body: Any = None, *, headers: dict[str, str] | None = None, method: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of an answer; a body that is no bytes is sent as JSON."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"content-type": "application/json"} if content is not None and content is not body else {}
        connection = self.connection()
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, content, {**kind, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, path: str, body: Any = None) -> Any:
        """Return the JSON of an answer that must be good."""
        status, _, content = self.ask(path, body)
        assert status == 200, content
        return json.loads(content)
