"""What `odn serve` takes under load, and whether a request is lost while models are swapped: `python -m benchmarks.serving`.

A server is started on a copy of the ONNX file, and asked over loopback by clients that never pause, each over one connection: with the Open
Inference Protocol in bytes and in JSON, and with MLflow's. In a second round another file takes the place of the model every other second.
Beside it stand the model itself, called in this process, and the cold start of `odn predict` beside `import torch`. Clients and server
share the machine's cores.
"""

import argparse
import http.client
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import torch
from PIL import Image

from odn.cores import usable_cores
from odn.data.dataset import Images
from odn.files import write_bytes, write_json
from odn.serving.model import answer
from odn.serving.onnx_model import read_onnx
from odn.training.device import processor_name

SWAP_SECONDS = 2.5  # a little more than the server lets pass between two looks
STARTS = 5
Request = tuple[str, bytes, dict[str, str]]  # path, body, headers
INFER = "/v2/models/odn/infer"


def requests_of(pixels: Images) -> dict[str, Request]:
    """Return one request for images (N, C, H, W) in each form."""
    tensor: dict[str, Any] = {"name": "images", "shape": list(pixels.shape), "datatype": "UINT8"}
    output = {"name": "probabilities"}
    sized = {**tensor, "parameters": {"binary_data_size": pixels.nbytes}}
    head = json.dumps({"inputs": [sized], "outputs": [{**output, "parameters": {"binary_data": True}}]}).encode()
    plain = json.dumps({"inputs": [{**tensor, "data": pixels.ravel().tolist()}], "outputs": [output]}).encode()
    mlflow = json.dumps({"inputs": pixels.tolist()}).encode()
    return {
        "Open Inference, bytes": (INFER, head + pixels.tobytes(), {"Inference-Header-Content-Length": str(len(head))}),
        "Open Inference, JSON": (INFER, plain, {}),
        "MLflow, JSON": ("/invocations", mlflow, {"Content-Type": "application/json"}),
    }


class Client(threading.Thread):
    """Send one request again and again, and keep how long each answer took, and what failed."""

    def __init__(self, port: int, request: Request, *, ends: float) -> None:
        super().__init__()
        self._port, self._request, self._ends = port, request, ends
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def run(self) -> None:
        """Send until the time is over."""
        path, body, headers = self._request
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while (started := perf_counter()) < self._ends:
            try:
                connection.request("POST", path, body, headers)
                answered = connection.getresponse()
                content = answered.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            self.seconds.append(perf_counter() - started)
            if answered.status != 200:
                self.failures.append(f"{answered.status} {content[:200]!r}")
        connection.close()


def load(port: int, request: Request, *, n_clients: int, seconds: float, meanwhile: Callable[[float], int] | None = None) -> dict[str, Any]:
    """Ask with so many clients for so long, and return what that gave; `meanwhile` swaps models until the time it is given, and counts."""
    started = perf_counter()
    clients = [Client(port, request, ends=started + seconds) for _ in range(n_clients)]
    for client in clients:
        client.start()
    n_swaps = meanwhile(started + seconds - SWAP_SECONDS) if meanwhile else 0
    for client in clients:
        client.join()
    took = np.array([one for client in clients for one in client.seconds])
    failures = [one for client in clients for one in client.failures]
    p50, p99 = np.percentile(took, [50, 99])
    return {
        "clients": n_clients, "requests": len(took), "a_second": round(len(took) / (perf_counter() - started), 1),
        "p50_ms": round(1e3 * p50, 2), "p99_ms": round(1e3 * p99, 2), "max_ms": round(1e3 * took.max(), 1),
        "lost": len(failures), "failures": failures[:3], "swaps": n_swaps,
    }  # fmt: skip


def swapped(path: Path, port: int, contents: Sequence[bytes]) -> Callable[[float], int]:
    """Return what puts the files in each other's place until a time, and counts how often the server then answered by another."""

    def swap(until: float) -> int:
        seen = [_version(port)]
        number = 0
        while perf_counter() < until:
            number += 1
            write_bytes(path, contents[number % len(contents)])
            threading.Event().wait(SWAP_SECONDS)
            now = _version(port)
            seen += [now] if now != seen[-1] else []
        return len(seen) - 1

    return swap


def _version(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/v2/models/odn")
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return str(found["versions"][0])


def alone(path: Path, pixels: Images, *, seconds: float) -> dict[str, float]:
    """Call the model in this process, one call after the other on one thread: what the server adds to."""
    model, took = read_onnx(path, threads=1), []
    ends = perf_counter() + seconds
    while (started := perf_counter()) < ends:
        answer(model, pixels)
        took.append(perf_counter() - started)
    return {"a_second": round(len(took) / sum(took), 1), "p50_ms": round(1e3 * float(np.median(took)), 3)}


def cold_starts(path: Path, pixels: Images, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Time whole processes, `odn predict` on one image and `import torch`: seconds on the clock and of a processor, ascending."""
    Image.fromarray(pixels[0, 0] if len(pixels[0]) == 1 else pixels[0].transpose(1, 2, 0)).save(folder / "image.png")
    predict = [sys.executable, "-m", "odn", "predict", str(folder / "image.png"), "--model", str(path)]
    commands = {"odn predict": predict, "import torch": [sys.executable, "-c", "import torch"]}
    took = {
        name: [_timed(command) for _ in range(STARTS + 1)][1:] for name, command in commands.items()
    }  # the first finds no file in memory
    return {name: {"clock": sorted(clock for clock, _ in one), "processor": sorted(used for _, used in one)} for name, one in took.items()}


def _timed(command: Sequence[str]) -> tuple[float, float]:
    before, started = os.times(), perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return round(perf_counter() - started, 2), round(used, 2)


def measure(model: Path, *, batch: int, n_clients: int, seconds: float) -> dict[str, Any]:
    """Measure all of it with one file."""
    shape = read_onnx(model, threads=1).about.image.axes
    pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (batch, *shape), np.uint8)
    first, other = model.read_bytes(), onnx.load(model)
    other.metadata_props.add(key="odn.benchmark", value="the same network, another file")
    forms = requests_of(pixels)
    with tempfile.TemporaryDirectory() as scratch:
        served = Path(scratch) / "model.onnx"
        write_bytes(served, first)
        found: dict[str, Any] = {"starts_seconds": cold_starts(served, pixels, Path(scratch)), "alone": alone(served, pixels, seconds=2)}
        command = [sys.executable, "-m", "odn", "serve", "--model", str(served), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            port = int(re.findall(r":(\d+)/", server.stdout.readline() + server.stdout.readline())[0])
            swap = swapped(served, port, (first, other.SerializeToString()))
            found["steady"] = {name: load(port, one, n_clients=n_clients, seconds=seconds) for name, one in forms.items()}
            found["while_swapped"] = {
                name: load(port, one, n_clients=n_clients, seconds=seconds, meanwhile=swap) for name, one in forms.items()
            }
            server.send_signal(signal.SIGTERM)
        assert server.returncode == 0, "the server did not end well"
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print what came of it, and keep it where `--out` says."""
    parser = argparse.ArgumentParser(description="Put a load on odn serve")
    parser.add_argument("--model", type=Path, default=Path("export/model.onnx"), help="an ONNX file (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="images a request (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=4, help="that ask at a time (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="each form of request, twice (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="a JSON file to keep it in")
    options = parser.parse_args(arguments)
    versions = {name: version(name) for name in ("onnxruntime", "starlette", "uvicorn", "torch")} | {"python": platform.python_version()}
    about = {
        "machine": processor_name(torch.device("cpu")), "cores": usable_cores(), "load_before": round(os.getloadavg()[0], 1),
        "model_bytes": options.model.stat().st_size, "batch": options.batch, **versions,
    }  # fmt: skip
    result = about | measure(options.model, batch=options.batch, n_clients=options.clients, seconds=options.seconds)
    print(json.dumps(result, indent=1))
    if options.out is not None:
        write_json(options.out, result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
