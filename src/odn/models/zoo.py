"""The zoo: every backbone by name. A new one is a new row here and in `config.N_BLOCKS`."""

from odn.models.resnet import VARIANTS, ResNet

BACKBONES: dict[str, ResNet] = {
    "resnet18": VARIANTS["resnet18"],
    "resnet34": VARIANTS["resnet34"],
    "resnet50": VARIANTS["resnet50"],
}
