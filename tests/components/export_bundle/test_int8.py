"""The INT8 form: certified on its own logits or refused, and as safe as the other forms."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from components.export_bundle.int8 import write_int8
from components.export_bundle.onnx_export import write_onnx
from components.shared.contracts.artifacts import read_manifest, write_json, writing
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.outcomes import Outcomes
from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits
from components.shared.policies.fitting.config import ScrcConfig
from components.shared.policies.fitting.fitted import CertifiedPolicy
from components.shared.policies.fitting.scrc import fit_scrc
from components.shared.policies.logits import Logits
from components.shared.policies.policy import ScrcPolicy
from components.shared.policies.predictions import Predictions
from components.shared.serving.bundle import Bundle, open_bundle
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from components.shared.serving.predict import main as predict
from tests.bundles import (
    Inputs,
    make_inputs,
    noise,
    write_dataset,
    write_images,
    write_splits,
)
from tests.components.export_bundle.test_onnx_graph import CASES
from tests.components.export_bundle.test_onnx_graph import bundle_of as random_bundle
from tests.once import made_once
from tests.studies.int8 import other_sums, tables

FORMATS = ("transformers", "onnx", "onnx_int8")
# Of noise with labels by number nothing better can be certified on the few groups.
OPTIONS = ScrcConfig(policy="scrc", alpha=0.9, delta=0.5, calibrator="temperature")
FLOAT_POLICY = ScrcPolicy(
    kind="scrc",
    outcomes=Outcomes.of(("None", "Roadwork")),
    threshold=0.5,
    threshold_margin=0.0,
    risk="error",
    alpha=OPTIONS.alpha,
    delta=OPTIONS.delta,
    coverage_lower_bound=0.3,
    answer_from=(0.5, 0.5),
)


def _inputs(root: Path, options: ScrcConfig) -> Inputs:
    """Write inputs whose policy was fitted with `options`."""
    inputs = make_inputs(root, policy=FLOAT_POLICY)
    shutil.rmtree(root / "policy")
    with writing(root / "policy", kind="Policy", step="calibrate_scrc", config=options) as out:
        write_json(out / "policy.json", FLOAT_POLICY.to_json())
    write_splits(root / "splits", root / "dataset")
    return inputs


def _export(inputs: Inputs, path: Path) -> Path:
    paths = {name: inputs.root / name for name in ("dataset", "splits")}
    return inputs.export(path, policy="scrc", formats=FORMATS, **paths)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs, and a bundle with all forms; no test writes into it."""
    return made_once(
        tmp_path_factory,
        "int8-bundle",
        lambda folder: _export(_inputs(folder / "inputs", OPTIONS), folder / "bundle"),
    )


def _logits(root: Path, bundle: Bundle, split: str, form: str) -> Logits:
    """Logits of a form as anybody computes them who has the bundle and the data."""
    data, ids = (
        Dataset.open(root / "inputs/dataset"),
        read_splits(root / "inputs/splits").ids(split),
    )
    samples = [data.samples[data.index[name]] for name in ids]
    pixels = data.images(np.array([data.index[name] for name in ids]))
    return Logits(
        split=split,
        class_names=bundle.policy.class_names,
        sample_ids=tuple(ids),
        labels=np.array([sample.label for sample in samples]),
        logits=OnnxPredictor(bundle, form).outputs(pixels).logits,
        groups=tuple(sample.group for sample in samples),
        sources=tuple(sample.source for sample in samples),
        paths=tuple(sample.path for sample in samples),
    )


@pytest.mark.slow
def test_the_certificate_is_of_its_own_logits(root: Path) -> None:
    bundle = open_bundle(root / "bundle")
    found = fit_scrc(OPTIONS, _logits(root, bundle, "VAL_CALIB", "onnx_int8"))
    of_float = fit_scrc(OPTIONS, _logits(root, bundle, "VAL_CALIB", "onnx"))
    assert isinstance(found, CertifiedPolicy)
    assert bundle.policy_of("onnx_int8") == found.policy
    assert json.loads((root / "bundle/onnx_int8/fit.json").read_text()) == found.fit
    assert isinstance(of_float, CertifiedPolicy)
    assert of_float.policy != found.policy
    assert bundle.policy_of("onnx") == bundle.policy == FLOAT_POLICY


@pytest.mark.slow
def test_its_graph_decides_by_its_own_policy(root: Path) -> None:
    bundle, pixels = open_bundle(root / "bundle"), noise(40, seed=9)
    assert bundle.forms == ["onnx", "onnx_int8"]
    predictor = OnnxPredictor(bundle, "onnx_int8")
    found = [answer.decision for answer in predictor.answers(pixels)]
    logits = predictor.outputs(pixels).logits
    assert found == bundle.policy_of("onnx_int8").decide(logits).tolist()
    expected = OnnxPredictor(bundle, "onnx").outputs(pixels).logits
    margins, of_float = (x[:, 1] - x[:, 0] for x in (logits, expected))
    assert not np.array_equal(margins, of_float)
    assert np.corrcoef(margins, of_float)[0, 1] > 0.95


@pytest.mark.slow
def test_metrics_of_both_forms_stand_side_by_side(root: Path) -> None:
    bundle = open_bundle(root / "bundle")
    document = json.loads((root / "bundle/onnx_int8/format.json").read_text())
    metrics = document["metrics"]
    assert (metrics["split"], metrics["n_images"]) == ("VAL_TEST", 4)
    row = metrics["metrics"]["accuracy"]
    for form, value in (("onnx", row["float"]), ("onnx_int8", row["int8"])):
        logits = _logits(root, bundle, "VAL_TEST", form)
        policy = bundle.policy_of(form)
        predictions = Predictions.of(
            policy, logits.truth(policy.outcomes), logits.groups, logits.logits
        )
        assert value == 1 - predictions.error.mean()
    assert row["difference"] == row["int8"] - row["float"]
    assert row["difference_95"] is None  # of four groups
    assert document["quantisation"]["n_layers"] == 12

    card = (root / "bundle/README.md").read_text()
    assert (
        f"| `onnx_int8/` | 0.1 | {row['int8']:.4f} ({row['difference']:+.4f}: no interval)" in card
    )


@pytest.mark.slow
def test_a_second_export_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    again = _export(Inputs(root / "inputs"), tmp_path / "bundle")
    first, second = (read_manifest(path).content_digest for path in (root / "bundle", again))
    assert first == second


@pytest.mark.slow
def test_where_nothing_can_be_certified_the_bundle_goes_on(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path, ScrcConfig(policy="scrc", alpha=0.01))
    path = _export(inputs, tmp_path / "bundle")
    bundle = open_bundle(path)
    assert bundle.forms == ["onnx"]
    reason = json.loads((path / "bundle.json").read_text())["refused_formats"]["onnx_int8"]
    assert "alpha=0.01 cannot be certified" in reason
    assert (
        f"`onnx_int8` was asked for and is not in the bundle: {reason}"
        in (path / "README.md").read_text()
    )
    with pytest.raises(
        ArtifactError, match=r"has no onnx_int8/; the export refused it: alpha=0\.01"
    ):
        OnnxPredictor(bundle, "onnx_int8")


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.onnx", "policy.json", "fit.json", "format.json"])
def test_a_changed_file_is_refused(root: Path, tmp_path: Path, file: str) -> None:
    path = shutil.copytree(root / "bundle", tmp_path / "bundle")
    changed = path / "onnx_int8" / file
    content = bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=f"onnx_int8/{file}"):
        open_bundle(path)


@pytest.mark.slow
def test_of_several_views_both_graphs_are_quantised(tmp_path: Path) -> None:
    """The full image's graph gives the tiles' one its features, and early exit is fitted again."""
    (tmp_path / "bundle").mkdir()
    bundle = random_bundle(CASES["views lse"], tmp_path / "bundle")
    shutil.rmtree(bundle.path / "onnx", ignore_errors=True)
    write_onnx(bundle, bundle.path / "onnx")
    write_dataset(tmp_path / "dataset", bundle.policy.class_names, 40)
    write_splits(tmp_path / "splits", tmp_path / "dataset")
    data, splits = Dataset.open(tmp_path / "dataset"), read_splits(tmp_path / "splits")
    found = write_int8(bundle, {}, data, splits)
    assert (found.refusals, found.metrics["n_images"]) == ({}, 8)

    sizes = {
        form: {file.name: file.stat().st_size for file in (bundle.path / form).glob("*.onnx")}
        for form in bundle.forms
    }
    assert sizes["onnx_int8"].keys() == {"model.onnx", "tiles.onnx"}
    assert all(size < sizes["onnx"][name] for name, size in sizes["onnx_int8"].items())
    early_exit = OnnxPredictor(bundle, "onnx_int8").format.early_exit
    assert early_exit is not None
    assert early_exit.n_images == 16  # of VAL_CALIB, one of each group


@pytest.mark.slow
def test_predict_answers_with_the_form(root: Path, tmp_path: Path) -> None:
    images = [str(file) for file in write_images(tmp_path / "images")]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        predict(["--form", "onnx_int8", str(root / "bundle"), *images])
    assert ended.value.code == 0
    answers = [json.loads(line) for line in printed.getvalue().splitlines()]
    assert len(answers) == len(images)
    assert {answer["decision"] for answer in answers} <= {"None", "Roadwork", "defer"}


@pytest.mark.slow
def test_the_study_shows_both_certificates_and_the_differences(root: Path, tmp_path: Path) -> None:
    policy = tmp_path / "calibrate-scrc/scrc_policy"
    policy.mkdir(parents=True)
    shutil.copytree(root / "bundle", tmp_path / "export-bundle/bundle")
    own = json.loads((root / "bundle/onnx_int8/fit.json").read_text())
    write_json(policy / "fit.json", own | {"coverage": 0.125})
    lines = list(tables(tmp_path))
    rows = {line.split(" | ")[0]: line.split(" | ")[1:] for line in lines}
    promised = "error at most 0.9 with probability 0.5"
    assert rows["| `onnx`"][0] == rows["| `onnx_int8`"][0] == promised
    assert rows["| `onnx`"][2].startswith("0.125, at least")
    assert rows["| `onnx_int8`"][2].startswith(f"{own['coverage']:.3f}, at least")
    assert rows["| accuracy"][3] == "none |"
    assert "of 4 images of 4 groups are answered otherwise" in lines[0]


@pytest.mark.slow
def test_the_study_shows_what_other_sums_change(root: Path) -> None:
    lines = list(other_sums(open_bundle(root / "bundle"), noise(40, seed=9)))
    float_other, int8, int8_other = (float(line.split(" | ")[1].strip(" |")) for line in lines[1:4])
    assert float_other <= int8_other <= int8
    assert float_other == 0 < int8
    assert 0 <= int(lines[4].split(": ")[1]) <= 40


@pytest.mark.slow
def test_other_logits_than_at_the_export_are_said(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = open_bundle(root / "bundle")
    file = bundle.path / "onnx_int8/format.json"
    recorded = file.read_text()
    try:
        OnnxPredictor(bundle, "onnx_int8")
        assert capsys.readouterr().err == ""

        document = json.loads(recorded)
        document["reference_logits"][0] += 0.25
        write_json(file, document)
        OnnxPredictor(bundle, "onnx_int8")
        said = capsys.readouterr().err
        assert "onnx_int8: the logits of the reference image differ by 0." in said
        assert said.endswith("Export on such a machine to have them of its logits\n")

        write_json(file, document | {"reference_logits": [0.0]})
        with pytest.raises(ArtifactError, match="has 2 logits, the recorded reference 1"):
            OnnxPredictor(bundle, "onnx_int8")
    finally:
        file.write_text(recorded)
