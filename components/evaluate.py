"""Component: certify the model on test."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    config: str,
    dataset: dsl.Input[dsl.Dataset],
    test: dsl.Input[dsl.Dataset],
    search: dsl.Input[dsl.Model],
    model: dsl.Input[dsl.Model],
    before: dsl.Input[dsl.Artifact],
    results: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    table: dsl.Output[dsl.Markdown],
):
    """Read test, once: accuracy with its interval, and what is saved."""
    from odn import steps

    inputs = {"dataset": dataset.path, "test": test.path, "search": search.path, "model": model.path, "before": before.path}
    metrics.metadata.update(steps.evaluate(config, **inputs, results=results.path, table=table.path))
