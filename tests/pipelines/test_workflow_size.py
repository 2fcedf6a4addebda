"""Size of the Workflow object, by a model checked against KFP's compiler and real runs.

Checked by hand, once: KFP 2.17.0's compiler test expects 146 Workflows
(test_data/compiled-workflows). 85 of their pipelines have no conditions, loops, exit tasks,
importers, volume tasks or settings of the API server; the model makes 84 of these Workflows
exactly, and the last one with two names in another order, which Go leaves to chance.

The pipeline of before (15 steps, loops, conditions and an exit handler, 110 parameters) was
measured on a real back end; with loops, conditions and exit handler added to the model, its
deviation from the measured figures is:

| | measured | model |
|---|---|---|
| spec | 313 kB | 309 kB (-1 %) |
| of it arguments | 194 kB | 194 kB |
| of it templates | 118 kB | 115 kB (-3 %) |
| node status, one mode | more than 1 MB | 1.51 MB |
| the same, compressed by Argo | 235 kB | 213 kB (-9 %) |
| node status of four modes, compressed | 296 kB | 313 kB (+6 %) |
"""

import json
import re
from pathlib import Path

import pytest
import yaml

from components.configure.config import ConfigureConfig
from components.configure.resolve import resolve
from components.configure.step import handed_over
from pipelines.catalog import pipeline_of
from pipelines.parameters import Variant
from pipelines.resources import load_profile
from tests.pipelines.backend.argo import ApiServer, go_json, workflow
from tests.pipelines.backend.specs import Compiled, Json, compile_pipeline
from tests.pipelines.backend.workflow_size import WorkflowSize, workflow_size

KFP_WORKFLOWS = Path(__file__).with_name("backend") / "kfp_workflows"
# Measured on a real back end, for the pipeline of before.
SPEC_BEFORE = 313_000
# Argo stores no larger object, and compresses a status that would make it so
# (workflow/packer/packer.go:18).
MAX_WORKFLOW_SIZE = 1024 * 1024
# What the default graph leaves free: two steps of four artifacts each.
FREE = 60_000
FOUR_MODES = ("full", "frozen", "lora", "dora")
FORM = {"data": "s3://bucket/street-scenes", "backbone": "s3://bucket/dinov2-small"}


@pytest.mark.parametrize(
    "name", ["create_pod_metadata_complex", "pipeline_in_pipeline", "pipeline_with_retry"]
)
def test_the_model_makes_the_workflows_that_kfps_own_compiler_test_expects(name: str) -> None:
    compiled = Compiled.read(KFP_WORKFLOWS / f"{name}.spec.yaml")
    expected = yaml.safe_load((KFP_WORKFLOWS / f"{name}.workflow.yaml").read_text())
    assert _numbered(workflow(compiled, server=ApiServer())) == _numbered(expected)


def _numbered(made: Json) -> Json:
    """Containers are named by a digest of Go's memory layout.

    Here by the order in which they appear.
    """
    seen: dict[str, str] = {}
    text = go_json(made)
    return json.loads(
        re.sub(r"\b[0-9a-f]{64}\b", lambda found: seen.setdefault(found[0], f"<{len(seen)}>"), text)
    )


@pytest.fixture(scope="module")
def one_mode(tmp_path_factory: pytest.TempPathFactory) -> WorkflowSize:
    return _size(Variant(), tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def four_modes(tmp_path_factory: pytest.TempPathFactory) -> WorkflowSize:
    return _size(Variant(pretrain="labelled", modes=FOUR_MODES), tmp_path_factory.mktemp("four"))


def _size(variant: Variant, folder: Path) -> WorkflowSize:
    compiled = compile_pipeline(pipeline_of(load_profile("a6000x2"), variant), folder)

    def outputs_of(step: str, parameters: Json) -> Json:
        if step != "configure":
            return {}
        configs = resolve(ConfigureConfig.from_mapping(parameters))
        given = handed_over({phase: config.to_json() for phase, config in configs.items()})
        return json.loads(go_json(given._asdict()))

    return workflow_size(compiled, FORM, outputs_of)


def test_the_spec_is_less_than_half_of_what_was_measured(
    one_mode: WorkflowSize, four_modes: WorkflowSize
) -> None:
    assert one_mode.spec < four_modes.spec < SPEC_BEFORE / 2


def test_one_mode_is_stored_uncompressed_so_that_kubectl_shows_its_nodes(
    one_mode: WorkflowSize,
) -> None:
    assert one_mode.total < MAX_WORKFLOW_SIZE - FREE


def test_the_recurring_pipeline_is_stored_in_a_fifth_of_the_limit(tmp_path: Path) -> None:
    """Compressed: uncompressed it is as large as the limit, by one step of six artifacts."""
    size = _size(Variant(pipeline="continuous"), tmp_path)
    assert size.spec + size.compressed < MAX_WORKFLOW_SIZE / 5


def test_all_tasks_of_the_largest_variant_are_stored_in_a_third_of_the_limit(
    four_modes: WorkflowSize,
) -> None:
    assert four_modes.spec + four_modes.compressed < MAX_WORKFLOW_SIZE / 3


def test_eight_parts_of_ingest_beside_all_these_are_stored_in_half_of_the_limit(
    tmp_path: Path,
) -> None:
    largest = _size(Variant("labelled", FOUR_MODES, ingest_parts=8), tmp_path)
    assert largest.spec + largest.compressed < MAX_WORKFLOW_SIZE / 2


def test_status_has_six_nodes_for_every_step_and_four_for_every_group(
    one_mode: WorkflowSize,
) -> None:
    """Each twice, for the retry node: of a step driver, group and pod; of a group driver and group.

    Counted in the recorded runs too.
    """
    n_steps, n_groups, n_of_the_run = 14, 2, 6
    assert one_mode.n_nodes == 6 * n_steps + 4 * n_groups + n_of_the_run
