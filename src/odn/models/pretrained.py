"""Pretrained weights of a library's network: read without running what a file holds, and fitted to a network by name, strictly.

C channels, O outputs, T tokens, h rows and w columns of a kernel or of a grid of tokens.
"""

import dataclasses
import math
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from odn.errors import ConfigError, DataError, MissingInputError
from odn.models.architecture import Architecture
from odn.models.layouts import layout_of, place_of_classifier
from odn.models.outside import imported_timm, model_of

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # keys under which training scripts keep the weights, best first
PICKLED = (".pth", ".pt", ".bin")
POSITIONS = ("pos_embed", "encoder.pos_embedding")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedArchitecture(Architecture):
    """Describe a network whose stem and blocks set off with weights that were trained on other data: they stand here, and in no record."""

    weights: Mapping[str, Tensor] = dataclasses.field(repr=False, compare=False)  # by the library's names, fitted to this network

    def __hash__(self) -> int:
        return super().__hash__()


def with_weights(architecture: Architecture, tensors: Mapping[str, Tensor], *, shown_as: str) -> PretrainedArchitecture:
    """Return the description of the same network with pretrained weights.

    Raises:
        DataError: the weights are not this network's.
    """
    weights = fitted(architecture, tensors, shown_as=shown_as)
    return PretrainedArchitecture(**architecture.to_dict(), weights=weights)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name: safetensors, or what `torch.save` wrote, of which nothing but tensors is loaded.

    Raises:
        MissingInputError: there is no such file.
        ConfigError: its name does not end as one of weights does.
        DataError: it is damaged, holds something else than tensors, or code.
    """
    if path.suffix not in (".safetensors", *PICKLED):
        raise ConfigError(f"model.weights: expected a file that ends in .safetensors, {', '.join(PICKLED)}; got {path}")
    if not path.is_file():
        raise MissingInputError(f"model.weights: there is no file {path}; check the path, which is relative to the folder of params.yaml")
    try:
        found = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} holds more than tensors, such as code, and was not loaded ({_first_line(error)}); save the weights alone: "
            "safetensors.torch.save_file(model.state_dict(), FILE)"
        ) from None
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError, EOFError) as error:
        raise DataError(f"{path} is damaged or cut off: {_first_line(error)}; get it again") from None
    for wrapper in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(name, str) and isinstance(one, Tensor) for name, one in found.items()):
        raise DataError(f"{path} holds no tensors by name; save the weights alone: safetensors.torch.save_file(model.state_dict(), FILE)")
    return dict(found)


def _unpickled(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of another protocol than torch's: what cannot be read is refused
        return torch.load(path, map_location="cpu", weights_only=True)


def timm_weights(backbone: str) -> dict[str, Tensor]:
    """Return the weights that timm has for a network, from the local cache or the hub.

    Raises:
        ConfigError: timm has none, or is not installed.
        MissingInputError: they are not here, and the hub cannot be reached.
    """
    timm, name = imported_timm(), backbone.partition("/")[2]
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        raise ConfigError(f"model.weights: timm has none of {backbone}; name a file, or another backbone ('odn backbones' says which have)")
    try:
        return dict(timm.create_model(name, pretrained=True).state_dict())
    except OSError as error:
        where = f"{cfg.hf_hub_id} on the Hugging Face hub" if cfg.hf_hub_id else cfg.url
        raise MissingInputError(
            f"model.weights: timm's own of {backbone} are not in the local cache, and the hub cannot be reached ({_first_line(error)}); "
            f"on a machine that can, get model.safetensors of {where}, bring it here, and set model.weights to its path"
        ) from None


def fitted(architecture: Architecture, tensors: Mapping[str, Tensor], *, shown_as: str) -> dict[str, Tensor]:
    """Return a network's tensors, all but its classifier's, from those of a file; what does not fit is refused by its name.

    For grey images the first convolution is summed over RGB, so that it gives what three equal channels gave; positions of tokens are
    interpolated to the grid of the images. A count of batches that older files lack is 0.

    Raises:
        DataError: a tensor is missing, is not wanted, or has another shape.
    """
    with torch.device("meta"):
        model = model_of(architecture)
    classifier = place_of_classifier(model, layout_of(model, library=architecture.family))
    wanted = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(f"{classifier}.")}
    found = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{classifier}.")}
    missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    strange = [name for name in found if name not in wanted]
    if missing or strange:
        lacks = f"it lacks {_some(missing)}" if missing else ""
        has = f"it has {_some(strange)}, which the network has not" if strange else ""
        raise DataError(
            f"{shown_as} is not of {architecture.name}: {' and '.join(one for one in (lacks, has) if one)}; name a file with the "
            "library's own names (examples/rename_weights.py writes one, where only the names are others)"
        )
    ready = {name: _adapted(name, found[name], like=tensor) if name in found else torch.zeros((), dtype=tensor.dtype)
             for name, tensor in wanted.items()}  # fmt: skip
    for name, tensor in wanted.items():
        if ready[name].shape != tensor.shape:
            raise DataError(
                f"{shown_as} is not of {architecture.name} for images of {architecture.in_channels} channels: for {name} it holds "
                f"{tuple(found[name].shape)} where {tuple(tensor.shape)} is needed"
            )
    return ready


def _adapted(name: str, found: Tensor, *, like: Tensor) -> Tensor:
    if like.is_floating_point():
        found = found.float()
    if found.ndim == like.ndim == 4 and (found.shape[1], like.shape[1]) == (3, 1):
        found = found.sum(dim=1, keepdim=True)  # (O, 3, h, w) -> (O, 1, h, w)
    if name in POSITIONS and found.ndim == like.ndim == 3:
        found = _interpolated(found, n_tokens=like.shape[1])
    return found.clone()


def _interpolated(positions: Tensor, *, n_tokens: int) -> Tensor:
    """Bring positions (1, T, C) to another square grid; tokens before those of patches keep theirs."""
    n_ahead = next((n for n in range(2) if math.isqrt(positions.shape[1] - n) ** 2 == positions.shape[1] - n), None)
    if positions.shape[1] == n_tokens or n_ahead is None or math.isqrt(n_tokens - n_ahead) ** 2 != n_tokens - n_ahead:
        return positions
    ahead, grid = positions[:, :n_ahead], positions[:, n_ahead:]
    before, after = math.isqrt(grid.shape[1]), math.isqrt(n_tokens - n_ahead)
    square = grid.reshape(1, before, before, -1).permute(0, 3, 1, 2)  # (1, C, h, w)
    resized = F.interpolate(square, size=(after, after), mode="bicubic", antialias=True)
    return torch.cat([ahead, resized.permute(0, 2, 3, 1).reshape(1, after * after, -1)], dim=1)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200]
