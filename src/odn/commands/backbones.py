"""List the backbones that can be cut: blocks, parameters, and MACs on images of the configured data; the command `odn backbones [FILTER]`.

Reads: work/prepared/dataset.json, where there is one
Writes: nothing
Config: data, model
"""

import fnmatch
import os
from dataclasses import dataclass
from pathlib import Path

from odn.backbones import RESNETS, Facts, facts, names
from odn.commands.cost import Shape, shape_of
from odn.config import Config
from odn.errors import ConfigError, MissingInputError

MOST_COUNTED = 24  # networks whose MACs are counted: making one takes a tenth of a second, and importing timm some seconds


@dataclass(frozen=True, kw_only=True)
class BackboneRow:
    """Hold what is known of one backbone; `macs` is None where it was not counted."""

    name: str
    n_blocks: int
    n_params: int | None
    macs: int | None
    size: int | None  # pixels a side, of the images that its weights were trained on
    has_weights: str


@dataclass(frozen=True, kw_only=True)
class BackboneTable:
    """Hold a row a backbone."""

    rows: tuple[BackboneRow, ...]
    shape: Shape | None

    def describe(self) -> str:
        """Return the table as text."""
        shape = self.shape
        at = f"at {shape.height} x {shape.width}" if shape is not None else ""
        heads = ("backbone", "blocks", "parameters", f"MACs {at}".strip(), "trained at", "weights")
        lines = [
            (row.name, f"{row.n_blocks}", _number(row.n_params), _number(row.macs), _number(row.size), row.has_weights) for row in self.rows
        ]
        widths = [max(len(line[column]) for line in (heads, *lines)) for column in range(len(heads) - 1)]
        table = [
            "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:-1], widths[1:], strict=True)), line[-1]]).rstrip()
            for line in (heads, *lines)
        ]
        counted = any(row.macs is not None for row in self.rows)
        why = "" if counted else f" MACs are counted for {MOST_COUNTED} networks or fewer: name a FILTER, such as 'timm/convnext*'."
        note = (
            f"{len(self.rows)} backbones. Parameters: with the classifier of the library. "
            f"Weights: here: in the local cache; hub: model.weights: timm fetches them; none: timm has none.{why}"
        )
        return "\n".join([*table, "", note])


def run(config: Config, *, wanted: str, prepared: Path) -> BackboneTable:
    """Return the backbones whose names hold `wanted`, or match it where it has a star.

    Raises:
        ConfigError: there is none.
    """
    pattern = wanted if "*" in wanted else f"*{wanted}*"
    found = [name for name in (*RESNETS, *names()) if fnmatch.fnmatch(name, pattern)]
    if not found:
        raise ConfigError(f"no backbone that can be cut has {wanted!r} in its name; 'odn backbones' lists all")
    try:
        shape = shape_of(config, prepared=prepared)
    except MissingInputError:  # the table can do without
        shape = None
    counts = len(found) <= MOST_COUNTED and shape is not None
    rows = [_row(name, macs=_macs(name, config=config, shape=shape) if counts and shape is not None else None) for name in found]
    return BackboneTable(rows=tuple(rows), shape=shape if counts else None)


def _row(name: str, *, macs: int | None) -> BackboneRow:
    if name in RESNETS:
        return BackboneRow(name=name, n_blocks=RESNETS[name], n_params=None, macs=macs, size=None, has_weights="none")
    known = facts(name)
    return BackboneRow(name=name, n_blocks=known.n_blocks, n_params=known.n_params, macs=macs, size=known.size, has_weights=_weights(known))


def _macs(name: str, *, config: Config, shape: Shape) -> int | None:
    """Count the whole network on such images; None where they are too small for it."""
    from odn.models.configured import configured
    from odn.models.cost import cost

    model = config.model.model_copy(update={"backbone": name, "arguments": {}, "weights": None})
    size = {"height": shape.height, "width": shape.width}
    try:
        whole = configured(config.model_copy(update={"model": model}), in_channels=shape.channels, n_classes=shape.n_classes, **size)
    except ConfigError:
        return None
    return cost(whole, **size).macs


def _weights(known: Facts) -> str:
    """Say where the weights of a network are: in the cache of the hub, on the hub, or nowhere."""
    library, _, name = known.name.partition("/")
    if library != "timm":
        return "file"
    if not known.tags:
        return "none"
    home = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface") / "hub")
    folder = home / f"models--timm--{name.partition('.')[0]}.{known.tags[0]}" / "snapshots"
    return "here" if any(folder.glob("*/model.safetensors")) else "hub"


def _number(count: int | None) -> str:
    return "" if count is None else f"{count:,}"
