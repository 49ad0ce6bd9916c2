"""Keep the pretrained weights that a search sets off with beside its depths: the same for every rung, and for every host."""

from dataclasses import asdict, dataclass
from pathlib import Path

from odn.config import Config
from odn.errors import ConfigError
from odn.files import sha256_of, write_bytes, write_json
from odn.models.architecture import Architecture
from odn.records import Record, Sha256, read_record


@dataclass(frozen=True, kw_only=True)
class Pretraining(Record):
    """Say which network the weights are of, and which they are; `sha256` is of `weights.safetensors`, None where there are none."""

    backbone: str
    sha256: Sha256 | None


def write_pretraining(folder: Path, *, config: Config, source: Path | None) -> Pretraining:
    """Write the configured weights as safetensors, and what they are; without `model.weights` that there are none, without torch.

    `source` is the file where `model.weights` names one; None: timm's own.

    Raises:
        MissingInputError, DataError, ConfigError: the file is not there, damaged, or not of the backbone.
    """
    digest = None
    if config.model.weights is not None:
        import safetensors.torch

        from odn.models.pretrained import read_weights, timm_weights

        tensors = timm_weights(config.model.backbone) if source is None else read_weights(source)
        ready = {name: tensor.contiguous().clone() for name, tensor in sorted(tensors.items())}
        write_bytes(folder / "weights.safetensors", safetensors.torch.save(ready))
        digest = sha256_of(folder / "weights.safetensors")
    found = Pretraining(backbone=config.model.backbone, sha256=digest)
    write_json(folder / "pretrained.json", asdict(found))
    return found


def pretrained(architecture: Architecture, folder: Path, *, config: Config) -> Architecture:
    """Return the description of a backbone with the weights that `write_pretraining` kept; the same where there are none.

    Raises:
        MissingInputError: they are not there.
        DataError: they are damaged, or not this network's.
        ConfigError: they are those of another backbone.
    """
    if config.model.weights is None:
        return architecture
    from odn.models.pretrained import read_weights, with_weights

    found = read_record(Pretraining, folder / "pretrained.json", made_by="open")
    if found.backbone != config.model.backbone or found.sha256 is None:
        raise ConfigError(
            f"{folder} holds weights of {found.backbone}, the settings say {config.model.backbone}; run 'dvc repro open' first"
        )
    return with_weights(architecture, read_weights(folder / "weights.safetensors"), shown_as=f"model.weights {config.model.weights}")
