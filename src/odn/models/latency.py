"""Time the parts of a network one by one, so that the time of any sub-network can be foreseen as a sum.

Source: the latency lookup table of ProxylessNAS, arXiv 1812.00332, section 3.2, and Once-for-All, arXiv 1908.09791, section 3.4.
"""

import copy
import statistics
import time

import torch
from torch import Tensor, nn

from odn.models.network import DepthNetwork

N_WARM_UP, REPEATS = 3, 15


def part_latencies(network: DepthNetwork, *, height: int, width: int, device: str = "cpu") -> list[float]:
    """Return the median milliseconds of the stem, of each block, and of the head at the end, for one image in eval mode."""
    copied = copy.deepcopy(network).to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    x = torch.zeros(1, network.architecture.in_channels, height, width, device=device).to(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for part in (copied.stem, *copied.blocks):
            times.append(_median_ms(part, x))
            x = part(x)
        times.append(_median_ms(copied.heads[str(network.depth)], x.mean(dim=(2, 3))))
    return times


def _median_ms(part: nn.Module, x: Tensor) -> float:
    times = []
    for repeat in range(-N_WARM_UP, REPEATS):
        start = time.perf_counter()
        part(x)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        if repeat >= 0:
            times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)
