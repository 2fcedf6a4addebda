"""The smoke test from its command line, against answers for KFP, Kubernetes and the store.

The cluster is scripted: a run is as far as its check expects (tests/pipelines/argo_tasks.py makes
its nodes in the recorded form), and a disturbed training goes on once its pod was deleted or its
process killed. S3 is real.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.shared.contracts.errors import TransientError
from components.shared.contracts.interrupts import interruptible
from components.shared.storage import Store, StoreSettings
from components.shared.training.launch import torchrun
from components.shared.training.session import fit as loop
from components.shared.training.session import restarts
from components.train_baseline import step as train_step
from components.train_baseline.config import TrainBaselineConfig
from pipelines.cli import app as cli
from pipelines.cli.app import run_verb
from pipelines.demo.dataset import write_demo_data
from pipelines.graph import nodes
from pipelines.package import package
from pipelines.parameters import Variant
from pipelines.resources import load_profile
from pipelines.smoke import checks
from pipelines.smoke.backend import AGENT_MODULE, KILL_RANK, TRAINING, TRAINING_MODULE
from pipelines.upload_data import demo
from tests.pipelines import kfp_server as kfp
from tests.pipelines.argo_tasks import task_details
from tests.pipelines.kfp_server import KfpServer, kfp_server
from tests.pipelines.kubernetes_server import KubernetesServer, kubernetes_server
from tests.pipelines.run_objects import RunObjects

Document = dict[str, Any]
BAD_DATA_LOG = (kfp.RECORDINGS / "logs/bad-data-path.executor-logs.txt").read_text()
RESUMED = "resumed at step 126; the result will be identical\n"
RESTARTED = (
    "rank 0 was killed by SIGKILL in step 130; restart 1 of 3 in 5 s, from the checkpoint of step"
    " 120\n"
)
ENDED = {"SUCCEEDED", "FAILED"}


class ScriptedCluster:
    """Runs that are as far as their checks expect, their pods and their logs."""

    def __init__(
        self,
        api: KfpServer,
        kubernetes: KubernetesServer,
        store: Store,
        bucket: str,
        namespace: str,
    ) -> None:
        self.api, self.kubernetes, self.namespace = api, kubernetes, namespace
        self.store, self.bucket = store, bucket
        self.archived: list[str] = []
        self.trains_for_ever = False
        self._objects = RunObjects(kubernetes, namespace)

    def get_run(self, server: KfpServer, query: dict[str, str], body: Any, run_id: str) -> Document:
        """The run as it is now."""
        run = server.runs[run_id]
        check = run["display_name"].rpartition(": ")[2]
        workflow = f"streetvision-stage1-{run_id}"
        state, steps, attempts = self._state(check, run_id, workflow)
        if run["state"] == "CANCELING":
            state = "FAILED"
        details = task_details(workflow, steps, root=state, attempts=attempts)
        ended = {"finished_at": "2026-01-01T00:02:00Z"} if state in ENDED else {}
        return run | ended | {"state": state, "run_details": {"task_details": details}}

    def archive(self, server: KfpServer, query: dict[str, str], body: Any, run_id: str) -> Document:
        """As KFP: the run's storage state."""
        server.runs[run_id]["storage_state"] = "ARCHIVED"
        self.archived.append(server.runs[run_id]["display_name"].rpartition(": ")[2])
        return {}

    def create_schedule(self, server: KfpServer, query: dict[str, str], body: Document) -> Document:
        """As KFP, and the first run is there at once."""
        item = self._create(server, query, body)
        run = {
            name: body[name]
            for name in ("pipeline_version_reference", "runtime_config", "experiment_id")
        }
        run |= {"display_name": body["display_name"], "recurring_run_id": item["recurring_run_id"]}
        run |= {
            "run_id": server.new_id("run"),
            "created_at": server.now(),
            "state": "PENDING",
            "state_history": [],
        }
        server.runs[run["run_id"]] = run
        return item

    _create = staticmethod(kfp._create_recurring)

    def _state(
        self, check: str, run_id: str, workflow: str
    ) -> tuple[str, dict[str, str], dict[str, int]]:
        paths = list(self._paths())
        configure, *others = paths
        if check == "wrong-data":
            address = self.api.runs[run_id]["runtime_config"]["parameters"]["data"]
            self._log(
                run_id, configure, 0, BAD_DATA_LOG.replace("s3://streetvision/nowhere", address)
            )
            return "FAILED", {configure: "failed"} | dict.fromkeys(others, "omitted"), {}
        if check in ("pod-deleted", "process-killed"):
            return self._training(check, run_id, workflow, paths)
        if check == "run":
            return "SUCCEEDED", dict.fromkeys(paths, "done"), {}
        return "SUCCEEDED", {configure: "done"} | dict.fromkeys(others, "cached"), {}

    def _training(
        self, check: str, run_id: str, workflow: str, paths: list[str]
    ) -> tuple[str, dict[str, str], dict[str, int]]:
        """It trains until it is disturbed, and has ended then."""
        training = next(path for path in paths if path.endswith(TRAINING))
        around = "".join(f".{group}(0)" for group in training.split("/"))
        node = f"{workflow}(0).root(0){around}.executor(0)"
        status = {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "main",
                    "image": "i",
                    "imageID": "i",
                    "ready": True,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                }
            ],
        }
        pods = f"/api/v1/namespaces/{self.namespace}/pods"
        if f"{pods}?workflows.argoproj.io/workflow={workflow}" not in self.kubernetes.answers:
            name = self._objects.add_pod(workflow, node, status)
            self._objects.set_log(name, "epoch 3/16:  0%|          | 0/33")
            self.kubernetes.answers |= {
                f"{pods}/{name}": {"metadata": {"name": name}},
                f"{pods}/{name}/exec": {},
            }

        disturbed = self.kubernetes.started if check == "process-killed" else self._deleted_pods()
        if not disturbed or self.trains_for_ever:
            return (
                "RUNNING",
                {path: "running" if path == training else "done" for path in paths},
                {},
            )
        is_deleted = check == "pod-deleted"
        self._log(run_id, training, int(is_deleted), RESUMED if is_deleted else RESTARTED + RESUMED)
        return "SUCCEEDED", dict.fromkeys(paths, "done"), {TRAINING: 1 + is_deleted}

    def _deleted_pods(self) -> list[str]:
        return [request for request in self.kubernetes.requests if request.startswith("DELETE ")]

    def _paths(self) -> Iterator[str]:
        spec = next(iter(self.api.packages.values()))
        for node in nodes(spec):
            if not node.is_group:
                yield "/".join([*node.group, node.name])

    def _log(self, run_id: str, path: str, attempt: int, text: str) -> None:
        """What KFP's launcher leaves in the store."""
        step = path.rpartition("/")[2]
        key = f"v2/artifacts/streetvision-stage1/{run_id}/{step}/0/executor-logs-{attempt}"
        self.store.put_if_absent(self.bucket, key, text.encode())


@pytest.fixture(scope="module")
def compiled() -> tuple[Path, str]:
    """The pipeline, compiled once."""
    return package(load_profile("cpu"), Variant())


@pytest.fixture(params=["single-user", "profile"])
def cluster(
    request: pytest.FixtureRequest,
    compiled: tuple[Path, str],
    s3: StoreSettings,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[ScriptedCluster]:
    """A cluster in each mode; the environment leads to it."""
    for name in (
        "STREETVISION_S3_ACCESS_KEY",
        "STREETVISION_S3_SECRET_DIR",
        "STREETVISION_PIPELINE_ROOT",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.package.package", lambda *options: compiled)
    monkeypatch.setattr(
        demo, "write_demo_data", lambda folder: write_demo_data(folder, n_images=40)
    )
    monkeypatch.setattr(demo, "write_demo_backbone", _write_backbone)
    monkeypatch.setenv("STREETVISION_KFP_TOKEN", "planted-token")
    multi_user = request.param == "profile"
    namespace = "streetvision" if multi_user else "kubeflow"
    with (
        kubernetes_server() as kubernetes,
        kfp_server(token="planted-token" if multi_user else None, multi_user=multi_user) as api,
    ):
        keys = {"accesskey": s3.access_key, "secretkey": s3.secret_key}
        kubernetes.hold_ready_namespace(namespace, bucket, "mlpipeline-minio-artifact", keys)
        scripted = ScriptedCluster(api, kubernetes, Store(s3), bucket, namespace)
        monkeypatch.setenv(
            "KUBECONFIG", RunObjects(kubernetes, namespace).kubeconfig(tmp_path / "kubeconfig")
        )
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", api.host)
        monkeypatch.setitem(kfp.ROUTES, ("GET", f"{kfp.PREFIX}/runs/([^/]+)"), scripted.get_run)
        monkeypatch.setitem(
            kfp.ROUTES, ("POST", f"{kfp.PREFIX}/runs/([^/]+):archive"), scripted.archive
        )
        monkeypatch.setitem(
            kfp.ROUTES, ("POST", f"{kfp.PREFIX}/recurringruns"), scripted.create_schedule
        )
        yield scripted


def _write_backbone(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")


def smoke(cluster: ScriptedCluster, endpoint: str, *options: str) -> Any:
    """The command; returns its exit code."""
    arguments = ["smoke", "--profile", "cpu", "--poll", "0", "--store-endpoint", endpoint, *options]
    with interruptible(), pytest.raises(SystemExit) as ended:
        run_verb(arguments)
    return ended.value.code


def test_a_cluster_that_works_passes_and_is_left_as_it_was(
    cluster: ScriptedCluster, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    code = smoke(cluster, s3.endpoint, "--delete-data")
    printed = capsys.readouterr().out
    results = dict(re.findall(r"^([a-z-]+) +(ok|FAILED|skipped) ", printed, re.MULTILINE))
    assert results == dict.fromkeys(checks.CHECKS, "ok"), printed
    assert code == 0
    assert "resumed at step 126 and finished" in printed
    nowhere = f"s3://{cluster.bucket}/streetvision/demo/nowhere-"
    assert re.search(rf"configure: error: data='{nowhere}\w+' holds no objects", printed)

    assert [run["storage_state"] for run in cluster.api.runs.values()] == ["ARCHIVED"] * 6
    assert cluster.api.recurring == {}
    assert cluster.store.list(cluster.bucket, "streetvision/") == []
    pods = f"/api/v1/namespaces/{cluster.namespace}/pods/"
    changes = [request for request in cluster.kubernetes.requests if not request.startswith("GET ")]
    assert len(changes) == 1
    assert changes[0].startswith(f"DELETE {pods}")
    assert [command for _, command in cluster.kubernetes.started] == [
        ["python3", "-c", KILL_RANK, TRAINING_MODULE, AGENT_MODULE]
    ]
    assert "planted" not in printed


def test_the_demo_is_one_command(
    cluster: ScriptedCluster, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "submit",
        "--demo",
        "--profile",
        "cpu",
        "--store-endpoint",
        s3.endpoint,
        "--param",
        "epochs=2",
    ]
    cli.main(command)
    (run,) = cluster.api.runs.values()
    place = f"s3://{cluster.bucket}/streetvision/demo"
    assert run["runtime_config"]["parameters"] == {
        "recipe": "demo",
        "epochs": "2",
        "data": f"{place}/data",
        "backbone": f"{place}/backbone",
    }
    names = [
        item.key.removeprefix("streetvision/demo/")
        for item in cluster.store.list(cluster.bucket, "streetvision/")
    ]
    assert {"data/labels.csv", "backbone/config.json", "backbone/model.safetensors"} <= set(names)
    assert re.search(
        rf"demo: {len(names)} files, .* at {place}; 0.6 MB of them sent", capsys.readouterr().out
    )

    cli.main(command)
    assert "0.0 MB of them sent" in capsys.readouterr().out
    assert len(cluster.api.runs) == 2


def test_data_reach_the_clusters_store_without_credentials_on_this_machine(
    cluster: ScriptedCluster,
    s3: StoreSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/labels.csv").write_text("path,label\n")
    command = ["upload-data", "photos", f"s3://{cluster.bucket}/photos"]
    cli.main([*command, "--store-endpoint", s3.endpoint])
    assert "1 file sent" in capsys.readouterr().out

    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")  # kubectl alone leads there
    cli.main([*command, "--namespace", cluster.namespace, "--store-endpoint", s3.endpoint])
    assert "0 files sent (0.0 MB), 1 were there" in capsys.readouterr().out

    unreachable = ["--namespace", cluster.namespace, "--store-endpoint", "127.0.0.1:1"]
    for options, message in (
        (
            unreachable,
            (
                "object store 127.0.0.1:1 cannot be reached from here .* add --store-endpoint"
                " localhost:PORT"
            ),
        ),
        (
            ["--namespace", "other"],
            "no Secret mlpipeline-minio-artifact .* in namespace 'other'; set STREETVISION_S3",
        ),
    ):
        with pytest.raises(SystemExit):
            cli.main([*command, *options])
        assert re.search(message, capsys.readouterr().err)


def test_submit_refuses_what_a_run_would_fail_for_before_it_sends_anything(
    cluster: ScriptedCluster, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    account = f"/api/v1/namespaces/{cluster.namespace}/serviceaccounts/streetvision-runner"
    cluster.kubernetes.answers[account] = 404
    place = f"s3://{cluster.bucket}/nowhere"
    values = ["--param", f"data={place}", "--param", "backbone=facebook/dinov2-small"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["submit", "--profile", "cpu", "--store-endpoint", s3.endpoint, *values])
    assert ended.value.code == 42
    printed = capsys.readouterr()
    assert printed.out.startswith(
        "note: backbone='facebook/dinov2-small' is taken from the Hugging Face Hub"
    )
    lines = printed.err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["error", "error"]
    assert "streetvision-runner is not there" in lines[0]
    assert f"data='{place}': nothing is there ({s3.endpoint})" in lines[1]
    assert not any(request.startswith("POST ") for request in cluster.api.requests)


def test_rights_that_are_not_there_skip_a_check(
    cluster: ScriptedCluster,
    s3: StoreSettings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = cluster._training

    def forbidden(check: str, run_id: str, workflow: str, paths: list[str]) -> Any:
        state = original(check, run_id, workflow, paths)
        cluster.kubernetes.answers |= {
            path: 403 for path in cluster.kubernetes.answers if path.endswith("/exec")
        }
        return state

    monkeypatch.setattr(cluster, "_training", forbidden)
    assert smoke(cluster, s3.endpoint, "--only", "process-killed") == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"process-killed +skipped +\d+  Kubernetes refused to start a process in pod \S+: HTTP 403",
        printed,
    )
    assert cluster.archived == ["process-killed"]


def test_a_namespace_that_is_not_ready_is_refused_before_anything_is_made(
    cluster: ScriptedCluster, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    account = f"/api/v1/namespaces/{cluster.namespace}/serviceaccounts/streetvision-runner"
    cluster.kubernetes.answers[account] = 404
    assert smoke(cluster, s3.endpoint) == 42
    assert "streetvision-runner is not there" in capsys.readouterr().err
    assert not any(request.startswith("POST ") for request in cluster.api.requests)


def test_a_killed_command_cleans_up(cluster: ScriptedCluster, s3: StoreSettings) -> None:
    cluster.trains_for_ever = True
    original = cluster._training

    def killed(*arguments: Any) -> Any:
        if cluster._deleted_pods() and cluster.trains_for_ever:
            cluster.trains_for_ever = False
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    cluster._training = killed  # type: ignore[method-assign]
    assert smoke(cluster, s3.endpoint, "--only", "pod-deleted") == 143
    assert cluster.archived == ["pod-deleted"]


def test_the_training_that_is_disturbed_is_that_of_the_pipeline(compiled: tuple[Path, str]) -> None:
    """Names and log lines that the checks look for are those of the code that runs in pods."""
    assert f"{TRAINING}:" in compiled[0].read_text()
    assert TRAINING_MODULE in Path(train_step.__file__).read_text()
    assert f'"{AGENT_MODULE}"' in Path(torchrun.__file__).read_text()
    assert "resumed at step {" in Path(loop.__file__).read_text()
    recorded = (kfp.RECORDINGS / "logs/train-baseline.executor-logs.txt").read_text()
    assert [int(epoch) for epoch in checks._EPOCH.findall(recorded)][-1] == 2


def test_a_restart_is_told_in_the_words_that_are_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = iter([TransientError("rank 0 was killed by SIGKILL"), None])

    def launch(*arguments: Any, **options: Any) -> None:
        if error := next(outcomes):
            raise error

    monkeypatch.setattr(restarts, "launch", launch)
    monkeypatch.setattr(restarts, "sleep", lambda seconds: None)
    restarts.run_module("module", TrainBaselineConfig(), {}, tmp_path)
    assert checks._RESTARTED.search(capsys.readouterr().out)


def test_a_rank_is_killed_and_its_agent_is_not() -> None:
    """Processes with the arguments of a training's, in the order in which torchrun starts them."""
    module, agent = "a.training.module", "an.agent.module"
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    names = ([agent, "-m", module], ["-m", module], ["-m", module])
    processes = [subprocess.Popen([*sleeping, *arguments]) for arguments in names]
    try:
        killed = subprocess.run(
            [sys.executable, "-c", KILL_RANK, module, agent],
            capture_output=True,
            text=True,
            check=True,
        )
        assert processes[1].wait(10) == -signal.SIGKILL
        assert killed.stdout.split() == [str(processes[1].pid)]
        assert [process.poll() for process in (processes[0], processes[2])] == [None, None]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    none = subprocess.run(
        [sys.executable, "-c", KILL_RANK, module, agent], capture_output=True, text=True, check=True
    )
    assert none.stdout == ""
