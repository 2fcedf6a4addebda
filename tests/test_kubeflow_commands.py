"""Every command of the Kubeflow guides, as a new user types them, to a second run that is cached.

The API, Kubernetes and the steps' pods are stood in for by the servers of tests/pipelines, whose
answers are compared with recorded ones there; the object store is a real S3 server. `kubectl`'s
objects are looked at in tests/manifests, images are built in tests/images.
"""

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.shared.storage import Store, StoreSettings
from pipelines.cli import app as cli
from pipelines.graph import nodes
from pipelines.resources import OWN_STORE_SECRETS, TEAM_SECRET
from pipelines.sources import ROOT
from pipelines.upload_data import demo
from tests.components.conftest import write_backbone, write_source
from tests.manifests.conftest import Object, Variant, manifests, named, overlay, rendered
from tests.pipelines import kfp_server as kfp
from tests.pipelines.argo_tasks import task_details
from tests.pipelines.kubernetes_server import kubernetes_server
from tests.pipelines.run_objects import RunObjects

pytestmark = pytest.mark.slow  # each guide is followed from its first command to its last

__all__ = ["manifests", "overlay", "rendered"]
TOKEN = "planted-token"
SINGLE, PROFILE, DAILY = (
    "docs/guides/kubeflow-single-user.md",
    "docs/guides/kubeflow-profile.md",
    "docs/guides/kubeflow-daily-work.md",
)
# The namespace, bucket and folder of the pipeline root, and the Secrets with the store's
# credentials.
_KFPS_STORE = ("kubeflow", "mlpipeline", "v2/artifacts", ["mlpipeline-minio-artifact"])
CLUSTERS = {
    SINGLE: _KFPS_STORE,
    DAILY: _KFPS_STORE,
    PROFILE: (
        "streetvision",
        "streetvision",
        "runs",
        [*OWN_STORE_SECRETS.values(), TEAM_SECRET],
    ),
}
# What a cluster or a shell does; what these commands lead to is tested beside what they need.
ELSEWHERE = (
    "kubectl ",
    "cp ",
    "export STREETVISION_",
    "export KF_PIPELINES_ENDPOINT=",
    "--audience ",
)


def commands(document: str) -> list[str]:
    """Return a guide's shell commands, each on one line, without comments and pasted objects."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^ *```\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL))
    blocks = re.sub(r"<<END\n.*?\nEND\n", "\n", blocks, flags=re.DOTALL)
    lines = blocks.replace("\\\n", " ").splitlines()
    return [" ".join(re.sub(r"(^|\s{2,})#.*", "", line).split()) for line in lines if line.strip()]


@dataclass
class NewUser:
    """A user at a terminal, with the API and the store on forwarded ports."""

    endpoint: str
    variables: dict[str, str] = field(default_factory=dict)

    def types(self, line: str) -> None:
        """Run the commands of a line; one that fails, or that no test knows, fails the test."""
        for command in line.split("; "):
            command = command.strip()
            for name, value in self.variables.items():
                command = command.replace(f"${name}", value)
            if command.startswith("make "):
                command = _made(command)

            if " -m pipelines " in command:
                _run(
                    shlex.split(
                        command.replace("localhost:9000", self.endpoint).partition(
                            " -m pipelines "
                        )[2]
                    )
                )
            elif re.match(r"export (PREFIX|STORE|DATA|BACKBONE)=", command):
                name, _, value = command.removeprefix("export ").partition("=")
                self.variables[name] = value.strip("'")
            else:
                assert command.startswith(ELSEWHERE) or not command, f"no test runs {command!r}"


def _made(command: str) -> str:
    """What make would run."""
    shown = subprocess.run(
        ["make", "-n", *shlex.split(command)[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return next(line for line in shown.stdout.splitlines() if " -m pipelines " in line)


def _run(arguments: list[str]) -> None:
    if arguments[0] == "images":
        arguments = ["images"]  # without an engine, their list
    code = 0
    try:
        cli.main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    # This cluster has little of what `doctor` looks at; what it then says is tested elsewhere.
    assert not code or (arguments[0] == "doctor" and code == 1), arguments


@pytest.fixture(params=CLUSTERS)
def document(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cluster(
    document: str,
    s3: StoreSettings,
    rendered: Callable[..., list[Object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[kfp.KfpServer]:
    """A cluster after its `kubectl apply`; runs end at once, the second one with every step but the
    first cached.
    """
    namespace, bucket, folder, secrets = CLUSTERS[document]
    multi_user = document == PROFILE
    Store(s3).make_bucket(bucket)
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path / "photos")
    write_backbone(tmp_path / "dinov2-small")
    monkeypatch.setattr(demo, "write_demo_data", _write_demo_data)
    with (
        kubernetes_server() as kubernetes,
        kfp.kfp_server(token=TOKEN if multi_user else None, multi_user=multi_user) as api,
    ):
        keys = {"accesskey": s3.access_key, "secretkey": s3.secret_key}
        for secret in secrets:
            kubernetes.hold_ready_namespace(namespace, bucket, secret, keys)
        if multi_user:
            applied = named(
                rendered(Variant("profile", frozenset({"minio"})), "editor"), "ConfigMap"
            )
            for name in ("kfp-launcher", "streetvision-store"):
                kubernetes.hold(namespace, "configmaps", name, data=applied[name]["data"])
        monkeypatch.setenv(
            "KUBECONFIG", RunObjects(kubernetes, namespace).kubeconfig(tmp_path / "kubeconfig")
        )
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", api.host)
        monkeypatch.setenv("STREETVISION_KFP_TOKEN", TOKEN)

        create = kfp.ROUTES[("POST", f"{kfp.PREFIX}/runs")]

        def created(server: kfp.KfpServer, query: dict[str, str], body: Any, *path: str) -> Any:
            state = "cached" if server.runs else "done"
            run = create(server, query, body, *path)
            server.runs[run["run_id"]] |= _ended(server, state)
            log = f"{folder}/streetvision-stage1/{run['run_id']}/configure/0/executor-logs-0"
            Store(s3).put_if_absent(bucket, log, b"recipe demo")
            return run

        monkeypatch.setitem(kfp.ROUTES, ("POST", f"{kfp.PREFIX}/runs"), created)
        yield api


def _write_demo_data(folder: Path) -> None:
    if not folder.exists():
        write_source(folder)


def _ended(server: kfp.KfpServer, state: str) -> dict[str, Any]:
    spec = next(iter(server.packages.values()))
    steps = {"/".join((*node.group, node.name)): state for node in nodes(spec) if not node.is_group}
    tasks = task_details("wf-1", steps | {"configure": "done"}, root="SUCCEEDED")
    return {"state": "SUCCEEDED", "run_details": {"task_details": tasks}}


def test_every_command_of_the_documents_runs(
    document: str, cluster: kfp.KfpServer, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    user = NewUser(s3.endpoint)
    for line in commands(document):
        user.types(line)
    typed = capsys.readouterr()
    assert "configure" in typed.out
    assert TOKEN not in typed.out + typed.err
    assert s3.secret_key not in typed.out + typed.err


def test_the_demo_submitted_again_is_cached(
    document: str, cluster: kfp.KfpServer, s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    user = NewUser(s3.endpoint)
    typed = commands(document)
    for line in typed:
        if line.startswith("export STORE="):
            user.types(line)
    (demo_command,) = (line for line in typed if "--demo" in line)
    user.types(demo_command)
    assert capsys.readouterr().out.count(" done") == 14
    user.types(demo_command)
    user.types(".venv/bin/python -m pipelines status")
    shown = capsys.readouterr().out
    assert shown.count("cached") >= 12
    first, second = cluster.runs.values()
    assert first["runtime_config"] == second["runtime_config"]
    assert first["pipeline_version_reference"] == second["pipeline_version_reference"]
