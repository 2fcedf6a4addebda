"""The model repository: Triton's own schema accepts it, and its graphs answer as it says.

No Triton runs here. Configurations are parsed by the schema that `tritonclient` publishes, in a
process of its own, because kserve's has messages of the same names; the graphs are run by
onnxruntime, which is Triton's back end for them, with the inputs, outputs and steps that the
configurations name.
"""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from components.export_bundle.onnx_resize import add_resizing
from components.shared.contracts.artifacts import read_manifest
from components.shared.contracts.errors import ConfigError
from components.shared.data.decode import decode
from components.shared.serving.bundle import Bundle, open_bundle
from components.shared.serving.formats.onnx_format import OnnxFormat
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from components.shared.serving.formats.triton import write_repository
from pipelines.sources import ROOT
from tests.bundles import SIZE, noise, onnx_bundle

PARSE = """
import json, pathlib, sys
from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
found = {}
for file in sorted(pathlib.Path(sys.argv[1]).glob("*/config.pbtxt")):
    config = text_format.Parse(file.read_text(encoding="utf-8"), ModelConfig())
    found[file.parent.name] = json_format.MessageToDict(config, preserving_proto_field_name=True)
print(json.dumps(found))
"""
DTYPES = {
    "TYPE_UINT8": np.uint8,
    "TYPE_INT64": np.int64,
    "TYPE_FP32": np.float32,
    "TYPE_BOOL": np.bool_,
}
Arrays = dict[str, npt.NDArray[Any]]


@dataclass
class _Several:
    """Stands for the predictor of a model of several views, whose graphs are sums of pixels.

    Names and axes of the graphs are those of `ModelGraph` and `TilesGraph`.
    """

    format: OnnxFormat
    policy: Any
    form: str = "onnx"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(onnx_bundle(tmp_path_factory))


def parsed(repository: Path) -> dict[str, dict[str, Any]]:
    """Return the configurations by Triton's schema."""
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(repository)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def asked(repository: Path, configs: dict[str, Any], model: str, given: Arrays) -> Arrays:
    """Answer as Triton does: shapes as configured, and an ensemble step by step."""
    config = configs[model]
    for entry in config["input"]:
        values, dims = given[entry["name"]], tuple(map(int, entry["dims"]))
        assert values.dtype == DTYPES[entry["data_type"]]
        assert len(values.shape[1:]) == len(dims)
        assert all(d in (-1, n) for d, n in zip(dims, values.shape[1:], strict=True))

    if config.get("platform") == "ensemble":
        tensors = dict(given)
        for step in config["ensemble_scheduling"]["step"]:
            inputs = {name: tensors[source] for name, source in step["input_map"].items()}
            outputs = asked(repository, configs, step["model_name"], inputs)
            tensors |= {target: outputs[name] for name, target in step["output_map"].items()}
    else:
        graph = repository / model / "1/model.onnx"
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        names = [entry["name"] for entry in config["output"]]
        tensors = dict(zip(names, session.run(names, given), strict=True))
        for entry in config["output"]:
            if "reshape" in entry:  # a scalar of each image
                assert entry["reshape"] == {}
                tensors[entry["name"]] = tensors[entry["name"]][:, None]

    found = {entry["name"]: tensors[entry["name"]] for entry in config["output"]}
    for entry in config["output"]:
        values = found[entry["name"]]
        assert values.shape[1:] == tuple(map(int, entry["dims"])), entry["name"]
        assert values.dtype == DTYPES[entry["data_type"]]
    return found


def test_the_model_of_one_view_answers_as_the_form(bundle: Bundle, tmp_path: Path) -> None:
    predictor = OnnxPredictor(bundle, threads=1)
    options = {"name": "works", "n_instances": 2, "on_gpu": False}
    assert write_repository(predictor, bundle, tmp_path, **options) == ["works"]
    configs = parsed(tmp_path)
    pixels = noise(6, seed=3)
    found = asked(tmp_path, configs, "works", {"images": pixels})
    names = (tmp_path / "works/decisions.txt").read_text().splitlines()
    assert [names[code] for code in found["decision"][:, 0]] == [
        answer.decision for answer in predictor.answers(pixels)
    ]

    config = configs["works"]
    assert names == ["None", "Roadwork", "defer", "both"]
    assert json.loads(config["parameters"]["decisions"]["string_value"]) == names
    digest = read_manifest(bundle.path).content_digest
    assert config["parameters"]["bundle"]["string_value"] == digest
    assert config["instance_group"] == [{"count": 2, "kind": "KIND_CPU"}]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == "2000"
    sizes = [entry["batch_size"] for entry in config["model_warmup"]]
    assert sizes == [1, 8, 16, config["max_batch_size"]]
    (labelled,) = (entry for entry in config["output"] if "label_filename" in entry)
    labels = (tmp_path / "works" / labelled["label_filename"]).read_text().splitlines()
    assert len(labels) == int(labelled["dims"][0]) == len(bundle.policy.class_names)


def test_a_graph_that_resizes_takes_any_size(bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(bundle.path, source)
    model = onnx.load(source / "onnx/model.onnx")
    add_resizing(model.graph, SIZE)
    onnx.save(model, source / "onnx/model.onnx")
    resizing = replace(bundle, path=source)
    predictor = OnnxPredictor(resizing, threads=1)
    options = {"name": "works", "n_instances": 1, "on_gpu": False}
    write_repository(predictor, resizing, tmp_path / "models", **options)

    configs = parsed(tmp_path / "models")
    (images,) = configs["works"]["input"]
    assert images["dims"] == ["-1", "-1", "3"]
    for request in configs["works"]["model_warmup"]:
        assert request["inputs"]["images"]["dims"] == [str(SIZE), str(SIZE), "3"]
    pixels = noise(2)
    small = asked(tmp_path / "models", configs, "works", {"images": pixels})
    large = asked(tmp_path / "models", configs, "works", {"images": pixels.repeat(2, axis=2)})
    np.testing.assert_array_equal(small["decision"], large["decision"])


def test_the_ensemble_of_several_views_gives_the_features_to_the_tiles(
    bundle: Bundle, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    (source / "onnx").mkdir(parents=True)
    _write_graph(source / "onnx/model.onnx", of_tiles=False)
    _write_graph(source / "onnx/tiles.onnx", of_tiles=True)
    (source / "manifest.json").write_bytes((bundle.path / "manifest.json").read_bytes())
    several = _Several(
        OnnxFormat(20, SIZE, ["None", "Roadwork", "defer", "both"], {"tiles.onnx": {}}),
        bundle.policy,
    )
    written = write_repository(
        several,  # type: ignore[arg-type]
        Bundle(source, bundle.policy, bundle.spec, stock=False),
        tmp_path / "models",
        name="works",
        n_instances=1,
        on_gpu=True,
    )
    assert written == ["works", "works_tiles", "works_all_views"]

    configs, pixels = parsed(tmp_path / "models"), noise(3)
    assert configs["works"]["instance_group"] == [{"count": 1, "kind": "KIND_GPU"}]
    whole = asked(tmp_path / "models", configs, "works", {"images": pixels})
    every = asked(tmp_path / "models", configs, "works_all_views", {"images": pixels})
    sums = pixels.astype(np.float32).sum(axis=(1, 2, 3))[:, None]
    np.testing.assert_allclose(whole["margin"], sums)
    np.testing.assert_allclose(every["margin"], 2 * sums)
    assert "features" not in every


@pytest.mark.parametrize("resizes", [False, True])
def test_the_guide_s_client_sends_what_the_graph_takes(
    resizes: bool, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(noise(1, seed=5)[0]).resize((90, 60))
    exif = image.getexif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees to view
    image.save(tmp_path / "photo.jpg", exif=exif)
    client = _Client([-1, -1, 3] if resizes else [SIZE, SIZE, 3])
    monkeypatch.setitem(sys.modules, "tritonclient", ModuleType("tritonclient"))
    monkeypatch.setitem(sys.modules, "tritonclient.http", client)
    monkeypatch.chdir(tmp_path)
    guide = (ROOT / "docs/guides/triton.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile(code, "triton.md", "exec"), found)
    assert found["code"] == 1

    data = (tmp_path / "photo.jpg").read_bytes()
    expected = np.asarray(decode(data)) if resizes else OnnxPredictor(bundle).pixels(data)
    np.testing.assert_array_equal(client.sent[0], expected)


class _Client(ModuleType):
    """Stands for the module tritonclient.http, its client, inputs and answers."""

    def __init__(self, dims: list[int]) -> None:
        super().__init__("tritonclient.http")
        self.dims, self.sent = dims, np.empty(0, np.uint8)

    def InferenceServerClient(self, address: str) -> "_Client":  # noqa: N802 - its name there
        return self

    def get_model_config(self, name: str) -> dict[str, Any]:
        return {"input": [{"name": "images", "dims": self.dims}]}

    def InferInput(self, name: str, shape: tuple[int, ...], dtype: str) -> "_Client":  # noqa: N802
        assert (name, dtype) == ("images", "UINT8")
        self.shape = shape
        return self

    def set_data_from_numpy(self, values: npt.NDArray[np.uint8]) -> None:
        assert (values.shape, values.dtype) == (self.shape, np.uint8)
        self.sent = values

    def infer(self, name: str, inputs: list[Any]) -> "_Client":
        assert (name, inputs) == ("streetvision", [self])
        return self

    def as_numpy(self, name: str) -> npt.NDArray[np.int64]:
        return np.ones((1, 1), np.int64)


def test_a_name_that_is_no_folder_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"name='\.\./x' must be letters, digits"):
        write_repository(
            OnnxPredictor(bundle), bundle, tmp_path, name="../x", n_instances=1, on_gpu=False
        )
    assert list(tmp_path.iterdir()) == []


def _write_graph(file: Path, *, of_tiles: bool) -> None:
    """A graph whose margin is the sum of the pixels, to which the tiles' one adds the features."""
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIZE, SIZE, 3])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 1])
    margin = helper.make_tensor_value_info("margin", TensorProto.FLOAT, ["N"])
    sum_ = "sum" if of_tiles else "features"
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("ReduceSum", ["flat", "last"], [sum_]),
    ]
    if of_tiles:
        nodes.append(helper.make_node("Add", ["sum", "features"], ["both"]))
    nodes.append(helper.make_node("Squeeze", ["both" if of_tiles else sum_, "last"], ["margin"]))
    last = helper.make_tensor("last", TensorProto.INT64, [1], [1])
    inputs = [images, features] if of_tiles else [images]
    outputs = [margin] if of_tiles else [margin, features]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, [last])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)
