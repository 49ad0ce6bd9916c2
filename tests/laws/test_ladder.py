"""Laws of the ladder: what its rungs are and cost, how a budget caps it, and what a climb keeps."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from laws.search_data import open_data, small_config
from laws.stage_runs import Stages, read
from odn.config import Config, halvings_of, rungs_of
from odn.errors import ConfigError
from odn.models.architecture import Architecture
from odn.models.cost import cost
from odn.models.ladder import STEPS, Metric, Spreadable, fitting, ladder_of, spread
from odn.models.network import DepthNetwork, build
from odn.models.resnet_shapes import block_shapes, resnet_architecture
from odn.models.stored_networks import load_network
from odn.searching.climb import conclude, expand

SIZE = {"height": 28, "width": 28}
COUNTED: dict[Metric, str] = {"bytes": "size_bytes", "macs": "macs", "params": "n_params"}
BACKBONES = [("resnet18", 0.25), ("resnet18", 1.0), ("resnet18", 0.125), ("resnet34", 0.25), ("resnet50", 0.25)]


def backbone(name: str = "resnet18", width: float = 0.25) -> Architecture:
    """Describe a whole backbone for grey images of ten classes."""
    return resnet_architecture(name, in_channels=1, n_classes=10, width=width)


@pytest.mark.parametrize("metric", COUNTED)
@pytest.mark.parametrize(("name", "width"), BACKBONES)
def test_rungs_ascend_to_the_whole_backbone(name: str, width: float, metric: Metric) -> None:
    """Each rung costs more than the one before, at most three times as much of bytes, and the last is the backbone."""
    whole = backbone(name, width)
    rungs = spread(whole, metric=metric, **SIZE)
    assert len(rungs) == rungs_of(name, width=width)
    assert rungs[-1] == whole
    costs = [getattr(cost(one, **SIZE), COUNTED[metric]) for one in rungs]
    factors = [more / less for less, more in pairwise(costs)]
    assert min(factors) > 1
    assert max(factors) < (2.6 if metric == "bytes" else 4)
    assert costs[0] <= costs[-1] / 2 ** halvings_of(name, width=width)


@pytest.mark.parametrize(("name", "width"), BACKBONES)
def test_every_rung_keeps_every_stride(name: str, width: float) -> None:
    """However small, the map is halved as often as in the backbone."""
    for rung in spread(backbone(name, width), metric="bytes", **SIZE):
        assert sum(shape.stride == 2 for shape in block_shapes(rung)) == 3


@pytest.mark.parametrize(("name", "width"), BACKBONES)
def test_what_a_family_counts_is_what_a_network_has(name: str, width: float) -> None:
    """Parameters, bytes and multiply-accumulates by formula are those of the tensors, for every rung and every prefix."""
    whole = backbone(name, width)
    assert isinstance(whole.made_by, Spreadable)
    for one in (*spread(whole, metric="bytes", **SIZE), whole.at(2)):
        counted = cost(one, **SIZE)
        assert whole.made_by.counts(one, **SIZE) == {metric: getattr(counted, name) for metric, name in COUNTED.items()}


@pytest.mark.parametrize(("name", "width"), BACKBONES)
def test_where_macs_count_bytes_are_spent(name: str, width: float) -> None:
    """For the MACs of a small network it has more parameters: later groups are wider, where maps are small."""
    whole = backbone(name, width)
    assert isinstance(whole.made_by, Spreadable)
    few_bytes = whole.made_by.counts(fitting(whole, {"bytes": 60_000}, **SIZE), **SIZE)
    few_macs = whole.made_by.counts(fitting(whole, {"macs": few_bytes["macs"]}, **SIZE), **SIZE)
    assert few_macs["macs"] <= few_bytes["macs"]
    assert few_macs["bytes"] > 1.2 * few_bytes["bytes"]


@pytest.mark.parametrize("metric", COUNTED)
@pytest.mark.parametrize(("name", "width"), BACKBONES)
def test_a_block_works_at_the_full_resolution(name: str, width: float, metric: Metric) -> None:
    """In the smallest network too; and there is one block in each group."""
    shapes = block_shapes(spread(backbone(name, width), metric=metric, **SIZE)[0])
    assert [shape.stride for shape in shapes] == [1, 2, 2, 2]


@pytest.mark.parametrize("most", [{"macs": 1_500_000}, {"macs": 2_100_000}, {"bytes": 1_100_000}, {"params": 275_000}])
def test_where_the_next_block_is_too_much_channels_take_what_is_left(most: dict[Metric, int]) -> None:
    """No budget is left to a tenth, though blocks come whole: the one at the full resolution takes as much as all the others."""
    (metric, limit), family = next(iter(most.items())), backbone().made_by
    assert isinstance(family, Spreadable)
    assert 0.9 * limit < family.counts(fitting(backbone(), most, **SIZE), 28, 28)[metric] <= limit


@pytest.mark.parametrize("few_macs", [False, True])
@pytest.mark.parametrize(("name", "width"), BACKBONES)
def test_a_larger_size_costs_as_much_at_least(name: str, width: float, few_macs: bool) -> None:
    """By every metric: the largest network within a limit is found by halving."""
    family = backbone(name, width).made_by
    assert isinstance(family, Spreadable)
    sizes = [family.spread(backbone(name, width), size=step / STEPS, few_macs=few_macs) for step in range(-2 * STEPS, STEPS + 1)]
    counts = [family.counts(one, 28, 28) for one in sizes]
    assert all(smaller[metric] <= larger[metric] for smaller, larger in pairwise(counts) for metric in COUNTED)


@pytest.mark.parametrize("budget", [{"bytes": 60_000}, {"macs": 500_000}, {"params": 9_000, "macs": 400_000}])
def test_a_budget_is_kept_and_used(budget: dict[Metric, int]) -> None:
    """The network is within every limit, and near one of them."""
    counted = cost(fitting(backbone(), budget, **SIZE), **SIZE)
    shares = [getattr(counted, COUNTED[metric]) / most for metric, most in budget.items()]
    assert 0.85 < max(shares) <= 1


def test_a_budget_beyond_the_backbone_keeps_it() -> None:
    """Nothing larger than the whole backbone is made."""
    assert fitting(backbone(), {"bytes": 10**9}, **SIZE) == backbone()


def test_a_budget_that_nothing_keeps_is_refused() -> None:
    """The smallest network there is says how far."""
    with pytest.raises(ConfigError, match=r"search.max_bytes: 900 is less than the smallest network has, [\d,]+; raise it"):
        fitting(backbone(), {"bytes": 900}, **SIZE)


def test_networks_that_cannot_be_narrowed_have_prefixes_alone() -> None:
    """Modules of somebody's own are refused, with the ladder that they have."""
    own = DepthNetwork(nn.Conv2d(1, 4, 3), [nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)], n_classes=2)
    with pytest.raises(ConfigError, match="search.ladder: networks of the family own cannot be narrowed; set it to prefix"):
        ladder_of(own.architecture, config=climbing(), **SIZE)
    prefixes = ladder_of(own.architecture, config=climbing(ladder="prefix"), **SIZE)
    assert [one.depth for one in prefixes] == [1, 2]


def test_a_rung_is_drawn_and_runs() -> None:
    """The same seed gives the same network, which classifies images."""
    rung = spread(backbone(), metric="bytes", **SIZE)[0]
    first, again = (build(rung, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert first(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def climbing(**search: Any) -> Config:
    """Return small settings of a climb over three rungs."""
    return small_config(search={"mode": "climb", "target": 0.8, "schedule": [1, 2, 3]} | search, climb={"epochs": 12})


def searched(folder: Path, **search: Any) -> Stages:
    """Search through the stages, up to a model."""
    stages = Stages(climbing(**search), folder)
    stages.search()
    stages.truncate()
    return stages


def test_the_smallest_network_that_reached_the_target_is_kept(tmp_path: Path) -> None:
    """Of the accepted rung and what was tried between it and the one before; what missed is never kept."""
    stages = searched(tmp_path, target=0.5)
    record, model = read(tmp_path / "model/search.json"), load_network(tmp_path / "model")
    accepted = read(stages.depths / str(record["depth"]) / "metrics.json")
    reached = [accepted, *(one for one in record["refinements"] if one["reached"])]
    assert 1 <= len(record["refinements"]) <= 2
    assert cost(model.architecture, 8, 8).size_bytes == min(one["size_bytes"] for one in reached)
    assert {entry["phase"] for entry in record["ledger"]} == {"anneal", "refine"}


def test_no_network_between_rungs_is_tried_without_looks(tmp_path: Path) -> None:
    """`search.looks: 0` keeps the rung as it was judged, byte for byte."""
    stages = searched(tmp_path, target=0.5, looks=0)
    rung = read(tmp_path / "model/search.json")["depth"]
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (tmp_path / "model", stages.depths / str(rung))]
    assert weights[0] == weights[1]


def test_with_a_budget_one_network_is_trained_and_kept(tmp_path: Path) -> None:
    """Whatever it reaches; its cost is within the budget, and the reason names it."""
    stages = searched(tmp_path, target=0.999, max_bytes=30_000)
    record = read(tmp_path / "model/search.json")
    assert (record["verdict"], len(record["steps"])) == ("target_reached", 1)
    assert record["reason"].startswith("network is the largest within search.max_bytes 30,000, with ")
    assert record["steps"][0]["size_bytes"] <= 30_000
    assert read(stages.decisions / "1.json")["verdict"] == "target_reached"


def test_a_grid_trains_every_rung(tmp_path: Path) -> None:
    """The ground truth: the first rung that is good enough is kept, and those above it are trained all the same."""
    config = climbing(mode="grid", target=0.3, looks=0)
    stages = Stages(config, tmp_path)
    steps = list(expand(open_data(config, stages.prepared), config))
    assert [one.step.depth for one in steps] == [1, 2, 3]
    assert conclude(steps, data=open_data(config, stages.prepared), config=config).depth == 1
