"""What a network costs: parameters, bytes, multiply-accumulates (counted, exact) and milliseconds (measured)."""

import copy
import dataclasses
import functools
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from odn.models.network import Architecture, DepthNetwork


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Count a network with one head.

    n_params: trainable numbers. size_bytes: of every tensor in the state dict, BatchNorm's buffers included; a file adds a few hundred
    bytes a tensor. macs: multiply-accumulates of convolutions and linear layers, forward, for one image.
    """

    n_params: int
    size_bytes: int
    macs: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """Time a forward pass of one batch: the median, and the distance between the quartiles, over the repeats."""

    median_ms: float
    spread_ms: float


@functools.lru_cache(maxsize=256)
def cost(architecture: Architecture, height: int, width: int) -> Cost:
    """Count the network with only the head at its depth, for images of `height` x `width`; nothing is allocated or computed."""
    with torch.device("meta"):
        network = DepthNetwork(architecture, heads=(architecture.depth,)).eval()
        macs = _count_macs(network, torch.empty(1, architecture.in_channels, height, width))
    return Cost(
        n_params=sum(parameter.numel() for parameter in network.parameters()),
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values()),
        macs=macs,
    )


def _count_macs(network: nn.Module, x: Tensor) -> int:
    counts: list[int] = []

    def count(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        pixels = output.numel() // layer.weight.shape[0]  # each weight is used once an output pixel; N = 1, no grouped convolutions
        counts.append(pixels * layer.weight.numel())

    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(x)
    return sum(counts)


def latency_ms(network: DepthNetwork, *, batch_size: int, height: int, width: int, device: str = "cpu", repeats: int = 20) -> Latency:
    """Time `repeats` forward passes at full depth in eval mode, float32, channels last, after a warm-up; the network is not changed.

    Raises:
        ValueError: `repeats` is less than 2.
    """
    if repeats < 2:
        raise ValueError(f"repeats: expected at least 2; got {repeats}")
    copied = copy.deepcopy(network).to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    x = torch.zeros(batch_size, network.architecture.in_channels, height, width, device=device).to(memory_format=torch.channels_last)
    times: list[float] = []
    with torch.inference_mode():
        for repeat in range(-max(3, repeats // 5), repeats):
            start = time.perf_counter()
            copied(x)
            if x.is_cuda:
                torch.cuda.synchronize(x.device)
            if repeat >= 0:
                times.append((time.perf_counter() - start) * 1000)
    quartiles = statistics.quantiles(times, n=4, method="inclusive")
    return Latency(median_ms=statistics.median(times), spread_ms=quartiles[2] - quartiles[0])
