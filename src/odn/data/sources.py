"""The table of data sources, and raw images as the parts that `prepare` reads a chunk at a time.

N images, C channels, H height, W width. The table imports no library, so that a command can look a shape up at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from odn.data.dataset import Images, Labels
from odn.data.progress import Show, silent
from odn.sections import DataConfig

DIGITS = tuple("0123456789")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
GARMENTS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_CIFAR10_NAMES = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100_NAMES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar "
    "cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl "
    "hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom "
    "oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road "
    "rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank "
    "telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Describe a data set whose shape and classes are known before it is read."""

    title: str
    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    files: tuple[str, ...]  # below downloads/ and data/, laid out as the reader expects
    reader: str  # the class in torchvision.datasets; "digits" for scikit-learn's own file
    has_test: bool = True  # an official test split

    @property
    def n_classes(self) -> int:
        """Return the number of classes."""
        return len(self.classes)


def _idx_files(folder: str, train: str, test: str) -> tuple[str, ...]:
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    return tuple(f"{folder}/raw/{split}-{kind}" for split in (train, test) for kind in kinds)


_CIFAR10_FILES = tuple(f"cifar-10-batches-py/{name}" for name in ("batches.meta", *(f"data_batch_{i}" for i in range(1, 6)), "test_batch"))
_LETTERS_FILES = _idx_files("EMNIST", "emnist-letters-train", "emnist-letters-test")

SOURCES: dict[str, Source] = {
    "digits": Source(
        title="Digits (UCI, as scikit-learn ships them)", channels=1, height=8, width=8, classes=DIGITS,
        files=("digits.csv.gz",), reader="digits", has_test=False,
    ),
    "mnist": Source(
        title="MNIST", channels=1, height=28, width=28, classes=DIGITS,
        files=_idx_files("MNIST", "train", "t10k"), reader="MNIST",
    ),
    "fashion_mnist": Source(
        title="Fashion-MNIST", channels=1, height=28, width=28, classes=GARMENTS,
        files=_idx_files("FashionMNIST", "train", "t10k"), reader="FashionMNIST",
    ),
    "emnist_letters": Source(
        title="EMNIST letters", channels=1, height=28, width=28, classes=LETTERS, files=_LETTERS_FILES, reader="EMNIST",
    ),
    "usps": Source(
        title="USPS", channels=1, height=16, width=16, classes=DIGITS, files=("usps.bz2", "usps.t.bz2"), reader="USPS",
    ),
    "svhn": Source(
        title="SVHN, cropped digits", channels=3, height=32, width=32, classes=DIGITS,
        files=("train_32x32.mat", "test_32x32.mat"), reader="SVHN",
    ),
    "cifar10": Source(
        title="CIFAR-10", channels=3, height=32, width=32, classes=tuple(_CIFAR10_NAMES.split()), files=_CIFAR10_FILES, reader="CIFAR10",
    ),
    "cifar100": Source(
        title="CIFAR-100", channels=3, height=32, width=32, classes=tuple(_CIFAR100_NAMES.split()),
        files=tuple(f"cifar-100-python/{name}" for name in ("meta", "train", "test")), reader="CIFAR100",
    ),
}  # fmt: skip
# `folder` and `s3` are not in the table: their classes and shape are found in the images.


@dataclass(frozen=True, kw_only=True)
class Part:
    """Hold the labels of some raw images, and read the images themselves a few at a time."""

    labels: Labels  # (N,)
    read: Callable[[npt.NDArray[np.intp]], Images]  # indices (n,) -> (n, C, H, W)
    name: Callable[[int], str]  # of the image of this index, for a person: its file, or its place in the source's own order


@dataclass(frozen=True, kw_only=True)
class Raw:
    """Hold a whole raw data set; `val` and `test` are None where it has no such split of its own."""

    classes: tuple[str, ...]
    channels: int
    height: int
    width: int
    train: Part
    test: Part | None
    val: Part | None = None
    notes: tuple[str, ...] = ()  # what a person should know of how the images are read


def open_raw(config: DataConfig, *, folder: Path, show: Show = silent) -> Raw:
    """Open the raw data that `fetch` laid out; a library is imported only by the source that needs it.

    Raises:
        DataError: a file is damaged, a label is out of range, or images do not go together.
        MissingInputError: the folder holds another source's files.
    """
    if config.source in ("folder", "s3"):
        from odn.data.folder import open_folder

        return open_folder(folder, image_size=config.image_size, show=show)
    from odn.data.official import open_official

    return open_official(SOURCES[config.source], folder=folder)
