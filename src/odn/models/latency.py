"""Time the parts of a network one by one, so that the time of any sub-network can be foreseen as a sum.

Source: the latency lookup table of ProxylessNAS, arXiv 1812.00332, section 3.2, and Once-for-All, arXiv 1908.09791, section 3.4.
"""

import copy
import functools
from collections.abc import Callable

import torch

from odn.models.network import DepthNetwork
from odn.models.timing import quietest_ms

REPEATS = 15


def part_latencies(network: DepthNetwork, *, height: int, width: int, device: str = "cpu") -> list[float]:
    """Return the median milliseconds of the stem, of each block, and of the head at the end, for one image in eval mode."""
    copied = copy.deepcopy(network).to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    x = torch.zeros(1, network.architecture.in_channels, height, width, device=device).to(memory_format=torch.channels_last)
    calls: dict[str, Callable[[], object]] = {}
    with torch.inference_mode():
        for number, part in enumerate((copied.stem, *copied.blocks)):
            calls[str(number)] = functools.partial(part, x)
            x = part(x)
        calls["head"] = functools.partial(copied.heads[str(network.depth)], x.mean(dim=(2, 3)))
        return list(quietest_ms(calls, repeats=REPEATS).values())
