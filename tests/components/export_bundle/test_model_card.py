"""Model cards: every branch reads well, and the Hub finds the metrics."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from components.export_bundle.config import ExportConfig
from components.export_bundle.model_card import bundle_forms, model_card, natix_card
from components.shared.contracts.artifacts import Manifest
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.logit_affine import LogitAffine, logit_affine_of
from components.shared.policies.policy import Policy, ScrcPolicy, softmax_policy
from tests.bundles import make_inputs

NAMES = ("None", "Roadwork")
SOFTMAX = softmax_policy(Outcomes.of(NAMES, "binary", "Roadwork"), 0.5)
SCRC = ScrcPolicy(
    kind="scrc",
    outcomes=Outcomes.of(NAMES),
    threshold=0.5,
    threshold_margin=0.0,
    risk="fnr",
    alpha=0.05,
    delta=0.1,
    coverage_lower_bound=0.3,
    answer_from=(1.0, 1.0),
)
METRICS = {
    "accuracy": {"value": 0.8125, "interval_95": [0.75, 0.875]},
    "coverage_at_precision": {"value": None, "interval_95": None},
    "mcc": {"value": 0.62571, "interval_95": None},
    "auroc": {"value": 0.9, "interval_95": [0.8, 1.0]},
}
DATASET = Manifest(
    kind="ImageDataset",
    step="ingest_dataset",
    code_version="0123456789abcdef",
    config={},
    config_digest="",
    inputs={},
    files={},
    summary={
        "n_samples": 20,
        "n_per_class": {"None": 8, "Roadwork": 12},
        "n_groups": 6,
        "n_rejected": 3,
        "n_exact_duplicates": 1,
    },
)
PREPROCESSING: dict[str, Any] = {"image_size": 224, "backbone_type": "dinov2"}
VIEWS = {
    "tiles": [[0, 0, 140], [84, 0, 140], [0, 84, 140], [84, 84, 140]],
    "views": {"flips": True, "size": 112, "aggregation": "noisy_or"},
}


def _card(policy: Policy = SOFTMAX, **changed: Any) -> str:
    report = {
        "split": "VAL_TEST",
        "n_samples": 16,
        "n_per_outcome": dict.fromkeys(policy.outcomes.names, 8),
        "n_groups": 4,
        "policy": policy.to_json(),
        "metrics": METRICS,
        "student": METRICS,
        "policies": {policy.kind: {"guarantees": changed.pop("guarantees", [])}},
        "classes": changed.pop("classes", {}),
    }
    arguments: dict[str, Any] = {
        "affine": logit_affine_of(policy),
        "stock_reason": "",
        "distilled": False,
        "preprocessing": PREPROCESSING,
        "forms": [],
        "refused_formats": {},
    }
    config = ExportConfig(
        model_name="cones",
        model_version="1.2.3",
        reference_machine=changed.pop("reference_machine", None),
    ).named(policy.outcomes)
    return model_card(config, policy, report, DATASET, **(arguments | changed))


def _one_line(card: str) -> str:
    return re.sub(r"\s+", " ", card)


def test_the_hub_reads_the_metrics_as_a_model_index() -> None:
    data = ModelCard(_card()).data
    assert (data.pipeline_tag, data.library_name) == ("image-classification", "transformers")
    assert data.tags == ["roadwork", "street-scenes"]
    assert data.model_name == "cones"
    found = {result.metric_type: result for result in data.eval_results or []}
    assert {name: result.metric_value for name, result in found.items()} == {
        "accuracy": 0.8125,
        "matthews_correlation": 0.6257,
        "roc_auc": 0.9,
    }
    assert {result.dataset_split for result in found.values()} == {"VAL_TEST"}
    assert {result.dataset_revision for result in found.values()} == {DATASET.content_digest}


def test_a_person_reads_data_metrics_and_decision() -> None:
    card = _card()
    assert card.startswith("---\n")
    assert card.endswith("Not for safety decisions.\n")
    assert "# cones 1.2.3" in card
    assert "20 images (8 None, 12 Roadwork) in 6 groups" in card
    assert "| accuracy | 0.8125 | 0.7500 to 0.8750 |" in card
    assert "| coverage_at_precision | none | none |" in card
    assert "`Roadwork` if its probability exceeds 0.622459" in card
    assert "defers" not in card
    assert 'pipeline("image-classification", model="model")' in card
    assert "{{" not in card
    assert "{%" not in card
    assert "\n\n\n" not in card


def test_a_policy_that_defers_states_its_guarantee() -> None:
    text = _one_line(_card(SCRC))
    assert "The policy `scrc` defers images to stage 2." in text
    assert "With probability at least 0.9 the false negative rate among answered images" in text
    assert "is at most 0.05" in text
    assert "at least 0.300 of the images are answered" in text
    assert "error rate among" in _one_line(_card(dataclasses.replace(SCRC, risk="error")))


def test_the_weights_are_said_to_contain_what_they_contain() -> None:
    assert "The weights in `model/` contain this threshold" in _one_line(_card())
    identity = np.ones(2), np.zeros(2)
    partly = LogitAffine(*identity, decides=True, reason="only the decision is in the weights")
    assert "(only the decision is in the weights)." in _one_line(_card(affine=partly))
    nothing = LogitAffine(*identity, decides=False, reason="the calibrator does not rise")
    text = _one_line(_card(affine=nothing, stock_reason=nothing.reason))
    assert "The weights in `model/` are as trained: the calibrator does not rise." in text
    assert "contain this threshold" not in text


def test_a_model_outside_the_stock_pipeline_says_why() -> None:
    card = _card(stock_reason="transformers has no class for 'vit'")
    assert "cannot load the model: transformers has no class for 'vit'." in card
    assert "pipeline(" not in card
    data = ModelCard(card).data
    assert data.library_name is None
    assert data.to_dict()["inference"] is False


def test_a_multi_view_model_tells_its_views_and_its_distilled_head() -> None:
    card = _card(preprocessing=PREPROCESSING | VIEWS, stock_reason="several views", distilled=True)
    text = _one_line(card)
    assert "the full image and 4 tiles of it, all of them also mirrored" in text
    assert "each as 112 x 112 pixels, and aggregates their margins (noisy_or)" in text
    assert "the policy decides on all views together" in text
    assert "few pixels even of a tile (a square of 140 of 224 pixels)" in text
    assert "a head distilled from all views on TRAIN" in text
    assert "\n\n\n" not in card


def test_every_form_in_the_bundle_has_its_size_and_scores(tmp_path: Path) -> None:
    for folder, n_bytes in (("model", 2_000_000), ("onnx", 1_040_000), ("onnx_int8", 300_000)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "weights").write_bytes(bytes(n_bytes))
    entry = {"float": 0.8125, "int8": 0.75, "difference": -0.0625, "difference_95": (-0.125, 0.0)}
    auroc = entry | {"difference": None, "difference_95": None}
    int8 = {"metrics": {"accuracy": entry, "mcc": entry | {"difference_95": None}, "auroc": auroc}}
    report = {"metrics": METRICS, "student": METRICS}
    card = _card(forms=bundle_forms(tmp_path, report, int8))
    assert "| `model/` | 2.0 | 0.8125 | 0.6257 | 0.9000 |\n" in card
    assert "| `onnx/` | 1.0 | 0.8125 | 0.6257 | 0.9000 |\n" in card
    scores = "0.7500 (-0.0625: -0.1250 to +0.0000) | 0.7500 (-0.0625: no interval) | 0.7500"
    assert f"| `onnx_int8/` | 0.3 | {scores} |\n" in card
    assert "`student/`" not in card
    assert "a policy that was fitted on its own VAL_CALIB logits" in _one_line(card)


def test_times_are_those_of_the_named_machine(tmp_path: Path) -> None:
    for folder in ("model", "student", "onnx"):
        (tmp_path / folder).mkdir()
    report = {"metrics": METRICS, "student": METRICS}
    forms = bundle_forms(tmp_path, report, {}, {"model": 17.25, "onnx": 12.0})
    assert " ms |" not in _card(forms=forms)

    card = _card(forms=forms, reference_machine="a roadside box", n_near=2)
    assert "| form | MB | ms | accuracy | MCC | AUROC |\n|---|---|---|---|---|---|\n" in card
    assert "| `model/` | 0.0 | 17.2 | 0.8125 |" in card
    assert "| `student/` | 0.0 | - | 0.8125 |" in card
    assert "ms: median time of one image on a roadside box (" in card
    assert "as `model/`, but for 2 within 0.001 of a threshold.\n" in card


def test_a_refused_format_is_named_with_its_reason() -> None:
    card = _card(refused_formats={"onnx_int8": "too few groups"})
    assert "`onnx_int8` was asked for and is not in the bundle: too few groups.\n" in card
    assert "\n\n\n" not in card


def test_the_same_inputs_give_the_same_bytes() -> None:
    assert _card(SCRC) == _card(SCRC)


def test_odd_names_stay_text_and_valid_metadata() -> None:
    policy = softmax_policy(
        Outcomes.of(("None", "a: {{ b }} | c"), "binary", "a: {{ b }} | c"), 0.0
    )
    card = _card(policy)
    assert "`a: {{ b }} | c` if its probability" in card
    assert ModelCard(card).data.model_name == "cones"


@pytest.mark.parametrize("policy", [SOFTMAX, SCRC], ids=lambda policy: policy.kind)
def test_both_cards_are_in_the_bundle(policy: Policy, tmp_path: Path) -> None:
    hotkey = "5F" + "a" * 46
    fields: dict[str, Any] = {
        "policy": policy.kind,
        "model_name": "cones",
        "model_version": "1.2.3",
        "submitted_by": hotkey,
        "submission_time": 1_700_000_000,
    }
    path = make_inputs(tmp_path, policy=policy).export(tmp_path / "bundle", **fields)
    stored = json.loads((path / "model_card.json").read_text())
    assert stored == natix_card(ExportConfig(**fields).named(policy.outcomes))
    assert stored == {
        "model_name": "cones",
        "description": "Roadwork classifier, stage 1 of a cascade.",
        "version": "1.2.3",
        "submitted_by": hotkey,
        "submission_time": 1_700_000_000,
    }
    card = (path / "README.md").read_text()
    assert "20 images (10 None, 10 Roadwork)" in card
    assert "## Intended use and limits" in card


def test_the_default_names_are_those_of_the_classes() -> None:
    def named(*names: str) -> tuple[str | None, str | None]:
        found = ExportConfig().named(Outcomes.of(names))
        return found.model_name, found.description

    assert named("None", "Roadwork") == (
        "streetvision-roadwork",
        "Roadwork classifier, stage 1 of a cascade.",
    )
    assert named("plain", "Deep pothole!") == (
        "streetvision-deep-pothole",
        "Deep pothole! classifier, stage 1 of a cascade.",
    )
    assert named("a", "b", "c") == (
        "streetvision-3-classes",
        "Classifier of 3 classes, stage 1 of a cascade.",
    )
    assert named("вода", "яма")[0] == "streetvision-2-classes"
    given = ExportConfig(model_name="mine", description="My own.").named(Outcomes.of(("a", "b")))
    assert (given.model_name, given.description) == ("mine", "My own.")


def test_own_classes_are_called_by_their_names() -> None:
    card = _card(softmax_policy(Outcomes.of(("Plain", 'Pot"hole')), 0.5))
    text = _one_line(card)
    assert '`Pot"hole` if its probability exceeds 0.622459, else `Plain`; the threshold' in text
    assert '["Pot\\"hole"] > 0.5' in card
    assert 'Deciding whether a photograph shows `Pot"hole` (else `Plain`)' in text
    assert "roadwork" not in card.replace("8 None, 12 Roadwork", "").lower()
    assert ModelCard(card).data.tags == ["pot-hole", "street-scenes"]


def test_one_class_against_several_is_said_to_be_that() -> None:
    outcomes = Outcomes.of(("crack", "Pothole", "plain"), "binary", "Pothole")
    text = _one_line(_card(softmax_policy(outcomes, 0.0)))
    assert "`Pothole` is one class, all 2 others are the rest: these are not metrics of 3" in text
    assert "else `not Pothole`: any of `crack` and `plain`; the threshold was fitted" in text
    assert 'model="model", top_k=None)' in text
    assert "the label with the largest score is not the decision" in text


def _entry(value: float) -> dict[str, Any]:
    return {"value": value, "interval_95": None}


def test_several_classes_have_a_table_and_the_limit_of_answering() -> None:
    names = ("stop", "a | b", "bus")
    row = {"metrics": {name: _entry(0.5) for name in ("precision", "recall", "f1")}}
    classes = {name: row | {"n_images": 7} for name in names}
    policy = softmax_policy(Outcomes.of(names), 0.5)
    card = _card(policy, classes=classes)
    text = _one_line(card)
    assert "The most probable of 3 classes, where its probability reaches 0.622459, else" in text
    assert "without a guarantee" in text
    assert "| a \\| b | 7 | 0.5000 | 0.5000 | 0.5000 |" in card
    assert "their largest probability is that of the policy's decision. They never defer" in text
    assert 'classify("photo.jpg")[0]["label"]' in card
    assert "Naming which of `stop`, `a | b` and `bus` a photograph shows" in text
    assert "also for a photograph that shows none of them" in text
    assert "\n\n\n" not in card
    assert ModelCard(card).data.tags == ["street-scenes"]
    many = _card(softmax_policy(Outcomes.of([f"sign {k}" for k in range(43)]), 0.0))
    assert "Naming which of 43 classes a photograph shows" in _one_line(many)


def test_a_guarantee_per_group_stands_beside_the_risk_per_image() -> None:
    observed = {"observed_risk": _entry(0.01), "observed_risk_per_image": _entry(0.07)}
    rows = [{"answer": name, "alpha": 0.05} | observed for name in (None, "Roadwork")]
    card = _card(SCRC, guarantees=rows)
    text = _one_line(card)
    assert "Both hold for a random image of a random group" in text
    assert "where large groups are harder than small ones, the false negative rate per" in text
    assert "| answered as | false negative rate certified | observed, per group |" in card
    assert "| anything | at most 0.05 | 0.0100 (none) | 0.0700 (none) |" in card
    assert "| Roadwork | at most 0.05 |" in card
    assert "\n\n\n" not in card
    assert "asked for" not in text

    again = _card(SCRC, guarantees=[row | {"attempt": 3} for row in rows])
    assert "This guarantee was asked for 3 times on the same data" in _one_line(again)
    assert "\n\n\n" not in again


def test_errors_of_calibration_have_their_noise_and_no_interval() -> None:
    noisy = METRICS | {"ece": {"value": 0.05, "interval_95": None, "calibrated_95": [0, 0.03]}}
    policy, report = SOFTMAX, {"split": "VAL_TEST", "n_samples": 16, "n_groups": 4}
    card = model_card(
        ExportConfig().named(policy.outcomes),
        policy,
        report | {"metrics": noisy},
        DATASET,
        PREPROCESSING,
        affine=logit_affine_of(policy),
        stock_reason="",
        distilled=False,
        forms=[],
        refused_formats={},
    )
    assert "| ece | 0.0500 | of a calibrated model: up to 0.0300 |" in card
