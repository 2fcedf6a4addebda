"""The compiled pipeline against what a real back end refuses.

Every rule also fails on a pipeline that breaks it.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from kfp import dsl, kubernetes

from pipelines.catalog import pipeline_of
from pipelines.parameters import Variant
from pipelines.resources import PROFILE_NAMES, load_profile
from tests.pipelines.backend import rules
from tests.pipelines.backend.rules import RULES, Rule, violations
from tests.pipelines.backend.specs import Compiled, compile_pipeline

VARIANTS = [
    Variant(),
    Variant(pretrain="unlabelled"),
    Variant(ingest_parts=3),
    Variant(pipeline="continuous"),
    Variant(pretrain="labelled", modes=("full", "frozen", "lora", "dora")),
]


# Every variant with the default profile in seconds; with the others in `make test-all`.
_PROFILES = [
    pytest.param(name, marks=() if name == "a6000x2" else pytest.mark.slow)
    for name in PROFILE_NAMES
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name or "default")
@pytest.mark.parametrize("profile", _PROFILES)
def test_the_pipeline_breaks_no_rule(profile: str, variant: Variant, tmp_path: Path) -> None:
    loaded = load_profile(profile, queue="team")
    assert violations(compile_pipeline(pipeline_of(loaded, variant), tmp_path)) == []


class Table(dsl.Artifact):
    """An artifact type of this test."""

    schema_title = "system.Table"


@dsl.component(base_image="toy/images:1", install_kfp_package=False)
def read(config: dict, table: dsl.Output[Table]) -> int:  # type: ignore[type-arg]
    """Write a table."""
    return len(config)


@dsl.component(base_image="toy/images:1", install_kfp_package=False)
def fit(table: dsl.Input[Table], model: dsl.Output[Table], n_rows: int = 0) -> None:
    """Fit a model."""


@dsl.component(base_image="toy/images:1", install_kfp_package=False)
def finish(status: dsl.PipelineTaskFinalStatus) -> None:
    """Say how it ended."""


def _on_cluster(task: dsl.PipelineTask) -> dsl.PipelineTask:
    task.set_cpu_request("250m").set_cpu_limit("1").set_memory_request("1Gi").set_memory_limit(
        "2Gi"
    )
    task.set_retry(2, "30s", 2.0, "390s")
    kubernetes.set_timeout(task, 100)
    kubernetes.set_security_context(task, run_as_user=10001, run_as_non_root=True)
    kubernetes.add_pod_label(task, "app", task.name)
    kubernetes.use_secret_as_env(task, "store", {"key": "KEY"}, optional=True)
    return task


def _on_gpu(task: dsl.PipelineTask) -> dsl.PipelineTask:
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1).set_cpu_request("1")
    kubernetes.add_node_selector(task, "gpu", "a6000")
    kubernetes.empty_dir_mount(task, "dshm", "/dev/shm", medium="Memory", size_limit="1Gi")
    return task


@dsl.pipeline(name="training", description="A group.")
def training(table: dsl.Input[Table], n_rows: int) -> Table:
    return _on_gpu(_on_cluster(fit(table=table, n_rows=n_rows))).outputs["model"]


@dsl.pipeline(name="toy", description="A pipeline that breaks no rule.")
def toy(overrides: dict = {}) -> None:  # type: ignore[type-arg]  # noqa: B006
    """A pipeline.

    Args:
        overrides: Options.
    """
    table = _on_cluster(read(config=overrides))
    training(table=table.outputs["table"], n_rows=table.outputs["Output"])


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_pipeline(toy, tmp_path_factory.mktemp("toy"))


def test_a_small_pipeline_breaks_no_rule(valid: Compiled) -> None:
    assert violations(valid) == []


# How to break each rule: a change of the small pipeline's spec, and what the message says of it.
Change = Callable[[Compiled], None]


def _task(compiled: Compiled, name: str) -> dict[str, object]:
    (found,) = [task.spec for task in compiled.tasks if task.name == name]
    return found


def _conditional(compiled: Compiled) -> None:
    _task(compiled, "training")["triggerPolicy"] = {
        "condition": "inputs.parameter_values['n_rows'] > 1"
    }


def _one_of(compiled: Compiled) -> None:
    output = compiled.components["comp-training"]["dag"]["outputs"]["artifacts"]["Output"]
    output["artifactSelectors"].append({"producerSubtask": "fit-2", "outputArtifactKey": "model"})


def _loop(compiled: Compiled) -> None:
    _task(compiled, "training")["parameterIterator"] = {
        "itemInput": "n_rows",
        "items": {"raw": "[1, 2]"},
    }


def _collected(compiled: Compiled) -> None:
    compiled.components["comp-fit"]["inputDefinitions"]["artifacts"]["table"]["isArtifactList"] = (
        True
    )


def _exit_task(compiled: Compiled) -> None:
    _task(compiled, "training")["triggerPolicy"] = {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}


def _group_without_its_input(compiled: Compiled) -> None:
    del _task(compiled, "training")["inputs"]["artifacts"]["table"]  # type: ignore[index]


def _one_artifact_twice(compiled: Compiled) -> None:
    artifacts = _task(compiled, "training")["inputs"]["artifacts"]  # type: ignore[index]
    artifacts["again"] = artifacts["table"]


def _number_for_a_dict(compiled: Compiled) -> None:
    compiled.components["comp-training"]["inputDefinitions"]["parameters"]["n_rows"][
        "parameterType"
    ] = "STRUCT"


def _short_window(compiled: Compiled) -> None:
    _task(compiled, "fit")["retryPolicy"]["backoffMaxDuration"] = "389s"  # type: ignore[index]


def _broken_factor(compiled: Compiled) -> None:
    _task(compiled, "fit")["retryPolicy"]["backoffFactor"] = 1.5  # type: ignore[index]


def _long_source(compiled: Compiled) -> None:
    for executor in compiled.executors.values():
        executor["container"]["command"][-1] += "#" * 200_000


def _two_interfaces(compiled: Compiled) -> None:
    compiled.pipeline["components"]["comp-fit-2"] = copy.deepcopy(compiled.components["comp-fit"])
    compiled.components["comp-fit-2"]["inputDefinitions"]["parameters"]["n_columns"] = {
        "parameterType": "NUMBER_INTEGER",
        "isOptional": True,
    }


def _many_parameters(compiled: Compiled) -> None:
    parameters = compiled.root["inputDefinitions"]["parameters"]
    parameters |= {f"option_{number}": parameters["overrides"] for number in range(15)}


def _no_help(compiled: Compiled) -> None:
    del compiled.parameters["overrides"]["description"]


def _no_default(compiled: Compiled) -> None:
    del compiled.parameters["overrides"]["defaultValue"]


def _number_in_the_form(compiled: Compiled) -> None:
    compiled.parameters["overrides"] |= {"parameterType": "NUMBER_INTEGER", "defaultValue": 3}


def _no_docstring(compiled: Compiled) -> None:
    command = compiled.executors["exec-fit"]["container"]["command"]
    command[-1] = command[-1].replace('"""Fit a model."""', "pass")


def _final_status(compiled: Compiled) -> None:
    compiled.parameters["overrides"]["parameterType"] = "TASK_FINAL_STATUS"


def _own_namespace(compiled: Compiled) -> None:
    output = compiled.components["comp-fit"]["outputDefinitions"]["artifacts"]["model"]
    output["artifactType"]["schemaTitle"] = "mine.Table"


def _latest(compiled: Compiled) -> None:
    compiled.executors["exec-fit"]["container"]["image"] = "registry:5000/toy/images"


def _same_name(compiled: Compiled) -> None:
    tasks = compiled.components["comp-training"]["dag"]["tasks"]
    tasks["read"] = tasks.pop("fit")


def _long_name(compiled: Compiled) -> None:
    tasks = compiled.components["comp-training"]["dag"]["tasks"]
    tasks["fit-" + "x" * 130] = tasks.pop("fit")


def _pipeline_name(compiled: Compiled) -> None:
    compiled.pipeline["pipelineInfo"]["name"] = "toy-" + "x" * 60


def _label(compiled: Compiled) -> None:
    compiled.kubernetes["exec-fit"]["podMetadata"]["labels"]["app"] = "fit a model"


def _required_secret(compiled: Compiled) -> None:
    del compiled.kubernetes["exec-fit"]["secretAsEnv"][0]["optional"]


def _root_user(compiled: Compiled) -> None:
    compiled.kubernetes["exec-fit"]["securityContext"]["runAsUser"] = "0"


def _no_limit(compiled: Compiled) -> None:
    del compiled.executors["exec-read"]["container"]["resources"]["resourceMemoryLimit"]


def _no_timeout(compiled: Compiled) -> None:
    del compiled.kubernetes["exec-read"]["activeDeadlineSeconds"]


def _resources_at_run_time(compiled: Compiled) -> None:
    resources = compiled.executors["exec-fit"]["container"]["resources"]
    resources["resourceMemoryLimit"] = "{{$.inputs.parameters['pipelinechannel--memory']}}"


def _two_cpus(compiled: Compiled) -> None:
    compiled.executors["exec-read"]["container"]["resources"]["resourceCpuRequest"] = "2"


def _any_node(compiled: Compiled) -> None:
    del compiled.kubernetes["exec-fit"]["nodeSelector"]


def _no_shared_memory(compiled: Compiled) -> None:
    del compiled.kubernetes["exec-fit"]["emptyDirMounts"]


def _all_memory_shared(compiled: Compiled) -> None:
    compiled.kubernetes["exec-fit"]["emptyDirMounts"][0]["sizeLimit"] = "2Gi"


CASES: list[tuple[Rule, Change, str]] = [
    (rules.no_conditions, _conditional, "training is conditional"),
    (rules.no_conditions, _one_of, "output Output of comp-training is OneOf several tasks"),
    (rules.no_loops, _loop, "training is a loop"),
    (rules.no_loops, _collected, "input table of comp-fit is a list of artifacts"),
    (rules.no_exit_handler, _exit_task, "training is an exit task"),
    (
        rules.inputs_can_be_resolved,
        _group_without_its_input,
        "fit: the group has no artifact table",
    ),
    (
        rules.inputs_can_be_resolved,
        _one_artifact_twice,
        "training: table and again are one artifact",
    ),
    (rules.inputs_can_be_resolved, _number_for_a_dict, "training: n_rows=1 is not STRUCT"),
    (rules.retry_window, _short_window, "fit has a retry window of 389 s; 3 attempts need 390 s"),
    (rules.retry_window, _broken_factor, "fit has the back-off factor 1.5"),
    (rules.spec_size, _long_source, "the Workflow's spec has 4"),
    (rules.argument_size, _long_source, "a component of 20"),
    (
        rules.containers_are_one_components,
        _two_interfaces,
        "comp-fit-2 and comp-fit have one container",
    ),
    (rules.form_fits_a_screen, _many_parameters, "16 parameters, at most 15"),
    (rules.form_is_documented, _no_help, "parameter overrides has no description"),
    (rules.form_can_be_sent, _no_default, "parameter overrides has no default"),
    (rules.form_can_be_sent, _number_in_the_form, "parameter overrides is a number"),
    (rules.components_are_documented, _no_docstring, "the code of comp-fit has no docstring"),
    (rules.parameter_types, _final_status, "overrides of root is TASK_FINAL_STATUS"),
    (rules.artifact_types, _own_namespace, "model of comp-fit has the type 'mine.Table'"),
    (rules.images_are_pinned, _latest, "exec-fit runs 'registry:5000/toy/images'"),
    (rules.task_names_are_unique, _same_name, "2 tasks are called read"),
    (rules.names_are_valid, _long_name, "task 'fit-xxx"),
    (rules.names_are_valid, _pipeline_name, "pipeline 'toy-xxx"),
    (rules.labels_are_valid, _label, "exec-fit: label app='fit a model'"),
    (rules.references_are_optional, _required_secret, "exec-fit: store must be optional"),
    (rules.pods_are_restricted, _root_user, "fit may run as root"),
    (rules.resources_are_bounded, _no_limit, "read has no resourceMemoryLimit"),
    (rules.resources_are_bounded, _no_timeout, "read has no timeout"),
    (
        rules.resources_are_compiled_in,
        _resources_at_run_time,
        "fit takes resources from a parameter",
    ),
    (rules.light_steps_request_little, _two_cpus, "read requests 2 CPUs without a GPU"),
    (rules.gpu_steps_fit_a_node, _any_node, "fit has a GPU and no node selector"),
    (rules.gpu_steps_fit_a_node, _no_shared_memory, "fit has a GPU and no shared memory"),
    (rules.gpu_steps_fit_a_node, _all_memory_shared, "fit has shared memory of 2Gi"),
]


@pytest.mark.parametrize(
    ("rule", "change", "message"), CASES, ids=[change.__name__ for _, change, _ in CASES]
)
def test_a_rule_tells_what_breaks_it(
    valid: Compiled, rule: Rule, change: Change, message: str
) -> None:
    broken = Compiled(copy.deepcopy(valid.pipeline), copy.deepcopy(valid.platform))
    change(broken)
    (found,) = rule(broken)
    assert found.startswith(message)


def test_every_rule_has_a_case() -> None:
    assert {rule for rule, _, _ in CASES} == set(RULES)


def test_what_the_compiler_makes_of_conditions_loops_and_exit_handlers_is_refused(
    tmp_path: Path,
) -> None:
    @dsl.pipeline(name="all-of-it")
    def all_of_it(n_rows: int = 1) -> None:
        with dsl.ExitHandler(finish()):
            with dsl.If(n_rows == 1):
                small = read(config={})
            with dsl.Else():
                large = read(config={"rows": 2})
            fit(table=dsl.OneOf(small.outputs["table"], large.outputs["table"]))
            with dsl.ParallelFor([1, 2]) as item:
                fit(table=small.outputs["table"], n_rows=item)

    compiled = compile_pipeline(all_of_it, tmp_path)
    for rule in (rules.no_conditions, rules.no_loops, rules.no_exit_handler):
        assert list(rule(compiled))
