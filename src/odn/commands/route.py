"""Give each image a depth of its own: fit exits, or train gates, of a network that has several exits; the command `odn route`.

Reads: work/prepared/dataset.json, work/prepared/train, work/prepared/val, work/prepared/test, work/depths
Writes: nothing of the pipeline's; routed/KIND beside it, and routed/latency.json
Config: all

Test is read once, when everything is chosen, and chooses nothing.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from odn.config import Config
from odn.data.batches import on_device
from odn.data.dataset import verified_split
from odn.errors import ConfigError
from odn.files import new_folder, require_own_folder, write_bytes
from odn.follow import follow
from odn.report.routing import Mark, draw_routing
from odn.routing.by_confidence import fit_confidence
from odn.routing.by_gate import fit_gates
from odn.routing.clock import wall_clock
from odn.routing.found import Found, Point
from odn.routing.given import measured_times, read_supernet
from odn.routing.routed import RoutedNetwork
from odn.routing.targets import Target
from odn.routing.written import static_points, write_found
from odn.searching.data import SearchData, opened
from odn.searching.strategy import Checkpoints
from odn.storage import Objects
from odn.tracking.registry import Registration
from odn.tracking.routed import register_routed

Kind = Literal["confidence", "gate"]


@dataclass(frozen=True, kw_only=True)
class RouteSummary:
    """Hold what a person is told of a routing."""

    folder: Path
    card: dict[str, Any]
    static: tuple[Point, ...]
    clock: dict[str, Any]
    registration: Registration | None
    segments: str | None = None  # what came of exporting it


def run(
    config: Config,
    *,
    kind: Kind,
    target: Target,
    prepared: Path,
    supernet: Path,
    out: Path,
    progress: Path,
    register: bool = True,
    export: bool = False,
) -> RouteSummary:
    """Fit on val (gates: train on train), measure, write routed/KIND, and register the model unless told not to.

    `export` also writes it as ONNX, a graph from each exit to the next, proved equal on val: routed/KIND/segments.

    Raises:
        MissingInputError: data is not prepared, or there is no network with several exits.
        DataError: the network is damaged, or not for this data.
        ConfigError: nothing meets the target; the message says the nearest that can be had. Or gates are to be exported.
        ExportError: the segments do not compute what the routed network computes.
        OutputError: routed/KIND holds what odn did not write.
        TrackingError: MLflow cannot be reached; what was fitted stays.
    """
    require_own_folder(out / kind)
    if export and kind == "gate":
        raise ConfigError("--export: gates decide before each block, which would be a graph a block; export --kind confidence")
    data = opened(prepared, config=config, objects=Objects)
    given = read_supernet(supernet, manifest=data.manifest, machine=data.machine)
    times = None
    if target.unit == "ms":
        settings: dict[str, Any] = {"manifest": data.manifest, "machine": data.machine, "hidden": config.route.hidden}
        times = measured_times(out / "latency.json", given, **settings)
    test = on_device(
        verified_split(prepared / "test", manifest=data.manifest, objects=Objects), manifest=data.manifest, device=data.machine.device
    )
    if kind == "confidence":
        found = fit_confidence(given, target=target, times=times, data=data, test=test, config=config)
    else:
        with contextlib.ExitStack() as held:
            kept: dict[str, Any] = {"config": config, "checkpoints": Checkpoints(progress, config=config, held=held, inputs=[given.sha256])}
            events = fit_gates(given, target=target, times=times, data=data, test=test, **kept)
            found = follow(events, Found, config=config, data=data, live=False)
    static = static_points(given, val=data.val, test=test)
    with new_folder(out / kind) as folder:
        about: dict[str, Any] = {"supernet": given, "manifest": data.manifest, "config": config, "beside": out}
        card, points = write_found(folder, found, kind=kind, target=target, static=static, **about)
        for split in ("val", "test"):
            write_bytes(folder / f"curve_{split}.png", _drawn(points, split=split, n_images=card[f"n_{split}"]))
        clocked: dict[str, Any] = {"folder": folder, "before": out / kind / "wall_clock.json", "supernet": given}
        fp32 = replace(data.machine, precision="fp32")
        clock = wall_clock(folder / "wall_clock.json", found.routes, val=data.val, machine=fp32, **clocked)
        segments = _segments(found, folder / "segments", prepared=prepared, data=data) if export else None
    done = register_routed(out / kind, card=card, manifest=data.manifest, config=config) if register else None
    return RouteSummary(folder=out / kind, card=card, static=static, clock=clock, registration=done, segments=segments)


def _segments(found: Found, folder: Path, *, prepared: Path, data: SearchData) -> str:
    from odn.export.segments import prove, time_segments, write_segments

    assert isinstance(found.routes, RoutedNetwork), "gates are not exported"
    images = verified_split(prepared / "val", manifest=data.manifest, objects=Objects).images
    record = write_segments(found.routes, folder, manifest=data.manifest)
    about: dict[str, Any] = {"manifest": data.manifest, "threads": data.machine.threads}
    n_edges = prove(folder, found.routes, images, **about)
    times = time_segments(folder, found.routes, images, **about)
    edges = f", {n_edges} of them on the edge of an exit" if n_edges else ""
    return f"{len(record.segments)} segments in ONNX, equal on all {len(images):,} val images{edges}: {times.describe()}"


def _drawn(points: Sequence[Point], *, split: str, n_images: int) -> bytes:
    curves: dict[str, list[Mark]] = {}
    chosen: dict[str, Mark] = {}
    for point in points:
        mark = Mark(getattr(point, f"{split}_macs"), getattr(point, f"{split}_accuracy"), point.name if point.kind == "static" else "")
        if point.name == "target":
            chosen[point.kind] = mark
        else:
            curves.setdefault(point.kind, []).append(mark)
    ordered = {kind: sorted(marks, key=lambda mark: mark.macs) for kind, marks in curves.items()}
    return draw_routing(ordered, chosen, split=split, n_images=n_images)
