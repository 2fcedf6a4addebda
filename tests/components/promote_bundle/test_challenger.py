"""Reading of a challenger: artifacts of one run, of a lineage, of VAL_TEST."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from components.promote_bundle.challenger import Challenger, guarantees_of, read_challenger
from components.shared.contracts.artifacts import read_manifest, write_json, writing
from components.shared.contracts.config import Config
from components.shared.contracts.errors import ArtifactError, ConfigError, StreetVisionError
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.policy import softmax_policy
from tests.bundles import write_evaluation
from tests.promotion import CLASS_NAMES, FRACTIONS, Run

GUARANTEE = {
    "unit": "a random image of a random group",
    "alpha": 0.1,
    "max_group_images": None,
    "observed_risk": {"value": 0.05, "interval_95": [0.01, 0.2], "calibrated_95": None},
    "observed_risk_per_image": {"value": None, "interval_95": None},
}


def _read(paths: dict[str, Path]) -> Challenger:
    named = dict(paths)
    bundle, dataset, splits = (named.pop(name) for name in ("bundle", "dataset", "splits"))
    return read_challenger(bundle, dataset, splits, **named)


def test_a_run_is_a_challenger(best: Run) -> None:
    found = best.challenger()
    assert found.digest == best.digest
    assert (found.name, found.version) == ("streetvision-roadwork", "0.1.0")
    assert (found.lineage.name, found.lineage.fractions) == ("roads", FRACTIONS)
    assert found.predictions is not None
    assert found.predictions.groups == found.images.groups
    truth = found.images.truth(found.bundle.policy.outcomes)
    assert truth.tolist() == found.predictions.truth.tolist()
    assert set(found.manifests) == {"bundle", "dataset", "splits", "val_test_logits", "evaluation"}
    columns = found.images.columns()
    assert {"source", "light"} <= set(columns)
    assert len(columns["light"]) == 120


def _other_splits(paths: dict[str, Path], folder: Path) -> None:
    """Splits that a run wrote without a lineage."""
    shutil.copytree(paths["splits"], folder / "splits", ignore=_manifest)
    write_json(folder / "splits/split.json", {"lineage": "", "salt": "s", "fractions": FRACTIONS})
    inputs = {"dataset": read_manifest(paths["dataset"])}
    with writing(
        folder / "new", kind="Splits", step="split_dataset", config=Config(), inputs=inputs
    ) as out:
        shutil.copytree(folder / "splits", out, dirs_exist_ok=True)
    paths["splits"] = folder / "new"


def _manifest(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "manifest.json"]


def _other_policy(paths: dict[str, Path], folder: Path) -> None:
    policy = softmax_policy(Outcomes.of(CLASS_NAMES, "binary", "Roadwork"), 0.5)
    write_evaluation(folder / "evaluation", policy)
    paths["evaluation"] = folder / "evaluation"


def _other_evaluation(paths: dict[str, Path], folder: Path) -> None:
    policy = softmax_policy(Outcomes.of(CLASS_NAMES, "binary", "Roadwork"), 0.0)
    write_evaluation(folder / "evaluation", policy, [GUARANTEE])
    paths["evaluation"] = folder / "evaluation"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (_other_splits, ConfigError, "the splits are of no lineage"),
        (_other_policy, ArtifactError, "evaluation was made with another policy"),
        (_other_evaluation, ArtifactError, "bundle was made from another evaluation"),
    ],
)
def test_artifacts_of_different_runs_are_refused(
    best: Run,
    tmp_path: Path,
    change: Callable[[dict[str, Path], Path], None],
    error: type[StreetVisionError],
    message: str,
) -> None:
    paths = dict(best.paths)
    change(paths, tmp_path)
    with pytest.raises(error, match=message):
        _read(paths)


def test_guarantees_are_read_from_the_evaluation() -> None:
    report = {"policies": {"scrc": {"guarantees": [GUARANTEE]}}}
    found = guarantees_of(report, "scrc")
    assert found[0].observed.value == 0.05
    assert found[0].observed.interval_95 == (0.01, 0.2)
    assert guarantees_of(report, "softmax") == []
    broken = {"policies": {"scrc": {"guarantees": [GUARANTEE | {"alpha": "x"}]}}}
    with pytest.raises(ArtifactError, match="guarantees of the evaluation"):
        guarantees_of(broken, "scrc")
