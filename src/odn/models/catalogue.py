"""Write `backbones.json`, the table of the networks that can be cut, from the installed timm and torchvision: `make backbones`."""

import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from odn.backbones import TABLE
from odn.files import write_text
from odn.models.layouts import blocks_of, layout_of
from odn.models.outside import imported_timm

MOST_PARAMS = 1_000_000_000
MODULES = ("byobnet", "convnext", "deit", "efficientnet", "mobilenetv3", "mobilevit", "regnet", "resnet", "vision_transformer")  # of timm
PREFIXES = ("convnext", "efficientnet", "mobilenet", "resnet", "resnext", "vit", "wide_resnet")  # of torchvision's names


def rows(library: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each network of a library that can be cut, with what the table says of it."""
    names, make = _timm() if library == "timm" else _torchvision()
    for name in names:
        with torch.device("meta"):
            model = make(name)
        found = row(model, library=library)
        if found is not None:
            yield f"{library}/{name}", found | _trained_on(model, name=name, library=library)


def row(model: nn.Module, *, library: str) -> dict[str, Any] | None:
    """Count the blocks, the parameters and the stride of a network; None where it cannot be cut."""
    n_params = sum(parameter.numel() for parameter in model.parameters())
    if n_params > MOST_PARAMS:
        return None
    try:
        layout = layout_of(model, library=library)
    except ValueError:
        return None
    return {"n_blocks": len(blocks_of(model, layout)), "n_params": n_params, "stride": _stride(model), "sized": layout.sized}


def _stride(model: nn.Module) -> int:
    """Return the pixels of an image that one position of the last map stands for."""
    stages: Any = getattr(model, "feature_info", None)
    patch: Any = getattr(model, "patch_size", 32)
    return int(stages[-1]["reduction"] if stages is not None else patch)


def _timm() -> tuple[list[str], Any]:
    timm = imported_timm()
    return sorted({name for module in MODULES for name in timm.list_models(module=module)}), timm.create_model


def _torchvision() -> tuple[list[str], Any]:
    import torchvision

    models = torchvision.models
    names = [name for name in models.list_models(module=models) if name.startswith(PREFIXES)]
    return names, lambda name: models.get_model(name, weights=None)


def _trained_on(model: nn.Module, *, name: str, library: str) -> dict[str, Any]:
    """Return size, mean and deviation of the images that the weights were trained on, by tag where a tag has others."""
    if library == "torchvision":
        return {"size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "tags": {}}
    timm = imported_timm()
    cfg: Any = model.pretrained_cfg
    usual = _images(cfg)
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
    first = cfg.get("tag", "")
    ordered = sorted(tags, key=lambda tag: (tag != first, tag))
    others = {tag: _images(timm.get_pretrained_cfg(f"{name}.{tag}").to_dict()) for tag in ordered}
    return {**usual, "tags": {tag: {key: value for key, value in one.items() if value != usual[key]} for tag, one in others.items()}}


def _images(cfg: Any) -> dict[str, Any]:
    return {"size": int(cfg["input_size"][-1]), "mean": [float(one) for one in cfg["mean"]], "std": [float(one) for one in cfg["std"]]}


def write() -> None:
    """Write the table, a network a line."""
    found = dict(sorted((name, one) for library in ("timm", "torchvision") for name, one in rows(library)))
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(one, separators=(',', ':'))}" for name, one in found.items())
    write_text(TABLE, "{\n" + lines + "\n}\n")


if __name__ == "__main__":
    write()
