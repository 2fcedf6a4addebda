"""Engines of TensorRT from a bundle's ONNX form, for the GPU that builds them.

engine.json         bundle's digest, GPU, TensorRT's version, and how the outputs were compared
model.plan          the graph of one view; of several, of the full image alone
tiles.plan          of several views: all of them
format.json         of the form: what the graphs take and give

The package `tensorrt` is that of the machine, and no requirement. Nothing of a bundle runs as
Python: onnxruntime has accepted the graphs before TensorRT parses them, so that they hold no
operator of others, and no weights outside of the bundle.
"""

import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifacts import read_manifest, write_json
from components.shared.contracts.errors import ArtifactError, ConfigError, PermanentError
from components.shared.contracts.formats import ONNX
from components.shared.serving.bundle import DOCUMENT, Bundle
from components.shared.serving.formats.onnx_format import FORMAT, MODEL, TILES
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from components.shared.vision.reference_image import reference_image

ENGINE = "engine.json"
MOST_IMAGES, USUAL_IMAGES = 32, 8  # in a batch; the engine is fastest with the second
# Largest difference from the stored logits and from onnxruntime, relative where a value exceeds 1:
# that of another order of float32 sums, as where a bundle is opened with other libraries.
TOLERANCE = 1e-3

_Arrays = dict[str, npt.NDArray[Any]]


def load_tensorrt() -> Any:
    """Return the package; raise ConfigError where it, or a GPU, is not there."""
    try:
        trt = importlib.import_module("tensorrt")
    except ImportError:
        raise ConfigError(
            "the package tensorrt is not installed; an engine fits one GPU and one version: run"
            " this on the machine that will use it, after pip install tensorrt"
        ) from None

    import torch

    if not torch.cuda.is_available():
        raise ConfigError("no GPU is visible; an engine is built on the GPU that will run it")
    return trt


def write_engines(trt: Any, bundle: Bundle, folder: Path) -> list[str]:
    """Build and compare the engines of a bundle's form `onnx`.

    Args:
        trt: The package tensorrt.
        bundle: The bundle, verified.
        folder: New folder.

    Returns:
        The files of the engines.

    Raises:
        ArtifactError: The bundle has no form `onnx`, onnxruntime refuses it, its graph resizes, or
            it stores no reference outputs.
        PermanentError: TensorRT cannot build a graph, or an engine answers otherwise.
    """
    predictor = OnnxPredictor(bundle)
    if bundle.reference_logits is None:
        raise ArtifactError(
            f"{bundle.place(DOCUMENT)}: has no reference_logits to compare with; export the bundle"
            " again"
        )

    if predictor.format.resizes:
        raise ArtifactError(
            f"{bundle.place(ONNX)}: its graph resizes, and engines are of graphs of one size;"
            " export the bundle with onnx_resize=False"
        )

    form = bundle.path / ONNX
    graphs = [MODEL, TILES] if predictor.format.has_tiles else [MODEL]
    folder.mkdir()
    files = []
    for graph in graphs:
        file = folder / Path(graph).with_suffix(".plan").name
        file.write_bytes(build_engine(trt, form / graph, bundle.place(f"{ONNX}/{graph}")))
        files.append(file.name)

    difference = _compare(trt, bundle, predictor, [folder / name for name in files])
    shutil.copyfile(form / FORMAT, folder / FORMAT)
    write_json(
        folder / ENGINE,
        {
            "bundle": read_manifest(bundle.path).content_digest,
            "tensorrt": str(trt.__version__),
            "gpu": _gpu_name(),
            "most_images": MOST_IMAGES,
            "largest_difference": difference,
        },
    )
    return files


def build_engine(trt: Any, graph: Path, where: str) -> bytes:
    """Return the serialised engine of a graph, in float32 without TF32, for 1 to 32 images.

    Raises PermanentError with TensorRT's own words where it cannot parse or build the graph.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        reasons = [parser.get_error(number).desc() for number in range(parser.num_errors)]
        raise PermanentError(
            f"{where}: TensorRT {trt.__version__} cannot parse it ({' '.join(reasons).strip()})"
        )

    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; it keeps 10 bits of a float's 23
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        given = network.get_input(number)
        axes = tuple(given.shape)[1:]
        shapes = [(n_images, *axes) for n_images in (1, USUAL_IMAGES, MOST_IMAGES)]
        profile.set_shape(given.name, *shapes)
    config.add_optimization_profile(profile)

    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise PermanentError(f"{where}: TensorRT {trt.__version__} built no engine of it")
    return bytes(plan)


def check_outputs(
    bundle: Bundle, expected: list[_Arrays], found: list[_Arrays], names: list[str]
) -> float:
    """Compare the outputs of engines for the reference image; return the largest difference.

    Args:
        bundle: Has the stored logits, which the last graph must give.
        expected: For each graph, the outputs of onnxruntime.
        found: For each graph, the outputs of its engine.
        names: What messages call the engines.

    Raises:
        PermanentError: Another decision or class, or a number that differs by more than
            `TOLERANCE`.
    """
    largest = 0.0
    for name, wanted, got in zip(names, expected, found, strict=True):
        for output, values in wanted.items():
            if values.dtype.kind != "f":
                if not np.array_equal(values, got[output]):
                    raise PermanentError(
                        f"{name}: {output} of the reference image is {got[output].tolist()}, the"
                        f" bundle's {values.tolist()}; this GPU computes another model"
                    )
                continue
            largest = max(largest, _difference(name, output, values, got[output]))

    stored = np.array([bundle.reference_logits])
    return max(largest, _difference(names[-1], "logits", stored, found[-1]["logits"]))


def _difference(
    name: str, output: str, expected: npt.NDArray[Any], found: npt.NDArray[Any]
) -> float:
    """Return the largest difference, relative where a value exceeds 1; refuse a large one."""
    difference = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    largest = float(difference.max())
    if not largest <= TOLERANCE:  # also for NaN
        raise PermanentError(
            f"{name}: {output} of the reference image differs by {largest:.3g} (> {TOLERANCE:g})"
            " from the bundle's; this GPU computes another model"
        )
    return largest


def _compare(trt: Any, bundle: Bundle, predictor: OnnxPredictor, plans: list[Path]) -> float:
    """Run the engines on the reference image and compare."""
    pixels = reference_image(bundle.spec.image_size)
    given, found = [{"images": pixels}], []
    for plan in plans:
        found.append(run_engine(trt, plan, given[-1]))
        if "features" in found[-1]:
            given.append({"images": pixels, "features": found[-1]["features"]})
    names = [plan.name for plan in plans]
    return check_outputs(bundle, predictor.raw_outputs(pixels), found, names)


def run_engine(trt: Any, plan: Path, given: _Arrays) -> _Arrays:
    """Return all outputs of an engine, in memory that PyTorch has on the GPU.

    Raises PermanentError where TensorRT cannot load or run it; TensorRT has logged why.
    """
    import torch

    where = f"{plan.name}: TensorRT {trt.__version__}"
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise PermanentError(f"{where} cannot load it; its own messages say why")
    context = engine.create_execution_context()
    if context is None:
        raise PermanentError(
            f"{where} cannot make a context to run it, as where the GPU's memory is full; its own"
            " messages say why"
        )

    memory = {name: torch.from_numpy(values).cuda() for name, values in given.items()}
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    for name in names:
        if name in memory:
            context.set_input_shape(name, tuple(memory[name].shape))
    outputs = [name for name in names if name not in memory]
    for name in outputs:
        dtype = torch.from_numpy(np.empty(0, trt.nptype(engine.get_tensor_dtype(name)))).dtype
        shape = tuple(context.get_tensor_shape(name))
        memory[name] = torch.empty(shape, dtype=dtype, device="cuda")
    for name in names:
        context.set_tensor_address(name, memory[name].data_ptr())

    stream = torch.cuda.current_stream()
    if not context.execute_async_v3(stream.cuda_stream):
        raise PermanentError(f"{where} could not run it; its own messages say why")
    stream.synchronize()
    return {name: memory[name].cpu().numpy() for name in outputs}


def _gpu_name() -> str:
    import torch

    return str(torch.cuda.get_device_name())
