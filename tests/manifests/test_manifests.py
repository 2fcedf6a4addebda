"""Would a Kubernetes API accept every overlay, is it safe, and does every name in it lead somewhere?"""

import base64
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kfp import compiler
from kubernetes.utils import parse_quantity

from pipelines.resources import PROFILES
from pipelines.stage1 import stage1
from tests.manifests.conftest import MANIFESTS, Object, build

CUSTOM = {"LocalQueue"}  # of an operator: Kubernetes has no schema for it
RUN_PODS = "workflows.argoproj.io/workflow"


def _named(objects: list[Object], kind: str) -> dict[str, Object]:
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == kind}


def _pods(objects: list[Object]) -> dict[str, Object]:
    """Pod templates by the name of what makes them."""
    makers = [item for item in objects if item["kind"] in ("StatefulSet", "Deployment", "DaemonSet", "Job")]
    return {item["metadata"]["name"]: item["spec"]["template"] for item in makers}


def _containers(pod: Object) -> Iterator[Object]:
    yield from pod["spec"].get("initContainers", [])
    yield from pod["spec"]["containers"]


def _claims(objects: list[Object]) -> list[Object]:
    return [c for item in _named(objects, "StatefulSet").values() for c in item["spec"]["volumeClaimTemplates"]]


def test_the_api_accepts_every_object(objects: list[Object]) -> None:
    version = kubernetes_validate.latest_version()
    for item in objects:
        if item["kind"] not in CUSTOM:
            kubernetes_validate.validate(item, version, strict=True)
    print(f"{len(objects)} objects accepted by the schemas of Kubernetes {version}")


def test_everything_is_in_the_one_namespace(objects: list[Object]) -> None:
    for item in objects:
        if item["kind"] not in ("Namespace", "PriorityClass"):
            assert item["metadata"]["namespace"] == "streetvision", item["metadata"]["name"]
    labels = _named(objects, "Namespace")["streetvision"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_images_are_pinned_by_digest(objects: list[Object]) -> None:
    for pod in _pods(objects).values():
        for container in _containers(pod):
            assert re.fullmatch(r"\S+:\S+@sha256:[0-9a-f]{64}", container["image"])
            assert ":latest" not in container["image"]


def test_every_container_asks_for_and_is_limited_in_cpu_memory_and_disk(objects: list[Object]) -> None:
    for pod in _pods(objects).values():
        for container in _containers(pod):
            for side in ("requests", "limits"):
                assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"][side].keys(), container["name"]


def test_pods_meet_the_restricted_level_and_cannot_write_their_root(objects: list[Object]) -> None:
    for name, pod in _pods(objects).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        allowed = {"configMap", "emptyDir", "secret", "persistentVolumeClaim", "projected", "ephemeral", "downwardAPI"}
        assert all(volume.keys() - {"name"} <= allowed for volume in spec.get("volumes", []))
        for container in _containers(pod):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert not context.get("privileged")
            assert not any("hostPort" in port for port in container.get("ports", []))


def test_every_name_that_is_referred_to_exists(objects: list[Object]) -> None:
    secrets, config_maps = _named(objects, "Secret"), _named(objects, "ConfigMap")
    accounts = _named(objects, "ServiceAccount").keys() | {"default"}
    claims = {claim["metadata"]["name"] for claim in _claims(objects)}
    for pod in _pods(objects).values():
        assert pod["spec"].get("serviceAccountName", "default") in accounts
        mounts = {mount["name"] for container in _containers(pod) for mount in container.get("volumeMounts", [])}
        assert mounts <= {volume["name"] for volume in pod["spec"].get("volumes", [])} | claims
        for volume in pod["spec"].get("volumes", []):
            assert volume.get("configMap", {}).get("name", next(iter(config_maps))) in config_maps
        for container in _containers(pod):
            for source in container.get("envFrom", []):
                assert source["secretRef"]["name"] in secrets
    for binding in _named(objects, "RoleBinding").values():
        assert binding["roleRef"]["name"] in _named(objects, "Role")
        assert all(subject["name"] in accounts for subject in binding["subjects"])
    for service in _named(objects, "Service").values():
        assert any(
            service["spec"]["selector"].items() <= pod["metadata"]["labels"].items() for pod in _pods(objects).values()
        )


def test_the_runner_may_do_little(objects: list[Object]) -> None:
    rules = _named(objects, "Role")["streetvision-runner"]["rules"]
    for rule in rules:
        assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
        if rule["resources"][0] in ("secrets", "configmaps"):
            named = _named(objects, {"secrets": "Secret", "configmaps": "ConfigMap"}[rule["resources"][0]])
            assert rule["verbs"] == ["get"]
            assert set(rule["resourceNames"]) <= named.keys()
    assert not [item for item in objects if item["kind"].startswith("ClusterRole")]


def test_the_launcher_finds_bucket_endpoint_and_keys(objects: list[Object]) -> None:
    data = _named(objects, "ConfigMap")["kfp-launcher"]["data"]
    assert data["defaultPipelineRoot"].startswith("s3://streetvision/")
    provider = yaml.safe_load(data["providers"])["s3"]["default"]
    reference = provider["credentials"]["secretRef"]
    secret = _secret(objects, reference["secretName"])
    assert {reference["accessKeyKey"], reference["secretKeyKey"]} <= secret.keys()
    assert provider["endpoint"] == secret["STREETVISION_S3_ENDPOINT"]
    assert provider["disableSSL"] is (secret["STREETVISION_S3_SECURE"] == "false")


def _secret(objects: list[Object], name: str) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in _named(objects, "Secret")[name]["data"].items()}


def test_traffic_is_denied_unless_opened_for_someone_who_exists(objects: list[Object]) -> None:
    policies = _named(objects, "NetworkPolicy")
    assert policies["default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    present = [pod["metadata"]["labels"] for pod in _pods(objects).values()]
    for name, policy in policies.items():
        selector = policy["spec"]["podSelector"]
        wanted = selector.get("matchLabels", {})
        assert not wanted or any(wanted.items() <= labels.items() for labels in present), name
        assert [e["key"] for e in selector.get("matchExpressions", [])] in ([], [RUN_PODS]), name
        for side in ("ingress", "egress"):
            assert all(rule.get("ports") for rule in policy["spec"].get(side, [])), f"{name} opens every port"


def test_the_quota_holds_one_run_of_its_profile(manifests: Path) -> None:
    objects = build(manifests / "overlays/a6000")
    hard = _named(objects, "ResourceQuota")["streetvision"]["spec"]["hard"]
    for profile in (PROFILES["a6000x2"], PROFILES["a6000x1"]):
        assert profile.n_gpus <= int(hard["requests.nvidia.com/gpu"])
        assert int(profile.training.train_cpu) + 8 <= int(hard["requests.cpu"])
        assert int(profile.training.train_memory.removesuffix("Gi")) + 16 <= int(
            hard["requests.memory"].removesuffix("Gi")
        )
    limits = _named(objects, "LimitRange")["streetvision"]["spec"]["limits"][0]
    largest = limits["max"]
    assert parse_quantity(PROFILES["a6000x2"].train_scratch) <= parse_quantity(limits["default"]["ephemeral-storage"])
    assert int(PROFILES["a6000x2"].training.train_memory.removesuffix("Gi")) <= int(
        largest["memory"].removesuffix("Gi")
    )


def test_the_compiled_pipeline_refers_to_names_that_the_overlays_make(objects: list[Object], tmp_path: Path) -> None:
    spec = tmp_path / "stage1.yaml"
    compiler.Compiler().compile(stage1(PROFILES["a6000x2"]), str(spec))
    platform: dict[str, Any] = list(yaml.safe_load_all(spec.read_text()))[1]["platforms"]["kubernetes"]
    mentioned = set(re.findall(r"'secretName': '([^']*)'", str(platform)))
    assert mentioned == {"streetvision-s3"}
    assert mentioned <= _named(objects, "Secret").keys()


@pytest.mark.parametrize("component", ["kueue", "hub-access"])
def test_optional_components_fit_every_overlay(manifests: Path, component: str) -> None:
    for overlay in sorted((manifests / "overlays").iterdir()):
        folder = manifests / f"with-{component}-{overlay.name}"
        folder.mkdir()
        document = {"resources": [f"../overlays/{overlay.name}"], "components": [f"../components/{component}"]}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(document | {"namespace": "streetvision"}))
        assert len(build(folder)) == len(build(overlay)) + 1


def test_examples_of_secrets_are_committed_and_secrets_cannot_be(manifests: Path) -> None:
    for example in manifests.rglob("*.env.example"):
        lines = [line for line in example.read_text().splitlines() if "KEY=" in line or "PASSWORD=" in line]
        assert all("change-me" in line for line in lines), example
    real = [f"manifests/overlays/{folder.name}/s3.env" for folder in (MANIFESTS / "overlays").iterdir()]
    ignored = subprocess.run(
        ["git", "check-ignore", *real], cwd=MANIFESTS.parent, capture_output=True, text=True, check=False
    )
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert ignored.stdout.split() == real


def test_the_buckets_job_can_run_again_and_prints_no_secret(tmp_path: Path) -> None:
    client = tmp_path / "mc"
    client.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/calls\n[ "$3" != attach ]\n')
    client.chmod(0o755)
    values = {"STREETVISION_S3_ENDPOINT": "minio:9000", "STREETVISION_S3_ACCESS_KEY": "user"}
    secrets = {"STREETVISION_S3_SECRET_KEY": "planted-1", "MINIO_ROOT_USER": "root", "MINIO_ROOT_PASSWORD": "planted-2"}
    finished = subprocess.run(
        ["sh", MANIFESTS / "components/minio/setup.sh"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **values, **secrets}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, "attaching a policy that is attached already is no failure"
    assert "planted" not in finished.stdout + finished.stderr
    assert [" ".join(line.split()[:3]) for line in (tmp_path / "calls").read_text().splitlines()] == [
        "alias set store", "mb --ignore-existing store/streetvision", "version enable store/streetvision",
        "admin user add", "admin policy create", "admin policy attach",
    ]  # fmt: skip
