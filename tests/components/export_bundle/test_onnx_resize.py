"""A graph that resizes sees what the one decode path computes, of photographs of any shape.

ONNX Runtime and Pillow round weights and sums differently, so that single values differ by a step.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from components.export_bundle.config import ExportConfig
from components.export_bundle.onnx_export import write_onnx
from components.export_bundle.onnx_resize import add_resizing
from components.export_bundle.parity import TOLERANCE
from components.shared.contracts.errors import ArtifactError, ConfigError
from components.shared.data.decode import decode, resize
from components.shared.serving.bundle import Bundle, open_bundle
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from components.shared.serving.tensorrt_engine import write_engines
from pipelines.demo.dataset import file_bytes, plan
from tests.bundles import SIZE, noise, onnx_bundle, resigned

Pixels = npt.NDArray[np.uint8]
# Height and width; of those after the middle the height is resized first.
SHAPES = [(480, 640), (135, 240), (31, 500), (60, 100), (20, 30), (200, 60), (500, 224), (57, 50)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(onnx_bundle(tmp_path_factory))


@pytest.fixture(scope="module")
def resizing(plain: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same bundle with a graph that resizes."""

    def change(out: Path) -> None:
        (out / "onnx").rename(out.parent / "without")
        write_onnx(plain, out / "onnx", resizes=True)

    return open_bundle(resigned(plain.path, tmp_path_factory.mktemp("resizing") / "b", change))


def test_pixels_are_those_of_the_decode_path_but_for_single_steps() -> None:
    for size in (SIZE, 224):
        resizes = _resizing_alone(size)
        images = [(1, image) for image in _photographs()] + [(2, image) for image in _noise()]
        for steps, image in images:
            (found,) = resizes.run(None, {"images": image[None]})[0]
            difference = np.abs(found.astype(int) - resize(Image.fromarray(image), size))
            assert difference.max() <= steps, image.shape
            assert (difference > 0).mean() < 0.002, image.shape


def test_an_image_of_the_model_s_size_is_left_as_it_is() -> None:
    images = noise(3)
    np.testing.assert_array_equal(_resizing_alone(SIZE).run(None, {"images": images})[0], images)


def test_the_form_answers_as_without_the_option(plain: Bundle, resizing: Bundle) -> None:
    pixels = noise(20, seed=4)
    without, with_it = (OnnxPredictor(one, threads=1) for one in (plain, resizing))
    (expected,), (found,) = (one.raw_outputs(pixels) for one in (without, with_it))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_photographs_are_decided_as_by_the_decode_path(plain: Bundle, resizing: Bundle) -> None:
    predictor = OnnxPredictor(plain, threads=1)
    session = _session(onnx.load(resizing.path / "onnx/model.onnx"))
    codes = set()
    for image in [*_photographs(), *_noise()]:
        small = resize(Image.fromarray(image), SIZE)[None]
        ((expected,), (found,)) = predictor.raw_outputs(small), [_run(session, image[None])]
        # A step of a pixel moves the margin by more than another order of sums does.
        np.testing.assert_allclose(found["margin"], expected["margin"], atol=100 * TOLERANCE)
        if abs(expected["margin"][0] - plain.policy.threshold_margin) > 100 * TOLERANCE:
            np.testing.assert_array_equal(found["decision"], expected["decision"])
        codes.add(int(found["decision"][0]))
    assert len(codes) > 1


def test_format_json_says_so_only_where_it_is_true(plain: Bundle, resizing: Bundle) -> None:
    documents = [
        json.loads((one.path / "onnx/format.json").read_text()) for one in (plain, resizing)
    ]
    assert "resizes" not in documents[0]
    assert documents[1] == documents[0] | {"resizes": True}


def test_no_engine_is_built_of_a_graph_that_resizes(resizing: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"its graph resizes.*onnx_resize=False"):
        write_engines(None, resizing, tmp_path / "engines")


@pytest.mark.parametrize("formats", [("transformers",), ("transformers", "onnx", "onnx_int8")])
def test_other_forms_cannot_resize(formats: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"onnx_resize=True with formats=.*: only onnx resizes"):
        ExportConfig(onnx_resize=True, formats=formats)


def _photographs() -> Iterator[Pixels]:
    """Demo photographs in several shapes, as decoded."""
    rows = [row for row in plan(200, 0) if row.content == "frame"][:: len(SHAPES)]
    for row, (height, width) in zip(rows, SHAPES, strict=False):
        yield np.asarray(decode(file_bytes(row, 0)).resize((width, height)))


def _noise() -> Iterator[Pixels]:
    """Images in which neighbours differ most."""
    rng = np.random.default_rng(0)
    for height, width in SHAPES:
        yield rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _resizing_alone(size: int) -> onnxruntime.InferenceSession:
    """A graph that does nothing but resize."""
    shape = ["N", size, size, 3]
    given, found = (
        helper.make_tensor_value_info(name, TensorProto.UINT8, shape)
        for name in ("images", "found")
    )
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["found"])], "resizing", [given], [found]
    )
    add_resizing(graph, size)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return _session(model)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _run(session: onnxruntime.InferenceSession, images: Pixels) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))
