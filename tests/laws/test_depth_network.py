"""What holds for every network, whatever its backbone, stem and images."""

import subprocess
import sys
from collections.abc import Callable
from typing import get_args

import pytest
import torch

from odn.config import N_BLOCKS
from odn.models.architecture import Architecture
from odn.models.network import DepthNetwork, build, empty
from odn.models.resnet_shapes import VARIANTS, Shortcut, Stem, resnet_architecture
from odn.sections import ModelConfig

Make = Callable[..., DepthNetwork]


def test_the_zoo_is_what_the_config_knows() -> None:
    """Names and numbers of blocks are told twice, so that a config needs no torch; both say the same."""
    assert {name: backbone.n_blocks for name, backbone in VARIANTS.items()} == N_BLOCKS
    assert set(get_args(ModelConfig.model_fields["backbone"].annotation)) == set(VARIANTS)
    assert get_args(ModelConfig.model_fields["stem"].annotation) == get_args(Stem)


def test_every_backbone_cites_its_paper() -> None:
    """A row of the zoo says where it comes from."""
    assert all(backbone.source.startswith("arXiv ") for backbone in VARIANTS.values())


def test_truncated_is_the_prefix_bit_for_bit(whole: Architecture, images: torch.Tensor, make: Make) -> None:
    """Cutting a network at a depth gives the logits that the whole network gives there."""
    depths = range(1, whole.n_blocks + 1)
    network = make(whole, *depths)
    for depth in depths:
        kept = network.truncated(depth)
        assert torch.equal(kept(images), network(images, depth))
        assert (kept.depth, kept.head_depths, kept.architecture) == (depth, (depth,), whole.at(depth))


def test_truncated_shares_no_memory(whole: Architecture, make: Make) -> None:
    """Training the cut network leaves the one that it was cut from alone."""
    network = make(whole)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for tensor in network.truncated(whole.depth).state_dict().values():
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_one_shared_forward_gives_the_logits_of_every_depth(whole: Architecture, images: torch.Tensor, make: Make) -> None:
    """`forward_depths` equals a forward pass for each depth, bit for bit, and keeps the order asked for."""
    depths = [whole.n_blocks, 1, 3]
    network = make(whole, *depths)
    shared = network.forward_depths(images, depths)
    assert list(shared) == depths
    assert all(torch.equal(logits, network(images, depth)) for depth, logits in shared.items())


def test_a_shared_forward_has_every_gradient(whole: Architecture, images: torch.Tensor, make: Make) -> None:
    """In-place rectifiers overwrite nothing that the backward pass needs: both heads' losses reach every parameter."""
    network = make(whole, whole.depth - 1, whole.depth).train()
    logits = network.forward_depths(images, (whole.depth - 1, whole.depth))
    torch.stack(list(logits.values())).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


def test_memory_format_changes_no_shape(whole: Architecture, images: torch.Tensor, make: Make) -> None:
    """With channels last the logits are the same up to rounding, and a cut network is still its prefix bit for bit."""
    network = make(whole)
    expected = network(images)
    network.to(memory_format=torch.channels_last)
    last = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(last), expected)
    assert torch.equal(network.truncated(whole.depth)(last), network(last))


def test_one_seed_gives_one_network(whole: Architecture) -> None:
    """Equal generators give equal weights; another seed gives others."""
    first, same, other = (build(whole, torch.Generator().manual_seed(seed)).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(tensor, same[name]) for name, tensor in first.items())
    assert not torch.equal(first["stem.conv.weight"], other["stem.conv.weight"])


def test_a_shallow_build_is_the_start_of_a_deep_one(whole: Architecture) -> None:
    """Weights are drawn from the stem on: one seed gives the same stem and first blocks at any depth."""
    shallow, deep = (build(whole.at(depth), torch.Generator().manual_seed(0)).state_dict() for depth in (2, whole.depth))
    common = shallow.keys() & deep.keys()
    assert all(torch.equal(shallow[name], deep[name]) for name in common)
    assert {name for name in shallow if not name.startswith("heads.")} == common


def test_only_what_is_asked_for_is_allocated(whole: Architecture) -> None:
    """A network of depth 2 has two blocks and the head there, whatever the backbone could hold."""
    network = build(whole.at(2), torch.Generator())
    assert (len(network.blocks), network.head_depths) == (2, (2,))


def test_nothing_draws_from_the_global_generator(whole: Architecture) -> None:
    """Making a network leaves torch's global random state as it was."""
    before = torch.get_rng_state()
    build(whole, torch.Generator()).truncated(whole.depth)
    empty(whole, heads=(1,))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_missing_head_is_refused(whole: Architecture, images: torch.Tensor, make: Make) -> None:
    """A depth without a head is a caller's mistake, and the heads that exist are named."""
    network = make(whole)
    for use in (lambda: network(images, 1), lambda: network.truncated(1)):
        with pytest.raises(ValueError, match=rf"heads at \[{whole.depth}\]"):
            use()
    for heads in ((), (0,), (whole.depth + 1,)):
        with pytest.raises(ValueError, match=f"depths from 1 to {whole.depth}"):
            build(whole, torch.Generator(), heads=heads)


def test_networks_are_our_own() -> None:
    """Making, saving and reading a network, or a training state, imports neither torchvision nor torch's compiler: both start slowly."""
    program = """
import pathlib, sys, tempfile, torch
import odn.models.expansion
from odn.models.cost import cost
from odn.models.network import build
from odn.models.resnet_shapes import resnet_architecture
from odn.models.stored_networks import load_network, save_network
from odn.searching.states import read_state, write_state
from odn.training.device import Machine
from odn.training.state import TrainState
small = resnet_architecture("resnet50", stem="cifar", width=0.1, shortcut="conv", in_channels=1, n_classes=2, depth=1)
folder = pathlib.Path(tempfile.mkdtemp())
save_network(build(small, torch.Generator()), folder)
load_network(folder).truncated(1)
cost(small, 8, 8)
state = folder / "state.safetensors"
write_state(state, TrainState.fresh(build(small, torch.Generator())))
read_state(state, machine=Machine(torch.device("cpu"), "fp32"))
print([name for name in ("torchvision", "kornia", "torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("shortcut", ["avgpool", "conv"])
def test_networks_can_be_exported(shortcut: Shortcut) -> None:
    """`torch.export`, which MLflow stores models with, takes a network at a batch size that it has not seen."""
    architecture = resnet_architecture("resnet18", stem="cifar", width=0.1, shortcut=shortcut, in_channels=1, n_classes=3, depth=4)
    network, x = build(architecture, torch.Generator().manual_seed(0)).eval(), torch.ones(2, 1, 9, 9)
    exported = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.testing.assert_close(exported.module()(torch.ones(5, 1, 9, 9)), network(torch.ones(5, 1, 9, 9)))
