"""The checks of an installation: each acts as a user would, or as an accident.

A check returns a remark or raises FailedError.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import TransientError, one_line
from pipelines.kubeflow.run_status import RunState, RunStatus, StepState
from pipelines.names import CONFIGURE
from pipelines.smoke.backend import TRAINING, Backend, TrainingPod
from pipelines.smoke.waiting import FailedError, Waiting
from pipelines.upload_data.demo import PREFIX, demo_values

CACHED_RUN_SECONDS = 180
SCHEDULE_SECONDS = 60  # the shortest that KFP's controller of schedules keeps
_FIRST_FIRE_SECONDS = 5 * SCHEDULE_SECONDS
_SHORT_EPOCHS, _LONG_EPOCHS, _DISTURBED_EPOCH = 2, 16, 3
_CHECKPOINT_STEPS = (
    20  # less than an epoch of the demo, so that there is one when the training is disturbed
)
_EPOCH = re.compile(r"epoch (\d+)/")
_RESUMED = re.compile(r"resumed at step \d+")
_RESTARTED = re.compile(r"restart 1 of \d+")
_NO_CHECKPOINT = (
    f"it began anew: is {Variable.CHECKPOINT_STORE} set in ConfigMap streetvision-store?"
)


@dataclass
class Made:
    """What the checks made on the cluster, for the clean-up."""

    runs: list[str] = field(default_factory=list)
    schedules: list[str] = field(default_factory=list)


class Checks:
    """The checks on one cluster. `made` grows before anything is waited for."""

    def __init__(self, backend: Backend, waiting: Waiting) -> None:
        self.made = Made()
        self._backend, self._waiting = backend, waiting
        self.token = secrets.token_hex(3)
        # A seed of its own, so that the cache of an earlier smoke test hides nothing: what depends
        # on it runs.
        self._seed = secrets.randbelow(10**6) * 10

    def demo_data(self) -> str:
        """The demo's data and backbone reach the store."""
        done = self._backend.upload_demo()
        return (
            f"{done.n_files} files, {done.n_bytes / 1e6:.1f} MB, of which"
            f" {done.sent_bytes / 1e6:.1f} MB were sent"
        )

    def run(self) -> str:
        """A run succeeds."""
        run = self._succeeded(self._submit("run", self._values()))
        return f"{len(run.steps)} steps, {_count_cached(run)} from the cache"

    def second_run(self) -> str:
        """The same run again takes everything from the cache, within three minutes."""
        run = self._succeeded(self._submit("second-run", self._values()))
        again = [
            step.name
            for step in run.steps
            if step.state != StepState.CACHED and step.name != CONFIGURE
        ]
        if again:
            raise FailedError(f"not from the cache, though nothing changed: {', '.join(again)}")
        if run.seconds is None or run.seconds > CACHED_RUN_SECONDS:
            raise FailedError(
                f"took {run.seconds:.0f} s with everything cached, more than {CACHED_RUN_SECONDS} s"
            )

        return f"{_count_cached(run)} steps from the cache in {run.seconds:.0f} s"

    def schedule(self) -> str:
        """A schedule starts one run, and can be deleted after its end."""
        name = f"streetvision-smoke-{self.token}"
        self.made.schedules.append(name)
        self._backend.create_schedule(name, SCHEDULE_SECONDS, self._values())
        fired = self._waiting.until(
            lambda: self._backend.scheduled_runs(name),
            "the schedule's first run",
            _FIRST_FIRE_SECONDS,
        )

        self._backend.change_schedule(
            name, "disable"
        )  # to be deleted later: that would remove the run's Workflow
        self.made.runs += fired

        run = self._succeeded(fired[0])
        started = self._backend.scheduled_runs(name)
        self.made.runs += [run_id for run_id in started if run_id not in self.made.runs]
        if len(started) != 1:
            raise FailedError(f"{len(started)} runs were started, one was expected")

        self._backend.change_schedule(name, "delete")
        if self._backend.has_schedule(name):
            raise FailedError("the schedule is still there after it was deleted")

        self.made.schedules.remove(name)

        return f"one run, {_count_cached(run)} of {len(run.steps)} steps from the cache"

    def pod_deleted(self) -> str:
        """A training whose pod is deleted goes on in another pod and finishes."""
        run_id = self._submit("pod-deleted", self._long_values(1))
        pod = self._training(run_id)
        self._backend.delete_pod(pod.name)
        run = self._succeeded(run_id)

        step = run.step(TRAINING)
        if step is None or step.attempts < 2:
            raise FailedError(f"pod {pod.name} was deleted, and no other one trained")

        return self._resumed(run_id)

    def process_killed(self) -> str:
        """A training whose process is killed is started again in its pod and finishes."""
        run_id = self._submit("process-killed", self._long_values(2))
        pod = self._training(run_id)
        killed = self._backend.kill_rank(pod.name)
        run = self._succeeded(run_id)

        if not any(
            _RESTARTED.search(line)
            for lines in self._backend.training_logs(run_id)
            for line in lines
        ):
            step = run.step(TRAINING)
            attempts = step.attempts if step else 0
            raise FailedError(
                f"process {killed} was killed, and not restarted in its pod ({attempts} pod(s)"
                " trained)"
            )

        return f"process {killed} killed; {self._resumed(run_id)}"

    def wrong_data(self) -> str:
        """A run on an empty address fails in its first step; its message names the address."""
        place = f"s3://{self._backend.bucket}/{PREFIX}/nowhere-{self.token}"
        run_id = self._submit("wrong-data", {**self._values(), "data": place})
        run = self._waiting.end_of(run_id)
        step = run.step(CONFIGURE)
        if run.state != RunState.FAILED or step is None or step.state != StepState.FAILED:
            shown = step.state if step else "not there"
            raise FailedError(
                f"data={place!r}: the run {run.state}, {CONFIGURE} {shown}; both should have failed"
            )

        reason = self._backend.reason(run_id)
        if place not in reason:
            raise FailedError(
                f"{CONFIGURE} failed without naming {place!r}: {reason or 'no reason is known'}"
            )

        return reason

    def _values(self) -> dict[str, Any]:
        """Parameters of a short run of the demo."""
        return {
            **demo_values(self._backend.bucket),
            "seed": str(self._seed),
            "epochs": str(_SHORT_EPOCHS),
        }

    def _long_values(self, number: int) -> dict[str, Any]:
        """Parameters of a run whose training lasts long enough to be disturbed.

        It shares no training with others.
        """
        overrides = {
            "train_baseline.checkpoint_steps": _CHECKPOINT_STEPS,
            "train_baseline.patience": None,
        }
        seed, epochs = str(self._seed + number), str(_LONG_EPOCHS)
        return {**self._values(), "seed": seed, "epochs": epochs, "overrides": overrides}

    def _submit(self, name: str, values: dict[str, Any]) -> str:
        run_id = self._backend.submit(f"streetvision smoke {self.token}: {name}", values)
        self.made.runs.append(run_id)
        return run_id

    def _succeeded(self, run_id: str) -> RunStatus:
        """Wait for the end of a run.

        Raises FailedError with the reason where it did not succeed.
        """
        run = self._waiting.end_of(run_id)
        if run.state != RunState.SUCCEEDED:
            raise FailedError(
                f"run {run_id} {run.state}: {self._backend.reason(run_id) or 'no reason is known'}"
            )
        return run

    def _training(self, run_id: str) -> TrainingPod:
        """Wait until a run has trained for some epochs."""

        def in_training() -> TrainingPod | None:
            pod = self._backend.training_pod(run_id)
            epochs = (
                [int(found[1]) for line in pod.lines for found in _EPOCH.finditer(line)]
                if pod
                else []
            )
            if max(epochs, default=0) >= _DISTURBED_EPOCH:
                return pod

            run = self._backend.run(run_id)
            step = run.step(TRAINING)
            if run.has_ended or (step is not None and step.state == StepState.DONE):
                reason = self._backend.reason(run_id)
                raise FailedError(
                    f"run {run_id} {run.state} before its training could be disturbed: {reason}"
                )

            return None

        return self._waiting.for_run(run_id, in_training, f"epoch {_DISTURBED_EPOCH} of {TRAINING}")

    def _resumed(self, run_id: str) -> str:
        """The remark of a training that went on where it was.

        Raises FailedError where it began anew.
        """
        try:
            logs = self._backend.training_logs(run_id)
        except TransientError as error:
            raise FailedError(
                f"finished, but whether it resumed is not known: {one_line(error)}"
            ) from None

        found = [match[0] for lines in logs for line in lines if (match := _RESUMED.search(line))]
        if not found:
            raise FailedError(f"finished, but {_NO_CHECKPOINT}")

        return f"{found[-1]} and finished"


def _count_cached(run: RunStatus) -> int:
    return sum(step.state == StepState.CACHED for step in run.steps)


# In the order in which they are made.
CHECKS: dict[str, Callable[[Checks], str]] = {
    "demo-data": Checks.demo_data,
    "run": Checks.run,
    "second-run": Checks.second_run,
    "schedule": Checks.schedule,
    "pod-deleted": Checks.pod_deleted,
    "process-killed": Checks.process_killed,
    "wrong-data": Checks.wrong_data,
}
