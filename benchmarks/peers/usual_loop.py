"""The usual training loop, to compare with: a DataLoader over PIL and torchvision transforms, fp32, loss and accuracy fetched each step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from odn.data.dataset import Split

if TYPE_CHECKING:
    from benchmarks.throughput import Bench


def usual_sgd(network: torch.nn.Module) -> torch.optim.Optimizer:
    """Return torch's own SGD."""
    return torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)


@dataclass(frozen=True)
class PilImages(Dataset[tuple[Tensor, int]]):
    """Serve one transformed image at a time, as torchvision's data sets do."""

    split: Split
    transform: Callable[[Image.Image], Tensor]

    def __len__(self) -> int:
        """Return N."""
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image (C, H, W) and its label."""
        pixels = self.split.images[index].transpose(1, 2, 0).squeeze()  # (H, W, C), or (H, W) where C is 1
        return self.transform(Image.fromarray(pixels)), int(self.split.labels[index])


def naive(bench: "Bench", *, workers: int) -> float:
    """Return the seconds of an epoch of the usual loop."""
    device, images, size = bench.data.machine.device, PilImages(bench.split, _usual_transform(bench)), bench.config.train.batch_size
    network = bench.fresh().network.to(memory_format=torch.contiguous_format).train()
    optimizer = usual_sgd(network)
    loader = DataLoader(images, size, shuffle=True, drop_last=True, num_workers=workers, pin_memory=device.type == "cuda")

    def epoch() -> None:
        loss_sum, n_correct = 0.0, 0.0
        for x, y in loader:
            batch, labels = x.to(device), y.to(device)
            optimizer.zero_grad()
            logits = network(batch)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item()
            n_correct += (logits.argmax(1) == labels).sum().item()

    return bench.seconds(epoch, repeatable=False)


def _usual_transform(bench: "Bench") -> Callable[[Image.Image], Tensor]:
    augment, manifest = bench.config.augment, bench.data.manifest
    shift = (augment.shift / manifest.width, augment.shift / manifest.height)
    moved = transforms.RandomAffine(augment.rotate, translate=shift, scale=(1 - augment.scale, 1 + augment.scale))
    chain = [moved, transforms.ToTensor(), transforms.Normalize(manifest.mean, manifest.std)]
    usual: Callable[[Image.Image], Tensor] = transforms.Compose([transforms.RandomHorizontalFlip(), *chain] if augment.flip else chain)
    return usual
