"""The pods of the manifests are safe, bounded and reproducible; every name in them exists."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import kubernetes_validate
import pytest
from kubernetes.utils import parse_quantity

from pipelines.resources import GPU, load_profile
from tests.manifests.conftest import (
    VARIANTS,
    Object,
    Variant,
    named,
    parse,
    pods,
    render,
    switch_options,
)

Rendered = Callable[..., list[Object]]
VOLUMES = {
    "configMap",
    "emptyDir",
    "secret",
    "persistentVolumeClaim",
    "projected",
    "ephemeral",
    "downwardAPI",
}


@pytest.fixture(params=["minio", "minio_with_tls"])
def objects(request: pytest.FixtureRequest) -> list[Object]:
    """The store's own objects, with HTTP and with HTTPS; no overlay has a pod."""
    found: list[Object] = request.getfixturevalue(request.param)
    return found


def test_no_overlay_has_a_pod(rendered: Rendered) -> None:
    for variant in VARIANTS:
        assert not pods(rendered(variant)), variant


def test_images_are_pinned_by_digest(objects: list[Object]) -> None:
    for container in _containers(objects):
        assert re.fullmatch(r"\S+:\S+@sha256:[0-9a-f]{64}", container["image"])
        assert ":latest" not in container["image"]


def test_every_container_asks_for_and_is_limited_in_cpu_memory_and_disk(
    objects: list[Object],
) -> None:
    for container in _containers(objects):
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert requests.keys() == limits.keys() == {"cpu", "memory", "ephemeral-storage"}, (
            container["name"]
        )
        for resource, amount in requests.items():
            assert parse_quantity(amount) <= parse_quantity(limits[resource]), container["name"]


def test_pods_meet_the_restricted_level_and_stay_out_of_the_mesh(objects: list[Object]) -> None:
    for name, pod in pods(objects).items():
        spec = pod["spec"]
        assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false", name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        assert all(volume.keys() - {"name"} <= VOLUMES for volume in spec.get("volumes", []))


def test_containers_cannot_write_their_root_or_gain_rights(objects: list[Object]) -> None:
    for container in _containers(objects):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context.get("privileged")
        assert not any("hostPort" in port for port in container.get("ports", []))


def test_every_name_that_is_referred_to_exists(objects: list[Object]) -> None:
    secrets, config_maps = named(objects, "Secret"), named(objects, "ConfigMap")
    for container in _containers(objects):
        for source in container.get("envFrom", []):
            assert source["secretRef"]["name"] in secrets
        for variable in container.get("env", []):
            for kind, reference in variable.get("valueFrom", {}).items():
                known = secrets if kind == "secretKeyRef" else config_maps
                assert reference["key"] in known[reference["name"]]["data"], variable["name"]


def test_every_volume_and_service_leads_to_something(objects: list[Object]) -> None:
    config_maps, templates = named(objects, "ConfigMap"), pods(objects)
    claims = {
        claim["metadata"]["name"]
        for item in named(objects, "StatefulSet").values()
        for claim in item["spec"]["volumeClaimTemplates"]
    }
    for pod in templates.values():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        mounts = {
            mount["name"]
            for container in pod["spec"]["containers"]
            for mount in container["volumeMounts"]
        }
        assert mounts <= volumes.keys() | claims
        assert {
            volume["configMap"]["name"] for volume in volumes.values() if "configMap" in volume
        } <= set(config_maps)
    for service in named(objects, "Service").values():
        labels = [pod["metadata"]["labels"] for pod in templates.values()]
        assert any(service["spec"]["selector"].items() <= pod.items() for pod in labels)


@pytest.mark.parametrize(
    ("size", "profiles"), [("a6000", ("a6000x2", "a6000x1")), ("dev", ("cpu",))]
)
def test_quota_and_limits_hold_one_run_of_their_profile(
    rendered: Rendered, size: str, profiles: tuple[str, ...]
) -> None:
    objects = rendered(Variant("profile", frozenset({"minio", size})))
    hard = {
        key: parse_quantity(value) for key, value in _spec(objects, "ResourceQuota")["hard"].items()
    }
    limits = _spec(objects, "LimitRange")["limits"][0]

    for profile in map(load_profile, profiles):
        # Beside training, two heavy steps and a light one; their sidecars by the defaults of the
        # LimitRange.
        for kind in ("requests", "limits"):
            for resource in ("cpu", "memory"):
                field = f"{resource}_{kind[:-1]}"
                wanted = parse_quantity(getattr(profile.training, field))
                wanted += 2 * parse_quantity(getattr(profile.heavy, field))
                wanted += parse_quantity(getattr(profile.light, field))
                sidecar = limits["defaultRequest" if kind == "requests" else "default"][resource]
                wanted += 5 * parse_quantity(sidecar)
                assert wanted <= hard[f"{kind}.{resource}"], (profile.name, kind, resource)
                # Eight parts of ingest beside the import of the backbone.
                parts = 8 * parse_quantity(getattr(profile.ingest, field))
                parts += parse_quantity(getattr(profile.heavy, field)) + 9 * parse_quantity(sidecar)
                assert parts <= hard[f"{kind}.{resource}"], (profile.name, kind, resource)
        assert parse_quantity(profile.ingest.scratch) <= parse_quantity(
            limits["default"]["ephemeral-storage"]
        )
        assert profile.training.gpus <= hard[f"requests.{GPU}"]
        assert parse_quantity(profile.training.scratch) <= parse_quantity(
            limits["default"]["ephemeral-storage"]
        )
        for resource, most in limits.get("max", {}).items():
            assert parse_quantity(getattr(profile.training, f"{resource}_limit")) <= parse_quantity(
                most
            )


def test_the_small_store_and_the_demos_steps_fit_a_node_of_two_cpus_and_four_gib(
    rendered: Rendered, manifests: Path, tmp_path: Path
) -> None:
    """Requests of the largest step, its sidecar and the store leave half of the node to KFP
    itself.
    """
    objects = rendered(Variant("profile", frozenset({"minio", "dev"})))
    copy = tmp_path / "manifests"
    shutil.copytree(manifests, copy)
    switch_options(copy / "minio", frozenset({"dev"}))
    store = named(parse(render(copy / "minio")), "StatefulSet")["streetvision-minio"]["spec"][
        "template"
    ]["spec"]["containers"][0]
    sidecar = _spec(objects, "LimitRange")["limits"][0]["defaultRequest"]
    step = load_profile("cpu").training
    for resource, node in (("cpu", "2"), ("memory", "4Gi")):
        amounts = (
            getattr(step, f"{resource}_request"),
            sidecar[resource],
            store["resources"]["requests"][resource],
        )
        assert sum(map(parse_quantity, amounts)) <= parse_quantity(node) / 2


def test_the_volume_takes_a_storage_class(manifests: Path, tmp_path: Path) -> None:
    copy = tmp_path / "manifests"
    shutil.copytree(manifests, copy)
    server = copy / "minio/server.yaml"
    server.write_text(
        server.read_text().replace("# storageClassName: fast-ssd", "storageClassName: fast-ssd")
    )
    objects = parse(render(copy / "minio"))
    store = named(objects, "StatefulSet")["streetvision-minio"]
    kubernetes_validate.validate(store, kubernetes_validate.latest_version(), strict=True)
    assert store["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "fast-ssd"


def _containers(objects: list[Object]) -> Iterator[Object]:
    for pod in pods(objects).values():
        yield from pod["spec"].get("initContainers", [])
        yield from pod["spec"]["containers"]


def _spec(objects: list[Object], kind: str) -> Object:
    spec: Object = named(objects, kind)["streetvision"]["spec"]
    return spec
