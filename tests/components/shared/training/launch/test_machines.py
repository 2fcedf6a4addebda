"""Two launchers on the loopback device, which stand for two machines, train one model."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.shared.training.launch import torchrun
from components.shared.training.launch.failures import Failure
from components.shared.training.launch.torchrun import Machine, launch, run_processes

HANG_SECONDS = 3.0


def _job(directory: Path, **job: object) -> Path:
    file = directory / "job.json"
    file.write_text(json.dumps({"changes": {"epochs": 50}} | job), encoding="utf-8")
    return file


def _on_two_machines(directory: Path, n_processes: int, **job: object) -> list[Failure | None]:
    """What failed on each of them."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def run(rank: int) -> Failure | None:
        (directory / str(rank)).mkdir()
        return run_processes(
            "tests.components.shared.training.toy",
            _job(directory / str(rank), **job),
            n_processes=n_processes,
            hang_seconds=HANG_SECONDS if job.get("fault") == "hang" else 60.0,
            machine=Machine(rank=rank, count=2, address="127.0.0.1", port=port, name="test"),
        )

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, range(2)))


@pytest.mark.slow
def test_two_machines_give_the_weights_of_one(tmp_path: Path) -> None:
    changes = {"epochs": 3, "micro_batch_size": 3}
    assert _on_two_machines(tmp_path, 1, changes=changes) == [None, None]
    assert not (tmp_path / "1/weights.safetensors").exists()
    launch("tests.components.shared.training.toy", _job(tmp_path, changes=changes), n_processes=1)
    alone = load_file(tmp_path / "weights.safetensors")
    for name, value in load_file(tmp_path / "0/weights.safetensors").items():
        torch.testing.assert_close(value, alone[name], rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("kill", "rank 1 was killed by SIGKILL in step 3; out of memory?"),
        ("hang", "rank 1 hangs in step 3: no sign of life for "),
    ],
)
def test_the_machine_whose_rank_failed_names_it_and_the_other_claims_no_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    monkeypatch.setattr(torchrun, "n_oom_kills", lambda: None)
    first, second = _on_two_machines(tmp_path, 1, fault=fault)
    assert first is not None
    assert second is not None
    assert (first.is_cause, second.is_cause) == (False, True)
    assert str(first.error).startswith("rank 0 failed in step 3: RuntimeError")
    assert str(second.error).startswith(message)
