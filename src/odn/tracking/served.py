"""The network as a consumer wants it: pixels in, probabilities out, nothing else to know.

Axes: N images, C channels, H rows, W columns, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PixelClassifier(nn.Module):
    """Normalise pixels as the training did, run the network, return probabilities."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels from 0 to 255, float32 (N, C, H, W), to probabilities (N, K)."""
        logits: Tensor = self.network((pixels / 255 - self.mean) / self.std)
        return logits.softmax(dim=1)
