"""What tests of more than one folder need: a real S3 server over HTTP, and programs that start at once."""

import gc
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.fork_server import CLOCK_SECONDS, quick_python
from exporter import keep_translations

START_SECONDS = 60
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts behind `&` ignore interrupts


def pytest_sessionstart() -> None:
    """Collect no garbage while the modules of the tests are imported: there is none."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later search for garbage, let torch export sooner, and time with a glance."""
    if "torch" in sys.modules:
        from odn.models import timing

        keep_translations()
        timing.SECONDS = CLOCK_SECONDS
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Start moto's S3 server once a session, in a process of its own, and give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **CREDENTIALS})
    try:
        _wait_for(f"{address}/moto-api/", server=server)
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="session", autouse=True)
def _starting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path] | None]:
    """Begin, before the first test, to start what `programs` gives, where a test asks for it; all workers share it."""
    if not any("programs" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "fork"
    folder.mkdir(exist_ok=True)
    with quick_python(folder) as started:
        yield started


@pytest.fixture(scope="session")
def programs(_starting: Callable[[], Path]) -> Path:
    """Give a folder with a `python`, an `odn` and a `dvc` that start at once."""
    return _starting()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Point the environment at the S3 server, and give a boto3 client to look at what is there."""
    import boto3

    _forget_aws(monkeypatch)
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    return boto3.Session().client("s3")


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every trace of an object store and of credentials out of the environment."""
    _forget_aws(monkeypatch)


def _forget_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def _wait_for(url: str, *, server: subprocess.Popen[bytes]) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            direct.open(url, timeout=5).close()
        except OSError:
            assert server.poll() is None, "the S3 server ended before it answered"
            assert time.monotonic() < deadline, f"the S3 server did not answer within {START_SECONDS} s"
            time.sleep(0.1)
        else:
            return
