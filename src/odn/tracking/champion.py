"""Decide who is champion: pure functions on the tags of two model versions, no mlflow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from odn.sections import RegistryConfig


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Hold what a model version is judged by."""

    version: str
    verdict: str
    test_accuracy: float
    size_bytes: int
    test_sha256: str  # of the test images and labels: accuracies on others do not compare

    def tags(self) -> dict[str, str]:
        """Return the tags of the model version that `from_tags` reads; tags are strings."""
        return {
            "odn.verdict": self.verdict,
            "odn.test_accuracy": repr(self.test_accuracy),
            "odn.size_bytes": str(self.size_bytes),
            "odn.data_sha256.test": self.test_sha256,
        }

    @classmethod
    def from_tags(cls, version: str, tags: Mapping[str, str]) -> Self | None:
        """Return what `tags` wrote; None for a version that odn did not register."""
        try:
            return cls(
                version=version,
                verdict=tags["odn.verdict"],
                test_accuracy=float(tags["odn.test_accuracy"]),
                size_bytes=int(tags["odn.size_bytes"]),
                test_sha256=tags["odn.data_sha256.test"],
            )
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True)
class Promotion:
    """Say whether the new version is champion, and why in words."""

    champion: bool
    reason: str


def decide(new: Contender, *, present: str | None, champion: Contender | None, registry: RegistryConfig) -> Promotion:
    """Judge a new version against the present champion: its version number, and what its tags say (None if they say nothing)."""
    if new.verdict != "target_reached":
        return Promotion(False, f"the search ended {new.verdict}: no depth reached the target on val, so this is a candidate only")
    if present is None:
        return Promotion(True, "there was no champion, and the target is reached")
    if present == new.version:
        return Promotion(True, f"version {new.version} is the champion already")
    if champion is None:
        return Promotion(
            False, f"the champion, version {present}, has no tags of odn to compare with; move the alias by hand if this is better"
        )
    if champion.test_sha256 != new.test_sha256:
        return Promotion(False, f"the champion, version {present}, was tested on other images, so the accuracies do not compare")
    return _by_bytes(new, champion, registry.margin) if registry.champion_by == "bytes" else _by_accuracy(new, champion)


def _by_accuracy(new: Contender, champion: Contender) -> Promotion:
    against = f"{new.test_accuracy:.2%} on test against {champion.test_accuracy:.2%} of version {champion.version}"
    if new.test_accuracy > champion.test_accuracy:
        return Promotion(True, f"more accurate: {against}")
    return Promotion(False, f"not more accurate: {against}")


def _by_bytes(new: Contender, champion: Contender, margin: float) -> Promotion:
    against = f"{new.size_bytes:,} bytes against {champion.size_bytes:,} of version {champion.version}"
    accuracies = f"{new.test_accuracy:.2%} on test against {champion.test_accuracy:.2%}"
    if new.size_bytes > champion.size_bytes:
        return Promotion(False, f"not smaller: {against}")
    if new.size_bytes == champion.size_bytes:
        better = new.test_accuracy > champion.test_accuracy
        return Promotion(better, f"as small, and {'more' if better else 'not more'} accurate: {accuracies}")
    if new.test_accuracy < champion.test_accuracy - margin:
        return Promotion(False, f"smaller ({against}), but it loses more than the margin of {margin:.2%}: {accuracies}")
    return Promotion(True, f"smaller: {against}; {accuracies}, within the margin of {margin:.2%}")
