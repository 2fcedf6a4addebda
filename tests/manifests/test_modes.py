"""Each mode with each option: an API accepts it, and it touches only the pipeline's objects."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import kubernetes_validate
import pytest

from pipelines.kubeflow import connection
from pipelines.resources import load_profile
from tests.manifests.conftest import (
    MANIFESTS,
    NAMESPACES,
    OPTIONS,
    STORE_NAMESPACE,
    VARIANTS,
    Object,
    Variant,
    identity,
    named,
    parse,
    render,
    switch_options,
)

CUSTOM = {
    "LocalQueue",
    "Issuer",
    "Certificate",
    "TrainingRuntime",
    "InferenceService",  # test_serving.py has KServe's own
}  # of operators: Kubernetes has no schema
CLUSTER_WIDE = {"PriorityClass"}
# What kubeflow-edit of Kubeflow's manifests (common/kubeflow-roles) may create in a profile's
# namespace.
EDITOR_KINDS = {
    "ConfigMap",
    "Secret",
    "NetworkPolicy",
    "InferenceService",
    "PodDisruptionBudget",
}
ADMIN_KINDS = {
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ResourceQuota",
    "LimitRange",
    "PriorityClass",
    "LocalQueue",
}
SHIPPED = {"single-user": frozenset[str](), "profile": frozenset({"minio", "a6000"})}
Rendered = Callable[..., list[Object]]


def test_the_api_accepts_every_object(objects: list[Object]) -> None:
    version = kubernetes_validate.latest_version()
    for item in objects:
        if item["kind"] not in CUSTOM:
            kubernetes_validate.validate(item, version, strict=True)


def test_the_api_accepts_the_stores_own_objects(
    minio: list[Object], minio_with_tls: list[Object]
) -> None:
    version = kubernetes_validate.latest_version()
    for item in [*minio, *minio_with_tls]:
        if item["kind"] not in CUSTOM:
            kubernetes_validate.validate(item, version, strict=True)


def test_no_overlay_has_the_stores_server_or_its_administrator(
    objects: list[Object], minio: list[Object]
) -> None:
    """Whoever may start pods in a namespace may mount all of its Secrets."""
    here = {(item["kind"], item["metadata"]["name"]) for item in objects}
    there = {(item["kind"], item["metadata"]["name"]) for item in minio}
    assert ("Secret", "streetvision-minio-root") in there - here
    assert {name for kind, name in here & there if kind != "Secret"} == set()
    assert not {kind for kind, _ in here} & {"StatefulSet", "Job", "Service", "Namespace"}


def test_the_store_is_in_a_namespace_of_its_own(manifests: Path, minio: list[Object]) -> None:
    """It is made apart from what is in it, so that `kubectl delete -k` leaves the volume."""
    (namespace,) = parse(render(manifests / "minio/namespace"))
    assert (namespace["kind"], namespace["metadata"]["name"]) == ("Namespace", STORE_NAMESPACE)
    kubernetes_validate.validate(namespace, kubernetes_validate.latest_version(), strict=True)
    assert STORE_NAMESPACE not in NAMESPACES.values()
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for item in minio:
        assert item["kind"] != "Namespace"
        assert item["metadata"]["namespace"] == STORE_NAMESPACE, identity(item)
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == STORE_NAMESPACE
        assert item["metadata"]["name"].startswith("streetvision")


@pytest.mark.parametrize("mode", NAMESPACES)
def test_the_stores_namespace_moves_with_two_lines(
    manifests: Path, tmp_path: Path, mode: str
) -> None:
    """One where it is made, and one where the runs find it."""
    copy = tmp_path / "manifests"
    shutil.copytree(manifests, copy)
    for file, old in (
        ("minio/name/kustomization.yaml", "namespace: streetvision-store\n"),
        ("components/minio/settings/settings.yaml", ".streetvision-store.svc"),
    ):
        text = (copy / file).read_text()
        assert text.count(old) == 1
        (copy / file).write_text(text.replace(old, old.replace("streetvision-store", "objects")))
    _replace(copy / "minio/kustomization.yaml", "  # - tls\n", "  - tls\n")

    store = parse(render(copy / "minio"))
    assert {item["metadata"]["namespace"] for item in store} == {"objects"}
    made = parse(render(copy / "minio/namespace"))
    assert [item["metadata"]["name"] for item in made] == ["objects"]
    names = named(store, "Certificate")["streetvision-minio"]["spec"]["dnsNames"]
    assert not [name for name in names if "streetvision-store" in name]
    assert "streetvision-minio.objects.svc" in names

    switch_options(copy / "overlays" / mode, frozenset({"minio"}))
    text = render(copy / "overlays" / mode)
    assert "streetvision-store:" not in text.replace("name: streetvision-store\n", "")
    assert ".streetvision-store" not in text
    settings = named(parse(text), "ConfigMap")["streetvision-store"]["data"]
    assert settings["STREETVISION_S3_ENDPOINT"] == "streetvision-minio.objects.svc:9000"


def test_kfps_namespace_moves_with_one_file(manifests: Path, tmp_path: Path) -> None:
    copy = tmp_path / "manifests"
    shutil.copytree(manifests, copy)
    _replace(copy / "overlays/profile/editor/settings.yaml", "kubeflow", "pipelines")
    objects = parse(render(copy / "overlays/profile"))
    providers = named(objects, "ConfigMap")["kfp-launcher"]["data"]["providers"]
    assert 'endpoint: "seaweedfs.pipelines:9000"' in providers
    policy = named(objects, "NetworkPolicy")["streetvision-steps"]
    assert "kubeflow" not in str(policy)
    assert "pipelines" in str(policy)


def test_every_option_is_tried_in_every_mode() -> None:
    for mode in NAMESPACES:
        assert {
            option for variant in VARIANTS if variant.mode == mode for option in variant.options
        } == set(OPTIONS)


@pytest.mark.parametrize("mode", NAMESPACES)
def test_the_overlays_are_shipped_with_these_options(
    manifests: Path, rendered: Rendered, mode: str
) -> None:
    assert parse(render(manifests / "overlays" / mode)) == rendered(Variant(mode, SHIPPED[mode]))


def test_everything_is_in_the_modes_namespace_and_none_is_made_or_labelled(
    objects: list[Object], variant: Variant
) -> None:
    for item in objects:
        assert item["kind"] != "Namespace"
        assert item["metadata"]["name"] not in (
            "own-store",
            "cluster",
            "tls",
            "serving",
        ), "read, not applied"
        if item["kind"] not in CLUSTER_WIDE:
            assert item["metadata"]["namespace"] == NAMESPACES[variant.mode], identity(item)
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "streetvision", identity(
            item
        )


def test_the_namespaces_are_those_that_the_command_line_takes_by_default() -> None:
    assert NAMESPACES == {
        "single-user": connection.KFP_NAMESPACE,
        "profile": connection.PROFILE_NAMESPACE,
    }


@pytest.mark.parametrize("store", ["minio", "external-s3"])
@pytest.mark.parametrize(
    ("mode", "file"),
    [("single-user", "kustomization.yaml"), ("profile", "namespace/kustomization.yaml")],
)
def test_the_namespace_stands_in_one_place(
    manifests: Path,
    rendered: Rendered,
    overlay: Callable[[Variant], Path],
    mode: str,
    file: str,
    store: str,
) -> None:
    variant = Variant(mode, frozenset({store, "a6000", "kueue", "hub-access", "tls"}))
    moved = manifests / "overlays" / f"moved-{variant}"
    shutil.copytree(overlay(variant), moved)
    place = moved / file
    place.write_text(
        place.read_text().replace(f"namespace: {NAMESPACES[mode]}", "namespace: elsewhere")
    )

    text = render(moved)
    assert f"namespace: {NAMESPACES[mode]}\n" not in text
    assert f".{NAMESPACES[mode]}.svc" not in text
    back = text.replace("namespace: elsewhere\n", f"namespace: {NAMESPACES[mode]}\n")
    assert "elsewhere" not in back
    assert parse(back) == rendered(variant)
    assert (
        named(parse(text), "RoleBinding")["streetvision-runner"]["subjects"][0]["namespace"]
        == "elsewhere"
    )


def test_the_namespace_of_single_user_mode_is_nowhere_when_moved(
    manifests: Path, overlay: Callable[[Variant], Path]
) -> None:
    variant = Variant("single-user", frozenset({"minio", "tls"}))
    moved = manifests / "overlays" / "moved-entirely"
    shutil.copytree(overlay(variant), moved)
    place = moved / "kustomization.yaml"
    place.write_text(place.read_text().replace("namespace: kubeflow", "namespace: elsewhere"))
    assert "kubeflow" not in render(moved) + render(moved / "launcher")


def test_single_user_mode_changes_none_of_kfps_objects(
    objects: list[Object], variant: Variant, kfp_objects: dict[str, set[str]]
) -> None:
    ours = {identity(item) for item in objects}
    if variant.mode == "single-user":
        assert not ours & kfp_objects["single-user"]
        assert not {item["kind"] for item in objects} & {
            "ResourceQuota",
            "LimitRange",
            "PriorityClass",
        }
        assert {"ConfigMap/kubeflow/kfp-launcher", "Namespace//kubeflow"} <= kfp_objects[
            "single-user"
        ]
    assert not ours & kfp_objects["multi-user"]


def test_names_and_labels_in_a_shared_namespace_are_the_pipelines_own(
    objects: list[Object], variant: Variant
) -> None:
    """Nothing can be taken for another's: no general name, no selector that finds other pods."""
    for item in objects:
        name = item["metadata"]["name"]
        assert name.startswith("streetvision") or (
            variant.mode == "profile" and name == "kfp-launcher"
        )
    for policy in named(objects, "NetworkPolicy").values():
        selector = policy["spec"]["podSelector"]
        assert selector.keys() == {"matchLabels"}
        # The second label is set by KServe, from the name of the InferenceService.
        assert "streetvision" in (
            selector["matchLabels"].get("app.kubernetes.io/part-of"),
            selector["matchLabels"].get("serving.kserve.io/inferenceservice"),
        )


def test_of_what_kfp_makes_in_a_profile_only_the_launchers_configuration_is_changed(
    objects: list[Object], variant: Variant, kfp_objects: dict[str, set[str]]
) -> None:
    ours = {f"{item['kind']}//{item['metadata']['name']}" for item in objects}
    expected = {"ConfigMap//kfp-launcher"} if variant.mode == "profile" else set()
    assert ours & kfp_objects["profile"] == expected


def test_an_editor_can_apply_the_one_half_of_a_profile_and_the_other_needs_an_admin(
    rendered: Rendered,
) -> None:
    variant = Variant("profile", frozenset({"minio", "a6000", "kueue", "hub-access"}))
    editor, admin = rendered(variant, "editor"), rendered(variant, "admin")
    assert {item["kind"] for item in editor} <= EDITOR_KINDS
    assert {item["kind"] for item in admin} == ADMIN_KINDS
    assert sorted(map(identity, editor + admin)) == sorted(map(identity, rendered(variant)))


def test_an_admin_needs_no_secret_of_the_team(manifests: Path, tmp_path: Path) -> None:
    shutil.copytree(MANIFESTS, tmp_path / "manifests", ignore=shutil.ignore_patterns("*.env"))
    assert not list((tmp_path / "manifests").rglob("*.env"))
    assert "kind: ResourceQuota" in render(tmp_path / "manifests/overlays/profile/admin")


def test_the_runner_may_do_little_and_read_the_launchers_secrets_only(
    objects: list[Object],
) -> None:
    rules = named(objects, "Role")["streetvision-runner"]["rules"]
    for rule in rules:
        assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
    allowed = {resource: rule for rule in rules for resource in rule["resources"]}
    assert allowed["secrets"]["verbs"] == allowed["configmaps"]["verbs"] == ["get"]
    assert allowed["configmaps"]["resourceNames"] == ["kfp-launcher"]
    used = {
        load_profile("a6000x2").secrets.store,
        *(named(objects, "Secret").keys() & {"streetvision-runs"}),
    }
    assert (
        used
        <= set(allowed["secrets"]["resourceNames"])
        == {"mlpipeline-minio-artifact", "streetvision-runs"}
    )
    binding = named(objects, "RoleBinding")["streetvision-runner"]
    assert binding["roleRef"]["name"] in named(objects, "Role")
    assert [subject["name"] for subject in binding["subjects"]] == ["streetvision-runner"]
    assert "streetvision-runner" in named(objects, "ServiceAccount")


@pytest.mark.parametrize("mode", NAMESPACES)
def test_rights_to_start_pods_come_with_several_nodes_only_and_the_nodes_have_none(
    rendered: Rendered, mode: str
) -> None:
    shipped = rendered(Variant(mode, SHIPPED[mode]))
    assert "trainjobs" not in str(shipped)
    objects = rendered(Variant(mode, SHIPPED[mode] | {"multi-node"}))
    role = named(objects, "Role")["streetvision-multi-node"]
    allowed = {rule["resources"][0]: set(rule["verbs"]) for rule in role["rules"]}
    assert allowed == {
        "trainjobs": {"create", "delete", "get"},
        "pods": {"list"},
        "pods/log": {"get"},
    }
    account = named(objects, "ServiceAccount")["streetvision-node"]
    assert account["automountServiceAccountToken"] is False
    for binding in named(objects, "RoleBinding").values():
        assert [subject["name"] for subject in binding["subjects"]] == ["streetvision-runner"]


def test_examples_are_committed_and_secrets_cannot_be() -> None:
    examples = sorted(MANIFESTS.rglob("*.env.example"))
    assert [str(file.relative_to(MANIFESTS)) for file in examples] == [
        "base/credentials/checkpoints.env.example",
        "base/credentials/data.env.example",
        "base/credentials/registry.env.example",
        "base/credentials/runs.env.example",
        "base/credentials/team.env.example",
        "components/hub-access/hub.env.example",
        "minio/root.env.example",
    ]
    for example in examples:
        values = [line for line in example.read_text().splitlines() if not line.startswith("#")]
        assert all(re.fullmatch(r"\w+=(change(-me.*)?)?", line) for line in values), example
        # MinIO takes no password of fewer than 8 characters: an example's starts no server.
        for line in values:
            name, _, value = line.partition("=")
            assert name.lower() not in ("secretkey", "minio_root_password") or len(value) < 8
    real = [str(file.with_suffix("").relative_to(MANIFESTS.parent)) for file in examples]
    real.append("manifests/components/tls/ca.crt")
    ignored = subprocess.run(
        ["git", "check-ignore", *real],
        cwd=MANIFESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert ignored.stdout.split() == real


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
