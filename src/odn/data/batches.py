"""Serve whole batches: images stay uint8 where they are, and are augmented and normalised a batch at a time on the device.

N images, C channels, H height, W width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from odn.data.augmentation import Part, changed, draw_changes, mixed
from odn.data.dataset import Manifest, Split
from odn.sections import AugmentConfig

GPU_SHARE = 0.4  # of the free GPU memory that a split may take; a larger one is read from disk batch by batch


@dataclass(frozen=True)
class Images:
    """Hold a split ready for use: on the GPU where it fits, else as a memory map that is read as it is needed."""

    pixels: Tensor  # (N, C, H, W) uint8
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

    def batch(self, index: Part) -> Tensor:
        """Return float32 pixel values 0..255 on the device. index (n,) or a slice -> (n, C, H, W), channels last."""
        pixels = self.pixels[index]
        if self.device.type == "cuda" and pixels.device.type == "cpu":
            pixels = pixels.pin_memory()
        pixels = pixels.to(self.device, non_blocking=True).float()
        return pixels.contiguous(memory_format=torch.channels_last)

    def normalised(self, batch: Tensor) -> Tensor:
        """Return the batch with zero mean and unit deviation per channel, over train."""
        return (batch - self.mean) / self.std


def on_device(split: Split, *, manifest: Manifest, device: torch.device) -> Images:
    """Bring a split to where it is trained on."""
    pixels = torch.from_numpy(split.images)  # a copy-on-write memory map: nothing is read yet
    if device.type == "cuda" and pixels.nbytes < GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
        pixels = pixels.to(device)
    return Images(
        pixels=pixels,
        labels=torch.from_numpy(split.labels).to(device),
        mean=255 * torch.tensor(manifest.mean, dtype=torch.float32, device=device).view(1, -1, 1, 1),
        std=255 * torch.tensor(manifest.std, dtype=torch.float32, device=device).view(1, -1, 1, 1),
        n_classes=manifest.n_classes,
    )


def n_steps(images: Images, *, batch_size: int) -> int:
    """Return the steps of an epoch: whole batches only; a split smaller than a batch is one step."""
    return max(1, len(images) // batch_size)


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
    order = torch.randperm(n, generator=generator)
    size = images.pixels.shape[2], images.pixels.shape[3]
    changes = draw_changes(n, size=size, augment=augment, generator=generator, device=images.device)
    order_there = order.to(images.pixels.device)
    labels = images.labels[order.to(images.device)]
    for step in range(first_step, n_steps(images, batch_size=batch_size)):
        whole = slice(step * batch_size, min((step + 1) * batch_size, n))
        share = share_of(whole, process=process, processes=processes)
        part = share if changes.mixing is None or processes == 1 else _with_next(share, whole=whole)
        batch, truth = changed(images.batch(order_there[part]), changes, part), labels[part]
        if changes.mixing is not None:
            batch, truth = mixed(batch, truth, changes.mixing, part, n_classes=images.n_classes)
        size = share.stop - share.start
        yield images.normalised(batch[:size]), truth[:size]


def _with_next(share: slice, *, whole: slice) -> Tensor:
    """Return the indices of a share and of the image after it in its batch, which its last one is mixed with."""
    return torch.tensor([*range(share.start, share.stop), share.stop if share.stop < whole.stop else whole.start])


def plain_batches(
    images: Images, *, batch_size: int, index: Tensor | None = None, process: int = 0, processes: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every image once, in order and unaugmented; or only the images at `index` (n,); of several processes each gets its batches."""
    n = len(images) if index is None else len(index)
    for start in range(process * batch_size, n, processes * batch_size):
        part: Part = slice(start, start + batch_size)
        if index is not None:
            part = index[part]
        labels = images.labels[part if isinstance(part, slice) else part.to(images.device)]
        yield images.normalised(images.batch(part)), labels
