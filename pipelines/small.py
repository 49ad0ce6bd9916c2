"""Make a compiled pipeline small: Argo keeps a whole workflow in one object of 1 MiB at most, and kfp writes much of it again and again."""

import json
import re
from collections.abc import Iterator
from typing import Any

Parts = dict[str, Any]
CHANNEL = re.compile(r"inputs\.parameter_values\['([^']+)'\]")
KINDS = {"parameters": "componentInputParameter", "artifacts": "componentInputArtifact"}


def make_small(spec: Parts, *platforms: Parts) -> None:
    """Leave out inputs that nothing reads, and let tasks that run the same share one component and one executor, in place."""
    _drop_unread_inputs(spec)
    executors = spec["deploymentSpec"]["executors"]
    placed = [one["platforms"]["kubernetes"]["deploymentSpec"]["executors"] for one in platforms]
    labels = _first_of_equals({label: [one, *(place.get(label) for place in placed)] for label, one in executors.items()})
    for component in spec["components"].values():
        if "executorLabel" in component:
            component["executorLabel"] = labels[component["executorLabel"]]
    for parts in (executors, *placed):
        _keep(parts, labels)
    while len(names := _first_of_equals(spec["components"])) > len(set(names.values())):  # those within others first
        for _, task in _tasks(spec):
            task["componentRef"]["name"] = names[task["componentRef"]["name"]]
        _keep(spec["components"], names)


def _drop_unread_inputs(spec: Parts) -> None:
    """Drop what a condition hands on and nothing in it reads: kfp gives it every verdict of the conditions around it."""
    components, changes = spec["components"], True
    while changes:
        changes = False
        asked = {(task["componentRef"]["name"], name) for _, task in _tasks(spec) for name in _conditions(task)}
        for name, component in components.items():
            if "dag" not in component:
                continue
            for kind, word in KINDS.items():
                inner = [one for task in component["dag"]["tasks"].values() for one in task.get("inputs", {}).get(kind, {}).values()]
                read = {one[word] for one in inner if word in one}
                declared = component.get("inputDefinitions", {}).get(kind, {})
                unread = [one for one in declared if one not in read and (name, one) not in asked]
                for one in unread:
                    del declared[one]
                    changes = True
                    for _, task in _tasks(spec):
                        if task["componentRef"]["name"] == name:
                            task["inputs"][kind].pop(one, None)


def _tasks(spec: Parts) -> Iterator[tuple[str, Parts]]:
    """Yield every task of every graph, with its name."""
    for one in (spec["root"], *spec["components"].values()):
        yield from one.get("dag", {}).get("tasks", {}).items()


def _conditions(task: Parts) -> list[str]:
    """Return the inputs that decide whether a task runs."""
    return CHANNEL.findall(task.get("triggerPolicy", {}).get("condition", ""))


def _first_of_equals(parts: Parts) -> dict[str, str]:
    """Return for each name the first, by its number, that stands for an equal part."""
    seen: dict[str, str] = {}
    numbered = sorted(parts, key=lambda name: (len(name), name))
    return {name: seen.setdefault(json.dumps(parts[name], sort_keys=True), name) for name in numbered}


def _keep(parts: Parts, first: dict[str, str]) -> None:
    """Remove what an equal part stands for."""
    for name in [name for name in parts if first[name] != name]:
        del parts[name]
