"""Laws of augmentation for photographs: operations are Pillow's, labels are mixed as pixels are, a resumed epoch is the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from odn.data.augmentation import draw_changes, mixed
from odn.data.batches import Images, on_device, training_batches
from odn.data.dataset import Manifest, Split
from odn.data.recolor import COLORS, GEOMETRIC, OPERATIONS, TrivialDraws, jittered, trivially_recolored
from odn.sections import AugmentConfig

OFF: dict[str, Any] = {"shift": 0, "rotate": 0.0, "scale": 0.0, "flip": False}
ALL: dict[str, Any] = {
    "shift": 2,
    "rotate": 10.0,
    "scale": 0.1,
    "flip": True,
    "crop": 0.2,
    "jitter": 0.4,
    "trivial": True,
    "mixup": 0.2,
    "cutmix": 1.0,
}
KINDS: list[dict[str, Any]] = [{"crop": 0.2}, {"jitter": 0.4}, {"trivial": True}, {"mixup": 0.2}, {"cutmix": 1.0}, ALL]

PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(1 + 0.99 * m),
    "saturation": lambda image, m: ImageEnhance.Color(image).enhance(1 + 0.99 * m),
    "contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(1 + 0.99 * m),
    "sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + 0.99 * m),
    "posterize": lambda image, m: ImageOps.posterize(image, 8 - round(6 * abs(m))),
    "solarize": lambda image, m: ImageOps.solarize(image, round(255 * (1 - abs(m)))),
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
}


@pytest.fixture
def photographs() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Give 24 smooth color images of 20x24, (N, C, H, W), none of which uses all values."""
    rng = np.random.default_rng(0)
    small = rng.integers(30, 200, (24, 4, 5, 3), dtype=np.uint8)
    large = [np.asarray(Image.fromarray(one).resize((24, 20), Image.Resampling.BICUBIC)) for one in small]
    return np.stack(large).transpose(0, 3, 1, 2).copy()


@pytest.fixture
def images(photographs: np.ndarray[Any, np.dtype[np.uint8]]) -> Images:
    """Give them as a split of four classes, not normalised."""
    manifest = Manifest(
        source="", classes=tuple("abcd"), channels=3, height=20, width=24, mean=(0.0,) * 3, std=(1 / 255,) * 3, counts={}, sha256={}
    )
    return on_device(Split(images=photographs, labels=np.arange(24) % 4), manifest=manifest, device=torch.device("cpu"))


def epoch(images: Images, augment: AugmentConfig, *, first_step: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the batches of one epoch."""
    generator = torch.Generator().manual_seed(0)
    return list(training_batches(images, batch_size=8, augment=augment, generator=generator, first_step=first_step))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_every_batch(images: Images, kind: dict[str, Any], processes: int) -> None:
    """One after the other their shares are the batch of one process, to the byte: images, what is done to each, and labels."""
    augment, shares = AugmentConfig(**{**OFF, **kind}), []
    for process in range(processes):
        draws = torch.Generator().manual_seed(0)
        batches = training_batches(images, batch_size=8, augment=augment, generator=draws, process=process, processes=processes)
        shares.append(list(batches))
    for step, (whole, labels) in enumerate(epoch(images, augment)):
        assert torch.equal(torch.cat([share[step][0] for share in shares]), whole)
        assert torch.equal(torch.cat([share[step][1] for share in shares]), labels)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_epoch_goes_on_with_the_same_bytes(images: Images, kind: dict[str, Any]) -> None:
    """The last batch is the same whether those before it were drawn in this process or not; and it is not the plain one."""
    augment = AugmentConfig(**OFF | kind)
    (whole, whole_labels), (rest, rest_labels) = epoch(images, augment)[2], epoch(images, augment, first_step=2)[0]
    assert torch.equal(whole, rest)
    assert torch.equal(whole_labels, rest_labels)
    assert not torch.equal(whole, epoch(images, AugmentConfig(**OFF))[2][0])


def test_nothing_of_the_global_generator_is_drawn(images: Images) -> None:
    """Kornia draws nothing by itself, and the Beta distribution nothing of torch's."""
    before = torch.random.get_rng_state()
    epoch(images, AugmentConfig(**ALL))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_is_switched_on_changes_no_earlier_draw(images: Images) -> None:
    """The order of an epoch, and the moves of older settings, are the same with and without color and mixing."""
    moved = AugmentConfig(**OFF | {"shift": 2, "flip": True})
    size, device = (20, 24), torch.device("cpu")
    plain, more = (
        draw_changes(24, size=size, augment=augment, generator=torch.Generator().manual_seed(1), device=device)
        for augment in (moved, moved.model_copy(update={"jitter": 0.4, "mixup": 0.2}))
    )
    assert plain.maps is not None
    assert more.maps is not None
    assert torch.equal(plain.maps, more.maps)
    assert (plain.jitter, plain.trivial, plain.mixing) == (None, None, None)


@pytest.mark.parametrize("name", COLORS)
@pytest.mark.parametrize("magnitude", [-0.8, 0.3])
def test_a_color_operation_is_pillows(photographs: np.ndarray[Any, Any], name: str, magnitude: float) -> None:
    """To a level or two, as Pillow rounds at each step; solarizing and posterizing decide by a threshold, where a level decides."""
    n = len(photographs)
    draws = TrivialDraws(operations=torch.full((n,), OPERATIONS.index(name)), magnitudes=torch.full((n,), magnitude), maps=torch.empty(0))
    found = trivially_recolored(torch.from_numpy(photographs).float(), draws, slice(0, n)).numpy()
    wanted = np.stack([np.asarray(PILLOW[name](Image.fromarray(one.transpose(1, 2, 0)), magnitude)) for one in photographs])
    difference = np.abs(found - wanted.transpose(0, 3, 1, 2))
    assert np.quantile(difference, 0.995) <= 2
    assert difference.mean() < 1


def test_every_image_has_its_own_operation(photographs: np.ndarray[Any, Any]) -> None:
    """In one batch an image is equalized, its neighbour solarized, the third left alone."""
    batch = torch.from_numpy(photographs[:3]).float()
    operations = torch.tensor([OPERATIONS.index(name) for name in ("equalize", "solarize", "rotate")])
    draws = TrivialDraws(operations=operations, magnitudes=torch.full((3,), 0.5), maps=torch.empty(0))
    found = trivially_recolored(batch, draws, slice(0, 3))
    assert [torch.equal(one, plain) for one, plain in zip(found, batch, strict=True)] == [False, False, True]


def test_grey_images_have_no_saturation() -> None:
    """What needs three channels leaves one alone, and the others work."""
    batch = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(0)) * 255
    for name in COLORS:
        draws = TrivialDraws(operations=torch.full((8,), OPERATIONS.index(name)), magnitudes=torch.full((8,), 0.5), maps=torch.empty(0))
        assert torch.equal(trivially_recolored(batch, draws, slice(0, 8)), batch) == (name == "saturation")
    assert jittered(batch, torch.full((8, 3), 1.2)).shape == batch.shape


def test_a_flat_image_survives_every_color_operation() -> None:
    """No division by a contrast of zero."""
    batch = torch.full((4, 3, 6, 6), 77.0)
    for name in COLORS:
        draws = TrivialDraws(operations=torch.full((4,), OPERATIONS.index(name)), magnitudes=torch.full((4,), 0.5), maps=torch.empty(0))
        found = trivially_recolored(batch, draws, slice(0, 4))
        assert found.isfinite().all()
        assert ((found >= 0) & (found <= 255)).all()


def test_every_operation_is_drawn() -> None:
    """Of 14, over an epoch of a thousand images, in both directions; geometric ones and no others move."""
    augment = AugmentConfig(**OFF | {"trivial": True})
    changes = draw_changes(1000, size=(20, 24), augment=augment, generator=torch.Generator().manual_seed(0), device=torch.device("cpu"))
    assert changes.trivial is not None
    operations, magnitudes = changes.trivial.operations, changes.trivial.magnitudes
    assert (torch.bincount(operations, minlength=14) > 40).all()
    assert (magnitudes.min().item(), magnitudes.max().item()) == (-1, 1)
    is_moved = ~torch.isclose(changes.trivial.maps, torch.eye(2, 3)).all((1, 2))
    is_geometric = torch.isin(operations, torch.tensor([OPERATIONS.index(name) for name in GEOMETRIC]))
    assert torch.equal(is_moved, is_geometric & (magnitudes != 0))


def test_a_crop_stays_inside_and_has_its_area() -> None:
    """No corner of a box lies outside of the image, and none is smaller than asked but for what is cut off at a long side."""
    augment = AugmentConfig(**OFF | {"crop": 0.3})
    changes = draw_changes(1000, size=(20, 24), augment=augment, generator=torch.Generator().manual_seed(0), device=torch.device("cpu"))
    assert changes.maps is not None
    half, centre = changes.maps[:, [0, 1], [0, 1]], changes.maps[:, :, 2]  # of the box, in units of half the image
    assert (half + centre.abs() <= 1 + 1e-6).all()
    area = half.prod(1)
    assert area.min() > 0.28
    assert area.max() > 0.9


@pytest.mark.parametrize("kind", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_labels_are_mixed_as_pixels_are(kind: dict[str, float]) -> None:
    """Of images that are white where their class is 1, the mean brightness is the probability of class 1."""
    labels = torch.arange(16) % 2
    batch = labels.view(-1, 1, 1, 1).expand(-1, 3, 20, 24).float() * 255
    augment = AugmentConfig(**OFF | kind)
    changes = draw_changes(16, size=(20, 24), augment=augment, generator=torch.Generator().manual_seed(0), device=torch.device("cpu"))
    assert changes.mixing is not None
    pixels, probabilities = mixed(batch, labels, changes.mixing, slice(0, 16), n_classes=2)
    assert torch.allclose(pixels.mean((1, 2, 3)) / 255, probabilities[:, 1], atol=1e-5)
    assert torch.allclose(probabilities.sum(1), torch.ones(16))
    assert len(set(probabilities[:, 1].tolist())) > 4
