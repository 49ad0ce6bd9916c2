"""List the SHA-256 of every raw file in `SHA256SUMS`, and hold the files to that list (`sha256sum -c SHA256SUMS` reads it too)."""

import os
from pathlib import Path

from odn.errors import DataError, MissingInputError
from odn.files import sha256_of, write_bytes

NAME = "SHA256SUMS"
MEND = "run 'dvc repro -f fetch' and then 'dvc repro'"
MEND_DATA = "run 'dvc repro -f data.dvc' and then 'dvc repro'"


def write_checksums(folder: Path) -> list[Path]:
    """Write `SHA256SUMS` over every file below the folder, in the order of their names, and return the files.

    Raises:
        DataError: a name cannot stand in a line of the list, or in JSON, or is the list's own.
    """
    files = _files(folder)
    names = [path.relative_to(folder).as_posix() for path in files]
    for name in names:
        require_name(name)
    lines = [f"{sha256_of(path)}  {name}\n" for path, name in zip(files, names, strict=True)]
    write_bytes(folder / NAME, os.fsencode("".join(lines)))
    return files


def require_name(name: str, *, shown_as: str | None = None) -> None:
    """Require that the name of a file or a class, relative to the raw data, can be listed and written down.

    Raises:
        DataError: it holds a line break, is not UTF-8, or is that of the list.
    """
    shown = shown_as or name
    if "\n" in name or "\r" in name:
        raise DataError(f"a file's name holds a line break: {shown!r}; rename it")
    if not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name):
        raise DataError(f"the name of {shown} is not UTF-8; rename it")
    if NAME in name.split("/"):
        raise DataError(f"{shown} has the name of odn's own list of files; rename it")


def read_checksums(folder: Path, *, mend: str = MEND) -> dict[str, str]:
    """Read the folder's list: the digest of each name.

    Raises:
        MissingInputError: there is no such folder or list.
        DataError: the list is damaged.
    """
    try:
        lines = os.fsdecode((folder / NAME).read_bytes()).removesuffix("\n").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        raise MissingInputError(f"raw data is missing: no {folder / NAME}; run 'dvc repro prepare', which fetches it first") from None
    listed = {}
    for number, line in enumerate(lines, start=1):
        digest, separator, name = line.partition("  ")
        if len(digest) != 64 or not separator or not name:
            raise DataError(f"{folder / NAME} is damaged at line {number}: {line!r}; {mend}")
        listed[name] = digest
    return listed


def verify_checksums(folder: Path) -> None:
    """Compare every file below the folder with `SHA256SUMS`.

    Raises:
        MissingInputError: there is no such folder or list.
        DataError: the list is damaged, or a file is missing, changed, truncated or not on the list.
    """
    listed = read_checksums(folder)
    present = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    if missing := sorted(listed.keys() - present.keys()):
        raise DataError(f"{folder / missing[0]} is missing ({len(missing)} of {len(listed)} raw files are); {MEND}")
    if extra := sorted(present.keys() - listed.keys()):
        raise DataError(f"{folder / extra[0]} is not in {NAME}: it was put there by hand; put it under data.root instead, then {MEND_DATA}")
    for name, digest in listed.items():
        if (found := sha256_of(present[name])) != digest:
            raise DataError(f"{present[name]} is not the file that was fetched (sha256 {found[:12]}…, expected {digest[:12]}…); {MEND}")


def _files(folder: Path) -> list[Path]:
    """Return every file below the folder but the list itself and hidden ones, in the order of their names."""
    found = (path for path in folder.rglob("*") if path.is_file() and path != folder / NAME)
    visible = (path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return sorted(visible, key=lambda path: path.relative_to(folder).as_posix())
