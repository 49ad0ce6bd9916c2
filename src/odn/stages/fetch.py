"""Bring raw data into one folder, complete and listed by hash, from wherever it is.

Reads: nothing
Writes: downloads
Config: data
"""

from dataclasses import dataclass
from pathlib import Path

from odn.config import Config
from odn.data.checksums import write_checksums
from odn.data.sources import SOURCES
from odn.files import new_folder
from odn.sections import DataConfig


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """Say what was fetched."""

    source: str
    origin: str  # a folder, an s3:// address, "scikit-learn" or "torchvision"
    n_files: int
    size_bytes: int


def run(config: Config, *, downloads: Path) -> Fetched:
    """Fill the downloads folder with the configured source's raw files and their SHA256SUMS; the same files give the same bytes.

    Raises:
        DataError: the source is missing, incomplete or cannot be downloaded, or a class folder holds what is not an image.
        StorageError: the s3:// address cannot be read.
        OutputError: the output's place holds what odn did not write.
    """
    with new_folder(downloads) as folder:
        origin = _fill(config.data, folder=folder)
        files = write_checksums(folder)
        size_bytes = sum(path.stat().st_size for path in files)
    return Fetched(source=config.data.source, origin=origin, n_files=len(files), size_bytes=size_bytes)


def _fill(config: DataConfig, *, folder: Path) -> str:
    """Write the raw files and return where they came from."""
    if config.source in SOURCES:
        from odn.data.download import fetch_official

        return fetch_official(SOURCES[config.source], root=config.root, folder=folder)
    from odn.data.folder import check_class_folders, copy_class_folders

    assert config.root is not None, "the config requires a root for folder and s3"
    if config.source == "s3":
        from odn.storage import download_prefix

        download_prefix(config.root, folder=folder)
        check_class_folders(folder, shown_as=config.root)
    else:
        copy_class_folders(Path(config.root).expanduser(), into=folder)
    return config.root
