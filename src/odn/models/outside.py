"""Networks of timm and torchvision as families: how they are described, checked and made. Torch and the libraries when one is made."""

import functools
import json
import re
from typing import TYPE_CHECKING, Any

from odn.errors import ConfigError
from odn.models.architecture import Architecture
from odn.models.prefixes import Parts, Prefixes, is_plain

if TYPE_CHECKING:
    from torch import nn

NAME = re.compile(r"(timm|torchvision)/[a-z0-9_]+(\.[a-z0-9_]+)?")
LIBRARIES = ("timm", "torchvision")
TAKEN = frozenset(  # arguments that are said otherwise, or that read files and addresses
    [
        "cache_dir",
        "checkpoint_path",
        "exportable",
        "features_only",
        "in_chans",
        "model_name",
        "no_jit",
        "num_classes",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "progress",
        "scriptable",
        "weights",
        "weights_backbone",
    ]
)


class Outside(Prefixes):
    """Make the networks of a library by its own constructors, and take them apart as `odn.models.layouts` says."""

    knows_meta = True

    def __init__(self, library: str) -> None:
        self.library = library

    def check(self, architecture: Architecture) -> None:
        """Hold the name to the library, and the arguments to what a file can hold and a constructor of blocks takes."""
        if not NAME.fullmatch(architecture.name) or architecture.name.partition("/")[0] != self.library:
            raise ValueError(f"name: expected {self.library}/NAME; got {architecture.name!r}")
        require_arguments(architecture.arguments)

    def parts(self, architecture: Architecture) -> Parts:
        """Make the network, with the weights that the description holds if it does, and keep the blocks that are asked for."""
        from odn.models.layouts import blocks_of, layout_of, n_features, stem_of, tails_of

        model = model_of(architecture)
        weights = getattr(architecture, "weights", None)
        if weights is not None and not next(model.parameters()).is_meta:
            model.load_state_dict(weights, strict=False)  # what is missing is the classifier: see `pretrained.fitted`
        try:
            layout, depth = layout_of(model, library=self.library), architecture.depth
        except ValueError as error:
            raise ConfigError(f"model.backbone: {architecture.name}: {error}") from None
        blocks = blocks_of(model, layout)
        if len(blocks) != architecture.n_blocks:
            raise ConfigError(
                f"model.arguments: {architecture.name} has {architecture.n_blocks} blocks, and {len(blocks)} with "
                f"{architecture.arguments}; leave out what changes their number"
            )
        key = architecture.name, architecture.in_channels, json.dumps(architecture.arguments, sort_keys=True)
        inner, last = _widths(*key), n_features(model, layout)
        tails = tails_of(model, layout, widths=inner)
        return Parts(stem_of(model, layout), blocks[:depth], [*inner[:-1], last][:depth], tails[:depth])


def require_arguments(arguments: dict[str, Any]) -> None:
    """Refuse arguments that are no plain JSON, or that say what is said otherwise.

    Raises:
        ValueError: a line that names the argument.
    """
    for name, value in arguments.items():
        if name in TAKEN:
            raise ValueError(f"arguments: {name} is not one that describes the blocks of a network; leave it out")
        if not is_plain(value):
            raise ValueError(f"arguments: {name} must be plain JSON; got {value!r}")


def model_of(architecture: Architecture, *, n_classes: int = 1) -> "nn.Module":
    """Make the library's own network; its classifier is not used.

    Raises:
        ConfigError: the library is not there, has no such network, or its constructor refuses the arguments.
    """
    library, _, name = architecture.name.partition("/")
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in architecture.arguments.items()}
    try:
        if library == "timm":
            timm = imported_timm()
            return timm.create_model(name, num_classes=n_classes, in_chans=architecture.in_channels, **arguments)  # type: ignore[no-any-return]
        return _of_torchvision(name, n_classes=n_classes, in_channels=architecture.in_channels, arguments=arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError, AttributeError) as error:
        given = f" with the arguments {architecture.arguments}" if arguments else ""
        raise ConfigError(f"model.backbone: {architecture.name} cannot be made{given}: {' '.join(str(error).split())}") from None


def imported_timm() -> Any:
    """Import timm.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise ConfigError("model.backbone: the networks of timm need timm; install it: pip install 'odn[timm]'") from None
    return timm


def _of_torchvision(name: str, *, n_classes: int, in_channels: int, arguments: dict[str, Any]) -> "nn.Module":
    import torchvision
    from torch import nn

    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=n_classes, **arguments)
    if in_channels != 3:  # its constructors read RGB alone
        place, first = next((place, one) for place, one in model.named_modules() if isinstance(one, nn.Conv2d))
        parent, _, own = place.rpartition(".")
        options: dict[str, Any] = {key: getattr(first, key) for key in ("kernel_size", "stride", "padding", "dilation")}
        setattr(model.get_submodule(parent), own, nn.Conv2d(in_channels, first.out_channels, bias=first.bias is not None, **options))
    return model


@functools.lru_cache(maxsize=64)
def _widths(name: str, in_channels: int, arguments: str) -> tuple[int, ...]:
    """Count the channels behind each block, by a forward pass of shapes alone."""
    import torch

    from odn.models.layouts import blocks_of, layout_of, stem_of

    library, given = name.partition("/")[0], json.loads(arguments)
    described = Architecture(family=library, name=name, arguments=given, in_channels=in_channels, n_classes=1, n_blocks=1, depth=1)
    with torch.device("meta"), torch.no_grad():
        model = model_of(described).eval()
        layout = layout_of(model, library=library)
        size = given.get(layout.sized, 224) if layout.sized else 64
        height, width = size if isinstance(size, list) else (size, size)
        x, found = stem_of(model, layout)(torch.zeros(1, in_channels, height, width)), []
        for block in blocks_of(model, layout):
            x = block(x)
            found.append(int(x.shape[1] if x.ndim == 4 else x.shape[2]))
    return tuple(found)
