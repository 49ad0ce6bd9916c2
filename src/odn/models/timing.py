"""Measure what the parts of a network, and whole ways through it, take on this machine: milliseconds, medians, the quietest of rounds.

N images, D blocks.
"""

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from odn.models.gated import Gate
from odn.models.network import DepthNetwork, block_of
from odn.models.routed import confidence
from odn.records import Amount, Positive, Record

ROUNDS, MIN_REPEATS = 4, 3


@dataclass(frozen=True, kw_only=True)
class PartTimes(Record):
    """Hold milliseconds for one image, part by part: blocks from the first, `heads` with their decision, by depth."""

    stem: Amount
    residuals: tuple[Amount, ...]
    shortcuts: tuple[Amount, ...]
    gates: tuple[Amount, ...]
    heads: dict[Positive, Amount]


@torch.inference_mode()
def part_times(network: DepthNetwork, x: Tensor, *, hidden: int, repeats: int = 20) -> PartTimes:
    """Time every part on images (N, C, H, W), each on what the part before it gives: what is called an image's time is the batch's."""
    network = copy.deepcopy(network).eval()
    calls: dict[str, Callable[[], object]] = {}

    def keep(name: str, run: Callable[[], object]) -> None:
        calls[name] = run

    keep("stem", lambda x=x: network.stem(x))  # type: ignore[misc]
    x = network.stem(x)
    for number in range(1, network.depth + 1):
        block = block_of(network, number)
        gate = Gate(block.in_channels, hidden).to(x.device)
        keep(f"gate.{number}", lambda x=x, gate=gate: int((gate(x.mean(dim=(2, 3))) > 0).sum()))  # type: ignore[misc]
        keep(f"shortcut.{number}", lambda x=x, block=block: block.shortcut(x))  # type: ignore[misc]
        keep(f"block.{number}", lambda x=x, block=block: block(x))  # type: ignore[misc]
        x = block(x)
        if number in network.head_depths:
            head = network.heads[str(number)]
            keep(f"head.{number}", lambda x=x, head=head: int((confidence(head(x.mean(dim=(2, 3))), temperature=1.0) > 1).sum()))  # type: ignore[misc]
    found = quietest_ms(calls, repeats=repeats)
    identity = [isinstance(block_of(network, number).shortcut, nn.Identity) for number in range(1, network.depth + 1)]
    shortcuts = [0.0 if identity[number - 1] else found[f"shortcut.{number}"] for number in range(1, network.depth + 1)]
    return PartTimes(
        stem=found["stem"],
        shortcuts=tuple(shortcuts),
        residuals=tuple(max(0.0, found[f"block.{number}"] - shortcuts[number - 1]) for number in range(1, network.depth + 1)),
        gates=tuple(found[f"gate.{number}"] for number in range(1, network.depth + 1)),
        heads={number: found[f"head.{number}"] for number in network.head_depths},
    )


def quietest_ms(calls: Mapping[str, Callable[[], object]], *, repeats: int, seconds: float = 0.2) -> dict[str, float]:
    """Time calls in turn, several rounds, and return each one's least median: other work on the machine only ever delays.

    A round of a call ends after `repeats`, or, with three at least, after `seconds`.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            found[name].append(_median(call, repeats=repeats, seconds=seconds))
    return {name: min(times) for name, times in found.items()}


def _median(call: Callable[[], object], *, repeats: int, seconds: float) -> float:
    times: list[float] = []
    call()
    began = time.perf_counter()
    while len(times) < repeats and (len(times) < MIN_REPEATS or time.perf_counter() - began < seconds):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)
