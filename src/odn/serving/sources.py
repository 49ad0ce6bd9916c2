"""Where a model stands: a file, a folder, or the registry; each can be loaded, and tells cheaply whether another stands there now."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from odn.errors import DataError, MissingInputError
from odn.serving.model import Model

if TYPE_CHECKING:
    from odn.tracking.artifacts import Registered

EXPORTED = Path("export/model.onnx")
FOUND = Path("model")
REGISTRY = "models:/"
DEFAULT_NAME = "odn"


@dataclass(frozen=True)
class Loaded:
    """Hold a model, and the name and version under which it is served."""

    model: Model
    name: str
    version: str


class Source(Protocol):
    """Be a place that a model is loaded from."""

    def stamp(self) -> Hashable:
        """Return what changes when another model stands there.

        Raises:
            OdnError: nothing is there, or the place cannot be reached.
        """

    def load(self, *, threads: int) -> Loaded:
        """Load what stands there, to be run with so many threads a pass.

        Raises:
            OdnError: nothing is there, or it is damaged.
        """


@dataclass(frozen=True)
class FileSource:
    """Load an ONNX file."""

    path: Path

    def stamp(self) -> Hashable:
        """Return size, time and place on the disk."""
        return _stamp(self.path)

    def load(self, *, threads: int) -> Loaded:
        """Read the file whole, then run it: a file that is replaced meanwhile changes nothing."""
        from odn.serving.onnx_model import read_onnx

        _stamp(self.path)
        model = read_onnx(self.path, threads=threads)
        return Loaded(model, DEFAULT_NAME, model.about.sha256[:12])


@dataclass(frozen=True)
class FolderSource:
    """Load a folder that odn wrote: a network, or one that routes."""

    folder: Path

    def stamp(self) -> Hashable:
        """Return size, time and place on the disk of what a network is made of."""
        return tuple(_stamp(self.folder / name) for name in ("architecture.json", "weights.safetensors", "card.json"))

    def load(self, *, threads: int) -> Loaded:
        """Import torch, and read the network; torch's threads are one pool for the whole process."""
        from odn.serving.torch_model import read_torch

        model = read_torch(self.folder)
        return Loaded(model, DEFAULT_NAME, model.about.sha256[:12])


@dataclass(frozen=True)
class RegistrySource:
    """Load the ONNX file of a registered version; which version a reference stands for is asked each time."""

    registered: "Registered"

    def stamp(self) -> Hashable:
        """Return the version."""
        return str(self.registered.version().version)

    def load(self, *, threads: int) -> Loaded:
        """Bring the file, and run it."""
        from odn.serving.onnx_model import OnnxModel

        brought = self.registered.bring(self.registered.version(), format_name="onnx")
        shown = f"{brought.name} version {brought.version}"
        return Loaded(OnnxModel(brought.content, shown=shown, threads=threads), brought.name, brought.version)


def find_source(named: str | None) -> Source:
    """Return where the model is that a person names: an ONNX file, a folder, or a reference such as models:/NAME@champion.

    Without a name it is export/model.onnx where that is there, else model/.

    Raises:
        OdnError: there is no such model.
    """
    if named is not None and named.startswith(REGISTRY):
        from odn.tracking.artifacts import Registered

        return RegistrySource(Registered.connected(named))
    path = Path(named) if named is not None else EXPORTED if EXPORTED.exists() else FOUND
    if not path.exists():
        way_out = "run 'dvc repro' first, or name one: --model FILE.onnx, a folder, or models:/NAME@champion"
        raise MissingInputError(f"there is no model at {path}; {way_out}")
    if path.is_file():
        return FileSource(path)
    if (path / EXPORTED.name).is_file():
        return FileSource(path / EXPORTED.name)
    if (path / "architecture.json").is_file():
        return FolderSource(path)
    raise DataError(f"{path} holds neither {EXPORTED.name} nor a network that odn wrote; name a model with --model")


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise MissingInputError(f"there is no model at {path} any more") from None
    return found.st_mtime_ns, found.st_size, found.st_ino


def require_alike(new: Loaded, *, old: Loaded) -> None:
    """Require that clients of one model may be answered by another: its images and its classes are the same.

    Raises:
        DataError: they are not.
    """
    if (new.model.about.image, new.model.about.classes) != (old.model.about.image, old.model.about.classes):
        raise DataError(
            f"version {new.version} takes {new.model.about.image} images and knows {len(new.model.about.classes)} classes, "
            f"which are not those of version {old.version}; start 'odn serve' again to serve it"
        )
