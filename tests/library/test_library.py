"""odn as a library: the same search as the stages', nothing global changed, and clear errors."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import odn
from laws.search_data import small_config
from laws.stage_runs import Stages, read
from odn.data.dataset import read_split

SMALL = {
    "train.batch_size": 16,
    "growth.min_epochs": 1,
    "growth.max_epochs": 2,
    "search.cooldown_epochs": 1,
    "search.cooldown_gain": 1.0,
    "finish.epochs": 1,
    "train.precision": "fp32",
}


class Noisy(nn.Module):
    """A block that drops out, and has no shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.drop = nn.Conv2d(width, width, 3, padding=1), nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the block."""
        return torch.relu(self.drop(self.conv(x)))


def noisy() -> odn.DepthNetwork:
    """Make a network of three such blocks, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return odn.DepthNetwork(nn.Conv2d(1, 4, 3, padding=1), [Noisy(4) for _ in range(3)], n_classes=3)


def arrays(n: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Draw images whose brightness tells the class."""
    draws = np.random.Generator(np.random.PCG64(seed))
    labels = np.arange(n) % 3
    return (draws.integers(0, 60, (n, 8, 8)) + 90 * labels[:, None, None]).astype(np.uint8), labels


@pytest.fixture
def data() -> odn.Data:
    """Make small data of three classes."""
    return odn.Data.from_arrays(arrays(96, 0), arrays(48, 1), arrays(48, 2))


def globals_of_torch() -> list[Any]:
    """Return what a caller could notice."""
    switches = [torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory]  # type: ignore[attr-defined]
    switches += [torch.backends.cudnn.benchmark, torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()]
    return [*switches, torch.get_rng_state().tolist(), str(np.random.get_state()), dict(os.environ)]  # noqa: NPY002


def test_the_library_and_the_stages_are_one_search(tmp_path: Path) -> None:
    """Same settings, data and seed: the same steps, and a model of the same bytes."""
    stages = Stages(small_config(search={"target": 0.45}), tmp_path)
    stages.search()
    stages.truncate()
    splits = {name: read_split(stages.prepared / name) for name in ("train", "val", "test")}
    data = odn.Data.from_arrays(*((splits[name].images, splits[name].labels) for name in splits), channels="first")
    content = stages.config.model_dump(mode="json")
    changes = {f"{name}.{key}": value for name in content if name not in ("seed", "data", "model") for key, value in content[name].items()}
    changes.pop("search.target")
    network = odn.resnet("resnet18", in_channels=1, n_classes=10, width=0.125)
    *_, last = odn.search(network, data, target=0.45, changes=changes)
    assert last.result is not None
    odn.save(last.result.model, tmp_path / "saved")
    assert (tmp_path / "saved/weights.safetensors").read_bytes() == (tmp_path / "model/weights.safetensors").read_bytes()
    record = read(tmp_path / "model/search.json")
    assert (last.result.depth, last.result.val_accuracy, last.result.reason) == (record["depth"], record["val_accuracy"], record["reason"])
    assert last.result.full_network_epochs == record["full_network_epochs"]


def test_nothing_global_is_changed(data: odn.Data) -> None:
    """Between the steps, after them, and by certifying: switches, generators, threads and environment are as they were."""
    network, before = noisy(), globals_of_torch()
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    steps = odn.search(network, data, target=0.999, changes=SMALL)
    seen = [(step, globals_of_torch() == before) for step in steps]
    assert all(same for _, same in seen)
    last, _ = seen[-1]
    assert last.result is not None
    odn.certify(last.result.model, data.test)
    assert globals_of_torch() == before
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def test_the_same_search_gives_the_same_bytes(data: odn.Data, tmp_path: Path) -> None:
    """Also where blocks drop out, whatever the caller drew in between."""
    for name in ("first", "second"):
        *_, last = odn.search(noisy(), data, target=0.999, changes=SMALL)
        assert last.result is not None
        odn.save(last.result.model, tmp_path / name)
        torch.rand(3)
    assert (tmp_path / "first/weights.safetensors").read_bytes() == (tmp_path / "second/weights.safetensors").read_bytes()


@pytest.mark.parametrize("mode", ["grid", "supernet"])
def test_other_methods_take_networks_of_ones_own(mode: str, data: odn.Data) -> None:
    """All depths from scratch, or all at once as exits."""
    steps = list(odn.search(noisy(), data, target=0.999, changes=SMALL | {"search.mode": mode, "supernet.epochs": 2}))
    assert [step.depth for step in steps] == [1, 2, 3]
    assert steps[-1].result is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search.mode": "prune", "search.schedule": [3]}, "search.mode: prune needs modules that are PrunableStem"),
        ({"growth.init": "zero", "search.schedule": [1, 2]}, "growth.init: zero needs modules that are Growable"),
        ({"search.mode": "supernet", "supernet.widths": [0.5, 1.0]}, "supernet.widths needs modules that are Narrowable"),
        ({"train.lrate": 0.1}, "unknown setting train.lrate"),
        ({"search.schedule": [1, 4]}, "depth 4 is beyond the 3 blocks"),
        ({"model.width": 0.5}, "model.width: said by the arguments network, data and target"),
        ({"search.distill": "full"}, "unknown setting search.distill: it was removed"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str, data: odn.Data) -> None:
    """By a line that names the setting."""
    with pytest.raises(odn.OdnError, match=message):
        list(odn.search(noisy(), data, target=0.999, changes=SMALL | changes))


def test_data_of_another_shape_is_refused(data: odn.Data) -> None:
    """Channels and classes are the network's."""
    network = odn.resnet("resnet18", in_channels=3, n_classes=3, width=0.1)
    with pytest.raises(odn.OdnError, match="the network is for 3 channels and 3 classes, the data has 1 and 3"):
        next(odn.search(network, data, target=0.9))
    with pytest.raises(odn.OdnError, match="the images have 1 channels, the network reads 3"):
        odn.certify(network, data.test)


def test_images_that_do_not_pass_are_refused(data: odn.Data) -> None:
    """By their size, when the search or the certificate is asked for; and labels that the network cannot tell."""
    stem = nn.Sequential(nn.Flatten(), nn.Linear(1 * 9 * 9, 4))
    network = odn.DepthNetwork(stem, [nn.Linear(4, 4)], n_classes=3, image_shape=(1, 9, 9)).train()
    with pytest.raises(odn.OdnError, match="images of 8 x 8 pixels do not pass through the network"):
        odn.search(network, data, target=0.9)
    with pytest.raises(odn.OdnError, match="images of 8 x 8 pixels do not pass through the network"):
        odn.certify(network, data.test)
    with pytest.raises(odn.OdnError, match="labels up to 2, the network tells 2 classes, from 0"):
        odn.certify(odn.resnet(in_channels=1, n_classes=2, width=0.1), data.test)
    assert network.training


def test_arrays_datasets_and_folders_are_the_same_data(tmp_path: Path) -> None:
    """uint8 arrays in any layout, floats from 0 to 1, tensors and files of images give the same pixels."""
    from PIL import Image

    images, labels = arrays(48, 0)
    color = np.stack([images, images // 2, 255 - images], axis=-1)  # (N, H, W, C)
    first = odn.Data.from_arrays((color, labels), (255 - color, labels))
    tensors = torch.from_numpy(color).movedim(-1, 1)
    others = [odn.Data.from_arrays((tensors.float() / 255, labels), (255 - color, labels))]
    val = TensorDataset(255 - tensors, torch.from_numpy(labels))
    others.append(odn.Data.from_datasets(TensorDataset(tensors, torch.from_numpy(labels)), val))
    others.append(odn.Data.from_datasets([(Image.fromarray(i), int(n)) for i, n in zip(color, labels, strict=True)], val))
    assert {one.manifest.sha256["train"] for one in others} == {first.manifest.sha256["train"]}
    for split, pixels in {"train": color, "val": 255 - color, "test": color // 3}.items():
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            path = tmp_path / split / f"class {label}" / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    folder = odn.Data.from_folder(tmp_path)
    assert (folder.manifest.classes, folder.manifest.mean) == (("class 0", "class 1", "class 2"), first.manifest.mean)
    drawn = odn.Data.from_folder(tmp_path / "train", val_fraction=0.25, test_fraction=0.25)
    assert {name: one["total"] for name, one in drawn.manifest.counts.items()} == {"train": 27, "val": 9, "test": 12}


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((6, 8, 8), np.int32), [0, 1, 2] * 2, "expected uint8 or floats from 0 to 1; got int32"),
        (np.full((6, 8, 8), 1.5), [0, 1, 2] * 2, "floats must lie from 0 to 1, before any normalisation; got 1.5 to 1.5"),
        (np.zeros((6, 8, 8), np.uint8), [0, 1], "expected 6 whole numbers as labels"),
        (np.zeros((6, 8, 8), np.uint8), [0, 1, 5] * 2, "class '2' has 0 images"),
        (np.zeros((6, 9, 8, 8), np.uint8), [0, 1, 2] * 2, "say channels='first' or 'last'"),
        (np.zeros((6, 8, 8), np.uint8), [0, 1, 2] * 2, "every pixel of the training images has the same value"),
        (np.zeros((0, 8, 8), np.uint8), [], "expected 0 whole numbers as labels|there is no image"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_images_that_are_none_are_refused(images: Any, labels: Any, message: str) -> None:
    """By a line that says what was found."""
    with pytest.raises(odn.OdnError, match=message):
        odn.Data.from_arrays((images, labels), arrays(6, 1))


def test_leaks_are_told() -> None:
    """An image of val that is in train too makes its accuracy doubtful."""
    with pytest.warns(UserWarning, match="val"):
        odn.Data.from_arrays(arrays(48, 0), arrays(48, 0))


def test_the_api_is_what_is_listed() -> None:
    """Each name is there, documented, and loaded at its first use only."""
    assert all(getattr(odn, name).__doc__ for name in odn.__all__ if name != "__version__")
    assert set(odn.__all__) <= set(dir(odn))
    with pytest.raises(AttributeError, match="no attribute 'serch'"):
        _ = odn.serch
    import subprocess

    program = "import odn, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False False\n"
