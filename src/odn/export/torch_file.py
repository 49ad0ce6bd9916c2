"""Write a traced network as torch's own `.pt2` file, the same bytes each time."""

import io

import torch

from odn.export.graph import Traced


def torch_file(traced: Traced) -> bytes:
    """Return the content of a `.pt2` file."""
    content = io.BytesIO()
    torch.export.save(traced.program, content)
    return content.getvalue()
