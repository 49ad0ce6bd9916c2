"""Laws of routed and gated networks: what is skipped changes no answer, limits are kept, and what is stored comes back."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from laws.search_data import open_data, prepare_digits, small_config
from odn.errors import DataError, MissingInputError
from odn.models.architecture import Architecture
from odn.models.cost import cost, part_macs
from odn.models.network import DepthNetwork, build
from odn.routing.gated import GatedNetwork, gated
from odn.routing.routed import Exit, RoutedNetwork, confidence, reachable
from odn.routing.stored import load_routed, save_routed
from odn.training.evaluation import reestimate_batchnorm

Make = Callable[..., DepthNetwork]


def exits(*thresholds: float) -> list[Exit]:
    """Return exits at depths 1, 2, …."""
    return [Exit(depth=depth, threshold=one, temperature=1.5) for depth, one in enumerate(thresholds, start=1)]


@pytest.fixture
def network(whole: Architecture, make: Make) -> DepthNetwork:
    """Make a network of four blocks with an exit behind each."""
    return make(whole.at(4), 1, 2, 3, 4)


def medians(network: DepthNetwork, images: Tensor) -> list[float]:
    """Return thresholds that part the images at every exit."""
    return [float(confidence(logits, temperature=1.5).quantile(0.5)) for logits in network.forward_depths(images, (1, 2, 3)).values()]


@torch.no_grad()
def test_threshold_1_everywhere_is_the_deepest_exit_bit_for_bit(network: DepthNetwork, images: Tensor) -> None:
    """No confidence is above 1."""
    routed = RoutedNetwork(network, exits(1, 1, 1, 1)).route(images)
    assert torch.equal(routed.logits, network(images))
    assert routed.exits.tolist() == [4] * len(images)


@torch.no_grad()
def test_threshold_0_is_that_exit_alone_bit_for_bit(network: DepthNetwork, images: Tensor) -> None:
    """Every confidence is above 0."""
    routed = RoutedNetwork(network, exits(1, 0, 1, 1)).route(images)
    assert torch.equal(routed.logits, network(images, 2))
    assert routed.exits.tolist() == [2] * len(images)


@torch.no_grad()
def test_each_image_gets_the_answer_of_its_exit_in_its_place(network: DepthNetwork, images: Tensor) -> None:
    """The batch shrinks, the answers come back in order; alone an image leaves where it leaves in the batch."""
    routes = RoutedNetwork(network, exits(*medians(network, images), 0))
    routed, static = routes.route(images), network.forward_depths(images, (1, 2, 3, 4))
    assert len(set(routed.exits.tolist())) > 2
    wanted = torch.stack([static[depth][place] for place, depth in enumerate(routed.exits.tolist())])
    torch.testing.assert_close(routed.logits, wanted, atol=1e-5, rtol=1e-5)  # other batch sizes may add in another order
    assert [int(routes.route(image[None]).exits) for image in images] == routed.exits.tolist()
    torch.testing.assert_close(routes.probabilities(images).sum(1), torch.ones(len(images)))


@torch.no_grad()
def test_what_has_left_is_not_computed(network: DepthNetwork, images: Tensor) -> None:
    """Each block sees the images that are left, and no more."""
    routes, seen = RoutedNetwork(network, exits(*medians(network, images), 0)), list[int]()
    for block in network.blocks:
        block.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    taken = routes.route(images).exits
    assert seen == [n for n in (int((taken >= depth).sum()) for depth in (1, 2, 3, 4)) if n]


@torch.no_grad()
def test_exits_that_no_image_takes_are_not_kept(network: DepthNetwork, images: Tensor) -> None:
    """Nor what is behind the last; the answers are the same bit for bit."""
    middle = medians(network, images)[0]
    kept = reachable(network, exits(middle, 1, 0, 1))
    assert (kept.network.depth, kept.network.head_depths) == (3, (1, 3))
    assert torch.equal(kept(images), RoutedNetwork(network, exits(middle, 1, 0, 1))(images))


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_outside_0_to_1_is_refused(threshold: float) -> None:
    """The message names the depth and the range."""
    with pytest.raises(ValueError, match="threshold at depth 2: expected a number from 0 to 1"):
        Exit(depth=2, threshold=threshold, temperature=1.0)


@pytest.fixture
def gates(network: DepthNetwork) -> GatedNetwork:
    """Give the network gates."""
    return gated(network, hidden=4, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_open_gates_are_the_network_bit_for_bit(network: DepthNetwork, gates: GatedNetwork, images: Tensor) -> None:
    """And closed ones leave the shortcuts alone."""
    gates.shift = 1e4
    assert torch.equal(gates(images), network(images))
    gates.shift = -1e4
    assert not gates.route(images).is_open.any()


@torch.no_grad()
def test_skipping_residuals_is_what_training_saw(gates: GatedNetwork, images: Tensor) -> None:
    """Only the images whose gate is open go through a residual, and the answers are those of residuals times 0 or 1."""
    scores = gates.gates[0](gates.network.stem(images).mean(dim=(2, 3)))
    gates.shift = -float(scores.quantile(0.5))
    seen: list[int] = []
    gates.network.blocks[0].get_submodule("conv1").register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    routed = gates.route(images)
    assert seen == [int(routed.is_open[:, 0].sum())]
    assert 0 < seen[0] < len(images)
    relaxed, keep = gates.relaxed(images, torch.full((len(images), 4), gates.shift), temperature=1.0)
    torch.testing.assert_close(routed.logits, relaxed, atol=1e-5, rtol=1e-5)
    assert torch.equal(keep > 0.5, routed.is_open)


@torch.no_grad()
def test_routes_come_back_from_their_files(network: DepthNetwork, gates: GatedNetwork, images: Tensor, tmp_path: Path) -> None:
    """Of both kinds, bit for bit, and written again they are the same bytes."""
    gates.shift = 0.25
    made: dict[str, RoutedNetwork | GatedNetwork] = {
        "confidence": RoutedNetwork(network, exits(*medians(network, images), 0)),
        "gate": gates,
    }
    for name, routes in made.items():
        save_routed(routes, tmp_path / name)
        back = load_routed(tmp_path / name)
        assert torch.equal(back(images), routes(images))
        save_routed(back, tmp_path / "again" / name)
        for path in (tmp_path / name).iterdir():
            assert (tmp_path / "again" / name / path.name).read_bytes() == path.read_bytes()


def test_a_damaged_routing_is_refused(network: DepthNetwork, tmp_path: Path) -> None:
    """Missing, cut short, of an unknown kind, with a threshold out of range, with an exit that has no head."""
    path = tmp_path / "routing.json"
    with pytest.raises(MissingInputError, match="run 'odn route' first"):
        load_routed(tmp_path)
    save_routed(RoutedNetwork(network, exits(0.5, 0.5, 0.5, 0)), tmp_path)
    good = json.loads(path.read_text())
    faults = {"from 0 to 1": good | {"exits": [good["exits"][0] | {"threshold": 2}]}, "Input tag 'luck'": good | {"kind": "luck"}}
    faults |= {"have a head": good | {"exits": [good["exits"][0] | {"depth": 9}]}, "is damaged": []}
    for message, content in faults.items():
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=message):
            load_routed(tmp_path)
    path.write_text('{"kind"')
    with pytest.raises(DataError, match="is damaged"):
        load_routed(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 10**9}, "gate.hidden must be less than or equal to 65536; got 1000000000"),
        ({"hidden": 3}, "gates.safetensors is damaged: for 0.first.bias it holds"),
        ({"hidden": 0}, "gate.hidden must be greater than or equal to 1; got 0"),
        ({"shift": float("nan")}, "gate.shift must be a finite number; got nan"),
        ({"shift": "0"}, "gate.shift must be a valid number; got '0'"),
    ],
)
def test_gates_that_do_not_fit_are_refused(gates: GatedNetwork, tmp_path: Path, change: dict[str, object], message: str) -> None:
    """Before they are allocated; and a file that is cut short is damaged."""
    save_routed(gates, tmp_path)
    path = tmp_path / "routing.json"
    good = json.loads(path.read_text())
    path.write_text(json.dumps(good | change))
    with pytest.raises(DataError, match=message):
        load_routed(tmp_path)
    path.write_text(json.dumps(good))
    (tmp_path / "gates.safetensors").write_bytes((tmp_path / "gates.safetensors").read_bytes()[:-1])
    with pytest.raises(DataError, match="gates.safetensors is damaged: .* delete it and run 'odn route --kind gate' again"):
        load_routed(tmp_path)


def test_macs_by_part_are_those_of_the_whole(network: DepthNetwork, whole: Architecture) -> None:
    """An exit's body and head are what a network cut there takes."""
    parts = part_macs(network, 64, 64)
    for depth in (1, 4):
        body = parts.stem + sum(parts.residuals[:depth]) + sum(parts.shortcuts[:depth])
        assert body + parts.heads[depth] == cost(whole.at(depth), 64, 64).macs


def test_statistics_are_of_every_residual(tmp_path: Path) -> None:
    """BatchNorm is re-estimated as in training, on all images, whichever gates are closed."""
    config = small_config()
    digits = open_data(config, prepare_digits(config, tmp_path))
    made = [gated(build(digits.backbone.at(3), torch.Generator().manual_seed(0)), hidden=4, generator=torch.Generator()) for _ in range(2)]
    for network, bias in zip(made, (-50.0, 50.0), strict=True):
        for gate in network.gates:
            gate.second.bias.data.fill_(bias)  # type: ignore[union-attr,operator]
        reestimate_batchnorm(network, digits.train, augment=config.augment, machine=digits.machine)
    closed, opened = (network.network.blocks[0].state_dict() for network in made)
    assert torch.equal(closed["bn1.running_mean"], opened["bn1.running_mean"])
    assert float(closed["bn1.num_batches_tracked"]) > 0
