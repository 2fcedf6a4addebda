"""The checks of the GPU path, skipped without a GPU, and their rehearsal on a CPU."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu import checks
from tests.gpu.__main__ import Log, main, run
from tests.gpu.checks import CHECKS, missing, n_gpus_needed
from tests.gpu.workload import Workload


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    """The workload on the first GPU."""
    return Workload(tmp_path_factory.mktemp("gpu"), torch.device("cuda", 0))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_a_gpu(
    work: Workload,
    check: Callable[[Workload], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STREETVISION_DEVICE", "cuda")  # of the processes that a check starts
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    if reason := missing(check, torch.cuda.device_count()):
        pytest.skip(reason)
    check(work)


def test_a_torch_that_cannot_train_with_several_processes_is_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert {missing(check, 2) for check in CHECKS} == {""}

    class Older:
        """Stands for the class of torch 2.11."""

        def __init__(self, module: object, broadcast_buffers: bool = True) -> None:
            del module, broadcast_buffers

    monkeypatch.setattr(checks, "DistributedDataParallel", Older)
    assert [missing(check, 2) for check in CHECKS if missing(check, 2)] == [
        "needs DistributedDataParallel(forward_sync_buffers=), as in torch 2.13"
    ]


def test_all_that_a_cpu_can_run_is_rehearsed(tmp_path: Path) -> None:
    log = Log(tmp_path / "out")
    work = Workload(tmp_path, torch.device("cpu"), small=True)
    run(work, log, seconds=600, n_gpus=0)
    assert not log.failed, [row for row in log.rows if row["state"] == "failed"]
    skipped = {row["name"] for row in log.rows if row["state"] == "skipped"}
    assert skipped == {check.__name__ for check in CHECKS if n_gpus_needed(check)}

    lines = (tmp_path / "out" / "gpu.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["name"] for line in lines] == [row["name"] for row in log.rows]
    trained = next(row for row in log.rows if row["name"] == "train/S/lora/bf16")
    assert 0 < trained["values"]["host_data_share"] < 1

    table = (tmp_path / "out" / "gpu.md").read_text(encoding="utf-8")
    assert "| train/S/lora/bf16 |" in table


def test_what_has_no_time_left_and_what_fails_is_named(tmp_path: Path) -> None:
    log = Log(None)
    run(Workload(tmp_path, torch.device("cpu"), small=True), log, seconds=-1.0, n_gpus=0)
    assert {row["state"] for row in log.rows} == {"skipped"}

    log = Log(None)
    broken = Workload(tmp_path / "absent", torch.device("cpu"), small=True)
    run(broken, log, seconds=0.0001, n_gpus=0)
    assert log.failed[:1] == [CHECKS[0].__name__]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_what_it_skips(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tests.gpu"])
    main()
    printed = capsys.readouterr().out
    assert printed.startswith("no GPU: skipped")
    for check in CHECKS:
        assert check.__name__.replace("_", " ") in printed
