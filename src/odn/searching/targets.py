"""Read what a specialised network must be: `accuracy>=0.98,bytes<=100000`. Pure functions on text and numbers, no torch.

A target is one or more bounds with commas between them, each of another kind:

- `accuracy>=A`: on val, above 0 and at most 1;
- `parameters<=N`, `bytes<=N`, `macs<=N`: a whole number, or below 1 a share of the whole backbone's;
- `latency_ms<=T`: milliseconds for one image, measured on this machine.
"""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from odn.errors import ConfigError

if TYPE_CHECKING:
    from odn.models.cost import Cost

COUNTS = {"parameters": "n_params", "bytes": "size_bytes", "macs": "macs"}  # as they are called in a target → in `Cost`
OPERATORS = {"accuracy": ">=", **dict.fromkeys(COUNTS, "<="), "latency_ms": "<="}
LARGEST = {"accuracy": 1.0, **dict.fromkeys(COUNTS, 1e15), "latency_ms": 1e9}
BOUND = re.compile(r"([a-z_]+)\s*([<>=]+)\s*([^\s<>=]*)")
NUMBER = re.compile(r"[-+]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|inf|nan)")
EXAMPLE = "such as accuracy>=0.98 or bytes<=100000,latency_ms<=1.5"


@dataclass(frozen=True)
class Target:
    """Hold the bounds of a target, by kind."""

    bounds: tuple[tuple[str, float], ...]  # in the order of OPERATORS

    @property
    def accuracy(self) -> float | None:
        """Return the least accuracy on val; None where any will do."""
        return dict(self.bounds).get("accuracy")

    @property
    def latency_ms(self) -> float | None:
        """Return the longest time for one image; None where any will do."""
        return dict(self.bounds).get("latency_ms")

    @property
    def text(self) -> str:
        """Return the target as it is written: equal targets are written alike."""
        return ",".join(f"{kind}{OPERATORS[kind]}{_number(bound)}" for kind, bound in self.bounds)

    @property
    def slug(self) -> str:
        """Return a name for files and the registry."""
        return "_".join(f"{kind.replace('_', '-')}-{_number(bound)}" for kind, bound in self.bounds)

    def budgets(self, whole: "Cost") -> dict[str, float]:
        """Return the bounds on counts, by kind; a share is one of the whole backbone's count."""
        found = {kind: bound for kind, bound in self.bounds if kind in COUNTS}
        return {kind: bound * getattr(whole, COUNTS[kind]) if bound < 1 else bound for kind, bound in found.items()}

    def excess(self, cost: "Cost", *, whole: "Cost") -> dict[str, float]:
        """Return by how much a network exceeds each budget that it exceeds, as a fraction of the budget."""
        over = {kind: getattr(cost, COUNTS[kind]) / budget - 1 for kind, budget in self.budgets(whole).items()}
        return {kind: excess for kind, excess in over.items() if excess > 0}


def read_targets(texts: Sequence[str]) -> tuple[Target, ...]:
    """Read targets, before any work is done.

    Raises:
        ConfigError: a target cannot be read, cannot be met by any network, or stands twice; each refusal is named.
    """
    if not texts:
        raise ConfigError(f"--target: name at least one, {EXAMPLE}")
    targets, refused = [], []
    for text in texts:
        try:
            targets.append(read_target(text))
        except ConfigError as error:
            refused.append(str(error))
    if refused:
        raise ConfigError(*refused)
    for target in targets:
        if targets.count(target) > 1:
            raise ConfigError(f"--target {target.text}: stands twice; name it once")
    return tuple(targets)


def read_target(text: str) -> Target:
    """Read one target.

    Raises:
        ConfigError: it cannot be read, or no network can meet it.
    """
    bounds: dict[str, float] = {}
    for part in text.split(","):
        kind, bound = _bound(part.strip(), text)
        if kind in bounds:
            raise ConfigError(f"--target {text}: two bounds on {kind}; keep one")
        bounds[kind] = bound
    return Target(tuple((kind, bounds[kind]) for kind in OPERATORS if kind in bounds))


def _bound(part: str, text: str) -> tuple[str, float]:
    found = BOUND.fullmatch(part)
    if found is None:
        raise ConfigError(f"--target {text}: {part!r} is no bound; write {EXAMPLE}")
    kind, operator, number = found.groups()
    if kind not in OPERATORS:
        near = difflib.get_close_matches(kind, OPERATORS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(OPERATORS)}"
        raise ConfigError(f"--target {text}: unknown kind {kind} ({hint})")
    if operator != OPERATORS[kind]:
        raise ConfigError(f"--target {text}: {kind} is bounded by {OPERATORS[kind]}; got {operator}")
    if not number:
        raise ConfigError(f"--target {text}: no number stands behind {kind}{operator}; write {EXAMPLE}")
    if NUMBER.fullmatch(number) is None:
        raise ConfigError(f"--target {text}: {number!r} is no number")
    _check_range(kind, float(number), text)
    return kind, float(number)


def _check_range(kind: str, bound: float, text: str) -> None:
    if not math.isfinite(bound) or bound <= 0:
        raise ConfigError(f"--target {text}: {kind} must be a number above 0; got {bound:g}")
    if kind == "accuracy" and bound > 1:
        raise ConfigError(f"--target {text}: an accuracy is a fraction, at most 1; got {bound:g}")
    if bound > LARGEST[kind]:
        raise ConfigError(f"--target {text}: every network meets {kind} of {bound:g}; leave it out, or take at most {LARGEST[kind]:g}")
    if kind in COUNTS and bound >= 1 and not bound.is_integer():
        raise ConfigError(f"--target {text}: {kind} is a whole number, or below 1 a share of the whole backbone's; got {bound:g}")


def describe_excess(excess: Mapping[str, float]) -> str:
    """Say by how much budgets are exceeded."""
    return " and ".join(f"{kind} by {over:.1%}" for kind, over in excess.items())


def _number(bound: float) -> str:
    return str(int(bound)) if bound.is_integer() else repr(bound)
