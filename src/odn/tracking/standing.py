"""Say whether a version that was registered is in the registry still: looked up in a sqlite file, without mlflow; a server is not asked."""

import sqlite3
from collections.abc import Mapping
from typing import Any, Literal

from odn.tracking.place import DEFAULT_EXPERIMENT, Place
from odn.tracking.sqlite import version_aliases

Standing = Literal["there", "gone", "unasked"]


def standing(registration: Mapping[str, Any], *, weights_sha256: str) -> tuple[dict[str, Any], Standing]:
    """Return a registration with the aliases that its version has now, and how it stands."""
    content = dict(registration)
    file = Place(str(content["tracking_uri"]), DEFAULT_EXPERIMENT).sqlite_file
    if file is None:
        return content, "unasked"
    if not file.is_file():
        return content, "gone"
    try:
        aliases = version_aliases(file, str(content["name"]), str(content["version"]), weights_sha256=weights_sha256)
    except (sqlite3.Error, OSError):  # locked, damaged, or unreadable: then nothing is known
        return content, "unasked"
    if aliases is None:
        return content, "gone"
    now = {"aliases": aliases, "champion": "champion" in aliases}
    moved = {"reason": "the alias was moved since"} if content["champion"] and not now["champion"] else {}
    return {**content, **now, **moved}, "there"
