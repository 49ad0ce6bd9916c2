"""torch's exporter to ONNX, whose table of translations is made once a test run."""

import functools


def keep_translations() -> None:
    """Let torch keep the table: it reads the source of some 500 functions for each export, which takes more than a second.

    Only an export with translations of its own adds to the table; odn has none.
    """
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign]
