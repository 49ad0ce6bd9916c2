"""Component: the search into MLflow, the model into its registry."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(
    config: str,
    experiment: str,
    run: str,
    commit: str,
    repository: str,
    version: str,
    dataset: dsl.Input[dsl.Dataset],
    search: dsl.Input[dsl.Model],
    model: dsl.Input[dsl.Model],
    results: dsl.Input[dsl.Artifact],
    exported: dsl.Input[dsl.Model],
    report: dsl.Input[dsl.Artifact],
    registration: dsl.Output[dsl.Artifact],
    note: dsl.Output[dsl.Markdown],
) -> str:
    """Return the name of the version, as MLflow writes it: models:/NAME/VERSION."""
    from odn import steps

    inputs = {"dataset": dataset.path, "search": search.path, "model": model.path, "results": results.path}
    inputs |= {"exported": exported.path, "report": report.path}
    tags = {"odn.kfp.run": run, f"odn.kfp.run.{run}": "true", "mlflow.source.git.commit": commit, "odn.data.repository": repository}
    tags["odn.data.version"] = version  # a commit of the repository, or a digest of what lies in the bucket
    done = steps.register(config, experiment=experiment, tags=tags, **inputs, registration=registration.path, note=note.path)
    registration.metadata.update(done)
    return f"models:/{done['name']}/{done['version']}"
