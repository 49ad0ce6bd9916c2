"""Bring a registered model to a device as one file; the command `odn fetch-model`.

Reads: a version in MLflow's registry
Writes: the file
Config: none
"""

from dataclasses import dataclass
from pathlib import Path

from odn.errors import OutputError
from odn.files import sha256_of, write_bytes
from odn.tracking.artifacts import Brought, Registered

MARK = b"odn.format_version"  # in the metadata of each file that `odn export` writes as ONNX


@dataclass(frozen=True)
class Fetched:
    """Say what was brought, and where it is."""

    path: Path
    brought: Brought
    was_there: bool


def run(reference: str, *, format_name: str, out: str | None) -> Fetched:
    """Write the file of a format, whole or not at all, after its digest was held against the one that was certified.

    `out` is the file, or the folder that it goes to under its own name: one that is there, or that ends in a slash.

    Raises:
        TrackingError: the store cannot be reached, has no such version or format, or gives another file.
        OutputError: the file's place holds what odn did not write.
    """
    registered = Registered.connected(reference)
    brought = registered.bring(registered.version(), format_name=format_name)
    path = Path(out if out is not None else brought.artifact.file)
    if path.is_dir() or (out or "").endswith("/"):
        path /= brought.artifact.file
    if path.exists():
        if sha256_of(path) == brought.artifact.sha256:
            return Fetched(path, brought, was_there=True)
        if MARK not in path.read_bytes():
            raise OutputError(f"{path} holds what odn did not write; move it away, or name another place with --out")
    write_bytes(path, brought.content)
    return Fetched(path, brought, was_there=False)
