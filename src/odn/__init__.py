"""Find how deep a neural network needs to be for a data set, cut it there, prove it and ship it.

The public API is `__all__`; docs/library.md shows how it is used. Its modules, and PyTorch with them, are imported at first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from odn.data.own import Data
    from odn.errors import OdnError
    from odn.library import Certificate, Step, certify, load, resnet, save, search
    from odn.models.families import register
    from odn.models.named import backbone
    from odn.models.network import DepthNetwork
    from odn.searching.climb import SearchResult

__all__ = [
    "Certificate",
    "Data",
    "DepthNetwork",
    "OdnError",
    "SearchResult",
    "Step",
    "__version__",
    "backbone",
    "certify",
    "load",
    "register",
    "resnet",
    "save",
    "search",
]

_PLACES = {
    "Data": "odn.data.own",
    "OdnError": "odn.errors",
    "Certificate": "odn.library",
    "Step": "odn.library",
    "certify": "odn.library",
    "load": "odn.library",
    "resnet": "odn.library",
    "save": "odn.library",
    "search": "odn.library",
    "register": "odn.models.families",
    "DepthNetwork": "odn.models.network",
    "backbone": "odn.models.named",
    "SearchResult": "odn.searching.climb",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'odn' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
