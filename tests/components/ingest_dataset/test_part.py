"""Parts of a listing, checked by several tasks and merged, give the bytes of one ingest."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.ingest_dataset import chunks
from components.ingest_dataset.config import IngestConfig, PartConfig
from components.ingest_dataset.part import run_part
from components.ingest_dataset.sources.records import Part
from components.ingest_dataset.step import run as ingest
from components.shared.contracts.errors import ArtifactError, ConfigError, DataError
from components.shared.data.dataset import Dataset
from tests.components.ingest_dataset.test_chunks import digests

SIDE = 32


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_MOST_ROWS", 7)


def encoded(number: int, *, quality: int = 90) -> bytes:
    """A picture that is no near-duplicate of another number's, but of itself at any quality."""
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((96, 72), Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=quality
    )
    return buffer.getvalue()


def pictures() -> list[tuple[str, bytes, str, str]]:
    """Name, bytes, class and group of files: plain ones, copies, near-duplicates, broken ones."""
    found = [(f"{n}.jpg", encoded(n), f"{n % 2}", f"drive{n % 5}") for n in range(40)]
    found += [(f"again/{n}.jpg", encoded(n), f"{n % 2}", "") for n in range(0, 12, 2)]
    found += [("contradicts.jpg", encoded(3), "0", "drive9")]
    found += [(f"near/{n}.jpg", encoded(n, quality=60), f"{n % 2}", "") for n in range(20, 30)]
    found += [(f"broken/{n}.jpg", b"no image", "1", "") for n in range(4)]
    return found


def write_csv(root: Path) -> dict[str, Any]:
    lines = ["path,label,group,weather"]
    for name, data, label, group in pictures():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        lines.append(f"{name},{label},{group},rain")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return {"data": str(root)}


def write_folders(root: Path) -> dict[str, Any]:
    for name, data, label, _ in pictures():
        file = root / ("None", "Roadwork")[int(label)] / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return {"data": str(root)}


def write_parquet(root: Path) -> dict[str, Any]:
    """Rows without paths in several row groups of two files, and a further source."""
    root.mkdir(parents=True)
    rows = [
        {"image": {"bytes": data}, "label": int(label), "group": group}
        for _, data, label, group in pictures()
    ]
    for number in range(2):
        table = pa.Table.from_pylist(rows[number::2])
        pq.write_table(table, root / f"{number}.parquet", row_group_size=4)
    return {"data": str(root), "extra_sources": json.dumps([write_csv(root.parent / "second")])}


@pytest.mark.parametrize("write", [write_csv, write_folders, write_parquet])
@pytest.mark.parametrize("n_parts", [2, 5])
def test_merged_parts_have_the_bytes_of_one_ingest(
    tmp_path: Path, write: Any, n_parts: int
) -> None:
    config = IngestConfig(**write(tmp_path / "source"), image_size=SIDE, max_reject_fraction=0.2)
    ingest(config, dataset=tmp_path / "one")
    parts = written(config, tmp_path, n_parts)
    ingest(config, dataset=tmp_path / "merged", parts=tuple(reversed(parts)))
    assert digests(tmp_path / "merged") == digests(tmp_path / "one")

    data = Dataset.open(tmp_path / "merged")
    assert all(sample.brightness and sample.sharpness for sample in data.samples)
    manifest = data.manifest
    assert manifest.summary["n_rejected"] >= 4
    assert manifest.summary["n_near_duplicate_pairs"] >= 10
    assert manifest.summary["n_exact_duplicates"] >= 7
    assert all(len(list(part.glob("chunk-*"))) for part in parts)


def test_duplicates_are_found_across_parts(tmp_path: Path) -> None:
    config = IngestConfig(
        **write_csv(tmp_path / "source"), image_size=SIDE, max_reject_fraction=0.2
    )
    parts = written(config, tmp_path, 2)
    in_part = {
        entry["path"]: number
        for number, part in enumerate(parts)
        for file in part.glob("chunk-*/descriptions.json")
        for entry in json.loads(file.read_text())
    }
    ingest(config, dataset=tmp_path / "dataset", parts=parts)
    pairs = (tmp_path / "dataset/duplicates.csv").read_text()
    for kind, names in (("near", range(20, 30)), ("again", range(0, 12, 2))):
        across = [n for n in names if in_part[f"{kind}/{n}.jpg"] != in_part[f"{n}.jpg"]]
        assert across
        assert all(f"{kind}/{n}.jpg" in pairs for n in across)


def written(config: IngestConfig, root: Path, n_parts: int) -> tuple[Path, ...]:
    """Run the task of every part."""
    paths = []
    for number in range(1, n_parts + 1):
        path = root / f"part-{number}-of-{n_parts}"
        values = config.to_json() | {"part": number, "n_parts": n_parts}
        run_part(PartConfig.from_mapping(values), part=path)
        paths.append(path)
    return tuple(paths)


def test_every_name_is_in_one_part_and_another_name_moves_none() -> None:
    names = [f"{number}.jpg" for number in range(1000)]
    for count in (1, 2, 7):
        parts = [Part(number, count) for number in range(1, count + 1)]
        owners = [[part.number for part in parts if part.has("natix", name)] for name in names]
        assert all(len(owner) == 1 for owner in owners)
        sizes = np.bincount([owner[0] for owner in owners], minlength=count + 1)[1:]
        assert sizes.min() > 0.7 * len(names) / count
    assert Part(1, 2).has("a", "caf\udce9.jpg") != Part(2, 2).has("a", "caf\udce9.jpg")


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    config = IngestConfig(
        **write_csv(tmp_path / "source"), image_size=SIDE, max_reject_fraction=0.2
    )
    first, second = written(config, tmp_path, 2)

    def merge(*parts: Path, **changes: Any) -> None:
        ingest(dataclasses.replace(config, **changes), dataset=tmp_path / "merged", parts=parts)

    with pytest.raises(ArtifactError, match=r"parts are number \[1\], expected each of 1 to 2"):
        merge(first)
    with pytest.raises(ArtifactError, match=r"parts are number \[1, 1\]"):
        merge(first, first)
    with pytest.raises(ArtifactError, match="of other options"):
        merge(first, second, near_duplicate_distance=3)
    with pytest.raises(ConfigError, match="part=3 must be at most n_parts=2"):
        PartConfig(data="x", part=3, n_parts=2)

    pixels = next(second.glob("chunk-*/pixels.npy"))
    pixels.write_bytes(pixels.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=r"pixels\.npy"):
        merge(first, second)
    assert not (tmp_path / "merged").exists()


def test_too_many_rejects_are_counted_over_all_parts(tmp_path: Path) -> None:
    config = IngestConfig(**write_csv(tmp_path / "source"), image_size=SIDE)
    parts = written(config, tmp_path, 2)
    with pytest.raises(DataError, match="4 of 61 images are unusable"):
        ingest(config, dataset=tmp_path / "dataset", parts=parts)


def test_a_part_without_files_is_none(tmp_path: Path) -> None:
    """Two files in eight parts."""
    for name in ("None/a.jpg", "Roadwork/b.jpg"):
        file = tmp_path / "source" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(encoded(len(name)))
    config = IngestConfig(data=str(tmp_path / "source"), image_size=SIDE)
    ingest(config, dataset=tmp_path / "one")
    ingest(config, dataset=tmp_path / "merged", parts=written(config, tmp_path, 8))
    assert digests(tmp_path / "merged") == digests(tmp_path / "one")
