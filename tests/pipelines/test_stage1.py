"""The compiled pipeline: interfaces that cannot drift, leakage refused, resources asked for."""

import dataclasses
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import compiler, dsl
from kfp.dsl.types.type_utils import InconsistentTypeException

from components.compare_adaptations.component import compare_adaptations
from components.fit_threshold.component import fit_threshold
from components.predict_logits.component import predict_logits
from components.shared.errors import ConfigError
from components.shared.store import StoreSettings
from components.shared.training.mirror import STORE_VARIABLE
from components.train_baseline.component import train_baseline
from pipelines import resources
from pipelines.images import pipeline_images
from pipelines.parameters import PHASES, pipeline_parameters, read_parameters
from pipelines.stage1 import stage1


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    file = tmp_path_factory.mktemp("spec") / "stage1.yaml"
    compiler.Compiler().compile(stage1(resources.PROFILES["a6000x2"]), str(file))
    return list(yaml.safe_load_all(file.read_text()))


@pytest.mark.parametrize("phase", list(PHASES))
def test_component_and_configuration_agree(phase: str) -> None:
    component = getattr(importlib.import_module(f"components.{phase}.component"), phase)
    defaults = PHASES[phase]().to_json()
    inputs = {name: spec for name, spec in component.component_spec.inputs.items() if name in defaults}
    assert inputs.keys() == defaults.keys()
    assert {name: spec.default for name, spec in inputs.items()} == defaults
    assert all(field.metadata["help"] for field in dataclasses.fields(PHASES[phase]))
    assert len(inspect.getsource(inspect.getmodule(component.python_func)).splitlines()) <= 40  # type: ignore[arg-type]


def test_wiring_test_logits_into_fitting_does_not_compile() -> None:
    with pytest.raises(InconsistentTypeException, match="ValTestLogits"):

        @dsl.pipeline(name="leak")
        def leak(dataset: dsl.Input[dsl.Artifact]) -> None:
            logits = predict_logits(dataset=dataset, splits=dataset, checkpoint=dataset)
            fit_threshold(val_calib_logits=logits.outputs["val_test_logits"], calibration=dataset)


def test_choosing_a_model_by_test_logits_does_not_compile() -> None:
    with pytest.raises(InconsistentTypeException, match="ValTestLogits"):

        @dsl.pipeline(name="leak")
        def leak(dataset: dsl.Input[dsl.Artifact], modes: list) -> None:  # type: ignore[type-arg]
            with dsl.ParallelFor(modes) as mode:
                train = train_baseline(dataset=dataset, splits=dataset, backbone=dataset, mode=mode)
                logits = predict_logits(dataset=dataset, splits=dataset, checkpoint=train.outputs["checkpoint"])
            compare_adaptations(
                checkpoints=dsl.Collected(train.outputs["checkpoint"]),
                val_select_logits=dsl.Collected(logits.outputs["val_test_logits"]),
            )


# Pre-training with labels is a task of its own, so that without them it has no such input.
PRETRAINING = ["exec-pretrain-explora", "exec-pretrain-explora-2"]
TORCHRUN = ["exec-predict-logits", *PRETRAINING, "exec-train-baseline", "exec-train-gate"]


def test_training_asks_for_two_a6000(documents: list[dict[str, Any]]) -> None:
    spec, platform = documents
    container = spec["deploymentSpec"]["executors"]["exec-train-baseline"]["container"]
    defaults = {name: p["defaultValue"] for name, p in spec["root"]["inputDefinitions"]["parameters"].items()}
    assert "n_gpus" in container["resources"]["accelerator"]["resourceCount"]
    assert (defaults["n_gpus"], defaults["train_cpu"], defaults["train_memory"]) == ("2", "16", "96Gi")
    assert container["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
    kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train-baseline"]
    assert "gpu_nodes" in kubernetes["nodeSelector"]["nodeSelectorJson"]["componentInputParameter"]
    assert defaults["gpu_nodes"] == {"nvidia.com/gpu.product": "NVIDIA-RTX-A6000"}
    mediums = {mount["mountPath"]: mount.get("medium") for mount in kubernetes["emptyDirMounts"]}
    assert mediums == {"/dev/shm": "Memory", "/tmp": None}
    assert kubernetes["activeDeadlineSeconds"] == str(24 * 3600) or kubernetes["activeDeadlineSeconds"] == 24 * 3600


def _groups(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pipeline and all groups of it (exit handler, loops), by name."""
    return {"root": document["root"]} | {n: c for n, c in document["components"].items() if "dag" in c}


def test_no_task_refers_to_an_input_that_its_group_does_not_have(documents: list[dict[str, Any]]) -> None:
    groups = _groups(documents[0])
    kinds = {"root", "comp-exit-handler-", "comp-for-loop-", "comp-condition-branches-", "comp-condition-"}
    assert {name.rstrip("0123456789") for name in groups} == kinds
    for name, group in groups.items():
        has = group.get("inputDefinitions", {})
        tasks = group["dag"]["tasks"].values()
        items = {task["parameterIterator"]["itemInput"] for task in tasks if "parameterIterator" in task}
        for task in tasks:
            for kind in ("Parameter", "Artifact"):
                inputs = task.get("inputs", {}).get(f"{kind.lower()}s", {}).values()
                wanted = {i[f"componentInput{kind}"] for i in inputs if f"componentInput{kind}" in i}
                assert wanted <= has.get(f"{kind.lower()}s", {}).keys() | items, name
            # What a task needs besides its component's inputs: Kubernetes' settings are looked up among the group's.
            trains = task["componentRef"]["name"].startswith(("comp-train-baseline", "comp-pretrain-explora"))
            assert not trains or "pipelinechannel--gpu_nodes" in has["parameters"]


def test_labels_reach_pre_training_in_a_branch_of_their_own(documents: list[dict[str, Any]]) -> None:
    tasks = [t for group in _groups(documents[0]).values() for n, t in group["dag"]["tasks"].items() if "pretrain" in n]
    inputs = [set(task["inputs"]["artifacts"]) for task in tasks]
    assert sorted(inputs, key=len) == [{"train_images", "pretrained"}, {"train_images", "pretrained", "train_labels"}]


def test_every_mode_is_trained_on_gpu_nodes_and_compared_by_one_step(documents: list[dict[str, Any]]) -> None:
    groups = _groups(documents[0])
    ((loop, group),) = [(name, group) for name, group in groups.items() if "for-loop" in name]
    assert list(group["dag"]["tasks"]) == ["train-baseline"]
    tasks = groups["comp-exit-handler-1"]["dag"]["tasks"]
    iterator = tasks[loop.removeprefix("comp-")]["parameterIterator"]
    assert iterator["items"] == {"inputParameter": "pipelinechannel--modes"}
    mode = group["dag"]["tasks"]["train-baseline"]["inputs"]["parameters"]["mode"]
    assert mode == {"componentInputParameter": iterator["itemInput"]}
    readers = {name for name, task in tasks.items() if loop.removeprefix("comp-") in task.get("dependentTasks", [])}
    assert readers == {"compare-adaptations"}


def test_every_step_retries_and_all_but_the_fingerprint_are_cached(documents: list[dict[str, Any]]) -> None:
    groups = [group for name, group in _groups(documents[0]).items() if name != "root"]
    tasks = {n: t for group in groups for n, t in group["dag"]["tasks"].items() if "parameterIterator" not in t}
    tasks = {name: task for name, task in tasks.items() if "condition" not in name}
    # Every branch of the condition imports the backbone.
    again = {"import-backbone-2", "import-backbone-3", "pretrain-explora-2"}
    assert tasks.keys() == {phase.replace("_", "-") for phase in PHASES} | again
    for name, task in tasks.items():
        assert task["retryPolicy"]["maxRetryCount"] == 3
        assert task["cachingOptions"].get("enableCache", False) is (name != "fingerprint-source")


def test_the_exit_handler_waits_for_all_and_runs_whatever_happened(documents: list[dict[str, Any]]) -> None:
    tasks = documents[0]["root"]["dag"]["tasks"]
    assert tasks.keys() == {"exit-handler-1", "report-outcome"}
    assert tasks["report-outcome"]["dependentTasks"] == ["exit-handler-1"]
    assert tasks["report-outcome"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"


def test_every_pod_is_labelled_unprivileged_and_has_scratch(documents: list[dict[str, Any]]) -> None:
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors.keys() == documents[0]["deploymentSpec"]["executors"].keys()
    for name, executor in executors.items():
        labels = executor["podMetadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "streetvision"
        assert labels["app.kubernetes.io/component"] == name.removeprefix("exec-")
        assert labels["streetvision/cost"] == ("training" if name in TORCHRUN else "light")
        assert executor["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
        assert {"/tmp"} <= {mount["mountPath"] for mount in executor["emptyDirMounts"]}
        assert int(executor["activeDeadlineSeconds"]) > 0


def test_the_store_reaches_the_steps_that_read_data_by_reference_only(documents: list[dict[str, Any]]) -> None:
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    holders = {name for name, executor in executors.items() if "secretAsEnv" in executor}
    training = {*PRETRAINING, "exec-train-baseline", "exec-train-gate"}
    imports = {"exec-import-backbone", "exec-import-backbone-2", "exec-import-backbone-3"}
    assert holders == {"exec-fingerprint-source", "exec-ingest-dataset"} | imports | training
    for name in holders:
        reference = executors[name]["secretAsEnv"][0]
        variables = {entry["envVar"] for entry in reference["keyToEnv"]}
        assert set(StoreSettings(endpoint="e", access_key="a", secret_key="s").to_environment()) <= variables
        assert (STORE_VARIABLE in variables) == (name in training)
        assert reference["optional"] is True


def test_training_waits_in_kueue_where_a_queue_is_named() -> None:
    pipeline = stage1(dataclasses.replace(resources.PROFILES["a6000x2"], queue="team"))
    platform = json_format.MessageToDict(pipeline.platform_spec)["platforms"]["kubernetes"]
    executors = platform["deploymentSpec"]["executors"]
    labels = {name: executor["podMetadata"]["labels"] for name, executor in executors.items()}
    queued = sorted(name for name in labels if "kueue.x-k8s.io/queue-name" in labels[name])
    assert queued == TORCHRUN


def test_every_step_runs_in_the_image_of_its_phase(documents: list[dict[str, Any]]) -> None:
    named = {e["container"]["image"] for e in documents[0]["deploymentSpec"]["executors"].values()}
    assert named == {image.reference for image in pipeline_images()}


def test_every_parameter_is_documented_in_the_spec(documents: list[dict[str, Any]]) -> None:
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    chosen = resources.runtime_parameters(resources.PROFILES["a6000x2"])
    assert parameters.keys() == {parameter.name for parameter in [*pipeline_parameters(), *chosen]}
    assert all(parameter["description"] for parameter in parameters.values())


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["epoch=3"], "unknown key 'epoch', did you mean 'epochs'?"),
        (["epochs=0"], "epochs=0 must be >= 1"),
        (["epochs=many"], "epochs='many' must be int, got str"),
        (["adapter_options=[]"], "adapter_options='[]' must be a JSON mapping"),
        (["modes=[frozen, half]"], "modes='half' must be one of frozen, full, lora, dora"),
        (["modes=[lora, lora]"], "modes=['lora', 'lora'] must be at least one, none twice"),
        (["modes=lora"], "modes='lora' must be a list"),
        (["optimizer=profit", "modes=[lora, frozen]"], "optimizer='profit' needs a converged start"),
        (["precision=fp16"], "precision='fp16' is refused"),
        (["train_fraction=0.9"], "must be 1"),
        (["learning_rate=2"], "learning_rate=2.0 must be < 1"),
        (["max_fnr=-0.1"], "max_fnr=-0.1 must be >= 0"),
        (["model_version=1.0"], "model_version='1.0' must be X.Y.Z"),
        (["holdout_column=day"], "holdout_column and holdout_values must be given together"),
        (["label_map={0: Nothing}"], "label_map"),
        (["epochs"], "--param 'epochs' must be key=value"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(pairs: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_parameters(None, pairs)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("profile", "pair", "message"),
    [
        ("a6000x2", "n_gpus=two", "n_gpus='two' must be a whole number"),
        ("a6000x2", "train_memory=96 GB", "train_memory='96 GB' must be a quantity of Kubernetes"),
        ("cpu", "n_gpus=1", "unknown key 'n_gpus'"),
        ("local", "train_cpu=4", "unknown key 'train_cpu'"),
    ],
)
def test_wrong_resources_are_refused_before_anything_is_sent(profile: str, pair: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_parameters(None, [pair], resources.PROFILES[profile])
    assert message in str(caught.value)


def test_resources_are_chosen_when_a_run_is_started() -> None:
    pairs = ["n_gpus=1", "train_cpu=8", "gpu_nodes={pool: fast}"]
    values = read_parameters(None, pairs, resources.PROFILES["a6000x2"])
    assert values == {"n_gpus": "1", "train_cpu": "8", "gpu_nodes": {"pool": "fast"}}


def test_pairs_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("epochs: 7\nmodes: [lora]\n")
    assert read_parameters(file, ["epochs=9", "learning_rate=1e-4"]) == {
        "epochs": 9, "modes": ["lora"], "learning_rate": 1e-4,
    }  # fmt: skip
