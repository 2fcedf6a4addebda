"""KFP's launcher finds the pipeline's bucket, and every other one where it found it before."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.conftest import KUBECTL, Object, Variant, named, parse, render
from tests.manifests.launcher import BUILT_IN, store_session

OWN_STORES = ("minio", "external-s3")
Overlay = Callable[[Variant], Path]
# Rendered from manifests/kustomize/env/platform-agnostic of KFP 2.17.0.
PUBLISHED = """\
apiVersion: v1
data:
  defaultPipelineRoot: ""
kind: ConfigMap
metadata:
  labels:
    application-crd-id: kubeflow-pipelines
  name: kfp-launcher
  namespace: kubeflow
"""
# From backend/src/v2/config/testdata/provider_cases.yaml of KFP 2.17.0 (case6, case4 and case8,
# shortened).
KFP_CASES = """\
minio:
  default:
    endpoint: minio-endpoint-6.com
    region: minio
    disableSSL: true
    credentials:
      fromEnv: false
      secretRef: {secretName: minio-test-secret-6, accessKeyKey: a, secretKeyKey: s}
  overrides:
    - endpoint: minio-endpoint-6.com
      region: minio-a
      disableSSL: true
      bucketName: minio-bucket-a
      keyPrefix: some/minio/path/a
      credentials:
        fromEnv: false
        secretRef: {secretName: minio-test-secret-6-a, accessKeyKey: b, secretKeyKey: t}
"""


@pytest.mark.parametrize(
    ("uri", "region", "secret"),
    [
        ("minio://minio-bucket-a/some/minio/path/a", "minio-a", "minio-test-secret-6-a"),
        ("minio://minio-bucket-a/some/minio/path/b", "minio", "minio-test-secret-6"),
        ("minio://other/some/minio/path/a", "minio", "minio-test-secret-6"),
    ],
)
def test_the_rules_are_those_of_kfps_own_cases(uri: str, region: str, secret: str) -> None:
    session = store_session(KFP_CASES, uri)
    assert (session["region"], session["secretName"]) == (region, secret)


@pytest.mark.parametrize(
    ("providers", "reason"),
    [
        ("minio: {default: {endpoint: minio-endpoint-4.com}}", "default credentials"),
        ("minio: {overrides: [{bucketName: b}]}", "default credentials"),
        (
            KFP_CASES.replace(
                "secretRef: {secretName: minio-test-secret-6-a, accessKeyKey: b, secretKeyKey: t}",
                "",
            ),
            "secretref",
        ),
    ],
)
def test_the_rules_refuse_what_kfp_refuses(providers: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        store_session(providers, "minio://minio-bucket-a/some/minio/path/a")


@pytest.mark.parametrize("store", OWN_STORES)
def test_a_profiles_launcher_keeps_kfps_own_store_for_every_other_bucket(
    overlay: Overlay, store: str
) -> None:
    objects = parse(render(overlay(Variant("profile", frozenset({store})))))
    providers = named(objects, "ConfigMap")["kfp-launcher"]["data"]["providers"]
    assert (
        store_session(providers, "minio://mlpipeline/private-artifacts/streetvision/v2/artifacts")
        == BUILT_IN
    )
    assert store_session(providers, "minio://other/streetvision") == BUILT_IN


@pytest.mark.parametrize("store", OWN_STORES)
def test_in_single_user_mode_kfps_own_store_is_the_same_service_by_its_short_name(
    overlay: Overlay, store: str
) -> None:
    session = store_session(
        _patch(overlay, store)["data"]["providers"], "minio://mlpipeline/v2/artifacts"
    )
    assert session == BUILT_IN | {"endpoint": "seaweedfs:9000"}


@pytest.mark.parametrize("store", OWN_STORES)
@pytest.mark.parametrize("mode", ["single-user", "profile"])
def test_the_pipelines_bucket_is_opened_where_the_steps_find_it(
    overlay: Overlay, mode: str, store: str
) -> None:
    objects = parse(render(overlay(Variant(mode, frozenset({store})))))
    settings = named(objects, "ConfigMap")["streetvision-store"]["data"]
    launcher = (
        _patch(overlay, store)
        if mode == "single-user"
        else named(objects, "ConfigMap")["kfp-launcher"]
    )
    session = store_session(launcher["data"]["providers"], settings["STREETVISION_PIPELINE_ROOT"])

    assert session["endpoint"] == settings["STREETVISION_S3_ENDPOINT"]
    assert session["region"] == settings["STREETVISION_S3_REGION"]
    assert session["disableSSL"] is (settings["STREETVISION_S3_SECURE"] == "false")
    secret = named(objects, "Secret")[session["secretName"]]
    assert (
        secret["data"].keys()
        == {session["accessKeyKey"], session["secretKeyKey"]}
        == {"accesskey", "secretkey"}
    )
    bucket = settings["STREETVISION_PIPELINE_ROOT"].split("/")[2]
    assert settings["STREETVISION_CHECKPOINT_STORE"] == f"s3://{bucket}/checkpoints"


def test_runs_of_a_profile_write_to_the_pipelines_store_unless_told_otherwise(
    overlay: Overlay,
) -> None:
    config_maps = named(
        parse(render(overlay(Variant("profile", frozenset({"minio"}))))), "ConfigMap"
    )
    root = config_maps["streetvision-store"]["data"]["STREETVISION_PIPELINE_ROOT"]
    assert (
        config_maps["kfp-launcher"]["data"]["defaultPipelineRoot"]
        == root
        == "minio://streetvision/runs"
    )


@pytest.mark.parametrize("store", OWN_STORES)
def test_the_patch_adds_the_provider_to_kfps_object_and_changes_nothing_else(
    overlay: Overlay, store: str, tmp_path: Path
) -> None:
    """By kubectl itself, offline: `--local` applies the patch as the API server does."""
    published = tmp_path / "kfp-launcher.yaml"
    published.write_text(PUBLISHED)
    patch = render(overlay(Variant("single-user", frozenset({store}))) / "launcher")
    finished = subprocess.run(
        [
            KUBECTL,
            "patch",
            "--local",
            "-f",
            published,
            "--type",
            "merge",
            "--patch",
            patch,
            "-o",
            "yaml",
        ],
        env={"KUBECONFIG": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=True,
    )
    patched, before = yaml.safe_load(finished.stdout), yaml.safe_load(PUBLISHED)
    assert (
        store_session(patched["data"].pop("providers"), "minio://mlpipeline/x")["secretName"]
        == "mlpipeline-minio-artifact"
    )
    assert patched == before


def test_kubernetes_yaml_reads_the_flag_as_a_boolean(overlay: Overlay, tmp_path: Path) -> None:
    """KFP's launcher and kubectl read YAML with the same library.

    A text would make the launcher refuse it.
    """
    providers = yaml.safe_load(
        render(overlay(Variant("single-user", frozenset({"external-s3"}))) / "launcher")
    )
    target = tmp_path / "target.yaml"
    target.write_text(PUBLISHED)
    finished = subprocess.run(
        [
            KUBECTL,
            "patch",
            "--local",
            "-f",
            target,
            "--type",
            "merge",
            "--patch",
            providers["data"]["providers"],
            "-o",
            "json",
        ],
        env={"KUBECONFIG": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"disableSSL": false' in finished.stdout


def _patch(overlay: Overlay, store: str) -> dict[str, Any]:
    launcher: list[Object] = parse(
        render(overlay(Variant("single-user", frozenset({store}))) / "launcher")
    )
    assert len(launcher) == 1
    return launcher[0]
