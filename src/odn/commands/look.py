"""Look at a pretrained backbone before anything is trained: how well a linear probe on its frozen features does at every depth.

Reads: work/prepared/dataset.json, work/prepared/train, work/prepared/val, work/pretrained
Writes: look/look.json, look/depths.csv, look/look.png
Config: seed, data, model, train, augment, search, climb
"""

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from odn.config import Config
from odn.data.batches import n_steps, training_batches
from odn.files import new_folder, write_json
from odn.models.cost import Cost, cost
from odn.models.network import build
from odn.models.timing import part_latencies
from odn.report.look import draw_look
from odn.sanitize import sanitized
from odn.searching.data import SearchData, costs_at, opened
from odn.searching.folder import SearchFolder
from odn.searching.records import write_table
from odn.searching.statistics import wilson_interval
from odn.storage import Objects
from odn.training.depth_task import DepthTask, Phase
from odn.training.fit import Position
from odn.training.probes import Features, Read, probe, read_features
from odn.training.seed import generator
from odn.training.state import TrainState

MOST_SUGGESTED = 6  # depths of a schedule: each may cost a whole training
TOLD_SECONDS = 5.0  # between two lines on how far reading is


@dataclass(frozen=True, kw_only=True)
class LookRow:
    """Hold what one depth knows without training, and what it costs."""

    depth: int
    val_accuracy: float
    val_correct: int
    n_val: int
    n_params: int
    size_bytes: int
    macs: int
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """Say which depths to try, and which accuracy to ask for."""

    schedule: tuple[int, ...]
    target: float
    depth: int  # the shallowest whose frozen features do as well as the best ones, within a standard error
    why: str


@dataclass(frozen=True, kw_only=True)
class Look:
    """Hold a row for every depth, and what follows from them."""

    backbone: str
    source: str
    rows: tuple[LookRow, ...]
    n_train: int
    seconds: float
    epoch_seconds: tuple[float, ...]  # of training at each depth of the suggested schedule
    epochs: int  # at each of them
    suggestion: Suggestion

    def describe(self) -> str:
        """Return the table as text, with the settings that it suggests."""
        heads = ("depth", "probe, % of val", "parameters", "bytes", "MACs", "ms")
        lines = [
            (
                f"{row.depth}",
                f"{row.val_accuracy:.2%}",
                f"{row.n_params:,}",
                f"{row.size_bytes:,}",
                f"{row.macs:,}",
                f"{row.latency_ms:.2f}",
            )
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in (heads, *lines)) for column in range(len(heads))]
        table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in (heads, *lines)]
        title = f"{self.backbone} on {self.source}: a linear probe on frozen features, fitted to {self.n_train:,} images of train"
        suggested = self.suggestion
        schedule = ", ".join(f'"{d}": {{after: {b}}}' for d, b in zip(suggested.schedule, (0, *suggested.schedule), strict=False))
        note = f"One head at each depth. ms: one image, block by block. Read and fitted in {self.seconds:.0f} s. {suggested.why}"
        settings = ["search:", f"  target: {suggested.target:g}", f"  schedule: {{{schedule}}}"]
        return "\n".join([*map(sanitized, (title, "", *table, "", note, "")), *settings, "", self._time_needed()])

    def _time_needed(self) -> str:
        """Say how long the suggested search may take: where it ends earlier, less."""
        schedule, seconds = self.suggestion.schedule, self.epoch_seconds
        return (
            f"Training takes about {_spoken(seconds[0])} an epoch at depth {schedule[0]} on this machine, {_spoken(seconds[-1])} at depth "
            f"{schedule[-1]}; {_spoken(self.epochs * sum(seconds))} for {self.epochs} epochs (climb.epochs) at each depth of the schedule, "
            "less where the search ends before its last. Smaller images (data.image_size) take less."
        )


def run(config: Config, *, prepared: Path, search: SearchFolder, out: Path) -> Look:
    """Return what each depth knows, and write it.

    Raises:
        MissingInputError: data is not prepared, or the weights are not there; 'dvc repro prepare open' makes both.
        OutputError: the place of the folder holds what odn did not write.
    """
    began = time.monotonic()
    data = opened(prepared, config=config, objects=Objects, weights=search.pretrained)
    whole, manifest = data.backbone, data.manifest
    size = {"height": manifest.height, "width": manifest.width}
    network = data.machine.to_device(build(whole, generator(config.seed, "weights"), heads=range(1, whole.n_blocks + 1)))
    features = {
        name: _features(read_features(network, split, machine=data.machine), name=name)
        for name, split in (("train", data.train), ("val", data.val))
    }
    times = part_latencies(network, **size, device=data.machine.device.type)
    rows = []
    for depth in range(1, whole.n_blocks + 1):
        train, val = ((features[name].by_depth[depth - 1], features[name].labels) for name in ("train", "val"))
        n_correct, _ = probe(train, val, n_classes=manifest.n_classes)
        rows.append(_row(depth, n_correct, n=len(val[1]), counted=cost(whole.at(depth), **size), ms=sum(times[: depth + 1]) + times[-1]))
    suggestion = suggest(rows)
    n_train = len(features["train"].labels)
    look = Look(
        backbone=config.model.backbone,
        source=config.data.name,
        rows=tuple(rows),
        n_train=n_train,
        seconds=time.monotonic() - began,
        epoch_seconds=epoch_seconds(suggestion.schedule, data=data, config=config),
        epochs=config.climb.epochs,
        suggestion=suggestion,
    )
    with new_folder(out) as folder:
        write_json(folder / "look.json", asdict(look) | {"data_sha256": dict(manifest.sha256)})
        write_table(folder / "depths.csv", [asdict(row) for row in rows])
        draw_look(
            folder / "look.png", rows=[asdict(row) for row in rows], title=f"{look.backbone} on {look.source}", depth=suggestion.depth
        )
    return look


def suggest(rows: Sequence[LookRow]) -> Suggestion:
    """Return the depths to try and the target: what the best frozen features reach, which training should reach with fewer blocks.

    The schedule begins where a probe makes at most three times the errors of the best, as training the blocks removes errors of a shallow
    depth first, and steps up to the best depth by about equal factors of cost.
    """
    best = max(rows, key=lambda row: (row.val_accuracy, -row.depth))
    error = 1 - best.val_accuracy
    standard = (best.val_accuracy * error / best.n_val) ** 0.5
    enough = next(row.depth for row in rows if row.val_accuracy >= best.val_accuracy - standard)
    first = next(row.depth for row in rows if 1 - row.val_accuracy <= 3 * max(error, standard))
    candidates = [row.depth for row in rows if first <= row.depth <= best.depth]
    steps = min(MOST_SUGGESTED, len(candidates))
    chosen = sorted({candidates[round(i * (len(candidates) - 1) / max(1, steps - 1))] for i in range(steps)})
    low, high = wilson_interval(best.val_correct, best.n_val, confidence=0.95)
    target = int(best.val_accuracy * 200) / 200
    why = (
        f"Frozen, depth {best.depth} is best: {best.val_accuracy:.2%} ({low:.2%} to {high:.2%}); depth {enough} is within a standard "
        f"error. Training should reach as much with fewer blocks. Suggested settings:"
    )
    return Suggestion(schedule=tuple(chosen), target=min(max(target, 0.005), 0.995), depth=enough, why=why)


def epoch_seconds(schedule: Sequence[int], *, data: SearchData, config: Config) -> tuple[float, ...]:
    """Return about how long an epoch of training takes at each depth: a step is timed at the first and the last, the others by MACs."""
    steps = n_steps(data.train, batch_size=config.train.batch_size)

    def measured(depth: int) -> float:
        state = TrainState.fresh(data.machine.to_device(build(data.backbone.at(depth), generator(config.seed, "weights"))))
        phase = Phase(name="anneal", depth=depth, epochs=1, seed=config.seed, warmup_epochs=0)
        task = DepthTask(state, phase, settings=config.train, machine=data.machine, steps=steps)
        task.begin(Position(epoch=1, step=0, steps=steps))
        batches = training_batches(
            data.train, batch_size=config.train.batch_size, augment=config.augment, generator=generator(config.seed, "look")
        )
        for _ in range(min(2, steps)):  # the first compiles kernels
            began = time.monotonic()
            _, loss = task.learn(*next(batches))
            loss.item()  # waits for a GPU
        return steps * (time.monotonic() - began)

    first, last = measured(schedule[0]), measured(schedule[-1])
    macs = [costs_at(data.backbone.at(depth), data.manifest).macs for depth in schedule]
    slope = (last - first) / max(1, macs[-1] - macs[0])
    return tuple(max(0.0, first + slope * (one - macs[0])) for one in macs)


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _row(depth: int, n_correct: int, *, n: int, counted: Cost, ms: float) -> LookRow:
    return LookRow(
        depth=depth,
        val_accuracy=n_correct / n,
        val_correct=n_correct,
        n_val=n,
        n_params=counted.n_params,
        size_bytes=counted.size_bytes,
        macs=counted.macs,
        latency_ms=ms,
    )


def _features(events: Iterable[Read | Features], *, name: str) -> Features:
    """Read to the end, saying how far it is where that takes long."""
    told = began = time.monotonic()
    for event in events:
        if isinstance(event, Features):
            return event
        now = time.monotonic()
        if now - told > TOLD_SECONDS:
            left = (now - began) * (event.of / event.done - 1)
            sys.stderr.write(f"odn: {name}: {event.done:,} of {event.of:,} images read, about {left:.0f} s left\n")
            told = now
    raise AssertionError("reading ends with the features")
