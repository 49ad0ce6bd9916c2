"""Where the networks of timm and torchvision keep their stem, blocks, pooling, last norm and classifier: a row a family.

A network is taken apart along its row, and the parts compute what the whole does; a law holds every row to that, bit for bit.
N images, C channels, H rows, W columns, T tokens, K classes.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """Name the modules of a family by their places in the network, in the order of computing; `1:-1` is a slice of a list.

    What the originals compute by a function has a name of its own: `average` and `flatten`; of transformers `tokens`, which stands in
    the stem for adding the class token and the positions, and in the tail for taking the class token or the average of the others.
    """

    stem: tuple[str, ...]
    blocks: tuple[str, ...]  # lists of blocks, or of stages of blocks
    tail: tuple[str, ...]  # behind the last block and before the classifier
    classifier: str
    levels: int = 1  # 2: `blocks` are lists of stages
    downsampled: bool = False  # every second stage is a downsampling layer, which is part of the block behind it
    everywhere: bool = False  # the tail stands behind every prefix, with a norm of its own; else there the features are averaged
    sized: str | None = None  # the argument that tells the size of the images, where the weights depend on it


_HEAD = ("head.global_pool", "head.flatten")
_LAYERS = ("layer1", "layer2", "layer3", "layer4")
LAYOUTS = {
    # ResNeXt, SE-, ECA- and Res2Net are of this class too
    ("timm", "ResNet"): Layout(("conv1", "bn1", "act1", "maxpool"), _LAYERS, ("global_pool",), "fc"),
    ("timm", "RegNet"): Layout(("stem",), ("s1", "s2", "s3", "s4"), ("final_conv", *_HEAD), "head.fc"),
    # MobileNetV1 and V2, MnasNet, MixNet, EfficientNet-Lite and V2 too
    ("timm", "EfficientNet"): Layout(("conv_stem", "bn1"), ("blocks",), ("conv_head", "bn2", "global_pool"), "classifier", levels=2),
    # LCNet and MobileNetV4 too
    ("timm", "MobileNetV3"): Layout(
        ("conv_stem", "bn1"), ("blocks",), ("global_pool", "conv_head", "norm_head", "act2", "flatten"), "classifier", levels=2
    ),
    # RepVGG, MobileOne and the hybrid MobileViT
    ("timm", "ByobNet"): Layout(("stem",), ("stages",), ("final_conv", *_HEAD), "head.fc", levels=2),
    # and V2
    ("timm", "ConvNeXt"): Layout(
        ("stem",),
        ("stages",),
        ("norm_pre", "head.global_pool", "head.norm", "head.flatten", "head.pre_logits"),
        "head.fc",
        levels=2,
        everywhere=True,
    ),
    # DeiT too
    ("timm", "VisionTransformer"): Layout(
        ("patch_embed", "tokens", "patch_drop", "norm_pre"),
        ("blocks",),
        ("norm", "tokens", "fc_norm"),
        "head",
        everywhere=True,
        sized="img_size",
    ),
    ("torchvision", "ResNet"): Layout(("conv1", "bn1", "relu", "maxpool"), _LAYERS, ("avgpool", "flatten"), "fc"),
    ("torchvision", "MobileNetV2"): Layout(
        ("features.0",), ("features.1:-1",), ("features.-1", "average", "classifier.:-1"), "classifier.-1"
    ),
    ("torchvision", "MobileNetV3"): Layout(
        ("features.0",), ("features.1:-1",), ("features.-1", "avgpool", "flatten", "classifier.:-1"), "classifier.-1"
    ),
    ("torchvision", "EfficientNet"): Layout(
        ("features.0",), ("features.1:-1",), ("features.-1", "avgpool", "flatten", "classifier.:-1"), "classifier.-1", levels=2
    ),
    ("torchvision", "ConvNeXt"): Layout(
        ("features.0",),
        ("features.1:",),
        ("avgpool", "classifier.:-1"),
        "classifier.-1",
        levels=2,
        downsampled=True,
        everywhere=True,
    ),
    ("torchvision", "VisionTransformer"): Layout(
        ("conv_proj", "tokens", "encoder.dropout"),
        ("encoder.layers",),
        ("encoder.ln", "tokens"),
        "heads.-1",
        everywhere=True,
        sized="image_size",
    ),
}


def layout_of(model: nn.Module, *, library: str) -> Layout:
    """Return the row of a network's family.

    Raises:
        ValueError: there is none, or this network does what no part of the row does.
    """
    kind = type(model).__name__
    layout = LAYOUTS.get((library, kind))
    if layout is None:
        known = ", ".join(name for place, name in LAYOUTS if place == library)
        raise ValueError(f"networks of the class {kind} cannot be cut between blocks; those of {known} can")
    if layout.sized == "img_size":
        pool = "attention" if model.attn_pool is not None else "images of any size" if model.dynamic_img_size else model.global_pool
        if pool not in ("token", "avg"):
            raise ValueError(f"a {kind} that uses {pool!r} cannot be cut; one that takes the class token or the average of tokens can")
    try:
        for path in sorted({*layout.stem, *layout.tail} - {"average", "flatten", "tokens"}):
            _found(model, path)
        if not isinstance(_found(model, layout.classifier), nn.Linear):
            raise ValueError(f"this {kind} has no linear classifier behind its pooling, and cannot be cut")
    except AttributeError as error:
        raise ValueError(f"this {kind} is put together in another way than others, and cannot be cut: {error}") from None
    return layout


def blocks_of(model: nn.Module, layout: Layout) -> list[nn.Module]:
    """List the blocks; what a stage does before its first block is part of that block."""
    lists = [members for path in layout.blocks for members in _members(_found(model, path))]
    if layout.levels == 1:
        return lists
    if not layout.downsampled:
        return [block for stage in lists for block in _stage(stage)]
    first, others = lists[0], zip(lists[1::2], lists[2::2], strict=True)
    return [*_stage(first), *(block for layer, stage in others for block in _stage(stage, ahead=layer))]


def stem_of(model: nn.Module, layout: Layout) -> nn.Module:
    """Return what comes before the first block, in a sequence."""
    return nn.Sequential(*(one for path in layout.stem for one in ([_tokens(model)] if path == "tokens" else _modules(model, path))))


def tails_of(model: nn.Module, layout: Layout, *, widths: Sequence[int]) -> list[nn.Module | None]:
    """Return what stands between each block and a classifier; None is an average over positions. `widths` are those of the blocks."""
    tail = [one for path in layout.tail for one in ([_pooling(model)] if path == "tokens" else _modules(model, path))]
    inner = [nn.Sequential(*(_resized(one, width) for one in tail)) if layout.everywhere else None for width in widths[:-1]]
    return [*inner, nn.Sequential(*tail)]


def n_features(model: nn.Module, layout: Layout) -> int:
    """Return how many features the classifier reads."""
    return int(_found(model, layout.classifier).in_features)  # type: ignore[union-attr, arg-type]


def place_of_classifier(model: nn.Module, layout: Layout) -> str:
    """Return the name that the classifier has among the modules of the network."""
    classifier = _found(model, layout.classifier)
    return str(next(name for name, module in model.named_modules() if module is classifier))


class Average(nn.Module):
    """Average over positions: (N, C, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the averages."""
        return x.mean(dim=(2, 3))


class Tokens(nn.Module):
    """Put the class token before those of the patches, and add the positions: (N, C, H, W) or (N, T, C) -> (N, 1 + T, C)."""

    def __init__(self, ahead: Sequence[nn.Parameter], positions: nn.Parameter | None, *, all_have_positions: bool) -> None:
        super().__init__()
        self.ahead, self.positions = nn.ParameterList(ahead), positions
        self.all_have_positions = all_have_positions  # else those of the patches alone

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens."""
        x = x.flatten(2).transpose(1, 2) if x.ndim == 4 else x
        if self.positions is not None and not self.all_have_positions:
            x = x + self.positions
        x = torch.cat([*(token.expand(x.shape[0], -1, -1) for token in self.ahead), x], dim=1) if len(self.ahead) else x
        return x + self.positions if self.positions is not None and self.all_have_positions else x


class TokenPool(nn.Module):
    """Take the first token, or average all from number `first` on: (N, T, C) -> (N, C)."""

    def __init__(self, first: int | None) -> None:
        super().__init__()
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        return x[:, 0] if self.first is None else x[:, self.first :].mean(dim=1)


def _tokens(model: nn.Module) -> Tokens:
    if hasattr(model, "class_token") and isinstance(model.class_token, nn.Parameter):  # torchvision's
        return Tokens([model.class_token], model.encoder.pos_embedding, all_have_positions=True)  # type: ignore[arg-type, union-attr]
    ahead = [token for token in (model.cls_token, model.reg_token) if token is not None]
    return Tokens(ahead, model.pos_embed, all_have_positions=not model.no_embed_class)  # type: ignore[arg-type]


def _pooling(model: nn.Module) -> TokenPool:
    if getattr(model, "global_pool", "token") == "token":
        return TokenPool(None)
    return TokenPool(0 if model.pool_include_prefix else int(model.num_prefix_tokens))  # type: ignore[arg-type]


def _stage(stage: nn.Module, *, ahead: nn.Module | None = None) -> Iterator[nn.Module]:
    """Yield the blocks of a stage, the first with the layer `ahead` of it, or with the downsampling layer that the stage has itself."""
    first, *others = _members(stage.blocks if hasattr(stage, "blocks") else stage)
    layer = ahead if ahead is not None else getattr(stage, "downsample", None)
    yield first if layer is None or isinstance(layer, nn.Identity) else nn.Sequential(layer, first)
    yield from others


def _modules(model: nn.Module, path: str) -> list[nn.Module]:
    """Return the modules at a place, without those that change nothing."""
    if path in ("average", "flatten"):
        return [Average() if path == "average" else nn.Flatten(1)]
    found = _found(model, path)
    return [one for one in (found if isinstance(found, list) else [found]) if not isinstance(one, nn.Identity)]


def _found(model: nn.Module, path: str) -> nn.Module | list[nn.Module]:
    found: nn.Module | list[nn.Module] = model
    for part in path.split("."):
        if ":" in part:
            begin, end = (int(number) if number else None for number in part.split(":"))
            found = _members(found)[begin:end]
        elif part.lstrip("-").isdigit():
            found = _members(found)[int(part)]
        else:
            found = getattr(found, part)
    return found


def _members(found: object) -> list[nn.Module]:
    return found if isinstance(found, list) else list(found.children())  # type: ignore[attr-defined]


def _resized(module: nn.Module, width: int) -> nn.Module:
    """Return a copy of a part of the tail; a norm of other channels becomes a new one of `width`."""
    shape = getattr(module, "normalized_shape", None)
    if shape is None or tuple(shape) == (width,):
        return copy.deepcopy(module)
    return type(module)(width, eps=module.eps)
