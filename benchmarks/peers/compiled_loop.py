"""A whole epoch in compiled C++ (`compiled_loop.cpp`), to compare with: odn's own compiled pass without Python and PyTorch around it.

It takes a C++ compiler.
"""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from odn.compiled.residual import layers_of
from odn.models.network import DepthNetwork

if TYPE_CHECKING:
    from benchmarks.throughput import Bench

SOURCE = Path(__file__).with_suffix(".cpp")
COMPILER = "c++"
MATHS = ("-O3", "-march=native", "-ffp-contract=fast", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno")
FLAGS = ("-std=c++17", *MATHS, "-shared", "-fPIC", "-Wno-psabi")


def can_train(bench: "Bench") -> bool:
    """Return whether there is a compiler, and the rung is one that the loop trains."""
    return bench.rung is not None and shutil.which(COMPILER) is not None and bool(layers_of(bench.fresh().network))


def compiled_loop(bench: "Bench", *, optimizer: Literal["muon", "sgd"]) -> float:
    """Return the seconds of an epoch."""
    network, labels, batch = bench.fresh().network, bench.data.train.labels, bench.config.train.batch_size
    order = torch.randperm(len(labels))[: bench.steps * batch]
    library()  # compiled here
    train = functools.partial(epoch, network, images=bench.floats, labels=labels, order=order, batch=batch, optimizer=optimizer)
    return bench.seconds(train, repeatable=False)


def epoch(
    network: DepthNetwork,
    *,
    images: Tensor,
    labels: Tensor,
    order: Tensor,
    batch: int,
    optimizer: Literal["muon", "sgd"],
    rate: float = 0.01,
    muon_rate: float = 0.05,
) -> tuple[float, list[Tensor]]:
    """Train a copy of a network's weights for an epoch; return the mean loss, and the gradients of its last batch.

    `images` are normalised floats (N, C, H, H), `order` the indices of those in the batches. Gradients come in the order of the layers:
    kernel (O, I, h, w), scale and shift of each; then weight and bias of the head.
    """
    layers, head = layers_of(network), network.head(network.depth)
    convs = [(layer.conv, layer.norm) for layer in layers if layer.conv is not None and layer.norm is not None]
    parameters = [tensor for conv, norm in convs for tensor in (conv.weight, norm.weight, norm.bias)] + list(head.parameters())
    flat = [tensor.detach().permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor.detach() for tensor in parameters]
    weights = torch.cat([tensor.reshape(-1) for tensor in flat])
    momentum, gradients = torch.zeros_like(weights), torch.empty_like(weights)
    images, labels, order = images.contiguous(), labels.to(torch.int64), order.to(torch.int64).contiguous()
    table = torch.tensor([layer.row() for layer in layers], dtype=torch.int32)
    sizes = (len(layers), batch, images.shape[1], images.shape[2], network.architecture.n_classes)
    places = [tensor.data_ptr() for tensor in (weights, momentum, gradients, images, labels, order)]
    loss = library().epoch(table.data_ptr(), *sizes, *places, len(order) // batch, int(optimizer == "muon"), rate, muon_rate)
    parts = gradients.split([tensor.numel() for tensor in parameters])
    shaped = [part.view(tensor.shape) for part, tensor in zip(parts, flat, strict=True)]
    return float(loss), [tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor for tensor in shaped]


@functools.cache
def library() -> ctypes.CDLL:
    """Compile the loop for this processor, once a process."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "compiled_loop.so"
        subprocess.run([COMPILER, *FLAGS, str(SOURCE), "-o", str(compiled)], check=True)
        made = ctypes.CDLL(str(compiled))
    pointer, whole, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    made.epoch.restype = ctypes.c_double
    made.epoch.argtypes = [pointer, *[whole] * 5, *[pointer] * 6, whole, whole, real, real]
    return made
