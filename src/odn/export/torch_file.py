"""Write a traced network as torch's own `.pt2` file, the same bytes each time."""

import io
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def torch_file(traced: "ExportedProgram") -> bytes:
    """Return the content of a `.pt2` file."""
    content = io.BytesIO()
    torch.export.save(traced, content)
    return content.getvalue()
