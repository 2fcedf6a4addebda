"""The compiled pipeline: leaks do not compile, resources and secrets are in their places."""

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler, dsl
from kfp.dsl.types.type_utils import InconsistentTypeException

from components.compare_adaptations.component import compare_adaptations
from components.configure.config import RunForm
from components.configure.phases import PHASES
from components.container import SETTINGS_FOLDER
from components.extract_features.component import extract_features
from components.fit_threshold.component import fit_threshold
from components.predict_logits.component import predict_logits
from components.pretrain_explora.component import pretrain_explora
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.storage import StoreSettings
from components.split_dataset.component import split_dataset
from components.train_baseline.component import train_baseline
from pipelines.images import pipeline_images
from pipelines.package import write_package
from pipelines.parameters import STANDALONE, Variant
from pipelines.resources import (
    CA_FOLDER,
    LOCAL,
    SIGNING_FOLDER,
    STORE_CA,
    STORE_CONFIG,
    STORE_VARIABLES,
    Profile,
    load_profile,
)
from pipelines.stage1 import stage1

Documents = tuple[dict[str, Any], dict[str, Any]]
Compile = Callable[..., Documents]

PROFILE = load_profile("a6000x2")
MODES = Variant(modes=("full", "frozen", "lora", "dora"))
TRAINING = {"train-baseline", "train-gate"}
RESUMED = TRAINING | {"extract-features"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compile a variant, once for each."""
    known: dict[tuple[str, Variant], Documents] = {}

    def documents(variant: Variant = Variant(), profile: Profile = PROFILE) -> Documents:  # noqa: B008 - frozen
        key = (profile.name + profile.queue + str(profile.secrets), variant)
        if key not in known:
            file = tmp_path_factory.mktemp("spec") / "stage1.yaml"
            compiler.Compiler().compile(stage1(profile, variant), str(file))
            spec, platform = yaml.safe_load_all(file.read_text())
            known[key] = spec, platform
        return known[key]

    return documents


def _executors(platform: dict[str, Any]) -> dict[str, Any]:
    """Kubernetes settings by task."""
    found = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor for name, executor in found.items()}


def _tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Tasks of all groups by name."""
    groups = [spec["root"], *(c for c in spec["components"].values() if "dag" in c)]
    return {name: task for group in groups for name, task in group["dag"]["tasks"].items()}


@pytest.mark.parametrize("phase", ["configure", *PHASES])
def test_a_component_is_its_artifacts_and_one_configuration(phase: str) -> None:
    component = getattr(importlib.import_module(f"components.{phase}.component"), phase)
    parameters = [
        name
        for name, spec in component.component_spec.inputs.items()
        if not spec.type.startswith("system.")
    ]
    assert phase == "configure" or parameters in (
        ["config"],
        ["config", "mode"],
        ["config", "training"],  # of a search: the options of what it trains
    )
    assert inspect.getdoc(component.python_func)
    assert component.component_spec.description


def test_wiring_test_logits_into_fitting_does_not_compile() -> None:
    with pytest.raises(InconsistentTypeException, match="ValTestLogits"):

        @dsl.pipeline(name="leak")
        def leak(dataset: dsl.Input[dsl.Artifact]) -> None:
            logits = predict_logits(dataset=dataset, splits=dataset, checkpoint=dataset, config={})
            fit_threshold(
                val_calib_logits=logits.outputs["val_test_logits"], calibration=dataset, config={}
            )


def test_choosing_a_model_by_test_logits_does_not_compile() -> None:
    with pytest.raises(InconsistentTypeException, match="ValTestLogits"):

        @dsl.pipeline(name="leak")
        def leak(dataset: dsl.Input[dsl.Artifact]) -> None:
            train = train_baseline(dataset=dataset, splits=dataset, backbone=dataset, config={})
            checkpoint = train.outputs["checkpoint"]
            logits = predict_logits(
                dataset=dataset, splits=dataset, checkpoint=checkpoint, config={}
            )
            compare_adaptations(
                checkpoint_1=checkpoint,
                val_select_logits_1=logits.outputs["val_test_logits"],
                checkpoint_2=checkpoint,
                val_select_logits_2=train.outputs["val_select_logits"],
                config={},
            )


def test_pre_training_on_labels_in_the_place_of_pixels_does_not_compile() -> None:
    with pytest.raises(InconsistentTypeException, match="TrainLabels"):

        @dsl.pipeline(name="leak")
        def leak(dataset: dsl.Input[dsl.Artifact]) -> None:
            split = split_dataset(dataset=dataset, config={})
            pretrain_explora(
                train_images=split.outputs["train_labels"], pretrained=dataset, config={}
            )


def test_training_asks_for_two_a6000(compiled: Compile) -> None:
    spec, platform = compiled()
    for task in ("extract-features", "train-baseline", "train-gate", "predict-logits"):
        resources = spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]["resources"]
        assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
        assert resources["accelerator"]["resourceCount"] == "2"
        assert (resources["resourceCpuRequest"], resources["resourceMemoryLimit"]) == ("16", "96Gi")

        settings = _executors(platform)[task]
        assert settings["nodeSelector"]["labels"] == {"nvidia.com/gpu.product": "NVIDIA-RTX-A6000"}
        assert settings["tolerations"] == [
            {"effect": "NoSchedule", "key": "nvidia.com/gpu", "operator": "Exists"}
        ]
        mediums = {mount["mountPath"]: mount.get("medium") for mount in settings["emptyDirMounts"]}
        assert mediums == {"/dev/shm": "Memory", "/tmp": None}


def test_resources_are_in_no_input_of_a_step(compiled: Compile) -> None:
    """An input is part of the cache key: a resize would train again."""
    large, small = compiled()[0], compiled(profile=load_profile("cpu"))[0]
    assert large["root"] == small["root"]
    assert large["components"] == small["components"]


def test_the_form_has_a_default_and_a_description_for_every_field(compiled: Compile) -> None:
    parameters = compiled()[0]["root"]["inputDefinitions"]["parameters"]
    assert parameters.keys() == {field.name for field in dataclasses.fields(RunForm)}
    assert len(parameters) <= 15
    for parameter in parameters.values():
        assert parameter["description"]
        assert "defaultValue" in parameter


def test_one_training_task_by_default_and_one_named_task_for_each_compared_mode(
    compiled: Compile,
) -> None:
    assert {name for name in _tasks(compiled()[0]) if name.startswith("train-")} == TRAINING
    tasks = _tasks(compiled(MODES)[0])
    named = {"train-full", "train-frozen", "train-lora", "train-dora"}
    assert {name for name in tasks if name.startswith("train-")} == named | {"train-gate"}
    assert set(tasks["compare-adaptations"]["dependentTasks"]) == named
    for name in named:
        constant = tasks[name]["inputs"]["parameters"]["mode"]["runtimeValue"]["constant"]
        assert f"train-{constant}" == name
    assert "mode" not in compiled(MODES)[0]["root"]["inputDefinitions"]["parameters"]


def test_parts_of_ingest_are_named_tasks_that_one_task_merges(compiled: Compile) -> None:
    assert not any(name.startswith("ingest-part") for name in _tasks(compiled()[0]))
    assert "artifacts" not in _tasks(compiled()[0])["ingest-dataset"]["inputs"]

    spec, platform = compiled(Variant(ingest_parts=3))
    tasks = _tasks(spec)
    merge = tasks["ingest-dataset"]
    for number in (1, 2, 3):
        task = tasks[f"ingest-part-{number}"]
        constants = {
            name: given["runtimeValue"]["constant"]
            for name, given in task["inputs"]["parameters"].items()
            if "runtimeValue" in given
        }
        assert constants == {"number": number, "n_parts": 3}
        source = merge["inputs"]["artifacts"][f"part_{number}"]["taskOutputArtifact"]
        assert source["producerTask"] == f"ingest-part-{number}"
    assert len(merge["inputs"]["artifacts"]) == 3

    images = {
        spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]["image"]
        for name in ("ingest-dataset", "ingest-part-1", "ingest-part-3")
    }
    assert len(images) == 1
    for name in ("ingest-dataset", "ingest-part-2"):
        assert _executors(platform)[name]["activeDeadlineSeconds"] == "86400"


def test_features_are_extracted_where_a_training_may_read_them(compiled: Compile) -> None:
    inputs = {"train_features", "val_select_features"}
    tasks = _tasks(compiled()[0])
    for task in ("train-baseline", "train-gate"):
        assert inputs < tasks[task]["inputs"]["artifacts"].keys()
    tasks = _tasks(compiled(MODES)[0])
    readers = {name for name, task in tasks.items() if inputs < _artifacts(task)}
    assert readers == {"train-frozen", "train-gate"}
    tasks = _tasks(compiled(Variant(modes=("full", "lora")))[0])
    assert "extract-features" not in tasks
    assert not inputs & _artifacts(tasks["train-gate"])


def test_one_compiled_adaptation_has_no_step_that_it_does_not_need(compiled: Compile) -> None:
    tasks = _tasks(compiled(Variant(modes=("lora",)))[0])
    assert not {"extract-features", "compare-adaptations", "train-baseline"} & tasks.keys()
    assert "train-lora" in tasks
    tasks = _tasks(compiled(Variant(modes=("frozen",)))[0])
    assert {"extract-features", "train-frozen"} < tasks.keys()
    assert "compare-adaptations" not in tasks


def test_labels_are_audited_only_where_it_was_compiled_in_and_never_those_of_the_last_splits(
    compiled: Compile,
) -> None:
    assert "audit-labels" not in _tasks(compiled()[0])
    for modes in ((), ("full", "lora")):
        tasks = _tasks(compiled(Variant(modes=modes, audit_labels=True))[0])
        assert _artifacts(tasks["audit-labels"]) == {
            "dataset",
            "train_features",
            "val_select_features",
        }
        # Features that no training reads are extracted for the audit alone.
        assert ("train_features" in _artifacts(tasks["train-gate"])) == (not modes)
    assert Variant(audit_labels=True).name == "audit"


def test_a_bundle_s_further_formats_are_compared_on_the_data_set(compiled: Compile) -> None:
    compared = {"dataset", "splits"}
    assert compared < _artifacts(_tasks(compiled()[0])["export-bundle"])
    alone = _tasks(compiled(Variant(formats=("transformers",)))[0])
    assert not compared & _artifacts(alone["export-bundle"])
    assert Variant(formats=("transformers",)).name == "transformers"


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        (("transformers", "tensorrt"), "'tensorrt'"),
        (("onnx",), "transformers"),
        (("transformers", "onnx", "onnx"), "onnx"),
    ],
)
def test_formats_that_no_export_writes_are_refused_before_anything_is_compiled(
    formats: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"--formats.*{message}"):
        Variant(formats=formats)


def _artifacts(task: dict[str, Any]) -> set[str]:
    """Names of the artifacts that a task reads."""
    return set(task.get("inputs", {}).get("artifacts", {}))


def test_training_on_the_features_of_another_split_does_not_compile() -> None:
    with pytest.raises(InconsistentTypeException, match="ValSelectFeatures"):

        @dsl.pipeline(name="leak")
        def leak(dataset: dsl.Input[dsl.Artifact]) -> None:
            given = {"dataset": dataset, "splits": dataset, "backbone": dataset}
            found = extract_features(**given, config={}).outputs
            train_baseline(
                **given,
                train_features=found["val_select_features"],
                val_select_features=found["val_select_features"],
                config={},
            )


def test_pre_training_is_a_task_only_where_it_was_compiled_in_and_sees_labels_only_where_asked(
    compiled: Compile,
) -> None:
    assert "pretrain-explora" not in _tasks(compiled()[0])
    for pretrain, artifacts in {
        "unlabelled": {"train_images", "pretrained"},
        "labelled": {"train_images", "pretrained", "train_labels"},
    }.items():
        task = _tasks(compiled(Variant(pretrain))[0])["pretrain-explora"]
        assert task["inputs"]["artifacts"].keys() == artifacts


def test_pixels_of_train_are_copied_only_where_pre_training_reads_them(compiled: Compile) -> None:
    """The copy is 70 % of the data set, and KFP passes every output that a component declares."""

    def kinds_written(variant: Variant) -> set[str]:
        spec = compiled(variant)[0]
        return {
            artifact["artifactType"]["schemaTitle"].removeprefix("system.")
            for task in _tasks(spec).values()
            for artifact in spec["components"][task["componentRef"]["name"]]
            .get("outputDefinitions", {})
            .get("artifacts", {})
            .values()
        }

    assert kinds_written(Variant()) & {"Splits", "TrainImages", "TrainLabels"} == {"Splits"}
    assert kinds_written(MODES) & {"Splits", "TrainImages", "TrainLabels"} == {"Splits"}
    for pretrain in ("unlabelled", "labelled"):
        assert kinds_written(Variant(pretrain)) >= {"Splits", "TrainImages", "TrainLabels"}


def test_every_step_is_retried_within_a_window_that_covers_all_attempts(compiled: Compile) -> None:
    spec, platform = compiled()
    for name, task in _tasks(spec).items():
        if name in _executors(platform):
            policy = task["retryPolicy"]
            timeout = int(_executors(platform)[name]["activeDeadlineSeconds"])
            attempts = policy["maxRetryCount"] + 1
            assert (
                int(policy["backoffMaxDuration"].removesuffix("s"))
                >= attempts * timeout + 30 + 60 + 120
            )


def test_every_step_but_the_first_is_cached(compiled: Compile) -> None:
    steps = _executors(compiled()[1])
    for name, task in _tasks(compiled()[0]).items():
        if name in steps:
            assert task["cachingOptions"].get("enableCache", False) is (name != "configure")


def test_every_pod_is_labelled_unprivileged_and_has_scratch(compiled: Compile) -> None:
    spec, platform = compiled()
    executors = _executors(platform)
    assert executors.keys() == {
        name.removeprefix("exec-") for name in spec["deploymentSpec"]["executors"]
    }
    for name, executor in executors.items():
        labels = executor["podMetadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "streetvision"
        assert labels["app.kubernetes.io/component"] == name
        assert labels["streetvision/cost"] == (
            "training" if name in RESUMED | {"predict-logits"} else "light"
        )
        assert executor["securityContext"] == {
            "runAsUser": "10001",
            "runAsGroup": "10001",
            "runAsNonRoot": True,
        }
        assert {"/tmp"} <= {mount["mountPath"] for mount in executor["emptyDirMounts"]}
        assert int(executor["activeDeadlineSeconds"]) > 0
        assert executor["imagePullPolicy"] == "IfNotPresent"


def test_every_step_is_pulled_as_the_profile_says(compiled: Compile, tmp_path: Path) -> None:
    file = tmp_path / "private.yaml"
    file.write_text("training: {}\nimage_pull_policy: Always\nsecrets: {image_pull: [one, two]}\n")
    for executor in _executors(compiled(profile=load_profile(str(file)))[1]).values():
        assert executor["imagePullPolicy"] == "Always"
        secrets = [secret["secretName"] for secret in executor["imagePullSecret"]]
        assert secrets == ["one", "two"]


def test_the_store_reaches_the_steps_that_need_it_by_reference_only(compiled: Compile) -> None:
    executors = _executors(compiled()[1])
    with_store = {name for name, executor in executors.items() if "configMapAsVolume" in executor}
    with_store -= {"export-bundle"}  # it reads which keys sign, and no store
    assert (
        with_store
        == {"configure", "ingest-dataset", "split-dataset", "import-backbone", "evaluate"} | RESUMED
    )
    for name in with_store:
        settings, secret = (
            executors[name]["configMapAsVolume"][0],
            executors[name]["secretAsEnv"][0],
        )
        assert settings["configMapName"] == "streetvision-store"
        assert settings["mountPath"] == str(SETTINGS_FOLDER)
        assert secret["secretName"] == "mlpipeline-minio-artifact"
        assert {entry["secretKey"] for entry in secret["keyToEnv"]} == {"accesskey", "secretkey"}

        variables = {entry["envVar"] for entry in secret["keyToEnv"]}
        assert set(
            StoreSettings(endpoint="e", access_key="a", secret_key="s").to_environment()
        ) == variables | set(STORE_VARIABLES)
        assert settings["optional"] is True
        assert secret["optional"] is True


def test_another_secret_is_named_when_the_pipeline_is_compiled(compiled: Compile) -> None:
    one = load_profile("a6000x2", store_secret="team-s3")
    executors = _executors(compiled(profile=one)[1])
    assert executors["ingest-dataset"]["secretAsEnv"][0]["secretName"] == "team-s3"


def test_each_step_is_given_the_secret_of_its_role_and_no_other(compiled: Compile) -> None:
    executors = _executors(compiled(profile=load_profile("a6000x2", own_store=True))[1])
    given = {
        name: [reference["secretName"] for reference in executor.get("secretAsEnv", [])]
        for name, executor in executors.items()
    }
    hub = load_profile("a6000x2").secrets.hub
    expected = {
        "configure": ["streetvision-data"],
        "ingest-dataset": ["streetvision-data"],
        "import-backbone": ["streetvision-data", hub],
        "evaluate": ["streetvision-data"],
        "split-dataset": ["streetvision-runs"],
        **{name: ["streetvision-checkpoints"] for name in RESUMED},
    }
    assert {name: names for name, names in given.items() if names} == expected


def test_steps_with_the_store_get_its_authority_as_a_file_where_there_is_one(
    compiled: Compile,
) -> None:
    for name, executor in _executors(compiled()[1]).items():
        mounts = executor.get("configMapAsVolume", [])
        if not mounts:
            assert "secretAsEnv" not in executor, name
            continue
        if name == "export-bundle":  # which needs the settings, and nothing of the store
            assert [entry["configMapName"] for entry in mounts] == [STORE_CONFIG]
            continue
        _, mount = mounts
        assert (mount["configMapName"], mount["mountPath"]) == (STORE_CA, CA_FOLDER)
        assert mount["optional"] is True


def test_the_key_that_signs_is_a_file_of_an_optional_secret_in_the_export_alone(
    compiled: Compile,
) -> None:
    executors = _executors(compiled()[1])
    holders = {name: e["secretAsVolume"] for name, e in executors.items() if "secretAsVolume" in e}
    assert holders.keys() == {"export-bundle"}
    (mount,) = holders["export-bundle"]
    assert (mount["secretName"], mount["mountPath"]) == ("streetvision-signing", SIGNING_FOLDER)
    assert mount["optional"] is True


@pytest.mark.parametrize("profile", [PROFILE, LOCAL], ids=lambda profile: profile.name)
def test_the_export_names_its_image_where_it_runs_in_one(
    compiled: Compile, profile: Profile
) -> None:
    (container,) = (
        executor["container"]
        for name, executor in compiled(profile=profile)[0]["deploymentSpec"]["executors"].items()
        if name == "exec-export-bundle"
    )
    variables = {entry["name"]: entry["value"] for entry in container.get("env", [])}
    named = None if profile == LOCAL else container["image"]
    assert variables.get(Variable.IMAGE) == named


def test_the_hub_token_reaches_the_import_alone(compiled: Compile) -> None:
    executors = _executors(compiled()[1])
    holders = {
        name: reference
        for name, executor in executors.items()
        for reference in executor.get("secretAsEnv", [])
        if reference["secretName"] == "streetvision-hub"
    }
    assert holders.keys() == {"import-backbone"}
    assert holders["import-backbone"]["keyToEnv"] == [
        {"envVar": "HF_TOKEN", "secretKey": "HF_TOKEN"}
    ]
    assert holders["import-backbone"]["optional"] is True


def test_training_waits_in_kueue_where_a_queue_is_named(compiled: Compile) -> None:
    executors = _executors(compiled(profile=load_profile("a6000x2", queue="team"))[1])
    queued = {
        n for n, e in executors.items() if "kueue.x-k8s.io/queue-name" in e["podMetadata"]["labels"]
    }
    assert queued == RESUMED | {"predict-logits"}


def test_every_step_runs_in_the_image_of_its_phase(compiled: Compile) -> None:
    named = set()
    for variant in (Variant("labelled"), MODES, Variant(audit_labels=True)):
        executors = compiled(variant)[0]["deploymentSpec"]["executors"].values()
        named |= {executor["container"]["image"] for executor in executors}
    of_other_pipelines = ("promote_bundle", "tune_head", "tune_training", *STANDALONE)
    assert named == {
        image.reference for image in pipeline_images() if image.phase not in of_other_pipelines
    }


def test_the_same_content_has_the_same_version_name_and_a_variant_another(tmp_path: Path) -> None:
    file = tmp_path / "stage1.yaml"
    first = write_package(file, PROFILE, Variant())
    assert write_package(file, PROFILE, Variant()) == first
    assert first.startswith("a6000x2-")
    other = write_package(file, PROFILE, Variant("labelled", ("full", "lora")))
    assert other.startswith("a6000x2-pretrain-labelled-full-lora-")
    assert len(other) <= 127


@pytest.mark.parametrize("name", ["x.txt", "x", "file/x.yaml", "folder.yaml", "a" * 300 + ".yaml"])
def test_a_package_that_cannot_be_written_is_refused_before_it_is_compiled(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"--output .* (must end in \.yaml|cannot be written)"):
        write_package(tmp_path / name, PROFILE, Variant())
