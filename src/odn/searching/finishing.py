"""Finish an accepted depth by a longer cooldown; with `search.reduce_depth` also those before it, while they are good enough."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from odn.config import Config
from odn.models.network import DepthNetwork
from odn.models.stored_networks import weights_digest
from odn.searching.data import SearchData
from odn.searching.depth_reduction import Reduced, depths_to_try, exit_of, try_shallower
from odn.searching.growth import Cooled, cool_down, finish_state
from odn.searching.outcome import Choice, DepthReduction, Judged, Refinement, finish_epochs, finish_wins, reductions, refines
from odn.searching.strategy import Began, Checkpoints, Event, Inherited, Refined, refiner_of
from odn.searching.teachers import inputs_of
from odn.training.fit import EpochRow


@dataclass(frozen=True)
class Finished:
    """Hold what was trained after a depth was accepted; each is None or empty where there was nothing to train."""

    cooled: Cooled | None = None
    reductions: tuple[DepthReduction, ...] = ()
    refinements: tuple[Refinement, ...] = ()
    reduced: DepthNetwork | None = None  # the shallowest, or smallest, that is good enough; None where the first was not
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
    tried: list[Reduced] = []
    if reductions(config, choice):
        wins = cooled is not None and finish_wins(choice, cooled.trial)
        accepted = cooled.network if cooled is not None and wins else network(depth)
        for one in _reduction(accepted, search, inherited=inherited, data=data, config=config, checkpoints=checkpoints):
            if isinstance(one, Reduced):
                tried.append(one)
            else:
                yield one
    looks: list[Refined] = []
    if refines(config, choice):
        for look in refiner_of(config).refine(depth, network(depth), data=data, config=config, checkpoints=checkpoints):
            if isinstance(look, Refined):
                looks.append(look)
            else:
                yield look
    reached = [one.cooled.network for one in tried if one.reduction.reached]
    reached += [one.network for one in looks if one.refinement.reached]
    rows = (cooled.rows if cooled is not None else (), *(one.cooled.rows for one in tried), *(one.rows for one in looks))
    yield Finished(
        cooled=cooled,
        reductions=tuple(one.reduction for one in tried),
        refinements=tuple(one.refinement for one in looks),
        reduced=reached[-1] if reached else None,
        rows=tuple(row for part in rows for row in part),
    )


def _finish(inherited: Inherited, *, epochs: int, data: SearchData, config: Config, checkpoints: Checkpoints) -> Iterator[Event | Cooled]:
    """Anneal a depth for longer than its trial, or train it anew; whoever taught it is its teacher here too."""
    assert inherited.state is not None, "only what has a training state is finished"
    teaching, state = inherited.teaching, finish_state(inherited.state, data=data, config=config)
    inputs = [epochs, config.finish.start, *data.manifest.sha256.values(), state.network.depth, *inputs_of(config, teaching)]
    checkpoint = checkpoints.of("truncate", "seed", "train", "augment", inputs=inputs)
    teacher = teaching.teacher if teaching is not None else None
    yield from cool_down(state, data=data, config=config, name="finish", epochs=epochs, checkpoint=checkpoint, teacher=teacher)


def _reduction(
    network: DepthNetwork,
    search: Sequence[Judged],
    *,
    inherited: Callable[[int], Inherited],
    data: SearchData,
    config: Config,
    checkpoints: Checkpoints,
) -> Iterator[Event | Reduced]:
    """Try the depths before that of the accepted network, nearest first, each taught by the last that was good enough."""
    known, above = {item.step.depth: item for item in search}, network.depth
    for depth in depths_to_try(config, network.depth):
        from_exit = config.search.distill == "exits"
        state = inherited(above if from_exit else depth).state
        assert state is not None, "only what has training states is reduced"
        state = exit_of(state, depth) if from_exit else state
        inputs = [*data.manifest.sha256.values(), above, weights_digest(network), config.search.distill]
        checkpoint = checkpoints.of(f"reduce-{depth}", "seed", "train", "augment", "distill", inputs=inputs)
        step, verdict = known[depth].step, known[depth].verdict
        yield Began(depth, "reduce", config.distill.reduce_epochs, step.epochs + verdict.anneal_epochs)
        tried: Reduced | None = None
        for event in try_shallower(state, teacher=network, step=step, data=data, config=config, checkpoint=checkpoint):
            yield event
            tried = event if isinstance(event, Reduced) else tried
        assert tried is not None, "a try ends with its network"
        if not tried.reduction.reached:
            return
        network, above = tried.cooled.network, depth
