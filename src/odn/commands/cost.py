"""Count and time the configured backbone at every depth; the command `odn cost`.

Reads: work/prepared/dataset.json, where there is one
Writes: nothing
Config: data, model, train, growth
"""

from dataclasses import dataclass
from pathlib import Path

from odn.config import Config
from odn.data.dataset import read_manifest
from odn.data.sources import SOURCES
from odn.errors import MissingInputError
from odn.models.architecture import Architecture
from odn.models.cost import Cost, cost
from odn.models.network import build
from odn.models.resnet_shapes import configured
from odn.models.timing import Timing, forward_pass, timed
from odn.sanitize import sanitized
from odn.training.device import choose_machine
from odn.training.seed import generator

MAX_SECONDS = 8.0  # of timing, all depths together


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Say what the images are like: all that a cost depends on beside the backbone."""

    source: str
    n_classes: int
    channels: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """Hold what one depth costs, with one head: counted, and measured for a batch of one image."""

    depth: int
    cost: Cost
    ms: float


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """Hold a row for every depth of the backbone, shallow to deep."""

    architecture: Architecture
    shape: Shape
    device: str
    timing: Timing
    rows: tuple[CostRow, ...]

    def describe(self) -> str:
        """Return the table as text: aligned columns, each number with its share of full depth."""
        network, shape = self.architecture, self.shape
        arguments = ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in network.arguments.items()
        )
        title = (
            f"{network.name} ({arguments}) on {shape.source}: {shape.n_classes} classes, "
            f"images of {shape.channels} × {shape.height} × {shape.width}"
        )
        full = self.rows[-1]
        lines = [
            (
                f"{row.depth}",
                *_with_share(row.cost.n_params, full.cost.n_params),
                *_with_share(row.cost.size_bytes, full.cost.size_bytes),
                *_with_share(row.cost.macs, full.cost.macs),
                f"{row.ms:.2f}",
                f"{row.ms / full.ms:.1%}",
            )
            for row in self.rows
        ]
        heads = ("depth", "parameters", "", "bytes", "", "MACs", "", "ms", "")
        widths = [max(len(line[column]) for line in (heads, *lines)) for column in range(len(heads))]
        table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in (heads, *lines)]
        note = (
            "One head. Bytes: parameters and BatchNorm's buffers. MACs: multiply-accumulates for one image. "
            f"ms: one image on {self.device}, float32, the least of {self.timing.passes} passes. %: of full depth."
            f"{' The machine was busy: measure again when it is not.' if self.timing.busy else ''}"
        )
        return "\n".join(map(sanitized, (title, "", *table, "", note)))


def run(config: Config, *, prepared: Path) -> CostTable:
    """Return what every depth costs on the configured data: the prepared data's shape, else what is known of the source.

    Raises:
        MissingInputError: the source's shape is only known once it is prepared.
    """
    shape = _shape(config, prepared=prepared)
    first = configured(config, in_channels=shape.channels, n_classes=shape.n_classes)
    depths = range(1, first.n_blocks + 1)
    whole = build(first, generator(config.seed, "cost"), heads=depths)
    counted = {depth: cost(first.at(depth), shape.height, shape.width) for depth in depths}
    device = choose_machine(config.train, macs=counted[first.n_blocks].macs).device.type
    size = {"batch_size": 1, "height": shape.height, "width": shape.width}
    timing = timed({str(depth): forward_pass(whole.truncated(depth), **size, device=device) for depth in depths}, seconds=MAX_SECONDS)
    rows = [CostRow(depth=depth, cost=one, ms=timing.ms[str(depth)]) for depth, one in counted.items()]
    return CostTable(architecture=whole.architecture, shape=shape, device=device, timing=timing, rows=tuple(rows))


def _shape(config: Config, *, prepared: Path) -> Shape:
    name, path = config.data.source, prepared / "dataset.json"
    if path.exists():
        manifest = read_manifest(path)
        if manifest.source == name:
            height, width = manifest.height, manifest.width
            return Shape(source=name, n_classes=manifest.n_classes, channels=manifest.channels, height=height, width=width)
    if name not in SOURCES:
        raise MissingInputError(
            f"{path} does not describe data.source {name}, so its classes and image size are unknown; run 'dvc repro prepare' first"
        )
    source = SOURCES[name]
    return Shape(source=name, n_classes=source.n_classes, channels=source.channels, height=source.height, width=source.width)


def _with_share(count: int, full: int) -> tuple[str, str]:
    return f"{count:,}", f"{count / full:.1%}"
