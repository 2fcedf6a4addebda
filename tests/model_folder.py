"""A model folder that passes its screening, written without torch."""

import json
import struct
from pathlib import Path


def write_model_folder(folder: Path) -> None:
    """Write a DINOv2 of one layer whose weights are one number.

    It stands for a backbone where nothing loads it.
    """
    folder.mkdir(exist_ok=True)
    config = {"model_type": "dinov2", "num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(config))
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + struct.pack("<f", 1.0)
    (folder / "model.safetensors").write_bytes(weights)
