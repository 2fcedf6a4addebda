"""A bundle for the benchmarks of serving: DINOv2-small, 224 pixels, random weights, every form.

The weights do not change the work. In onnx_int8 every layer of the backbone is quantised, with
ranges of noise: an export leaves up to an eighth of the layers in float.
"""

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
from transformers import Dinov2Config

from components.export_bundle.quantise import layers, quantise
from components.shared.contracts.formats import ONNX, ONNX_INT8
from components.shared.serving.bundle import POLICY
from components.shared.serving.formats.onnx_format import MODEL as GRAPH
from tests import bundles

SIZE = 224
_SMALL = Dinov2Config(
    hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=SIZE, patch_size=14
)


def write_bundle(folder: Path) -> Path:
    """Write a bundle with the forms onnx and onnx_int8 below a folder; both have one policy."""
    size, config = bundles.SIZE, bundles.CONFIGS["dinov2"]
    bundles.SIZE, bundles.CONFIGS["dinov2"] = SIZE, _SMALL
    try:
        plain = bundles.make_inputs(folder / "inputs").export(folder / "plain")
    finally:
        bundles.SIZE, bundles.CONFIGS["dinov2"] = size, config

    def quantised(out: Path) -> None:
        shutil.copytree(out / ONNX, out / ONNX_INT8)
        shutil.copyfile(out / POLICY, out / ONNX_INT8 / POLICY)
        graph, batches = out / ONNX / GRAPH, [{"images": noise(8)}]
        quantise(graph, out / ONNX_INT8 / GRAPH, folder / "ranges", layers(graph), batches)

    return bundles.resigned(
        bundles.with_onnx(plain, folder / "float"), folder / "bundle", quantised
    )


def noise(n_images: int) -> npt.NDArray[np.uint8]:
    """Return images (N, SIZE, SIZE, 3) of uniform noise, the same each time."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n_images, SIZE, SIZE, 3), dtype=np.uint8)
