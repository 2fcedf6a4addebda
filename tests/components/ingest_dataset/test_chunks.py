"""An ingest that was ended continues, here or from the store, and gives the same bytes."""

import fcntl
import hashlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.ingest_dataset import check, chunks
from components.ingest_dataset.chunks import rows_of_chunk
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import DataError, TransientError
from components.shared.data.dataset import Dataset
from components.shared.storage import Store, StoreSettings
from pipelines.sources import ROOT
from tests.components.conftest import write_source

SIDE, ROWS, N_IMAGES = 16, 5, 23
KILLED = """
import os, signal, sys
from components.ingest_dataset import check, chunks
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run
data, output, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
chunks._MOST_ROWS = {rows}
decode, n_decoded = check.decode_resized, 0
def decode_some(*given, **named):
    global n_decoded
    n_decoded += 1
    if n_decoded > most:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(*given, **named)
check.decode_resized = decode_some
from pathlib import Path
run(IngestConfig(data=data, image_size={side}, source_fingerprint="f"), dataset=Path(output))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_source(tmp_path / "source", N_IMAGES)
    return tmp_path / "source"


@pytest.fixture(autouse=True)
def small_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_MOST_ROWS", ROWS)
    monkeypatch.setenv(Variable.CHECKPOINTS, str(tmp_path / "checkpoints"))


def config_of(source: Path, **options: object) -> IngestConfig:
    given = {"data": str(source), "image_size": SIDE, "source_fingerprint": "f"}
    return IngestConfig(**{**given, **options})  # type: ignore[arg-type]


def digests(artifact: Path) -> dict[str, str]:
    """SHA-256 of every file, the manifest's too."""
    return {
        file.relative_to(artifact).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(artifact.rglob("*"))
        if file.is_file()
    }


def counted(monkeypatch: pytest.MonkeyPatch, *, fail_after: int | None = None) -> list[int]:
    """Count decoded files in the list that is returned; after `fail_after` of them fail."""
    decode = check.decode_resized
    sizes: list[int] = []

    def decode_counted(data: bytes, **options: int) -> np.ndarray:
        if fail_after is not None and len(sizes) >= fail_after:
            raise TransientError("planted")
        sizes.append(len(data))
        return decode(data, **options)

    monkeypatch.setattr(check, "decode_resized", decode_counted)
    return sizes


def interrupted(source: Path, output: Path, fail_after: int) -> None:
    """Run an attempt that fails after so many files."""
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, fail_after=fail_after)
        with pytest.raises(TransientError, match="planted"):
            ingest(config_of(source), dataset=output)


def n_files(source: Path) -> int:
    return len((source / "labels.csv").read_text().splitlines()) - 1


def test_a_killed_ingest_goes_on_and_gives_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(config_of(source), dataset=tmp_path / "whole")
    code = KILLED.format(rows=ROWS, side=SIDE)
    arguments = [str(source), str(tmp_path / "dataset"), "13"]
    killed = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "dataset").exists()

    decoded = counted(monkeypatch)
    ingest(config_of(source), dataset=tmp_path / "dataset")
    assert len(decoded) < n_files(source) - ROWS
    assert digests(tmp_path / "dataset") == digests(tmp_path / "whole")
    assert not (tmp_path / "checkpoints").exists()


def test_a_finished_chunk_is_not_decoded_again_and_a_damaged_one_is(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ingest(config_of(source), dataset=tmp_path / "whole")
    interrupted(source, tmp_path / "dataset", 2 * ROWS + 1)
    found = sorted((tmp_path / "checkpoints").glob("*/chunk-*"))
    assert [path.name for path in found] == ["chunk-000000", "chunk-000001"]
    damaged = found[0] / "pixels.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")

    decoded = counted(monkeypatch)
    ingest(config_of(source), dataset=tmp_path / "dataset")
    assert len(decoded) == n_files(source) - ROWS
    printed = capsys.readouterr().out
    assert "warning: a damaged part is made again" in printed
    assert f"{ROWS} images were checked by an earlier attempt" in printed
    assert digests(tmp_path / "dataset") == digests(tmp_path / "whole")


def test_other_inputs_reuse_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(source, tmp_path / "dataset", 2 * ROWS + 1)
    decoded = counted(monkeypatch)
    ingest(config_of(source, source_fingerprint="other"), dataset=tmp_path / "dataset")
    assert len(decoded) == n_files(source)


def test_without_a_fingerprint_nothing_outlives_the_attempt(source: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, fail_after=2 * ROWS + 1)
        with pytest.raises(TransientError):
            ingest(config_of(source, source_fingerprint=""), dataset=tmp_path / "out/dataset")
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "checkpoints").exists()


def test_a_permanent_error_leaves_no_chunks(source: Path, tmp_path: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file() and file.suffix != ".csv":
            file.write_bytes(b"no image")
    with pytest.raises(DataError, match="unusable"):
        ingest(config_of(source), dataset=tmp_path / "dataset")
    assert not (tmp_path / "checkpoints").exists()


def test_a_second_process_with_the_same_inputs_works_apart(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest(config_of(source), dataset=tmp_path / "whole")
    interrupted(source, tmp_path / "dataset", 2 * ROWS + 1)
    (folder,) = (tmp_path / "checkpoints").iterdir()
    with (folder / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ingest(config_of(source), dataset=tmp_path / "dataset")

    assert "is in use" in capsys.readouterr().out
    assert (folder / "chunk-000000").exists()
    assert digests(tmp_path / "dataset") == digests(tmp_path / "whole")


def test_a_folder_that_cannot_be_made_is_no_error(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(Variable.CHECKPOINTS, str(tmp_path / "file/checkpoints"))
    ingest(config_of(source), dataset=tmp_path / "dataset")
    assert len(Dataset.open(tmp_path / "dataset").samples) == N_IMAGES


def test_another_machine_goes_on_from_the_store(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: StoreSettings, bucket: str
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(Variable.CHECKPOINT_STORE, f"s3://{bucket}/checkpoints")
    ingest(config_of(source), dataset=tmp_path / "whole")

    interrupted(source, tmp_path / "dataset", 3 * ROWS)
    stored = [item.key for item in Store(s3).list(bucket)]
    assert all(key.startswith("checkpoints/ingest/") for key in stored)
    assert sum(key.endswith("/manifest.json") for key in stored) >= 2
    shutil.rmtree(tmp_path / "checkpoints")

    decoded = counted(monkeypatch)
    ingest(config_of(source), dataset=tmp_path / "dataset")
    assert len(decoded) <= n_files(source) - 2 * ROWS
    assert digests(tmp_path / "dataset") == digests(tmp_path / "whole")
    assert Store(s3).list(bucket) == []


def test_a_store_that_refuses_is_a_warning(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    s3: StoreSettings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(Variable.CHECKPOINT_STORE, "s3://no-such-bucket/checkpoints")
    ingest(config_of(source), dataset=tmp_path / "dataset")
    assert len(Dataset.open(tmp_path / "dataset").samples) > 0
    assert capsys.readouterr().out.count("warning: the store") == 1


def test_a_chunk_has_a_quarter_of_a_gigabyte_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_MOST_ROWS", 2048)
    assert [rows_of_chunk(size) for size in (16, 224, 672, 2048)] == [2048, 1783, 198, 21]
