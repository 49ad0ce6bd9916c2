"""Say which network is meant: everything that its shapes follow from, and nothing else. No torch."""

import dataclasses
from typing import Any, Literal, Self, get_args

from odn.config import N_BLOCKS, Config

Stem = Literal["cifar", "imagenet"]
Shortcut = Literal["avgpool", "conv"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """Name a backbone kept to `depth` blocks, for images of `in_channels` and `n_classes` classes.

    Raises:
        ValueError: a field is unknown to the zoo, of the wrong type or out of range.
    """

    backbone: str
    stem: Stem
    width: float
    shortcut: Shortcut
    in_channels: int
    n_classes: int
    depth: int

    def __post_init__(self) -> None:
        if self.backbone not in N_BLOCKS:
            raise ValueError(f"backbone: {self.backbone!r} is not one of {', '.join(N_BLOCKS)}")
        if self.stem not in get_args(Stem):
            raise ValueError(f"stem: {self.stem!r} is not one of {', '.join(get_args(Stem))}")
        if self.shortcut not in get_args(Shortcut):
            raise ValueError(f"shortcut: {self.shortcut!r} is not one of {', '.join(get_args(Shortcut))}")
        if isinstance(self.width, bool) or not isinstance(self.width, (int, float)) or not 0 < self.width < float("inf"):
            raise ValueError(f"width: expected a number above 0; got {self.width!r}")
        for name, most in (("in_channels", None), ("n_classes", None), ("depth", N_BLOCKS[self.backbone])):
            value = getattr(self, name)
            if type(value) is not int or value < 1 or (most is not None and value > most):
                allowed = "≥ 1" if most is None else f"from 1 to {most}, the blocks of {self.backbone}"
                raise ValueError(f"{name}: expected a whole number {allowed}; got {value!r}")

    @property
    def n_blocks(self) -> int:
        """Count the blocks of the whole backbone."""
        return N_BLOCKS[self.backbone]

    def at(self, depth: int) -> Self:
        """Return the same backbone kept to another depth."""
        return dataclasses.replace(self, depth=depth)

    @classmethod
    def of(cls, config: Config, *, in_channels: int, n_classes: int, depth: int) -> Self:
        """Return the configured backbone, kept to `depth` blocks, for data of this shape."""
        return cls(
            backbone=config.model.backbone,
            stem=config.model.stem,
            width=config.model.width,
            shortcut=config.growth.shortcut,
            in_channels=in_channels,
            n_classes=n_classes,
            depth=depth,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what `architecture.json` holds."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: a field is missing, unknown or refused.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(values, dict) or set(values) != set(names):
            raise ValueError(f"expected exactly the fields {', '.join(names)}; got {values!r}")
        return cls(**values)
