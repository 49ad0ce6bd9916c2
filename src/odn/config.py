"""Turn `params.yaml` into one frozen, typed `Config`, refusing whatever is unknown, missing, ill-typed or out of range.

Each field says its meaning and unit; its type and bounds are its range. To Kubeflow the config travels as one canonical
JSON string (`Config.to_json`), which reads back to an equal object.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from odn.errors import ConfigError
from odn.refusals import allowed_in, refusal

N_BLOCKS = {"resnet18": 8, "resnet34": 16, "resnet50": 16}  # a law holds it equal to models.zoo, without importing torch here
TARGETLESS_SECTIONS = ("data", "model", "train", "augment", "growth")  # what the weights of a depth depend on, beside the seed

Source = Literal["digits", "mnist", "fashion_mnist", "emnist_letters", "usps", "svhn", "cifar10", "cifar100", "folder", "s3"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
ClosedFraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Be frozen, strict about types (an int is a valid float, nothing else is converted) and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _as_tuple(value: Any) -> Any:
    """Accept a list, which YAML and JSON have, for a tuple."""
    return tuple(value) if isinstance(value, list) else value


class DataConfig(Section):
    """Say where images come from and how they are split."""

    source: Source = Field(description="data set")
    root: str | None = Field(description="folder or s3://bucket/prefix of the raw files; null downloads them")
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = Field(description="pixels a side that folder and s3 images are resized to")
    max_images: Annotated[int, Field(ge=2)] | None = Field(description="training images kept, stratified, before val is split off")
    val_fraction: Fraction = Field(description="fraction of the training images that becomes val")
    test_fraction: Fraction = Field(description="fraction of all images that becomes test, where the source has no test split")

    @property
    def name(self) -> str:
        """Call the data by its name: a public data set's own, or that of the folder in which a user's images are."""
        own = self.root.rstrip("/").rpartition("/")[2] if self.root and self.source in {"folder", "s3"} else ""
        return own or self.source


class ModelConfig(Section):
    """Name the backbone that is grown."""

    backbone: Literal["resnet18", "resnet34", "resnet50"] = Field(description="row of the zoo")
    stem: Literal["cifar", "imagenet"] = Field(description="3x3 stride 1, or 7x7 stride 2 with a max pool")
    width: Annotated[float, Field(gt=0, le=4)] = Field(description="multiplier of every channel count")


class TrainConfig(Section):
    """Set the optimiser and the machine."""

    batch_size: Annotated[int, Field(ge=2, le=65536)] = Field(description="images a step")
    lr: Annotated[float, Field(gt=0, le=100)] = Field(description="learning rate of the stable phase")
    optimiser: Literal["muon", "sgd"] = Field(description="muon: orthogonalised steps for the kernels of the blocks, SGD for the rest")
    kernel_lr: Annotated[float, Field(gt=0, le=100)] = Field(description="learning rate of Muon's steps; without effect with sgd")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(description="Nesterov's form; 0 is none")
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = Field(description="L2 penalty on convolution and linear weights")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(description="probability mass spread over all classes")
    warmup_epochs: Annotated[float, Field(ge=0, le=100)] = Field(description="linear warm-up at the start of a depth, epochs")
    ema_epochs: Annotated[float, Field(gt=0, le=100)] = Field(description="horizon of the moving average of the weights, epochs")
    aux_weight: ClosedFraction = Field(description="weight of the loss at the head of the depth grown from")
    precision: Literal["auto", "fp32", "bf16"] = Field(description="auto: bf16 autocast where the processor or GPU gains from it")
    device: Literal["auto", "cpu", "cuda"] = Field(description="auto: a GPU where there is one")


class AugmentConfig(Section):
    """Bound the random change of each training image."""

    shift: Annotated[int, Field(ge=0, le=64)] = Field(description="largest translation, pixels")
    rotate: Annotated[float, Field(ge=0, le=180)] = Field(description="largest rotation, degrees")
    scale: Annotated[float, Field(ge=0, lt=1)] = Field(description="largest change of size, fraction")
    flip: bool = Field(description="mirror left to right with probability 1/2")


class GrowthConfig(Section):
    """Say how a depth starts and when it has been trained enough to be judged; nothing here knows the target."""

    init: Literal["zero", "gauss", "copy", "reload"] = Field(description="how a new block and its head start")
    shortcut: Literal["avgpool", "conv"] = Field(description="shortcut at a group change: average pool + 1x1, or strided 1x1")
    min_epochs: Annotated[int, Field(ge=1, le=10000)] = Field(description="least epochs of the stable phase")
    max_epochs: Annotated[int, Field(ge=1, le=10000)] = Field(description="most epochs of the stable phase")
    patience: Annotated[int, Field(ge=1, le=1000)] = Field(description="epochs over which the curve must still improve")
    min_gain: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="fraction of the error on val that `patience` epochs must remove, else the curve is flat"
    )


class SearchConfig(Section):
    """Say when a depth is accepted."""

    mode: Literal["growth", "paper", "grid", "scratch", "supernet"] = Field(
        description="growth: depths grow from one another; paper: the published procedure; grid: each depth anew; scratch: one depth anew; "
        "supernet: all depths at once"
    )
    target: Fraction = Field(description="accuracy on val that must be reached")
    accept: Literal["point", "lower_bound"] = Field(description="compare the accuracy itself, or its Wilson lower bound, with the target")
    confidence: Fraction = Field(description="of every interval")
    cooldown_epochs: Annotated[int, Field(ge=1, le=10000)] = Field(description="of the probe: the rate goes to 0, then one look at val")
    cooldown_gain: ClosedFraction = Field(description="fraction of the read-out's error that a cooldown is expected to remove at most")
    schedule: tuple[int, ...] = Field(description="depths that are tried, ascending")


class PaperConfig(Section):
    """Set the published procedure, of `search.mode: paper`."""

    target: Fraction = Field(description="search.target, which here is the published target less its tolerance, as training must know it")
    warmup_epochs: Annotated[int, Field(ge=0, le=10000)] = Field(description="of the warm-up of all depths at once")
    warmup_lr: Annotated[float, Field(gt=0, le=100)] = Field(description="rate at which the warm-up begins")
    lr: Annotated[float, Field(gt=0, le=100)] = Field(description="rate at which the first depth begins")
    later_lr: Annotated[float, Field(gt=0, le=100)] = Field(description="rate at which every later depth begins")
    patience: Annotated[int, Field(ge=1, le=10000)] = Field(description="epochs without progress that end a depth")


class SupernetConfig(Section):
    """Set the training of all depths at once, of `search.mode: supernet`."""

    epochs: Annotated[int, Field(ge=1, le=10000)] = Field(description="over which all depths are trained")
    exits: Annotated[int, Field(ge=0, le=16)] = Field(description="depths drawn in each step, beside the deepest and the shallowest")
    distill_weight: Annotated[float, Field(ge=0, le=100)] = Field(
        description="weight of what the deepest exit teaches the others; 0: labels alone"
    )
    temperature: Annotated[float, Field(gt=0, le=100)] = Field(description="that softens what teacher and students say")
    shrink: ClosedFraction = Field(description="fraction of the epochs over which depths open, deep to shallow; widths open behind it")
    cooldown: ClosedFraction = Field(description="fraction of the epochs, at the end, in which the rate falls to 0")
    widths: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1), BeforeValidator(_as_tuple)] = Field(
        description="fractions of the inner channels of the blocks that are trained together; 1 is among them"
    )


class RouteConfig(Section):
    """Set how `odn route` fits exits and gates to single images."""

    quantiles: Annotated[int, Field(ge=1, le=256)] = Field(description="thresholds that are tried at each exit")
    epochs: Annotated[int, Field(ge=1, le=10000)] = Field(description="of training the gates")
    lr: Annotated[float, Field(gt=0, le=1)] = Field(description="Adam's rate for the gates; it falls along a cosine")
    backbone_lr: Annotated[float, Field(ge=0, le=1)] = Field(description="Adam's rate for the backbone beneath the gates; 0 freezes it")
    hidden: Annotated[int, Field(ge=1, le=4096)] = Field(description="units of a gate's inner layer")
    budget_weight: Annotated[float, Field(ge=0, le=10000)] = Field(description="of the squared distance from the budget, in the loss")
    distill_weight: ClosedFraction = Field(description="of what the ungated network says, against the labels")
    distill_temperature: Annotated[float, Field(gt=0, le=100)] = Field(description="by which both sides' logits are softened")
    gumbel_temperature: Annotated[float, Field(gt=0, le=100)] = Field(description="of the gates' samples in training")


class FinishConfig(Section):
    """Say how the accepted depth is finished."""

    epochs: Annotated[int, Field(ge=0, le=10000)] = Field(description="of a longer cooldown, kept if better on val; 0: none")


class RegistryConfig(Section):
    """Say what becomes of the model in the registry."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")] = Field(description="of the registered model")
    champion_by: Literal["accuracy", "bytes"] = Field(description="what a new champion must have more, or less, of")
    margin: ClosedFraction = Field(description="accuracy that a champion by bytes may lose")


def _schedule_in(search: Any) -> Any:
    """Accept `schedule` as a list of depths, or as the map {"depth": {after: depth}} that DVC's foreach needs."""
    if not isinstance(search, dict) or "schedule" not in search:
        return search
    schedule = search["schedule"]
    if isinstance(schedule, dict):
        depths, previous = [], 0
        for key, entry in schedule.items():
            if not (isinstance(key, str) and key.isdigit() and isinstance(entry, dict) and set(entry) == {"after"}):
                raise ConfigError(f'search.schedule: each entry reads "2": {{after: 1}}, with the depth in quotes; got {key!r}: {entry!r}')
            if entry["after"] != previous:
                raise ConfigError(f"search.schedule: depth {key} must come after {previous}; got after: {entry['after']!r}")
            depths.append(int(key))
            previous = int(key)
    elif isinstance(schedule, (list, tuple)):
        depths = list(schedule)
    else:
        raise ConfigError(f"search.schedule: expected a map of depths or a list; got {schedule!r}")
    if not depths:
        raise ConfigError("search.schedule: is empty; name at least one depth")
    for depth in depths:
        if type(depth) is not int or depth < 1:
            raise ConfigError(f"search.schedule: a depth is a whole number ≥ 1; got {depth!r}")
    if any(deeper <= shallower for shallower, deeper in pairwise(depths)):
        raise ConfigError(f"search.schedule: depths must ascend; got {depths}")
    return {**search, "schedule": tuple(depths)}


class Config(Section):
    """Hold everything that changes a number: the whole of `params.yaml`."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(description="of every random draw")
    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    augment: AugmentConfig
    growth: GrowthConfig
    search: Annotated[SearchConfig, BeforeValidator(_schedule_in)]
    paper: PaperConfig
    supernet: SupernetConfig
    route: RouteConfig
    finish: FinishConfig
    registry: RegistryConfig

    def to_json(self) -> str:
        """Return the canonical JSON: keys sorted, no spaces; equal configs give equal strings."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def depth_before(self, depth: int) -> int:
        """Return the scheduled depth that `depth` grows from; 0 for the first.

        Raises:
            ConfigError: `depth` is not in the schedule.
        """
        schedule = self.search.schedule
        if depth not in schedule:
            raise ConfigError(f"depth {depth} is not in search.schedule {list(schedule)}")
        return (0, *schedule)[schedule.index(depth)]


def load_config(path: Path) -> Config:
    """Read and check `params.yaml`.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds a setting that is refused; every refusal is named.
    """
    try:
        settings = yaml.load(path.read_text(), Loader=_OnceLoader)  # noqa: S506  a SafeLoader
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing; run odn in the project's folder, or name the file with --params") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    return make_config(settings)


class _OnceLoader(yaml.SafeLoader):
    """Refuse a key that stands twice in a section, where YAML would quietly take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"setting {key} stands twice in the section that begins in line {node.start_mark.line + 1}; keep one")
        return super().construct_mapping(node, deep=deep)


def make_config(settings: Any) -> Config:
    """Check settings (nested dicts, or a canonical JSON string) and return them typed.

    Raises:
        ConfigError: one line for each refused setting: its name, what is allowed, the value, the nearest right name.
    """
    if isinstance(settings, str):
        try:
            settings = json.loads(settings)
        except ValueError as error:
            raise ConfigError(f"the config is not valid JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"the config holds no sections of settings; got {settings!r}")
    try:
        config = Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("\n".join(refusal(item, Config) for item in error.errors(include_url=False))) from None
    _cross_check(config)
    return config


def _cross_check(config: Config) -> None:
    n_blocks, deepest = N_BLOCKS[config.model.backbone], config.search.schedule[-1]
    if deepest > n_blocks:
        raise ConfigError(
            f"search.schedule: depth {deepest} is beyond the {n_blocks} blocks of model.backbone {config.model.backbone}; "
            f"end the schedule at {n_blocks} or choose a deeper backbone"
        )
    if config.growth.min_epochs > config.growth.max_epochs:
        raise ConfigError(f"growth.min_epochs: {config.growth.min_epochs} is more than growth.max_epochs {config.growth.max_epochs}")
    if config.search.mode == "paper" and config.paper.target != config.search.target:
        raise ConfigError(
            f"paper.target: with search.mode paper it must be that of search.target, {config.search.target:g}; got {config.paper.target:g}"
        )
    widths = config.supernet.widths
    if 1.0 not in widths or len(set(widths)) < len(widths):
        raise ConfigError(f"supernet.widths: expected fractions without repetition, 1.0 among them; got {list(widths)}")
    if config.search.mode == "scratch" and len(config.search.schedule) > 1:
        raise ConfigError(
            f"search.schedule: with search.mode scratch one depth is trained; got {list(config.search.schedule)}; "
            f'leave the one that is meant, such as {{"{deepest}": {{after: 0}}}}'
        )
    if config.data.source in ("folder", "s3") and config.data.root is None:
        raise ConfigError(f"data.root: must name where the images are when data.source is {config.data.source}")
    if config.data.source == "s3" and not str(config.data.root).startswith("s3://"):
        raise ConfigError(f"data.root: expected s3://bucket/prefix when data.source is s3; got {config.data.root}")
    if config.data.source != "s3" and str(config.data.root).startswith("s3://"):
        raise ConfigError(f"data.root: {config.data.root} needs data.source: s3; got data.source: {config.data.source}")
    if config.data.image_size is not None and config.data.source not in ("folder", "s3"):
        raise ConfigError(f"data.image_size: only folder and s3 images are resized; set it to null for {config.data.source}")


def allowed(name: str) -> str:
    """Say in words which values the setting `name` takes: `a number > 0 and < 1`.

    Raises:
        ValueError: there is no such setting.
    """
    return allowed_in(Config, name)
