"""Refuse formats whose runtime is not installed, before anything is trained for them; no torch."""

from collections.abc import Iterable
from importlib.util import find_spec

from odn.errors import ConfigError
from odn.export.names import RUNTIMES

EXTRAS = {"executorch": ("edge", ("executorch", "torchao"))}  # of a runtime that odn alone does not bring: its extra, what that installs


def require_installed(formats: Iterable[str]) -> None:
    """Look for what formats need.

    Raises:
        ConfigError: a package is not there; the message says how to install it.
    """
    for name in formats:
        extra, packages = EXTRAS.get(RUNTIMES[name], ("", ()))
        missing = [package for package in packages if find_spec(package) is None]
        if missing:
            raise ConfigError(
                f"export.formats: {name} needs {' and '.join(missing)}; install it: pip install 'odn[{extra}]', or leave the format out"
            )
