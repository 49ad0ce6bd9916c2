"""Choose between growth and a supernet by a short training of all depths at once."""

from collections.abc import Iterator
from pathlib import Path

from odn.config import Config
from odn.searching.data import SearchData
from odn.searching.mode_selection import ModeSelection, choose_mode
from odn.searching.strategy import DEPENDS_ON, Began, Checkpoints, Event
from odn.supernet.fitting import Supernet, train_supernet
from odn.training.fit import Tick


def select(*, data: SearchData, config: Config, checkpoints: Checkpoints) -> Iterator[Event | ModeSelection]:
    """Train all exits briefly; end with the `ModeSelection`."""
    yield Began(config.search.schedule[0], "mode-selection", config.auto.epochs)
    inputs = [*data.manifest.sha256.values(), *config.search.schedule]
    checkpoint = checkpoints.of("mode-selection", *DEPENDS_ON, "supernet", "auto", inputs=inputs, keep=True)
    yield from run_pilot(data=data, config=config, checkpoint=checkpoint)


def run_pilot(*, data: SearchData, config: Config, checkpoint: Path | None) -> Iterator[Tick | ModeSelection]:
    """Train all exits for `auto.epochs`, end with the `ModeSelection`; the weights are thrown away.

    Raises:
        TrainingError: a loss that is not finite.
    """
    brief = config.supernet.model_copy(update={"epochs": config.auto.epochs, "shrink": 0.0, "widths": (1.0,)})
    for event in train_supernet(data=data, config=config.model_copy(update={"supernet": brief}), checkpoint=checkpoint):
        if isinstance(event, Supernet):
            curves = event.curves
            accuracies = {depth: right[-1] / curves.n_val for depth, right in curves.n_correct.items()}
            yield choose_mode(accuracies, n_val=curves.n_val, cost=event.cost, config=config)
        elif isinstance(event, Tick):
            yield event
