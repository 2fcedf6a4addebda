"""A rank's process: what the step verified is not hashed again."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from components.shared.contracts import artifacts
from components.shared.contracts.artifacts import Manifest, verify_dir, write_json, writing
from components.shared.contracts.config import Config
from components.shared.contracts.options import TorchrunConfig
from components.shared.training.loop.distributed import World
from components.shared.training.session import rank, restarts
from components.shared.training.session.rank import run_rank
from components.shared.training.session.restarts import run_module


@contextlib.contextmanager
def _alone() -> Iterator[World]:
    yield World(0, 1, torch.device("cpu"))


def _write(path: Path, content: bytes) -> Manifest:
    with writing(path, kind="Thing", step="test", config=Config()) as out:
        (out / "pixels.npy").write_bytes(content)
    return artifacts.read_manifest(path)


def _ended(work: object, config: type[Config], job: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a rank inside this process, without a process group; return its exit code."""
    monkeypatch.setattr(rank, "process_group", _alone)
    monkeypatch.setattr(rank, "leave", sys.exit)
    monkeypatch.setattr(rank, "redact_output", lambda: None)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["rank", "--config", str(job)])
    with pytest.raises(SystemExit) as ended:
        run_rank(work, config, "A rank.")  # type: ignore[arg-type]
    return int(str(ended.value.code))


@pytest.mark.parametrize("is_verified", [True, False])
def test_a_rank_hashes_only_what_its_step_has_not_verified(
    is_verified: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted by what reads a file to hash it; the job is the one that the step writes."""
    manifest = _write(tmp_path / "thing", b"pixels")
    hashed: list[str] = []
    digest_of = artifacts._sha256_unless

    def noted(path: Path, stopped: threading.Event) -> str:
        hashed.append(path.name)
        return digest_of(path, stopped)

    monkeypatch.setattr(artifacts, "_sha256_unless", noted)
    opened: list[Manifest] = []

    def work(config: Config, thing: Path, work: Path, world: World) -> None:
        opened.append(verify_dir(thing, "Thing"))

    def launch(module: str, job: Path, **_: object) -> None:
        assert _ended(work, TorchrunConfig, job, monkeypatch) == 0

    monkeypatch.setattr(restarts, "launch", launch)
    (tmp_path / "work").mkdir()
    verified = {"thing": manifest} if is_verified else None
    run_module(
        "m", TorchrunConfig(), {"thing": tmp_path / "thing"}, tmp_path / "work", verified=verified
    )
    assert opened == [manifest]
    assert hashed == ([] if is_verified else ["pixels.npy"])


def test_a_rank_refuses_another_artifact_than_its_step_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verified = _write(tmp_path / "thing", b"pixels")
    _write(tmp_path / "thing", b"others")

    def work(config: Config, thing: Path, work: Path, world: World) -> None:
        verify_dir(thing, "Thing")

    job = {
        "config": TorchrunConfig().to_json(),
        "paths": {"thing": str(tmp_path / "thing"), "work": str(tmp_path)},
        "verified": {"thing": verified.digest},
    }
    write_json(tmp_path / "job.json", job)
    assert _ended(work, TorchrunConfig, tmp_path / "job.json", monkeypatch) == 42
