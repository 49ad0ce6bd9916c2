"""The settings, and the values of settings, that had another name in earlier versions; an old one is refused with the name of now."""

SETTINGS = {
    "train.optimiser": "train.optimizer",
    "train.kernel_lr": "train.muon_lr",
    "train.kernel_decay": "train.muon_weight_decay",
    "search.shave": "search.reduce_depth",
    "distill.shave_epochs": "distill.reduce_epochs",
    "prune.of": "prune.budget_metric",
}
VALUES = {
    ("growth.init", "gauss"): "random",
    ("growth.init", "reload"): "rewind",
}
