"""Tell what a run on the cluster is doing: its steps by their names, with state and time. Pure functions on what Kubeflow says of a run.

Kubeflow lists the nodes of Argo's workflow: for a step its driver, a graph of its own name, and in it the executor, the pod that runs it.
"""

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from odn.tables import TOLD

ENDINGS = {"SUCCEEDED": "done", "SKIPPED": "skipped", "FAILED": "failed", "CANCELED": "canceled"}
EXECUTOR = "executor"
TELLING = re.compile(r"(check|register)(-\d+)?")  # tasks whose log holds rows of the table of depths; kfp numbers those of one component


@dataclass(frozen=True)
class Step:
    """Hold how far a step is; `pods` are those of its own run, the last one last."""

    name: str
    state: str
    seconds: float | None  # that it has run so far; None before it began
    task: str = ""  # Kubeflow's own name of it
    pods: tuple[str, ...] = ()

    @property
    def tells(self) -> bool:
        """Return whether it has ended well, and its log tells of the search."""
        return self.state == "SUCCEEDED" and TELLING.fullmatch(self.task) is not None

    @property
    def is_running(self) -> bool:
        """Return whether it has begun and not ended."""
        return self.state in {"RUNNING", "CANCELING"}

    def describe(self) -> str:
        """Say in a few words how far it is."""
        state = ENDINGS.get(self.state, self.state.lower())
        if self.seconds is None or self.state == "SKIPPED":
            return f"{self.name}: {state}"
        return f"{self.name}: {state}, {self.seconds:.0f} s"


def names_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the steps of a compiled pipeline: the name of each task that runs a container, and its name for a person."""
    components = spec["components"]
    graphs = [one["dag"] for one in (spec["root"], *components.values()) if "dag" in one]
    return {
        name: task.get("taskInfo", {}).get("name", name)
        for graph in graphs
        for name, task in graph["tasks"].items()
        if "executorLabel" in components[task["componentRef"]["name"]]
    }


def steps_of(run: Any, names: Mapping[str, str], *, now: datetime.datetime) -> list[Step]:
    """Return the steps that have begun, in that order; drivers, graphs and pods of Argo's own are none."""
    nodes = list((run.run_details.task_details if run.run_details else None) or [])
    by_id = {key: node for node in nodes for key in (node.task_id, node.pod_name) if key}
    begun = [node for node in nodes if node.display_name in names and node.state not in {None, "PENDING"} and not _is_untaken(node)]
    begun.sort(key=lambda node: (node.start_time or node.create_time or now, node.display_name))
    return [
        Step(
            names[node.display_name],
            str(node.state),
            _seconds(node, now=now),
            task=str(node.display_name),
            pods=tuple(_pods(node, by_id, seen=set())),
        )
        for node in begun
    ]


def told_in(log: str) -> list[str]:
    """Return what the log of a step tells of the search, for whoever waits for it."""
    return [line.removeprefix(TOLD).strip() for line in log.splitlines() if line.startswith(TOLD)]


def _is_untaken(node: Any) -> bool:
    """Tell whether a node stands in the branch of a condition that was not taken."""
    return node.state == "SKIPPED" and not node.child_tasks


def _seconds(node: Any, *, now: datetime.datetime) -> float | None:
    if node.start_time is None:
        return None
    end = node.end_time if node.end_time is not None and node.end_time > node.start_time else now  # year 1 while it runs
    return float(max(0.0, (end - node.start_time).total_seconds()))


def _pods(node: Any, by_id: Mapping[str, Any], *, seen: set[int]) -> Iterator[str]:
    """Yield the pods of the executors below a node."""
    for child in node.child_tasks or []:
        below = by_id.get(child.task_id or "") or by_id.get(child.pod_name or "")
        if below is None or id(below) in seen:
            continue
        seen.add(id(below))
        if str(below.display_name).startswith(EXECUTOR) and below.pod_name:
            yield str(below.pod_name)
        yield from _pods(below, by_id, seen=seen)
