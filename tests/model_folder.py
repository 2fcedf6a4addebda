"""A model folder that passes its screening, written without torch."""

import json
import struct
from pathlib import Path

CONFIG = {"model_type": "dinov2", "num_hidden_layers": 1}


def write_model_folder(folder: Path) -> None:
    """Write a DINOv2 of one layer whose weights are one number.

    It stands for a backbone where nothing loads it.
    """
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(weights("a"))


def weights(name: str) -> bytes:
    """Return a safetensors file of one number."""
    header = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack("<f", 1.0)
