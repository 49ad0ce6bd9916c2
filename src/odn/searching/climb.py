"""Search in memory: train a depth, judge it, go on to the next until the target is reached, then finish what is kept.

The stages `train`, `check` and `truncate` call the same parts, a process each, and give the same bytes.
Source: Tareen and Tareen, arXiv 2510.10764.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from odn.config import Config
from odn.models.network import DepthNetwork
from odn.searching.convergence import DepthStep, Tried, Verdict, judge, wants_trial
from odn.searching.data import SearchData
from odn.searching.finishing import Finished, finished
from odn.searching.growth import Cooled, cool_down
from odn.searching.outcome import Judged, LedgerEntry, choose, finish_wins, full_network_epochs, ledger, summary
from odn.searching.strategy import Began, Checkpoints, Event, Inherited, Job, Trained, last, strategy_of


@dataclass(frozen=True)
class SearchStep:
    """Hold one depth of a search: what training gave, the verdict, the network that was judged, and what a finish sets off from."""

    step: DepthStep
    verdict: Verdict
    network: DepthNetwork
    inherited: Inherited


def expand(data: SearchData, config: Config) -> Iterator[SearchStep]:
    """Search, yielding each depth as it is judged; `outcome.choose` says with which depth it ends.

    Raises:
        TrainingError: a loss that is not finite.
    """
    with contextlib.ExitStack() as held:
        checkpoints = Checkpoints(None, config=config, held=held)
        strategy, inherited = strategy_of(config), None
        tried: tuple[Tried, ...] = ()
        for depth in config.search.schedule:
            job = Job(data=data, config=config, depth=depth, checkpoints=checkpoints)
            trained = last(strategy.train(inherited, job), Trained)
            cooled, network = None, trained.network
            if wants_trial(trained.step, config.search):
                cooled = last(try_annealed(trained.inherited, trained.step, data=data, config=config, checkpoints=checkpoints), Cooled)
                network = cooled.network
            verdict = judge(trained.step, config.search, trial=cooled.trial if cooled else None, before=tried)
            tried = verdict.tried
            inherited = trained.inherited
            yield SearchStep(step=trained.step, verdict=verdict, network=network, inherited=inherited)
            if verdict.verdict != "expand":
                return


@dataclass(frozen=True)
class SearchResult:
    """Hold what a search ends with: the network that is kept, cut and finished, and how it came about.

    `val_accuracy` is of the model, with its Wilson interval; `full_network_epochs` what the search cost, in passes over train through the
    whole backbone.
    """

    model: DepthNetwork
    depth: int
    verdict: Literal["target_reached", "exhausted"]
    reason: str
    val_accuracy: float
    val_interval: tuple[float, float]
    full_network_epochs: float
    ledger: tuple[LedgerEntry, ...]
    finished: Finished


def conclude(steps: Sequence[SearchStep], *, data: SearchData, config: Config) -> SearchResult:
    """Finish what a search chose, in memory, as the stage `truncate` does.

    Raises:
        TrainingError: a loss that is not finite.
        ValueError: the search has not ended.
    """
    judged, by_depth = [Judged(step=one.step, verdict=one.verdict) for one in steps], {one.step.depth: one for one in steps}
    choice = choose(judged)
    if choice is None:
        raise ValueError("the search has not ended: its last verdict is to expand")
    with contextlib.ExitStack() as held:
        events = finished(
            judged,
            choice,
            inherited=lambda depth: by_depth[depth].inherited,
            network=lambda depth: by_depth[depth].network,
            data=data,
            config=config,
            checkpoints=Checkpoints(None, config=config, held=held),
        )
        done = last(events, Finished)
    trial, model = (done.cooled.trial if done.cooled is not None else None), by_depth[choice.judged.step.depth].network
    if done.refined is not None:
        model = done.refined
    elif done.cooled is not None and finish_wins(choice, trial, search=config.search):
        model = done.cooled.network
    entries = ledger(judged, choice, trial, refinements=done.refinements, phase=config.mode.phase)
    about = summary(choice, trial, refinements=done.refinements, search=config.search)
    return SearchResult(
        model=model.eval(),
        finished=done,
        ledger=tuple(entries),
        full_network_epochs=full_network_epochs(entries),
        **{name: about[name] for name in ("depth", "verdict", "reason", "val_accuracy", "val_interval")},
    )


def try_annealed(
    inherited: Inherited, step: DepthStep, *, data: SearchData, config: Config, checkpoints: Checkpoints
) -> Iterator[Event | Cooled]:
    """Anneal a copy of a depth for a trial, and evaluate on val once; end with `Cooled`."""
    assert inherited.state is not None, "only what has a training state is annealed"
    epochs = config.search.cooldown_epochs
    # Kept when it is done: a changed target asks for the same trial again, and the answer is there.
    inputs = [epochs, *data.manifest.sha256.values()]
    checkpoint = checkpoints.of(f"check-{step.depth}", "seed", "train", "augment", inputs=inputs, keep=True)
    yield Began(step.depth, "trial", epochs, step.epochs)
    yield from cool_down(inherited.state, data=data, config=config, name="trial", epochs=epochs, checkpoint=checkpoint)
