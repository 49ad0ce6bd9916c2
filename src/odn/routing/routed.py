"""A network that each image leaves at the first exit that is sure enough of it; what has left is not computed further.

Source: BranchyNet, arXiv 1709.01686, section III; confidence as MSDNet takes it, arXiv 1703.09844, section 5; softened by a
temperature an exit, arXiv 1706.04599, section 4.2.
Axes: N images, C channels, H rows, W columns, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from odn.models.network import DepthNetwork
from odn.records import Record


@dataclass(frozen=True, kw_only=True)
class Exit(Record):
    """Say when an image leaves at the head of `depth`: when its confidence is above the threshold; 0 lets all leave, 1 none.

    Raises:
        ValueError: the threshold is outside [0, 1], or the temperature is not above 0.
    """

    depth: int
    threshold: float
    temperature: float

    def __post_init__(self) -> None:
        if type(self.depth) is not int:
            raise ValueError(f"depth of an exit: expected a whole number; got {self.depth!r}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold at depth {self.depth}: expected a number from 0 to 1; got {self.threshold!r}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature at depth {self.depth}: expected a number above 0; got {self.temperature!r}")


@dataclass(frozen=True)
class Routed:
    """Hold what a routed pass gives, in the order of its images."""

    logits: Tensor  # (N, K)
    exits: Tensor  # (N,) int64, the depth at which each image left


def confidence(logits: Tensor, *, temperature: float) -> Tensor:
    """Return the largest softmax probability of logits (N, K) over the temperature: (N,), at most 1."""
    return (logits.float() / temperature).softmax(dim=1).amax(dim=1).clamp(max=1.0)


class RoutedNetwork(nn.Module):
    """Classify each image at the first of `exits` that is sure of it, and whatever is left at the last one. For eval mode."""

    def __init__(self, network: DepthNetwork, exits: Sequence[Exit]) -> None:
        super().__init__()
        depths = [exit_.depth for exit_ in exits]
        if not depths or any(second <= first for first, second in pairwise(depths)) or set(depths) - set(network.head_depths):
            raise ValueError(f"exits: expected depths that ascend and have a head, of {list(network.head_depths)}; got {depths}")
        self.network = network
        self.exits = tuple(exits)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of normalised images (N, C, H, W), each from the exit at which it left."""
        return self.route(x).logits

    def probabilities(self, x: Tensor) -> Tensor:
        """Return calibrated probabilities (N, K) of normalised images (N, C, H, W)."""
        return self.calibrated(self.route(x))

    def calibrated(self, routed: Routed) -> Tensor:
        """Return the probabilities (N, K) that a routed pass gives, softened by the temperature of the exit at which each image left."""
        temperatures = {exit_.depth: exit_.temperature for exit_ in self.exits}
        divisor = torch.tensor([temperatures[depth] for depth in routed.exits.tolist()], device=routed.logits.device)
        return (routed.logits / divisor[:, None]).softmax(dim=1)

    def route(self, x: Tensor) -> Routed:
        """Return logits (N, K) and the depth (N,) at which each image left; the batch shrinks as images leave.

        An exit whose threshold is 1 is passed by: its head is not computed.
        """
        last = self.exits[-1].depth
        taken = {exit_.depth: exit_ for exit_ in self.exits if exit_.threshold < 1 or exit_.depth == last}
        logits = x.new_empty(len(x), self.network.architecture.n_classes)
        exits = torch.full((len(x),), last, device=x.device)
        left = torch.arange(len(x), device=x.device)
        x = self.network.stem(x)
        for number, block in zip(range(1, last + 1), self.network.blocks, strict=False):
            x = block(x)
            if number not in taken:
                continue
            said = self.network.head(number)(x)
            if number == last:
                logits[left] = said
                break
            leaves = confidence(said, temperature=taken[number].temperature) > taken[number].threshold
            n_leaving = int(leaves.sum())
            if n_leaving == 0:
                continue
            logits[left[leaves]], exits[left[leaves]] = said[leaves], number
            if n_leaving == len(left):
                break
            stays = (~leaves).nonzero().squeeze(1)
            x, left = x.index_select(0, stays), left[stays]
        return Routed(logits, exits)


def reachable(network: DepthNetwork, exits: Sequence[Exit]) -> RoutedNetwork:
    """Return a routed network without the exits that no image takes, nor the blocks and heads that none reaches: copies of the rest."""
    ends = next((number for number, exit_ in enumerate(exits) if exit_.threshold == 0), len(exits) - 1)
    taken = [exit_ for number, exit_ in enumerate(exits[: ends + 1]) if exit_.threshold < 1 or number == ends]
    return RoutedNetwork(network.kept(taken[-1].depth, heads=[exit_.depth for exit_ in taken]), taken)
