"""The Open Inference Protocol, version 2, over HTTP, with its extension for binary tensors: what KServe and Triton speak.

Source: github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md; Triton's extension_binary_data.md.
N images, C channels, H height, W width; K classes.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from odn import __version__
from odn.data.dataset import Images
from odn.errors import RequestError
from odn.serving.model import INPUT, OUTPUTS, Answers, ImageShape
from odn.serving.scoring import read_json
from odn.serving.sources import Loaded
from odn.serving.tensors import from_base64, from_files, from_raw, from_tensor

HEADER_LENGTH = "inference-header-content-length"
JSON, BINARY = "application/json", "application/octet-stream"


@dataclass(frozen=True)
class Inference:
    """Hold a request: its images, and which outputs are wanted, each as JSON or as bytes."""

    images: Images  # (N, C, H, W)
    outputs: dict[str, bool]  # name: as bytes
    id: str | None


@dataclass(frozen=True)
class Response:
    """Hold what is sent back."""

    body: bytes
    content_type: str
    headers: dict[str, str]


def server_metadata() -> dict[str, Any]:
    """Return what the server says of itself."""
    return {"name": "odn", "version": __version__, "extensions": ["binary_tensor_data"]}


def model_metadata(loaded: Loaded) -> dict[str, Any]:
    """Return what a model takes and gives; its classes, and the digest of its file, are beside what the protocol names."""
    about = loaded.model.about
    return {
        "name": loaded.name,
        "versions": [loaded.version],
        "platform": about.platform,
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *about.image.axes]}],
        "outputs": [{"name": name, "datatype": "FP32", "shape": [-1, len(about.classes)]} for name in OUTPUTS],
        "parameters": {"classes": list(about.classes), "sha256": about.sha256},
    }


def read_inference(body: bytes, *, header_length: str | None, image: ImageShape) -> Inference:
    """Read a request to …/infer: JSON, and behind its first `header_length` bytes the binary data of its input.

    Raises:
        RequestError: it is not of the protocol, or its images are not of the model.
    """
    length = _header_length(header_length, body)
    request, binary = read_json(body[:length]), body[length:]
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict) or inputs[0].get("name") != INPUT:
        raise RequestError(f"inputs: expected a list of one tensor, whose name is {INPUT!r}")
    identity = request.get("id")
    if identity is not None and not isinstance(identity, str):
        raise RequestError("id: expected text")
    as_bytes = _flag(_parameters(request), "binary_data_output")
    return Inference(_images(inputs[0], binary, image=image), _outputs(request.get("outputs"), as_bytes=as_bytes), identity)


def write_inference(answers: Answers, *, request: Inference, loaded: Loaded) -> Response:
    """Return the outputs that were asked for."""
    tensors, binary = [], b""
    for name, as_bytes in request.outputs.items():
        values = getattr(answers, name)
        tensor: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
        if as_bytes:
            content = values.astype("<f4").tobytes()
            tensor["parameters"] = {"binary_data_size": len(content)}
            binary += content
        else:
            tensor["data"] = values.ravel().tolist()
        tensors.append(tensor)
    identity = {} if request.id is None else {"id": request.id}
    header = json.dumps({"model_name": loaded.name, "model_version": loaded.version, **identity, "outputs": tensors}).encode()
    if not any(request.outputs.values()):
        return Response(header, JSON, {})
    return Response(header + binary, BINARY, {HEADER_LENGTH: str(len(header))})


def write_refusal(error: RequestError) -> bytes:
    """Return a refusal as the protocol words it."""
    return json.dumps({"error": str(error)}).encode()


def _header_length(text: str | None, body: bytes) -> int:
    if text is None:
        return len(body)
    if not (text.isascii() and text.isdigit() and int(text) <= len(body)):
        raise RequestError(f"{HEADER_LENGTH}: expected a number of at most the body's {len(body):,} bytes; got {text!r:.40}")
    return int(text)


def _images(tensor: dict[str, Any], binary: bytes, *, image: ImageShape) -> Images:
    shape, datatype = tensor.get("shape"), tensor.get("datatype")
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise RequestError("shape of the input: expected a list of whole numbers")
    size = _parameters(tensor).get("binary_data_size")
    if size is not None and (type(size) is not int or size != len(binary) or "data" in tensor):
        raise RequestError(f"binary_data_size: got {size!r:.40}, and {len(binary):,} bytes follow the JSON; send those and no 'data'")
    if size is None and binary:
        raise RequestError(f"{len(binary):,} bytes follow the JSON; say so in the input's parameter binary_data_size")
    if size is None and not isinstance(tensor.get("data"), list):
        raise RequestError("data of the input: expected a list, or binary data with the parameter binary_data_size")
    if datatype == "UINT8":
        return from_tensor(tensor["data"], shape=shape, image=image) if size is None else from_raw(binary, shape=shape, image=image)
    if datatype != "BYTES":
        raise RequestError(f"datatype of the input: expected UINT8, or BYTES for encoded image files; got {datatype!r:.40}")
    items = tensor["data"] if size is None else list(_elements(binary))
    if shape not in ([len(items)], [len(items), 1]):
        raise RequestError(f"shape of the input: expected [{len(items)}], as many as there are image files; got {shape}")
    return from_base64(items, image=image) if size is None else from_files(items, image=image)


def _elements(binary: bytes) -> Iterator[bytes]:
    """Yield the elements of a tensor of BYTES: each a length of four bytes, and so many bytes."""
    start = 0
    while start < len(binary):
        (length,) = struct.unpack_from("<I", binary, start) if len(binary) - start >= 4 else (len(binary),)
        start += 4
        if start + length > len(binary):
            raise RequestError("binary data of the input: an element is longer than what is left")
        yield binary[start : start + length]
        start += length


def _outputs(asked: Any, *, as_bytes: bool) -> dict[str, bool]:
    if asked is None or asked == []:
        return dict.fromkeys(OUTPUTS, as_bytes)
    if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
        raise RequestError("outputs: expected a list of objects with a name")
    if strange := [one.get("name") for one in asked if one.get("name") not in OUTPUTS]:
        raise RequestError(f"outputs: expected {' and '.join(OUTPUTS)}; got {strange[0]!r:.80}")
    if strange := [name for one in asked for name in _parameters(one) if name != "binary_data"]:
        raise RequestError(
            f"outputs: the parameter {strange[0]!r:.80} is not known here, only binary_data; classes are in the model's metadata"
        )
    return {one["name"]: _flag(_parameters(one), "binary_data", otherwise=as_bytes) for one in asked}


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    found = holder.get("parameters", {})
    if not isinstance(found, dict):
        raise RequestError("parameters: expected an object")
    return found


def _flag(parameters: dict[str, Any], name: str, *, otherwise: bool = False) -> bool:
    value = parameters.get(name, otherwise)
    if not isinstance(value, bool):
        raise RequestError(f"{name}: expected true or false; got {value!r:.40}")
    return value
