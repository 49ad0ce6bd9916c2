"""Serve whole batches: images stay uint8 where they are, and are augmented and normalised a batch at a time on the device.

N images, C channels, H height, W width.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odn.cores import usable_memory
from odn.data.augmentation import Part, changed, draw_changes, mixed
from odn.data.dataset import Manifest, Rows, Split
from odn.data.in_order import in_order
from odn.data.sharding import GROUP, shard_size
from odn.data.shards import Shards
from odn.processes import rank
from odn.sections import AugmentConfig

GPU_SHARE = 0.4  # of the free GPU memory that a split may take
MEMORY_SHARE = 0.5  # of the memory at hand that a mapped split may take, as pages that the system keeps
READERS, AHEAD = 2, 2  # threads that read a larger split, and batches that each is ahead of the training


@dataclass(frozen=True)
class Images:
    """Hold a split ready for use, or what it is read from batch by batch, ahead of the training, where there is no room for it."""

    pixels: Tensor | Rows  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64, on the device
    mean: Tensor  # (1, C, 1, 1) float32, on the device, in units of pixel values 0..255
    std: Tensor  # (1, C, 1, 1)
    n_classes: int

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def device(self) -> torch.device:
        """Return where batches come out."""
        return self.labels.device

    @property
    def shard(self) -> int:
        """Return how many images make a shard (see `sharding`)."""
        return shard_size(self.pixels.shape[1:])

    def read(self, parts: Sequence[Part]) -> Iterator[Tensor]:
        """Yield float32 pixel values 0..255 on the device, a batch a part: indices (n,) or a slice -> (n, C, H, W), channels last."""
        for batch in self._batches(parts):
            yield batch.to(self.device, non_blocking=True).float().contiguous(memory_format=torch.channels_last)

    def _batches(self, parts: Sequence[Part]) -> Iterator[Tensor]:
        if isinstance(self.pixels, Tensor):
            yield from map(self.pixels.__getitem__, parts)
            return
        indices = [part.numpy() if isinstance(part, Tensor) else part for part in parts]
        with self.pixels.expected(indices) if isinstance(self.pixels, Shards) else nullcontext():
            yield from in_order(self._read, indices, threads=READERS, ahead=AHEAD)

    def batch(self, part: Part) -> Tensor:
        """Return float32 pixel values 0..255 on the device: an index (n,) or a slice -> (n, C, H, W), channels last."""
        (batch,) = self.read([part])
        return batch

    def _read(self, index: Any) -> Tensor:
        assert not isinstance(self.pixels, Tensor), "a split that is held needs no reading"
        batch = torch.from_numpy(np.array(self.pixels[index]))  # copied here: a slice of a map is not read yet
        return batch.pin_memory() if self.device.type == "cuda" else batch

    def normalised(self, batch: Tensor) -> Tensor:
        """Return the batch with zero mean and unit deviation per channel, over train."""
        return (batch - self.mean) / self.std


def on_device(split: Split, *, manifest: Manifest, device: torch.device) -> Images:
    """Bring a split to where it is trained on; one that is too large for the memory there is read batch by batch, which is told."""
    return Images(
        pixels=_held(split.images, device) if isinstance(split.images, np.ndarray) else split.images,
        labels=torch.from_numpy(split.labels).to(device),
        mean=255 * torch.tensor(manifest.mean, dtype=torch.float32, device=device).view(1, -1, 1, 1),
        std=255 * torch.tensor(manifest.std, dtype=torch.float32, device=device).view(1, -1, 1, 1),
        n_classes=manifest.n_classes,
    )


def _held(images: Rows, device: torch.device) -> Tensor | Rows:
    """Return what batches are taken from: on a GPU a copy, on a processor the array itself, of which the system keeps what is read."""
    if not isinstance(images, np.ndarray):
        return images
    at_hand = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else usable_memory()
    share = GPU_SHARE if device.type == "cuda" else MEMORY_SHARE
    if not isinstance(images, np.memmap) and device.type == "cpu":
        return torch.from_numpy(images)
    n_bytes = math.prod(images.shape)
    if at_hand is None or n_bytes < share * at_hand:
        return torch.from_numpy(images).to(device)
    if rank() == 0:
        room = f"{share:.0%} of the {at_hand / 1e9:,.1f} GB of memory that the {'GPU' if device.type == 'cuda' else 'machine'} has left"
        sys.stderr.write(
            f"odn: {n_bytes / 1e9:,.1f} GB of images are more than {room}: they are read batch by batch, ahead of the training\n"
        )
    return images


def n_steps(images: Images, *, batch_size: int) -> int:
    """Return the steps of an epoch: whole batches only; a split smaller than a batch is one step."""
    return max(1, len(images) // batch_size)


def shuffled(n: int, *, shard: int, generator: torch.Generator) -> Tensor:
    """Draw the order of an epoch: (n,) int64; of more than a group of shards: shards at random, and the images of each group mixed.

    Images are stored shuffled (see `selection`), so that each shard is a sample of all.
    """
    if n <= GROUP * shard:
        return torch.randperm(n, generator=generator)
    parts = []
    for group in torch.randperm(-(-n // shard), generator=generator).split(GROUP):
        index = torch.cat([torch.arange(one * shard, min((one + 1) * shard, n)) for one in group.tolist()])
        parts.append(index[torch.randperm(len(index), generator=generator)])
    return torch.cat(parts)


def share_of(batch: slice, *, process: int, processes: int) -> slice:
    """Return which images of a batch a process takes: parts of one size, one after the other; what is left over is nobody's."""
    size = (batch.stop - batch.start) // processes
    return slice(batch.start + process * size, batch.start + (process + 1) * size)


def training_batches(
    images: Images,
    *,
    batch_size: int,
    augment: AugmentConfig,
    generator: torch.Generator,
    first_step: int = 0,
    process: int = 0,
    processes: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of augmented, normalised batches in random order: (n, C, H, W) float32 and (n,) int64.

    Where images are mixed the labels are probabilities of the classes, (n, K) float32.
    All draws of the epoch are made at once, so that `first_step` skips to where a run was interrupted.
    Of several processes each gets its share of every batch: together they are the batch of one process, each image changed alike.
    """
    n = len(images)
    order = shuffled(n, shard=images.shard, generator=generator)
    size = images.pixels.shape[2], images.pixels.shape[3]
    changes = draw_changes(n, size=size, augment=augment, generator=generator, device=images.device)
    labels = images.labels[order.to(images.device)]
    if isinstance(images.pixels, Tensor):
        order = order.to(images.pixels.device)
    steps = range(first_step, n_steps(images, batch_size=batch_size))
    wholes = [slice(step * batch_size, min((step + 1) * batch_size, n)) for step in steps]
    shares = [share_of(whole, process=process, processes=processes) for whole in wholes]
    parts: list[Part] = [*shares]
    if changes.mixing is not None and processes > 1:
        parts = [_with_next(share, whole=whole) for share, whole in zip(shares, wholes, strict=True)]
    for number, pixels in enumerate(images.read([order[part] for part in parts])):
        share, part = shares[number], parts[number]
        batch, truth = changed(pixels, changes, part), labels[part]
        if changes.mixing is not None:
            batch, truth = mixed(batch, truth, changes.mixing, part, n_classes=images.n_classes)
        n_own = share.stop - share.start
        yield images.normalised(batch[:n_own]), truth[:n_own]


def _with_next(share: slice, *, whole: slice) -> Tensor:
    """Return the indices of a share and of the image after it in its batch, which its last one is mixed with."""
    return torch.tensor([*range(share.start, share.stop), share.stop if share.stop < whole.stop else whole.start])


def augmented_batches(
    images: Images,
    *,
    batch_size: int,
    index: Tensor,
    augment: AugmentConfig,
    generator: torch.Generator,
    process: int = 0,
    processes: int = 1,
) -> Iterator[Tensor]:
    """Yield the images at `index` (n,) in that order, changed as for training; of several processes each gets its batches."""
    size = images.pixels.shape[2], images.pixels.shape[3]
    changes = draw_changes(len(index), size=size, augment=augment, generator=generator, device=images.device)
    slices = [slice(start, start + batch_size) for start in range(process * batch_size, len(index), processes * batch_size)]
    for part, pixels in zip(slices, images.read([index[one] for one in slices]), strict=True):
        batch = changed(pixels, changes, part)
        if changes.mixing is not None:
            labels = images.labels[index[part].to(images.device)]
            batch, _ = mixed(batch, labels, changes.mixing, part, n_classes=images.n_classes)
        yield images.normalised(batch)


def plain_batches(
    images: Images, *, batch_size: int, index: Tensor | None = None, process: int = 0, processes: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every image once, in order and unaugmented; or only the images at `index` (n,); of several processes each gets its batches."""
    n = len(images) if index is None else len(index)
    slices = [slice(start, start + batch_size) for start in range(process * batch_size, n, processes * batch_size)]
    parts: list[Part] = [one if index is None else index[one] for one in slices]
    for part, pixels in zip(parts, images.read(parts), strict=True):
        labels = images.labels[part if isinstance(part, slice) else part.to(images.device)]
        yield images.normalised(pixels), labels
