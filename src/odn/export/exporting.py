"""Export a network: make each file, prove that it computes the same on val, and certify it once on test.

Axes: N images, C channels, H rows, W columns, K classes.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odn.data.dataset import Labels, Manifest, Split
from odn.export.artifacts import Artifact, Certificate, Exported, FormatName, Refused
from odn.export.graph import PixelGraph, example_of, pixel_graph, traced
from odn.export.names import FILES, RUNTIMES
from odn.export.onnx_file import FORMAT_VERSION, metadata_of, onnx_graph, packed
from odn.export.parity import compare, require_equal
from odn.export.quantized import quantise
from odn.export.runtimes import Logits, Run, logits_of, open_artifact, open_onnx, torch_run
from odn.export.sparing import NotQuantised, Quantised, WeightBits
from odn.export.torch_file import torch_file
from odn.files import sha256_of, write_bytes
from odn.models.network import DepthNetwork
from odn.searching.statistics import mcnemar_p, wilson_interval

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch.export import ExportedProgram

EXACT = frozenset({"torch"})  # formats that compute bit for bit what the network does
COARSE = frozenset({"onnx-int8", "executorch-int8"})  # formats that are held to an accuracy, not to logits
SHOWN_LAYERS = 5


@dataclass(frozen=True, kw_only=True)
class Order:
    """Say what is to be exported, and by which rules: `max_drop` is the accuracy on val that 8 bits may lose."""

    formats: Sequence[FormatName]
    max_drop: float
    confidence: float  # of the intervals on test
    threads: int


@dataclass(frozen=True, kw_only=True)
class Made:
    """Hold the content of a file; of one of 8 bits also the bits of its weights, and which layers are not quantised."""

    content: bytes
    weight_bits: WeightBits | None = None
    float_layers: tuple[str, ...] = ()


class _Subject:
    """Hold a network that is exported, and what all formats of it share."""

    def __init__(self, graph: PixelGraph, order: Order, *, manifest: Manifest, splits: Mapping[str, Split], model_sha256: str) -> None:
        self.torch_graph, self.order, self.manifest, self.splits = graph, order, manifest, splits
        run = torch_run(graph)
        self.on_val, self.on_test = (logits_of(run, splits[name].images) for name in ("val", "test"))
        self.val_accuracy = _accuracy(self.on_val, splits["val"].labels)
        self.least = self.val_accuracy - order.max_drop  # accuracy on val that 8 bits must keep
        self.certificate = _certified(self.on_test, splits["test"].labels, confidence=order.confidence)
        self.metadata = metadata_of(
            classes=manifest.classes,
            image=(manifest.channels, manifest.height, manifest.width),
            source=manifest.source,
            data_sha256=manifest.sha256,
            model_sha256=model_sha256,
            accuracy=asdict(self.certificate),
        )

    @functools.cached_property
    def program(self) -> "ExportedProgram":
        return traced(self.torch_graph, example_of(self.manifest))

    @functools.cached_property
    def graph(self) -> "ModelProto":
        return onnx_graph(self.program)

    @functools.cached_property
    def onnx(self) -> bytes:
        return packed(self.graph, self.metadata)

    @functools.cached_property
    def executorch(self) -> bytes:
        from odn.export.executorch_file import executorch_file

        return executorch_file(traced(self.torch_graph, example_of(self.manifest)[:1]), self.metadata)


def export_network(
    network: DepthNetwork, order: Order, *, manifest: Manifest, splits: Mapping[str, Split], model_sha256: str, folder: Path
) -> Exported:
    """Write a file a format into a folder, and return what each of them does.

    How 8 bits are made and whether they are kept is decided on train and val; test is read to certify alone.

    Raises:
        ExportError: a file does not compute what the network computes.
    """
    subject = _Subject(pixel_graph(network, manifest=manifest), order, manifest=manifest, splits=splits, model_sha256=model_sha256)
    artifacts, refused = [], []
    for name in order.formats:
        made = _made(name, subject)
        if isinstance(made, str):
            refused.append(Refused(format=name, reason=made))
            continue
        path = folder / FILES[name]
        write_bytes(path, made.content)
        run = open_artifact(path, format_name=name, threads=order.threads)
        proved = _proved(name, run, subject)
        artifacts.append(
            Artifact(
                format=name,
                runtime=RUNTIMES[name],
                file=FILES[name],
                sha256=sha256_of(path),
                bytes=len(made.content),
                weight_bits=made.weight_bits,
                float_layers=made.float_layers,
                **proved,
                **_compared(logits_of(run, splits["test"].images), subject),
            )
        )
    return Exported(
        format_version=FORMAT_VERSION,
        source=manifest.source,
        model_sha256=model_sha256,
        data_sha256=manifest.sha256,
        max_drop=order.max_drop,
        network_val_accuracy=subject.val_accuracy,
        network=subject.certificate,
        artifacts=tuple(artifacts),
        refused=tuple(refused),
    )


def _made(name: FormatName, subject: _Subject) -> Made | str:
    """Return the content of a file, or the reason why there is none."""
    if name == "onnx":
        return Made(content=subject.onnx)
    if name == "torch":
        return Made(content=torch_file(subject.program))
    if name == "executorch":
        return Made(content=subject.executorch)
    return _onnx_int8(subject) if name == "onnx-int8" else _executorch_int8(subject)


def _onnx_int8(subject: _Subject) -> Made | str:
    threads, val = subject.order.threads, subject.splits["val"]

    def accuracy(model: "ModelProto") -> float:
        return _accuracy(logits_of(open_onnx(model.SerializeToString(), threads), val.images), val.labels)

    train = subject.splits["train"].images
    found = quantise(subject.graph, train=train, accuracy=accuracy, least=subject.least, threads=threads)
    if isinstance(found, NotQuantised):
        return _too_coarse(found, subject)
    return _eight_bits(packed(found.model, subject.metadata), found, whole=subject.onnx)


def _executorch_int8(subject: _Subject) -> Made | str:
    from odn.export import executorch_file
    from odn.export.executorch_runtime import open_executorch

    val = subject.splits["val"]

    def accuracy(content: bytes) -> float:
        return _accuracy(logits_of(open_executorch(content, subject.order.threads), val.images), val.labels)

    train, example = subject.splits["train"].images, example_of(subject.manifest)
    about: dict[str, Any] = {"train": train, "metadata": subject.metadata, "accuracy": accuracy, "least": subject.least}
    found = executorch_file.quantise(subject.torch_graph, example, **about)
    if isinstance(found, NotQuantised):
        return _too_coarse(found, subject)
    return _eight_bits(found.model, found, whole=subject.executorch)


def _too_coarse(found: NotQuantised, subject: _Subject) -> str:
    return (
        f"8 bits cost too much: {found.val_accuracy:.2%} on val, {subject.val_accuracy:.2%} in float32, and export.max_drop is "
        f"{subject.order.max_drop:g}, also with half of the layers in float32; most to blame: {', '.join(found.blamed[:SHOWN_LAYERS])}"
    )


def _eight_bits(content: bytes, found: Quantised[Any], *, whole: bytes) -> Made | str:
    if len(content) >= len(whole):
        return f"8 bits are no smaller here: {len(content):,} bytes, and {len(whole):,} in float32"
    return Made(content=content, weight_bits=found.weight_bits, float_layers=found.float_layers)


def _proved(name: FormatName, run: Run, subject: _Subject) -> dict[str, Any]:
    """Hold what a file computes on val to what the network computes there."""
    val = subject.splits["val"]
    logits = logits_of(run, val.images)
    if name in COARSE:
        assert _accuracy(logits, val.labels) >= subject.least, "it was kept for its accuracy"
        parity = compare(subject.on_val, logits)
    else:
        parity = require_equal(subject.on_val, logits, name=name, exact=name in EXACT)
    return {"val_accuracy": _accuracy(logits, val.labels), "logit_difference": parity.difference}


def _compared(logits: Logits, subject: _Subject) -> dict[str, Any]:
    """Certify what a file does on test, and compare it with the network there, image by image."""
    labels = subject.splits["test"].labels
    ours, theirs = logits.argmax(1) == labels, subject.on_test.argmax(1) == labels
    p = mcnemar_p(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()))
    return asdict(_certified(logits, labels, confidence=subject.order.confidence)) | {"mcnemar_p": p}


def _certified(logits: Logits, labels: Labels, *, confidence: float) -> Certificate:
    n_correct = int((logits.argmax(1) == labels).sum())
    low, high = wilson_interval(n_correct, len(labels), confidence=confidence)
    return Certificate(accuracy=n_correct / len(labels), low=low, high=high, n=len(labels))


def _accuracy(logits: Logits, labels: Labels) -> float:
    return int((logits.argmax(1) == labels).sum()) / len(labels)
