"""Static quantisation of a graph's backbone to integers of 8 bits, by onnxruntime.

Activations get 8 bits with one range for each tensor, weights 7 bits with one scale for each output
channel. A CPU without VNNI adds the products of two pairs in 16 bits, which overflow with weights
of 8; with 7 the integers are the same everywhere, and where there is VNNI it is as fast. What is
computed in float between them is not, and may round to another integer on another CPU.
Only products with constant weights are quantised: attention's own products, norms and the patch
embedding stay in float, as do head, calibrator and policy.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from components.export_bundle.onnx_export import BACKBONE, write_model
from components.shared.contracts.listing import say
from components.shared.contracts.machine import n_usable_cores
from components.shared.contracts.progress import progress
from components.shared.serving.formats.onnx_format import weights_of
from components.shared.serving.formats.session import cpu_session
from components.shared.stats.metrics import Floats

Inputs = dict[str, npt.NDArray[Any]]
WEIGHT_BITS = 7  # `reduce_range` of onnxruntime
_KINDS = ["MatMul", "Gemm"]
# Consecutive layers are tried together, so that the largest backbone's sweep has as many steps.
_MOST_UNITS = 24
_MOST_FLOAT = 3  # of these, or an eighth of fewer: each costs speed
# Root mean square of the logits' error, relative to their standard deviation over the images: below
# it nothing is worth a layer in float.
_SMALL_ERROR = 0.02
_WORTH = 0.8  # of the error must at most remain for a unit to stay in float


def layers(graph: Path) -> list[str]:
    """Return the names of the backbone's products with constant weights, in order."""
    found = onnx.load(graph, load_external_data=False).graph
    constants = {tensor.name for tensor in found.initializer}
    return [
        node.name
        for node in found.node
        if node.op_type in _KINDS and node.name.startswith(BACKBONE) and node.input[1] in constants
    ]


def quantise(
    graph: Path,
    target: Path,
    ranges: Path,
    names: Sequence[str],
    batches: Sequence[Inputs] = (),
) -> None:
    """Write a graph of which some layers are quantised; the same bytes each time.

    Args:
        graph: The float graph.
        target: File to write.
        ranges: File with the ranges of activations; it is written where it does not exist.
        names: Layers to quantise, of `layers`; with none the graph is copied.
        batches: Inputs that the ranges are taken from, where there is no such file.
    """
    if not names:  # onnxruntime would take that for all
        write_model(onnx.load(graph), target)
        return

    weights_of(target).unlink(missing_ok=True)  # onnxruntime would add to it
    with _quietly():
        quantize_static(
            graph,
            target,
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_KINDS,
            nodes_to_quantize=list(names),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "MatMulConstBOnly": True,
                # What follows a product is computed in float: rounding it twice costs time too.
                "OpTypesToExcludeOutputQuantization": _KINDS,
            },
            calibration_cache_path=ranges,
            use_external_data_format=weights_of(graph).is_file(),
        )
    write_model(onnx.load(target), target)


def sensitive_layers(graph: Path, ranges: Path, batches: Sequence[Inputs], work: Path) -> list[int]:
    """Find the layers that stay in float because their quantisation costs most.

    Units of consecutive layers are quantised one at a time. Those with the largest error are then
    left out of the whole one after the other, as long as each lowers the whole's error by a fifth;
    at most an eighth of the units.

    Args:
        graph: The float graph.
        ranges: File with the ranges of activations.
        batches: Inputs of some images.
        work: Folder for graphs that are tried.

    Returns:
        Positions of the layers in `layers`.
    """
    names, tried = layers(graph), work / "tried.onnx"
    expected = outputs(graph, batches)

    def error(chosen: Sequence[str]) -> float:
        quantise(graph, tried, ranges, chosen)
        return _relative_error(outputs(tried, batches), expected)

    whole = error(names)
    if whole <= _SMALL_ERROR:
        return []

    units = np.array_split(np.arange(len(names)), min(_MOST_UNITS, len(names)))
    alone = [
        error([names[row] for row in unit])
        for unit in progress(units, "sensitivity of layers to 8 bits", total=len(units))
    ]
    order = np.argsort(-np.array(alone), kind="stable")

    kept: list[int] = []
    for number in order[: min(_MOST_FLOAT, len(units) // 8)].tolist():
        candidate = [*kept, *units[number].tolist()]
        remaining = error([name for row, name in enumerate(names) if row not in candidate])
        if remaining > _WORTH * whole:
            break
        kept, whole = candidate, remaining

    say(f"{len(kept)} of {len(names)} layers stay in float: error of the logits {whole:.3f} SD")
    return sorted(kept)


def outputs(graph: Path, batches: Sequence[Inputs], name: str = "logits") -> Floats:
    """Return one output (N, ...) of a graph, as float64, for batches of inputs."""
    session = cpu_session(graph, n_usable_cores())
    found = [session.run([name], batch)[0] for batch in batches]
    return np.asarray(np.concatenate(found), dtype=np.float64)


def _relative_error(found: Floats, expected: Floats) -> float:
    """Return the error of logits (N, C) relative to how they vary; only differences count."""
    found, expected = (x - x.mean(axis=1, keepdims=True) for x in (found, expected))
    spread = max(float(expected.std(axis=0).max()), np.finfo(np.float64).tiny)
    return float(np.sqrt(((found - expected) ** 2).mean(axis=0).max())) / spread


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """The batches, in order."""

    def __init__(self, batches: Sequence[Inputs]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Inputs | None:
        """Return the next batch; None at the end."""
        return next(self._batches, None)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence the advice to optimise the graph first: a session does that when it is made."""

    def keep(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Please consider")

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)
