"""Folders that odn wrote are models as well: a network, and one that routes; they answer as the network does in odn's own hands."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from odn.cli import main
from odn.files import write_json
from odn.models.network import DepthNetwork, build
from odn.models.resnet_shapes import resnet_architecture
from odn.models.stored_networks import load_network, save_network
from odn.routing.gated import gated
from odn.routing.routed import Exit, RoutedNetwork
from odn.routing.stored import load_routed, save_routed
from odn.serving.model import answer
from odn.serving.sources import find_source

CLASSES = ("cat", "dog", "owl")
CARD = {"classes": CLASSES, "channels": 1, "height": 8, "width": 8, "mean": (0.3,), "std": (0.4,)}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Run networks as small as these on one thread: the number of threads may change the last bit."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def network() -> DepthNetwork:
    """Make a small network with exits at depths 1 and 2."""
    architecture = resnet_architecture(
        "resnet18", stem="cifar", width=1 / 16, shortcut="avgpool", in_channels=1, n_classes=len(CLASSES), depth=2
    )
    return build(architecture, torch.Generator().manual_seed(0), heads=(1, 2)).eval()


def plainly(network: DepthNetwork, folder: Path) -> None:
    """Write a network as `truncate` does."""
    save_network(network.truncated(2), folder)


def by_confidence(network: DepthNetwork, folder: Path) -> None:
    """Write a network that half of these images leave at depth 1."""
    exits = [Exit(depth=1, threshold=0.36, temperature=1.5), Exit(depth=2, threshold=0.0, temperature=0.7)]
    save_routed(RoutedNetwork(network, exits), folder)


def by_gates(network: DepthNetwork, folder: Path) -> None:
    """Write a network with gates before its blocks."""
    save_routed(gated(network, hidden=4, generator=torch.Generator().manual_seed(1)), folder)


@pytest.mark.parametrize("write", [plainly, by_confidence, by_gates])
def test_a_folder_answers_as_its_network(
    tmp_path: Path, network: DepthNetwork, images: np.ndarray, write: Callable[[DepthNetwork, Path], None]
) -> None:
    """Bit for bit what the network gives for normalised pixels; a routed one gives its calibrated probabilities."""
    write(network, tmp_path / "model")
    write_json(tmp_path / "model/card.json", CARD)
    loaded = find_source(str(tmp_path / "model")).load(threads=1)
    assert (loaded.model.about.classes, loaded.model.about.platform) == (CLASSES, "pytorch")
    found = answer(loaded.model, images)
    normalised = (torch.from_numpy(images).float() - 255 * 0.3) / (255 * 0.4)
    with torch.inference_mode():
        if write is plainly:
            probabilities = load_network(tmp_path / "model")(normalised).softmax(dim=1)
        else:
            probabilities = load_routed(tmp_path / "model").probabilities(normalised)
    assert torch.equal(torch.from_numpy(found.probabilities), probabilities)


def test_the_exported_file_is_taken_before_the_network(project: Path, network: DepthNetwork, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --model it is export/model.onnx where that is, else model/; a folder with model.onnx stands for the file."""
    plainly(network, project / "model")
    write_json(project / "model/card.json", CARD)
    answers = []
    for chosen in ([], ["--model", "export"], ["--model", "model"]):
        assert main(["predict", "pictures/0.png", "--format", "json", *chosen]) == 0
        answers.append(json.loads(capsys.readouterr().out)["probabilities"])
    (project / "export/model.onnx").unlink()
    assert main(["predict", "pictures/0.png", "--format", "json"]) == 0
    assert answers[0] == answers[1] != answers[2] == json.loads(capsys.readouterr().out)["probabilities"]


@pytest.mark.parametrize("change", [{"mean": []}, {"classes": []}, {"std": [0.0]}, {"height": "8"}])
def test_a_damaged_card_is_refused(
    project: Path, network: DepthNetwork, change: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    """In a line that names the file."""
    plainly(network, project / "model")
    write_json(project / "model/card.json", {**CARD, **change})
    assert main(["predict", "pictures/0.png", "--model", "model"]) == 2
    assert "model/card.json is damaged" in capsys.readouterr().err
