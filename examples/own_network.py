"""Search the depth of a network of your own on images of your own: blocks are any modules, and the data any torch data set.

Run: python examples/own_network.py. Takes about 10 s on one core, and finds one or two of the six blocks.
"""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

import odn


class Digits(Dataset[tuple[Tensor, int]]):
    """1,797 handwritten digits of 8 x 8 pixels, as scikit-learn ships them."""

    classes = tuple("0123456789")

    def __init__(self) -> None:
        digits = load_digits()
        self.images = torch.from_numpy(digits.images / 16).float()[:, None]  # (N, 1, 8, 8), from 0 to 1
        self.labels = digits.target

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


class Mixer(nn.Module):
    """Mix pixels by a convolution and channels by a linear layer: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pixels = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=True)
        self.norm = nn.BatchNorm2d(channels)
        self.channels = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        x = torch.relu(self.norm(self.pixels(x)))
        mixed: Tensor = self.channels(x.movedim(1, -1))
        return torch.relu(mixed).movedim(-1, 1)


def make_network() -> odn.DepthNetwork:
    """Make a stem and six blocks; their first weights come from torch's generator."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(1, 16, kernel_size=3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
    return odn.DepthNetwork(stem, [Mixer(16) for _ in range(6)], n_classes=10)


def main(folder: Path) -> odn.Certificate:
    """Find the depth, certify the network that is kept, save it and load it again."""
    digits, order = Digits(), torch.randperm(1797, generator=torch.Generator().manual_seed(0)).tolist()
    train, val, test = (Subset(digits, part) for part in (order[:1078], order[1078:1438], order[1438:]))
    data = odn.Data.from_datasets(train, val, test, classes=digits.classes)
    network = make_network()

    for step in odn.search(network, data, target=0.97):
        print(f"depth {step.depth}: {step.val_accuracy:.2%} on val, {step.verdict}")
    assert step.result is not None, "the last step has one"
    model = step.result.model
    certificate = odn.certify(model, data.test)
    print(f"{step.result.depth} of {network.depth} blocks: {certificate}")

    odn.save(model, folder)
    again = odn.load(folder, like=make_network())
    assert odn.certify(again, data.test).accuracy == certificate.accuracy
    return certificate


if __name__ == "__main__":
    main(Path("my-model"))
