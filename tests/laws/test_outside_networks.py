"""What holds for the networks of timm and torchvision, a small one of every family: taken apart they compute what they are."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import vision_transformer

from odn.backbones import facts
from odn.models.architecture import Architecture
from odn.models.catalogue import row
from odn.models.cost import cost, cost_of
from odn.models.layouts import LAYOUTS, layout_of, place_of_classifier
from odn.models.network import DepthNetwork, build
from odn.models.outside import model_of
from odn.models.pretrained import with_weights
from odn.models.stored_networks import load_network, save_network, weights_digest

N_CLASSES = 5
NETWORKS: dict[str, dict[str, Any]] = {  # one of every row of the table at least
    "timm/resnet18": {},
    "timm/seresnext26d_32x4d": {},
    "timm/regnety_002": {},
    "timm/tf_efficientnet_lite0": {},
    "timm/mobilenetv2_050": {},
    "timm/mobilenetv3_small_050": {},
    "timm/repvgg_a0": {},
    "timm/mobileone_s0": {},
    "timm/mobilevit_xxs": {},
    "timm/convnext_atto": {},
    "timm/convnextv2_atto": {},
    "timm/vit_tiny_patch16_224": {},
    "timm/deit_tiny_patch16_224": {"global_pool": "avg"},
    "torchvision/resnet18": {},
    "torchvision/mobilenet_v2": {},
    "torchvision/mobilenet_v3_small": {},
    "torchvision/efficientnet_b0": {},
    "torchvision/convnext_tiny": {},
    "torchvision/vit_b_32": {},
}
each_network = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture
def narrow_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give torchvision's vision transformer an eighth of its width: its smallest has 86 million parameters, and is built often here."""
    full = vision_transformer._vision_transformer
    narrow = {"num_heads": 3, "hidden_dim": 96, "mlp_dim": 384}
    monkeypatch.setattr(vision_transformer, "_vision_transformer", lambda **arguments: full(**(arguments | narrow)))


def described(name: str, *, side: int = 64, in_channels: int = 3) -> Architecture:
    """Describe a network for images of a size, random weights."""
    known, arguments = facts(name), dict(NETWORKS[name])
    n_blocks = known.n_blocks
    if known.sized is not None:
        arguments[known.sized] = side
    return Architecture(
        family=name.partition("/")[0], name=name, arguments=arguments, in_channels=in_channels, n_classes=N_CLASSES,
        n_blocks=n_blocks, depth=n_blocks,
    )  # fmt: skip


def original(architecture: Architecture) -> nn.Module:
    """Make the library's own network, with statistics in its norms as if it had been trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = model_of(architecture, n_classes=N_CLASSES).eval()
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
    return model


def ours(architecture: Architecture, model: nn.Module, *, heads: range | None = None) -> DepthNetwork:
    """Make our network with the weights of the library's, its classifier among them."""
    known = with_weights(architecture, model.state_dict(), shown_as="the original")
    network = build(known, torch.Generator().manual_seed(0), heads=heads).eval()
    classifier = model.get_submodule(place_of_classifier(model, layout_of(model, library=architecture.family)))
    with torch.no_grad():
        for name, tensor in classifier.state_dict().items():
            network.head(network.depth).get_parameter(name).copy_(tensor)
    return network


def images(side: int, *, channels: int = 3) -> Tensor:
    """Draw two images."""
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


def test_every_family_has_a_network_here() -> None:
    """No row of the table is without a test."""
    found = set()
    for name in NETWORKS:
        with torch.device("meta"):
            found.add((name.partition("/")[0], type(model_of(described(name))).__name__))
    assert found == set(LAYOUTS)


@each_network
@pytest.mark.usefixtures("narrow_transformer")
def test_full_depth_is_the_library_s_own_network(name: str) -> None:
    """At two sizes of images the logits are equal, bit for bit, and so is the number of parameters."""
    for side in (64, 96):
        architecture = described(name, side=side)
        model = original(architecture)
        network = ours(architecture, model)
        with torch.no_grad():
            assert torch.equal(network(images(side)), model(images(side)))
    assert cost(architecture, 96, 96).n_params == sum(parameter.numel() for parameter in model.parameters())


@each_network
@pytest.mark.usefixtures("narrow_transformer")
def test_truncated_is_the_prefix(name: str) -> None:
    """A prefix gives the logits that the whole network gives at its depth, bit for bit, and is what is built at that depth."""
    architecture = described(name)
    depths = range(1, architecture.n_blocks + 1)
    network = build(architecture, torch.Generator().manual_seed(0), heads=depths).eval()
    with torch.no_grad():
        logits = network.forward_depths(images(64), depths)
        for depth in sorted({1, architecture.n_blocks // 2, architecture.n_blocks}):
            kept = network.truncated(depth)
            assert torch.equal(kept(images(64)), logits[depth])
            built = build(architecture.at(depth), torch.Generator().manual_seed(0)).eval()
            mine, theirs = ({key: tensor for key, tensor in one.state_dict().items() if key[:6] != "heads."} for one in (built, kept))
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(tensor, theirs[key]) for key, tensor in mine.items())


@each_network
@pytest.mark.usefixtures("narrow_transformer")
def test_a_prefix_is_saved_and_read_again(name: str, tmp_path: Path) -> None:
    """By its description and safetensors alone; what is read gives the same logits."""
    architecture = described(name)
    network = build(architecture.at(max(1, architecture.n_blocks // 2)), torch.Generator().manual_seed(0)).eval()
    save_network(network, tmp_path)
    read = load_network(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"architecture.json", "weights.safetensors"}
    assert weights_digest(read) == weights_digest(network)
    with torch.no_grad():
        assert torch.equal(read(images(64)), network(images(64)))


@pytest.mark.parametrize("name", ["timm/tf_efficientnet_lite0", "timm/vit_tiny_patch16_224", "timm/convnext_atto"])
def test_costs_of_all_depths_are_those_of_each(name: str) -> None:
    """The costs of a prefix, which are read off the whole network, are what counting the prefix itself gives."""
    architecture = described(name)
    for depth in (1, architecture.n_blocks // 2, architecture.n_blocks):
        network = build(architecture.at(depth), torch.Generator().manual_seed(0))
        assert cost(architecture.at(depth), 64, 64) == cost_of(network, 64, 64)


@each_network
def test_the_table_says_what_the_library_makes(name: str) -> None:
    """Blocks, parameters and stride in backbones.json are those of the installed library."""
    known = facts(name)
    with torch.device("meta"):
        model = original_as_published(name)
    found = row(model, library=name.partition("/")[0])
    assert found == {"n_blocks": known.n_blocks, "n_params": known.n_params, "stride": known.stride, "sized": known.sized}


def original_as_published(name: str) -> nn.Module:
    """Make the library's network with its own arguments."""
    architecture = Architecture(family=name.partition("/")[0], name=name, arguments={}, in_channels=3, n_classes=1000, n_blocks=1, depth=1)
    return model_of(architecture, n_classes=1000)
