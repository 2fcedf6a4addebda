"""Static rules on a compiled pipeline: what a real back end refuses, or handles badly.

Each rule is a function that yields one line per violation; its docstring names the source. Files
without another prefix are of Kubeflow Pipelines 2.17.0, below backend/src/v2; `argo:` is Argo
Workflows 4.0.5, below workflow.
"""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import count
from typing import Any

from kubernetes.utils import parse_quantity

from tests.pipelines.backend.argo import STOCK, go_json, workflow
from tests.pipelines.backend.driver import JSON_TYPES, Artifact, Execution, Outputs, walk
from tests.pipelines.backend.specs import Compiled, Json, RefusedError, Task

Rule = Callable[[Compiled], Iterator[str]]

MAX_PARAMETERS = 15  # of a form that fits a screen: KFP's shows them in one column, by name
MAX_SPEC_BYTES = 300_000  # a fifth of what etcd stores; the status of the nodes comes on top
MAX_ARGUMENT_BYTES = 128 * 1024  # of one argument of a process: Linux' MAX_ARG_STRLEN
MAX_LIGHT_CPU = parse_quantity("500m")

_EXIT = "ALL_UPSTREAM_TASKS_COMPLETED"
_ARGO_NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")  # argo: validate/validate.go:1624
_LABEL_VALUE = re.compile(r"([a-zA-Z0-9]([-a-zA-Z0-9_.]{0,61}[a-zA-Z0-9])?)?")  # Kubernetes: labels
_PIPELINE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_ROOT_PIPELINE_NAME_MAX = 57  # a workflow's name adds "-" and five characters, and is a label: 63
_TASK_NAME_MAX = 128 - len("-driver")  # argo: validate/validate.go:1626
_STAND_INS: Mapping[str, Any] = {
    "STRING": "x",
    "NUMBER_INTEGER": 1,
    "NUMBER_DOUBLE": 1.5,
    "BOOLEAN": True,
    "LIST": [],
    "STRUCT": {},
}


def violations(compiled: Compiled) -> list[str]:
    """All violations of all rules, each as `rule: message`."""
    return [f"{rule.__name__}: {message}" for rule in RULES for message in rule(compiled)]


def no_conditions(compiled: Compiled) -> Iterator[str]:
    """OneOf fails where all tasks of the branch were cached (driver/resolve.go:1066-1089): a branch
    counts as done only where a launcher ran in it (component/launcher_v2.go:222)."""
    for task in compiled.tasks:
        if task.spec.get("triggerPolicy", {}).get("condition"):
            yield f"{task.name} is conditional; choose when the pipeline is compiled"
    for name, group in compiled.groups.items():
        for key, output in group["dag"].get("outputs", {}).get("artifacts", {}).items():
            if len(output["artifactSelectors"]) > 1:
                yield f"output {key} of {name} is OneOf several tasks"
        for key, output in group["dag"].get("outputs", {}).get("parameters", {}).items():
            if "valueFromOneof" in output:
                yield f"output {key} of {name} is OneOf several tasks"


def no_loops(compiled: Compiled) -> Iterator[str]:
    """The launcher opens the bucket of a list's first artifact only, and fails where that one is
    new and another one cached (component/launcher_v2.go:1018)."""
    for task in compiled.tasks:
        if "parameterIterator" in task.spec or "artifactIterator" in task.spec:
            yield f"{task.name} is a loop; make one named task for each item"
    for name, component in compiled.components.items():
        for key, artifact in component.get("inputDefinitions", {}).get("artifacts", {}).items():
            if artifact.get("isArtifactList"):
                yield f"input {key} of {name} is a list of artifacts; give it one input for each"


def no_exit_handler(compiled: Compiled) -> Iterator[str]:
    """It gets ML Metadata's state, RUNNING for many failures (driver/resolve.go:471), and does not
    run when a run is terminated (argo: controller/operator.go:1014)."""
    for task in compiled.tasks:
        if task.spec.get("triggerPolicy", {}).get("strategy") == _EXIT:
            yield f"{task.name} is an exit task; derive the outcome from the run"


def inputs_can_be_resolved(compiled: Compiled) -> Iterator[str]:
    """Drivers find every input, of nested pipelines too (driver/resolve.go:102; see `driver`)."""
    numbers = count(1)

    def run(execution: Execution) -> Outputs:
        declared = execution.component.get("outputDefinitions", {})
        artifacts = {
            name: Artifact(next(numbers), execution.name, name)
            for name in declared.get("artifacts", {})
        }
        types = {
            name: spec["parameterType"] for name, spec in declared.get("parameters", {}).items()
        }
        return Outputs({name: _STAND_INS.get(kind) for name, kind in types.items()}, artifacts)

    if any(True for rule in (no_conditions, no_loops, no_exit_handler) for _ in rule(compiled)):
        return
    required = {
        name: spec for name, spec in compiled.parameters.items() if "defaultValue" not in spec
    }
    try:
        walk(
            compiled,
            {name: _STAND_INS.get(spec["parameterType"]) for name, spec in required.items()},
            run,
        )
    except RefusedError as error:
        yield str(error)


def retry_window(compiled: Compiled) -> Iterator[str]:
    """Argo counts `backoff.maxDuration` from the first attempt's start (argo:
    controller/operator.go: 1037): past it there is no further attempt, and one that runs is ended
    (:1095). So the window covers all attempts and the waits between them (:1059)."""
    for task in compiled.steps():
        policy = task.spec.get("retryPolicy", {})
        retries = policy.get("maxRetryCount", 0)
        timeout = int(compiled.kubernetes_of(task.spec).get("activeDeadlineSeconds", 0))
        factor, first = (
            policy.get("backoffFactor", 0),
            _seconds(policy.get("backoffDuration", "0s")),
        )
        if not retries:
            continue
        waits = sum(first * max(factor, 1) ** attempt for attempt in range(retries))
        needed, window = (
            (retries + 1) * timeout + waits,
            _seconds(policy.get("backoffMaxDuration", "0s")),
        )
        if window < needed:
            yield (
                f"{task.name} has a retry window of {window:g} s; {retries + 1} attempts need"
                f" {needed:g} s"
            )
        if factor != int(factor):
            yield (
                f"{task.name} has the back-off factor {factor}; Argo reads whole numbers (argo:"
                " operator.go:1055)"
            )


def spec_size(compiled: Compiled) -> Iterator[str]:
    """The Workflow's spec, uncompressed.

    The status of its nodes comes on top; Argo stores up to 1 MiB, the status compressed (argo:
    packer/packer.go:18).
    """
    size = _measured(compiled, lambda spec: len(go_json(spec)))
    if size > MAX_SPEC_BYTES:
        yield f"the Workflow's spec has {size} bytes, at most {MAX_SPEC_BYTES}"


def argument_size(compiled: Compiled) -> Iterator[str]:
    """Drivers get component, container and task as arguments
    (compiler/argocompiler/container.go:193).
    """
    longest = _measured(
        compiled,
        lambda spec: max(len(p["value"].encode()) for p in spec["arguments"]["parameters"]),
    )
    if longest > MAX_ARGUMENT_BYTES:
        yield (
            f"a component of {longest} bytes is no argument of a driver, at most"
            f" {MAX_ARGUMENT_BYTES}"
        )


def containers_are_one_components(compiled: Compiled) -> Iterator[str]:
    """Components are stored by the hash of their container, the first one wins
    (compiler/argocompiler/ argo.go:400, 437): the same container with another interface would get
    the first one's."""
    seen: dict[str, tuple[str, Json]] = {}
    for name, component in compiled.components.items():
        if "executorLabel" in component:
            container = go_json(compiled.executors[component["executorLabel"]].get("container"))
            interface = {key: value for key, value in component.items() if key != "executorLabel"}
            other, known = seen.setdefault(container, (name, interface))
            if interface != known:
                yield f"{name} and {other} have one container and different inputs or outputs"


def form_fits_a_screen(compiled: Compiled) -> Iterator[str]:
    """KFP's form sorts parameters by name and groups nothing."""
    if len(compiled.parameters) > MAX_PARAMETERS:
        yield f"{len(compiled.parameters)} parameters, at most {MAX_PARAMETERS}"


def form_is_documented(compiled: Compiled) -> Iterator[str]:
    """A field shows its name, type and description only
    (frontend/src/components/NewRunParametersV2.tsx).
    """
    for name, parameter in compiled.parameters.items():
        if not parameter.get("description", "").strip():
            yield f"parameter {name} has no description"


def form_can_be_sent(compiled: Compiled) -> Iterator[str]:
    """The form cannot be sent while a parameter has no default, optional or not (frontend/src/lib/
    NewRunParametersUtils.ts:163-178, getInitialParameterState); an emptied number has no value
    (:48).
    """
    for name, parameter in compiled.parameters.items():
        if "defaultValue" not in parameter:
            yield f"parameter {name} has no default"
        if parameter["parameterType"].startswith("NUMBER"):
            yield f"parameter {name} is a number, which the form cannot leave empty; make it text"


def components_are_documented(compiled: Compiled) -> Iterator[str]:
    """A component's description is the docstring of what its container is given.

    The spec has no other place for it.
    """
    for name, component in compiled.components.items():
        container = compiled.executors.get(component.get("executorLabel", ""), {}).get(
            "container", {}
        )
        command = container.get("command", [])
        if command and not _docstring(command[-1]):
            yield f"the code of {name} has no docstring"


def parameter_types(compiled: Compiled) -> Iterator[str]:
    """Types that drivers and launchers convert (metadata/converter.go:50,
    driver/resolve.go:202).
    """
    for name, component in {"root": compiled.root, **compiled.components}.items():
        for kind in ("inputDefinitions", "outputDefinitions"):
            for key, parameter in component.get(kind, {}).get("parameters", {}).items():
                if parameter["parameterType"] not in JSON_TYPES:
                    yield (
                        f"{key} of {name} is {parameter['parameterType']}, not one of"
                        f" {', '.join(JSON_TYPES)}"
                    )


def artifact_types(compiled: Compiled) -> Iterator[str]:
    """A launcher ends where a type has no title (metadata/client.go:1206).

    KFP's SDK takes those of `system.` and `google.` (sdk/python/kfp/dsl/types/type_utils.py);
    `google.` is Vertex AI's.
    """
    for name, component in {"root": compiled.root, **compiled.components}.items():
        for kind in ("inputDefinitions", "outputDefinitions"):
            for key, artifact in component.get(kind, {}).get("artifacts", {}).items():
                title = artifact["artifactType"].get("schemaTitle", "")
                if not title.startswith("system."):
                    yield f"{key} of {name} has the type {title!r}, not system.<Name>"


def images_are_pinned(compiled: Compiled) -> Iterator[str]:
    """The image is in the cache key as text (cacheutils/cache.go:222): `latest` would hide a
    change.
    """
    for label, executor in compiled.executors.items():
        image = executor.get("container", {}).get("image", "")
        version = image.partition("@")[2] or image.rpartition("/")[2].partition(":")[2]
        if version in ("", "latest"):
            yield f"{label} runs {image!r}; name a tag or a digest"


def task_names_are_unique(compiled: Compiled) -> Iterator[str]:
    """Over all levels: the interface finds artifacts of a group by the task's bare name
    (frontend/src/ lib/v2/DynamicFlow.ts:286-293), and so do `status` and `logs`."""
    for name, number in Counter(task.name for task in compiled.tasks).items():
        if number > 1:
            yield f"{number} tasks are called {name}"


def names_are_valid(compiled: Compiled) -> Iterator[str]:
    """Names of Argo's tasks and templates (argo: validate/validate.go:1608-1634) and of the
    Workflow, which is a label of its pods (argo: validate/validate.go:90)."""
    if not _PIPELINE_NAME.fullmatch(compiled.name) or len(compiled.name) > _ROOT_PIPELINE_NAME_MAX:
        yield (
            f"pipeline {compiled.name!r}: lower case letters, digits and -, at most"
            f" {_ROOT_PIPELINE_NAME_MAX}"
        )
    for task in compiled.tasks:
        if not _ARGO_NAME.fullmatch(task.name) or len(task.name) > _TASK_NAME_MAX:
            yield f"task {task.name!r}: letters, digits and -, at most {_TASK_NAME_MAX}"
    for component in compiled.groups:
        if not _ARGO_NAME.fullmatch(component) or len(component) > 128:
            yield f"group {component!r}: letters, digits and -, at most 128"


def labels_are_valid(compiled: Compiled) -> Iterator[str]:
    """A pod with an invalid label is refused by Kubernetes, after its driver has succeeded."""
    for name, settings in compiled.kubernetes.items():
        for key, value in settings.get("podMetadata", {}).get("labels", {}).items():
            if not _LABEL_VALUE.fullmatch(value):
                yield f"{name}: label {key}={value!r} is not one of Kubernetes"


def references_are_optional(compiled: Compiled) -> Iterator[str]:
    """A pod waits for ever for a Secret or ConfigMap that is missing and not optional
    (driver/k8s.go:353, 449).
    """
    for name, settings in compiled.kubernetes.items():
        for kind, key in (("secretAsEnv", "secretName"), ("configMapAsVolume", "configMapName")):
            for reference in settings.get(kind, []):
                if not reference.get("optional"):
                    yield f"{name}: {reference[key]} must be optional"


def pods_are_restricted(compiled: Compiled) -> Iterator[str]:
    """Pod Security `restricted`: the compiler leaves the user to the step (compiler/argocompiler/
    security_context.go:84), the driver takes it from the step's settings (driver/k8s.go:744)."""
    for task in compiled.steps():
        context = compiled.kubernetes_of(task.spec).get("securityContext", {})
        if not context.get("runAsNonRoot") or int(context.get("runAsUser", 0)) == 0:
            yield f"{task.name} may run as root"


def resources_are_bounded(compiled: Compiled) -> Iterator[str]:
    """Without requests and limits a quota refuses the pod, or it takes the node.

    Without a timeout a step that hangs keeps its GPUs.
    """
    for task in compiled.steps():
        resources = _resources(compiled, task)
        for name in ("CpuRequest", "CpuLimit", "MemoryRequest", "MemoryLimit"):
            if f"resource{name}" not in resources:
                yield f"{task.name} has no resource{name}"
        if not int(compiled.kubernetes_of(task.spec).get("activeDeadlineSeconds", 0)):
            yield f"{task.name} has no timeout"


def resources_are_compiled_in(compiled: Compiled) -> Iterator[str]:
    """A resource that is a parameter of the run is an input of the task (driver/driver.go:173), and
    so in its cache key: a resize would train again."""
    for task in compiled.steps():
        settings = compiled.kubernetes_of(task.spec)
        chosen = go_json(
            [_resources(compiled, task), settings.get("nodeSelector"), settings.get("tolerations")]
        )
        if "inputs.parameters" in chosen or "Json" in chosen:
            yield f"{task.name} takes resources from a parameter"


def light_steps_request_little(compiled: Compiled) -> Iterator[str]:
    """Steps without a GPU must fit beside KFP on a node with 2 CPUs: asking for 2, they stayed
    Pending for ever."""
    for task in compiled.steps():
        resources = _resources(compiled, task)
        request = resources.get("resourceCpuRequest", "0")
        if not resources.get("accelerator") and _amount(request) > MAX_LIGHT_CPU:
            yield f"{task.name} requests {request} CPUs without a GPU, at most 500m"


def gpu_steps_fit_a_node(compiled: Compiled) -> Iterator[str]:
    """A GPU is a limit (driver/driver.go:445) on a node that has it.

    NCCL and data loading need more shared memory than the 64 MiB of a container, and it counts as
    memory.
    """
    for task in compiled.steps():
        resources, settings = _resources(compiled, task), compiled.kubernetes_of(task.spec)
        accelerator = resources.get("accelerator")
        if not accelerator:
            continue
        if not accelerator.get("resourceType") or accelerator.get("resourceCount", "0") == "0":
            yield f"{task.name} has an accelerator without type or number"
        if not settings.get("nodeSelector", {}).get("labels"):
            yield f"{task.name} has a GPU and no node selector"
        memory = _amount(resources.get("resourceMemoryLimit", "0"))
        shared = [m for m in settings.get("emptyDirMounts", []) if m["mountPath"] == "/dev/shm"]
        if not shared or shared[0].get("medium") != "Memory":
            yield f"{task.name} has a GPU and no shared memory"
        elif _amount(shared[0].get("sizeLimit", "0")) >= memory:
            yield (
                f"{task.name} has shared memory of {shared[0]['sizeLimit']}, not below its memory"
                " limit"
            )


RULES: tuple[Rule, ...] = (
    no_conditions,
    no_loops,
    no_exit_handler,
    inputs_can_be_resolved,
    retry_window,
    spec_size,
    argument_size,
    containers_are_one_components,
    form_fits_a_screen,
    form_is_documented,
    form_can_be_sent,
    components_are_documented,
    parameter_types,
    artifact_types,
    images_are_pinned,
    task_names_are_unique,
    names_are_valid,
    labels_are_valid,
    references_are_optional,
    pods_are_restricted,
    resources_are_bounded,
    resources_are_compiled_in,
    light_steps_request_little,
    gpu_steps_fit_a_node,
)


def _measured(compiled: Compiled, measure: Callable[[Json], int]) -> int:
    """A size of the Workflow's spec.

    0 where the pipeline has what the model leaves out, which other rules refuse.
    """
    try:
        return measure(workflow(compiled, {}, STOCK)["spec"])
    except RefusedError:
        return 0


def _resources(compiled: Compiled, task: Task) -> Json:
    return compiled.container_of(task.spec).get("resources", {})


def _amount(quantity: str) -> Decimal:
    """A quantity of Kubernetes; 0 for a placeholder, which `resources_are_compiled_in` refuses."""
    amount: Decimal = parse_quantity("0" if "{{" in quantity else quantity)
    return amount


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def _docstring(source: str) -> str:
    """The docstring of a component's code, or, of kfp's usual kind, of the one function in it.

    Empty where the text is no Python.
    """
    try:
        module = ast.parse(source)
    except SyntaxError:
        return ""

    functions = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    found = ast.get_docstring(module)
    return found or (ast.get_docstring(functions[0]) or "" if len(functions) == 1 else "")
