"""Follow training while it runs: on the screen and, where it takes long, in MLflow."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from odn.config import Config
from odn.display import PhaseDisplay, phase_display
from odn.searching.data import SearchData
from odn.searching.strategy import Began, last
from odn.tracking import live_run
from odn.training.fit import EpochRow, Tick

T = TypeVar("T")


def follow(events: Iterable[object], kind: type[T], *, config: Config, data: SearchData, live: bool = True) -> T:
    """Run events to their end, showing each phase and each epoch of it, and return the last of them; `live` tells MLflow too.

    Of several processes the first alone shows anything.
    """
    if not data.machine.group.leads:
        return last(events, kind)
    found: object = None
    display: PhaseDisplay | None = None
    log: Callable[[Mapping[str, Any]], None] | None = None
    with contextlib.ExitStack() as phase:
        for found in events:
            if isinstance(found, Began):
                phase.close()
                log = None
                display = phase.enter_context(phase_display(depth=found.depth, phase=found.phase, epochs=found.epochs, unit=config.unit))
                if live and found.phase != "refine":  # its epochs are not those of the rung
                    sha256, before = data.manifest.sha256, found.epochs_before
                    run = live_run(config, data_sha256=sha256, depth=found.depth, phase=found.phase, steps_before=before)
                    log = phase.enter_context(run).log
            elif display is not None and isinstance(found, Tick):
                display.tick(epoch=found.epoch, step=found.step, steps=found.steps)
            elif display is not None and isinstance(found, EpochRow):
                display.row(epoch=found.epoch, val_accuracy=found.val_accuracy, train_loss=found.train_loss)
                if log is not None:
                    log(vars(found))
    assert isinstance(found, kind)
    return found
