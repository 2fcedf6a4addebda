"""The tree of tests mirrors the code, and every module states what it holds.

`a/b.py` is tested by `tests/a/test_b.py`. Packages' `__init__.py`, declarations (`component.py`,
`config.py`) and modules without a function need no test. `COVERED` has the modules that a test file
of another name covers; it shrinks as they get their own.
"""

import ast
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.sources import ROOT

# Test file below tests/ -> the modules of its folder that it covers.
COVERED: dict[str, str] = {
    "components/audit_labels/test_step.py": "audited outputs gallery",
    "components/compare_adaptations/test_step.py": "candidates",
    "components/configure/test_resolve.py": "phases",
    "components/detect_drift/test_explanations.py": "comparison",
    "components/detect_drift/test_step.py": "new_images page",
    "components/shared/serving/formats/test_onnx_predictor.py": "onnx_format ../answer ../forms",
    "components/calibrate_gate/test_step.py": "../shared/policies/fitting/gate",
    "components/calibrate_scrc/test_step.py": "../shared/policies/fitting/scrc",
    "components/fit_threshold/test_step.py": "sweep_outputs ../shared/policies/fitting/binary",
    "components/import_backbone/test_step.py": "backbone_sources",
    "components/ingest_dataset/test_chunks.py": "../shared/data/finished_parts",
    "components/ingest_dataset/test_step.py": "check grouping label_report ../shared/data/parallel",
    "components/ingest_dataset/sources/test_sources.py": (
        "csv_source open parquet_source ../../shared/data/files"
    ),
    "components/ingest_dataset/sources/test_labels.py": "records",
    "components/predict_logits/test_step.py": "predict ../shared/vision/reference_image",
    "components/promote_bundle/test_step.py": "author",
    "components/split_dataset/test_step.py": "needs record",
    "components/score_images/test_step.py": "scoring table",
    "components/select_for_labelling/test_step.py": (
        "../shared/serving/chosen_bundle ../shared/serving/new_images"
    ),
    "components/pretrain_explora/test_step.py": ("collapse_monitor student train verify"),
    "components/shared/calibration/test_calibrators.py": (
        "binning calibrator dirichlet linear newton registry"
    ),
    "components/shared/data/test_lineage.py": "records",
    "components/shared/data/test_train_images.py": "train_labels",
    "components/shared/models/test_adapters.py": "experimental/doran",
    "components/shared/policies/test_policy_artifact.py": "targets",
    "components/shared/serving/server/test_deployment.py": "limits refusals",
    "components/shared/serving/test_predict.py": "arguments",
    "components/shared/storage/test_faults.py": "retry",
    "components/shared/storage/registry/test_bundle_registry.py": "documents folder",
    "components/shared/training/checkpoint/test_remote.py": "files uploads writer",
    "components/shared/training/launch/test_torchrun.py": "agent",
    "components/shared/training/loop/test_teacher.py": "state task",
    "components/test_multi_view.py": "shared/models/gate",
    "components/train_baseline/test_step.py": (
        "distilled_head ../shared/contracts/progress"
        " ../shared/training/loop/record ../shared/training/session/outputs"
    ),
    "components/train_gate/test_step.py": "train",
    "components/tune_head/test_step.py": (
        "search ../shared/training/search/result ../shared/training/classifier/views"
    ),
    "components/tune_training/test_step.py": "search",
    "components/shared/training/search/test_trials.py": "study",
    "components/compare_calibrators/test_step.py": "../shared/calibration/artifact",
    "pipelines/cli/test_app.py": "options",
    "pipelines/cli/test_registry.py": "registry_options registry_text",
    "pipelines/cli/test_runs.py": "output",
    "pipelines/demo/test_dataset.py": "folder",
    "pipelines/demo/test_scenes.py": "canvas objects roadwork",
    "pipelines/doctor/test_doctor.py": (
        "argo capacity findings images kfp_checks namespace object_store run scheduling target"
        " training_nodes ../cli/cluster"
    ),
    "pipelines/kubeflow/test_cluster.py": (
        "run_report run_text ../upload_data/demo ../cli/packages ../cli/schedules ../cli/submission"
    ),
    "pipelines/kubeflow/test_run_store.py": "reader",
    "pipelines/kubeflow/test_serving.py": "../cli/serving",
    "pipelines/local/test_embedded_store.py": "server_process store_certificate",
    "pipelines/local/test_run.py": "plan",
    "pipelines/preflight/test_preflight.py": "findings namespace places target",
    "pipelines/smoke/test_backend.py": "cleanup runner waiting",
    "pipelines/test_phase_pages.py": "documents",
    "pipelines/test_catalog.py": "names kubeflow/options",
    "pipelines/test_one_task.py": "drift labelling score",
    "pipelines/test_stage1.py": "package",
    "pipelines/upload_data/test_upload_data.py": "digests location selection transfer",
}
# Tests of what several modules do together.
TOGETHER = (
    "components/calibrate_scrc/test_multiclass.py",
    "components/export_bundle/test_policy_bundles.py",
    "components/shared/serving/formats/test_hostile_graphs.py",
    "components/shared/serving/server/test_end.py",
    "components/shared/serving/server/test_transcript.py",
    "components/shared/storage/test_lying_store.py",
    "components/shared/training/launch/test_machines.py",
    "components/shared/training/session/test_resume.py",
    "components/test_phases.py",
    "components/test_step_errors.py",
    "pipelines/test_backend_rules.py",
    "pipelines/test_cache_keys.py",
    "pipelines/test_kfp_server.py",
    "pipelines/local/test_continuous.py",
    "pipelines/local/test_signals.py",
    "pipelines/test_workflow_size.py",
)
_EXEMPT = ("__init__.py", "__main__.py", "component.py", "config.py")
_TOPS = ("components", "pipelines")


def _files(*tops: str) -> list[Path]:
    return sorted(file for top in tops for file in (ROOT / top).rglob("*.py"))


def _holds_code(file: Path) -> bool:
    """Whether a module has a function, or a class with a method."""
    return any(
        isinstance(node, ast.FunctionDef)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    )


def _modules() -> list[str]:
    """Modules that need a test, as paths below the root without their suffix."""
    return [
        file.relative_to(ROOT).with_suffix("").as_posix()
        for file in _files(*_TOPS)
        if file.name not in _EXEMPT and _holds_code(file)
    ]


def _has_own_test(module: str) -> bool:
    path = Path("tests", module)
    return (ROOT / path.with_name(f"test_{path.name}.py")).is_file()


def _covered() -> dict[str, str]:
    """Module -> the test file that covers it, both as paths."""
    return {
        os.path.normpath(Path(test).parent / name): test
        for test, names in COVERED.items()
        for name in names.split()
    }


def test_every_module_has_a_test_file() -> None:
    covered = _covered()
    missing = [name for name in _modules() if not _has_own_test(name) and name not in covered]
    assert not missing, f"write {[f'tests/{name}' for name in missing]}, or add them to COVERED"


def test_the_table_has_no_module_that_has_its_own_test_or_is_gone() -> None:
    modules = set(_modules())
    stale = [name for name in _covered() if name not in modules or _has_own_test(name)]
    assert not stale, f"remove from COVERED: {stale}"


@functools.cache
def _mentioned(file: Path) -> frozenset[str]:
    """Dotted names that a file imports or has as a string, as torchrun's modules are named."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return frozenset(name for name in names if name.startswith((*_TOPS, "tests")))


def _file_of(name: str) -> Iterator[Path]:
    base = ROOT.joinpath(*name.split("."))
    yield from (file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file())


def _reached(test: Path) -> set[Path]:
    """Files that a test imports, directly or not."""
    found: set[Path] = set()
    waiting = [test]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += [path for name in _mentioned(file) for path in _file_of(name)]
    return found


@pytest.mark.parametrize("test", sorted(COVERED))
def test_a_covering_test_reaches_its_modules(test: str) -> None:
    reached = _reached(ROOT / "tests" / test)
    unreached = [
        module
        for module, by in _covered().items()
        if by == test and ROOT / f"{module}.py" not in reached
    ]
    assert not unreached, f"{test} imports none of {unreached}"


def test_every_test_file_tests_a_module_or_is_listed() -> None:
    """A test file below a mirrored folder is named after a module or package, or covers some."""
    strays = []
    for file in _files(*(f"tests/{top}" for top in _TOPS)):
        test = file.relative_to(ROOT / "tests")
        listed = test.as_posix() in COVERED or test.as_posix() in TOGETHER
        if listed or not file.name.startswith("test_"):
            continue
        module = ROOT / test.with_name(file.name.removeprefix("test_"))
        if not (module.is_file() or module.with_suffix("").is_dir()):
            strays.append(test.as_posix())
    assert not strays, f"neither named after a module nor listed: {strays}"


@pytest.mark.parametrize("top", ["components", "pipelines", "tests"])
def test_no_module_opens_with_a_question(top: str) -> None:
    asking = []
    for file in _files(top):
        first = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")
        if first[0].rstrip().endswith("?"):
            asking.append(file.relative_to(ROOT).as_posix())
    assert not asking, f"state what these modules hold: {asking}"
