"""Keep what is a user's apart from what was fetched, in downloads/ and in data/, the copy of it that DVC makes.

DVC deletes neither of the two before it makes them anew (`persist`): that is done here, file by file, and only what a list names.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from odn.data.checksums import NAME, read_checksums
from odn.errors import DataError
from odn.files import LITTER, MANIFEST, sha256_of, write_json

OWN = {NAME, MANIFEST}
UNFINISHED = re.compile(r"\.[\w-]{22}\.tmp")  # what a DVC that was killed leaves of a file; .dvcignore hides it from DVC


def refuse_strangers(*folders: Path) -> None:
    """Require that the folders hold nothing but what a list in one of them names: after a kill the list may be in the other.

    Raises:
        DataError: naming a file that is somebody else's.
    """
    known = _known(*folders)
    for folder in folders:
        if strangers := sorted(name for name in _names(folder) if name not in known):
            more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
            raise DataError(
                f"{folder / strangers[0]}{more} did not come by 'odn fetch', and {folder} is written anew as a whole: move it elsewhere; "
                "images of yours may lie in any folder that a run does not make, and data.root names it"
            )


def remove_stale(folder: Path, *, known_by: Path, fetched: Path) -> None:
    """Remove from the folder what was fetched earlier (its own list or that of `known_by` names it) and is not in `fetched` as it is."""
    known, now = _known(folder, known_by), {**read_checksums(fetched), NAME: sha256_of(fetched / NAME)}
    for name in list(_names(folder)):
        path = folder / name
        if name in known and (name not in now or not path.is_file() or sha256_of(path) != now[name]):
            path.unlink()
    _remove_empty_folders(folder)


def tidy(folder: Path) -> None:
    """Remove the halves of files that a killed DVC left, and empty folders, each of which would be a class without images."""
    for path in list(folder.rglob(".*.tmp")):
        if UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink()
    _remove_empty_folders(folder)


def adopt(folder: Path) -> None:
    """Give what an older odn fetched the manifest that it lacks, by which it may be replaced; there are no strangers in it."""
    if (folder / NAME).is_file() and not (folder / MANIFEST).exists():
        write_json(folder / MANIFEST, {"files": sorted([*read_checksums(folder), NAME])})


def _known(*folders: Path) -> set[str]:
    known = set(OWN)
    for folder in folders:
        if (folder / NAME).is_file():
            known |= read_checksums(folder, mend=f"move what is yours out of {folder}, remove the rest, and run 'dvc repro'").keys()
    return known


def _names(folder: Path) -> Iterator[str]:
    """Yield the relative name of whatever lies below the folder and is no folder, hidden or not."""
    for path in folder.rglob("*"):
        if (path.is_symlink() or not path.is_dir()) and path.name not in LITTER and not UNFINISHED.fullmatch(path.name):
            yield path.relative_to(folder).as_posix()


def _remove_empty_folders(folder: Path) -> None:
    for place in sorted((path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink()), reverse=True):
        if not any(place.iterdir()):
            place.rmdir()
