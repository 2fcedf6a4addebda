"""Variables that CUDA and PyTorch read, as the ranks get them."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.shared.contracts.artifacts import write_json
from components.shared.contracts.config import Config
from components.shared.contracts.options import ComputeConfig
from components.shared.training.launch import torchrun
from components.shared.training.launch.torchrun import launch
from components.shared.training.launch.variables import computation_variables

NAMES = (
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "CUBLAS_WORKSPACE_CONFIG",
    "FLASH_ATTENTION_DETERMINISTIC",
    "TORCHINDUCTOR_CACHE_DIR",
)
ALLOCATOR = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
ONE_ORDER = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "FLASH_ATTENTION_DETERMINISTIC": "1"}


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Config(), ALLOCATOR),
        (ComputeConfig(), ALLOCATOR),
        (ComputeConfig(deterministic=False), ALLOCATOR),
        (ComputeConfig(deterministic=True), ALLOCATOR | ONE_ORDER),
        (ComputeConfig(compile="default"), ALLOCATOR | {"TORCHINDUCTOR_CACHE_DIR": "/x/compiled"}),
    ],
)
def test_options_decide(config: Config, expected: dict[str, str]) -> None:
    job = {"config": config.to_json(), "checkpoints": {"directory": "/x/key"}}
    assert computation_variables(job) == expected


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "max_split_size_mb:64")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    assert computation_variables({"config": {"deterministic": True}}) == {
        "FLASH_ATTENTION_DETERMINISTIC": "1"
    }


def test_nccls_variables_and_the_steps_reach_the_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, str]] = []

    def popen(command: list[str], env: dict[str, str]) -> "subprocess.Popen[bytes]":
        started.append(env)
        return subprocess.Popen(["true"])

    monkeypatch.setattr(torchrun, "subprocess", SimpleNamespace(Popen=popen))
    monkeypatch.setenv("NCCL_P2P_DISABLE", "1")
    monkeypatch.setenv("STREETVISION_DEVICE", "cpu")
    write_json(tmp_path / "job.json", {"config": {"deterministic": True}})
    launch("module", tmp_path / "job.json", n_processes=1)
    expected = {"NCCL_P2P_DISABLE": "1", "STREETVISION_DEVICE": "cpu"} | ONE_ORDER
    assert expected.items() <= started[0].items()
