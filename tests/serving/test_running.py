"""A server that runs: models are swapped under load, a stop answers what was asked, and what it may hold is bounded."""

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Hashable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odn.cli import main
from odn.commands.serve import listen
from odn.errors import RequestError
from odn.files import write_bytes
from odn.serving import server as serving_server
from odn.serving.server import MOST_WAITING, Desk, make_app
from odn.serving.sources import Loaded, Source, find_source
from odn.serving.swapping import Served
from serving.onnx_files import expected, onnx_file
from serving.running import Running

WAIT_SECONDS = 30
PIXELS = np.random.default_rng(3).integers(0, 256, (1, 1, 8, 8)).astype(np.uint8)
BODY = json.dumps({"inputs": [{"name": "images", "shape": [1, 1, 8, 8], "datatype": "UINT8", "data": PIXELS.ravel().tolist()}]})


class Client(threading.Thread):
    """Ask again and again over one connection, and keep what was answered."""

    def __init__(self, server: Running) -> None:
        super().__init__()
        self.server, self.ends, self.answers = server, threading.Event(), list[tuple[int, dict[str, Any]]]()

    def run(self) -> None:
        """Ask until it is told to end."""
        connection = self.server.connection()
        while not self.ends.is_set():
            connection.request("POST", "/v2/models/odn/infer", BODY)
            answer = connection.getresponse()
            self.answers.append((answer.status, json.loads(answer.read())))
        connection.close()


def version(server: Running) -> str:
    """Return the version that is served."""
    return str(server.json("/v2/models/odn")["versions"][0])


def wait_for_another(server: Running, than: str) -> str:
    """Return the version that is served once it is another."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (now := version(server)) == than:
        assert time.monotonic() < deadline, f"version {than} is served still; {server.said()}"
        time.sleep(0.05)
    return now


def test_no_request_is_lost_while_the_model_is_swapped(tmp_path: Path) -> None:
    """Clients that never pause get an answer to each request, from the old model or the new one, whole."""
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_file(seed=0))
    with Running(path) as server:
        clients = [Client(server) for _ in range(4)]
        for client in clients:
            client.start()
        versions = {version(server): 0}
        for seed in (1, 2):
            write_bytes(path, onnx_file(seed=seed))
            versions[wait_for_another(server, list(versions)[-1])] = seed
        for client in clients:
            client.ends.set()
            client.join()
    answers = [answer for client in clients for answer in client.answers]
    assert {status for status, _ in answers} == {200}
    assert {answer["model_version"] for _, answer in answers} == set(versions)
    for _, answer in answers:
        assert np.abs(answer["outputs"][1]["data"] - expected(PIXELS, seed=versions[answer["model_version"]])).max() < 1e-6  # float32


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"damaged", "is no ONNX file that ONNX Runtime runs"),
        (onnx_file(classes=("cat", "dog")), "which are not those of version"),
        (onnx_file(image=(3, 8, 8)), "takes 8x8 color images"),
        (None, "there is no model at"),
    ],
)
def test_a_model_that_cannot_take_its_place_leaves_the_present_one(
    project: Path, content: bytes | None, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged file, another task, or none: the server goes on, says why once, and takes the next good one."""
    served = Served(find_source(None), threads=1)
    before, path = served.loaded, project / "export/model.onnx"
    if content is None:
        path.unlink()
    else:
        write_bytes(path, content)
    served.look()
    served.look()
    assert served.loaded is before
    said = capsys.readouterr().err.splitlines()
    assert [f"version {before.version} is served on" in line and why in line for line in said] == [True]
    write_bytes(path, onnx_file(seed=5))
    served.look()
    assert served.loaded.version != before.version
    assert "is served now" in capsys.readouterr().err


def test_a_file_that_is_written_again_is_no_new_model(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same bytes are the same version, and nothing is said."""
    served = Served(find_source(None), threads=1)
    write_bytes(project / "export/model.onnx", onnx_file())
    served.look()
    assert capsys.readouterr().err == ""


class Broken:
    """Be a place whose looks break off as no place should."""

    def __init__(self, source: Source) -> None:
        self.source, self.is_broken = source, False

    def stamp(self) -> Hashable:
        """Break off."""
        if self.is_broken:
            raise KeyError("a fault of a library")
        return self.source.stamp()

    def load(self, *, threads: int) -> Loaded:
        """Load the model."""
        return self.source.load(threads=threads)


def test_looks_that_break_off_are_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The server goes on with its model, and says that it follows no more."""
    place = Broken(find_source(None))
    app = make_app(Served(place, threads=1), n_threads=1, look_seconds=0.01)
    place.is_broken = True

    async def run() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0.5)

    asyncio.run(run())
    assert "no other model is looked for any more (KeyError('a fault of a library'))" in capsys.readouterr().err


def test_a_stop_answers_what_was_asked(tmp_path: Path) -> None:
    """A request whose body is still arriving when the stop comes is answered, and the command ends well."""
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_file())
    server = Running(path)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = f"POST /v2/models/odn/infer HTTP/1.1\r\nHost: here\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY[:10]}"
        client.sendall(head.encode())
        time.sleep(0.3)  # the request has begun
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)  # the stop has begun
        client.sendall(BODY[10:].encode())
        answer = client.recv(2**16)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert server.stop() == 0


def test_a_port_that_is_taken_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With another to try."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    assert f"cannot listen at 127.0.0.1 port {port} (Address already in use); choose another" in capsys.readouterr().err


class Slow:
    """Be a request whose body never comes."""

    async def stream(self) -> AsyncIterator[bytes]:
        """Send a beginning."""
        yield b"{"
        await asyncio.sleep(WAIT_SECONDS)


def test_a_request_that_does_not_arrive_is_given_up(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends a byte an hour holds a place for seconds only."""
    monkeypatch.setattr(serving_server, "BODY_SECONDS", 0.05)
    with ThreadPoolExecutor(1) as pool:
        desk = Desk(Served(find_source(None), threads=1), pool, look_seconds=1)
        with pytest.raises(RequestError, match="did not arrive within 0.05 s") as refused:
            asyncio.run(desk.work(Slow(), lambda _, __: pytest.fail("nothing was asked")))  # type: ignore[arg-type]
    assert (refused.value.status, desk.n_waiting) == (408, 0)


def test_more_requests_than_memory_is_kept_for_are_sent_away(project: Path) -> None:
    """They may come again; those that wait are not pushed out."""
    with ThreadPoolExecutor(1) as pool:
        desk = Desk(Served(find_source(None), threads=1), pool, look_seconds=1, n_waiting=MOST_WAITING)
        with pytest.raises(RequestError, match="send this one again in a second") as refused:
            asyncio.run(desk.work(Slow(), lambda _, __: pytest.fail("nothing was asked")))  # type: ignore[arg-type]
    assert (refused.value.status, desk.n_waiting) == (503, MOST_WAITING)


def test_answers_are_not_held_back() -> None:
    """The socket is TCP's by name: asyncio then turns off Nagle's algorithm, which held each answer back for 40 ms."""
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.proto == socket.IPPROTO_TCP
