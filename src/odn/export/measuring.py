"""Measure what exported files take where they run: milliseconds and memory, beside the network in torch."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from odn.data.dataset import Rows
from odn.errors import ExportError
from odn.export.artifacts import Exported, ExportLatency, Speed
from odn.export.graph import PixelGraph
from odn.export.names import NETWORK
from odn.export.runtimes import Pixels, Run, open_artifact, torch_run
from odn.files import write_json
from odn.models.timing import Timing, combined, timed
from odn.searching.records import known_timing, steadier
from odn.training.device import Machine, machine_identity

BATCHES = {1: "", 128: "_batch128"}  # and how the names of their numbers end
LEAST_PASSES = 100  # of each row: a 95th percentile of fewer is one bad pass
PATIENCE = 300  # seconds for a process of its own to load a file


def measure(path: Path, exported: Exported, *, folder: Path, network: PixelGraph, images: Rows, model: Path, machine: Machine) -> None:
    """Time each exported file of a folder and the network in turn, and write the record.

    What this kind of machine has measured of these files before, while it was quiet, is left as it is, so that the pipeline repeats to
    the byte. What it measured while it was busy stands until it is quieter.
    """
    import onnxruntime

    identity: dict[str, Any] = {name: value for name, value in machine_identity(machine).items() if name != "device"}
    identity |= {"onnxruntime": onnxruntime.__version__, "image": list(images.shape[1:])}
    if any(one.runtime == "executorch" for one in exported.artifacts):
        identity["executorch"] = version("executorch")
    identity["files"] = {NETWORK: exported.model_sha256} | {one.format: one.sha256 for one in exported.artifacts}
    before = known_timing(ExportLatency, path, identity)
    if before is not None and not before["busy"]:
        return
    runs: dict[str, Run] = {NETWORK: torch_run(network.to(memory_format=torch.channels_last))}
    runs |= {one.format: open_artifact(folder / one.file, format_name=one.format, threads=machine.threads) for one in exported.artifacts}
    known = {name: speed["peak_bytes"] for name, speed in before["speeds"].items()} if before is not None else {}  # busy or not
    looks = {size: _timed(runs, images, batch_size=size) for size in BATCHES}
    files = {NETWORK: model} | {one.format: folder / one.file for one in exported.artifacts}
    speeds = {
        name: asdict(
            Speed(
                ms=looks[1].median_ms[name],
                p95_ms=looks[1].p95_ms[name],
                ms_batch128=looks[128].median_ms[name],
                p95_ms_batch128=looks[128].p95_ms[name],
                peak_bytes=known.get(name) or peak_bytes(name, files[name], image=images.shape[1:], threads=machine.threads),
            )
        )
        for name in runs
    }
    write_json(path, steadier(before, identity | {"speeds": speeds} | combined(list(looks.values()))))


def _timed(runs: Mapping[str, Run], images: Rows, *, batch_size: int) -> Timing:
    batch = np.ascontiguousarray(np.resize(images[:batch_size], (batch_size, *images.shape[1:])))  # repeats a split that is smaller
    calls: dict[str, Callable[[], object]] = {name: _call(run, batch) for name, run in runs.items()}
    return timed(calls, least_passes=LEAST_PASSES)


def _call(run: Run, batch: Pixels) -> Callable[[], object]:
    return lambda: run(batch)


def peak_bytes(name: str, path: Path, *, image: tuple[int, ...], threads: int) -> int:
    """Return the resident memory at its peak of a process that loads a file and classifies one image.

    Raises:
        ExportError: the process fails: the file runs nowhere but here.
    """
    command = [sys.executable, "-m", "odn.export.peak", name, str(path), str(threads), *map(str, image)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise ExportError(
            f"{path}: a process of its own did not load it within {PATIENCE} s; look at what else this machine does"
        ) from None
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise ExportError(f"{path}: a process of its own could not run it (exit code {done.returncode}): {why}")
    return int(done.stdout)
