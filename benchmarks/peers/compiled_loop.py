"""The same training in compiled C++ (`compiled_loop.cpp`), to compare with: as fast as a processor trains a thin residual network.

It takes a C++ compiler, batches of 32, basic blocks and the average pool in the shortcut.
"""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from odn.models.architecture import Architecture
from odn.models.resnet_shapes import block_shapes, stem_channels

if TYPE_CHECKING:
    from benchmarks.throughput import Bench

SOURCE = Path(__file__).with_suffix(".cpp")
COMPILER = "c++"
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffast-math", "-funroll-loops", "-shared", "-fPIC", "-Wno-psabi")
BATCH = 32


def can_train(bench: "Bench") -> bool:
    """Return whether there is a compiler, and the rung is one that the loop trains."""
    if bench.rung is None or bench.rung.family != "resnet" or bench.config.train.batch_size != BATCH or shutil.which(COMPILER) is None:
        return False
    return all(len(shape.inner) == 1 and shape.shortcut == "avgpool" for shape in block_shapes(bench.rung))


def compiled_loop(bench: "Bench", *, optimizer: Literal["muon", "sgd"]) -> float:
    """Return the seconds of an epoch."""
    assert bench.rung is not None, "`can_train` says so"
    network, labels = bench.fresh().network, bench.data.train.labels
    order = torch.randperm(len(labels))[: bench.steps * BATCH]
    library()  # compiled here
    return bench.seconds(
        lambda: epoch(network, bench.rung, images=bench.floats, labels=labels, order=order, optimizer=optimizer), repeatable=False
    )


def epoch(
    network: nn.Module,
    architecture: Architecture | None,
    *,
    images: Tensor,
    labels: Tensor,
    order: Tensor,
    optimizer: Literal["muon", "sgd"],
    rate: float = 0.01,
    muon_rate: float = 0.05,
) -> tuple[float, Tensor]:
    """Train a copy of the weights of a rung for an epoch; return the mean loss, and the gradient of its last batch in one vector.

    `images` are normalised floats (N, C, H, H), `order` the indices of those in the batches.
    """
    assert architecture is not None
    weights = nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    momentum, gradient = torch.zeros_like(weights), torch.empty_like(weights)
    images, labels, order = images.contiguous(), labels.to(torch.int64), order.to(torch.int64).contiguous()
    shapes = block_shapes(architecture)
    blocks = [number for one in shapes for number in (*one.inner, one.out_channels, one.stride)]
    shape = torch.tensor(
        [images.shape[1], images.shape[2], architecture.n_classes, stem_channels(architecture), len(shapes), *blocks], dtype=torch.int32
    )
    vectors = [tensor.data_ptr() for tensor in (shape, weights, momentum, gradient)]
    data = [tensor.data_ptr() for tensor in (images, labels, order)]
    loss = library().epoch(*vectors, len(weights), *data, len(order) // BATCH, int(optimizer == "muon"), rate, muon_rate)
    return float(loss), gradient


@functools.cache
def library() -> ctypes.CDLL:
    """Compile the loop for this processor, once a process."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "compiled_loop.so"
        subprocess.run([COMPILER, *FLAGS, str(SOURCE), "-o", str(compiled)], check=True)
        made = ctypes.CDLL(str(compiled))
    pointer = ctypes.c_void_p
    made.epoch.restype = ctypes.c_double
    made.epoch.argtypes = [*[pointer] * 4, ctypes.c_int64, *[pointer] * 3, ctypes.c_int, ctypes.c_int, ctypes.c_float, ctypes.c_float]
    return made
