"""A Triton model repository of a bundle's ONNX form.

NAME/config.pbtxt, NAME/1/model.onnx
                    the graph of one view; of several, of the full image alone. Beside a graph lies
                    the file with its weights, if they are too large to be inside
NAME/decisions.txt  name of each code of the output `decision`, one a line
NAME/classes.txt    labels of the output `logits`, for Triton's classification extension
NAME_tiles/         of several views: all of them, from the image and the first graph's features
NAME_all_views/     of several views: an ensemble of both

A graph takes pixels, (N, S, S, 3) uint8 RGB of the bundle's size, and holds everything that comes
after: what is left to a client is to decode its image. A graph that resizes takes those of any
size; Triton puts images of one size in a batch. An ensemble in front of the graph would have
nothing to do that ONNX can, since ONNX Runtime decodes no JPEG; Triton's other back ends decode and
resize in other ways than the bundle was calibrated with. Only models of several views have one.
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from components.shared.contracts.artifacts import read_manifest
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.listing import shown
from components.shared.serving.bundle import Bundle
from components.shared.serving.formats.onnx_format import MODEL, TILES, weights_of
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from components.shared.serving.formats.session import cpu_session

MAX_BATCH, PREFERRED_BATCHES = 32, [8, 16]
QUEUE_DELAY_MICROSECONDS = 2000  # a tenth of what a small model needs for an image on one core
MAX_QUEUE = 256  # requests; one above it is refused at once
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DECISIONS, _CLASSES = "decisions.txt", "classes.txt"
_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float)": "TYPE_FP32",
}


class _Word(str):
    """A value of an enumeration, which the text format has without quotes."""

    __slots__ = ()


class Tensor(NamedTuple):
    """An input or output of a graph: its name, Triton's data type, its axes without the batch."""

    name: str
    data_type: str
    dims: tuple[int, ...]

    def message(self, **more: Any) -> dict[str, Any]:
        """Return its entry in a configuration.

        A tensor without further axes is one of length 1 outside of the graph, as Triton requires.
        """
        without_axes: dict[str, Any] = {} if self.dims else {"reshape": {"shape": []}}
        return {
            "name": self.name,
            "data_type": _Word(self.data_type),
            "dims": list(self.dims or (1,)),
            **without_axes,
            **more,
        }


def require_name(name: str) -> None:
    """Raise ConfigError for what cannot be the name of a model."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"name={shown(name)} must be letters, digits, '-' and '_', at most 64, and begin with a"
            " letter or digit"
        )


def write_repository(
    predictor: OnnxPredictor,
    bundle: Bundle,
    folder: Path,
    *,
    name: str,
    n_instances: int,
    on_gpu: bool,
) -> list[str]:
    """Write the models of a form of a bundle.

    Args:
        predictor: Has loaded the form, so that onnxruntime accepts its graphs.
        bundle: The bundle, verified.
        folder: New folder of the repository.
        name: Of the model that is asked; others have it as the beginning of their names.
        n_instances: Executions at once; on GPUs, on each of them.
        on_gpu: Whether they run on GPUs.

    Returns:
        The names of the models.

    Raises:
        ConfigError: `name` is none.
    """
    require_name(name)
    source = bundle.path / predictor.form
    instances = {"count": n_instances, "kind": _Word("KIND_GPU" if on_gpu else "KIND_CPU")}
    parameters = _parameters(predictor, bundle)
    graphs = {name: MODEL} | ({f"{name}_tiles": TILES} if predictor.format.has_tiles else {})
    tensors = {}
    for model, graph in graphs.items():
        version = folder / model / "1"
        version.mkdir(parents=True)
        shutil.copyfile(source / graph, version / "model.onnx")
        weights = weights_of(source / graph)
        if weights.exists():
            shutil.copyfile(weights, version / weights.name)  # the name that the graph has for them
        _write_labels(folder / model, predictor)
        tensors[model] = _tensors(version / "model.onnx")
        size = predictor.format.image_size
        document = _configuration(model, *tensors[model], instances, parameters, size)
        _write(folder / model, document)

    if predictor.format.has_tiles:
        model = f"{name}_all_views"
        (folder / model / "1").mkdir(parents=True)
        (folder / model / "1/.keep").touch()  # Triton wants the folder; a store drops empty ones
        _write_labels(folder / model, predictor)
        _write(folder / model, _ensemble(model, tensors, parameters))
        return [*graphs, model]
    return list(graphs)


def _configuration(
    name: str,
    inputs: list[Tensor],
    outputs: list[Tensor],
    instances: Mapping[str, Any],
    parameters: list[dict[str, Any]],
    image_size: int,
) -> dict[str, Any]:
    """Return the configuration of a graph, which is warmed up with images of `image_size`."""
    return {
        "name": name,
        "backend": "onnxruntime",
        "max_batch_size": MAX_BATCH,
        "input": [tensor.message() for tensor in inputs],
        "output": _outputs(outputs),
        "dynamic_batching": {
            "preferred_batch_size": PREFERRED_BATCHES,
            "max_queue_delay_microseconds": QUEUE_DELAY_MICROSECONDS,
            "default_queue_policy": {"max_queue_size": MAX_QUEUE},
        },
        "instance_group": [instances],
        # The first request of a size pays for its memory; none of a client does.
        "model_warmup": [
            _warm_up(inputs, n_images, image_size)
            for n_images in (1, *PREFERRED_BATCHES, MAX_BATCH)
        ],
        "parameters": parameters,
    }


def _ensemble(
    name: str,
    tensors: Mapping[str, tuple[list[Tensor], list[Tensor]]],
    parameters: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the ensemble: the full image's features go to the second graph, which answers."""
    (first, (inputs, _)), (second, (_, outputs)) = tensors.items()
    answered = {tensor.name: tensor.name for tensor in outputs}
    steps = [
        (first, {"images": "images"}, {"features": "features"}),
        (second, {"images": "images", "features": "features"}, answered),
    ]
    return {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": MAX_BATCH,
        "input": [tensor.message() for tensor in inputs],
        "output": [
            {k: v for k, v in entry.items() if k != "reshape"} for entry in _outputs(outputs)
        ],
        "ensemble_scheduling": {
            "step": [
                {
                    "model_name": model,
                    "model_version": -1,
                    "input_map": _entries(given),
                    "output_map": _entries(found),
                }
                for model, given, found in steps
            ]
        },
        "parameters": parameters,
    }


def _outputs(tensors: list[Tensor]) -> list[dict[str, Any]]:
    labelled = {"logits": {"label_filename": _CLASSES}}
    return [tensor.message(**labelled.get(tensor.name, {})) for tensor in tensors]


def _warm_up(inputs: list[Tensor], batch_size: int, image_size: int) -> dict[str, Any]:
    """Return a request of drawn values; free axes are of the model's size."""
    return {
        "name": f"batch_{batch_size}",
        "batch_size": batch_size,
        "inputs": [
            {
                "key": tensor.name,
                "value": {
                    "data_type": _Word(tensor.data_type),
                    "dims": [image_size if length < 0 else length for length in tensor.dims],
                    "random_data": True,
                },
            }
            for tensor in inputs
        ],
    }


def _parameters(predictor: OnnxPredictor, bundle: Bundle) -> list[dict[str, Any]]:
    """Return what a client may ask Triton for: codes, digest, and when the full image is enough."""
    early_exit = predictor.format.early_exit
    known = {
        "decisions": json.dumps(predictor.format.decisions, ensure_ascii=False),
        "bundle": read_manifest(bundle.path).content_digest,
        "form": predictor.form,
    }
    if early_exit is not None:
        bounds = ("certain_from", "positive_from", "negative_to")
        known["early_exit"] = json.dumps({name: getattr(early_exit, name) for name in bounds})
    return [{"key": key, "value": {"string_value": value}} for key, value in sorted(known.items())]


def _entries(mapping: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in mapping.items()]


def _tensors(graph: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Return inputs and outputs of a graph."""
    session = cpu_session(graph, threads=1)
    described = [
        [Tensor(entry.name, _TYPES[entry.type], _dims(entry.shape)) for entry in entries]
        for entries in (session.get_inputs(), session.get_outputs())
    ]
    return described[0], described[1]


def _dims(shape: list[int | str]) -> tuple[int, ...]:
    """Return the axes without the batch; one that is free has a name in ONNX, and -1 in Triton."""
    return tuple(length if isinstance(length, int) else -1 for length in shape[1:])


def _write_labels(folder: Path, predictor: OnnxPredictor) -> None:
    for name, labels in (
        (_DECISIONS, predictor.format.decisions),
        (_CLASSES, predictor.policy.class_names),
    ):
        (folder / name).write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")


def _write(folder: Path, document: Mapping[str, Any]) -> None:
    text = "".join(f"{line}\n" for line in _lines(document))
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")


def _lines(message: Mapping[str, Any], indent: str = "") -> Iterable[str]:
    """Yield a message in protobuf's text format; a list of messages is a repeated field."""
    for name, value in message.items():
        repeated = (
            value if isinstance(value, list) and value and isinstance(value[0], dict) else None
        )
        for entry in [value] if repeated is None else repeated:
            if isinstance(entry, dict):
                yield f"{indent}{name} {{"
                yield from _lines(entry, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_scalar(entry)}"


def _scalar(value: Any) -> str:
    return str(value) if isinstance(value, _Word) else json.dumps(value, ensure_ascii=False)
