"""Component: train one depth, grown from the depth before it."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    config: str,
    experiment: str,
    depth: int,
    after: int,
    dataset: dsl.Input[dsl.Dataset],
    before: dsl.Input[dsl.Model],
    search: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    table: dsl.Output[dsl.Markdown],
):
    """Train until the curve on val is flat; the search so far goes in, and comes out one depth richer."""
    from odn import steps

    paths = {"dataset": dataset.path, "before": before.path, "search": search.path, "table": table.path}
    labels = steps.train(config, experiment=experiment, depth=depth, after=after, **paths)
    search.metadata.update(labels)
    metrics.metadata.update(labels)
