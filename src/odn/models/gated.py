"""A network that decides for each image and block whether the block's residual is computed, by a light gate on the block's input.

Source: Conv-AIG, arXiv 1711.11503, sections 3.1 and 3.2 (gates on pooled features, straight-through Gumbel); SkipNet, arXiv 1711.09485.
Axes: N images, C channels, H rows, W columns, K classes, D blocks.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odn.models.network import DepthNetwork, block_of, draw

OPEN_AT_FIRST = 2.0  # bias of a fresh gate, in logits: open with a probability of 0.88


@dataclass(frozen=True)
class Opened:
    """Hold what a gated pass gives, in the order of its images."""

    logits: Tensor  # (N, K)
    is_open: Tensor  # (N, D) bool, which residuals were computed


class Gate(nn.Module):
    """Score how much an image needs a block, from its input averaged over H and W: (N, C) -> (N,), to be opened above 0."""

    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(in_channels, hidden)
        self.second = nn.Linear(hidden, 1)

    @property
    def macs(self) -> int:
        """Count multiply-accumulates for one image."""
        return self.first.weight.numel() + self.second.weight.numel()

    def forward(self, pooled: Tensor) -> Tensor:
        """Return the score."""
        score: Tensor = self.second(F.relu(self.first(pooled))).squeeze(1)
        return score


class GatedNetwork(nn.Module):
    """Run each block's residual only for the images whose gate is open; the others take the shortcut alone.

    `shift` is added to every score, so that one number trades cost for accuracy. Make one with `gated`.

    Raises:
        ValueError: `hidden` is not a whole number ≥ 1, or the network was cut.
    """

    def __init__(self, network: DepthNetwork, *, hidden: int, shift: float = 0.0) -> None:
        super().__init__()
        if type(hidden) is not int or hidden < 1:
            raise ValueError(f"hidden: expected a whole number ≥ 1; got {hidden!r}")
        if network.architecture.cut is not None:
            raise ValueError("a network that was cut has no gates: its blocks may lack a residual")
        self.network, self.hidden, self.shift = network, hidden, float(shift)
        with torch.device(next(network.parameters()).device):
            self.gates = nn.ModuleList(Gate(block_of(network, number + 1).in_channels, hidden) for number in range(network.depth))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of normalised images (N, C, H, W); in train mode every residual is computed, for BatchNorm to see."""
        if self.training:
            return self.relaxed(x, x.new_zeros(len(x), self.network.depth), temperature=1.0)[0]
        return self.route(x).logits

    def probabilities(self, x: Tensor) -> Tensor:
        """Return probabilities (N, K) of normalised images (N, C, H, W)."""
        return self.forward(x).softmax(dim=1)

    def route(self, x: Tensor) -> Opened:
        """Return logits (N, K) and which residuals were computed (N, D); a residual is computed for the images that open it, alone."""
        opened = torch.zeros(len(x), self.network.depth, dtype=torch.bool, device=x.device)
        x = self.network.stem(x)
        for number, gate in enumerate(self.gates):
            block, is_open = block_of(self.network, number + 1), gate(x.mean(dim=(2, 3))) + self.shift > 0
            opened[:, number] = is_open
            n_open = int(is_open.sum())
            if n_open == len(x):
                x = block(x)
            elif n_open:
                index = is_open.nonzero().squeeze(1)
                x = F.relu(block.shortcut(x).index_add(0, index, block.residual(x.index_select(0, index))), inplace=True)
            elif not isinstance(block.shortcut, nn.Identity):  # behind a relu the identity needs no relu
                x = F.relu(block.shortcut(x), inplace=True)
        return Opened(self._head(x), opened)

    def relaxed(self, x: Tensor, noise: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
        """Return logits (N, K) and the gates (N, D), 0 or 1 with the gradient of their sigmoid, under logistic noise (N, D)."""
        keeps = []
        x = self.network.stem(x)
        for number, gate in enumerate(self.gates):
            block = block_of(self.network, number + 1)
            soft = torch.sigmoid((gate(x.mean(dim=(2, 3))) + noise[:, number]) / temperature)
            keep = (soft > 0.5).float() + soft - soft.detach()
            x = F.relu(block.residual(x) * keep[:, None, None, None] + block.shortcut(x))
            keeps.append(keep)
        return self._head(x), torch.stack(keeps, dim=1)

    def _head(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network.heads[str(self.network.depth)](x.mean(dim=(2, 3)))
        return logits


@torch.no_grad()
def gated(network: DepthNetwork, *, hidden: int, generator: torch.Generator) -> GatedNetwork:
    """Return a network of its own with fresh gates, drawn from a CPU generator, that are open for most images."""
    made = GatedNetwork(network.truncated(network.depth).cpu(), hidden=hidden)
    for gate in made.gates:
        for layer in gate.modules():
            draw(layer, generator)
        assert isinstance(gate, Gate)
        gate.second.bias.fill_(OPEN_AT_FIRST)
    return made
