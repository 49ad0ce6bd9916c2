"""`odn cost`: what the configured backbone costs at every depth."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from odn.commands import cost
from odn.commands.cost import CostTable, run
from odn.config import Config, load_config, make_config
from odn.data.dataset import Manifest
from odn.errors import MissingInputError
from odn.models.cost import cost as models_cost
from odn.models.network import build
from odn.models.resnet_shapes import resnet_architecture
from odn.models.timing import forward_pass, timed

PARAMS = Path(__file__).parents[2] / "params.yaml"


def configured(source: str, *, width: float = 1 / 16, mode: str = "growth") -> Config:
    """Give the repository's own settings with another source, mode, and a width that is quick to time."""
    settings = load_config(PARAMS).model_dump(mode="json")
    settings["data"] |= {"source": source, "root": {"folder": "images", "s3": "s3://bucket/images"}.get(source)}
    settings["model"] |= {"backbone": "resnet18", "width": width}
    settings["train"]["device"] = "cpu"
    settings["search"]["mode"] = mode
    return make_config(settings)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Time on one thread: several only wait for each other where the machine is busy."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def table() -> CostTable:
    """Count and time MNIST, unprepared, once for all tests of its rows and text."""
    return run(configured("mnist"), prepared=Path("nowhere"))


def test_there_is_a_row_for_every_depth(table: CostTable) -> None:
    """Depths 1 to 8 of a ResNet-18, each with counts and a time."""
    assert [row.depth for row in table.rows] == list(range(1, 9))
    assert all(row.ms > 0 for row in table.rows)


def test_a_known_source_needs_no_data(table: CostTable) -> None:
    """The shape of MNIST is known before anything is fetched."""
    shape = table.shape
    assert (shape.n_classes, shape.channels, shape.height, shape.width) == (10, 1, 28, 28)


def test_the_published_counts_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """At full width the text shows 149,322 of 11,172,810 parameters, and 116,057,728 of 455,800,832 MACs."""
    monkeypatch.setattr(cost, "MAX_SECONDS", 0.5)  # the times are not what is looked at
    text = run(configured("mnist", width=1.0), prepared=Path("nowhere")).describe()
    for count in ("149,322", "11,172,810", "116,057,728", "455,800,832", "25.5%"):
        assert count in text


def test_the_text_is_aligned(table: CostTable) -> None:
    """Every line of the table ends in the same column, and the last depth is 100 % of itself throughout."""
    lines = table.describe().split("\n")[2:-2]
    assert len({len(line) for line in lines[1:]}) == 1
    assert lines[-1].split().count("100.0%") == 4


def test_a_ladder_is_printed_with_its_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for every rung, cheapest first, and what each block passes on; the whole backbone is the last."""
    monkeypatch.setattr(cost, "MAX_SECONDS", 0.5)
    table = run(configured("digits", width=0.25, mode="climb"), prepared=Path("nowhere"))
    assert table.describe().split("\n")[3].startswith("   1       4,891    0.7%     20,668    0.7%")
    assert table.rows[0].channels == "10, 10 (3), 12 (4), 15 (4), 18 (5)"
    assert [row.depth for row in table.rows] == list(range(1, 9))
    assert table.rows[-1].cost == models_cost(table.architecture, 8, 8)


def test_prepared_data_decides_the_shape(tmp_path: Path) -> None:
    """Where data of the configured source is prepared, its manifest is believed."""
    Manifest(
        source="folder",
        classes=("cat", "dog", "owl"),
        channels=3,
        height=20,
        width=12,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        counts={split: {"total": 6, "per_class": [2, 2, 2]} for split in ("train", "val", "test")},
        sha256=dict.fromkeys(("train", "val", "test"), "a" * 64),
    ).write(tmp_path / "dataset.json")
    shape = run(configured("folder"), prepared=tmp_path).shape
    assert (shape.n_classes, shape.channels, shape.height, shape.width) == (3, 3, 20, 12)
    assert run(configured("digits"), prepared=tmp_path).shape.height == 8


@pytest.mark.parametrize("source", ["folder", "s3"])
def test_an_unknown_shape_is_refused(source: str, tmp_path: Path) -> None:
    """Own images have to be prepared first: their size and classes are found in them."""
    with pytest.raises(MissingInputError, match=f"{source}.*run 'dvc repro prepare' first"):
        run(configured(source), prepared=tmp_path)


def test_timing_leaves_the_network_alone() -> None:
    """A network that is timed keeps its mode and every buffer."""
    architecture = resnet_architecture("resnet18", stem="cifar", width=0.1, shortcut="avgpool", in_channels=1, n_classes=2, depth=1)
    network = build(architecture, torch.Generator().manual_seed(0)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert timed({"": forward_pass(network, batch_size=2, height=8, width=8)}, seconds=0.1).ms[""] > 0
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
