"""Export a network that images leave early: one ONNX graph from exit to exit, and a reference runner that decides between them.

A runtime computes a graph as a whole (microsoft/onnxruntime#4484), so the decision to leave stands outside: whoever runs the segments on
a device does in their own language what `Segments.run` does here.
Axes: N images, C channels, H rows, W columns, K classes.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from odn.data.dataset import Manifest, Rows
from odn.errors import ExportError
from odn.export.graph import INPUT, Normalise, example_of, pixel_graph, plain, traced
from odn.export.onnx_file import FORMAT_VERSION, onnx_graph, packed
from odn.export.parity import require_equal
from odn.export.runtimes import Logits, Pixels, batch_size, open_session
from odn.files import sha256_of, write_bytes, write_json
from odn.models.network import DepthNetwork
from odn.models.timing import timed
from odn.records import Positive, Record, Sha256, damaged, read_record
from odn.routing.routed import RoutedNetwork, confidence, reachable

RECORD = "segments.json"
SINGLES = 32  # images that are timed one at a time
EDGE = 1e-4  # of a confidence
FEATURES, LOGITS = "features", "logits"  # what a segment hands on, and what it says


@dataclass(frozen=True, kw_only=True)
class Segment(Record):
    """Hold one file, and when an image leaves behind it: see `odn.routing.routed.Exit`."""

    file: str
    sha256: Sha256
    bytes: Positive
    depth: Positive
    threshold: float
    temperature: float


@dataclass(frozen=True, kw_only=True)
class SegmentsRecord(Record):
    """Say which segments follow each other: the content of segments.json."""

    format_version: str
    classes: tuple[str, ...]
    segments: tuple[Segment, ...]


@dataclass(frozen=True, kw_only=True)
class SegmentTimes:
    """Hold the milliseconds of a single image, the mean over several, as their exits differ."""

    ms: float
    ms_whole: float  # of the last exit's network as one graph
    images: int
    busy: bool

    def describe(self) -> str:
        """Say it in a line."""
        shown = f"{self.ms:.3f} ms an image one at a time, {self.ms_whole / self.ms:.2f} times as fast as the whole graph"
        return f"{shown} (over {self.images} val images{'; the machine was busy' if self.busy else ''})"


class _Part(nn.Module):
    """Map pixels, or the features behind one exit, to the features behind the next exit and the logits of its head."""

    def __init__(self, network: DepthNetwork, *, begin: int, end: int, manifest: Manifest) -> None:
        super().__init__()
        before = [Normalise(manifest), network.stem] if begin == 0 else []
        self.body = nn.Sequential(*before, *network.blocks[begin:end])
        self.head = network.head(end)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return both."""
        features = self.body(x)
        return features, self.head(features)


def write_segments(routes: RoutedNetwork, folder: Path, *, manifest: Manifest) -> SegmentsRecord:
    """Write a file from each exit to the next, and the record of them; equal networks give equal bytes."""
    routes = reachable(plain(routes.network), routes.exits)
    network, example, segments = routes.network, example_of(manifest), []
    for number, (begin, exit_) in enumerate(zip((0, *(one.depth for one in routes.exits)), routes.exits, strict=False), start=1):
        part = _Part(network, begin=begin, end=exit_.depth, manifest=manifest).eval()
        names = {"input_name": INPUT if begin == 0 else FEATURES, "output_names": (f"{FEATURES}_out", LOGITS)}
        path = folder / f"segment-{number}.onnx"
        write_bytes(path, packed(onnx_graph(traced(part, example), **names), {}))  # type: ignore[arg-type]
        with torch.no_grad():
            example = part(example)[0]
        rule = {"depth": exit_.depth, "threshold": float(exit_.threshold), "temperature": float(exit_.temperature)}
        segments.append(Segment(file=path.name, sha256=sha256_of(path), bytes=path.stat().st_size, **rule))  # type: ignore[arg-type]
    record = SegmentsRecord(format_version=FORMAT_VERSION, classes=manifest.classes, segments=tuple(segments))
    write_json(folder / RECORD, asdict(record))
    return record


class Segments:
    """Run the segments of a folder in ONNX Runtime: images that are sure enough leave, and only the others go on.

    Raises:
        MissingInputError: there is no record.
        DataError: the record or a file is damaged.
    """

    def __init__(self, folder: Path, *, threads: int) -> None:
        self.record = read_record(SegmentsRecord, folder / RECORD, made_by="odn route --export")
        for one in self.record.segments:
            if not (folder / one.file).is_file() or sha256_of(folder / one.file) != one.sha256:
                raise damaged(folder / one.file, f"it is not the file that {RECORD} lists", made_by="odn route --export")
        self.sessions = [open_session(folder / one.file, threads) for one in self.record.segments]

    def run(self, images: Pixels) -> tuple[Logits, npt.NDArray[np.int64]]:
        """Return logits (N, K), each from the exit at which its image left, and the depths (N,) of these exits."""
        left, x = np.arange(len(images)), np.asarray(images)
        logits = np.empty((len(images), len(self.record.classes)), dtype=np.float32)
        depths = np.empty(len(images), dtype=np.int64)
        for session, rule in zip(self.sessions, self.record.segments, strict=True):
            features, said = session.run([f"{FEATURES}_out", LOGITS], {session.get_inputs()[0].name: x})
            is_last = rule is self.record.segments[-1]
            leaves = np.full(len(left), fill_value=True) if is_last else sureness(said, temperature=rule.temperature) > rule.threshold
            logits[left[leaves]], depths[left[leaves]] = said[leaves], rule.depth
            if leaves.all():
                break
            left, x = left[~leaves], features[~leaves]
        return logits, depths


def sureness(logits: Logits, *, temperature: float) -> Logits:
    """Return the largest softmax probability of logits (N, K) over the temperature: (N,)."""
    scaled = logits / np.float32(temperature)
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(1 / exponentials.sum(axis=1), dtype=np.float32)


@torch.no_grad()
def prove(folder: Path, routes: RoutedNetwork, images: Rows, *, manifest: Manifest, threads: int) -> int:
    """Require that segments compute what the routed network computes, and return how many images lie on the edge of an exit.

    Each image leaves at the same exit with the same logits. Where its confidence is within the tolerance of a threshold (thresholds are
    chosen among confidences) it may leave at another one, with that one's logits.

    Raises:
        ExportError: they do not.
    """
    routes = reachable(plain(routes.network), routes.exits)
    segments, normalise, n_edges = Segments(folder, threads=threads), Normalise(manifest), 0
    size = batch_size(images.shape)
    for start in range(0, len(images), size):
        batch = np.ascontiguousarray(images[start : start + size])
        x = normalise(torch.from_numpy(batch))
        logits, depths = segments.run(batch)
        said = routes.network.forward_depths(x, [one.depth for one in routes.exits])
        expected = torch.stack([said[int(depth)][row] for row, depth in enumerate(depths)])
        require_equal(expected.numpy(), logits, name=str(folder))
        edge = torch.zeros(len(batch), dtype=torch.bool)
        for one in routes.exits[:-1]:
            edge |= (confidence(said[one.depth], temperature=one.temperature) - one.threshold).abs() < EDGE
        differs = routes.route(x).exits != torch.from_numpy(depths)
        if bool((differs & ~edge).any()):
            n = int((differs & ~edge).sum())
            raise ExportError(
                f"{folder}: {n} of {len(batch)} images leave at another exit than in torch; please report this, with the network"
            )
        n_edges += int(differs.sum())
    return n_edges


def time_segments(folder: Path, routes: RoutedNetwork, images: Rows, *, manifest: Manifest, threads: int) -> SegmentTimes:
    """Time single images through the segments, and through the whole graph of the last exit, in turn, in ONNX Runtime."""
    routes = reachable(plain(routes.network), routes.exits)
    whole = pixel_graph(routes.network.truncated(routes.exits[-1].depth), manifest=manifest)
    session = open_session(packed(onnx_graph(traced(whole, example_of(manifest))), {}), threads)
    segments, singles = (
        Segments(folder, threads=threads),
        [np.ascontiguousarray(images[i : i + 1]) for i in range(min(SINGLES, len(images)))],
    )

    def by_segments() -> None:
        for image in singles:
            segments.run(image)

    def at_once() -> None:
        for image in singles:
            session.run([LOGITS], {INPUT: image})

    timing = timed({"segments": by_segments, "whole": at_once})
    ms = {name: value / len(singles) for name, value in timing.ms.items()}
    return SegmentTimes(ms=ms["segments"], ms_whole=ms["whole"], images=len(singles), busy=timing.busy)
