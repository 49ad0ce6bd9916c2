"""Start a stage in several processes of this machine, as `torchrun --standalone -m odn STAGE …` does, and wait until all have ended."""

import contextlib
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from odn.config import Config
from odn.cores import usable_cores
from odn.errors import ConfigError, TrainingError
from odn.files import write_text
from odn.processes import OWN, world_size

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

PROGRAM = ("-m", "odn")
REFUSED = 2  # exit code of a process that has said what is wrong
GOES_ON = "the same command goes on from the last checkpoint"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # that torchrun hands on to the processes


class Start(Protocol):
    """Run `odn STAGE --flag value …` in all its processes, and return when they have ended well."""

    def __call__(self, config: Config, stage: str, **flags: int | Path) -> None:
        """Run them."""


def wants_processes(config: Config) -> bool:
    """Tell whether a training has yet to be started in several processes; False in each of those.

    Raises:
        ConfigError: torchrun started another number than `train.processes`, which the bytes of all that is trained depend on.
    """
    wanted, found = config.train.processes, world_size()
    if found not in {1, wanted}:
        raise ConfigError(f"train.processes: {wanted}, but torchrun started {found}; set it to {found}, or start {wanted}")
    return wanted > found


def run_processes(config: Config, stage: str, **flags: int | Path) -> None:
    """Run `odn STAGE --flag value …` in `train.processes` processes; one that dies ends all.

    Raises:
        TrainingError: one has died or failed, for the reason that it left.
        SystemExit: this process was asked to end.
        KeyboardInterrupt: as ever.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    n = config.train.processes
    with tempfile.TemporaryDirectory(prefix="odn-") as scratch, _started(n):
        params = Path(scratch) / "params.json"
        write_text(params, config.to_json())
        arguments = ["--params", str(params), *(text for name, value in flags.items() for text in (f"--{name}", str(value)))]
        alone = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=n,
            run_id=f"{OWN}{uuid.uuid4().hex}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=scratch),
        )
        try:
            elastic_launch(alone, sys.executable)(*PROGRAM, stage, *arguments)
        except ChildFailedError as error:
            raise TrainingError(*_reason(error, n=n)) from None
        except SignalException as error:
            raise (KeyboardInterrupt if error.sigval == signal.SIGINT else SystemExit(128 + error.sigval)) from None


def _reason(error: "ChildFailedError", *, n: int) -> list[str]:
    """Return what to say where processes have failed: what one of them refused, else which of them died.

    As soon as one has ended, torchrun ends the others by SIGTERM, even one that is about to say the same; what has lost another is no
    reason. Times are whole seconds.
    """
    failures = sorted(error.failures.items(), key=lambda item: (item[1].exitcode == -signal.SIGTERM, item[1].timestamp, item[0]))
    if reasons := [one for _, one in failures if one.error_file_data.get("lost") is False]:
        return reasons[0].message.splitlines()
    number, first = next((item for item in failures if item[1].exitcode != REFUSED), failures[0])
    if first.exitcode == REFUSED:
        return first.message.splitlines()
    how = f"was ended by {first.signal_name()}" if first.exitcode < 0 else f"failed (exit code {first.exitcode}); its last lines are above"
    return [f"process {number} of {n} {how}; all have ended, and {GOES_ON}"]


@contextlib.contextmanager
def _started(n: int) -> Iterator[None]:
    """Share out the cores, and leave signals, logging and environment as they were; torchrun's own words are for its developers."""
    threads, level = os.environ.get("OMP_NUM_THREADS"), logging.root.manager.disable
    handlers = {one: signal.getsignal(one) for one in SIGNALS}
    os.environ["OMP_NUM_THREADS"] = str(max(1, usable_cores() // n))
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
        for one, handler in handlers.items():
            signal.signal(one, handler)
        if threads is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads
