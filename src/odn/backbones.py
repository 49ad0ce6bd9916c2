"""Which backbones there are, and what must be known of one before it is made: its blocks, its parameters, the images it was trained on.

The networks of timm and torchvision stand in a table, `backbones.json`, which `make backbones` writes from the installed libraries: a
stage that trains nothing must not import them, which takes seconds. No torch, but for what a module of somebody's own imports.
"""

import difflib
import functools
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odn.errors import ConfigError

RESNETS = {"resnet18": 8, "resnet34": 16, "resnet50": 16}  # a law holds it equal to the table of variants
PATTERN = r"^(resnet18|resnet34|resnet50|(timm|torchvision)/[a-z0-9_]+(\.[a-z0-9_]+)?|module:[A-Za-z_][\w.]*:[A-Za-z_]\w*)$"
KINDS = (*RESNETS, "timm/NAME", "torchvision/NAME", "module:PACKAGE.MODULE:FUNCTION")
TABLE = Path(__file__).parent / "backbones.json"
Build = Callable[..., Any]
_OWN: dict[str, Build] = {}  # functions that a configuration named: nothing else that is read from a file calls one


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Hold what is known of a network of a library.

    `stride` is of the whole network, in pixels; `size`, `mean` and `std` are those of the images that its weights were trained on.
    """

    name: str
    n_blocks: int
    n_params: int  # with the classifier of the library
    stride: int
    sized: str | None  # the argument that tells the size of the images, where the weights depend on it
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tags: tuple[str, ...]  # of timm's weights, its usual one first; none where it has no weights


def is_outside(backbone: str) -> bool:
    """Return whether a backbone is a library's, with weights that can be had."""
    return "/" in backbone


def can_be_narrowed(backbone: str) -> bool:
    """Return whether the channels of a backbone can be chosen, so that a ladder can spread."""
    return backbone in RESNETS


def names() -> list[str]:
    """List the networks of libraries, in the order of their names."""
    return list(_rows())


def facts(backbone: str) -> Facts:
    """Return what is known of a network of a library; `timm/NAME.TAG` are the weights of that tag.

    Raises:
        ConfigError: there is none of this name; the nearest ones are said.
    """
    name, _, tag = backbone.partition(".")
    row = _rows().get(name)
    if row is None or (tag and tag not in row["tags"]):
        library, known = backbone.partition("/")[0], list(_rows()) if row is None else [f"{name}.{one}" for one in row["tags"]]
        near = difflib.get_close_matches(backbone, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ConfigError(
            f"model.backbone: {library} has no network {backbone} that can be cut; {hint}'odn backbones' lists those that can"
        )
    found: dict[str, Any] = {**row, **row["tags"].get(tag, {}), "tags": list(row["tags"])}
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
    return Facts(name=backbone, **fields)


def n_blocks_of(backbone: str, arguments: Mapping[str, Any]) -> int:
    """Count the blocks of a backbone.

    Raises:
        ConfigError: there is no such backbone.
    """
    if backbone in RESNETS:
        return RESNETS[backbone]
    if is_outside(backbone):
        return facts(backbone).n_blocks
    return _n_own_blocks(backbone, json.dumps(dict(arguments), sort_keys=True))


def own_builds() -> Mapping[str, Build]:
    """Return the functions that configurations named so far."""
    return _OWN


@functools.lru_cache(maxsize=16)
def _n_own_blocks(backbone: str, arguments: str) -> int:
    """Import a function of somebody's own, remember it, and count the blocks that it makes.

    Raises:
        ConfigError: it cannot be imported, or does not take the arguments.
    """
    _, place, name = backbone.split(":")
    try:
        build = getattr(importlib.import_module(place), name)
        inspect.signature(build).bind(in_channels=1, **json.loads(arguments))
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"model.backbone: {backbone} names no function that takes in_channels and model.arguments and returns stem and blocks: {error}"
        ) from None
    _OWN[backbone] = build
    import torch

    with torch.random.fork_rng(devices=[]):  # constructors draw
        return len(build(in_channels=1, **json.loads(arguments))[1])


@functools.cache
def _rows() -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = json.loads(TABLE.read_text())
    return rows
