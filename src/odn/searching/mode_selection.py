"""Choose between growth and a supernet from a pilot training of all depths, and hand the choice on in files; no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from odn.config import Config
from odn.files import list_also, write_json
from odn.records import Amount, Fraction, Positive, Record, read_record
from odn.searching.convergence import one_standard_error_depth
from odn.searching.outcome import LedgerEntry

NAME = "mode_selection.json"  # in the folder of each depth


@dataclass(frozen=True, kw_only=True)
class ModeSelection(Record):
    """Say which mode is chosen, and why: the content of mode_selection.json."""

    mode: Literal["growth", "supernet"]
    depth: Positive  # that the data seem to need
    why: str
    accuracies: dict[Positive, Fraction]  # on val of each exit, after the short training
    n_val: Positive
    epochs: Positive
    cost: Amount  # full-network epochs of the pilot

    def entry(self, deepest: int) -> LedgerEntry:
        """Return what it cost, of the deepest depth that was trained."""
        return LedgerEntry(depth=deepest, phase="mode-selection", epochs=self.epochs, full_network_epochs=self.cost)


def choose_mode(accuracies: Mapping[int, float], *, n_val: int, cost: float, config: Config) -> ModeSelection:
    """Choose from the accuracy of every exit of a network whose exits were trained together for a short while.

    The depth that the data seem to need is the shallowest within one standard error of the best exit. Growth pays for each
    depth up to the one that is enough: it is chosen where that is shallow and one model is wanted; else all depths are trained at once.
    """
    auto, deepest = config.auto, config.search.schedule[-1]
    depth = one_standard_error_depth(accuracies, n=n_val)
    best = max(accuracies.values())
    seen = (
        f"after {auto.epochs} epochs of all depths at once, depth {depth} is the shallowest within one standard error "
        f"of the best ({accuracies[depth]:.2%} against {best:.2%} on val)"
    )
    is_deep = depth > auto.deep * deepest
    if auto.models > 1:
        why = f"auto.models asks for {auto.models} models from one training; {seen}"
    else:
        side = "beyond" if is_deep else "within"
        why = f"{seen}, which is {side} the first {auto.deep:.0%} of {deepest} blocks that auto.deep leaves to growth"
    return ModeSelection(
        mode="supernet" if is_deep or auto.models > 1 else "growth",
        depth=depth,
        why=why,
        accuracies=dict(accuracies),
        n_val=n_val,
        epochs=auto.epochs,
        cost=cost,
    )


def read_mode_selection(folder: Path, config: Config) -> ModeSelection | None:
    """Read what was selected for the depth in `folder`; None where `search.mode` says itself what is done.

    Raises:
        MissingInputError: it is not there.
        DataError: it is damaged.
    """
    return read_record(ModeSelection, folder / NAME, made_by=f"train@{folder.name}") if config.mode.selects else None


def write_mode_selection(folder: Path, mode_selection: ModeSelection) -> None:
    """Write the selection into the folder of a trained depth."""
    list_also(folder, NAME)
    write_json(folder / NAME, asdict(mode_selection))


def resolve_mode(config: Config, mode_selection: ModeSelection | None) -> Config:
    """Return the settings under the mode that was selected, if one was."""
    return config if mode_selection is None else config.in_mode(mode_selection.mode)
