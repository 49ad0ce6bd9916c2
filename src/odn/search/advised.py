"""Keep in files which mode was selected, and hand it on from depth to depth; no torch."""

from dataclasses import asdict
from pathlib import Path

from odn.config import Config
from odn.files import list_also, write_json
from odn.records import read_record
from odn.search.advice import Advice

NAME = "advice.json"  # in the folder of each depth


def read_advice(folder: Path, config: Config) -> Advice | None:
    """Read what was advised for the depth in `folder`; None where `search.mode` says itself what is done.

    Raises:
        MissingInputError: it is not there.
        DataError: it is damaged.
    """
    return read_record(Advice, folder / NAME, made_by=f"train@{folder.name}") if config.mode.selects else None


def write_advice(folder: Path, advice: Advice) -> None:
    """Write the advice into the folder of a trained depth."""
    list_also(folder, NAME)
    write_json(folder / NAME, asdict(advice))


def followed(config: Config, advice: Advice | None) -> Config:
    """Return the settings under the mode that was advised, if any was."""
    return config if advice is None else config.in_mode(advice.mode)
