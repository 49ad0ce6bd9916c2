"""Component: judge one depth against the target."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def check(
    config: str,
    experiment: str,
    depth: int,
    after: int,
    dataset: dsl.Input[dsl.Dataset],
    before: dsl.Input[dsl.Model],
    trained: dsl.Input[dsl.Model],
    search: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    table: dsl.Output[dsl.Markdown],
) -> str:
    """Return the verdict: `expand`, `target_reached` or `exhausted`; the search so far comes out with the trained depth and its verdict."""
    from odn import steps

    paths = {"dataset": dataset.path, "before": before.path, "trained": trained.path, "search": search.path, "table": table.path}
    labels = steps.check(config, experiment=experiment, depth=depth, after=after, **paths)
    search.metadata.update(labels)
    metrics.metadata.update(labels)
    return str(labels["verdict"])
