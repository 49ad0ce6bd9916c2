"""A model as a model repository of Triton: NAME/1/model.onnx, NAME/config.pbtxt, NAME/labels.txt.

Source: triton-inference-server/common, protobuf/model_config.proto; Triton's model_repository.md.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from odn.errors import OutputError
from odn.files import new_folder, write_bytes, write_text
from odn.serving.model import INPUT, MOST_AT_ONCE, OUTPUTS, About

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def write_repository(folder: Path, *, name: str, content: bytes, about: About) -> Path:
    """Write the model's folder whole or not at all, in a repository that may hold others; return it.

    Raises:
        OutputError: the name is none for a folder, or its place holds what odn did not write.
    """
    if not NAME.fullmatch(name):
        raise OutputError(f"{name!r} is no name for a model of Triton; use letters, digits, points, dashes and underscores: --name NAME")
    with new_folder(folder / name) as made:
        write_bytes(made / "1" / "model.onnx", content)
        write_text(made / "config.pbtxt", config(name, about=about))
        write_text(made / "labels.txt", "".join(f"{' '.join(label.split())}\n" for label in about.classes))
    return folder / name


def config(name: str, *, about: About) -> str:
    """Return config.pbtxt: the batch is Triton's own axis, and requests that come together are computed together."""
    outputs = ",\n".join(_tensor(one, kind="TYPE_FP32", dims=[len(about.classes)], labels=one == OUTPUTS[1]) for one in OUTPUTS)
    return f"""name: {json.dumps(name)}
backend: "onnxruntime"
max_batch_size: {MOST_AT_ONCE}
input [
{_tensor(INPUT, kind="TYPE_UINT8", dims=about.image.axes)}
]
output [
{outputs}
]
dynamic_batching {{ }}
"""


def _tensor(name: str, *, kind: str, dims: Sequence[int], labels: bool = False) -> str:
    file = '\n    label_filename: "labels.txt"' if labels else ""
    return f"""  {{
    name: {json.dumps(name)}
    data_type: {kind}
    dims: [ {", ".join(map(str, dims))} ]{file}
  }}"""
