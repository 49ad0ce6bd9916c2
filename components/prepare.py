"""Component: raw data into stratified train, val and test arrays; an empty search."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare(
    config: str,
    repository: str,
    version: str,
    dataset: dsl.Output[dsl.Dataset],
    test: dsl.Output[dsl.Dataset],
    search: dsl.Output[dsl.Model],
    table: dsl.Output[dsl.Markdown],
):  # KFP takes no return annotation for no output
    """Bring the data here and split it; only `evaluate` and `report` are given the test split."""
    from odn import steps

    paths = {"dataset": dataset.path, "test": test.path, "search": search.path, "table": table.path}
    dataset.metadata.update(steps.prepare(config, repository=repository, version=version, **paths))
