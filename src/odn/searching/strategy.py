"""What a method must be able to do, so that a search in memory, DVC and Kubeflow run it alike.

A search is a loop over the depths of the schedule: train one, judge it, stop or go on. What differs between methods is how a depth is
trained, what the next one inherits, and how that is kept in files: that is a `Strategy`. Its other properties are in `odn.modes`.
"""

import contextlib
import hashlib
import importlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch

from odn import __version__
from odn.config import Config
from odn.files import sha256_of
from odn.models.network import DepthNetwork
from odn.searching.convergence import DepthStep
from odn.searching.data import SearchData
from odn.searching.outcome import Refinement
from odn.training.checkpoint import in_progress
from odn.training.fit import EpochRow, Tick
from odn.training.state import TrainState

DEPENDS_ON = ("seed", "data", "model", "train", "augment", "growth")  # settings that the weights of any trained depth depend on

T = TypeVar("T")


@dataclass(frozen=True)
class Began:
    """Tell that a phase begins, of how many epochs at most, and how many the depth has had before: for a display."""

    depth: int
    phase: str
    epochs: int
    epochs_before: int = 0


Event = Began | Tick | EpochRow


@dataclass(frozen=True)
class Inherited:
    """Hold what a depth leaves for those behind it, and for a finish; each is None where the method has no such thing."""

    state: TrainState | None = None  # what a finish, and where depths grow the next depth, sets off from
    shared: DepthNetwork | None = None  # a network that every depth is taken from


@dataclass(frozen=True)
class Trained:
    """Hold what training a depth leaves: the network that is judged, what is inherited, the record and its epochs."""

    network: DepthNetwork
    inherited: Inherited
    step: DepthStep
    rows: tuple[EpochRow, ...]
    table: tuple[dict[str, float], ...] = ()  # further rows that the method writes


class Checkpoints:
    """Say where interrupted phases are kept until `held` is closed; without a folder nothing is kept."""

    def __init__(self, folder: Path | None, *, config: Config, held: contextlib.ExitStack, inputs: Sequence[Any] = ()) -> None:
        self._folder, self._config, self._held, self._inputs = folder, config, held, inputs

    def of(self, place: str, *sections: str, inputs: Iterable[Any] = (), keep: bool = False) -> Path | None:
        """Return the file of a phase, which only the same settings and inputs share; `keep` one that is done, to be had again."""
        if self._folder is None:
            return None
        key = progress_key(self._config, *sections, inputs=[*self._inputs, *inputs])
        return self._held.enter_context(in_progress(self._folder / place / f"{key}.safetensors", keep=keep))


def progress_key(config: Config, *sections: str, inputs: Iterable[Any]) -> str:
    """Return a name for an interrupted phase that only the same settings, inputs, versions and number of threads share.

    That number is what was chosen for the data: sums over another number of threads have other bytes. Of a file the content counts, and
    of one that a method does not write its name: a search that is submitted again has its files elsewhere.
    """
    settings = json.loads(config.to_json())
    digests = [str(item) if not isinstance(item, Path) else sha256_of(item) if item.exists() else item.name for item in inputs]
    content = [__version__, torch.__version__, torch.get_num_threads(), {name: settings[name] for name in sections}, digests]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Say what is to be trained: a depth, on which data, under which settings, and where interrupted phases are kept."""

    data: SearchData
    config: Config
    depth: int
    checkpoints: Checkpoints


class Strategy(Protocol):
    """Train the depths of a search by a method, and keep in files what they leave."""

    def train(self, inherited: Inherited | None, job: Job) -> Iterator[Event | Trained]:
        """Train a depth behind what the one before it left, None for the first; end with `Trained`.

        Raises:
            TrainingError: a loss that is not finite.
            ConfigError: the method cannot do what is asked of it with this network.
        """

    def write(self, folder: Path, trained: Trained, *, data: SearchData, config: Config) -> None:
        """Write what is inherited into the folder of a depth."""

    def read(self, folder: Path, *, data: SearchData, config: Config) -> Inherited:
        """Read what `write` wrote.

        Raises:
            MissingInputError: it is not there.
            DataError: it is damaged.
        """


@dataclass(frozen=True)
class Refined:
    """Hold a network between the accepted rung and the one before it, what was evaluated of it, and its epochs."""

    network: DepthNetwork
    refinement: Refinement
    rows: tuple[EpochRow, ...]


class Refiner(Protocol):
    """Be a strategy that can try networks between two rungs."""

    def refine(
        self, rung: int, accepted: DepthNetwork, *, data: SearchData, config: Config, checkpoints: Checkpoints
    ) -> Iterator[Event | Refined]:
        """Try networks below an accepted rung, one `Refined` each."""


def refiner_of(config: Config) -> Refiner:
    """Return the strategy of a mode that climbs a ladder."""
    return cast(Refiner, strategy_of(config))


def strategy_of(config: Config) -> Strategy:
    """Return the strategy of the configured mode."""
    return cast(Strategy, importlib.import_module(config.mode.strategy).STRATEGY)


def last(events: Iterable[object], kind: type[T]) -> T:
    """Run events to their end and return the last, which is of this kind."""
    found = deque(events, maxlen=1).pop()
    assert isinstance(found, kind)
    return found
