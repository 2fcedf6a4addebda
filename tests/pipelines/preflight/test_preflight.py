"""Refusals before a run: places by their form, objects in a real S3 server, a namespace."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.shared.storage import Store, StoreSettings
from pipelines.cli import app as cli
from pipelines.kubeflow.connection import Mode
from pipelines.kubeflow.options import StoreOptions
from pipelines.parameters import Variant
from pipelines.preflight import Preflight, check_places, check_target
from pipelines.preflight.places import check_objects, places
from pipelines.resources import load_profile
from tests.fault_proxy import fault_proxy
from tests.pipelines.kubernetes_server import KubernetesServer, kubernetes_server, write_kubeconfig

STORED = {"data": "s3://bucket/data", "backbone": "s3://bucket/backbone"}
SINGLE_USER = Mode("http://kfp", False, "kubeflow", "the default")
KEYS = {"accesskey": "planted-access", "secretkey": "planted-secret"}
PROFILE = Mode("http://kfp", True, "streetvision", "the default")


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a store nor a cluster is configured, and the working folder is empty."""
    for name in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY", "SECURE", "SECRET_DIR"):
        monkeypatch.delenv(f"STREETVISION_S3_{name}", raising=False)
    monkeypatch.delenv("STREETVISION_PIPELINE_ROOT", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)


def of(**values: Any) -> Preflight:
    return check_places({**STORED, **values}, Variant())


@pytest.mark.parametrize(
    "data", ["photos", "./photos", "/srv/photos", "photos/train.parquet", "~/photos"]
)
def test_local_data_are_refused_with_the_command_that_copies_them(data: str) -> None:
    assert of(data=data).refusals == [
        f"data={data!r}: local folders are not available inside pods; copy it to the object store: "
        f"python -m pipelines upload-data {data} s3://bucket/prefix"
    ]


def test_a_backbone_is_a_hub_id_unless_it_is_a_folder_here(tmp_path: Path) -> None:
    found = of(backbone="facebook/dinov2-small")
    assert found.refusals == []
    assert found.remarks == [
        "backbone='facebook/dinov2-small' is taken from the Hugging Face Hub, which the pods must"
        " reach; a gated one needs the Secret streetvision-hub"
    ]
    (tmp_path / "facebook/dinov2-small").mkdir(parents=True)
    for local in ("facebook/dinov2-small", "./weights", "/srv/weights", "a/b/c"):
        assert "local folders are not available inside pods" in of(backbone=local).refusals[0]


def test_other_schemes_are_refused_with_what_to_write() -> None:
    assert of(data="minio://bucket/data").refusals == [
        "data='minio://bucket/data': the steps know s3:// addresses; write s3://bucket/data"
    ]
    assert "the steps read s3:// only" in of(data="gs://bucket/data").refusals[0]
    assert of(data="s3://").refusals == ["data: 's3://' is not of the form s3://bucket/prefix"]


def test_every_place_is_looked_at_and_every_refusal_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    extra = json.dumps([{"data": "more"}, {"data": "s3://bucket/x"}])
    values = {
        "data": "photos",
        "backbone": "./weights",
        "overrides": {"ingest_dataset.extra_sources": extra, "relabel": "corrections.csv"},
    }
    assert [place.field for place in places(values, Variant())] == [
        "data",
        "extra_sources[0].data",
        "extra_sources[1].data",
        "relabel",
        "backbone",
    ]
    with pytest.raises(SystemExit) as ended:
        check_places(values, Variant()).report()
    assert ended.value.code == 42
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("=")[0] for line in lines] == [
        "error: data",
        "error: extra_sources[0].data",
        "error: relabel",
        "error: backbone",
    ]


def test_nothing_is_refused_where_everything_is_stored() -> None:
    assert of() == Preflight()
    of().report()


@pytest.fixture
def stored(s3: StoreSettings, bucket: str, tmp_path: Path) -> Store:
    """A data set, a single Parquet file, a backbone, and a folder without a model's
    configuration.
    """
    store, file = Store(s3, deadline_seconds=10), tmp_path / "x"
    file.write_bytes(b"x")
    for key in (
        "photos-old/labels.csv",
        "photos/labels.csv",
        "one.parquet",
        "vit/config.json",
        "weights/a.bin",
    ):
        store.put(bucket, key, file)
    return store


def objects(store: Store, **values: str) -> Preflight:
    return check_objects(store, [place for place in places(values, Variant()) if place.is_stored])


def test_what_is_in_the_store_is_found(stored: Store, bucket: str) -> None:
    for data in ("photos", "photos/", "one.parquet", ""):
        assert (
            objects(stored, data=f"s3://{bucket}/{data}", backbone=f"s3://{bucket}/vit")
            == Preflight()
        )


def test_what_is_not_there_is_refused_and_named(stored: Store, bucket: str) -> None:
    found = objects(stored, data=f"s3://{bucket}/phot", backbone=f"s3://{bucket}/weights")
    assert found.refusals == [
        (
            f"data='s3://{bucket}/phot': nothing is there ({stored.endpoint}); correct the address,"
            f" or copy it: python -m pipelines upload-data FOLDER s3://{bucket}/phot"
        ),
        (
            f"backbone='s3://{bucket}/weights': no config.json is there ({stored.endpoint});"
            " correct the address, or copy it: python -m pipelines upload-data FOLDER"
            f" s3://{bucket}/weights"
        ),
    ]
    assert objects(stored, data="s3://no-such-bucket/photos").refusals == [
        f"data='s3://no-such-bucket/photos': {stored.endpoint} has no bucket 'no-such-bucket';"
        " correct the address"
    ]


def test_a_large_prefix_is_not_listed(
    s3: StoreSettings, stored: Store, bucket: str, tmp_path: Path
) -> None:
    for number in range(1200):  # more than a page
        stored.put(bucket, f"large/{number}", tmp_path / "x")
    with fault_proxy(s3.endpoint, rate=0.0) as proxy:
        store = Store(replace(s3, endpoint=proxy.endpoint), deadline_seconds=10)
        assert objects(store, data=f"s3://{bucket}/large") == Preflight()
    assert len(proxy.lines) == 1


def test_credentials_that_may_not_look_are_no_reason_to_refuse(
    s3: StoreSettings, bucket: str
) -> None:
    store = Store(replace(s3, secret_key="planted-wrong"), deadline_seconds=5)
    found = objects(store, data=f"s3://{bucket}/photos")
    assert found.refusals == []
    assert "was not looked for" in found.remarks[0]
    assert "planted" not in found.remarks[0]


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesServer]:
    """A Kubernetes API that kubectl's configuration leads to, with a ready namespace for each
    mode.
    """
    with kubernetes_server() as server:
        for mode in (SINGLE_USER, PROFILE):
            server.hold_ready_namespace(
                mode.namespace, "mlpipeline", "mlpipeline-minio-artifact", KEYS
            )
        write_kubeconfig(tmp_path / "kubeconfig", server.host)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield server


def target(mode: Mode, **options: str) -> Preflight:
    """What is found of a run without places to look for; profile cpu."""
    account = options.pop("service_account", "streetvision-runner")
    given = StoreOptions(**options)
    return check_target(given, {}, Variant(), load_profile("cpu"), mode, service_account=account)


@pytest.mark.parametrize("mode", [SINGLE_USER, PROFILE], ids=["single-user", "profile"])
def test_a_ready_namespace_is_not_refused(kubernetes: KubernetesServer, mode: Mode) -> None:
    assert target(mode) == Preflight()
    assert all(request.startswith("GET ") for request in kubernetes.requests)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


SECRET = "secrets/mlpipeline-minio-artifact"
MISSING: dict[str, tuple[str, Any, str]] = {
    "account": (
        "serviceaccounts/streetvision-runner",
        404,
        (
            "service account in namespace 'kubeflow' of kubectl's cluster: streetvision-runner is"
            " not there, so no pod of a run could be made; kubectl apply -k"
            " manifests/overlays/single-user"
        ),
    ),
    "secret": (
        SECRET,
        404,
        "store secret in namespace 'kubeflow' .*: mlpipeline-minio-artifact is not there",
    ),
    "key": (SECRET, {"data": {"accesskey": "eA=="}}, "mlpipeline-minio-artifact has no secretkey"),
    "example": (
        SECRET,
        {"data": {"accesskey": _encoded("change-me"), "secretkey": _encoded("planted-secret")}},
        "mlpipeline-minio-artifact still has the example's accesskey, known to everybody; set",
    ),
    "settings": (
        "configmaps/streetvision-store",
        404,
        (
            "store settings in .*: streetvision-store is not there, so no step could read s3://;"
            " kubectl apply -k"
        ),
    ),
    "endpoint": (
        "configmaps/streetvision-store",
        {"data": {}},
        "streetvision-store has no STREETVISION_S3_ENDPOINT",
    ),
    "root": (
        "configmaps/kfp-launcher",
        {"data": {"defaultPipelineRoot": "gs://bucket/runs"}},
        (
            "launcher configuration in .*: defaultPipelineRoot 'gs://bucket/runs' of kfp-launcher"
            " is neither"
        ),
    ),
    "launcher's secret": (
        "configmaps/kfp-launcher",
        {
            "data": {
                "defaultPipelineRoot": "s3://own/runs",
                "providers": json.dumps(
                    {
                        "s3": {
                            "default": {
                                "endpoint": "minio:9000",
                                "credentials": {
                                    "secretRef": {
                                        "secretName": "own",
                                        "accessKeyKey": "a",
                                        "secretKeyKey": "b",
                                    }
                                },
                            }
                        }
                    }
                ),
            }
        },
        "the Secret own that kfp-launcher names for s3://own/runs has no a and no b; create it",
    ),
    "KFP's namespace": (
        "services/ml-pipeline",
        404,
        "namespace: kubeflow is not KFP's own, .*; give --namespace, that of KFP itself",
    ),
}


def test_a_policy_with_the_placeholder_for_the_api_is_refused(
    kubernetes: KubernetesServer,
) -> None:
    block = {"to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}], "ports": [{"port": 6443}]}
    kubernetes.answers[
        "/apis/networking.k8s.io/v1/namespaces/kubeflow/networkpolicies/streetvision-steps"
    ] = {"metadata": {"name": "streetvision-steps"}, "spec": {"podSelector": {}, "egress": [block]}}
    (refusal,) = target(SINGLE_USER).refusals
    assert refusal.startswith("network policy in namespace 'kubeflow'")
    assert "has the placeholder for the Kubernetes API" in refusal


@pytest.mark.parametrize("case", MISSING)
def test_what_is_missing_in_the_namespace_is_one_line(
    kubernetes: KubernetesServer, case: str
) -> None:
    path, answer, message = MISSING[case]
    place = f"/api/v1/namespaces/kubeflow/{path}"
    kubernetes.answers[place] = (
        kubernetes.answers[place] | answer if isinstance(answer, dict) else answer
    )
    refusals = target(SINGLE_USER).refusals
    assert len(refusals) == 1
    assert "\n" not in refusals[0]
    assert pytest.raises(AssertionError, match=message).matches(AssertionError(refusals[0]))
    assert "planted" not in refusals[0]


def test_kfps_defaults_need_no_configuration_of_the_launcher(kubernetes: KubernetesServer) -> None:
    kubernetes.answers["/api/v1/namespaces/kubeflow/configmaps/kfp-launcher"] = 404
    assert target(SINGLE_USER) == Preflight()


def test_another_service_account_is_looked_for(kubernetes: KubernetesServer) -> None:
    assert (
        "default-editor is not there"
        in target(PROFILE, service_account="default-editor").refusals[0]
    )


def _forbid(server: KubernetesServer) -> None:
    server.answers |= dict.fromkeys(server.answers, 403)


def _expire(server: KubernetesServer) -> None:
    server.answers |= dict.fromkeys(server.answers, 401)


@pytest.mark.parametrize("change", [_forbid, _expire])
def test_what_may_not_be_looked_at_is_passed_over(
    kubernetes: KubernetesServer, change: Callable[[KubernetesServer], None]
) -> None:
    change(kubernetes)
    assert target(SINGLE_USER) == Preflight()


def test_without_a_cluster_or_with_another_one_nothing_is_refused(
    kubernetes: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del kubernetes.answers["/api/v1/namespaces/kubeflow"]
    found = target(SINGLE_USER)
    assert found.refusals == []
    assert found.remarks == [
        "namespace 'kubeflow' is not in the cluster that kubectl points to, where nothing was"
        " looked at"
    ]
    write_kubeconfig(tmp_path / "away", "http://127.0.0.1:1")
    for configuration in ("away", "none"):
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / configuration))
        assert target(SINGLE_USER) == Preflight()


def test_a_store_that_cannot_be_reached_is_a_remark(
    monkeypatch: pytest.MonkeyPatch, s3: StoreSettings
) -> None:
    given = StoreOptions(store_endpoint="127.0.0.1:1")
    values = {"data": "s3://bucket/data", "backbone": "facebook/dinov2-small"}

    def remarks() -> list[str]:
        found = check_target(
            given,
            values,
            Variant(),
            load_profile("cpu"),
            SINGLE_USER,
            service_account="streetvision-runner",
        )
        assert found.refusals == []
        return found.remarks

    assert "data not looked for: object store: set STREETVISION_S3_ENDPOINT" in remarks()[0]
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    assert remarks() == [
        "data not looked for: object store 127.0.0.1:1 cannot be reached from here (Connection"
        " refused); forward its port (kubectl port-forward) and add --store-endpoint localhost:PORT"
    ]


def test_submit_refuses_a_local_folder_before_anybody_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for verb in (["submit"], ["schedule", "create", "nightly", "--cron", "0 0 3 * * *"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(
                [
                    *verb,
                    "--param",
                    "data=photos",
                    "--param",
                    "backbone=s3://bucket/vit",
                    "--host",
                    "http://kfp",
                ]
            )
        assert ended.value.code == 42
        assert capsys.readouterr().err.startswith(
            "error: data='photos': local folders are not available inside pods"
        )
