"""The graph: configure, prepare, then train and check a depth, until a verdict ends the loop at truncate and all that follows.

Kubeflow has no loop, so it is unrolled over the schedule when it is compiled: each check has two conditions behind it, one of which
holds the next depth, the other the steps that end the search. A depth that is not needed never gets a pod. Where all are tried, whatever
the verdicts (`grid`), there is no condition: all are trained at once, and judged one after the other.
"""

from collections.abc import Callable
from typing import Any

from kfp import dsl

import components
from odn.config import Config
from odn.tracking.provenance import IMAGE
from pipelines.platform import Platform, place

NAME = "optimally-deep-network"
DESCRIPTION = "Finds how large a network needs to be for a data set, certifies and registers it."
CHECK_OUTPUT = "Output"  # KFP's name for what a component returns


def finish(platform: Platform, *, processes: int) -> Callable[..., Any]:
    """Return what ends a search, wherever it ends: the network is cut, certified and registered.

    It is a pipeline of its own, so that the graph holds it once, and not at the end of each depth.
    """

    @dsl.pipeline(name="finish")
    def finish(
        config: str,
        experiment: str,
        commit: str,
        repository: str,
        version: str,
        dataset: dsl.Input[dsl.Dataset],
        test: dsl.Input[dsl.Dataset],
        search: dsl.Input[dsl.Model],
    ):  # without a return annotation, which KFP would read as an output
        tracked = {"config": config, "experiment": experiment}
        cut = place(components.truncate(**tracked, dataset=dataset, search=search), "finish the network", platform, processes=processes)
        model = cut.outputs["model"]
        both = {"config": config, "dataset": dataset, "test": test, "model": model}
        certified = place(components.evaluate(**both, search=search, before=cut.outputs["results"]), "certify it on test", platform)
        shipped = place(components.export(**both, before=certified.outputs["results"]), "export the model", platform)
        ends = {"results": shipped.outputs["results"], "exported": shipped.outputs["exported"]}
        told = place(components.report(**both, **ends), "write the report", platform)
        registered = components.register(
            **tracked,
            run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            commit=commit,
            repository=repository,
            version=version,
            dataset=dataset,
            search=search,
            model=model,
            **ends,
            report=told.outputs["report"],
        )
        place(registered, "register the model", platform).set_caching_options(enable_caching=False)
        registered.set_env_variable(IMAGE, platform.image)  # of the steps that train

    made: Callable[..., Any] = finish
    return made


def build(config: Config, *, platform: Platform, commit: str = "") -> Callable[..., Any]:
    """Return the pipeline for a schedule; the settings of `config` become the defaults of the run's parameters."""
    schedule, unit, processes = config.search.schedule, config.unit, config.train.processes
    at_once = config.mode.exhaustive
    ending = finish(platform, processes=processes)

    @dsl.pipeline(name=NAME, description=DESCRIPTION)
    def optimally_deep_network(
        config: str = config.to_short_json(),
        target: float = config.search.target,
        data_source: str = config.data.source,
        data_root: str = config.data.root or "",
        data_repository: str = "",
        data_revision: str = "",
        max_epochs: int = config.growth.max_epochs,
        epochs: int = config.climb.epochs,
        seed: int = config.seed,
        experiment: str = "odn",
        commit: str = commit,
    ):  # without a return annotation, which KFP would read as an output
        training = {"max_epochs": max_epochs, "epochs": epochs, "seed": seed}
        own = {"target": target, "data_source": data_source, "data_root": data_root, **training}
        checked = components.configure(config=config, **own, repository=data_repository, revision=data_revision)
        place(checked, "check the settings", platform).set_caching_options(enable_caching=False)  # data may have changed
        settings, version = checked.outputs["config"], checked.outputs["version"]
        prepared = place(components.prepare(config=settings, repository=data_repository, version=version), "prepare the data", platform)
        dataset, test = prepared.outputs["dataset"], prepared.outputs["test"]
        tracked = {"config": settings, "experiment": experiment}

        def train_and_judge(index: int, before: Any, search: Any) -> Any:
            """Train one depth behind `before`, and judge it behind the search so far; return the verdict's task."""
            depth, after = schedule[index], (0, *schedule)[index]
            here = {**tracked, "depth": depth, "after": after, "dataset": dataset}
            trained = place(components.train(**here, before=before), f"train {unit} {depth}", platform, processes=processes)
            judged = components.check(**here, before=search, trained=trained.outputs["search"])
            return place(judged, f"is {unit} {depth} enough?", platform, processes=processes)

        def stop(depth: int, search: Any) -> None:
            origin = {"commit": commit, "repository": data_repository, "version": version}
            done = ending(**tracked, **origin, dataset=dataset, test=test, search=search)
            done.set_display_name(f"finish {unit} {depth}")

        def level(index: int, before: Any) -> None:
            """Train and judge one depth; go on, or end."""
            judged = train_and_judge(index, before, before)
            depth, search = schedule[index], judged.outputs["search"]
            if index + 1 == len(schedule):
                stop(depth, search)
                return
            verdict = judged.outputs[CHECK_OUTPUT]
            with dsl.If(verdict != "expand", name=f"stop-at-{depth}"):
                stop(depth, search)
            with dsl.If(verdict == "expand", name=f"expand-to-{schedule[index + 1]}"):
                level(index + 1, search)

        opened = prepared.outputs["search"]
        if at_once:
            search = opened
            for index in range(len(schedule)):
                search = train_and_judge(index, opened, search).outputs["search"]
            stop(schedule[-1], search)
        else:
            level(0, opened)

    built: Callable[..., Any] = optimally_deep_network
    return built
