"""Growing a network keeps what it has learnt, exactly where that is possible."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from odn.models.architecture import Architecture
from odn.models.expansion import Init, carried, expanded, inherited_names
from odn.models.network import DepthNetwork, build
from odn.models.resnet_shapes import resnet_architecture

Make = Callable[..., DepthNetwork]
INITS: tuple[Init, ...] = ("zero", "copy")


def grow(network: DepthNetwork, depth: int, *, init: Init = "zero", **more: torch.Tensor | tuple[int, ...]) -> DepthNetwork:
    """Expand with a generator of a fixed seed."""
    return expanded(network, depth, init=init, generator=torch.Generator().manual_seed(3), **more)  # type: ignore[arg-type]


def changes_group(network: DepthNetwork) -> bool:
    """Say whether the last block begins a group."""
    return not isinstance(network.blocks[network.depth - 1].shortcut, nn.Identity)


def test_expansion_keeps_the_logits(whole: Architecture, images: torch.Tensor, make: Make) -> None:
    """Block by block to full depth: bit for bit inside a group, within 1e-5 where the group changes (sums in another order)."""
    network = make(whole.at(1))
    logits = network(images)
    for depth in range(2, whole.n_blocks + 1):
        network = grow(network, depth)
        grown = network(images)
        assert torch.allclose(grown, logits, rtol=0, atol=1e-5) if changes_group(network) else torch.equal(grown, logits)
        logits = grown


def test_expansion_inside_a_group_keeps_the_logits_in_training(whole: Architecture, images: torch.Tensor, make: Make) -> None:
    """With batch statistics too a new block inside a group changes nothing, bit for bit."""
    network = make(whole.at(1)).train()
    grown = grow(network, 2)
    assert grown.training
    assert torch.equal(grown(images), copy.deepcopy(network)(images))


def test_many_blocks_at_once_keep_the_logits(whole: Architecture, images: torch.Tensor, make: Make) -> None:
    """From depth 1 to full depth in one step, over three changes of group."""
    network = make(whole.at(1))
    torch.testing.assert_close(grow(network, whole.n_blocks)(images), network(images), rtol=0, atol=1e-5)


def test_example_images_keep_the_logits_in_training(whole: Architecture, images: torch.Tensor, make: Make) -> None:
    """With `images`, BatchNorm at a changed group is an identity in train mode on those images, and in eval mode on any."""
    network = make(whole.at(1))
    grown = grow(network, whole.n_blocks, images=images)
    torch.testing.assert_close(grown(images), network(images), rtol=0, atol=1e-5)
    torch.testing.assert_close(grown.train()(images), copy.deepcopy(network).train()(images), rtol=1e-3, atol=1e-4)


def test_nothing_that_is_new_is_dead(whole: Architecture, images: torch.Tensor, make: Make) -> None:
    """Beyond a changed group every new channel is active, and its column in the head learns from the first step."""
    network = make(whole.at(1), 1)
    grown = grow(network, whole.n_blocks, images=images).train()
    grown(images).square().sum().backward()
    gradient = grown.get_parameter(f"heads.{whole.n_blocks}.weight").grad
    n_old = network.get_parameter("heads.1.weight").shape[1]
    assert gradient is not None
    assert gradient[:, n_old:].abs().amax(dim=0).gt(0).all()


def test_every_new_tensor_learns_within_three_steps(whole: Architecture, images: torch.Tensor, make: Make) -> None:
    """Gradients open one after the other: the head's new columns, the last gamma, the convolutions behind it."""
    grown = grow(make(whole.at(1)), whole.n_blocks, images=images).train()
    start = {name: parameter.detach().clone() for name, parameter in grown.named_parameters()}
    for _ in range(3):
        grown.zero_grad()
        nn.functional.cross_entropy(grown(images), torch.arange(len(images)) % whole.n_classes).backward()
        for parameter in grown.parameters():
            assert parameter.grad is not None
            parameter.data.sub_(parameter.grad, alpha=0.1)
    assert [name for name, parameter in grown.named_parameters() if torch.equal(parameter, start[name])] == []


@pytest.mark.parametrize("init", INITS)
def test_old_blocks_are_copied_whatever_the_init(whole: Architecture, make: Make, init: Init) -> None:
    """Stem and old blocks keep every weight and buffer, in memory of their own."""
    network = make(whole.at(2))
    old, new = network.state_dict(), grow(network, whole.n_blocks, init=init).state_dict()
    for name in (name for name in old if not name.startswith("heads.")):
        assert torch.equal(new[name], old[name])
        assert new[name].data_ptr() != old[name].data_ptr()


@pytest.mark.parametrize("init", INITS)
def test_the_new_head_is_the_old_one_widened(whole: Architecture, make: Make, init: Init) -> None:
    """[W, 0]: old columns as they were, new ones 0, the bias as it was."""
    network = make(whole.at(1))
    grown = grow(network, whole.n_blocks, init=init)
    old, new = network.get_parameter("heads.1.weight"), grown.get_parameter(f"heads.{whole.n_blocks}.weight")
    n_old = old.shape[1]
    assert torch.equal(new[:, :n_old], old)
    assert not new[:, n_old:].any()
    assert torch.equal(grown.get_parameter(f"heads.{whole.n_blocks}.bias"), network.get_parameter("heads.1.bias"))


def test_copy_copies_the_block_before(whole: Architecture, make: Make) -> None:
    """Block 3 of the whole backbone's first groups copies what has its shape in block 2; a first block of a group is fresh."""
    network = make(whole.at(whole.n_blocks - 2))
    grown = grow(network, whole.n_blocks - 1, init="copy")
    before, new = (grown.blocks[depth - 1].state_dict() for depth in (whole.n_blocks - 2, whole.n_blocks - 1))
    alike = [name for name in new if name in before and new[name].shape == before[name].shape]
    same = [name for name in alike if torch.equal(new[name], before[name])]
    fresh = not isinstance(grown.blocks[whole.n_blocks - 2].shortcut, nn.Identity)
    assert ("conv2.weight" in same) is not fresh
    assert fresh or same == alike


def test_inherited_names_lead_to_the_old_parameters(whole: Architecture, make: Make) -> None:
    """Old blocks keep their names, the new head comes from the old head, and new blocks come from nowhere."""
    network = make(whole.at(1))
    names = inherited_names(network, grow(network, 3))
    assert names["blocks.0.conv1.weight"] == "blocks.0.conv1.weight"
    assert (names["heads.3.weight"], names["heads.3.bias"]) == ("heads.1.weight", "heads.1.bias")
    assert not any(name.startswith(("blocks.1.", "blocks.2.")) for name in names)


def test_momentum_is_carried_over(whole: Architecture, make: Make) -> None:
    """A tensor per parameter moves to the new names; where the head is wider it goes on with 0."""
    network = make(whole.at(1))
    grown = grow(network, whole.n_blocks)
    moved = carried({name: torch.ones_like(parameter) for name, parameter in network.named_parameters()}, old=network, new=grown)
    head, n_old = moved[f"heads.{whole.n_blocks}.weight"], network.get_parameter("heads.1.weight").shape[1]
    assert moved.keys() == inherited_names(network, grown).keys()
    assert all(tensor.shape == grown.get_parameter(name).shape for name, tensor in moved.items())
    assert head[:, :n_old].eq(1).all()
    assert head[:, n_old:].eq(0).all()


def test_an_odd_map_moves_the_logits_a_little() -> None:
    """On 7 x 7 the pooled map weighs its last row and column more: the change is not exact, as documented, but small."""
    architecture = resnet_architecture("resnet18", stem="cifar", width=1 / 16, shortcut="avgpool", in_channels=1, n_classes=5, depth=2)
    x = torch.randn(8, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    network = build(architecture, torch.Generator().manual_seed(2)).eval()
    logits = network(x)
    assert 1e-5 < (grow(network, 3)(x) - logits).abs().max() < logits.std()


def test_growing_backwards_is_refused(whole: Architecture, make: Make) -> None:
    """A network cannot be expanded to the depth that it has."""
    with pytest.raises(ValueError, match="cannot expand to depth 2"):
        grow(make(whole.at(2)), 2)


@pytest.mark.parametrize("init", INITS)
def test_expansion_draws_from_its_generator_alone(whole: Architecture, images: torch.Tensor, make: Make, init: Init) -> None:
    """One seed gives one grown network, and torch's global random state stays as it was."""
    network, before = make(whole.at(1)), torch.get_rng_state()
    first, same = (grow(network, whole.n_blocks, init=init, images=images).state_dict() for _ in range(2))
    assert all(torch.equal(tensor, same[name]) for name, tensor in first.items())
    assert torch.equal(torch.get_rng_state(), before)
