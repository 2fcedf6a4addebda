"""A form that decides one image otherwise than the model is refused, with the image's name."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from components.export_bundle.parity import Parity, check_parity
from components.shared.contracts.errors import ArtifactError, PermanentError
from components.shared.data.dataset import Dataset
from components.shared.data.splits import Splits, read_splits
from components.shared.serving.bundle import Bundle, open_bundle
from components.shared.serving.predictor import Predictor
from tests.bundles import (
    Inputs,
    make_inputs,
    onnx_bundle,
    resigned,
    write_dataset,
    write_splits,
)

N_COMPARED = 12  # of 20 images


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_bundle(tmp_path_factory)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Splits]:
    root = tmp_path_factory.mktemp("data")
    write_dataset(root / "dataset", ("None", "Roadwork"))
    splits = write_splits(root / "splits", root / "dataset")
    return Dataset.open(root / "dataset"), read_splits(splits)


def test_equal_decisions_are_counted(path: Path, data: tuple[Dataset, Splits]) -> None:
    found = check_parity(open_bundle(path), "onnx", *data)["model.onnx"]
    assert (found.n_images, found.n_near) == (N_COMPARED, 0)
    assert found.largest_difference < 1e-4
    assert found.to_json()["margins_within"] in (1e-6, 1e-5, 1e-4)


def test_the_document_hides_the_rounding_of_a_processor() -> None:
    of = {difference: Parity(9, 1, difference).to_json() for difference in (0.0, 3.1e-5, 7e-5)}
    assert [document["margins_within"] for document in of.values()] == [1e-6, 1e-4, 1e-4]
    assert of[0.0]["n_near_a_threshold"] == 1


def _with_graph(bundle: Path, path: Path, change: Callable[[onnx.GraphProto], object]) -> Bundle:
    """Write the bundle with another graph."""

    def edit(out: Path) -> None:
        model = onnx.load(out / "onnx/model.onnx")
        change(model.graph)
        onnx.save(model, out / "onnx/model.onnx")

    return open_bundle(resigned(bundle, path, edit))


def _raise_bias(graph: onnx.GraphProto) -> None:
    """Let the head give the second class 0.002 more."""
    tensor = next(t for t in graph.initializer if t.name.endswith("head.linear.bias"))
    values = numpy_helper.to_array(tensor) + np.array([0, 0.002], dtype=np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _raise_threshold(graph: onnx.GraphProto, by: float) -> None:
    """Let the decision need more."""
    compare = next(node for node in graph.node if node.op_type == "Greater")
    tensor = next(t for t in graph.initializer if t.name == compare.input[1])
    values = np.asarray(numpy_helper.to_array(tensor) + by)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def test_other_margins_are_refused(
    path: Path, data: tuple[Dataset, Splits], tmp_path: Path
) -> None:
    bundle = _with_graph(path, tmp_path / "bundle", _raise_bias)
    first = data[1].ids("VAL_CALIB")[0]
    name = data[0].samples[data[0].index[first]].path
    with pytest.raises(PermanentError) as caught:
        check_parity(bundle, "onnx", *data)
    message = str(caught.value)
    assert "onnx/model.onnx: differs from the bundle's own model in 12 of 12 images" in message
    assert f"{name} ({first}:" in message
    assert "margins differ by 0.002)" in message


def test_one_other_decision_is_refused(
    path: Path, data: tuple[Dataset, Splits], tmp_path: Path
) -> None:
    margins = _margins(path, data)
    threshold = open_bundle(path).policy.threshold_margin
    least = margins[margins > threshold].min()
    bundle = _with_graph(
        path,
        tmp_path / "bundle",
        lambda graph: _raise_threshold(graph, float(least - threshold) + 0.01),
    )
    with pytest.raises(PermanentError, match=r"in 1 of 12 images .*'None' for 'Roadwork'"):
        check_parity(bundle, "onnx", *data)


def _margins(path: Path, data: tuple[Dataset, Splits]) -> np.ndarray:
    """Calibrated margins of the images that are compared."""
    ids = [name for split in ("VAL_CALIB", "VAL_SELECT") for name in data[1].ids(split)]
    bundle = open_bundle(path)
    pixels = data[0].images(np.array([data[0].index[name] for name in ids]))
    return bundle.policy.margin(Predictor(bundle).logits(pixels))


def test_an_image_at_the_threshold_is_counted_apart(
    path: Path, data: tuple[Dataset, Splits], tmp_path: Path
) -> None:
    """Its margin is compared, and its decision is not: it may fall on either side."""
    margins = _margins(path, data)
    threshold = open_bundle(path).policy.threshold_margin
    least = float(margins[margins > threshold].min())
    moved = _with_graph(
        path, tmp_path / "bundle", lambda graph: _raise_threshold(graph, least - threshold + 5e-4)
    )
    # The policy at the image's margin; the weights still hold the former threshold.
    stored = moved.policy
    near = replace(stored, threshold_margin=least - 5e-4)
    bundle = replace(moved, policy=near)
    found = _compare_with_logits_of(bundle, moved, data)
    assert (found.n_images, found.n_near) == (N_COMPARED, 1)


def _compare_with_logits_of(bundle: Bundle, stored: Bundle, data: tuple[Dataset, Splits]) -> Parity:
    """Compare with `bundle`'s policy and the logits of `stored`, whose fold is another one."""
    own = Predictor(stored)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("components.export_bundle.parity.Predictor", lambda _: own)
        return check_parity(bundle, "onnx", *data)["model.onnx"]


def test_an_export_with_onnx_writes_the_comparison(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, threshold_margin=0.4)
    write_splits(tmp_path / "splits", tmp_path / "dataset")
    path = _export(inputs, tmp_path / "bundle")
    document = json.loads((path / "onnx/format.json").read_text())
    assert document["parity"]["model.onnx"]["n_images"] == N_COMPARED
    bundle = json.loads((path / "bundle.json").read_text())
    assert {"onnx/model.onnx", "onnx/format.json"} <= bundle["files"].keys()
    assert bundle["lineage"].keys() >= {"splits", "dataset"}
    assert open_bundle(path).forms == ["onnx"]


def _export(inputs: Inputs, bundle: Path) -> Path:
    paths = {name: inputs.root / name for name in ("dataset", "splits")}
    return inputs.export(bundle, formats=("transformers", "onnx"), **paths)


def test_an_export_with_onnx_needs_the_data_that_it_is_compared_on(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    with pytest.raises(ArtifactError, match=r"formats has onnx, .* give dataset and splits"):
        inputs.export(tmp_path / "bundle", formats=("transformers", "onnx"))
    write_dataset(tmp_path / "other", ("None", "Roadwork"), n_images=10)
    write_splits(tmp_path / "splits", tmp_path / "other")
    (tmp_path / "dataset").rename(tmp_path / "former")
    (tmp_path / "other").rename(tmp_path / "dataset")
    with pytest.raises(ArtifactError, match="dataset is another one than that of val_test_images"):
        _export(inputs, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
