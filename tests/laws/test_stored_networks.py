"""A network on disk is the network that was saved, or is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from odn.errors import DataError, MissingInputError, OdnError
from odn.models.architecture import Architecture, Cut, CutBlock
from odn.models.cost import cost
from odn.models.network import DepthNetwork, build
from odn.models.resnet_family import ResNet
from odn.models.resnet_shapes import block_shapes, cut_of, resnet_architecture
from odn.models.stored_networks import load_network, load_weights, save_network, save_weights
from odn.training.state import TrainState

Make = Callable[..., DepthNetwork]
FILES = ("architecture.json", "weights.safetensors")
SMALL = resnet_architecture("resnet18", stem="cifar", width=1 / 16, shortcut="avgpool", in_channels=1, n_classes=3, depth=2)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Give a folder that holds a small network of depth 2."""
    save_network(build(SMALL, torch.Generator().manual_seed(0)), tmp_path)
    return tmp_path


def test_a_loaded_network_is_the_saved_one_bit_for_bit(whole: Architecture, images: torch.Tensor, make: Make, tmp_path: Path) -> None:
    """Architecture, heads, every tensor and the logits come back; the loaded network is in eval mode."""
    network = make(whole, 1, whole.depth)
    save_network(network, tmp_path)
    loaded = load_network(tmp_path)
    assert (loaded.architecture, loaded.head_depths, loaded.training) == (whole, (1, whole.depth), False)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert torch.equal(loaded(images), network(images))


def test_saving_twice_gives_the_same_bytes(whole: Architecture, make: Make, tmp_path: Path) -> None:
    """Neither the memory format nor a round trip over the disk changes a byte."""
    network = make(whole)
    save_network(network, tmp_path / "once")
    save_network(load_network(tmp_path / "once"), tmp_path / "loaded")
    save_network(network.to(memory_format=torch.channels_last), tmp_path / "twice")
    for file in FILES:
        once = (tmp_path / "once" / file).read_bytes()
        assert once == (tmp_path / "loaded" / file).read_bytes() == (tmp_path / "twice" / file).read_bytes()


def test_the_description_is_plain(saved: Path) -> None:
    """`architecture.json` holds the seven fields of an architecture, and the weights lie beside it; nothing is pickled."""
    assert json.loads((saved / "architecture.json").read_text()) == SMALL.to_dict()
    assert {path.name for path in saved.iterdir()} == set(FILES)


def test_weights_can_be_kept_apart(saved: Path) -> None:
    """A second set of weights of the same network goes into a file of its own."""
    other = build(SMALL, torch.Generator().manual_seed(1))
    save_weights(other, saved / "state.safetensors")
    network = load_network(saved)
    load_weights(network, saved / "state.safetensors")
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(saved: Path, file: str) -> None:
    """A network that is not there yet is a missing input, with the way out."""
    (saved / file).unlink()
    with pytest.raises(MissingInputError, match=rf"{file} is missing; run 'dvc repro'"):
        load_network(saved)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_torn_file_is_refused(saved: Path, file: str, share: float) -> None:
    """A file that ends too early is damaged, wherever it was cut."""
    content = (saved / file).read_bytes()
    (saved / file).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=file):
        load_network(saved)


def changed(field: str, value: object) -> dict[str, object]:
    """Return the small network's description with one field, or one of its arguments, changed."""
    described = SMALL.to_dict()
    if field in described or field == "expansion":
        return described | {field: value}
    return described | {"arguments": described["arguments"] | {field: value}}


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("family", "resnest", "family: must be one of .*resnet.*; got 'resnest'"),
        ("name", "resnet19", "name: must be one of resnet18, resnet34, resnet50; got 'resnet19'"),
        ("n_blocks", 9, "n_blocks: resnet18 has 8 blocks; got 9"),
        ("depth", 9, "from 1 to 8, the blocks of resnet18"),
        ("depth", True, "depth must be a valid integer; got True"),
        ("width", "1.0", "arguments: width must be a valid number; got '1.0'"),
        ("stem", None, "arguments: stem must be 'cifar' or 'imagenet'; got None"),
        ("shortcut", "none", "arguments: shortcut must be 'avgpool' or 'conv'; got 'none'"),
        ("expansion", 4, "unknown field expansion"),
        ("arguments", {"stem": "cifar"}, "arguments: width is missing"),
    ],
)
def test_a_wrong_description_is_refused(saved: Path, field: str, value: object, complaint: str) -> None:
    """A description that names no network says which field is wrong."""
    (saved / "architecture.json").write_text(json.dumps(changed(field, value)))
    with pytest.raises(DataError, match=complaint):
        load_network(saved)


@pytest.mark.parametrize(
    ("field", "value"), [("n_classes", 4), ("in_channels", 3), ("width", 0.125), ("depth", 1), ("depth", 3), ("stem", "imagenet")]
)
def test_weights_of_another_network_are_refused(saved: Path, field: str, value: object) -> None:
    """Weights that do not fit their description are never loaded in part."""
    (saved / "architecture.json").write_text(json.dumps(changed(field, value)))
    with pytest.raises(DataError, match=r"weights\.safetensors"):
        load_network(saved)


ABSURD: dict[str, tuple[str, Any]] = {
    "classes": ("n_classes", 10**9),
    "width": ("width", 1e4),
    "widest": ("width", 4),
    "channels": ("in_channels", 2**20),
    "more classes than fit": ("n_classes", 10**30),
    "stem": ("cut", {"stem": 2**20, "blocks": [{"number": 1, "inner": [4], "out": 2**20}, {"number": 2, "inner": [4], "out": 2**20}]}),
    "block": ("cut", {"stem": 4, "blocks": [{"number": 1, "inner": [2**20], "out": 4}, {"number": 2, "inner": [2**20], "out": 4}]}),
    "blocks": ("cut", {"stem": 4, "blocks": [{"number": 1, "inner": [4], "out": 4}] * 10_000}),
    "inner": ("cut", {"stem": 4, "blocks": [{"number": 1, "inner": [4] * 10_000, "out": 4}, {"number": 2, "inner": [4], "out": 4}]}),
    "depth": ("depth", 10**9),
}


def test_an_absurd_description_takes_no_memory(saved: Path) -> None:
    """In a process that may take half a gigabyte more, each is refused, as a network's and as a state's, before anything is allocated."""
    from odn.searching.states import write_state

    state, described = saved / "state.safetensors", SMALL.to_dict()
    write_state(state, TrainState.fresh(build(SMALL, torch.Generator().manual_seed(0))))
    program = """
import json, pathlib, resource, sys
from odn.errors import DataError
from odn.models.stored_networks import load_network
from odn.searching.states import read_state
from odn.training.device import Machine
import safetensors.torch, torch

folder, (described, cases) = pathlib.Path(sys.argv[1]), json.load(sys.stdin)
machine = Machine(torch.device("cpu"), "fp32")
read_state(folder / "state.safetensors", machine=machine)
tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load_file(folder / "state.safetensors").items()}
in_use = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**29, in_use + 2**29))
for name, change in cases.items():
    record = {"architecture": described | change, "n_averaged": 0}
    safetensors.torch.save_file(tensors, folder / "state.safetensors", {"odn": json.dumps(record)})
    (folder / "architecture.json").write_text(json.dumps(described | change))
    for read in (lambda: load_network(folder), lambda: read_state(folder / "state.safetensors", machine=machine)):
        try:
            read()
        except DataError as error:
            print(name, len(error.lines), str(error).isprintable())
"""
    command, given = [sys.executable, "-c", program, str(saved)], [described, {name: changed(*one) for name, one in ABSURD.items()}]
    done = subprocess.run(
        command,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{name} 1 True" for name in ABSURD for _ in range(2)]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:8], id="no header"),
        pytest.param(lambda content: b"\xff" * 8 + content[8:], id="a header without end"),
        pytest.param(lambda content: content.replace(b'"F32"', b'"F16"', 1), id="another type"),
        pytest.param(lambda content: content.replace(b'"F32"', b'"XXX"', 1), id="no type"),
        pytest.param(lambda content: content.replace(b"[3,", b"[9,", 1), id="a shape that the bytes do not have"),
        pytest.param(lambda content: content + b"\0", id="a byte more"),
        pytest.param(lambda _: b"\x80\x04K\x01.", id="a pickle"),
    ],
)
def test_a_header_that_lies_is_refused(saved: Path, damage: Callable[[bytes], bytes]) -> None:
    """In one line."""
    path = saved / "weights.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="weights.safetensors") as refused:
        load_network(saved)
    assert len(refused.value.lines) == 1
    assert "\\n" not in str(refused.value)


def test_weights_without_a_head_are_refused(saved: Path) -> None:
    """A file of tensors that belong to no network is not a network."""
    import safetensors.torch

    (saved / "weights.safetensors").write_bytes(safetensors.torch.save({"heads.two.weight": torch.zeros(3, 4)}))
    with pytest.raises(OdnError, match="at least one"):
        load_network(saved)


def test_a_cut_that_cuts_nothing_is_the_backbone(whole: Architecture) -> None:
    """The channels of a cut are those that the shapes are made of: with every one left, tensors and costs are the whole backbone's."""
    shapes = block_shapes(whole)
    blocks = tuple(CutBlock(number=number, inner=shape.inner, out=shape.out_channels) for number, shape in enumerate(shapes, start=1))
    cut = ResNet().with_cut(whole, Cut(stem=shapes[0].in_channels, blocks=blocks))
    ours, theirs = (build(one, torch.Generator().manual_seed(0)).state_dict() for one in (cut, whole))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert cost(cut, 28, 28) == cost(whole, 28, 28)
    assert cut.whole == whole


def test_a_cut_network_comes_back(tmp_path: Path) -> None:
    """Fewer channels, a block that is left out and one that is only its shortcut: what is loaded computes the same, and costs less."""
    blocks = (CutBlock(number=2, inner=(2,), out=3), CutBlock(number=3, inner=(), out=5), CutBlock(number=4, inner=(7,), out=5))
    architecture = ResNet().with_cut(SMALL, Cut(stem=3, blocks=blocks))
    network = build(architecture, torch.Generator().manual_seed(0)).eval()
    save_network(network, tmp_path)
    loaded, images = load_network(tmp_path), torch.randn(2, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    assert loaded.architecture == architecture
    assert torch.equal(loaded(images), network(images))
    assert cut_of(loaded.architecture.at(2)) == Cut(stem=3, blocks=blocks[:2])
    counted = 9 * 9 * (1 * 3 * 9 + 3 * 2 * 9 + 2 * 3 * 9) + 5 * 5 * (3 * 5 + 5 * 7 * 9 + 7 * 5 * 9) + 5 * 3
    assert cost(architecture, 9, 9).macs == counted


@pytest.mark.parametrize(
    "blocks",
    [
        (CutBlock(number=2, inner=(2,), out=3), CutBlock(number=1, inner=(2,), out=3)),
        (CutBlock(number=1, inner=(2,), out=3),),
        (CutBlock(number=1, inner=(0,), out=3), CutBlock(number=2, inner=(2,), out=3)),
        (CutBlock(number=1, inner=(2, 2), out=3), CutBlock(number=2, inner=(2,), out=3)),
        (CutBlock(number=1, inner=(2,), out=4), CutBlock(number=2, inner=(2,), out=4)),
    ],
)
def test_an_impossible_cut_is_refused(blocks: tuple[CutBlock, ...]) -> None:
    """Blocks out of order or too few, no channel at all, a convolution too many, a shortcut that cannot pass its input on."""
    with pytest.raises(ValueError, match="cut"):
        build(
            resnet_architecture("resnet18", width=1 / 16, in_channels=1, n_classes=3, depth=2, cut=Cut(stem=3, blocks=blocks)),
            torch.Generator(),
        )
