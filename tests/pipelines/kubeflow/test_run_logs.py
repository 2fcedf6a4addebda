"""The lines of a step's log that are shown, and the reason of its failure.

Logs are recorded ones; some ends are made up.
"""

from pathlib import Path

import pytest

from components.shared.storage import Store, StoreSettings
from pipelines.kubeflow.run_logs import failure_message, readable, stored_logs
from tests.recordings.replay import BUCKET, FOLDER, fill_store

KILLED = "runs/streetvision-noif/f96e1262-6984-4534-88e9-16135b6364be"


def _recorded(name: str) -> list[str]:
    data = (FOLDER / "logs" / f"{name}.executor-logs.txt").read_bytes()
    return data.decode().removesuffix("\n").split("\n")


def test_the_reason_of_a_failure_is_the_typed_line() -> None:
    assert (
        failure_message(_recorded("bad-data-path"))
        == "error: data='s3://streetvision/nowhere' holds no objects; is the prefix right?"
    )


def test_a_log_is_shown_without_kfps_remarks_and_its_dump_of_inputs() -> None:
    shown = list(readable(_recorded("train-baseline")))
    assert shown[0] == "full: training 129,474 of 129,538 parameters, 1 process(es)"
    assert (
        shown[1] == "epoch 1/2: 100%|##########| 33/33 [00:15<00:00,  2.11it/s]"
    )  # the bar's last state
    assert len(shown) == 4
    assert list(readable(_recorded("report-outcome"))) == ["run streetvision-stage1-jlvrk complete"]
    assert list(readable(_recorded("evaluate"))) == []


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        # The header of glog, in which KFP's driver and launcher write, is that of its own format.
        (
            [
                "I1127 01:35:57.123456       7 main.go:92] Setting log level to: '1'",
                (
                    "F1127 01:35:58.123456       7 main.go:127] driver.DAG(x) failed: processing"
                    " OneOf: No successful task"
                ),
            ],
            "driver.DAG(x) failed: processing OneOf: No successful task",
        ),
        (
            ["Traceback (most recent call last):", "ValueError: wrong"],
            "ended without a reason; its last line: ValueError: wrong",
        ),
        (["unexpected ValueError: wrong"], "unexpected ValueError: wrong"),
        # One that was survived long before the end is not the reason.
        (
            ["error: lost it", *[f"epoch {n}" for n in range(7)]],
            "ended without a reason; its last line: epoch 6",
        ),
        (["epoch 1:  10%\repoch 1:  20%"], "ended without a reason; its last line: epoch 1:  20%"),
        (["error: first attempt", "error: second attempt"], "error: second attempt"),
        (["", "  "], ""),
        ([], ""),
    ],
)
def test_the_reason_in_other_logs(lines: list[str], reason: str) -> None:
    assert failure_message(lines) == reason


def test_a_reason_is_kept_to_its_end() -> None:
    assert failure_message(["error: " + "x" * 3000 + " the cause"]).endswith(" the cause")


def test_logs_are_found_by_step_and_attempt(s3: StoreSettings, tmp_path: Path) -> None:
    store = Store(s3)
    fill_store(store, tmp_path / "log")
    logs = stored_logs(store, BUCKET, f"{KILLED}/train-baseline/")
    assert [log.attempt for log in logs] == [
        1
    ]  # the first attempt's pod was deleted, and left none
    assert logs[0].key.endswith("/executor-logs-1")
    assert [log.attempt for log in stored_logs(store, BUCKET, f"{KILLED}/split-dataset/")] == [0]
    assert stored_logs(store, BUCKET, f"{KILLED}/import-backbone/") == []  # from the cache
