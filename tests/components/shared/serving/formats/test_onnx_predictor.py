"""The ONNX form of a bundle answers as the bundle's own model."""

import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.shared.contracts.errors import ArtifactError
from components.shared.serving.bundle import open_bundle
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from components.shared.serving.forms import open_predictor
from components.shared.serving.predictor import Predictor
from pipelines.sources import ROOT
from tests.bundles import edit_json, noise, onnx_bundle, resigned


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_bundle(tmp_path_factory)


def test_answers_are_those_of_the_bundle_s_own_model(path: Path) -> None:
    bundle, pixels = open_bundle(path), noise(40, seed=9)
    assert bundle.forms == ["onnx"]
    onnx, own = OnnxPredictor(bundle, threads=1), Predictor(bundle)
    assert isinstance(open_predictor(bundle, "onnx"), OnnxPredictor)
    assert isinstance(open_predictor(bundle, "transformers"), Predictor)
    found, expected = onnx.answers(pixels), own.answers(pixels)
    assert [answer.decision for answer in found] == [answer.decision for answer in expected]
    assert {answer.decision for answer in found} == {"None", "Roadwork"}
    np.testing.assert_allclose(
        [answer.probability for answer in found],
        [answer.probability for answer in expected],
        atol=1e-4,
    )
    outputs = onnx.outputs(pixels)
    np.testing.assert_allclose(outputs.logits, own.logits(pixels), atol=1e-3)
    np.testing.assert_allclose(outputs.margin, bundle.policy.margin(own.logits(pixels)), atol=1e-3)
    assert found[0].views is None
    assert found[0].threshold == expected[0].threshold


def test_the_guide_s_program_decides_without_torch_and_without_the_project(
    path: Path, tmp_path: Path
) -> None:
    guide = (ROOT / "docs/guides/serving.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(import json\n.*?)^```$", guide, re.M | re.S)
    program += "import sys\nprint({'torch', 'transformers', 'components'} & set(sys.modules))\n"
    (tmp_path / "BUNDLE").symlink_to(path)
    Image.fromarray(noise(1, seed=5)[0]).resize((90, 60)).save(tmp_path / "photo.jpg")

    finished = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    predictor = OnnxPredictor(open_bundle(path))
    pixels = predictor.pixels((tmp_path / "photo.jpg").read_bytes())
    (answer,) = predictor.answers(pixels[None])
    decision, probability, *modules = finished.stdout.split()
    assert (decision, modules) == (answer.decision, ["set()"])
    assert float(probability) == pytest.approx(answer.probability, abs=1e-6)


def test_an_image_becomes_the_same_pixels(path: Path) -> None:
    bundle, data = open_bundle(path), io.BytesIO()
    Image.fromarray(noise(1, seed=5)[0]).resize((90, 60)).save(data, "JPEG")
    found = OnnxPredictor(bundle).pixels(data.getvalue())
    np.testing.assert_array_equal(found, Predictor(bundle).pixels(data.getvalue()))


def test_a_bundle_without_the_form_is_refused(path: Path) -> None:
    with pytest.raises(ArtifactError, match="has no onnx_int8/; export it with formats"):
        OnnxPredictor(open_bundle(path), "onnx_int8")


def test_what_onnxruntime_cannot_load_is_refused(path: Path, tmp_path: Path) -> None:
    other = resigned(
        path, tmp_path / "other", lambda out: (out / "onnx/model.onnx").write_bytes(b"no graph")
    )
    with pytest.raises(ArtifactError, match=r"onnx/model.onnx: onnxruntime refuses it"):
        OnnxPredictor(open_bundle(other))


def test_a_form_of_another_bundle_is_refused(path: Path, tmp_path: Path) -> None:
    names = ["none", "works", "defer", "both"]
    other = resigned(
        path,
        tmp_path / "other",
        lambda out: edit_json(out / "onnx/format.json", decisions=names),
    )
    with pytest.raises(ArtifactError, match="the form belongs to another bundle"):
        OnnxPredictor(open_bundle(other))


def test_a_float_graph_with_other_logits_than_at_the_export_is_refused(path: Path) -> None:
    bundle = replace(open_bundle(path), versions={"numpy": "0.1"})
    OnnxPredictor(bundle)

    assert bundle.reference_logits is not None
    other = [value + 0.5 for value in bundle.reference_logits]
    with pytest.raises(ArtifactError, match=r"reference image differ by 0\.\d+ .*numpy"):
        OnnxPredictor(replace(bundle, reference_logits=other))
