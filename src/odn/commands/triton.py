"""Write a model as a model repository of Triton; the command `odn triton`.

Reads: a model: an ONNX file, its folder, or a version in MLflow's registry
Writes: DIR/NAME
Config: none
"""

from pathlib import Path

from odn.errors import DataError
from odn.serving.onnx_model import OnnxModel
from odn.serving.sources import find_source
from odn.serving.triton import write_repository


def run(folder: Path, *, model: str | None, name: str | None) -> Path:
    """Write the repository, and return the model's folder in it.

    Raises:
        DataError: the model is no ONNX file.
        OdnError: there is no such model, or the place holds what odn did not write.
    """
    loaded = find_source(model).load(threads=1)
    if not isinstance(loaded.model, OnnxModel):
        raise DataError("Triton runs the ONNX file, and this is a network for torch; export it with 'odn export' first")
    return write_repository(folder, name=name or loaded.name, content=loaded.model.content, about=loaded.model.about)
