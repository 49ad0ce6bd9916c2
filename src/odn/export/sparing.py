"""Find which layers to spare when a network is quantised: as few as its accuracy needs, those first that suffer most."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

Model_co = TypeVar("Model_co", covariant=True)
WeightBits = Literal[7, 8]
RANKING = "rank layers by what 8 bits cost them"  # minutes, where images are large


class Quantiser(Protocol[Model_co]):
    """Quantise one network, with or without some of its layers; a layer is whatever it knows its layers by."""

    def quantised(self, *, bits: WeightBits, without: Sequence[Any]) -> Model_co:
        """Return the network with all layers quantised but these, its weights with so many bits."""

    def ranked(self) -> Sequence[Any]:
        """Return the layers, that first which alone moves the logits of the calibration images most."""

    def names(self, layers: Sequence[Any]) -> tuple[str, ...]:
        """Name layers as the network does, such as blocks.1.conv2."""


@dataclass(frozen=True, kw_only=True)
class Quantised(Generic[Model_co]):
    """Hold a quantised network, its accuracy on val, the bits of its weights, and the layers in float32, those that suffer most first."""

    model: Model_co
    val_accuracy: float
    weight_bits: WeightBits
    float_layers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NotQuantised:
    """Say which layers are to blame where no network of 8 bits was accurate enough, the worst first, and how far the best one came."""

    val_accuracy: float
    blamed: tuple[str, ...]


def spare(
    quantiser: Quantiser[Model_co], *, bits: Sequence[WeightBits], accuracy: Callable[[Model_co], float], least: float
) -> Quantised[Model_co] | NotQuantised:
    """Quantise all layers; where that costs too much, spare those layers that suffer most: 1, 2, 4, … of them, half of them at most.

    Enough is an `accuracy` on val of `least`. Of so many layers the weights have the first of `bits` that is enough.
    """
    best, count = 0.0, 0
    ranked: Sequence[Any] = ()
    while count == 0 or count <= len(ranked) // 2:
        for wanted in bits:
            model = quantiser.quantised(bits=wanted, without=ranked[:count])
            reached = accuracy(model)
            if reached >= least:
                return Quantised(model=model, val_accuracy=reached, weight_bits=wanted, float_layers=quantiser.names(ranked[:count]))
            best = max(best, reached)
        ranked, count = ranked or quantiser.ranked(), max(1, 2 * count)
    return NotQuantised(val_accuracy=best, blamed=quantiser.names(ranked))
