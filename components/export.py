"""Component: the model as files for other runtimes."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def export(
    config: str,
    dataset: dsl.Input[dsl.Dataset],
    test: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    before: dsl.Input[dsl.Artifact],
    exported: dsl.Output[dsl.Model],
    results: dsl.Output[dsl.Artifact],
    table: dsl.Output[dsl.Markdown],
):
    """Write a file a runtime, each proved equal on val and certified on test."""
    from odn import steps

    inputs = {"dataset": dataset.path, "test": test.path, "model": model.path, "before": before.path}
    exported.metadata.update(steps.export(config, **inputs, exported=exported.path, results=results.path, table=table.path))
