"""The export alone: stock pipelines decide as the policy; inputs of other runs are refused."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor

from components.export_bundle.config import ExportConfig
from components.export_bundle.step import run
from components.shared.calibration.calibrator import Calibrator
from components.shared.calibration.linear import Temperature, VectorScaling
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import sha256_file, verify_dir, write_json, writing
from components.shared.contracts.config import Config
from components.shared.contracts.errors import (
    ArtifactError,
    ConfigError,
    InfeasibleError,
    PermanentError,
)
from components.shared.contracts.outcomes import Outcomes
from components.shared.data.drift_reference import write_reference
from components.shared.models.classifier import normalise
from components.shared.policies.policy import softmax_policy
from components.shared.serving.bundle import open_bundle
from components.shared.serving.predictor import Predictor
from components.shared.vision.classifier_spec import ClassifierSpec
from tests.bundles import (
    SIZE,
    Inputs,
    make_inputs,
    noise,
    write_dataset,
    write_evaluation,
    write_images,
    write_test_images,
)
from tests.components.shared.data.test_drift_reference import reference

# Far from 0.5 on both sides, both stock families, and the classes in the other order.
STOCK_CASES = {
    "high": {"threshold_margin": 6.25},
    "low": {"threshold_margin": -4.5, "family": "dinov2_with_registers"},
    "reversed": {"threshold_margin": 1.0, "class_names": ("Roadwork", "None")},
    "own names": {"class_names": ("Plain", "Pothole"), "positive_class": "Pothole"},
    "own names, reversed": {
        "class_names": ("Pothole", "Plain"),
        "positive_class": "Pothole",
        "threshold_margin": -1.5,
    },
    "one of three": {
        "class_names": ("crack", "Pothole", "plain"),
        "positive_class": "Pothole",
        "threshold_margin": 0.8,
    },
    "first of three": {
        "class_names": ("Pothole", "crack", "plain"),
        "positive_class": "Pothole",
        "threshold_margin": -0.5,
    },
}
STOCK = """
import json, sys
from transformers import pipeline
models, images = json.loads(sys.argv[1])
answers = {}
for name, model in models.items():
    classify = pipeline("image-classification", model=model)
    answers[name] = [{a["label"]: a["score"] for a in classify(image)} for image in images]
ours = [name for name in sys.modules if name.split(".")[0] in ("components", "pipelines", "tests")]
print(json.dumps([answers, ours]))
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"), threshold_margin=0.9445)


@pytest.fixture
def editable(inputs: Inputs, tmp_path: Path) -> Inputs:
    """A copy whose parts a test may replace."""
    shutil.copytree(inputs.root, tmp_path / "inputs")
    return Inputs(tmp_path / "inputs")


@pytest.fixture(scope="module")
def bundle(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inputs.export(tmp_path_factory.mktemp("exported") / "bundle")


def _stock_answers(
    models: dict[str, str], images: list[Path], cwd: Path
) -> dict[str, list[dict[str, float]]]:
    argument = json.dumps([models, [str(image) for image in images]])
    command = [sys.executable, "-I", "-c", STOCK, argument]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=True)
    answers, ours = json.loads(finished.stdout.splitlines()[-1])
    assert ours == []
    return answers  # type: ignore[no-any-return]


def test_a_stranger_gets_the_decisions_of_the_policy(tmp_path: Path) -> None:
    pixels = noise(24, seed=9)
    (tmp_path / "noise").mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"noise/{index:02d}.png")
    files = [*sorted((tmp_path / "noise").iterdir()), *write_images(tmp_path / "kinds")]
    cases = {name: make_inputs(tmp_path / name, **case) for name, case in STOCK_CASES.items()}  # type: ignore[arg-type]
    bundles = {name: case.export(tmp_path / f"{name}_bundle") for name, case in cases.items()}
    answers = _stock_answers(
        {name: str(path / "model") for name, path in bundles.items()}, files, tmp_path
    )
    for name, case in cases.items():
        predictor = Predictor(open_bundle(bundles[name]))
        every = np.stack([predictor.pixels(file.read_bytes()) for file in files])
        assert (every[: len(pixels)] == pixels).all()
        expected = case.margin(every) > case.policy.threshold_margin
        outcomes = case.policy.outcomes
        scores = [answer[outcomes.names[1]] for answer in answers[name]]
        assert all(answer.keys() == set(outcomes.class_names) for answer in answers[name])
        assert ((np.round(scores) == 1) == expected).all()
        assert ((np.array(scores) >= 0.5) == expected).all()
        assert 0 < expected.sum() < len(files)
        ours = predictor.answers(every)
        decided = [outcomes.names[int(is_positive)] for is_positive in expected]
        assert [answer.decision for answer in ours] == decided
        log_odds = np.log([answer.probability / (1 - answer.probability) for answer in ours])
        assert np.allclose(log_odds, case.margin(every), atol=1e-4)


@pytest.mark.parametrize("n_classes", [3, 5])
@pytest.mark.parametrize("calibrator", [None, Temperature(1.7), "vector"])
def test_a_stranger_gets_the_most_probable_of_several_classes(
    n_classes: int, calibrator: Calibrator | str | None, tmp_path: Path
) -> None:
    names = ("stop", "yield", "bus", "speed 30", "priority")[:n_classes]
    if isinstance(calibrator, str):
        calibrator = VectorScaling(
            tuple(0.5 + 0.2 * k for k in range(n_classes)), tuple(0.1 * k for k in range(n_classes))
        )
    policy = softmax_policy(Outcomes.of(names), 0.5, calibrator)
    case = make_inputs(tmp_path, policy=policy)
    path = case.export(tmp_path / "bundle")

    pixels = noise(24, seed=9)
    files = [tmp_path / f"{index:02d}.png" for index in range(len(pixels))]
    for image, file in zip(pixels, files, strict=True):
        Image.fromarray(image).save(file)
    answers = _stock_answers({"": str(path / "model")}, files, tmp_path)[""]
    probabilities = policy.probabilities(case.logits(pixels))
    for answer, expected in zip(answers, probabilities, strict=True):
        assert [answer[name] for name in names] == pytest.approx(expected.tolist(), abs=1e-5)
        assert max(answer, key=answer.__getitem__) == names[expected.argmax()]

    document = json.loads((path / "bundle.json").read_text())
    assert document["attempt"] == 0
    assert document["calibrated_weights"]
    assert document["stock_pipeline_decision"] == (
        "the label with the largest score; the weights never defer, policy.json has the limit"
    )
    config = json.loads((path / "model/config.json").read_text())
    assert config["id2label"] == {str(k): name for k, name in enumerate(names)}

    decided = [answer.decision for answer in Predictor(open_bundle(path)).answers(pixels)]
    assert decided == policy.decide(case.logits(pixels)).tolist()
    assert {"defer"} < set(map(str, decided))


@pytest.mark.parametrize("names", [("Plain", "Pothole"), ("a", "b", "c", "d", "e")])
def test_nothing_in_a_bundle_of_other_classes_speaks_of_roadwork(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    path = make_inputs(tmp_path, policy=softmax_policy(Outcomes.of(names), 0.0)).export(
        tmp_path / "bundle"
    )
    texts = [file for file in path.rglob("*") if file.suffix in (".md", ".json")]
    assert {"README.md", "bundle.json", "config.json", "policy.json"} <= {f.name for f in texts}
    found = [file.name for file in texts if "roadwork" in file.read_text().lower()]
    assert not found
    card = (path / "README.md").read_text()
    assert all(f"`{name}`" in card for name in names)


def test_a_family_without_a_stock_class_says_so_and_still_answers(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, family="vit", threshold_margin=-2.0)
    path = inputs.export(tmp_path / "bundle")
    document = json.loads((path / "bundle.json").read_text())
    assert document["stock_pipeline"] is False
    assert "'vit'" in document["stock_pipeline_reason"]
    assert document["stock_pipeline_reason"] in (path / "README.md").read_text()
    pixels = noise(24, seed=9)
    expected = inputs.margin(pixels) > -2.0
    assert [
        a.decision == "Roadwork" for a in Predictor(open_bundle(path)).answers(pixels)
    ] == expected.tolist()
    assert 0 < expected.sum() < 24


def test_the_stored_processor_computes_our_pixels(bundle: Path, tmp_path: Path) -> None:
    stored = json.loads((bundle / "model/preprocessor_config.json").read_text())
    assert stored["image_processor_type"] == "ViTImageProcessor"
    assert not {"do_center_crop", "crop_size"} & stored.keys()
    processor = AutoImageProcessor.from_pretrained(bundle / "model")
    predictor = Predictor(open_bundle(bundle))
    spec = ClassifierSpec(
        ("None", "Roadwork"), SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "dinov2"
    )
    for file in write_images(tmp_path / "kinds"):
        if file.name == "turned.jpg":
            continue  # turning is the pipeline's part, not the processor's
        with Image.open(file) as image:
            theirs = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"]
        ours = normalise(torch.from_numpy(predictor.pixels(file.read_bytes())[None]), spec)
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6), file.name


def test_old_pipelines_would_take_a_problem_type_for_a_sigmoid(bundle: Path) -> None:
    config = json.loads((bundle / "model/config.json").read_text())
    assert config.get("problem_type") is None
    assert config["id2label"] == {"0": "None", "1": "Roadwork"}


def test_bundle_json_lists_every_file_by_relative_path(inputs: Inputs, bundle: Path) -> None:
    document = json.loads((bundle / "bundle.json").read_text())
    files = {
        file.relative_to(bundle).as_posix(): file for file in bundle.rglob("*") if file.is_file()
    }
    expected = {
        name: sha256_file(file)
        for name, file in files.items()
        if name not in ("bundle.json", "manifest.json", "provenance.json")
    }
    assert document["files"] == expected
    assert document["lineage"].keys() == {
        "checkpoint",
        "policy",
        "evaluation",
        "val_test_images",
        "dataset",
    }
    digest = verify_dir(inputs.root / "checkpoint", "Checkpoint").content_digest
    assert document["lineage"]["checkpoint"]["content_digest"] == digest
    outside = [str(inputs.root).encode(), str(bundle.parent).encode()]
    assert not [
        name for name, file in files.items() if any(path in file.read_bytes() for path in outside)
    ]


def test_exporting_again_gives_the_same_bytes(inputs: Inputs, bundle: Path, tmp_path: Path) -> None:
    again = inputs.export(tmp_path / "elsewhere")
    files = sorted(file.relative_to(bundle) for file in bundle.rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(again) for file in again.rglob("*") if file.is_file())
    assert all((bundle / file).read_bytes() == (again / file).read_bytes() for file in files)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model_version", "1.0", "model_version='1.0' must be X.Y.Z"),
        ("model_version", "1.0.0-rc1", "must be X.Y.Z"),
        ("model_version", "١.٠.٠", "must be X.Y.Z"),
        ("model_name", " ", "model_name=' ' must be one line of text"),
        ("description", "a\nb", "description='a\\nb' must be one line of text"),
        ("submitted_by", "0xabc", "submitted_by='0xabc' must be an ss58 address"),
        ("submission_time", -1, "submission_time=-1 must be >= 0"),
        ("formats", ("onnx",), "formats=['onnx'] must have transformers, and none twice"),
        ("formats", ("transformers", "onnx_int8"), "onnx_int8 is quantised from onnx; add onnx"),
    ],
)
def test_wrong_options_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        ExportConfig(**{field: value})  # type: ignore[arg-type]


def _replace_policy(path: Path, names: list[str], document: object) -> None:
    with writing(path, kind="Policy", step="fit_threshold", config=Config()) as out:
        for name in names:
            (out / name).parent.mkdir(exist_ok=True)
            write_json(out / name, document)


def _no_policy(inputs: Inputs) -> None:
    _replace_policy(inputs.root / "policy", ["threshold.json"], {})


def _two_policies(inputs: Inputs) -> None:
    _replace_policy(
        inputs.root / "policy", ["policy.json", "other/policy.json"], inputs.policy.to_json()
    )


def _other_evaluation(inputs: Inputs) -> None:
    write_evaluation(
        inputs.root / "evaluation",
        softmax_policy(Outcomes.of(("None", "Roadwork"), "binary", "Roadwork"), 0.1),
    )


def _other_classes(inputs: Inputs) -> None:
    rule = softmax_policy(Outcomes.of(("Nothing", "Roadwork"), "binary", "Roadwork"), 0.0)
    _replace_policy(inputs.root / "policy", ["policy.json"], rule.to_json())
    write_evaluation(inputs.root / "evaluation", rule)


def _other_dataset(inputs: Inputs) -> None:
    write_dataset(inputs.root / "dataset", ("None", "Roadwork"), n_images=18)
    write_test_images(inputs.root / "val_test_images", inputs.root / "dataset")


def _changed_weights(inputs: Inputs) -> None:
    file = inputs.root / "checkpoint/head.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_no_policy, "must hold exactly one policy.json, holds none"),
        (_two_policies, "must hold exactly one policy.json, holds .*other/policy.json"),
        (_other_evaluation, "evaluation was made with another policy"),
        (
            _other_classes,
            (
                r"checkpoint has class_names \['None', 'Roadwork'\], the policy has \['Nothing',"
                r" 'Roadwork'\]"
            ),
        ),
        (_other_dataset, "checkpoint were made from another dataset"),
        (_changed_weights, "head.safetensors: sha256"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    editable: Inputs, tmp_path: Path, edit: Callable[[Inputs], None], message: str
) -> None:
    edit(editable)
    with pytest.raises(ArtifactError, match=message):
        editable.export(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_an_infeasible_policy_has_no_bundle(editable: Inputs, tmp_path: Path) -> None:
    document = {"kind": "softmax", "reason": "too few images of 'Roadwork'", "best_level": None}
    _replace_policy(editable.root / "policy", ["infeasible.json"], document)
    with pytest.raises(InfeasibleError, match=r"policy='softmax' could not be fitted .* too few"):
        editable.export(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_model_that_is_not_finite_is_never_exported(editable: Inputs, tmp_path: Path) -> None:
    manifest = verify_dir(editable.root / "dataset", "ImageDataset")
    shutil.move(editable.root / "checkpoint", tmp_path / "old")
    weights = load_file(tmp_path / "old/head.safetensors")
    weights["weight"][0, 0] = float("nan")
    path = editable.root / "checkpoint"
    with writing(
        path, kind="Checkpoint", step="train", config=Config(), inputs={"dataset": manifest}
    ) as out:
        shutil.copytree(tmp_path / "old", out, dirs_exist_ok=True)
        (out / "manifest.json").unlink()
        save_file(weights, out / "head.safetensors")
    with pytest.raises(PermanentError, match="not finite"):
        editable.export(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def _reference(root: Path, checkpoint: str) -> Path:
    path = root / "drift_reference"
    with writing(
        path,
        kind=Kind.VAL_CALIB_REFERENCE,
        step="predict_logits",
        config=Config(),
        inputs={"checkpoint": checkpoint},
        split="VAL_CALIB",
    ) as out:
        write_reference(out, reference())
    return path


def _export_with_reference(inputs: Inputs, checkpoint: str, bundle: Path) -> Path:
    paths = {name: inputs.root / name for name in ("checkpoint", "evaluation", "val_test_images")}
    run(
        ExportConfig(formats=("transformers",)),
        **paths,
        softmax_policy=inputs.root / "policy",
        drift_reference=_reference(bundle.parent, checkpoint),
        bundle=bundle,
    )
    return bundle


def test_a_bundle_carries_the_drift_reference(inputs: Inputs, tmp_path: Path) -> None:
    checkpoint = verify_dir(inputs.root / "checkpoint", "Checkpoint").content_digest
    opened = open_bundle(_export_with_reference(inputs, checkpoint, tmp_path / "bundle"))
    found = opened.drift_reference()
    np.testing.assert_array_equal(found.features, reference().features)
    document = json.loads((opened.path / "bundle.json").read_text())
    assert "reference/features.npy" in document["files"]
    assert "drift_reference" in document["lineage"]


def test_a_reference_of_another_checkpoint_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="drift_reference was computed by another checkpoint"):
        _export_with_reference(inputs, "0" * 64, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_without_a_reference_says_what_it_lacks(bundle: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no reference/ .*; export the bundle again"):
        open_bundle(bundle).drift_reference()
