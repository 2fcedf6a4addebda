"""The smoke test against a scripted cluster, and its parts against servers that answer."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from components.shared.contracts.errors import ConfigError, PermanentError, TransientError
from pipelines.kubeflow.run_status import RunState, RunStatus, StepState, StepStatus
from pipelines.parameters import Variant, validated
from pipelines.smoke import CHECKS, run_smoke, selected_checks
from pipelines.smoke.backend import TRAINING, NotAllowedError, TrainingPod
from pipelines.smoke.waiting import Clock, Waiting
from pipelines.upload_data.demo import DemoUpload

STEPS = ("configure", "ingest-dataset", "train-baseline", "export-bundle")
ALL = list(CHECKS)
START = datetime(2026, 1, 1, tzinfo=UTC)


def status(run_id: str, state: RunState, seconds: float = 100, **steps: StepState) -> RunStatus:
    """A run whose steps are done, or cached, or as given (- is _ in a name)."""
    default = StepState.DONE if state == RunState.SUCCEEDED else StepState.WAITING
    found = {name: steps.get(name.replace("-", "_"), default) for name in STEPS}
    return RunStatus(
        run_id=run_id,
        name=run_id,
        state=state,
        created=START,
        ended=(
            START + timedelta(seconds=seconds)
            if state in (RunState.SUCCEEDED, RunState.FAILED)
            else None
        ),
        workflow="w",
        pipeline_id="p",
        version_id="v",
        recurring_run_id="",
        pipeline_root="",
        steps=tuple(
            StepStatus(name, state, attempts=1, node=f"root.{name}")
            for name, state in found.items()
        ),
        failed_drivers=(),
    )


def cached(run_id: str, **steps: StepState) -> RunStatus:
    """A run that took everything from the cache, but for `configure` and the given steps."""
    others = {name.replace("-", "_"): StepState.CACHED for name in STEPS[1:]}
    return status(run_id, RunState.SUCCEEDED, **{"configure": StepState.DONE, **others, **steps})


class ScriptedCluster:
    """A cluster where everything works; a test replaces what should not.

    `calls` is what was asked, in order.
    """

    bucket = "mlpipeline"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.values: dict[str, dict[str, Any]] = {}
        self.outcomes: dict[str, RunStatus] = {}  # by the run's id, which is its check's name
        self.cancelled: set[str] = set()
        self.archived: list[str] = []
        self.schedules: dict[str, list[str]] = {}
        self.reasons = {"wrong-data": ""}
        self.logs: dict[str, list[list[str]]] = {
            "pod-deleted": [["resumed at step 126; the result will be identical"]],
            "process-killed": [
                [
                    "rank 0 was killed by SIGKILL; restart 1 of 3 in 5 s",
                    "resumed at step 80; the result",
                ]
            ],
        }

    def upload_demo(self) -> DemoUpload:
        self.calls.append("upload demo")
        return DemoUpload(n_files=1605, n_bytes=22_300_000, sent_bytes=1_000_000)

    def delete_demo(self) -> int:
        self.calls.append("delete demo")
        return 1605

    def submit(self, name: str, values: dict[str, Any]) -> str:
        run_id = name.rpartition(": ")[2]
        self.calls.append(f"submit {run_id}")
        self.values[run_id] = values
        return run_id

    def run(self, run_id: str) -> RunStatus:
        if run_id in self.cancelled:
            return status(run_id, RunState.CANCELLED)
        if run_id in self.outcomes:
            return self.outcomes[run_id]
        if run_id in ("second-run", "scheduled"):
            return cached(run_id)
        if run_id == "wrong-data":
            self.reasons[run_id] = (
                f"configure: error: data={self.values[run_id]['data']!r} holds no objects"
            )
            return status(run_id, RunState.FAILED, configure=StepState.FAILED)
        return self._trained(run_id, 2 if run_id == "pod-deleted" else 1)

    def reason(self, run_id: str) -> str:
        return self.reasons.get(run_id, "")

    def cancel(self, run_id: str) -> None:
        self.calls.append(f"cancel {run_id}")
        self.cancelled.add(run_id)

    def archive(self, run_id: str) -> None:
        self.archived.append(run_id)

    def create_schedule(self, name: str, seconds: int, values: dict[str, Any]) -> None:
        self.calls.append(f"schedule every {seconds} s")
        self.schedules[name] = ["scheduled"]
        self.values["scheduled"] = values

    def scheduled_runs(self, name: str) -> list[str]:
        return self.schedules.get(name, [])

    def has_schedule(self, name: str) -> bool:
        return name in self.schedules

    def change_schedule(self, name: str, change: str) -> None:
        self.calls.append(f"{change} schedule")
        if change == "delete":
            del self.schedules[name]

    def training_pod(self, run_id: str) -> TrainingPod | None:
        return TrainingPod(
            f"pod-of-{run_id}", ("epoch 2/16:   0%|  | 0/33", "epoch 3/16:  50%|# | 16/33")
        )

    def delete_pod(self, name: str) -> None:
        self.calls.append(f"delete {name}")

    def kill_rank(self, name: str) -> str:
        self.calls.append(f"kill in {name}")
        return "17"

    def training_logs(self, run_id: str) -> list[list[str]]:
        return self.logs[run_id]

    @staticmethod
    def _trained(run_id: str, attempts: int) -> RunStatus:
        run = status(run_id, RunState.SUCCEEDED)
        steps = [
            replace(step, attempts=attempts) if step.name == TRAINING else step
            for step in run.steps
        ]
        return replace(run, steps=tuple(steps))


@pytest.fixture
def cluster() -> ScriptedCluster:
    return ScriptedCluster()


class Time:
    """A clock that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def smoke(cluster: ScriptedCluster, names: list[str] = ALL, **options: bool) -> int:
    time = Time()
    waiting = Waiting(cluster, timeout=600, poll=10, clock=Clock(lambda: time.seconds, time.sleep))
    return run_smoke(cluster, names, waiting, **options)


def rows(printed: str) -> dict[str, tuple[str, str]]:
    """Result and remark by check."""
    lines = [line.split(maxsplit=3) for line in printed.splitlines()]
    return {line[0]: (line[1], line[3]) for line in lines if line and line[0] in CHECKS}


def test_every_check_is_made_in_order_and_everything_is_cleaned_up(
    cluster: ScriptedCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smoke(cluster) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split() == ["check", "result", "seconds", "remark"]
    assert rows(printed) == {
        "demo-data": ("ok", "1605 files, 22.3 MB, of which 1.0 MB were sent"),
        "run": ("ok", "4 steps, 0 from the cache"),
        "second-run": ("ok", "3 steps from the cache in 100 s"),
        "schedule": ("ok", "one run, 3 of 4 steps from the cache"),
        "pod-deleted": ("ok", "resumed at step 126 and finished"),
        "process-killed": ("ok", "process 17 killed; resumed at step 80 and finished"),
        "wrong-data": (
            "ok",
            f"configure: error: data={cluster.values['wrong-data']['data']!r} holds no objects",
        ),
    }
    assert cluster.calls == [
        "upload demo",
        "submit run",
        "submit second-run",
        "schedule every 60 s",
        "disable schedule",
        "delete schedule",
        "submit pod-deleted",
        "delete pod-of-pod-deleted",
        "submit process-killed",
        "kill in pod-of-process-killed",
        "submit wrong-data",
    ]
    assert cluster.archived == [
        "run",
        "second-run",
        "scheduled",
        "pod-deleted",
        "process-killed",
        "wrong-data",
    ]
    assert "cleaned up: 6 run(s) archived, 0 schedule(s) deleted" in printed
    assert cluster.schedules == {}


def test_the_demo_is_removed_only_where_asked(
    cluster: ScriptedCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smoke(cluster, ["demo-data"], delete_data=True) == 0
    assert cluster.calls == ["upload demo", "delete demo"]
    assert "1605 objects of the demo deleted" in capsys.readouterr().out


def test_parameters_are_valid_and_disturbed_trainings_share_nothing(
    cluster: ScriptedCluster,
) -> None:
    smoke(cluster)
    for values in cluster.values.values():
        validated(values, Variant())
    assert cluster.values["run"] == cluster.values["second-run"] == cluster.values["scheduled"]
    assert (
        len({cluster.values[run]["seed"] for run in ("run", "pod-deleted", "process-killed")}) == 3
    )
    seed = cluster.values["run"]["seed"]
    again = ScriptedCluster()
    smoke(again)
    assert again.values["run"]["seed"] != seed, (
        "the cache of an earlier smoke test must hide nothing"
    )


def _fail(run: str) -> Callable[[ScriptedCluster], None]:
    def change(cluster: ScriptedCluster) -> None:
        cluster.outcomes[run] = status(run, RunState.FAILED, train_baseline=StepState.FAILED)
        cluster.reasons[run] = "train-baseline: error: no GPU"

    return change


def _second_run_trains(cluster: ScriptedCluster) -> None:
    cluster.outcomes["second-run"] = cached("second-run", train_baseline=StepState.DONE)


def _second_run_is_slow(cluster: ScriptedCluster) -> None:
    run = cached("second-run")
    cluster.outcomes["second-run"] = replace(run, ended=START + timedelta(seconds=214))


def _fires_twice(cluster: ScriptedCluster) -> None:
    cluster.scheduled_runs = lambda name: ["scheduled", "another"]  # type: ignore[method-assign]


def _never_fires(cluster: ScriptedCluster) -> None:
    cluster.scheduled_runs = lambda name: []  # type: ignore[method-assign]


def _stays(cluster: ScriptedCluster) -> None:
    cluster.change_schedule = lambda name, change: None  # type: ignore[method-assign]


def _one_pod(cluster: ScriptedCluster) -> None:
    cluster.outcomes["pod-deleted"] = ScriptedCluster._trained("pod-deleted", 1)


def _anew(run: str) -> Callable[[ScriptedCluster], None]:
    def change(cluster: ScriptedCluster) -> None:
        cluster.logs[run] = [["restart 1 of 3 in 5 s, from the beginning", "epoch 1/16"]]

    return change


def _no_restart(cluster: ScriptedCluster) -> None:
    cluster.logs["process-killed"] = [["resumed at step 80"]]


def _too_quick(cluster: ScriptedCluster) -> None:
    cluster.training_pod = lambda run_id: None  # type: ignore[method-assign]


def _succeeds_without_data(cluster: ScriptedCluster) -> None:
    cluster.outcomes["wrong-data"] = status("wrong-data", RunState.SUCCEEDED)


def _fails_without_a_reason(cluster: ScriptedCluster) -> None:
    cluster.outcomes["wrong-data"] = status(
        "wrong-data", RunState.FAILED, configure=StepState.FAILED
    )


def _store_is_away(cluster: ScriptedCluster) -> None:
    def upload() -> DemoUpload:
        raise PermanentError("minio:9000: no such bucket")

    cluster.upload_demo = upload  # type: ignore[method-assign]


FAILURES: dict[str, tuple[str, Callable[[ScriptedCluster], None], str]] = {
    "store away": ("demo-data", _store_is_away, "minio:9000: no such bucket"),
    "run fails": ("run", _fail("run"), "run run failed: train-baseline: error: no GPU"),
    "ran again": (
        "second-run",
        _second_run_trains,
        "not from the cache, though nothing changed: train-baseline",
    ),
    "slow": (
        "second-run",
        _second_run_is_slow,
        "took 214 s with everything cached, more than 180 s",
    ),
    "fires twice": ("schedule", _fires_twice, "2 runs were started, one was expected"),
    "never fires": ("schedule", _never_fires, "waited 300 s for the schedule's first run"),
    "stays": ("schedule", _stays, "the schedule is still there after it was deleted"),
    "scheduled run fails": ("schedule", _fail("scheduled"), "train-baseline: error: no GPU"),
    "no second pod": (
        "pod-deleted",
        _one_pod,
        "pod pod-of-pod-deleted was deleted, and no other one trained",
    ),
    "not resumed": ("pod-deleted", _anew("pod-deleted"), "STREETVISION_CHECKPOINT_STORE"),
    "too quick": ("pod-deleted", _too_quick, "before its training could be disturbed"),
    "not restarted": (
        "process-killed",
        _no_restart,
        "process 17 was killed, and not restarted in its pod (1 pod(s)",
    ),
    "restarted anew": ("process-killed", _anew("process-killed"), "it began anew"),
    "no data, no failure": (
        "wrong-data",
        _succeeds_without_data,
        "the run succeeded, configure done; both should",
    ),
    "no reason": (
        "wrong-data",
        _fails_without_a_reason,
        "failed without naming 's3://mlpipeline/streetvision/demo/now",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_reported_and_cleaned_up(
    cluster: ScriptedCluster, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check, change, message = FAILURES[case]
    change(cluster)
    assert smoke(cluster) == 1
    printed = capsys.readouterr().out
    found = rows(printed)
    assert list(found) == ALL
    assert found[check][0] == "FAILED"
    assert message in found[check][1]
    assert {run for run in cluster.values if run != "scheduled"} <= set(cluster.archived)
    assert "cleaned up" in printed


def test_what_a_failed_check_would_need_is_skipped(
    cluster: ScriptedCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    _fail("run")(cluster)
    smoke(cluster)
    found = rows(capsys.readouterr().out)
    assert found["second-run"] == ("skipped", "it needs run")
    assert found["schedule"][0] == "ok"

    _store_is_away(cluster)
    smoke(cluster)
    assert [result for result, _ in rows(capsys.readouterr().out).values()] == [
        "FAILED",
        *["skipped"] * 6,
    ]


def test_a_right_that_is_not_there_is_no_failure(
    cluster: ScriptedCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill(name: str) -> str:
        raise NotAllowedError("Kubernetes refused to start a process in pod x: HTTP 403")

    cluster.kill_rank = kill  # type: ignore[method-assign]
    assert smoke(cluster) == 0
    assert rows(capsys.readouterr().out)["process-killed"][0] == "skipped"


@pytest.mark.parametrize(
    "during", ["submit process-killed", "schedule every 60 s", "delete pod-of-pod-deleted"]
)
def test_ctrl_c_cleans_up(
    cluster: ScriptedCluster, during: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Calls(list[str]):
        def append(self, call: str) -> None:
            super().append(call)
            if call == during:
                raise KeyboardInterrupt

    cluster.calls = Calls()
    running = ("pod-deleted", "scheduled")
    cluster.outcomes |= {run: status(run, RunState.RUNNING) for run in running if "pod" in during}
    names = ["demo-data", "pod-deleted"] if "pod" in during else ALL
    assert smoke(cluster, names) == 130
    assert cluster.calls[-1].startswith(("cancel", "submit", "disable", "schedule", "delete"))
    assert cluster.schedules == {}
    started = [run for run in cluster.values if run != "scheduled"]
    assert set(started) <= {*cluster.archived, "process-killed"}
    if "pod" in during:
        assert cluster.cancelled == {"pod-deleted"}
    assert "cleaned up" in capsys.readouterr().out


def test_an_active_run_of_a_schedule_ends_before_the_schedule_goes(
    cluster: ScriptedCluster,
) -> None:
    cluster.outcomes["scheduled"] = status("scheduled", RunState.RUNNING)
    assert smoke(cluster, ["demo-data", "schedule"]) == 1
    assert cluster.calls[-3:] == ["disable schedule", "cancel scheduled", "delete schedule"]
    assert cluster.archived == ["scheduled"]


def test_one_thing_that_stays_keeps_no_other_from_going(
    cluster: ScriptedCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    def archive(run_id: str) -> None:
        if run_id == "run":
            raise PermanentError("HTTP 500")
        cluster.archived.append(run_id)

    cluster.archive = archive  # type: ignore[method-assign]
    assert smoke(cluster, ["demo-data", "run", "second-run"]) == 0
    assert cluster.archived == ["second-run"]
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "cleaned up: 1 run(s) archived, 0 schedule(s) deleted",
        "left as it is: run run: HTTP 500",
    ]


def test_a_run_that_does_not_end_is_told_with_its_reason_and_cancelled(
    cluster: ScriptedCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.outcomes["run"] = status("run", RunState.RUNNING, configure=StepState.DONE)
    cluster.reasons["run"] = "ingest-dataset: 0/1 nodes are available: Insufficient cpu"
    assert smoke(cluster, ["demo-data", "run"]) == 1
    printed = capsys.readouterr()
    message = (
        "run run: waited 600 s for its end; ingest-dataset: 0/1 nodes are available:"
        " Insufficient cpu"
    )
    assert rows(printed.out)["run"] == ("FAILED", message)
    assert "configure              done" in printed.err
    assert cluster.cancelled == {"run"}
    assert cluster.archived == ["run"]


def test_an_api_that_is_away_for_a_moment_is_asked_again(cluster: ScriptedCluster) -> None:
    failures = iter([TransientError("away")] * 4)
    original = cluster.run

    def run(run_id: str) -> RunStatus:
        if error := next(failures, None):
            raise error
        return original(run_id)

    cluster.run = run  # type: ignore[method-assign]
    assert smoke(cluster, ["demo-data", "run"]) == 0


def test_checks_are_selected_with_what_they_need() -> None:
    assert selected_checks("", "") == ALL
    assert selected_checks("second-run", "") == ["demo-data", "run", "second-run"]
    assert selected_checks("wrong-data, schedule", "") == ["demo-data", "schedule", "wrong-data"]
    assert selected_checks("", "pod-deleted,process-killed") == [*ALL[:4], "wrong-data"]
    assert selected_checks("run", "demo-data") == ["run"]
    with pytest.raises(ConfigError, match="skip second-run as well"):
        selected_checks("", "run")
    with pytest.raises(
        ConfigError, match="'runs' is no check; there are: demo-data, run, second-run"
    ):
        selected_checks("runs", "")
