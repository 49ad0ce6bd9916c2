"""The base of tasks that step one training state at the rates of `train`."""

from torch import Tensor

from odn.sections import TrainConfig
from odn.training.device import Machine
from odn.training.fit import Progress
from odn.training.group import Shared
from odn.training.optim import Updates
from odn.training.state import TrainState


class StateTask:
    """Hold a state, its updates, and what a checkpoint needs of both; `_rate` is the fraction of the rates of the next step."""

    later: str | None = None

    def __init__(self, state: TrainState, *, settings: TrainConfig, machine: Machine, steps: int) -> None:
        """Take the state to train, and the steps of an epoch."""
        self.draws_inside = state.network.draws_inside
        self._state, self._settings, self._machine = state, settings, machine
        self._updates = Updates(state, train=settings, machine=machine, steps_per_epoch=steps)
        self._rate = 0.0

    @property
    def lr(self) -> float:
        """Return the learning rate of the last step."""
        return self._settings.lr * self._rate

    @property
    def remedy(self) -> str:
        """Say what to change where a loss is not finite."""
        return f"lower train.lr (it was {self.lr:g}) or train.muon_lr, or raise train.warmup_epochs"

    def shared(self) -> Shared:
        """Return what several processes average."""
        return self._updates.shared

    def take(self) -> None:
        """Take the step."""
        self._updates.take()

    def tensors(self) -> dict[str, Tensor]:
        """Return weights, averaged weights and momentum."""
        return self._state.tensors()

    def counts(self) -> dict[str, int | None]:
        """Return how long the average is."""
        return {"n_averaged": self._state.n_averaged}

    def restore(self, tensors: dict[str, Tensor], progress: Progress) -> None:
        """Take over an interrupted training."""
        self._state.load(tensors, n_averaged=progress.counts["n_averaged"] or 0)
