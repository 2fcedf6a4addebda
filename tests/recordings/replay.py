"""The recorded runs in a fake API server and a real object store, as tests and `show` use them.

What was not recorded is made up here, and marked: the specification of the two pipelines (left out
of the recordings) as a chain of their steps, and the text of most logs.
"""

import json
from pathlib import Path
from typing import Any

from components.shared.storage import Store
from tests.pipelines.kfp_server import KfpServer

FOLDER = Path(__file__).parent
BUCKET = "streetvision"  # of the recorded pipeline root
ROOT = f"s3://{BUCKET}/runs"
NOT_RECORDED = "(the text of this log was not recorded)\n"
STEPS = (
    "fingerprint-source",
    "ingest-dataset",
    "split-dataset",
    "import-backbone",
    "train-baseline",
    "compare-adaptations",
    "predict-logits",
    "train-gate",
    "compare-calibrators",
    "fit-threshold",
    "calibrate-gate",
    "calibrate-scrc",
    "evaluate",
    "export-bundle",
    "report-outcome",
)
_PIPELINES = {
    "af650dff-801e-484e-8d45-4befc9b00983": "streetvision-stage1",
    "aa92dc65-38c0-4be5-9ee3-f1b8700d7b3f": "streetvision-noif",
    "0f0af35e-02fa-498c-91a2-f2a403c99d7d": "streetvision-stage1",
}
# Recorded logs, by step and execution.
_LOGS = {
    "fingerprint-source/1575a3cc-f688-41d5-b363-c870cfb79262": "bad-data-path",
    "evaluate/0ad99412-15a1-4f41-9826-7c03a2586961": "evaluate",
    "report-outcome/ce6aaa3c-61ca-4ff5-8990-2511a9f6dddd": "report-outcome",
    "train-baseline/22a3ed80-2a3f-4b74-bd51-08ee423c7fe9": "train-baseline",
}


def recorded_runs(folder: str = "api") -> dict[str, dict[str, Any]]:
    """Return the recorded runs of one mode (api, api-multi-user) by the name of the file."""
    files = sorted((FOLDER / folder).glob("run-*.json"))
    documents = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    return {name: document for name, document in documents.items() if "run_id" in document}


def pipeline_of(run: dict[str, Any]) -> str:
    """Return the name of the pipeline that a recorded run was started from."""
    return _PIPELINES[run["pipeline_version_reference"]["pipeline_id"]]


def spec_of(pipeline: str) -> dict[str, Any]:
    """Return a specification with the recorded pipelines' steps.

    That they are a chain is made up.
    """
    tasks = {
        name: {"componentRef": {"name": "comp"}, "dependentTasks": [before] if before else []}
        for before, name in zip((None, *STEPS[:-1]), STEPS, strict=True)
    }
    return {
        "pipelineInfo": {"name": pipeline},
        "root": {"dag": {"tasks": tasks}},
        "components": {"comp": {"executorLabel": "exec"}},
    }


def add_run(server: KfpServer, run: dict[str, Any]) -> None:
    """Make the server hold a recorded run."""
    pipeline = pipeline_of(run)
    server.add_run(run, pipeline, spec_of(pipeline))


def fill_store(store: Store, scratch: Path) -> None:
    """Put every log that the recorded listing has into a store, at its recorded key."""
    store.make_bucket(BUCKET)
    for line in (FOLDER / "s3-listing.txt").read_text(encoding="utf-8").splitlines():
        key = line.split(maxsplit=1)[1]
        *_, step, execution, name = key.split("/")
        if name.startswith("executor-logs-"):
            recorded = _LOGS.get(f"{step}/{execution}")
            file = FOLDER / "logs" / f"{recorded}.executor-logs.txt"
            scratch.write_bytes(file.read_bytes() if recorded else NOT_RECORDED.encode())
            store.put(BUCKET, key, scratch)
