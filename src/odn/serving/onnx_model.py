"""A model as an ONNX file of `odn export`, run by ONNX Runtime; torch is not imported.

N images, C channels, H height, W width; K classes.
"""

import hashlib
from pathlib import Path
from typing import Any

import onnxruntime

from odn.data.dataset import Images
from odn.errors import DataError
from odn.records import parse_record
from odn.serving.model import INPUT, OUTPUTS, About, Answers, ImageShape

FORMAT_VERSION = "1"  # of the graph's inputs and outputs, and of its metadata
SILENT = 4  # fatal errors alone are logged: what goes wrong is raised as well, and told in one line
MEND = "write it anew with 'odn export', or name another file"


def _refusals() -> tuple[type[Exception], ...]:
    """List what ONNX Runtime raises of a file that it cannot run; its errors have no parent of their own."""
    state = onnxruntime.capi.onnxruntime_pybind11_state
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel", "NotImplemented", "RuntimeException", "EPFail")
    return tuple(getattr(state, name) for name in names)


class OnnxModel:
    """Answer by ONNX Runtime, with `threads` threads a pass."""

    def __init__(self, content: bytes, *, shown: str, threads: int) -> None:
        self.content = content
        onnxruntime.set_default_logger_severity(SILENT)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = SILENT
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads leave the cores to others
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except _refusals() as error:
            raise DataError(f"{shown} is no ONNX file that ONNX Runtime runs ({_first_line(error)}); {MEND}") from None
        self._about = _about(self._session, shown=shown, sha256=hashlib.sha256(content).hexdigest())

    @property
    def about(self) -> About:
        """Return what the file's metadata says."""
        return self._about

    def answer_pass(self, images: Images) -> Answers:
        """Run the graph over images (N, C, H, W)."""
        logits, probabilities = self._session.run(list(OUTPUTS), {INPUT: images})
        return Answers(logits, probabilities)


def read_onnx(path: Path, *, threads: int) -> OnnxModel:
    """Read an ONNX file that odn exported.

    Raises:
        DataError: it is damaged, or not of odn's format.
    """
    return OnnxModel(path.read_bytes(), shown=str(path), threads=threads)


def _about(session: Any, *, shown: str, sha256: str) -> About:
    """Read and check what the file says of itself, and that its graph is as it says."""
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    version = metadata.get("odn.format_version")
    if version is None:
        raise DataError(f"{shown} is an ONNX file without odn's metadata: its classes and its normalisation are not known; {MEND}")
    if version != FORMAT_VERSION:
        raise DataError(f"{shown}: format version {version} is not known, only {FORMAT_VERSION}; upgrade odn, or {MEND}")
    try:
        classes = parse_record(tuple[str, ...], metadata.get("odn.classes", ""))
        image = parse_record(ImageShape, metadata.get("odn.image", ""))
    except ValueError as error:
        raise DataError(f"{shown}: its metadata odn.classes or odn.image is damaged: {error}; {MEND}") from None
    wanted = {INPUT: ("tensor(uint8)", list(image.axes)), **dict.fromkeys(OUTPUTS, ("tensor(float)", [len(classes)]))}
    found = {one.name: (one.type, list(one.shape[1:])) for one in (*session.get_inputs(), *session.get_outputs())}
    is_fixed = any(isinstance(one.shape[0], int) for one in session.get_inputs() if one.shape)
    if found != wanted or is_fixed:
        raise DataError(
            f"{shown}: the graph is not as its metadata says: expected {wanted} behind a batch of any size; got {found}; {MEND}"
        )
    return About(classes=classes, image=image, sha256=sha256, platform="onnxruntime_onnx")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
