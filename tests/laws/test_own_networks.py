"""Networks of modules that somebody brings: they are drawn, counted, cut, stored and refused like those that odn knows."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odn.errors import ConfigError, DataError
from odn.models.cost import cost, part_macs
from odn.models.expansion import expanded
from odn.models.families import register
from odn.models.named import backbone
from odn.models.network import DepthNetwork, build, draw
from odn.models.stored_networks import load_network, save_network
from odn.pruning.gates import gates_of
from odn.routing.gated import gated
from odn.supernet.cutting import narrowed_architecture


class Mixer(nn.Module):
    """A block without a shortcut: a biased convolution, and a linear layer across channels."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.linear = nn.Linear(channels, channels, bias=False)
        self.scale = nn.Parameter(torch.empty(channels).uniform_(0.5, 1.5))  # drawn by itself

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        x = F.relu(self.conv(x)).permute(0, 2, 3, 1)
        return self.scale.view(1, -1, 1, 1) * F.relu(self.linear(x)).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """A block of tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        attended: Tensor = self.attention(x, x, x)[0]
        return x + attended


class Patches(nn.Module):
    """A stem that makes tokens of an image."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (N, T, C)."""
        tokens: Tensor = self.conv(x).flatten(2).transpose(1, 2)
        return tokens


def mixers(*, in_channels: int, width: int = 4, blocks: int = 3) -> tuple[nn.Module, list[nn.Module]]:
    """Make stem and blocks."""
    return nn.Conv2d(in_channels, width, 3, padding=1), [Mixer(width, width) for _ in range(blocks)]


def own(*, heads: tuple[int, ...] | None = None) -> DepthNetwork:
    """Make a network of three blocks, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stem, blocks = mixers(in_channels=1)
        return DepthNetwork(stem, blocks, n_classes=3, heads=heads)


@pytest.fixture
def images() -> Tensor:
    """Draw a batch."""
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layer", [nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3, bias=False), nn.Linear(4, 2), nn.Linear(4, 2, bias=False)])
@pytest.mark.parametrize("as_torch", [False, True])
def test_every_tensor_of_a_layer_is_drawn(layer: nn.Module, as_torch: bool) -> None:
    """Whatever was in the memory before is gone, in biases too."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(1e9)
    draw(layer, torch.Generator().manual_seed(0), as_torch=as_torch)
    assert all(bool((parameter.abs() < 10).all()) for parameter in layer.parameters())


def test_a_layer_without_a_rule_is_not_left_undrawn() -> None:
    """It is refused by name."""
    with pytest.raises(ValueError, match="no rule draws the first weights of a LayerNorm"):
        draw(nn.LayerNorm(3), torch.Generator())


def test_blocks_that_draw_themselves_keep_what_they_drew() -> None:
    """From the seed alone, and without touching torch's global generator."""
    register("laws-mixers", mixers)
    before = torch.get_rng_state()
    first, again, other = (backbone("laws-mixers", in_channels=1, n_classes=3, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not any(torch.equal(tensor, other[name]) for name, tensor in first.items())
    assert all(float(first[f"blocks.{number}.scale"].min()) >= 0.5 for number in range(3))


def test_a_built_network_has_the_weights_of_the_modules() -> None:
    """A copy of them: training one leaves the other."""
    network = own()
    made = build(network.architecture.at(2), torch.Generator().manual_seed(0))
    mine = network.state_dict()
    assert all(torch.equal(tensor, mine[name]) for name, tensor in made.state_dict().items() if not name.startswith("heads"))
    assert not {p.data_ptr() for p in made.parameters()} & {p.data_ptr() for p in network.parameters()}


def test_a_prefix_is_cut_bit_for_bit(images: Tensor) -> None:
    """As of any network."""
    network = own(heads=(1, 2, 3)).eval()
    cut = network.truncated(2)
    assert torch.equal(cut(images), network(images, 2))
    assert (cut.depth, cut.head_depths, cut.architecture.depth, cut.architecture.n_blocks) == (2, (2,), 2, 3)


def test_every_operation_is_counted() -> None:
    """Convolutions, linear layers and attention, whether a module or a function computes them."""
    macs = part_macs(own(), 8, 8)
    assert (macs.stem, macs.residuals, macs.heads) == (64 * 9 * 4, (64 * (9 * 16 + 16),) * 3, {3: 12})
    tokens = DepthNetwork(Patches(3, 8), [Attention(8)], n_classes=5)
    projections, products = 4 * 8 * 8 * 16, 2 * 16 * 16 * 8  # 16 tokens of 8
    assert cost(tokens.architecture, 16, 16).macs == 16 * 48 * 8 + projections + products + 8 * 5


def test_it_grows(images: Tensor) -> None:
    """What was there stays; the new block is a copy of the one before."""
    network = own(heads=(1,)).truncated(1).eval()
    grown = expanded(network, 2, init="copy", generator=torch.Generator().manual_seed(0))
    mine = network.state_dict()
    assert all(torch.equal(tensor, mine[name]) for name, tensor in grown.state_dict().items() if name in mine)
    before, new = (grown.blocks[number].state_dict() for number in (0, 1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in new.items())
    assert grown(images).shape == (2, 3)


def test_what_it_cannot_do_is_refused(images: Tensor) -> None:
    """In one line that names the block, what it lacks and what to do."""
    network, draws = own(), torch.Generator()
    with pytest.raises(ConfigError, match=r"growth.init: zero needs .* 1, a Mixer, has no start_silent; set growth.init to copy"):
        expanded(own(heads=(1,)).truncated(1), 2, init="zero", generator=draws)
    with pytest.raises(ConfigError, match=r"search.mode: prune needs"):
        gates_of(network)
    with pytest.raises(ConfigError, match=r"routing by gates needs .* has no .*residual.*; route by confidence"):
        gated(network, hidden=2, generator=draws)
    with pytest.raises(ConfigError, match=r"supernet.widths: networks of the family own cannot be narrowed; set it to \[1.0\]"):
        narrowed_architecture(network.architecture, (0.5,))


def test_a_registered_one_is_rebuilt_from_its_arguments(tmp_path: Path, images: Tensor) -> None:
    """Nothing but a name and plain JSON stands in the file."""
    register("laws-mixers", mixers)
    network = backbone("laws-mixers", in_channels=1, n_classes=3, width=6).truncated(3).eval()
    save_network(network, tmp_path)
    loaded = load_network(tmp_path)
    assert torch.equal(loaded(images), network(images))
    assert (loaded.architecture.family, loaded.architecture.arguments) == ("laws-mixers", {"width": 6})


def test_arguments_are_held_to_the_signature() -> None:
    """A wrong one is named."""
    register("laws-mixers", mixers)
    with pytest.raises(ValueError, match="arguments: .*unexpected keyword argument 'wide'"):
        build(backbone("laws-mixers", in_channels=1, n_classes=3).architecture.__class__(
            family="laws-mixers", name="laws-mixers", arguments={"wide": 1}, in_channels=1, n_classes=3, n_blocks=3, depth=3
        ), torch.Generator())  # fmt: skip


@pytest.mark.parametrize("value", [(4,), torch.float32, float("nan"), {1: 2}])
def test_arguments_are_those_that_a_file_can_hold(value: object) -> None:
    """What comes back as something else is refused before anything is built."""
    register("laws-mixers", mixers)
    with pytest.raises(ValueError, match="arguments: width must be plain JSON"):
        backbone("laws-mixers", in_channels=1, n_classes=3, width=value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own", "must be timm/NAME, .* odn.register made known; got 'own'"),
        ("resnet18", r"odn.resnet\('resnet18', in_channels=1, n_classes=3\)"),
    ],
)
def test_a_name_that_is_not_there_says_what_is(name: str, said: str) -> None:
    """A family has no network of its own name, and residual networks have a function of theirs."""
    with pytest.raises(ValueError, match=f"name: .*{said}"):
        backbone(name, in_channels=1, n_classes=3)


def test_one_that_is_not_registered_is_loaded_into_its_like(tmp_path: Path, images: Tensor) -> None:
    """Without it the error says how; with another network's it says what does not fit."""
    network = own(heads=(2,)).truncated(2).eval()
    save_network(network, tmp_path)
    with pytest.raises(DataError, match=r"modules of somebody's own \(Mixer\).*like=NETWORK"):
        load_network(tmp_path)
    assert torch.equal(load_network(tmp_path, like=own())(images), network(images))
    stem, blocks = mixers(in_channels=1, width=5)
    with pytest.raises(DataError, match=r"does not fit"):
        load_network(tmp_path, like=DepthNetwork(stem, blocks, n_classes=3))


def test_features_are_counted_or_asked_for() -> None:
    """Where no square image passes, the shape of one is asked for."""
    flat = nn.Sequential(nn.Flatten(), nn.Linear(1 * 5 * 7, 6))
    with pytest.raises(ValueError, match="say image_shape"):
        DepthNetwork(flat, [nn.Linear(6, 4)], n_classes=2)
    network = DepthNetwork(flat, [nn.Linear(6, 4)], n_classes=2, image_shape=(1, 5, 7))
    assert network(torch.zeros(3, 1, 5, 7)).shape == (3, 2)
