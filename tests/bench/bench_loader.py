"""Speed of a second epoch from the dataset artifact against an ImageFolder-style DataLoader.

The peer is what fine-tuning examples do: a folder per class, a torch DataLoader with two workers
that opens, resizes and stacks each file again in every epoch. Ours reads the artifact that the
ingest step has decoded once.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from components.shared.data.dataset import Dataset
from components.shared.training.loop.sampler import step_rng
from tests.bench.measure import Result, interleaved
from tests.bench.photographs import ingested, photographs

_N_FILES, _SIZE, _BATCH = 256, 224, 32


class _ImageFolder(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = (
            Image.open(self.files[index])
            .convert("RGB")
            .resize((_SIZE, _SIZE), Image.Resampling.BICUBIC)
        )
        return torch.from_numpy(np.array(image))


def run() -> list[Result]:
    """Compare both on all images, in batches of 32 in random order.

    The pixels must be equal within decoding.
    """
    with photographs(_N_FILES) as files, TemporaryDirectory() as folder:
        data = ingested(files, Path(folder) / "dataset", _SIZE)
        loader = DataLoader(
            _ImageFolder(files),
            batch_size=_BATCH,
            shuffle=True,
            num_workers=2,
            persistent_workers=True,
        )
        ours, theirs = (np.sort(total) for total in (_ours(data), _peer(loader)))
        assert len(ours) == len(theirs) == _N_FILES
        assert np.allclose(ours, theirs, rtol=0.01)
        seconds = interleaved(
            lambda: _ours(data), lambda: _peer(loader), rounds=5, ours_per_round=3
        )
    peer = "ImageFolder-style DataLoader, 2 workers"
    return [Result(f"second epoch, {_N_FILES} JPEG of 1280 x 720", peer, *seconds, goal=40)]


def _ours(data: Dataset) -> np.ndarray:
    order = step_rng(0, 1, 0).permutation(len(data.samples))
    batches = (
        torch.from_numpy(data.images(order[i : i + _BATCH])) for i in range(0, len(order), _BATCH)
    )
    return np.concatenate([_checksum(batch) for batch in batches])


def _peer(loader: DataLoader[torch.Tensor]) -> np.ndarray:
    return np.concatenate([_checksum(batch) for batch in loader])


def _checksum(batch: torch.Tensor) -> np.ndarray:
    """Return the mean (B,) of every image's middle row, to check that each image came once."""
    return batch[:, _SIZE // 2].float().mean(dim=(1, 2)).numpy()
