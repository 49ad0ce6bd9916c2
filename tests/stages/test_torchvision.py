"""torchvision's data sets, in tiny files of the official formats: upright, rightly labelled, and never read when damaged."""

import bz2
import hashlib
import os
import pickle
import socket
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odn.data.sources import SOURCES
from odn.errors import DataError
from odn.files import MANIFEST

SPLITS = ("train", "val", "test")


def noise(*shape: int) -> np.ndarray:
    """Return random bytes, the same each time."""
    return np.random.default_rng(len(shape)).integers(0, 256, shape, dtype=np.uint8)


def prepared(project: Any) -> dict[bytes, int]:
    """Return every prepared image with its label."""
    splits = [project.split(name) for name in SPLITS]
    return {image.tobytes(): int(label) for split in splits for image, label in zip(split.images, split.labels, strict=True)}


@pytest.mark.parametrize(
    ("source", "prefixes"),
    [("mnist", ("MNIST/raw/train", "MNIST/raw/t10k")), ("fashion_mnist", ("FashionMNIST/raw/train", "FashionMNIST/raw/t10k"))],
)
def test_mnist_and_fashion_mnist_keep_images_labels_and_test_split(project: Any, write_idx: Any, source: str, prefixes: Any) -> None:
    """40 training images become train and val; the official test images stay test, in their order."""
    images, labels = noise(60, 28, 28), np.arange(60) % 10
    for prefix, part in zip(prefixes, (slice(0, 40), slice(40, 60)), strict=True):
        write_idx(prefix, images=images[part], labels=labels[part])
    manifest = project.make(source=source, root=str(project.raw), val_fraction=0.25)
    assert [manifest.counts[name]["total"] for name in SPLITS] == [30, 10, 20]
    assert prepared(project) == {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert np.array_equal(project.split("test").images[:, 0], images[40:])
    assert manifest.classes == SOURCES[source].classes


def test_only_the_files_that_are_read_are_copied(project: Any, write_idx: Any) -> None:
    """What else lies under data.root, archives and other sets, stays there."""
    for prefix in ("MNIST/raw/train", "MNIST/raw/t10k", "KMNIST/raw/train"):
        write_idx(prefix, images=noise(2, 28, 28), labels=np.arange(2))
    fetched = project.fetch(source="mnist", root=str(project.raw))
    files = [path.relative_to(project.downloads).as_posix() for path in project.downloads.rglob("*") if path.is_file()]
    assert sorted(files) == [MANIFEST, "MNIST/raw/t10k-images-idx3-ubyte", "MNIST/raw/t10k-labels-idx1-ubyte",
                             "MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/train-labels-idx1-ubyte", "SHA256SUMS"]  # fmt: skip
    assert fetched.n_files == 4


def test_emnist_letters_stand_upright_and_count_from_zero(project: Any, write_idx: Any) -> None:
    """The official files hold images transposed and labels 1..26."""
    images, labels = noise(130, 28, 28), np.arange(130) % 26
    for split, part in (("train", slice(0, 104)), ("test", slice(104, 130))):
        write_idx(f"EMNIST/raw/emnist-letters-{split}", images=images[part].transpose(0, 2, 1), labels=labels[part] + 1)
    manifest = project.make(source="emnist_letters", root=str(project.raw), val_fraction=0.25)
    assert manifest.classes == tuple(string.ascii_lowercase)
    assert prepared(project) == {image.tobytes(): label for image, label in zip(images, labels, strict=True)}


def test_usps_maps_its_values_to_bytes(project: Any) -> None:
    """Text lines of labels 1..10 and values in [-1, 1] become 16x16 bytes and labels 0..9."""
    project.raw.mkdir()
    for name, n_images in (("usps.bz2", 40), ("usps.t.bz2", 10)):
        lines = [f"{i % 10 + 1} " + " ".join(f"{k}:{-1 + 2 * (k == i + 1)}" for k in range(1, 257)) for i in range(n_images)]
        (project.raw / name).write_bytes(bz2.compress("\n".join(lines).encode()))
    manifest = project.make(source="usps", root=str(project.raw), val_fraction=0.25)
    assert (manifest.height, manifest.width, manifest.counts["test"]["per_class"]) == (16, 16, [1] * 10)
    one_lit = np.eye(10, 256, dtype=np.uint8) * 255
    assert np.array_equal(project.split("test").images.reshape(10, 256), one_lit)


@pytest.fixture
def tiny_cifar(project: Any, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Write 70 images in CIFAR-10's format, and tell torchvision their MD5s in place of the official ones'."""
    import torchvision.datasets

    folder = project.raw / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    images = noise(70, 3, 32, 32)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    content: dict[str, Any] = {"batches.meta": {"label_names": list(SOURCES["cifar10"].classes)}}
    content |= {name: {"data": part.reshape(len(part), -1), "labels": [i % 10 for i in range(len(part))]}
                for name, part in zip(names, np.split(images, [10, 20, 30, 40, 50]), strict=True)}  # fmt: skip
    md5 = {
        name: hashlib.md5(blob).hexdigest() for name, entry in content.items() if (folder / name).write_bytes(blob := pickle.dumps(entry))
    }
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", [[name, md5[name]] for name in names[:5]])
    monkeypatch.setattr(kind, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(kind, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5["batches.meta"]})
    return images


def test_cifar_is_channels_first(project: Any, tiny_cifar: np.ndarray) -> None:
    """Three planes of 32x32, as the official files hold them."""
    manifest = project.make(source="cifar10", root=str(project.raw), val_fraction=0.2)
    assert (manifest.channels, manifest.height, manifest.width, len(manifest.mean)) == (3, 32, 32, 3)
    assert prepared(project) == {image.tobytes(): i % 10 for i, image in enumerate(tiny_cifar)}


class Payload:
    """Be a pickle that makes a folder where it is loaded."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the call that loading makes."""
        return (os.mkdir, (str(self.victim),))


def test_a_damaged_pickle_is_never_loaded(project: Any, tiny_cifar: np.ndarray) -> None:
    """Torchvision compares the MD5 first: code hidden in a batch of another content does not run."""
    victim = project.folder / "it-ran"
    payload = pickle.dumps(Payload(victim))
    pickle.loads(payload)
    victim.rmdir()  # so the payload is a real one
    (project.raw / "cifar-10-batches-py" / "data_batch_3").write_bytes(payload)
    project.fetch(source="cifar10", root=str(project.raw))
    with pytest.raises(
        DataError, match=r"CIFAR-10 cannot be read from .*: a file is truncated or corrupt \(Dataset not found or corrupted"
    ):
        project.prepare(source="cifar10", root=str(project.raw))
    assert not victim.exists()


def test_svhn_is_read_with_zero_as_zero(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """MATLAB files of (H, W, C, N) with label 10 for the digit 0."""
    import scipy.io
    import torchvision.datasets

    project.raw.mkdir()
    images, labels = noise(50, 3, 32, 32), np.arange(50) % 10
    official = {}
    for split, part in (("train", slice(0, 40)), ("test", slice(40, 50))):
        path = project.raw / f"{split}_32x32.mat"
        scipy.io.savemat(path, {"X": images[part].transpose(2, 3, 1, 0), "y": np.where(labels[part], labels[part], 10)[:, None]})
        official[split] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", official)
    project.make(source="svhn", root=str(project.raw), val_fraction=0.25)
    assert prepared(project) == {image.tobytes(): label for image, label in zip(images, labels, strict=True)}


def damage(path: Path, how: str) -> None:
    """Cut a file or put other bytes at its start."""
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "header": content[:2], "empty": b"", "garbage": b"?" * 16 + content[16:]}[how])


@pytest.mark.parametrize("how", ["cut", "header", "empty", "garbage"])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_idx_file_exits_with_2(project: Any, write_idx: Any, capsys: Any, how: str, name: str) -> None:
    """Whatever is wrong inside, the message names the data set, the folder and the way out, and nothing is written."""
    for prefix in ("train", "t10k"):
        write_idx(f"MNIST/raw/{prefix}", images=noise(20, 28, 28), labels=np.arange(20) % 10)
    damage(project.raw / "MNIST" / "raw" / name, how)
    project.fetch(source="mnist", root=str(project.raw))
    assert project.command("prepare") == 2
    message = capsys.readouterr().err
    assert f"odn: MNIST cannot be read from {project.downloads}: a file is truncated or corrupt (" in message
    assert "replace it under data.root" in message
    assert not project.prepared.exists()


def test_a_damaged_usps_file_is_refused(project: Any) -> None:
    """Its compression breaks off."""
    project.raw.mkdir()
    for name in ("usps.bz2", "usps.t.bz2"):
        (project.raw / name).write_bytes(bz2.compress(b"1 " * 1000)[:30])
    with pytest.raises(DataError, match=r"USPS cannot be read from .*: a file is truncated or corrupt \(Compressed file ended"):
        project.make(source="usps", root=str(project.raw))


def test_a_label_out_of_range_is_refused(project: Any, write_idx: Any) -> None:
    """Names the first such image, its label and the range."""
    for prefix in ("train", "t10k"):
        write_idx(f"MNIST/raw/{prefix}", images=noise(20, 28, 28), labels=np.arange(20) % 10 + 5 * (np.arange(20) == 7))
    with pytest.raises(DataError, match=r"mnist, training images: image 7 has label 12, out of range 0..9 \(1 of 20 images do\)"):
        project.make(source="mnist", root=str(project.raw))


def test_images_and_labels_of_different_number_are_refused(project: Any, write_idx: Any) -> None:
    """Two files that do not belong together."""
    for prefix in ("train", "t10k"):
        write_idx(f"MNIST/raw/{prefix}", images=noise(20, 28, 28), labels=np.arange(19) % 10)
    with pytest.raises(DataError, match=r"MNIST, train images in .*: 20 images but 19 labels; the files do not belong together"):
        project.make(source="mnist", root=str(project.raw))


def test_images_of_another_size_are_refused(project: Any, write_idx: Any) -> None:
    """A file of the right name that is not MNIST."""
    for prefix in ("train", "t10k"):
        write_idx(f"MNIST/raw/{prefix}", images=noise(20, 14, 14), labels=np.arange(20) % 10)
    with pytest.raises(DataError, match=r"expected uint8 images of \(channels, height, width\) \(1, 28, 28\); found uint8 \(1, 14, 14\)"):
        project.make(source="mnist", root=str(project.raw))


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Send every download to a socket on this machine: bound but not listening, so that it refuses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{taken.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
        monkeypatch.setattr("urllib.request._opener", None)  # it remembers the proxy that it saw first
        yield taken


@pytest.mark.parametrize("source", sorted(set(SOURCES) - {"digits"}))
def test_no_network_says_how_to_do_without(project: Any, proxy: socket.socket, capsys: Any, source: str) -> None:
    """Every connection is refused: exit code 2, the files to copy, and no half of a download."""
    project.configure(source=source)
    assert project.command("fetch") == 2
    message = capsys.readouterr().err
    assert f"odn: {SOURCES[source].title} cannot be downloaded (" in message
    assert "check the network and its proxy, or copy " + ", ".join(SOURCES[source].files) + " into a folder and set data.root" in message
    assert [path.name for path in project.folder.iterdir()] == ["params.yaml"]


def test_a_silent_network_is_given_up(project: Any, proxy: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and says nothing holds fetch up for a bounded time only."""
    monkeypatch.setattr("odn.data.download.TIMEOUT", 0.2)
    proxy.listen()
    with pytest.raises(DataError, match=r"USPS cannot be downloaded \(.*timed out"):
        project.fetch(source="usps")
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("source", sorted(set(SOURCES) - {"digits"}))
def test_the_table_agrees_with_torchvision(source: str) -> None:
    """Each row names a class of torchvision's, with classes of the same number where torchvision lists them."""
    import torchvision.datasets

    row = SOURCES[source]
    kind = getattr(torchvision.datasets, row.reader)
    if source in ("mnist", "fashion_mnist"):
        assert [name.split(" - ")[0] for name in kind.classes] == list(row.classes)
    if source == "emnist_letters":
        assert kind.classes_split_dict["letters"][1:] == list(row.classes)
    assert row.n_classes == {"emnist_letters": 26, "cifar100": 100}.get(source, 10)
