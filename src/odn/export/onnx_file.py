"""Write a traced network as ONNX: one file, float32, the same bytes each time, with what a device must know in its metadata."""

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from odn import __version__
from odn.export.graph import INPUT, OUTPUTS

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch.export import ExportedProgram

OPSET = 20  # the newest that ONNX Runtime quantises without converting
LAYERS = ("Conv", "Gemm", "MatMul")  # operations that hold weights
SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's note: the modules that a node stands in, outermost first
FORMAT_VERSION: Literal["1"] = "1"  # of the graph's inputs and outputs, and of its metadata


def onnx_graph(traced: "ExportedProgram", *, input_name: str = INPUT, output_names: Sequence[str] = OUTPUTS) -> "ModelProto":
    """Return the ONNX graph of what was traced, without what the exporter noted about its own work."""
    program = torch.onnx.export(
        traced,
        (),
        dynamo=True,
        opset_version=OPSET,
        input_names=[input_name],
        output_names=list(output_names),
        dynamic_shapes=({0: "batch"},),  # only names what was traced as free
        external_data=False,
        verbose=False,
    )
    assert program is not None, "only a program that is written to a file at once is not returned"
    return stripped(_named(program.model_proto))


def _named(model: "ModelProto") -> "ModelProto":
    """Name weights after their module where the exporter made a name up, as for a linear layer over tokens, whose weight it transposes."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        scopes: list[str] = next((ast.literal_eval(note.value) for note in node.metadata_props if note.key == SCOPES), [])
        if node.op_type not in LAYERS or node.input[1] not in weights or node.input[1].startswith("network.") or len(scopes) < 2:
            continue
        tensor, name = weights[node.input[1]], f"{scopes[-2]}.weight"
        if name not in weights and sum(tensor.name in other.input for other in model.graph.node) == 1:
            weights[name] = weights.pop(tensor.name)
            tensor.name = node.input[1] = name
    return model


def stripped(model: "ModelProto") -> "ModelProto":
    """Return a graph without notes: they hold paths and versions of whoever made it, and a third of a small file's bytes.

    The shapes of inner values, which every runtime infers, go too.
    """
    graph = model.graph
    del graph.value_info[:]
    for one in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del one.metadata_props[:]
        one.doc_string = ""
    model.producer_name, model.producer_version = "odn", __version__
    return model


def packed(model: "ModelProto", metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of an ONNX file with this metadata, and no other; equal graphs give equal bytes."""
    del model.metadata_props[:]
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=value)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def metadata_of(
    *,
    classes: Iterable[str],
    image: tuple[int, int, int],
    source: str,
    data_sha256: Mapping[str, str],
    model_sha256: str,
    accuracy: Mapping[str, float],
) -> dict[str, str]:
    """Return what an ONNX file says of itself: `image` is (C, H, W), `accuracy` that of the float32 network on test with its interval.

    No commit and no clock: the same network gives the same bytes. Where it comes from is known by `odn.model_sha256`.
    """
    return {
        "odn.format_version": FORMAT_VERSION,
        "odn.classes": _json(list(classes)),
        "odn.image": _json(dict(zip(("channels", "height", "width"), image, strict=True))),
        "odn.source": source,
        "odn.data_sha256": _json(data_sha256),
        "odn.model_sha256": model_sha256,
        "odn.accuracy": _json(accuracy),
    }


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
