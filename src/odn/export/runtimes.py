"""Open an exported file in the runtime that it is for, as a function from pixels to logits.

Axes: N images, C channels, H rows, W columns, K classes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from odn.data.dataset import Rows
from odn.export.names import RUNTIMES

Pixels = npt.NDArray[np.uint8]  # (N, C, H, W)
Logits = npt.NDArray[np.float32]  # (N, K)
Run = Callable[[Pixels], Logits]

BATCH, LEAST_BATCH = 128, 8  # images a call, where a whole split is read
SIDE = 64  # pixels: as in evaluation, what a network keeps of larger images would fill the memory


def open_artifact(path: Path, *, format_name: str, threads: int) -> Run:
    """Return what computes logits with a file, in its own runtime, on so many threads."""
    return _OPENERS[RUNTIMES[format_name]](path, threads)


def open_onnx(content: bytes | Path, threads: int) -> Run:
    """Return what computes logits with an ONNX file, or with its content, in ONNX Runtime on the processor."""
    session = open_session(content, threads)

    def run(pixels: Pixels) -> Logits:
        (logits,) = session.run(["logits"], {"images": pixels})
        return np.asarray(logits)

    return run


def open_session(content: bytes | Path, threads: int) -> Any:
    """Open an ONNX file, or its content, on the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    # Threads that spin while they wait take the processor from whatever else runs, torch in the same process among it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = content if isinstance(content, bytes) else str(content)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def open_torch(path: Path, threads: int) -> Run:
    """Return what computes logits with a `.pt2` file in torch."""
    import torch

    torch.set_num_threads(threads)
    return torch_run(torch.export.load(path).module())


def torch_run(module: Any) -> Run:
    """Return what computes logits with a module of torch that maps pixels to logits and probabilities."""
    import torch

    @torch.inference_mode()
    def run(pixels: Pixels) -> Logits:
        logits, _ = module(torch.from_numpy(np.ascontiguousarray(pixels)))
        return np.asarray(logits.numpy())

    return run


def _open_executorch(path: Path, threads: int) -> Run:
    from odn.export.executorch_runtime import open_executorch

    return open_executorch(path, threads)


_OPENERS: dict[str, Callable[[Path, int], Run]] = {"onnxruntime": open_onnx, "torch": open_torch, "executorch": _open_executorch}


def logits_of(run: Run, images: Rows) -> Logits:
    """Return the logits (N, K) of all images, a batch at a time; a split that is memory-mapped is never read whole."""
    size = batch_size(images.shape)
    parts = [run(np.ascontiguousarray(images[start : start + size])) for start in range(0, len(images), size)]
    return np.concatenate(parts)


def batch_size(shape: Sequence[int]) -> int:
    """Return how many images (N, C, H, W) a call takes: of those larger than 64x64 fewer, in proportion to their area."""
    return min(BATCH, max(LEAST_BATCH, BATCH * SIDE * SIDE // (shape[2] * shape[3])))
