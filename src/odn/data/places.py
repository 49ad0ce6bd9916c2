"""Say where raw files may lie: anywhere but in a folder that the pipeline writes and empties.

What a run makes is replaced as a whole, by odn or by DVC: an image that lies there is gone with the next run.
"""

import os
from pathlib import Path

from odn.errors import ConfigError

# The folders of a project that odn, DVC, git or MLflow write. Tests hold the list to dvc.yaml and .gitignore.
MADE = (
    "downloads", "data", "work", "model", "report", "metrics", "plots", "export", "look", "specialised", "routed",
    ".odn", ".dvc", ".git", "mlartifacts", "mlruns",
)  # fmt: skip


def check_root(root: str, *, downloads: Path, holds_classes: bool) -> None:
    """Require that `data.root` names a folder that no run makes, none in such a one and, where it holds class folders, none around.

    Links are followed: that of the root, and those of the class folders in it.

    Raises:
        ConfigError: the text names no path, or a folder that a run makes, one inside it or, for class folders, one above it.
    """
    if not root.strip():
        raise ConfigError(f"data.root: must name a folder; got {root!r}")
    try:
        folder = Path(root).expanduser()
    except RuntimeError:
        raise ConfigError(f"data.root: {root}: there is no such user here; write the folder's path in full") from None
    below = sorted(folder.iterdir()) if holds_classes and folder.is_dir() else []
    for made in (downloads, *map(Path, MADE)):
        for place in (folder, *below):
            if _lies_in(place, made):
                raise ConfigError(
                    f"data.root: {place} lies in {made}, which a run writes and empties; "
                    "move the images to a folder of their own, such as images/, and name that"
                )
        if holds_classes and _lies_in(made, folder):
            raise ConfigError(
                f"data.root: {root} holds {made}, which a run writes and empties; "
                "move the class folders to a folder of their own, such as images/, and name that"
            )


def _lies_in(place: Path, made: Path) -> bool:
    """Tell whether a place is a folder or lies below it, whatever the two are called."""
    true_place, true_made = Path(os.path.realpath(place)), Path(os.path.realpath(made))
    if true_made in (true_place, *true_place.parents):
        return True
    return true_made.exists() and any(each.exists() and each.samefile(true_made) for each in (true_place, *true_place.parents))
