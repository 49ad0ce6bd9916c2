"""Component: the page that tells what the search found."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def report(
    config: str,
    dataset: dsl.Input[dsl.Dataset],
    test: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    results: dsl.Input[dsl.Artifact],
    exported: dsl.Input[dsl.Model],
    report: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
):
    """Write the page, which needs nothing beside it, and its pictures."""
    from odn import steps

    inputs = {"dataset": dataset.path, "test": test.path, "model": model.path, "results": results.path, "exported": exported.path}
    report.metadata.update(steps.report(config, **inputs, report=report.path, page=page.path))
