"""Measure what networks, and parts of them, take on this machine: milliseconds, and whether the machine was quiet enough to believe them.

N images, C channels, H height, W width, D blocks.
Source of the table of parts: ProxylessNAS, arXiv 1812.00332, section 3.2, and Once-for-All, arXiv 1908.09791, section 3.4.
"""

import copy
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from odn.models.network import DepthNetwork

N_WARM_UP = 3  # passes that are not counted
MIN_PASSES = 3
LEAST_PASSES, LEAST_SECONDS = 30, 0.1  # many turns of a scheduler, which gives a process some milliseconds at once
QUIET_SPREAD = 0.1  # of the least time: a quarter of the passes must be as close to it
QUIET_SHARE = 0.9  # of the time of the quickest pass, in which the process must have had a processor to itself

SECONDS = 2.0  # for calls that are timed together, at most, where the machine is busy
Calls = Mapping[str, Callable[[], object]]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Hold the least milliseconds of each call, as other work on the machine only ever delays, and how far they can be believed.

    Beside the least stand the median and the 95th percentile, which a user of the machine sees as it is.
    `spread` is how far the lower quartile lies above the least, as a fraction of it, for the call where that is the most.
    """

    ms: dict[str, float]
    median_ms: dict[str, float]
    p95_ms: dict[str, float]
    passes: int  # of each call
    spread: float
    busy: bool  # the machine did something else meanwhile: the times are too long, each by another factor


Clock = Callable[[DepthNetwork], Timing]  # times one image in whatever runtime, under the name ""


def combined(timings: Sequence[Timing]) -> dict[str, int | float | bool]:
    """Return what a record says of measurements beside the times: of the worst of them."""
    return {
        "passes": min(one.passes for one in timings),
        "spread": max(one.spread for one in timings),
        "busy": any(one.busy for one in timings),
    }


def timed(calls: Calls, *, seconds: float | None = None, least_passes: int = LEAST_PASSES) -> Timing:
    """Time calls in turn, a pass each, until every one has shown its least time often enough; at least three passes.

    What disturbs the machine for a while hits all calls alike, and a passing disturbance is waited out: for `seconds` at most, if not
    given for SECONDS.
    """
    seconds = SECONDS if seconds is None else seconds
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}  # of the wall's clock and of the process's
    for _ in range(N_WARM_UP):
        for call in calls.values():
            call()
    began, enough = time.perf_counter(), least_passes
    while True:
        for name, call in calls.items():
            took[name].append(_clocked(call))
        passes, spent = len(next(iter(took.values()))), time.perf_counter() - began
        over = spent > seconds and passes >= MIN_PASSES
        if over or (passes >= enough and spent > LEAST_SECONDS):
            timing = _summary(took)
            if over or not timing.busy:
                return timing
            enough = 2 * passes  # a look sorts all passes: the more there are, the rarer it is


def _clocked(call: Callable[[], object]) -> tuple[float, float]:
    """Return the milliseconds of a pass, and those of them that this process ran."""
    process, wall = time.process_time(), time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - wall) * 1000, (time.process_time() - process) * 1000


def _summary(took: Mapping[str, list[tuple[float, float]]]) -> Timing:
    quickest = {name: min(passes) for name, passes in took.items()}
    parts = {name: statistics.quantiles([wall for wall, _ in passes], n=20, method="inclusive") for name, passes in took.items()}
    spread = max(part[4] / quickest[name][0] - 1 for name, part in parts.items())
    # A long pass is interrupted each time beside a busy process: then all are as slow, and only the process's own clock tells.
    shared = min(process / wall for wall, process in quickest.values()) < QUIET_SHARE
    return Timing(
        ms={name: wall for name, (wall, _) in quickest.items()},
        median_ms={name: part[9] for name, part in parts.items()},
        p95_ms={name: part[18] for name, part in parts.items()},
        passes=len(next(iter(took.values()))),
        spread=spread,
        busy=spread > QUIET_SPREAD or shared,
    )


def forward_pass(network: DepthNetwork, *, batch_size: int, height: int, width: int, device: str = "cpu") -> Callable[[], object]:
    """Return a call that takes a forward pass at full depth in eval mode, float32, channels last; the network itself is not changed."""
    copied = _copied(network, device=device)
    x = _zeros(network, batch_size=batch_size, height=height, width=width, device=device)

    @torch.inference_mode()
    def run() -> None:
        copied(x)

    return run


def one_image(network: DepthNetwork, *, height: int, width: int, device: str = "cpu") -> Timing:
    """Time a forward pass of one image, as `forward_pass` takes it."""
    call = forward_pass(network, batch_size=1, height=height, width=width, device=device)
    return timed({"": call})


def part_latencies(network: DepthNetwork, *, height: int, width: int, device: str = "cpu") -> list[float]:
    """Return the milliseconds of the stem, of each block, and of the head at the end, for one image in eval mode."""
    copied = _copied(network, device=device)
    x = _zeros(network, batch_size=1, height=height, width=width, device=device)
    calls: dict[str, Callable[[], object]] = {}
    with torch.inference_mode():
        for number, part in enumerate((copied.stem, *copied.blocks)):
            calls[str(number)] = functools.partial(part, x)
            x = part(x)
        calls["head"] = functools.partial(copied.head(network.depth), x)
        return list(timed(calls).ms.values())


def _copied(network: DepthNetwork, *, device: str) -> DepthNetwork:
    copied: DepthNetwork = copy.deepcopy(network).to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return copied


def _zeros(network: DepthNetwork, *, batch_size: int, height: int, width: int, device: str) -> Tensor:
    x = torch.zeros(batch_size, network.architecture.in_channels, height, width, device=device)
    return x.to(memory_format=torch.channels_last)
