"""The network as a device wants it: pixels in, logits and probabilities out, the normalisation inside.

Axes: N images, C channels, H rows, W columns, K classes.
"""

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from odn.data.dataset import Manifest
from odn.models.network import DepthNetwork

if TYPE_CHECKING:
    from torch.export import ExportedProgram

EXAMPLE_IMAGES = 2  # torch.export fixes a batch of one, and lets any other vary
INPUT, OUTPUTS = "images", ("logits", "probabilities")


class Normalise(nn.Module):
    """Map pixels, uint8 (N, C, H, W), to what a network was trained on, float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, manifest: Manifest) -> None:
        super().__init__()
        # In units of pixels, as the batches of training are normalised: the same arithmetic gives the same bits.
        self.register_buffer("mean", 255 * torch.tensor(manifest.mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(manifest.std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return the images with zero mean and unit deviation per channel."""
        return (images.float() - self.mean) / self.std


class PixelGraph(nn.Module):
    """Map pixels, uint8 (N, C, H, W), to logits and probabilities, float32 (N, K) each."""

    def __init__(self, network: nn.Module, *, manifest: Manifest) -> None:
        super().__init__()
        self.normalise = Normalise(manifest)
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and their softmax."""
        logits = self.network(self.normalise(images))
        return logits, logits.softmax(dim=1)


def pixel_graph(network: DepthNetwork, *, manifest: Manifest) -> PixelGraph:
    """Return a graph of a copy of a network."""
    return PixelGraph(plain(network), manifest=manifest).eval()


def plain(network: DepthNetwork) -> DepthNetwork:
    """Return a copy of a network in eval mode, float32, contiguous (channels last would export as three times the operations)."""
    own: DepthNetwork = copy.deepcopy(network).to(device="cpu", dtype=torch.float32, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return own.eval()


def example_of(manifest: Manifest) -> Tensor:
    """Return empty images as a device has them."""
    return torch.zeros(EXAMPLE_IMAGES, manifest.channels, manifest.height, manifest.width, dtype=torch.uint8)


def traced(graph: nn.Module, example: Tensor) -> "ExportedProgram":
    """Trace a graph for batches of any size, or of one where the example is one image: what every format is written from."""
    free = {0: torch.export.Dim("batch")} if len(example) > 1 else None
    program = torch.export.export(graph, (example,), dynamic_shapes=(free,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names files of this machine, and would stand in what is written
    return program
