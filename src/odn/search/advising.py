"""Take a short look at all depths at once, to choose how the search is done."""

from collections.abc import Iterator
from pathlib import Path

from odn.config import Config
from odn.search.advice import Advice, advise
from odn.search.data import SearchData
from odn.search.supernet import Supernet, train_supernet
from odn.training.fit import Tick


def look_ahead(*, data: SearchData, config: Config, checkpoint: Path | None) -> Iterator[Tick | Advice]:
    """Train all exits for `auto.epochs`, end with the `Advice`; the weights are thrown away.

    Raises:
        TrainingError: a loss that is not finite.
    """
    brief = config.supernet.model_copy(update={"epochs": config.auto.epochs, "shrink": 0.0, "widths": (1.0,)})
    for event in train_supernet(data=data, config=config.model_copy(update={"supernet": brief}), checkpoint=checkpoint):
        if isinstance(event, Supernet):
            curves = event.curves
            accuracies = {depth: right[-1] / curves.n_val for depth, right in curves.n_correct.items()}
            yield advise(accuracies, n_val=curves.n_val, cost=event.cost, config=config)
        elif isinstance(event, Tick):
            yield event
