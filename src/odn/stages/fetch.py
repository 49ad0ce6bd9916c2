"""Bring raw data into one folder, complete and listed by hash, from wherever it is.

Reads: nothing
Writes: downloads
Config: data.source, data.root
"""

from dataclasses import dataclass
from pathlib import Path

from odn.config import Config
from odn.counting import counted
from odn.data.checksums import write_checksums
from odn.data.places import check_root
from odn.data.sources import SOURCES
from odn.data.strangers import adopt, refuse_strangers, remove_stale, tidy
from odn.files import new_folder, require_place
from odn.sections import DataConfig


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """Say what was fetched."""

    source: str
    origin: str  # a folder, an s3:// address, "scikit-learn" or "torchvision"
    n_files: int
    size_bytes: int


def run(config: Config, *, downloads: Path, data: Path | None = None) -> Fetched:
    """Fill the downloads folder with the configured source's raw files and their SHA256SUMS; the same files give the same bytes.

    DVC does not empty downloads/, nor `data`, the copy of it that it makes afterwards (`persist`): files of a user's there are found
    here, and what an earlier source left in `data` is removed here.

    Raises:
        ConfigError: `data.root` names a folder that a run makes, or no folder at all.
        DataError: the source is missing, incomplete or cannot be downloaded, a class folder holds what is not an image, or there
            are files that were not fetched.
        StorageError: the s3:// address cannot be read.
        OutputError: the output's place holds what odn did not write.
    """
    folders = [downloads] if data is None else [downloads, data]
    if config.data.root is not None and config.data.source != "s3":
        check_root(config.data.root, downloads=downloads, holds_classes=config.data.source == "folder")
    require_place(downloads)
    refuse_strangers(*folders)
    for folder in folders:
        tidy(folder)
    adopt(downloads)
    with new_folder(downloads) as folder:
        origin = _fill(config.data, folder=folder)
        files = write_checksums(folder)
        if data is not None:
            remove_stale(data, known_by=downloads, fetched=folder)
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
        check_class_folders(folder, shown_as=config.root, show=counted)
    else:
        copy_class_folders(Path(config.root).expanduser(), into=folder, show=counted)
    return config.root
