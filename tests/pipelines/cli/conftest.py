"""Fake KFP and Kubernetes, and a real store with recorded logs, for the verbs that look at runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.shared.storage import Store, StoreSettings
from tests.pipelines.kfp_server import KfpServer, kfp_server
from tests.pipelines.kubernetes_server import KubernetesServer
from tests.pipelines.run_objects import RunObjects
from tests.recordings import replay
from tests.recordings.replay import fill_store


@pytest.fixture(scope="module")
def filled(s3: StoreSettings, tmp_path_factory: pytest.TempPathFactory) -> StoreSettings:
    """The store with the recorded logs."""
    fill_store(Store(s3), tmp_path_factory.mktemp("log") / "log")
    return s3


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KfpServer]:
    """KFP's API in single-user mode; there is no Kubernetes and no store until a test has one."""
    with kfp_server(multi_user=False) as running:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", running.host)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-cluster"))
        monkeypatch.setenv("HOME", str(tmp_path))
        yield running


@pytest.fixture
def store(filled: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's address and the recorded root in the environment."""
    for name, value in filled.to_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STREETVISION_PIPELINE_ROOT", replay.ROOT)


@pytest.fixture
def objects(
    server: KfpServer, kubernetes: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunObjects:
    """Its objects; KUBECONFIG leads to it, which without it (`server`) leads nowhere."""
    made = RunObjects(kubernetes, "kubeflow")
    monkeypatch.setenv("KUBECONFIG", made.kubeconfig(tmp_path / "config"))
    return made
