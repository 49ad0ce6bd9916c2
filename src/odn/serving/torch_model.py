"""A model as the folder that `truncate`, `specialise` or `route` wrote, run by torch: what there is before an export.

N images, C channels, H height, W width; K classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from odn.data.dataset import Images
from odn.files import sha256_of
from odn.models.stored_networks import load_network
from odn.records import Fraction, Part, read_record
from odn.routing.routed import RoutedNetwork
from odn.routing.stored import load_routed
from odn.serving.model import About, Answers, ImageShape, Side


@dataclass(frozen=True, kw_only=True)
class Card(Part):
    """Hold what a model card says of a model's images and classes."""

    classes: tuple[str, ...]
    channels: Side
    height: Side
    width: Side
    mean: tuple[Fraction, ...]  # a number a channel
    std: tuple[Annotated[float, Field(gt=0, le=1)], ...]

    @model_validator(mode="after")
    def _is_consistent(self) -> "Card":
        if not len(self.mean) == len(self.std) == self.channels or not self.classes:
            raise ValueError(f"mean, std: expected {self.channels} numbers, one a channel, and classes: one name at least")
        return self


class TorchModel:
    """Answer by torch, on the processor."""

    def __init__(self, network: nn.Module, card: Card, *, sha256: str) -> None:
        self._network = network.eval()
        # In units of pixels, as the batches of training are normalised.
        self._mean, self._std = (255 * torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1) for values in (card.mean, card.std))
        image = ImageShape(channels=card.channels, height=card.height, width=card.width)
        self._about = About(classes=card.classes, image=image, sha256=sha256, platform="pytorch")

    @property
    def about(self) -> About:
        """Return what the card says."""
        return self._about

    def answer_pass(self, images: Images) -> Answers:
        """Run the network over images (N, C, H, W); of a routed one the probabilities are calibrated."""
        with torch.inference_mode():
            x = (torch.from_numpy(images).float() - self._mean) / self._std
            logits, probabilities = _answer(self._network, x)
        return Answers(logits.float().numpy(), probabilities.float().numpy())


def _answer(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(network, RoutedNetwork):
        routed = network.route(x)
        return routed.logits, network.calibrated(routed)
    logits: Tensor = network(x)
    return logits, logits.softmax(dim=1)


def read_torch(folder: Path) -> TorchModel:
    """Read a network, routed where its folder says so, and its card.

    Raises:
        MissingInputError: a file is not there.
        DataError: a file is damaged, or they do not fit one another.
    """
    is_routed = (folder / "routing.json").exists()
    made_by = "odn route" if is_routed else "truncate"
    card = read_record(Card, folder / "card.json", made_by=made_by)
    network: nn.Module = load_routed(folder) if is_routed else load_network(folder)
    return TorchModel(network, card, sha256=sha256_of(folder / "weights.safetensors"))
