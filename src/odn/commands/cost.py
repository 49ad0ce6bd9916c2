"""Count and time every network that a search may try: the rungs of a ladder, or the depths of the backbone; the command `odn cost`.

Reads: work/prepared/dataset.json, where there is one
Writes: nothing
Config: data, model, train, growth, search
"""

from dataclasses import dataclass
from pathlib import Path

from odn.config import Config
from odn.data.dataset import read_manifest
from odn.data.sources import SOURCES
from odn.errors import MissingInputError
from odn.models.architecture import Architecture
from odn.models.configured import configured
from odn.models.cost import Cost, cost
from odn.models.ladder import ladder_of
from odn.models.network import build
from odn.models.resnet_shapes import cut_of
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
    """Hold what one rung or depth costs, with one head: counted, and measured for a batch of one image."""

    depth: int
    channels: str  # of the stem and of each block, for a person
    cost: Cost
    ms: float


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """Hold a row for every rung or depth, cheapest first."""

    unit: str
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
            f"{network.name}{f' ({arguments})' if arguments else ''} on {shape.source}: {shape.n_classes} classes, "
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
                row.channels,
            )
            for row in self.rows
        ]
        heads = (self.unit, "parameters", "", "bytes", "", "MACs", "", "ms", "", "channels" if self.unit == "rung" else "")
        widths = [max(len(line[column]) for line in (heads, *lines)) for column in range(len(heads) - 1)]
        table = [
            "  ".join([*(cell.rjust(width) for cell, width in zip(line[:-1], widths, strict=True)), line[-1]]).rstrip()
            for line in (heads, *lines)
        ]
        note = (
            "One head. Bytes: parameters and BatchNorm's buffers. MACs: multiply-accumulates for one image. "
            f"ms: one image on {self.device}, float32, the least of {self.timing.passes} passes. %: of the whole backbone."
            f"{' Channels: of the stem, then of what each block passes on (and of its inner convolutions).' if self.unit == 'rung' else ''}"
            f"{' The machine was busy: measure again when it is not.' if self.timing.busy else ''}"
        )
        return "\n".join(map(sanitized, (title, "", *table, "", note)))


def run(config: Config, *, prepared: Path) -> CostTable:
    """Return what every rung or depth costs on the configured data: the prepared data's shape, else what is known of the source.

    Raises:
        MissingInputError: the source's shape is only known once it is prepared.
    """
    shape = shape_of(config, prepared=prepared)
    size = {"height": shape.height, "width": shape.width}
    first = configured(config, in_channels=shape.channels, n_classes=shape.n_classes, **size)
    ladder = dict(enumerate(ladder_of(first, config=config, **size), start=1))
    device = choose_machine(config.train, macs=cost(first, **size).macs).device.type
    calls = {
        str(number): forward_pass(build(one, generator(config.seed, "cost")), batch_size=1, **size, device=device)
        for number, one in ladder.items()
    }
    timing = timed(calls, seconds=MAX_SECONDS)
    rows = [
        CostRow(depth=number, channels=_channels(one), cost=cost(one, **size), ms=timing.ms[str(number)]) for number, one in ladder.items()
    ]
    return CostTable(unit=config.unit, architecture=first, shape=shape, device=device, timing=timing, rows=tuple(rows))


def _channels(architecture: Architecture) -> str:
    """Write the channels of a network that was cut: `10, 13 (4), 16 (5)`; nothing for a prefix."""
    cut = cut_of(architecture) if architecture.family == "resnet" else None
    blocks = [] if cut is None else [f"{block.out} ({'-'.join(map(str, block.inner))})" for block in cut.blocks]
    return "" if cut is None else ", ".join([str(cut.stem), *blocks])


def shape_of(config: Config, *, prepared: Path) -> Shape:
    """Return what the configured data's images are like: the prepared ones, else what is known of the source.

    Raises:
        MissingInputError: the source's shape is only known once it is prepared.
    """
    name, path = config.data.source, prepared / "dataset.json"
    if path.exists():
        manifest = read_manifest(path)
        if manifest.source == name:
            height, width = manifest.height, manifest.width
            return Shape(source=config.data.name, n_classes=manifest.n_classes, channels=manifest.channels, height=height, width=width)
    if name not in SOURCES:
        raise MissingInputError(
            f"{path} does not describe data.source {name}, so its classes and image size are unknown; run 'dvc repro prepare' first"
        )
    source = SOURCES[name]
    return Shape(source=name, n_classes=source.n_classes, channels=source.channels, height=source.height, width=source.width)


def _with_share(count: int, full: int) -> tuple[str, str]:
    return f"{count:,}", f"{count / full:.1%}"
