"""Hold a stored network to the data that it is asked about."""

from pathlib import Path

from odn.data.dataset import Manifest
from odn.models.network import DepthNetwork
from odn.models.stored_networks import load_network
from odn.records import damaged


def load_fitting(folder: Path, *, manifest: Manifest) -> DepthNetwork:
    """Read the network of a folder, which must be for images and classes of the prepared data, with one head at its end.

    Raises:
        MissingInputError: a file is not there.
        DataError: a file is damaged, or the network does not fit the data.
    """
    network = load_network(folder)
    for name, mine, wanted in (
        ("in_channels", network.architecture.in_channels, manifest.channels),
        ("n_classes", network.architecture.n_classes, manifest.n_classes),
        ("heads", network.head_depths, (network.depth,)),
    ):
        if mine != wanted:
            raise damaged(folder / "architecture.json", f"{name} must be {wanted}, for the prepared data; got {mine}", made_by="dvc repro")
    return network
