"""What the command line's modules share: the flags of folders, how a command is added, and how its module is called."""

import argparse
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odn.sanitize import sanitized
from odn.searching.folder import SearchFolder

if TYPE_CHECKING:
    from odn.config import Config

COMMANDS = ("backbones", "cost", "look", "preset", "route", "show", "specialise", "track")  # the others are stages of the pipeline
FOLDERS = {  # flag: (default, help)
    "source": ("src/odn", "the source code of odn"),
    "code": ("work/code", "a file a stage, with digests of the code that it runs"),
    "downloads": ("downloads", "raw files as they were fetched"),
    "data": ("data", "raw files, versioned by data.dvc"),
    "settings": ("work/settings", "a file a stage, with the settings that it depends on"),
    "prepared": ("work/prepared", "train/, val/, test/ and dataset.json"),
    "search": ("work", "depths/, checks/ and decisions/"),
    "model": ("model", "the network that is kept"),
    "evaluation": ("work/evaluation", "predictions of each test image"),
    "metrics": ("metrics", "flat numbers, tracked by git"),
    "exported": ("export", "the model as files for other runtimes"),
    "plots": ("plots", "tables to plot, tracked by git"),
    "specialised": ("specialised", "a folder for each target of 'odn specialise'"),
    "report": ("report", "report.html and its pictures"),
    "registered-weights": ("work/registered.json", "which weights are registered"),
    "registration": (".odn/registration.json", "which version they became there"),
    "routed": ("routed", "a folder a kind of routing"),
    "look": ("look", "what frozen features know at every depth"),
    "progress": (".odn/progress", "interrupted phases, to be resumed"),
}


def add(commands: Any, name: str, run: Any, text: str, *folders: str) -> argparse.ArgumentParser:
    """Add a command with the flags of its folders."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings (default: %(default)s)")
    for folder in folders:
        default, meaning = FOLDERS[folder]
        command.add_argument(f"--{folder}", type=Path, default=Path(default), help=f"{meaning} (default: %(default)s)")
    command.set_defaults(run=run, stage=name)
    return command


def stage(options: argparse.Namespace, **paths: Any) -> Any:
    """Run the module of a command under the settings that `--params` names."""
    package = "commands" if options.stage in COMMANDS else "stages"
    return importlib.import_module(f"odn.{package}.{options.stage}").run(config_of(options), **paths)


def config_of(options: argparse.Namespace) -> "Config":
    """Read the settings."""
    from odn.config import load_config

    return load_config(options.params)


def search_of(options: argparse.Namespace) -> SearchFolder:
    """Return the folder of the search."""
    return SearchFolder(options.search)


def say(line: str) -> None:
    """Print one line, whatever the names and paths in it hold."""
    print(sanitized(line))
