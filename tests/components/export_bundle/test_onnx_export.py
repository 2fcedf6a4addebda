"""The graphs of a bundle: repeatable bytes without a trace of the machine that wrote them."""

from pathlib import Path

import onnx
import pytest

from components.export_bundle.onnx_export import OPSET, write_onnx
from components.shared.serving.bundle import open_bundle
from tests.bundles import onnx_bundle


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_bundle(tmp_path_factory)


def test_a_second_export_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    write_onnx(open_bundle(path), tmp_path / "onnx")
    assert {file.name: file.read_bytes() for file in (tmp_path / "onnx").iterdir()} == {
        file.name: file.read_bytes() for file in (path / "onnx").iterdir()
    }


def test_the_graph_says_nothing_about_where_it_was_made(path: Path) -> None:
    file = path / "onnx/model.onnx"
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    data = file.read_bytes()
    assert b".py" not in data
    assert b"/" + Path.cwd().parts[1].encode() + b"/" not in data


def test_attention_searches_for_no_masked_rows(path: Path) -> None:
    graph = onnx.load(path / "onnx/model.onnx").graph
    assert "Softmax" in {node.op_type for node in graph.node}
    assert "IsNaN" not in {node.op_type for node in graph.node}


def test_the_batch_is_the_only_free_axis(path: Path) -> None:
    graph = onnx.load(path / "onnx/model.onnx").graph
    axes = [axis.dim_param or axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["N", 56, 56, 3]
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [output.name for output in graph.output] == [
        "margin",
        "probability",
        "decision",
        "logits",
    ]
