"""Writing of a bundle's ONNX form: its graphs, and the document about them."""

import ast
import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from components.export_bundle.onnx_graph import ModelGraph, Output, TilesGraph
from components.export_bundle.onnx_resize import IMAGES, add_resizing
from components.shared.contracts.errors import PermanentError
from components.shared.policies.policy import Policy
from components.shared.serving.bundle import Bundle
from components.shared.serving.formats.onnx_format import (
    MODEL,
    TILES,
    OnnxFormat,
    decision_names,
    weights_of,
    write_format,
)
from components.shared.serving.predictor import load_network

OPSET = 20  # the least with the exact GELU as one operator
# A file of protocol buffers cannot be larger; weights beyond go beside it.
_MOST_BYTES = 2**31 - 2**20
_CONVERSION = ["Cast", IMAGES]
BACKBONE = "backbone/"  # names of the backbone's nodes begin with it
_SCOPES, _BACKBONE_SCOPE = "pkg.torch.onnx.name_scopes", "backbone_and_head.backbone"


def write_onnx(
    bundle: Bundle, folder: Path, policy: Policy | None = None, *, resizes: bool = False
) -> OnnxFormat:
    """Write the graphs of a bundle and their format.json; the same bytes each time.

    Args:
        bundle: On disk, with its model.
        folder: Where to write; it is made.
        policy: What the graphs decide by; None: the bundle's own.
        resizes: Whether model.onnx, of a model of one view, takes images of any size.

    Returns:
        The document of format.json.
    """
    network, policy = load_network(bundle), policy or bundle.policy
    size, folder_outputs = bundle.spec.image_size, {}
    images = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    folder.mkdir()

    model = ModelGraph(network, policy).eval()
    file = folder / MODEL
    _write_graph(model, {"images": images}, model.outputs, file, size if resizes else None)
    folder_outputs[MODEL] = _described(model.outputs)
    if bundle.spec.views is not None:
        tiles = TilesGraph(network, policy).eval()
        features = torch.zeros(2, network.classifier.head.linear.in_features)
        given = {"images": images, "features": features}
        _write_graph(tiles, given, tiles.outputs, folder / TILES)
        folder_outputs[TILES] = _described(tiles.outputs)

    document = OnnxFormat(
        opset=OPSET,
        image_size=size,
        decisions=decision_names(policy.outcomes),
        outputs=folder_outputs,
        early_exit=bundle.early_exit,
        resizes=resizes,
    )
    write_format(folder, document)
    return document


def _described(outputs: list[Output]) -> dict[str, str]:
    return {output.name: f"{output.dtype} ({output.axes}): {output.meaning}" for output in outputs}


def _write_graph(
    module: nn.Module,
    given: dict[str, torch.Tensor],
    outputs: list[Output],
    file: Path,
    resized_to: int | None = None,
) -> None:
    """Export a module with any number of images in a batch; of any size, if they are resized."""
    batch = torch.export.Dim("N")
    with _quietly(), torch.no_grad():
        program = torch.onnx.export(
            module,
            kwargs=given,
            dynamo=True,
            dynamic_shapes={name: {0: batch} for name in given},
            input_names=list(given),
            output_names=[output.name for output in outputs],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _name_backbone(model.graph)
    _drop_origin(model)
    free = [entry.type.tensor_type.shape.dim[0].dim_param for entry in model.graph.input]
    if free != ["N"] * len(given):
        raise PermanentError(f"{file.name}: the exporter has fixed the number of images in a batch")

    _cast_first(model.graph)
    if resized_to is not None:  # on 8-bit values; no engine of TensorRT is built of that
        add_resizing(model.graph, resized_to)

    write_model(model, file)


def write_model(model: onnx.ModelProto, file: Path) -> None:
    """Write a graph, its weights inside or, beyond 2 GiB, beside it in `{file}.data`.

    The same bytes each time; what is there is replaced. The weights are no longer in `model` where
    they lie beside it.
    """
    weights = weights_of(file)
    weights.unlink(missing_ok=True)  # the package would add to it
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _MOST_BYTES:
        onnx.save_model(model, file, save_as_external_data=True, location=weights.name)
    else:
        file.write_bytes(model.SerializeToString(deterministic=True))


def _name_backbone(graph: onnx.GraphProto) -> None:
    """Let the names of the backbone's nodes say so: constant folding leaves no name of a weight."""
    for node in graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
        if _BACKBONE_SCOPE in ast.literal_eval(scopes):
            node.name = f"{BACKBONE}{node.name}"


def _cast_first(graph: onnx.GraphProto) -> None:
    """Let the 8-bit images feed nothing but their conversion to float, the first node.

    TensorRT lets them feed nothing else (NVIDIA/TensorRT, issue 3985), and the exporter takes the
    number of images from them.
    """
    nodes = list(graph.node)
    (number,) = (n for n, node in enumerate(nodes) if [node.op_type, *node.input] == _CONVERSION)
    cast = nodes.pop(number)
    for node in nodes:
        node.input[:] = [cast.output[0] if name == IMAGES else name for name in node.input]
    del graph.node[:]
    graph.node.extend([cast, *nodes])


def _drop_origin(model: onnx.ModelProto) -> None:
    """Delete what differs between machines: paths of sources, stack traces, the build of PyTorch.

    What remains is a function of the weights and the policy.
    """
    model.producer_version = model.producer_version.partition("+")[0]
    parts: list[Any] = [model, model.graph, *model.graph.node, *model.graph.value_info]
    parts += [*model.graph.input, *model.graph.output, *model.graph.initializer]
    for part in parts:
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence what the exporter says about packages that nothing here needs."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
