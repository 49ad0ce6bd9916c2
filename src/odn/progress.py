"""Keep what interrupted phases need on a volume that many searches share: a folder a search, which is cleared when the search has ended.

In that folder each phase has one of its own, and whoever works on it holds its lock.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from odn.config import Config

VARIABLE = "ODN_PROGRESS"  # names the volume; without it progress is in the step's own file system, and ends with it
KEPT_SECONDS = 30 * 24 * 3600.0  # without a change, after which a search that was never taken up again is forgotten


def volume() -> Path:
    """Return the folder that all searches share."""
    return Path(os.environ.get(VARIABLE) or Path(tempfile.gettempdir()) / "odn-progress")


def folder_of(config: Config, *, data_sha256: Mapping[str, str]) -> Path:
    """Return the folder of a search, whatever its target, and clear those of searches that were given up."""
    settings = json.loads(config.to_json())
    del settings["search"]["target"]  # another one asks for the same trainings
    content = json.dumps([settings, dict(data_sha256)], sort_keys=True)
    own = volume() / "searches" / hashlib.sha256(content.encode()).hexdigest()[:16]
    for other in own.parent.glob("*"):
        if other != own and time.time() - max(path.stat().st_mtime for path in (other, *other.rglob("*"))) > KEPT_SECONDS:
            clear(other)
    return own


def clear(folder: Path) -> None:
    """Remove the phases of a search, except for one that a process is working on."""
    for phase in folder.glob("*"):
        with (phase / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(phase)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()
