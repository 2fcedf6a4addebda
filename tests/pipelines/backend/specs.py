"""A compiled pipeline as plain data, and the walk over all tasks of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from kfp import compiler

Json = Any  # what json.loads returns


class RefusedError(Exception):
    """What the back end would refuse, or end the run with; or what these models of it leave out."""


class Task(NamedTuple):
    """A task of any level. name: unique in its group.

    Group: the component it is in, "root" for the pipeline itself.
    """

    group: str
    name: str
    spec: Json


@dataclass(frozen=True)
class Compiled:
    """The two documents that `kfp.compiler` writes: pipeline spec and platform spec ({} without
    one).
    """

    pipeline: Json
    platform: Json

    @classmethod
    def read(cls, file: Path) -> "Compiled":
        """Read a file that `kfp.compiler` wrote."""
        documents = [
            document
            for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
            if document
        ]
        platforms = [document for document in documents if "platforms" in document]
        (pipeline,) = [document for document in documents if "pipelineInfo" in document]
        return cls(pipeline, platforms[0] if platforms else {})

    @property
    def name(self) -> str:
        """The pipeline's name, which is in every cache key."""
        name: str = self.pipeline["pipelineInfo"]["name"]
        return name

    @property
    def root(self) -> Json:
        return self.pipeline["root"]

    @property
    def components(self) -> dict[str, Json]:
        """Component specs by name, without the root."""
        components: dict[str, Json] = self.pipeline.get("components", {})
        return components

    @property
    def executors(self) -> dict[str, Json]:
        """Executors (container, importer) by label."""
        executors: dict[str, Json] = self.pipeline.get("deploymentSpec", {}).get("executors", {})
        return executors

    @property
    def kubernetes(self) -> dict[str, Json]:
        """Kubernetes settings by executor label."""
        specs: dict[str, Json] = (
            self.platform.get("platforms", {})
            .get("kubernetes", {})
            .get("deploymentSpec", {})
            .get("executors", {})
        )
        return specs

    @property
    def parameters(self) -> dict[str, Json]:
        """Parameters of the pipeline: the fields of the form."""
        parameters: dict[str, Json] = self.root.get("inputDefinitions", {}).get("parameters", {})
        return parameters

    @cached_property
    def groups(self) -> dict[str, Json]:
        """The pipeline and all nested ones, by component name."""
        return {"root": self.root} | {
            name: spec for name, spec in self.components.items() if "dag" in spec
        }

    @cached_property
    def tasks(self) -> list[Task]:
        """Tasks of all levels, groups included."""
        return [
            Task(group, name, task)
            for group, spec in self.groups.items()
            for name, task in spec["dag"]["tasks"].items()
        ]

    def steps(self) -> Iterator[Task]:
        """Tasks that run in a pod of their own."""
        return (task for task in self.tasks if "dag" not in self.component_of(task.spec))

    def component_of(self, task: Json) -> Json:
        return self.components[task["componentRef"]["name"]]

    def container_of(self, task: Json) -> Json:
        """Image, command, arguments and resources of a step."""
        return self.executors[self.component_of(task)["executorLabel"]]["container"]

    def kubernetes_of(self, task: Json) -> Json:
        return self.kubernetes.get(self.component_of(task)["executorLabel"], {})


def compile_pipeline(pipeline: Any, folder: Path) -> Compiled:
    """Compile a KFP pipeline into `folder`, as `compile` and `submit` do, and read it back."""
    file = folder / "pipeline.yaml"
    compiler.Compiler().compile(pipeline, str(file))
    return Compiled.read(file)
