"""Component: the settings of this run, checked before anything costs time, and the version of its data."""

from typing import NamedTuple

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def configure(
    config: str, target: float, data_source: str, data_root: str, repository: str, revision: str, max_epochs: int, epochs: int, seed: int
) -> NamedTuple("Outputs", config=str, version=str):  # type: ignore[valid-type]  # KFP reads the names of outputs here
    """Put the run's own settings over those that were compiled in, and look which version the data has now."""
    from odn import steps

    changes = {
        "search.target": target,
        "data.source": data_source,
        "data.root": data_root or None,
        "growth.max_epochs": max_epochs,
        "climb.epochs": epochs,
        "seed": seed,
    }
    return steps.configure(config, changes=changes, repository=repository, revision=revision)
