"""Resizing inside a graph: photographs of any size, squeezed as the one decode path does.

The graph begins with ONNX's Resize on 8-bit values: cubic with a = -0.5 and antialiased, Pillow's
BICUBIC. As Pillow does, it resizes one axis after the other and rounds to 8 bits between. Pillow 13
begins with the height where the image is higher than the target S and its width is less than
(H + S) / 2, else with the width, and so does the graph: on noise, where it matters most, the other
order moves pixels by up to 18 of 255. An axis that already has the target's length is copied, so
that an image of the model's size reaches the model as it is.
"""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

IMAGES = "images"  # the input
_PREFIX = "resize/"  # of names
RESIZED = f"{_PREFIX}square"  # the tensor (N, S, S, 3) uint8
_BICUBIC: dict[str, Any] = {
    "mode": "cubic",
    "cubic_coeff_a": -0.5,
    "antialias": 1,
    "exclude_outside": 1,
}


def add_resizing(graph: onnx.GraphProto, size: int) -> None:
    """Let a graph of `images`, (N, S, S, 3) uint8, take (N, H, W, 3) and resize them; in place.

    Args:
        graph: Has the input `images`.
        size: S in pixels.
    """
    (entry,) = (given for given in graph.input if given.name == IMAGES)
    for node in graph.node:
        node.input[:] = [RESIZED if name == IMAGES else name for name in node.input]
    for axis, name in ((1, "H"), (2, "W")):
        entry.type.tensor_type.shape.dim[axis].dim_param = name

    graph.initializer.extend(
        numpy_helper.from_array(np.array([value], dtype=np.int64), f"{_PREFIX}{name}")
        for name, value in {"S": size, "two": 2}.items()
    )
    nodes = [
        _node("Transpose", [IMAGES], "planes", perm=[0, 3, 1, 2]),
        _node("Shape", ["planes"], "N_3", end=2),
        _node("Shape", ["planes"], "H", start=2, end=3),
        _node("Shape", ["planes"], "W", start=3, end=4),
        # H > S and 2 W < H + S
        _node("Greater", ["H", "S"], "is_higher"),
        _node("Mul", ["W", "two"], "twice_W"),
        _node("Add", ["H", "S"], "H_and_S"),
        _node("Less", ["twice_W", "H_and_S"], "is_narrow"),
        _node("And", ["is_higher", "is_narrow"], "height_first"),
        _node("Where", ["height_first", "S", "H"], "first_H"),
        *_resized("planes", ["first_H", "W"], "once"),
        *_resized("once", ["first_H", "S"], "twice"),
        *_resized("twice", ["S", "S"], "small"),
        _node("Transpose", ["small"], "square", perm=[0, 2, 3, 1]),
    ]
    later = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *later])


def _resized(given: str, sides: list[str], found: str) -> list[onnx.NodeProto]:
    """Return the nodes from (N, 3, h, w) uint8 to the sides (height, width)."""
    shape = f"{found}_shape"
    return [
        _node("Concat", ["N_3", *sides], shape, axis=0),
        _node("Resize", [given, "", "", shape], found, **_BICUBIC),
    ]


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    names = [name if name in ("", IMAGES) else f"{_PREFIX}{name}" for name in inputs]
    name = f"{_PREFIX}{output}"
    return helper.make_node(kind, names, [name], name=name, **attributes)
