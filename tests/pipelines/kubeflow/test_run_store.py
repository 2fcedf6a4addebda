"""Root and credentials of the object store, as KFP's pods find them."""

import contextlib
from pathlib import Path

import pytest

from components.shared.contracts.errors import ConfigError
from components.shared.storage import StoreSettings
from pipelines.kubeflow import run_store
from pipelines.kubeflow.connection import Mode
from pipelines.kubeflow.options import StoreOptions
from pipelines.kubeflow.reader import ClusterReader
from pipelines.kubeflow.run_pods import open_cluster
from pipelines.kubeflow.run_store import RunStore, find_root, open_store, root_for_runs, split_root
from tests.pipelines.kubernetes_server import KubernetesServer
from tests.pipelines.run_objects import RunObjects

SINGLE = Mode("http://kfp", False, "kubeflow", "the default")
PROFILE = Mode("http://kfp", True, "mine", "the default")
KEYS = {"accesskey": "who", "secretkey": "planted-secret"}
PROVIDERS = """
s3:
  default:
    endpoint: https://s3.example:9000
    region: eu-1
    credentials: {fromEnv: false, secretRef: {secretName: store, accessKeyKey: a, secretKeyKey: b}}
"""


@pytest.fixture
def objects(
    kubernetes: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunObjects:
    """Its objects; KUBECONFIG leads to it, and the environment names no store."""
    made = RunObjects(kubernetes, "kubeflow")
    monkeypatch.setenv("KUBECONFIG", made.kubeconfig(tmp_path / "config"))
    return made


def _reader() -> ClusterReader:
    return open_cluster("kubeflow")[1]


def _opened(mode: Mode = SINGLE, reader: ClusterReader | None = None, **options: str) -> RunStore:
    parsed = StoreOptions(root=options.get("root"), store_endpoint=options.get("store_endpoint"))
    return open_store(parsed, mode, reader, options.get("run_root", ""))


def test_the_first_root_that_is_known_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher, ours = (
        {"defaultPipelineRoot": "s3://launcher"},
        {"STREETVISION_PIPELINE_ROOT": "s3://ours"},
    )
    monkeypatch.setenv("STREETVISION_PIPELINE_ROOT", "s3://environment")
    assert find_root("s3://given", "s3://run", SINGLE, launcher, ours).uri == "s3://given"
    assert find_root(None, "s3://run", SINGLE, launcher, ours).uri == "s3://run"
    assert find_root(None, "", SINGLE, launcher, ours).uri == "s3://environment"
    monkeypatch.delenv("STREETVISION_PIPELINE_ROOT")
    assert find_root(None, "", SINGLE, launcher, ours).uri == "s3://launcher"
    assert find_root(None, "", SINGLE, {}, ours).uri == "s3://ours"


def test_a_new_run_is_given_a_root_only_where_one_is_set(
    objects: RunObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = StoreOptions(root=None)
    assert root_for_runs(without, None) == ""
    assert root_for_runs(without, _reader()) == ""
    objects.add_config_map(
        "streetvision-store", {"STREETVISION_PIPELINE_ROOT": "minio://ours/runs"}
    )
    assert root_for_runs(without, _reader()) == "minio://ours/runs"
    monkeypatch.setenv("STREETVISION_PIPELINE_ROOT", "s3://environment")
    assert root_for_runs(without, _reader()) == "s3://environment"
    assert root_for_runs(StoreOptions(root="s3://given"), _reader()) == "s3://given"
    with pytest.raises(ConfigError, match="give --root"):
        root_for_runs(StoreOptions(root="gs://given"), None)


def test_without_any_the_root_is_kfps_default_of_the_mode() -> None:
    assert find_root(None, "", SINGLE, {}, {}).uri == "minio://mlpipeline/v2/artifacts"
    assert (
        find_root(None, "", PROFILE, {}, {}).uri
        == "minio://mlpipeline/private-artifacts/mine/v2/artifacts"
    )


@pytest.mark.parametrize(
    ("uri", "split"),
    [
        ("minio://mlpipeline/v2/artifacts", ("mlpipeline", "v2/artifacts")),
        ("s3://bucket/runs/", ("bucket", "runs")),
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/runs?region=eu-1&endpoint=x", ("bucket", "runs")),
    ],
)
def test_both_kinds_of_roots_are_understood(uri: str, split: tuple[str, str]) -> None:
    assert split_root(uri) == split


@pytest.mark.parametrize("uri", ["gs://bucket/x", "/folder", "s3://", "bucket/x"])
def test_other_roots_are_refused(uri: str) -> None:
    with pytest.raises(
        ConfigError, match=r"must be s3://bucket/prefix or minio://bucket/prefix; give --root"
    ):
        split_root(uri)


def test_kfps_own_store_is_opened_with_its_own_secret(objects: RunObjects) -> None:
    objects.add_secret("mlpipeline-minio-artifact", KEYS)
    opened = _opened(reader=_reader())
    assert (opened.bucket, opened.prefix) == ("mlpipeline", "v2/artifacts")
    assert opened.store.endpoint == "seaweedfs.kubeflow:9000"
    assert opened.folder("p", "run") == "v2/artifacts/p/run/"


def test_the_launchers_provider_names_address_and_secret(objects: RunObjects) -> None:
    objects.add_config_map(
        "kfp-launcher", {"defaultPipelineRoot": "s3://bucket/runs", "providers": PROVIDERS}
    )
    objects.add_secret("store", {"a": "who", "b": "planted-secret"})
    opened = _opened(reader=_reader())
    assert (opened.bucket, opened.prefix, opened.root.origin) == (
        "bucket",
        "runs",
        "ConfigMap kfp-launcher",
    )
    assert opened.store.endpoint == "s3.example:9000"


def test_a_root_without_a_provider_uses_our_settings(objects: RunObjects) -> None:
    objects.add_config_map("kfp-launcher", {"defaultPipelineRoot": "s3://bucket/runs"})
    objects.add_config_map("streetvision-store", {"STREETVISION_S3_ENDPOINT": "minio:9000"})
    objects.add_secret("streetvision-runs", KEYS)
    assert _opened(reader=_reader()).store.endpoint == "minio:9000"


def test_people_take_the_teams_user_where_the_store_has_one(
    objects: RunObjects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The launcher's may not write data, and theirs reaches no pod."""
    names = "secretName: store, accessKeyKey: a, secretKeyKey: b"
    assert names in PROVIDERS
    providers = PROVIDERS.replace(
        names, "secretName: streetvision-runs, accessKeyKey: accesskey, secretKeyKey: secretkey"
    )
    objects.add_config_map(
        "kfp-launcher", {"defaultPipelineRoot": "s3://bucket/runs", "providers": providers}
    )
    authority = tmp_path / "ca.crt"
    authority.write_text("")
    monkeypatch.setenv("STREETVISION_S3_CA_FILE", str(authority))
    opened_with: list[StoreSettings] = []
    objects.add_secret("streetvision-runs", {"accesskey": "runs", "secretkey": "planted-1"})
    monkeypatch.setattr(run_store, "Store", lambda settings, **_: opened_with.append(settings))
    _opened(reader=_reader())
    objects.add_secret("streetvision-team", {"accesskey": "team", "secretkey": "planted-2"})
    _opened(reader=_reader())
    assert [settings.access_key for settings in opened_with] == ["runs", "team"]
    assert opened_with[0].ca_file == str(authority)


def test_a_forwarded_port_replaces_the_address(objects: RunObjects) -> None:
    objects.add_secret("mlpipeline-minio-artifact", KEYS)
    assert (
        _opened(reader=_reader(), store_endpoint="localhost:9000").store.endpoint
        == "localhost:9000"
    )


def test_credentials_of_the_environment_win(
    objects: RunObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.add_secret("mlpipeline-minio-artifact", KEYS)
    for name, value in (("ENDPOINT", "mine:9000"), ("ACCESS_KEY", "me"), ("SECRET_KEY", "planted")):
        monkeypatch.setenv(f"STREETVISION_S3_{name}", value)
    opened = _opened(reader=_reader())
    assert opened.store.endpoint == "mine:9000"
    assert opened.root.uri == "minio://mlpipeline/v2/artifacts"


def test_without_credentials_the_error_says_what_to_set(
    objects: RunObjects, kubernetes: KubernetesServer
) -> None:
    with pytest.raises(ConfigError, match=r"set STREETVISION_S3_ENDPOINT, .* or KUBECONFIG"):
        _opened()
    with pytest.raises(
        ConfigError,
        match=r"no Secret mlpipeline-minio-artifact with accesskey .* namespace 'kubeflow'",
    ):
        _opened(reader=_reader())
    kubernetes.answers["/api/v1/namespaces/kubeflow/secrets/mlpipeline-minio-artifact"] = 403
    with pytest.raises(ConfigError, match=r"Kubernetes refused to show where it is .HTTP 403"):
        _opened(reader=_reader())


def test_a_launcher_that_would_refuse_its_settings_is_told(objects: RunObjects) -> None:
    providers = "s3: {default: {endpoint: x}}"
    objects.add_config_map(
        "kfp-launcher", {"defaultPipelineRoot": "s3://bucket/runs", "providers": providers}
    )
    with pytest.raises(ConfigError, match="no default credentials"):
        _opened(reader=_reader())


def test_no_secret_is_part_of_an_error_or_of_what_is_shown(objects: RunObjects) -> None:
    objects.add_secret("mlpipeline-minio-artifact", {**KEYS, "accesskey": ""})
    with pytest.raises(ConfigError) as caught:
        _opened(reader=_reader())
    assert "planted" not in str(caught.value)
    objects.add_secret("mlpipeline-minio-artifact", KEYS)
    with contextlib.suppress(ConfigError):
        assert "planted" not in repr(_opened(reader=_reader()))
