"""Bring a registered model into the working tree, and version it with DVC."""

import subprocess
import sys
from pathlib import Path

from odn.errors import OdnError
from odn.tracking.download import Downloaded, download_model


class VersioningError(OdnError):
    """Report that DVC could not take the model."""


def fetch(reference: str, *, folder: Path) -> tuple[Downloaded, Path]:
    """Download the model that a run registered, or models:/NAME@ALIAS or models:/NAME/VERSION, into folder/NAME, and `dvc add` it.

    Raises:
        TrackingError: MLflow cannot be reached, or knows no such model.
        VersioningError: DVC refuses.
    """
    got = download_model(reference, folder=folder)
    done = subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", str(got.folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split()).removeprefix("ERROR: ")
        raise VersioningError(f"{got.folder} is here, but DVC does not take it ({said}); mend that, then run 'dvc add {got.folder}'")
    return got, got.folder.with_name(f"{got.folder.name}.dvc")
