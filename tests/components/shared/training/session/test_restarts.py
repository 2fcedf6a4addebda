"""What fails inside a step is started again there, and ends with the bytes of an undisturbed
run.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from components.shared.contracts.artifacts import sha256_file
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import (
    DataError,
    MemoryExhaustedError,
    NotDurableError,
    OvertakenError,
    PermanentError,
    StreetVisionError,
    TransientError,
)
from components.shared.contracts.options import TorchrunConfig
from components.shared.contracts.step import execute
from components.shared.storage import Store, StoreSettings
from components.shared.training.launch import memory
from components.shared.training.launch.heartbeat import Heartbeat
from components.shared.training.session import restarts
from components.shared.training.session.restarts import run_module
from components.shared.training.session.training_session import TrainingSession
from tests.components.shared.training import toy_phase
from tests.components.shared.training.toy_phase import ToyConfig, n_starts, write_plan

CONFIG = ToyConfig(n_processes=1, checkpoint_steps=1, micro_batch_size=6)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits before restarts, which are not waited."""
    found: list[float] = []
    monkeypatch.setattr(restarts, "sleep", found.append)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the step writes where nothing fails."""
    return _train(tmp_path_factory.mktemp("undisturbed"), CONFIG)


def _train(root: Path, config: ToyConfig, *faults: tuple[str, int]) -> Path:
    """Run the step; its output."""
    toy_phase.run(config, plan=write_plan(root / "plan", *faults), weights=root / "weights")
    return root / "weights"


def _count_in_container(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Let the plan's file stand for the one that the kernel shows in a container, which no test can
    make it write.
    """
    monkeypatch.setattr(memory, "_EVENTS", toy_phase.counter_of(root / "plan"))


def _digests(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): sha256_file(file)
        for file in folder.rglob("*")
        if file.is_file()
    }


def _restart_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if "; restart " in line]


def test_killed_failed_and_hung_it_ends_with_the_bytes_of_an_undisturbed_run(
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(restarts, "HANG_SECONDS", 3.0)
    _count_in_container(monkeypatch, tmp_path)
    found = _train(tmp_path, CONFIG, ("kill", 0), ("raise", 5), ("hang", 6))
    assert _digests(found) == _digests(undisturbed)
    assert n_starts(tmp_path / "plan") == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan", "plan-log", "weights"]
    first, second, third = _restart_lines(capfd.readouterr().out)
    assert (
        first
        == "rank 0 was killed by SIGKILL in step 0; restart 1 of 3 in 5 s, from the beginning:"
        " there is no checkpoint yet"
    )
    assert (
        second
        == "rank 0 failed in step 5: ValueError: planted failure; restart 2 of 3 in 10 s, from the"
        " checkpoint of step 5"
    )
    assert third.startswith("rank 0 hangs in step 6: no sign of life for ")
    assert third.endswith("; restart 3 of 3 in 20 s, from the checkpoint of step 6")


def test_an_out_of_memory_kill_halves_the_micro_batch_and_keeps_the_result(
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    _count_in_container(monkeypatch, tmp_path)
    found = _train(tmp_path, CONFIG, ("oom", 5))
    output = capfd.readouterr().out
    assert _restart_lines(output) == [
        "rank 0 was killed by SIGKILL in step 5: out of memory, the container reached its limit;"
        " restart 1 of 3 in 5 s, from the checkpoint of step 5, with micro-batches of at most 3 per"
        " process"
    ]
    assert (
        "the result will be equivalent, not identical: it was trained with micro-batches of 6"
        " before" in output
    )
    sizes = [
        json.loads((path / "training.json").read_text())["micro_batch_size"]
        for path in (undisturbed, found)
    ]
    assert sizes == [6, 3]
    expected, weights = (load_file(path / "weights.safetensors") for path in (undisturbed, found))
    assert all(np.allclose(expected[name], weights[name], atol=1e-6) for name in expected)


def test_another_pod_begins_with_the_micro_batch_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: StoreSettings, bucket: str
) -> None:
    """The first one gives up at once; of it the second finds the store alone."""
    for name, value in (
        s3.to_environment() | {Variable.CHECKPOINT_STORE: f"s3://{bucket}/trainings"}
    ).items():
        monkeypatch.setenv(name, value)
    limits: list[int] = []
    inputs: dict[str, Path | str] = {"data": "x"}

    def launch(module: str, job: Path, **options: object) -> None:
        limits.append(json.loads(job.read_text())["checkpoints"]["micro_batch_limit"])
        Heartbeat(job.parent / "heartbeat", 1).record_micro_batch(0, limits[-1] or 12)
        if len(limits) < 4:
            raise MemoryExhaustedError("rank 0 failed in step 5: OutOfMemoryError: x")

    monkeypatch.setattr(restarts, "launch", launch)
    config = dataclasses.replace(CONFIG, max_restarts=1)
    for pod, ends in (("first", False), ("second", True), ("third", True)):
        training = TrainingSession(config, step="toy", inputs=inputs, beside=tmp_path / pod / "out")
        (tmp_path / pod).mkdir()
        if ends:
            with training.run("m"):
                pass
        else:
            with pytest.raises(MemoryExhaustedError, match="gave up"), training.run("m"):
                pass
    # 12 and 6 do not fit for the first pod; 3 does not for the second, but 2; what it knew ended
    # with its training.
    assert limits == [0, 6, 3, 2, 0]
    assert not list(Store(s3).list(bucket))


def test_a_permanent_error_is_not_started_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        PermanentError, match="loss is not finite at step 3 on rank 0; lower learning_rate"
    ):
        _train(tmp_path, CONFIG, ("nan", 3))
    assert n_starts(tmp_path / "plan") == 1
    assert _restart_lines(capfd.readouterr().out) == []


def test_without_restarts_the_first_failure_ends_the_step(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, max_restarts=0)
    with pytest.raises(
        TransientError, match=r"^rank 0 was killed by SIGKILL in step 1; out of memory\?$"
    ):
        _train(tmp_path, config, ("kill", 1))
    assert n_starts(tmp_path / "plan") == 1


def test_a_step_that_gives_up_leaves_its_newest_checkpoint_in_the_store(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    s3: StoreSettings,
    bucket: str,
) -> None:
    class Artifact:
        def __init__(self, path: Path) -> None:
            self.path = str(path)

    for name, value in (
        s3.to_environment() | {Variable.CHECKPOINT_STORE: f"s3://{bucket}/trainings"}
    ).items():
        monkeypatch.setenv(name, value)
    plan = write_plan(tmp_path / "plan", ("kill", 3), ("kill", 6), ("kill", 7))
    config = dataclasses.replace(CONFIG, max_restarts=1, require_durable=True).to_json()
    with pytest.raises(SystemExit) as caught:
        execute(toy_phase.run, config, plan=Artifact(plan), weights=Artifact(tmp_path / "weights"))
    assert caught.value.code == 1
    assert (
        capsys.readouterr().err == "error: rank 0 was killed by SIGKILL in step 6; out of memory?; "
        "the step gave up after 1 restart (max_restarts=1)\n"
    )
    assert n_starts(plan) == 2
    assert json.loads((tmp_path / "status.json").read_text())["permanent"] is False
    names = {item.key.split("/")[2] for item in Store(s3).list(bucket)} - {"latest"}
    steps, owners = {name.split(".")[0] for name in names}, {name.split(".")[1] for name in names}
    assert (
        "step-000000006" in steps
    )  # which the second start made: the first one was killed in step 3
    assert len(owners) == 1


def _failing(*errors: StreetVisionError, micro_batch: int = 0) -> Callable[..., None]:
    """Stands for `launch`: fails as listed, one error for each start, and leaves a file each
    time.
    """
    left = list(errors)

    def launch(module: str, job: Path, **options: object) -> None:
        assert [entry.name for entry in job.parent.iterdir()] == ["job.json"]
        (job.parent / "checkpoint").mkdir()
        (job.parent / "agent.json").write_text("{}")
        Heartbeat(job.parent / "heartbeat", 1).record_micro_batch(0, micro_batch)
        if left:
            raise left.pop(0)

    return launch


def test_waits_double_up_to_a_minute_and_a_module_without_checkpoints_begins_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    waits: list[float],
) -> None:
    monkeypatch.setattr(
        restarts, "launch", _failing(*(TransientError(f"failure {n}") for n in range(6)))
    )
    run_module("m", TorchrunConfig(max_restarts=6), {"data": tmp_path / "data"}, tmp_path)
    assert waits == [5, 10, 20, 40, 60, 60]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "failure 0; restart 1 of 6 in 5 s, from the beginning"
    assert len(lines) == 6
    document = json.loads((tmp_path / "job.json").read_text())
    assert document["paths"] == {"data": str(tmp_path / "data"), "work": str(tmp_path)}
    assert document["config"] == {"max_restarts": 6, "n_processes": None}


def test_each_out_of_memory_kill_halves_down_to_one_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = []

    def launch(module: str, job: Path, **options: object) -> None:
        limit = json.loads(job.read_text())["checkpoints"]["micro_batch_limit"]
        limits.append(limit)
        Heartbeat(job.parent / "heartbeat", 1).record_micro_batch(0, limit or 5)
        raise TransientError("other") if len(limits) == 3 else MemoryExhaustedError("out of memory")

    monkeypatch.setattr(restarts, "launch", launch)
    with pytest.raises(
        MemoryExhaustedError, match="out of memory; the step gave up after 5 restarts"
    ):
        run_module("m", TorchrunConfig(max_restarts=5), {}, tmp_path, lambda: {"found": ""})
    assert limits == [0, 3, 2, 2, 1, 1]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(
        "from the beginning: there is no checkpoint yet, with micro-batches of at most 3 per"
        " process"
    )
    assert [line.endswith("there is no checkpoint yet") for line in lines] == [
        False,
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    "error",
    [
        DataError("bad image"),
        OvertakenError("another pod trains on"),
        NotDurableError("the disk is full"),
    ],
)
def test_what_another_start_would_meet_again_ends_the_step_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float], error: StreetVisionError
) -> None:
    monkeypatch.setattr(restarts, "launch", _failing(TransientError("first"), error))
    with pytest.raises(type(error), match=f"^{error}$"):
        run_module("m", TorchrunConfig(), {}, tmp_path)
    assert len(waits) == 1


def test_the_count_is_that_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_EVENTS", tmp_path / "memory.events")
    assert memory.n_oom_kills() is None
    toy_phase.write_counter(tmp_path / "memory.events", 2)
    assert memory.n_oom_kills() == 2
    (tmp_path / "memory.events").write_text(
        "low 0\nhigh 0\nmax 0\noom 0\n"
    )  # a kernel before 4.13 counts no kills
    assert memory.n_oom_kills() is None
