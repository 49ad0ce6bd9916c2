"""Measure what each part of a network takes on this machine, gates and exits included.

N images, C channels, H height, W width.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from odn.models.abilities import Skippable
from odn.models.network import DepthNetwork, pooled
from odn.models.timing import Timing, timed
from odn.records import Amount, Positive, Record
from odn.routing.gated import Gate
from odn.routing.routed import confidence


@dataclass(frozen=True, kw_only=True)
class PartTimes(Record):
    """Hold milliseconds for one image, part by part: blocks from the first, `heads` with their decision, by depth."""

    stem: Amount
    residuals: tuple[Amount, ...]
    shortcuts: tuple[Amount, ...]
    gates: tuple[Amount, ...]
    heads: dict[Positive, Amount]


@torch.inference_mode()
def part_times(network: DepthNetwork, x: Tensor, *, hidden: int) -> tuple[PartTimes, Timing]:
    """Time every part on images (N, C, H, W), each on what the part before it gives: what is called an image's time is the batch's."""
    network = copy.deepcopy(network).eval()
    calls: dict[str, Callable[[], object]] = {}  # blocks without a shortcut are all residual

    def keep(name: str, run: Callable[[], object]) -> None:
        calls[name] = run

    keep("stem", lambda x=x: network.stem(x))  # type: ignore[misc]
    x = network.stem(x)
    for number, block in enumerate(network.blocks, start=1):
        gate = Gate(pooled(x).shape[1], hidden).to(x.device)
        keep(f"gate.{number}", lambda x=x, gate=gate: int((gate(pooled(x)) > 0).sum()))  # type: ignore[misc]
        if isinstance(block, Skippable) and not block.passes_on:
            keep(f"shortcut.{number}", lambda x=x, block=block: block.shortcut(x))  # type: ignore[misc]
        keep(f"block.{number}", lambda x=x, block=block: block(x))  # type: ignore[misc]
        x = block(x)
        if number in network.head_depths:
            head = network.head(number)
            keep(f"head.{number}", lambda x=x, head=head: int((confidence(head(x), temperature=1.0) > 1).sum()))  # type: ignore[misc]
    timing = timed(calls)
    found = timing.ms
    shortcuts = [found.get(f"shortcut.{number}", 0.0) for number in range(1, network.depth + 1)]
    return PartTimes(
        stem=found["stem"],
        shortcuts=tuple(shortcuts),
        residuals=tuple(max(0.0, found[f"block.{number}"] - shortcuts[number - 1]) for number in range(1, network.depth + 1)),
        gates=tuple(found[f"gate.{number}"] for number in range(1, network.depth + 1)),
        heads={number: found[f"head.{number}"] for number in network.head_depths},
    ), timing
