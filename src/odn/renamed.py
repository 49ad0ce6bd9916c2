"""What settings were called in earlier versions, and what to use instead of those that are gone; each is refused with that."""

SETTINGS = {
    "train.optimiser": "train.optimizer",
    "train.kernel_lr": "train.muon_lr",
    "train.kernel_decay": "train.muon_weight_decay",
    "prune.of": "prune.budget_metric",
}
_TEACHING = "supernet, prune and route distil by settings of their own, such as supernet.distill_weight"
_PREFIXES = "use search.mode climb with search.ladder prefix"
REMOVED = {
    "train.aux_weight": "leave it out",
    "search.distill": f"leave it out; {_TEACHING}",
    "search.reduce_depth": "leave it out; search.looks tries smaller networks on a spread ladder",
    "search.shave": "leave it out; search.looks tries smaller networks on a spread ladder",
    "finish.start": f"leave it out; to train a depth anew, {_PREFIXES} and a schedule of that depth",
    "distill": f"leave the section out; {_TEACHING}",
    "auto": "leave the section out, and name the mode in search.mode: climb, or supernet for several networks from one training",
}
REMOVED_VALUES = {
    ("search.mode", "auto"): "use climb, or supernet for several networks from one training",
    ("search.mode", "scratch"): f"{_PREFIXES}, a schedule of the one depth, and climb.epochs",
    ("growth.init", "random"): "use copy",
    ("growth.init", "gauss"): "use copy",
    ("growth.init", "rewind"): f"{_PREFIXES}, which trains each depth from fresh weights",
    ("growth.init", "reload"): f"{_PREFIXES}, which trains each depth from fresh weights",
}
