"""A network of one's own, as a configuration names it."""

from torch import nn


def build(in_channels: int, n: int = 2) -> tuple[nn.Module, list[nn.Module]]:
    """Return a convolution, and `n` more."""
    return nn.Conv2d(in_channels, 4, 3, padding=1), [nn.Conv2d(4, 4, 3, padding=1) for _ in range(n)]
