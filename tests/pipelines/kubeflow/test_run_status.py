"""The state of a run and its steps: every recorded answer, and states that no recording has."""

import copy
from typing import Any

import pytest

from pipelines.kubeflow.run_status import RunState, StepState, run_status
from tests.pipelines.argo_tasks import task_details
from tests.recordings.replay import STEPS, recorded_runs

RUNS = recorded_runs() | {
    f"multi-user/{name}": run for name, run in recorded_runs("api-multi-user").items()
}
CACHED_BUT = {"fingerprint-source": "done", "report-outcome": "done"}


def _states(name: str, steps: tuple[str, ...] = STEPS) -> dict[str, str]:
    return {step.name: str(step.state) for step in run_status(RUNS[name], steps).steps}


def _run(steps: dict[str, str], state: str = "RUNNING", **fields: Any) -> dict[str, Any]:
    """A run with generated nodes."""
    root = {"RUNNING": "RUNNING"}.get(state, state)
    attempts = fields.pop("attempts", None)
    details = {"task_details": task_details("wf-1", steps, root=root, attempts=attempts)}
    return {"run_id": "r", "display_name": "n", "state": state, "run_details": details, **fields}


def _with(states: dict[str, str], otherwise: str) -> dict[str, str]:
    return {name: states.get(name, otherwise) for name in STEPS}


@pytest.mark.parametrize(
    ("name", "state", "seconds"),
    [
        ("run-running", "running", None),
        ("run-succeeded", "succeeded", 632),
        ("run-oneof-failed", "failed", 83),
        ("run-all-cached", "succeeded", 115),
        ("run-all-cached-not-yet-reported", "running", None),
        ("run-collected-failed", "failed", 173),
        ("run-pod-deleted-then-process-killed", "failed", 377),
        ("run-resumed", "succeeded", 392),
        ("run-bad-data-path", "failed", 88),
        ("run-terminated", "cancelled", 83),
        ("multi-user/run-hanging", "running", None),
        ("multi-user/run-succeeded", "succeeded", 797),
    ],
)
def test_the_run(name: str, state: str, seconds: float | None) -> None:
    run = run_status(RUNS[name])
    assert (run.state, run.seconds) == (state, seconds)
    assert run.run_id == RUNS[name]["run_id"]


@pytest.mark.parametrize(
    ("name", "states"),
    [
        (
            "run-running",
            _with(
                {
                    "fingerprint-source": "done",
                    "ingest-dataset": "done",
                    "split-dataset": "running",
                },
                "waiting",
            ),
        ),
        ("run-succeeded", _with({}, "done")),
        ("run-all-cached", _with(CACHED_BUT, "cached")),
        (
            "run-all-cached-not-yet-reported",
            _with(CACHED_BUT | {"report-outcome": "running"}, "cached"),
        ),
        (
            "run-oneof-failed",
            _with(
                CACHED_BUT
                | dict.fromkeys(("ingest-dataset", "split-dataset", "import-backbone"), "cached"),
                "skipped",
            ),
        ),
        (
            "run-pod-deleted-then-process-killed",
            _with(
                CACHED_BUT
                | {"ingest-dataset": "cached", "import-backbone": "cached"}
                | {"split-dataset": "done", "train-baseline": "failed"},
                "skipped",
            ),
        ),
        (
            "run-resumed",
            _with(
                dict.fromkeys(("ingest-dataset", "split-dataset", "import-backbone"), "cached"),
                "done",
            ),
        ),
        (
            "run-bad-data-path",
            _with({"fingerprint-source": "failed", "report-outcome": "done"}, "skipped"),
        ),
        (
            "run-terminated",
            _with(
                {
                    "fingerprint-source": "done",
                    "split-dataset": "done",
                    "report-outcome": "cancelled",
                }
                | {"ingest-dataset": "cached", "import-backbone": "cached"},
                "skipped",
            ),
        ),
        ("multi-user/run-hanging", _with({}, "waiting")),
        ("multi-user/run-succeeded", _with({}, "done")),
    ],
)
def test_the_steps_in_the_order_of_the_graph(name: str, states: dict[str, str]) -> None:
    assert list(_states(name).items()) == list(states.items())


def test_a_loop_has_a_step_for_each_iteration() -> None:
    states = _states("run-collected-failed")
    assert (states["train-baseline (1)"], states["train-baseline (2)"]) == ("done", "cached")
    assert states["compare-adaptations"] == "failed"
    assert [step.task for step in run_status(RUNS["run-collected-failed"], STEPS).steps][4:6] == [
        "train-baseline"
    ] * 2


@pytest.mark.parametrize("name", RUNS)
def test_without_the_graph_steps_stand_in_the_order_of_their_start(name: str) -> None:
    steps = run_status(RUNS[name]).steps
    starts = [step.start for step in steps if step.start]
    assert starts == sorted(starts)
    # Groups of the recorded pipelines, their drivers and Argo's wrappers are no steps.
    assert {step.task for step in steps} <= set(STEPS)
    known = {step.name: step for step in run_status(RUNS[name], STEPS).steps}
    assert all(known[step.name] == step for step in steps)


@pytest.mark.parametrize("name", RUNS)
def test_no_time_is_before_the_run(name: str) -> None:
    run = run_status(RUNS[name], STEPS)
    assert run.created is not None
    for step in run.steps:
        assert step.start is None or step.start >= run.created
        assert step.seconds is None or step.seconds >= 0
    assert run.ended is None or run.ended >= run.created


def test_what_a_step_took_and_how_often_it_was_started() -> None:
    train = run_status(RUNS["run-pod-deleted-then-process-killed"]).step("train-baseline")
    assert train is not None
    assert (train.seconds, train.attempts) == (281, 2)
    cached = run_status(RUNS["run-all-cached"]).step("evaluate")
    assert cached is not None
    assert (cached.seconds, cached.attempts) == (None, 0)


def test_the_driver_that_failed_is_named_where_no_step_did() -> None:
    run = run_status(RUNS["run-oneof-failed"], STEPS)
    assert [driver.name for driver in run.failed_drivers] == ["for-loop-6"]
    assert run.failed_drivers[0].node.endswith(".for-loop-6(0).iteration-driver")
    assert not run_status(
        RUNS["run-terminated"], STEPS
    ).failed_drivers  # they were ended, and did not fail


@pytest.mark.parametrize(
    ("given", "state"),
    [
        ("driver", StepState.WAITING),
        ("pending", StepState.WAITING),
        ("running", StepState.RUNNING),
        ("done", StepState.DONE),
        ("cached", StepState.CACHED),
        ("failed", StepState.FAILED),
        ("omitted", StepState.SKIPPED),
        ("driver-failed", StepState.FAILED),
    ],
)
def test_each_state_of_a_step(given: str, state: StepState) -> None:
    run = run_status(
        _run({"configure": "done", "train/train-baseline": given}), ("configure", "train-baseline")
    )
    step = run.step("train-baseline")
    assert step is not None
    assert step.state == state
    assert step.driver_failed == (given == "driver-failed")


def test_the_state_of_a_waiting_step_is_not_that_of_one_beside_it() -> None:
    # Both started in the same second; only the pod of one has started.
    steps = {"predict-logits": "pending", "train-gate": "cached"}
    states = {step.name: step.state for step in run_status(_run(steps)).steps}
    assert states == {"predict-logits": StepState.WAITING, "train-gate": StepState.CACHED}


def test_a_second_attempt_that_runs() -> None:
    step = run_status(_run({"train-baseline": "running"}, attempts={"train-baseline": 2})).step(
        "train-baseline"
    )
    assert step is not None
    assert (step.state, step.attempts) == (StepState.RUNNING, 2)


def test_a_run_whose_steps_have_ended_awaits_kfps_report() -> None:
    run = run_status(_run({"configure": "done", "evaluate": "cached"}), ("configure", "evaluate"))
    assert (run.state, run.awaits_report, run.has_ended) == (RunState.RUNNING, True, False)
    assert not run_status(_run({"configure": "done"}), ("configure", "evaluate")).awaits_report


def test_what_kfp_did_not_report_of_a_failed_run_is_unknown() -> None:
    steps = {"configure": "done", "train-baseline": "running", "train-gate": "driver"}
    run = run_status(_run(steps, state="FAILED"), (*steps, "evaluate"))
    states = [str(step.state) for step in run.steps]
    assert states == ["done", "unknown", "unknown", "skipped"]


@pytest.mark.parametrize(
    ("state", "cancelling", "expected"),
    [
        ("FAILED", True, "cancelled"),
        ("SUCCEEDED", True, "succeeded"),  # it ended before the order arrived
        ("CANCELING", True, "cancelling"),
        ("CANCELED", False, "cancelled"),
        ("SKIPPED", False, "succeeded"),
        ("PAUSED", False, "paused"),
        ("PENDING", False, "pending"),
        ("A_STATE_OF_A_LATER_KFP", False, "pending"),
    ],
)
def test_states_of_a_run(state: str, cancelling: bool, expected: str) -> None:
    history = [{"state": "CANCELING", "update_time": "2026-01-01T00:00:30Z"}] if cancelling else []
    run = run_status({"run_id": "r", "state": state, "state_history": history})
    assert run.state == expected
    assert run.steps == ()


def test_a_step_that_was_ended_with_the_run_did_not_fail() -> None:
    history = [
        {"state": "CANCELING", "update_time": "2026-01-01T00:00:30Z"}
    ]  # the nodes end at 00:01:00
    run = run_status(_run({"train-baseline": "failed"}, state="FAILED", state_history=history))
    assert [step.state for step in run.steps] == [StepState.CANCELLED]
    late = [{"state": "CANCELING", "update_time": "2026-01-01T00:02:00Z"}]
    run = run_status(_run({"train-baseline": "failed"}, state="FAILED", state_history=late))
    assert [step.state for step in run.steps] == [StepState.FAILED]


def test_the_document_has_no_time_that_is_none() -> None:
    document = run_status(RUNS["run-running"], STEPS).to_json()
    assert document["ended"] is None
    running = next(step for step in document["steps"] if step["state"] == "running")
    assert (running["end"], running["seconds"]) == (None, None)
    assert running["start"] == "2026-11-27T01:27:08Z"


def test_an_end_before_the_start_is_no_end() -> None:
    changed = copy.deepcopy(RUNS["run-succeeded"])
    changed["finished_at"] = "2026-11-27T01:00:00Z"
    assert run_status(changed).seconds is None
