"""The fake API server answers in the form of the recorded answers.

Keys, kinds of values and states are the same.

Compared is every path that has a recording. A key that every recorded item has must be there; one
that no recorded item has must not. What is free in KFP's own API (parameters, specifications,
plugins) is not compared.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from pipelines.cli.app import main
from pipelines.package import write_package
from pipelines.parameters import Variant
from pipelines.resources import load_profile
from tests.pipelines.argo_tasks import task_details
from tests.pipelines.kfp_server import PREFIX, KfpServer, kfp_server, recorded
from tests.recordings.replay import recorded_runs

FREE = ("parameters", "pipeline_spec", "plugins_output", "runtime_config")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
VALUES = ["--param", "data=s3://bucket/data", "--param", "backbone=s3://bucket/backbone"]
Shape = dict[str, set[str]]
# What only one of the two may have: a recorded run is older than the field, or belongs to another
# user's mode.
OPTIONAL = {"service_account", "recurring_run_id", "pipeline_version_reference", "description"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled pipeline."""
    file = tmp_path_factory.mktemp("package") / "stage1.yaml"
    write_package(file, load_profile("cpu"), Variant())
    return file


@pytest.fixture
def server(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KfpServer]:
    """A server with a pipeline, two runs and two schedules that the command line made."""
    monkeypatch.setattr("pipelines.package.package", lambda profile, variant: (package, "cpu-1"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with kfp_server(multi_user=False) as running:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", running.host)
        main(["submit", *VALUES])
        main(["submit", *VALUES])
        main(["schedule", "create", "nightly", "--cron", "0 0 3 * * *", *VALUES])
        main(["schedule", "create", "hourly", "--every", "3600", *VALUES])
        yield running


def _get(server: KfpServer, path: str, status: int = 200) -> Any:
    answer = urllib3.request("GET", f"{server.host}{PREFIX}{path}")
    assert answer.status == status
    return answer.json()


def _kind(key: str, value: Any) -> str:
    if isinstance(value, str):
        if key.endswith(("_at", "_time")):
            return "time" if TIME.fullmatch(value) else "text"
        return (
            "number as text"
            if value.isdecimal() and key in ("max_concurrency", "interval_second")
            else "text"
        )
    return type(value).__name__


def _shape(document: Any, at: str = "") -> Shape:
    """Kinds of values by path; items of a list share a path."""
    if isinstance(document, dict):
        found: Shape = {}
        for key, value in document.items():
            if key not in FREE:
                found.setdefault(f"{at}.{key}", set()).add(_kind(key, value))
                for path, kinds in _shape(value, f"{at}.{key}").items():
                    found.setdefault(path, set()).update(kinds)
        return found
    if isinstance(document, list):
        found = {}
        for item in document:
            for path, kinds in _shape(item, f"{at}[]").items():
                found.setdefault(path, set()).update(kinds)
        return found
    return {}


def _same_shape(answered: list[Any], recorded_items: list[Any]) -> None:
    """Every answered item has the keys that all recorded ones have, and none that no recorded one
    has.
    """
    known: Shape = {}
    always: set[str] | None = None
    for item in recorded_items:
        shape = _shape(item)
        always = set(shape) if always is None else always & set(shape)
        for path, kinds in shape.items():
            known.setdefault(path, set()).update(kinds)

    for item in answered:
        shape = _shape(item)
        missing = {
            path
            for path in (always or set()) - set(shape)
            if path.strip(".").split(".")[0] not in OPTIONAL
        }
        assert not missing
        for path, kinds in shape.items():
            if path.strip(".").split(".")[0] not in OPTIONAL:
                assert path in known, f"{path} is in no recording"
                assert kinds <= known[path], path


def _without_nodes(run: dict[str, Any]) -> dict[str, Any]:
    return run | {"run_details": {}}


@pytest.mark.parametrize("mode", [False, True])
def test_the_health_check(mode: bool) -> None:
    with kfp_server(multi_user=mode) as server:
        expected = recorded(f"{'api-multi-user' if mode else 'api'}/healthz")
        assert _get(server, "/healthz") == expected


@pytest.mark.parametrize(
    ("path", "name", "key"),
    [
        ("/pipelines?page_size=1", "api/pipelines", "pipelines"),
        ("/experiments", "api/experiments", "experiments"),
        ("/recurringruns?page_size=2", "api/recurring-runs", "recurringRuns"),
    ],
)
def test_lists(server: KfpServer, path: str, name: str, key: str) -> None:
    answer, known = _get(server, path), recorded(name)
    assert set(answer) - {"next_page_token"} == set(known) - {"next_page_token"}
    items = known[key]
    if key == "recurringRuns":  # one is recorded for each kind of trigger
        items = items + recorded("api-multi-user/recurring")[key]
    if key == "experiments":  # KFP describes its own default experiment
        items = [item for item in items if "description" not in item]
    _same_shape(answer[key], items)


def test_the_versions_of_a_pipeline(server: KfpServer) -> None:
    (pipeline,) = server.pipelines
    answer = _get(server, f"/pipelines/{pipeline}/versions?page_size=1")
    _same_shape(answer["pipeline_versions"], recorded("api/pipeline-versions")["pipeline_versions"])
    version = answer["pipeline_versions"][0]
    assert (
        _get(server, f"/pipelines/{pipeline}/versions/{version['pipeline_version_id']}") == version
    )


def test_the_list_of_runs(server: KfpServer) -> None:
    page = recorded("api/runs-page")
    answer = _get(server, "/runs?page_size=1&sort_by=created_at%20desc")
    assert set(answer) == set(page)
    # The recorded runs without a reference were started from a specification, which the command
    # line never does.
    _same_shape(
        answer["runs"], [run for run in page["runs"] if "pipeline_version_reference" in run]
    )
    everyone = recorded("api-multi-user/runs-list")
    assert set(everyone) == {"runs", "total_size"}
    _same_shape(
        [_without_nodes(run) for run in answer["runs"]],
        [_without_nodes(run) for run in everyone["runs"]],
    )


def test_a_run(server: KfpServer) -> None:
    known = [_without_nodes(run) for run in recorded_runs().values()]
    _same_shape([_get(server, f"/runs/{run}") for run in server.runs], known)


def test_a_run_that_is_cancelled_goes_through_the_recorded_states(server: KfpServer) -> None:
    run = next(iter(server.runs))
    main(["cancel", run])
    states = [item.get("state") for item in _get(server, f"/runs/{run}")["state_history"]]
    recorded_states = [item["state"] for item in recorded_runs()["run-terminated"]["state_history"]]
    assert (
        [state for state in recorded_states if state in states]
        == states
        == ["PENDING", "CANCELING"]
    )


def test_lists_of_nothing_are_empty_documents() -> None:
    with kfp_server(multi_user=True) as server:
        assert _get(server, "/runs?namespace=streetvision") == recorded("api-multi-user/runs-empty")
        assert _get(server, "/experiments?namespace=streetvision") == recorded(
            "api-multi-user/experiments"
        )


def test_refusals() -> None:
    with kfp_server(multi_user=True) as server:
        assert _get(server, "/runs", 400) == recorded("api-multi-user/runs-no-namespace")
        forbidden = _get(server, "/runs?namespace=other", 403)
        assert forbidden["code"] == recorded("api-multi-user/runs-forbidden")["code"]
        _same_shape([forbidden], [recorded("api-multi-user/runs-forbidden")])
    with kfp_server(multi_user=False) as server:
        missing = _get(server, "/runs/00000000-0000-0000-0000-000000000000", 404)
        known = recorded("api/run-not-found")
        assert missing["details"] == known["details"]
        _same_shape([missing], [known])
    with kfp_server(token="good") as server:
        assert _get(server, "/runs?namespace=streetvision", 401) == recorded(
            "api-multi-user/runs-no-identity"
        )


def test_generated_nodes_have_the_form_of_recorded_ones() -> None:
    known = [
        task for run in recorded_runs().values() for task in run["run_details"]["task_details"]
    ]
    nodes = [task for task in known if "display_name" in task]
    steps = ("pending", "running", "done", "failed", "cached", "omitted", "driver", "driver-failed")
    made = task_details("wf-1", {f"group/{state}": state for state in steps})
    _same_shape(made, nodes)
    assert {task.get("state") for task in made} <= {task.get("state") for task in nodes}
