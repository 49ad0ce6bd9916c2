"""Get the files of a data set of the table: from a folder, from the installed scikit-learn, or by torchvision's download."""

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from odn.data.official import DIGITS_SHA256, digits_file, download_dataset
from odn.data.sources import Source
from odn.errors import DataError
from odn.files import sha256_of
from odn.waiting import waiting

TIMEOUT = 15.0  # seconds without an answer, for each connection and each read


def fetch_official(source: Source, *, root: str | None, folder: Path) -> str:
    """Lay the data set's files out in the folder, and return where they came from.

    Raises:
        DataError: a file is missing under the root, a download fails, or digits is not the known file.
    """
    if root is not None:
        _copy(source, root=Path(root).expanduser(), folder=folder)
        origin = root
    elif source.reader == "digits":
        shutil.copyfile(digits_file(), folder / source.files[0])
        origin = "scikit-learn"
    else:
        _download(source, folder=folder)
        origin = "torchvision"
    if source.reader == "digits" and (found := sha256_of(folder / source.files[0])) != DIGITS_SHA256:
        raise DataError(
            f"digits: digits.csv.gz from {origin} has sha256 {found[:12]}…, expected {DIGITS_SHA256[:12]}…: damaged, or another version; "
            "run 'pip install --force-reinstall scikit-learn', with data.root: null"
        )
    return origin


def _copy(source: Source, *, root: Path, folder: Path) -> None:
    if not root.is_dir():
        raise DataError(f"data.root: there is no folder {root}; name the folder that holds {source.files[0]}, or set it to null")
    if missing := [name for name in source.files if not (root / name).is_file()]:
        raise DataError(
            f"data.root: {root} holds no {missing[0]} ({len(missing)} of {len(source.files)} files of {source.title} are missing: "
            f"{', '.join(missing)}); lay them out so, unpacked, or set data.root: null to download them"
        )
    for name in source.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, folder / name)


def _download(source: Source, *, folder: Path) -> None:
    """Let torchvision download, check and unpack beside the folder, and keep only the files that are read."""
    from http.client import HTTPException
    from tarfile import TarError
    from zipfile import BadZipFile

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download.") as cache:
        try:
            limit = f"a server is given up after {TIMEOUT:g} s without an answer"
            with _socket_timeout(TIMEOUT), waiting(f"the download of {source.title}", limit=limit):
                download_dataset(source, root=Path(cache))
        # OSError: no network, no answer, no space. RuntimeError: torchvision's own word for all mirrors failed or a wrong MD5.
        except (OSError, RuntimeError, HTTPException, TarError, BadZipFile, EOFError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{source.title} cannot be downloaded ({reason}); check the network and its proxy, or copy "
                f"{', '.join(source.files)} into a folder and set data.root to it"
            ) from None
        _copy(source, root=Path(cache), folder=folder)


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Bound how long torchvision's urllib waits: it sets no timeout of its own, so that a silent network would hang it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
