"""Component: cut the network at the accepted depth and finish it."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def truncate(
    config: str,
    experiment: str,
    dataset: dsl.Input[dsl.Dataset],
    search: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
    results: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    table: dsl.Output[dsl.Markdown],
):
    """Write the final model and the record of its search."""
    from odn import steps

    paths = {"dataset": dataset.path, "search": search.path, "model": model.path, "results": results.path, "table": table.path}
    labels = steps.truncate(config, experiment=experiment, **paths)
    model.metadata.update(labels)
    metrics.metadata.update(labels)
