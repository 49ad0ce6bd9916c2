"""Laws of batches: every image once, labels with their images, nothing changed that is not asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from odn.data.batches import Images, augmented_batches, n_steps, on_device, plain_batches, training_batches
from odn.data.dataset import Manifest, Split
from odn.sections import AugmentConfig
from odn.training.evaluation import BATCH, LEAST_BATCH, batch_size

NOTHING = AugmentConfig(shift=0, rotate=0.0, scale=0.0, flip=False)


@pytest.fixture
def images() -> Images:
    """Give 20 images of 6x6 whose every pixel is their own number, which is their label too."""
    pixels = np.repeat(np.arange(20, dtype=np.uint8), 36).reshape(20, 1, 6, 6)
    manifest = Manifest(
        source="made up",
        classes=tuple(str(label) for label in range(20)),
        channels=1,
        height=6,
        width=6,
        mean=(0.0,),
        std=(1 / 255,),
        counts={},
        sha256={},
    )
    return on_device(Split(images=pixels, labels=np.arange(20)), manifest=manifest, device=torch.device("cpu"))


def epoch(images: Images, augment: AugmentConfig, *, first_step: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the batches of one epoch."""
    generator = torch.Generator().manual_seed(0)
    return list(training_batches(images, batch_size=8, augment=augment, generator=generator, first_step=first_step))


def test_an_epoch_shows_no_image_twice(images: Images) -> None:
    """Two whole batches of 8 out of 20; what is left over changes from epoch to epoch."""
    labels = torch.cat([labels for _, labels in epoch(images, NOTHING)])
    assert n_steps(images, batch_size=8) == 2
    assert len(labels) == len(set(labels.tolist())) == 16


def test_labels_stay_with_their_images(images: Images) -> None:
    """Shuffled, each image still shows its own label."""
    for batch, labels in epoch(images, NOTHING):
        assert torch.equal(batch[:, 0, 3, 3].round().long(), labels)


def test_without_augmentation_pixels_are_untouched(images: Images) -> None:
    """Every pixel of an image is its number, exactly as stored."""
    for batch, labels in epoch(images, NOTHING):
        assert torch.equal(batch, labels.view(-1, 1, 1, 1).expand(-1, 1, 6, 6).float())


def test_resuming_an_epoch_skips_and_changes_nothing(images: Images) -> None:
    """The second batch is the same whether the first was drawn in this process or not."""
    augment = AugmentConfig(shift=1, rotate=10.0, scale=0.1, flip=True)
    (whole, whole_labels), (rest, rest_labels) = epoch(images, augment)[1], epoch(images, augment, first_step=1)[0]
    assert torch.equal(whole, rest)
    assert torch.equal(whole_labels, rest_labels)


def test_a_shift_moves_by_whole_pixels(images: Images) -> None:
    """What is moved out is lost, what comes in is black, what stays is as it was."""
    for batch, labels in epoch(images, AugmentConfig(shift=2, rotate=0.0, scale=0.0, flip=False)):
        for image, label in zip(batch[:, 0], labels, strict=True):
            kept = (image - label).abs() < 1e-3  # bilinear sampling at whole pixels is exact but for rounding
            assert torch.all(kept | (image.abs() < 1e-3))
            assert kept[2:4, 2:4].all()


def augmented(images: Images, augment: AugmentConfig, **processes: int) -> list[torch.Tensor]:
    """Return every image, changed, in order, in batches of 8."""
    draws = torch.Generator().manual_seed(0)
    return list(augmented_batches(images, batch_size=8, index=torch.arange(20), augment=augment, generator=draws, **processes))


def test_a_look_at_augmented_images_shows_each_once_in_order(images: Images) -> None:
    """Changed as for training, and several processes change them alike."""
    assert torch.equal(torch.cat(augmented(images, NOTHING)), torch.cat([batch for batch, _ in plain_batches(images, batch_size=8)]))
    shifted = augmented(images, AugmentConfig(shift=2, rotate=0.0, scale=0.0, flip=False))
    for image, label in zip(torch.cat(shifted)[:, 0], range(20), strict=True):
        assert (image[2:4, 2:4] - label).abs().max() < 1e-3
    assert sum(float(batch.sum()) for batch in shifted) < 36 * sum(range(20))  # some of their borders are black
    shares = [augmented(images, AugmentConfig(shift=2, rotate=0.0), process=process, processes=2) for process in range(2)]
    alone = augmented(images, AugmentConfig(shift=2, rotate=0.0))
    assert all(torch.equal(one, other) for one, other in zip([shares[0][0], shares[1][0], shares[0][1]], alone, strict=True))


@pytest.mark.parametrize("mixing", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_a_look_at_augmented_images_mixes_them_as_training_does(images: Images, mixing: dict[str, float]) -> None:
    """Where labels are shared, so are pixels."""
    mixed = torch.cat(augmented(images, NOTHING.model_copy(update=mixing)))
    assert not torch.equal(mixed, torch.cat(augmented(images, NOTHING)))
    assert 0 <= float(mixed.min()) <= float(mixed.max()) <= 19


def test_a_flip_mirrors_left_to_right() -> None:
    """Half of the images are mirrored, none is turned upside down."""
    row = np.arange(6, dtype=np.uint8)
    pixels = np.broadcast_to(row, (64, 1, 6, 6)).copy()
    manifest = Manifest(source="", classes=("a",), channels=1, height=6, width=6, mean=(0.0,), std=(1 / 255,), counts={}, sha256={})
    images = on_device(Split(images=pixels, labels=np.zeros(64, np.int64)), manifest=manifest, device=torch.device("cpu"))
    flip = AugmentConfig(shift=0, rotate=0.0, scale=0.0, flip=True)
    rows = torch.cat([batch[:, 0, 2].round() for batch, _ in epoch(images, flip)])
    mirrored = (rows == torch.arange(5, -1, -1)).all(1)
    assert torch.all(mirrored | (rows == torch.arange(6)).all(1))
    assert 0 < mirrored.sum() < len(rows)


def test_a_look_shows_every_image_once_in_order(images: Images) -> None:
    """Evaluation leaves nothing out, the last short batch included."""
    labels = torch.cat([labels for _, labels in plain_batches(images, batch_size=8)])
    assert labels.tolist() == list(range(20))


def test_processes_look_at_every_image_once(images: Images) -> None:
    """They take the batches in turn."""
    labels = [labels for process in range(2) for _, labels in plain_batches(images, batch_size=8, process=process, processes=2)]
    assert [one.tolist() for one in labels] == [list(range(8)), list(range(16, 20)), list(range(8, 16))]


def test_a_split_smaller_than_a_batch_is_one_step(images: Images) -> None:
    """A batch size above the number of images trains on all of them at once."""
    assert n_steps(images, batch_size=64) == 1


@pytest.mark.parametrize(("side", "expected"), [(8, BATCH), (64, BATCH), (128, BATCH // 4), (224, 10), (1024, LEAST_BATCH)])
def test_large_images_are_evaluated_a_few_at_a_time(images: Images, side: int, expected: int) -> None:
    """As many pixels a batch as 128 images of 64x64 have, so that memory does not grow with the size of an image."""
    assert batch_size(replace(images, pixels=torch.empty(2, 3, side, side, dtype=torch.uint8))) == expected
