"""Settings that name a backbone of a library, or a function of one's own."""

import subprocess
import sys

import pytest

from odn.backbones import facts, n_blocks_of, names
from odn.config import Config, settings
from odn.data.normalisation import normalisation
from odn.errors import ConfigError
from odn.models.configured import configured

PREFIX = {"search.ladder": "prefix", "search.schedule": [2, 4]}
LITE = {"model.backbone": "timm/tf_efficientnet_lite0", **PREFIX}


def test_blocks_are_known_without_torch() -> None:
    """A config of a network of timm imports neither torch nor timm."""
    code = (
        "import sys; from odn.config import settings; "
        "c = settings({'model.backbone': 'timm/vit_tiny_patch16_224', 'search.ladder': 'prefix'}); "
        "assert c.n_units == 12 and not {'torch', 'timm'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.backbone": "timm/tf_efficientnet_light0", **PREFIX}, "did you mean timm/tf_efficientnet_lite0"),
        ({"model.backbone": "timm/resnet18.a1_in2k", **PREFIX}, "did you mean timm/resnet18.a1_in1k"),
        ({"model.backbone": "resnet19"}, "model.backbone: must be one of resnet18"),
        ({"model.backbone": "timm/tf_efficientnet_lite0"}, "search.ladder: .* set it to prefix, and search.schedule to depths up to 16"),
        ({**LITE, "search.schedule": [17]}, "depth 17 is beyond the 16 blocks"),
        ({"model.weights": "timm"}, "model.weights: only networks of timm and torchvision have them"),
        ({"model.backbone": "torchvision/resnet18", "model.weights": "timm", **PREFIX}, "timm has none of torchvision/resnet18"),
        ({"data.normalise": "backbone"}, "data.normalise: nobody says"),
        ({"model.arguments": {"depth": 3}}, "model.arguments: resnet18 takes none"),
        ({**LITE, "model.weights": "w.pth", "search.mode": "growth"}, "growth.init: copy would replace pretrained blocks"),
        ({"model.backbone": "module:nowhere.at_all:build", **PREFIX}, "names no function"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    """With the nearest name, or what to set instead."""
    with pytest.raises(ConfigError, match=message):
        settings(changes)


def described(config: Config, *, side: int = 96) -> dict[str, object]:
    """Describe the configured backbone for square RGB images."""
    return configured(config, in_channels=3, n_classes=5, height=side, width=side).to_dict()


def test_transformers_are_made_for_the_size_of_the_images() -> None:
    """Other networks do not depend on it."""
    vit = settings({"model.backbone": "timm/vit_tiny_patch16_224", "model.arguments": {"patch_size": 8}, **PREFIX})
    assert described(vit)["arguments"] == {"patch_size": 8, "img_size": [96, 96]}
    assert described(settings(LITE))["arguments"] == {}


def test_images_smaller_than_the_stride_are_refused() -> None:
    """The message says how large they must be."""
    with pytest.raises(ConfigError, match="images of 28 x 28 pixels are smaller than the stride of timm/tf_efficientnet_lite0, 32"):
        described(settings(LITE), side=28)


def test_arguments_that_read_files_are_refused() -> None:
    """And those that are said otherwise."""
    with pytest.raises(ConfigError, match="checkpoint_path is not one that describes the blocks"):
        described(settings({**LITE, "model.arguments": {"checkpoint_path": "x.pth"}}))


def test_normalisation_follows_the_weights() -> None:
    """By itself where there are weights; said otherwise it does as it is told; grey images take the average of the colours'."""
    weights = {**LITE, "model.weights": "w.pth"}
    assert normalisation(settings(weights), channels=3) == ((0.5,) * 3, (0.5,) * 3)
    assert normalisation(settings(LITE), channels=3) is None
    assert normalisation(settings({**weights, "data.normalise": "data"}), channels=3) is None
    resnet = settings({**weights, "model.backbone": "timm/resnet18"})
    scale = normalisation(resnet, channels=1)
    assert scale is not None
    assert [round(one, 3) for (one,) in scale] == [0.449, 0.226]
    with pytest.raises(ConfigError, match="the images have 4"):
        normalisation(resnet, channels=4)


def test_a_function_of_one_s_own_is_counted() -> None:
    """Its blocks are known, and a description that names it can be built."""
    name = "module:unit.own_blocks:build"
    config = settings({"model.backbone": name, "model.arguments": {"n": 3}, "search.ladder": "prefix", "search.schedule": [1, 3]})
    assert (config.n_units, n_blocks_of(name, {"n": 2})) == (3, 2)
    assert described(config)["family"] == name


def test_the_table_is_of_networks_that_have_blocks() -> None:
    """Every row has at least two, a stride, and images that it was trained on."""
    found = [facts(name) for name in names()]
    assert len(found) > 400
    assert all(one.n_blocks >= 2 and one.stride >= 4 and one.size >= 32 and len(one.mean) == len(one.std) == 3 for one in found)
