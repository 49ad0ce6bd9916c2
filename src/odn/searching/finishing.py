"""Finish an accepted depth by a longer cooldown; on a spread ladder, try networks below an accepted rung."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from odn.config import Config
from odn.models.network import DepthNetwork
from odn.searching.data import SearchData
from odn.searching.growth import Cooled, cool_down
from odn.searching.outcome import Choice, Judged, Refinement, finish_epochs, refines
from odn.searching.strategy import Began, Checkpoints, Event, Inherited, Refined, refiner_of
from odn.training.fit import EpochRow


@dataclass(frozen=True)
class Finished:
    """Hold what was trained after a depth was accepted; each is None or empty where there was nothing to train."""

    cooled: Cooled | None = None
    refinements: tuple[Refinement, ...] = ()
    refined: DepthNetwork | None = None  # the smallest that is good enough; None where none was
    rows: tuple[EpochRow, ...] = ()


def finished(
    search: Sequence[Judged],
    choice: Choice,
    *,
    inherited: Callable[[int], Inherited],
    network: Callable[[int], DepthNetwork],
    data: SearchData,
    config: Config,
    checkpoints: Checkpoints,
) -> Iterator[Event | Finished]:
    """Finish what a search chose; end with `Finished`. `inherited` brings what a depth left, `network` what was judged there."""
    depth, epochs = choice.judged.step.depth, finish_epochs(config, choice)
    before = {item.step.depth: item.step.epochs + item.verdict.anneal_epochs for item in search}
    cooled: Cooled | None = None
    if epochs:
        yield Began(depth, "finish", epochs, before[depth])
        for event in _finish(inherited(depth), epochs=epochs, data=data, config=config, checkpoints=checkpoints):
            if isinstance(event, Cooled):
                cooled = event
            else:
                yield event
    looks: list[Refined] = []
    if refines(config, choice):
        for look in refiner_of(config).refine(depth, network(depth), data=data, config=config, checkpoints=checkpoints):
            if isinstance(look, Refined):
                looks.append(look)
            else:
                yield look
    reached = [one.network for one in looks if one.refinement.reached]
    rows = (cooled.rows if cooled is not None else (), *(one.rows for one in looks))
    yield Finished(
        cooled=cooled,
        refinements=tuple(one.refinement for one in looks),
        refined=reached[-1] if reached else None,
        rows=tuple(row for part in rows for row in part),
    )


def _finish(inherited: Inherited, *, epochs: int, data: SearchData, config: Config, checkpoints: Checkpoints) -> Iterator[Event | Cooled]:
    """Anneal a depth for longer than its trial."""
    assert inherited.state is not None, "only what has a training state is finished"
    inputs = [epochs, *data.manifest.sha256.values(), inherited.state.network.depth]
    checkpoint = checkpoints.of("truncate", "seed", "train", "augment", inputs=inputs)
    yield from cool_down(inherited.state, data=data, config=config, name="finish", epochs=epochs, checkpoint=checkpoint)
