"""Look for a user's files in the folders that DVC deletes before a stage makes them anew.

A file is nobody's but odn's where the folder's manifest lists it, or where DVC has its content in the cache, as it has that of every
output of a stage that ended: then nothing is lost, and a run that was killed while DVC put a folder in its place raises no alarm.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from odn.data.strangers import UNFINISHED
from odn.files import LITTER, MANIFEST, own_names

CACHE = Path(".dvc/cache/files/md5")
SHOWN = 5


def strangers() -> list[str]:
    """Return the files of a user's below the outputs of dvc.yaml and data.dvc, in order."""
    return sorted(str(path) for folder in _folders() for path in _strangers(folder))


def _strangers(folder: Path) -> Iterator[Path]:
    listed = own_names(folder)
    for path in folder.rglob("*"):
        if (path.is_symlink() or not path.is_dir()) and path.name not in LITTER and not UNFINISHED.fullmatch(path.name):
            name = path.relative_to(folder).as_posix()
            if name != MANIFEST and name not in listed and not _is_cached(path):
                yield path


def _folders() -> Iterator[Path]:
    for name in ("dvc.yaml", "data.dvc"):
        for output in _outputs(name):
            for path in Path().glob(re.sub(r"\$\{.*?\}", "*", output)):
                if path.is_dir() and not path.is_symlink():
                    yield path


def _outputs(name: str) -> list[str]:
    """Read the paths of a file's outputs; where that cannot be done, DVC says why."""
    try:
        record = yaml.load(Path(name).read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        stages = [entry.get("do", entry) for entry in record["stages"].values()] if "stages" in record else [record]
        outputs = [output for stage in stages for output in stage.get("outs", [])]
        return [output if isinstance(output, str) else output.get("path") or next(iter(output)) for output in outputs]
    except (OSError, yaml.YAMLError, AttributeError, TypeError):
        return []


def _is_cached(path: Path) -> bool:
    """Tell whether DVC can bring the content back; an empty file says nothing of whose it is."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return (CACHE / digest[:2] / digest[2:]).is_file()
