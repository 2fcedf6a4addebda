"""A run's artifacts from a real S3 server; KFP's API is the fake server with a recorded run."""

from pathlib import Path

import pytest

from components.fit_threshold.config import FitThresholdConfig
from components.shared.contracts.artifacts import writing
from components.shared.contracts.errors import ArtifactError
from components.shared.storage import Store, StoreSettings
from components.shared.storage.artifacts import upload_artifact
from components.shared.storage.errors import ObjectNotFoundError
from pipelines.cli.app import main
from pipelines.kubeflow.download import download_run
from tests.pipelines.kfp_server import kfp_server
from tests.pipelines.kubernetes_server import kubernetes_server
from tests.pipelines.run_objects import RunObjects
from tests.recordings.replay import recorded_runs

PLACE = "runs/streetvision-stage1/run-1"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def store(s3: StoreSettings, bucket: str, tmp_path: Path) -> Store:
    """A store with one artifact and one report of a run."""
    store = Store(s3)
    with writing(
        tmp_path / "made", kind="Policy", step="fit_threshold", config=FitThresholdConfig()
    ) as out:
        (out / "policy.json").write_text("{}")
        (out / "deep").mkdir()
        (out / "deep/more.txt").write_text("more")
    upload_artifact(
        store, tmp_path / "made", bucket, f"{PLACE}/fit-threshold/17/policy", kind="Policy"
    )
    (tmp_path / "report").write_text("<html>")
    store.put(bucket, f"{PLACE}/evaluate/18/report", tmp_path / "report")
    return store


def test_artifacts_are_verified_and_other_files_copied(
    store: Store,
    s3: StoreSettings,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    main(["download", "run-1", "--root", f"s3://{bucket}/runs", "--output", str(tmp_path / "got")])
    assert (tmp_path / "got/run-1/fit-threshold/17/policy/deep/more.txt").read_text() == "more"
    assert (tmp_path / "got/run-1/evaluate/18/report").read_text() == "<html>"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines] == [
        "verified",
        "not an artifact of ours, copied",
    ]


def test_root_run_and_pipeline_are_found_as_for_the_other_verbs(
    store: Store,
    s3: StoreSettings,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = {**recorded_runs()["run-succeeded"], "run_id": "run-1"}
    with kfp_server(multi_user=False) as api, kubernetes_server() as kubernetes:
        api.add_run(run, "streetvision-stage1")
        objects = RunObjects(kubernetes, "kubeflow")
        objects.add_config_map("kfp-launcher", {"defaultPipelineRoot": f"minio://{bucket}/runs"})
        objects.add_secret(
            "mlpipeline-minio-artifact", {"accesskey": s3.access_key, "secretkey": s3.secret_key}
        )
        monkeypatch.setenv("KUBECONFIG", objects.kubeconfig(tmp_path / "config"))
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", api.host)
        main(["download", "--store-endpoint", s3.endpoint, "--output", str(tmp_path / "got")])
    assert (tmp_path / "got/run-1/fit-threshold/17/policy/deep/more.txt").read_text() == "more"
    assert s3.secret_key not in capsys.readouterr().out


def test_without_a_store_the_error_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with kfp_server(multi_user=False) as api:
        api.add_run(recorded_runs()["run-succeeded"], "streetvision-stage1")
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", api.host)
        with pytest.raises(SystemExit) as caught:
            main(["download"])
    assert caught.value.code == 42
    assert "object store: set STREETVISION_S3_ENDPOINT" in capsys.readouterr().err


def test_a_changed_file_is_refused_and_nothing_of_the_artifact_stays(
    store: Store, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "evil").write_text("[]")
    store.put(bucket, f"{PLACE}/fit-threshold/17/policy/policy.json", tmp_path / "evil")
    with pytest.raises(Exception, match=r"policy\.json.*sha256"):
        list(
            download_run(
                store, f"s3://{bucket}/runs", "streetvision-stage1", "run-1", tmp_path / "got"
            )
        )
    assert not [path for path in (tmp_path / "got").rglob("*") if path.is_file()]


def test_an_unknown_run_is_told(store: Store, bucket: str, tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFoundError, match=r"nothing below s3://.*run-2/; is --root"):
        list(download_run(store, f"s3://{bucket}/runs", "streetvision-stage1", "run-2", tmp_path))


def test_a_key_that_leaves_the_folder_is_refused(store: Store, bucket: str, tmp_path: Path) -> None:
    class Evil(Store):
        def __init__(self) -> None:
            """Only what download_run asks for."""
            self.endpoint = "evil"

        def list(self, bucket: str, prefix: str = "") -> list:  # type: ignore[type-arg]
            return [type("Item", (), {"key": f"{PLACE}/../../escaped"})]

    with pytest.raises(ArtifactError, match="leaves the run's folder"):
        list(
            download_run(
                Evil(), f"s3://{bucket}/runs", "streetvision-stage1", "run-1", tmp_path / "got"
            )
        )
