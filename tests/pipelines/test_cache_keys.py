"""The steps that run again on a cluster, by the cache keys of KFP's driver.

The simulator stands for a back end that was tried: there, a second run of nested pipelines came
from the cache as a whole, and a step ran again exactly where its `config` had changed.
"""

import copy
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl, kubernetes

from components.configure.config import ConfigureConfig
from components.configure.step import run as configure
from pipelines.parameters import Variant
from pipelines.resources import load_profile
from pipelines.stage1 import stage1
from tests.model_folder import write_model_folder
from tests.pipelines.backend.argo import go_json
from tests.pipelines.backend.cache_key import Simulator
from tests.pipelines.backend.specs import Compiled, RefusedError, compile_pipeline

# --- The simulator, on small pipelines.


@dsl.component(base_image="toy:1", install_kfp_package=False)
def settings(depth: int, rate: float = 0.5) -> dict:  # type: ignore[type-arg]
    """Say what the other steps are to do."""
    return {}


@dsl.component(base_image="toy:1", install_kfp_package=False)
def make(config: dict, made: dsl.Output[dsl.Artifact]) -> None:  # type: ignore[type-arg]
    """Make an artifact."""


@dsl.component(base_image="toy:1", install_kfp_package=False)
def use(config: dict, given: dsl.Input[dsl.Artifact], used: dsl.Output[dsl.Artifact]) -> None:  # type: ignore[type-arg]
    """Make an artifact of another."""


@dsl.component(base_image="toy:1", install_kfp_package=False)
def compare(first: dsl.Input[dsl.Artifact], second: dsl.Input[dsl.Artifact] = None) -> None:
    """Compare artifacts; the second is optional."""


@dsl.pipeline(name="inner")
def inner(config: dict, given: dsl.Input[dsl.Artifact]) -> dsl.Artifact:  # type: ignore[type-arg]
    first = use(config=config, given=given)
    return use(config=config, given=first.outputs["used"]).outputs["used"]


@dsl.pipeline(name="toy")
def toy(depth: int = 1) -> None:
    chosen = settings(depth=depth).set_caching_options(False)
    made = make(config={"rows": 2})
    nested = inner(config=chosen.output, given=made.outputs["made"])
    compare(first=nested.output)


def _depth(step: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"Output": {"depth": parameters["depth"], "rate": 1.0}} if step == "settings" else {}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_pipeline(toy, tmp_path_factory.mktemp("toy"))


ALL = {"settings", "make", "use", "use-2", "compare"}


def test_a_first_run_runs_all_and_a_second_one_what_is_not_cached(small: Compiled) -> None:
    simulator = Simulator()
    assert simulator.run(small, {}, _depth) == ALL
    assert simulator.run(small, {}, _depth) == {"settings"}


def test_a_change_of_a_configuration_reaches_the_nested_steps_and_what_follows(
    small: Compiled,
) -> None:
    simulator = Simulator()
    simulator.run(small, {}, _depth)
    assert simulator.run(small, {"depth": 2}, _depth) == ALL - {"make"}
    assert simulator.run(small, {"depth": 1}, _depth) == {"settings"}  # keys of earlier runs stay


def test_new_code_runs_again_with_all_that_follows_since_artifacts_are_new(small: Compiled) -> None:
    simulator = Simulator()
    simulator.run(small, {}, _depth)
    changed = _copied(small)
    changed.executors["exec-make"]["container"]["image"] = "toy:2"
    assert simulator.run(changed, {}, _depth) == ALL


def test_whole_numbers_are_the_same_whether_written_with_a_point_or_not(small: Compiled) -> None:
    """KFP hands parameters over as protobuf's numbers, which are doubles."""
    simulator = Simulator()
    simulator.run(small, {"depth": 2}, _depth)
    assert simulator.run(small, {"depth": 2.0}, _depth) == {"settings"}


def test_resources_retries_and_labels_are_in_no_key(small: Compiled, tmp_path: Path) -> None:
    @dsl.pipeline(name="toy")
    def larger(depth: int = 1) -> None:
        chosen = settings(depth=depth).set_caching_options(False)
        made = make(config={"rows": 2}).set_cpu_limit("8").set_memory_limit("64Gi").set_retry(3)
        kubernetes.add_node_selector(made, "gpu", "a6000")
        kubernetes.add_pod_label(made, "team", "roads")
        kubernetes.set_timeout(made, 60)
        nested = inner(config=chosen.output, given=made.outputs["made"])
        compare(first=nested.output)

    simulator = Simulator()
    simulator.run(small, {}, _depth)
    assert simulator.run(compile_pipeline(larger, tmp_path), {}, _depth) == {"settings"}


def test_another_pipeline_has_a_cache_of_its_own(small: Compiled) -> None:
    simulator = Simulator()
    simulator.run(small, {}, _depth)
    renamed = _copied(small)
    renamed.pipeline["pipelineInfo"]["name"] = "toy-2"
    assert simulator.run(renamed, {}, _depth) == ALL


def test_what_names_the_run_never_comes_from_the_cache(tmp_path: Path) -> None:
    @dsl.component(base_image="toy:1", install_kfp_package=False)
    def note(text: str) -> None:
        """Take a note."""

    @dsl.pipeline(name="per-run")
    def per_run() -> None:
        make(config={"rows": 1})
        note(text=dsl.PIPELINE_JOB_ID_PLACEHOLDER)

    compiled, simulator = compile_pipeline(per_run, tmp_path), Simulator()
    assert simulator.run(compiled, {}) == {"make", "note"}
    assert simulator.run(compiled, {}) == {"note"}


def test_a_nested_pipeline_gets_one_artifact_under_one_name_only(tmp_path: Path) -> None:
    @dsl.pipeline(name="two-names")
    def two_names(first: dsl.Input[dsl.Artifact], second: dsl.Input[dsl.Artifact]) -> None:
        compare(first=first, second=second)

    @dsl.pipeline(name="outer")
    def outer() -> None:
        made = make(config={}).outputs["made"]
        compare(first=made, second=made)  # in a step it is allowed
        two_names(first=made, second=made)

    with pytest.raises(RefusedError, match="two-names: first and second are one artifact"):
        Simulator().run(compile_pipeline(outer, tmp_path), {})


def _copied(compiled: Compiled) -> Compiled:
    return Compiled(copy.deepcopy(compiled.pipeline), copy.deepcopy(compiled.platform))


# --- The pipeline.

CompileStage1 = Callable[..., Compiled]

POLICIES = {"compare-calibrators", "fit-threshold", "calibrate-gate", "calibrate-scrc"}
DELIVERY = {"evaluate", "export-bundle"}
AFTER_TRAINING = {"predict-logits", "train-gate"} | POLICIES | DELIVERY
AFTER_FEATURES = {"train-baseline"} | AFTER_TRAINING
AFTER_SPLIT = {"extract-features"} | AFTER_FEATURES
# By phase: what runs again where its configuration or its code changes, besides `configure`, which
# always runs.
RUNS_AGAIN = {
    "ingest_dataset": {"ingest-dataset", "split-dataset"} | AFTER_SPLIT,
    "split_dataset": {"split-dataset"} | AFTER_SPLIT,
    "import_backbone": {"import-backbone"} | AFTER_SPLIT,
    "extract_features": AFTER_SPLIT,
    "train_baseline": AFTER_FEATURES,
    "predict_logits": (
        {"predict-logits", "compare-calibrators", "fit-threshold", "calibrate-scrc"} | DELIVERY
    ),
    "train_gate": {"train-gate", "calibrate-gate"} | DELIVERY,
    "compare_calibrators": {"compare-calibrators", "fit-threshold"} | DELIVERY,
    "fit_threshold": {"fit-threshold"} | DELIVERY,
    "calibrate_gate": {"calibrate-gate"} | DELIVERY,
    "calibrate_scrc": {"calibrate-scrc"} | DELIVERY,
    "evaluate": DELIVERY,
    "export_bundle": {"export-bundle"},
}
ONE_OPTION = {
    "ingest_dataset": {"ingest_dataset.near_duplicate_distance": 4},
    "split_dataset": {"split_dataset.salt": "2"},
    "extract_features": {"augmentation": "aggressive"},
    "train_baseline": {"train_baseline.dropout": 0.2},
    "predict_logits": {"predict_logits.robustness": False},
    "train_gate": {"train_gate.gate_coverage": 0.7},
    "compare_calibrators": {"compare_calibrators.n_bootstrap": 500},
    "fit_threshold": {"fit_threshold.max_fnr": 0.1},
    "calibrate_gate": {"calibrate_gate.delta": 0.05},
    "calibrate_scrc": {"calibrate_scrc.class_wise": True},
    "evaluate": {"evaluate.target_precision": 0.9},
    "export_bundle": {"export_bundle.model_name": "roads"},
}


def _configured(step: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the step `configure` really returns, as a launcher reads it."""
    if step != "configure":
        return {}
    return json.loads(go_json(configure(ConfigureConfig.from_mapping(parameters))._asdict()))


class Cluster:
    """A back end on which the pipeline has run once."""

    def __init__(self, compile_stage1: CompileStage1, folder: Path) -> None:
        (folder / "data").mkdir()
        (folder / "data/file").write_text("data")
        write_model_folder(folder / "backbone")
        self.form = {name: str(folder / name) for name in ("data", "backbone")}
        self.folder, self.simulator, self.compiled = folder, Simulator(), compile_stage1
        self.first = self.run(self.compiled())

    def run(self, compiled: Compiled, **changed: Any) -> set[str]:
        """Steps that run, without `configure`, which must be one of them."""
        ran = self.simulator.run(compiled, self.form | changed, _configured)
        assert "configure" in ran
        return ran - {"configure"}


@pytest.fixture(scope="module")
def compile_stage1(tmp_path_factory: pytest.TempPathFactory) -> CompileStage1:
    """Compiles the pipeline; each variant once, since that takes a second.

    Returns a copy, which a test may change.
    """
    folder = tmp_path_factory.mktemp("stage1")

    @functools.cache
    def compiled_once(profile: str, queue: str, store_secret: str, variant: Variant) -> Compiled:
        loaded = load_profile(profile, queue=queue, store_secret=store_secret)
        return compile_pipeline(stage1(loaded, variant), folder)

    def compiled(
        profile: str = "a6000x2",
        *,
        queue: str = "",
        store_secret: str = "",
        variant: Variant = Variant(),  # noqa: B008 - frozen
    ) -> Compiled:
        return _copied(compiled_once(profile, queue, store_secret, variant))

    return compiled


@pytest.fixture
def cluster(compile_stage1: CompileStage1, tmp_path: Path) -> Cluster:
    return Cluster(compile_stage1, tmp_path)


def test_nothing_changed_nothing_runs(cluster: Cluster) -> None:
    assert cluster.first == {"ingest-dataset", "split-dataset", "import-backbone"} | AFTER_SPLIT
    assert cluster.run(cluster.compiled()) == set()


@pytest.mark.parametrize(
    ("source", "phase"), [("data", "ingest_dataset"), ("backbone", "import_backbone")]
)
def test_new_bytes_behind_an_address_are_noticed(cluster: Cluster, source: str, phase: str) -> None:
    (cluster.folder / source / "another file").write_text("more")
    assert cluster.run(cluster.compiled()) == RUNS_AGAIN[phase]


@pytest.mark.parametrize("phase", ONE_OPTION)
def test_an_option_runs_its_phase_again_and_what_follows(cluster: Cluster, phase: str) -> None:
    assert cluster.run(cluster.compiled(), overrides=ONE_OPTION[phase]) == RUNS_AGAIN[phase]


def test_a_field_of_the_form_is_as_good_as_an_override(cluster: Cluster) -> None:
    assert cluster.run(cluster.compiled(), epochs="3") == RUNS_AGAIN["train_baseline"]
    assert cluster.run(cluster.compiled(), overrides={"epochs": 3}) == set()


def test_without_a_frozen_training_its_options_extract_nothing_again(cluster: Cluster) -> None:
    assert cluster.run(cluster.compiled(), mode="lora") == AFTER_SPLIT
    options = {"augmentation": "aggressive", "n_cached_augmentations": 2, "tile_grid": 2}
    assert cluster.run(cluster.compiled(), mode="lora", overrides=options) == AFTER_FEATURES


@pytest.mark.parametrize("phase", RUNS_AGAIN)
def test_code_of_a_phase_runs_it_again_and_what_follows(cluster: Cluster, phase: str) -> None:
    """Code is known by the image, whose tag is a digest of the phase's sources."""
    changed = cluster.compiled()
    containers = [executor["container"] for executor in changed.executors.values()]
    (container,) = [
        c for c in containers if c["image"].rpartition(":")[2].startswith(f"{phase}-src-")
    ]
    container["image"] += "0"
    assert cluster.run(changed) == RUNS_AGAIN[phase]


@pytest.mark.parametrize("name", ["a6000x1", "cpu"])
def test_other_resources_run_nothing_again(cluster: Cluster, name: str) -> None:
    assert cluster.run(cluster.compiled(name)) == set()


def test_a_queue_and_another_secret_run_nothing_again(cluster: Cluster) -> None:
    other = cluster.compiled(queue="team", store_secret="team-s3")
    assert cluster.run(other) == set()


@pytest.mark.parametrize("modes", [("full", "lora", "frozen"), ("frozen", "lora", "full")])
def test_one_more_mode_trains_that_one_and_compares_again(
    cluster: Cluster, modes: tuple[str, ...]
) -> None:
    two = cluster.compiled(variant=Variant(modes=("full", "lora")))
    assert cluster.run(two) == {"train-full", "train-lora", "compare-adaptations"} | AFTER_TRAINING
    # The features are those of the first run, whose mode was frozen.
    three = cluster.compiled(variant=Variant(modes=modes))
    assert cluster.run(three) == {"train-frozen", "compare-adaptations"} | AFTER_TRAINING
    assert cluster.run(two) == set()


def test_an_audit_of_labels_runs_beside_what_comes_from_the_cache(cluster: Cluster) -> None:
    audited = cluster.compiled(variant=Variant(audit_labels=True))
    assert cluster.run(audited) == {"audit-labels"}
    assert cluster.run(audited) == set()
    options = {"audit_labels.n_shown": 10}
    assert cluster.run(audited, overrides=options) == {"audit-labels"}


def test_corrections_run_everything_again_that_sees_the_data(cluster: Cluster) -> None:
    file = cluster.folder / "corrections.csv"
    file.write_text("id,label\n")
    options = {"relabel": str(file)}
    assert cluster.run(cluster.compiled(), overrides=options) == RUNS_AGAIN["ingest_dataset"]
    assert cluster.run(cluster.compiled(), overrides=options) == set()
    file.write_text("id,label\n0123456789abcdef,Roadwork\n")
    assert cluster.run(cluster.compiled(), overrides=options) == RUNS_AGAIN["ingest_dataset"]


def test_parts_of_ingest_come_from_the_cache_until_the_listing_changes(cluster: Cluster) -> None:
    """The key of every part has the fingerprint of the whole listing."""
    parts = {"ingest-part-1", "ingest-part-2"}
    two = cluster.compiled(variant=Variant(ingest_parts=2))
    assert cluster.run(two) == parts | RUNS_AGAIN["ingest_dataset"]
    assert cluster.run(two) == set()
    (cluster.folder / "data" / "another file").write_text("more")
    assert cluster.run(two) == parts | RUNS_AGAIN["ingest_dataset"]


def test_pre_training_starts_from_the_backbone_that_was_imported(cluster: Cluster) -> None:
    """The split runs once more, with the outputs that pre-training reads; what trains after it has
    another backbone anyway.
    """
    adapted = cluster.compiled(variant=Variant(pretrain="unlabelled"))
    assert cluster.run(adapted) == {"split-dataset", "pretrain-explora"} | AFTER_SPLIT
    changed = {"overrides": {"explora_rank": 16}}
    assert cluster.run(adapted, **changed) == {"pretrain-explora"} | AFTER_SPLIT
    assert cluster.run(cluster.compiled()) == set()
    labelled = cluster.compiled(variant=Variant(pretrain="labelled"))
    assert cluster.run(labelled) == {"pretrain-explora"} | AFTER_SPLIT
