"""The sections of `params.yaml`, one class each: a field says its meaning and unit; its type and bounds are its range."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from odn.backbones import KINDS, PATTERN
from odn.modes import MODES, Mode
from odn.sanitize import escaped

Source = Literal["digits", "mnist", "fashion_mnist", "emnist_letters", "usps", "svhn", "cifar10", "cifar100", "folder", "s3"]
Limit = Annotated[int, Field(ge=1, le=10**15)] | None
Fraction = Annotated[float, Field(gt=0, lt=1)]
ClosedFraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Be frozen, strict about types (an int is a valid float, nothing else is converted) and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _as_tuple(value: Any) -> Any:
    """Accept a list, which YAML and JSON have, for a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _each_once(names: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a list in which a name stands twice."""
    if len(set(names)) < len(names):
        raise ValueError(f"expected each name once; got {', '.join(names)}")
    return names


class DataConfig(Section):
    """Say where images come from and how they are split."""

    source: Source = Field(default="digits", description="data set")
    root: str | None = Field(default=None, description="folder or s3://bucket/prefix of the raw files; null downloads them")
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = Field(
        default=None, description="pixels a side that the middle square of folder and s3 images is resized to"
    )
    max_images: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="training images kept, stratified, before val is split off"
    )
    val_fraction: Fraction = Field(
        default=0.25, description="fraction of the training images that becomes val, where there is no val split"
    )
    test_fraction: Fraction = Field(default=0.2, description="fraction of all images that becomes test, where the source has no test split")
    duplicates: Literal["warn", "drop", "refuse"] = Field(
        default="warn",
        description="equal images in two splits, twice in one, or under two labels: told; taken out of train and val; or refused",
    )
    shards: Annotated[str, Field(pattern="^s3://.")] | None = Field(default=None, description="prepared images in a bucket, to be streamed")
    normalise: Literal["data", "backbone"] | None = Field(
        default=None,
        description="by mean and deviation of train, or of what the backbone was trained on; null: backbone if it has weights, else data",
    )

    @property
    def name(self) -> str:
        """Call the data by its name: a public data set's own, or that of the folder in which a user's images are."""
        own = self.root.rstrip("/").rpartition("/")[2] if self.root and self.source in {"folder", "s3"} else ""
        return escaped(own) or self.source


class ModelConfig(Section):
    """Name the backbone that is grown."""

    backbone: Annotated[str, Field(pattern=PATTERN)] = Field(
        default="resnet18",
        examples=list(KINDS),
        description="a ResNet of odn, a network of timm or torchvision, or a function of one's own that returns a stem and blocks",
    )
    weights: str | None = Field(
        default=None,
        description="pretrained: a file, an s3:// address of one, or timm: its own, from the local cache or the hub; null: random",
    )
    arguments: dict[str, Any] = Field(default={}, description="further ones of a library's constructor, or of one's own function")
    stem: Literal["cifar", "imagenet"] = Field(
        default="cifar", description="of odn's ResNets: 3x3 stride 1, or 7x7 stride 2 with a max pool"
    )
    width: Annotated[float, Field(gt=0, le=4)] = Field(default=0.25, description="of odn's ResNets: multiplier of every channel count")


class TrainConfig(Section):
    """Set the optimizer and the machine."""

    batch_size: Annotated[int, Field(ge=2, le=65536)] = Field(default=32, description="images a step")
    lr: Annotated[float, Field(gt=0, le=100)] = Field(default=0.1, description="learning rate of the stable phase")
    optimizer: Literal["muon", "sgd"] = Field(
        default="muon", description="muon: orthogonalised steps for the kernels of the blocks, SGD for the rest"
    )
    muon_lr: Annotated[float, Field(gt=0, le=100)] = Field(
        default=0.05, description="learning rate of Muon's steps; without effect with sgd"
    )
    muon_weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.02, description="decoupled weight decay of the parameters that Muon updates"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.9, description="Nesterov's form; 0 is none")
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.0005, description="L2 penalty on convolution and linear weights")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.1, description="probability mass spread over all classes")
    warmup_epochs: Annotated[float, Field(ge=0, le=100)] = Field(default=1.0, description="linear warm-up at the start of a depth, epochs")
    ema_epochs: Annotated[float, Field(gt=0, le=100)] = Field(
        default=0.5, description="horizon of the moving average of the weights, epochs"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 autocast where the processor or GPU gains from it"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU where there is one")
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        default="auto", description="of the processor; auto: one for small work, for large work one a core that this process may use"
    )
    processes: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1, description="that share each batch, over all nodes; each takes a GPU, or threads, of its own"
    )


class AugmentConfig(Section):
    """Bound the random change of each training image."""

    shift: Annotated[int, Field(ge=0, le=64)] = Field(default=1, description="largest translation, pixels")
    rotate: Annotated[float, Field(ge=0, le=180)] = Field(default=10.0, description="largest rotation, degrees")
    scale: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.1, description="largest change of size, fraction")
    flip: bool = Field(default=False, description="mirror left to right with probability 1/2")
    crop: ClosedFraction = Field(default=0.0, description="least area of a random crop that is resized to the whole; 0 for none")
    jitter: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="largest change of brightness, of contrast and of saturation, fraction"
    )
    trivial: bool = Field(default=False, description="TrivialAugment: one operation of 14 at a random strength")
    mixup: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.0, description="alpha of the Beta distribution by which two images are blended; 0 for none"
    )
    cutmix: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.0, description="alpha of the Beta distribution of the area that a box of another image keeps; 0 for none"
    )


class GrowthConfig(Section):
    """Say how a depth starts and when it has been trained enough to be judged; nothing here knows the target."""

    init: Literal["zero", "copy", "pretrained"] = Field(
        default="copy", description="how a new block and its head start; pretrained: as model.weights have it"
    )
    shortcut: Literal["avgpool", "conv"] = Field(
        default="avgpool", description="shortcut at a group change: average pool + 1x1, or strided 1x1"
    )
    min_epochs: Annotated[int, Field(ge=1, le=10000)] = Field(default=2, description="least epochs of the stable phase")
    max_epochs: Annotated[int, Field(ge=1, le=10000)] = Field(default=5, description="most epochs of the stable phase")
    patience: Annotated[int, Field(ge=1, le=1000)] = Field(default=3, description="epochs over which the curve must still improve")
    min_gain: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1, description="fraction of the error on val that `patience` epochs must remove, else the curve is flat"
    )


class SearchConfig(Section):
    """Say when a depth is accepted."""

    mode: Literal["climb", "growth", "paper", "grid", "supernet", "prune"] = Field(
        default="climb",
        description="climb: each rung of the ladder anew; growth: depths grow from one another; paper: the published procedure; "
        "grid: climb to the top; supernet: all depths at once; prune: one depth, cut in training",
    )
    ladder: Literal["spread", "prefix"] = Field(
        default="spread",
        description="networks that climb and grid try, cheapest first: spread: thin ones that keep every stride, each twice the cost "
        "of the one before, up to the backbone; prefix: the first blocks of the backbone",
    )
    cost: Literal["bytes", "macs", "params"] = Field(default="bytes", description="what doubles from rung to rung of a spread ladder")
    target: Fraction = Field(default=0.98, description="accuracy on val that must be reached")
    accept: Literal["point", "lower_bound"] = Field(
        default="point", description="compare the accuracy itself, or its Wilson lower bound, with the target"
    )
    confidence: Fraction = Field(default=0.95, description="of every interval")
    cooldown_epochs: Annotated[int, Field(ge=1, le=10000)] = Field(
        default=10, description="of the trial anneal: the rate goes to 0, then one evaluation on val"
    )
    cooldown_gain: ClosedFraction = Field(
        default=0.75, description="maximum fraction of the val error that annealing is expected to remove"
    )
    looks: Annotated[int, Field(ge=0, le=8)] = Field(
        default=2, description="networks between the accepted rung and the one before it that are tried, halving the interval"
    )
    max_bytes: Limit = Field(default=None, description="of the network: with any of these the largest that fits is trained, and is kept")
    max_macs: Limit = Field(default=None, description="multiply-accumulates of the network for one image")
    max_params: Limit = Field(default=None, description="parameters of the network")
    schedule: tuple[int, ...] = Field(
        default=(1, 2, 3, 4, 5, 6, 7, 8), description="rungs that are tried, ascending; of a prefix ladder, depths"
    )

    @property
    def spreads(self) -> bool:
        """Return whether the rungs are thin networks that keep every stride, and not prefixes of the backbone."""
        return self.meaning.any_ladder and self.ladder == "spread"

    @property
    def climbs(self) -> bool:
        """Return whether rungs of a spread ladder are tried until one is good enough."""
        return self.spreads and not self.meaning.exhaustive and not self.budget

    @property
    def n_looks(self) -> int:
        """Count the networks that may be compared with the target; behind trial anneals, the finish is one more."""
        return len(self.schedule) + (self.looks if self.spreads else int(self.meaning.trial))

    @property
    def budget(self) -> dict[Literal["bytes", "macs", "params"], int]:
        """Return the limits that are set, by metric."""
        limits: dict[Literal["bytes", "macs", "params"], int | None] = {
            "bytes": self.max_bytes,
            "macs": self.max_macs,
            "params": self.max_params,
        }
        return {metric: most for metric, most in limits.items() if most is not None}

    @property
    def meaning(self) -> Mode:
        """Return what the mode means."""
        return MODES[self.mode]


class ClimbConfig(Section):
    """Set the training of a rung, of `search.mode: climb` and `grid`."""

    epochs: Annotated[int, Field(ge=1, le=10000)] = Field(
        default=60, description="of each rung, its learning rate falling to 0 over all of them"
    )


class PaperConfig(Section):
    """Set the published procedure, of `search.mode: paper`."""

    target: Fraction = Field(
        default=0.98, description="search.target, which here is the published target less its tolerance, as training must know it"
    )
    warmup_epochs: Annotated[int, Field(ge=0, le=10000)] = Field(default=3, description="of the warm-up of all depths at once")
    warmup_lr: Annotated[float, Field(gt=0, le=100)] = Field(default=0.001, description="rate at which the warm-up begins")
    lr: Annotated[float, Field(gt=0, le=100)] = Field(default=0.01, description="rate at which the first depth begins")
    later_lr: Annotated[float, Field(gt=0, le=100)] = Field(default=0.005, description="rate at which every later depth begins")
    patience: Annotated[int, Field(ge=1, le=10000)] = Field(default=23, description="epochs without progress that end a depth")
    max_epochs: Annotated[int, Field(ge=1, le=10000)] = Field(
        default=1000, description="most epochs of a depth; the published code has no bound"
    )


class SupernetConfig(Section):
    """Set the training of all depths at once, of `search.mode: supernet`."""

    epochs: Annotated[int, Field(ge=1, le=10000)] = Field(default=24, description="over which all depths are trained")
    exits: Annotated[int, Field(ge=0, le=16)] = Field(
        default=6, description="depths drawn in each step, beside the deepest and the shallowest"
    )
    distill_weight: Annotated[float, Field(ge=0, le=100)] = Field(
        default=1.0, description="weight of what the deepest exit teaches the others; 0: labels alone"
    )
    temperature: Annotated[float, Field(gt=0, le=100)] = Field(default=2.0, description="that softens what teacher and students say")
    shrink: ClosedFraction = Field(
        default=0.2, description="fraction of the epochs over which depths open, deep to shallow; widths open behind it"
    )
    cooldown: ClosedFraction = Field(default=0.3, description="fraction of the epochs, at the end, in which the rate falls to 0")
    widths: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1), BeforeValidator(_as_tuple)] = Field(
        default=(1.0,), description="fractions of the inner channels of the blocks that are trained together; 1 is among them"
    )


class RouteConfig(Section):
    """Set how `odn route` fits exits and gates to single images."""

    quantiles: Annotated[int, Field(ge=1, le=256)] = Field(default=24, description="thresholds that are tried at each exit")
    epochs: Annotated[int, Field(ge=1, le=10000)] = Field(default=20, description="of training the gates")
    lr: Annotated[float, Field(gt=0, le=1)] = Field(default=0.01, description="Adam's rate for the gates; it falls along a cosine")
    backbone_lr: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.001, description="Adam's rate for the backbone beneath the gates; 0 freezes it"
    )
    hidden: Annotated[int, Field(ge=1, le=4096)] = Field(default=16, description="units of a gate's inner layer")
    budget_weight: Annotated[float, Field(ge=0, le=10000)] = Field(
        default=100.0, description="of the squared distance from the budget, in the loss"
    )
    distill_weight: ClosedFraction = Field(default=0.5, description="of what the ungated network says, against the labels")
    distill_temperature: Annotated[float, Field(gt=0, le=100)] = Field(default=2.0, description="by which both sides' logits are softened")
    gumbel_temperature: Annotated[float, Field(gt=0, le=100)] = Field(default=1.0, description="of the gates' samples in training")


class PruneConfig(Section):
    """Set the training that prunes while it trains, of `search.mode: prune`."""

    budget: Fraction = Field(default=0.25, description="what the cut network may cost, as a fraction of the whole backbone")
    budget_metric: Literal["macs", "params", "bytes"] = Field(default="macs", description="metric that the budget limits")
    epochs: Annotated[int, Field(ge=3, le=10000)] = Field(default=30, description="of the whole training")
    dense_fraction: Fraction = Field(default=0.2, description="of the epochs, at the start, without gates")
    settle_fraction: Fraction = Field(default=0.4, description="of the epochs, at the end, of the cut network, with the rate going to 0")
    gate_lr: Annotated[float, Field(gt=0, le=10)] = Field(default=0.1, description="learning rate of the gates' scores")
    distill_weight: ClosedFraction = Field(default=0.5, description="of what the ungated network says, against the labels")
    temperature: Annotated[float, Field(gt=0, le=100)] = Field(default=2.0, description="of the distillation loss")
    finetune_epochs: Annotated[int, Field(ge=0, le=10000)] = Field(
        default=0, description="of a cooldown afterwards, kept if better on val; 0: none"
    )


class FinishConfig(Section):
    """Say how the accepted depth is finished."""

    epochs: Annotated[int, Field(ge=0, le=10000)] = Field(
        default=40, description="of training that is kept unless it misses a target that the trial anneal reached; 0: none"
    )


class ExportConfig(Section):
    """Say as which files the network leaves, and what 8 bits may cost."""

    formats: Annotated[
        tuple[Literal["onnx", "onnx-int8", "torch", "executorch", "executorch-int8"], ...],
        BeforeValidator(_as_tuple),
        AfterValidator(_each_once),
    ] = Field(
        default=("onnx", "onnx-int8"),
        description="a file each: onnx: float32 | onnx-int8: 8 bits | torch: a .pt2 file | executorch, executorch-int8: .pte; []: none",
    )
    max_drop: ClosedFraction = Field(default=0.005, description="accuracy on val that 8 bits may lose; beyond it the file is refused")


class RegistryConfig(Section):
    """Say what becomes of the model in the registry."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")] = Field(
        default="odn-digits", description="of the registered model"
    )
    champion_by: Literal["accuracy", "bytes"] = Field(default="accuracy", description="what a new champion must have more, or less, of")
    margin: ClosedFraction = Field(default=0.005, description="accuracy that a champion by bytes may lose")


class Settings(Section):
    """List the sections, in the order of `params.yaml`."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(default=0, description="of every random draw")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()
    growth: GrowthConfig = GrowthConfig()
    search: SearchConfig = SearchConfig()
    climb: ClimbConfig = ClimbConfig()
    paper: PaperConfig = PaperConfig()
    supernet: SupernetConfig = SupernetConfig()
    route: RouteConfig = RouteConfig()
    prune: PruneConfig = PruneConfig()
    finish: FinishConfig = FinishConfig()
    export: ExportConfig = ExportConfig()
    registry: RegistryConfig = RegistryConfig()
