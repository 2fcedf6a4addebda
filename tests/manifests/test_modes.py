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
    VARIANTS,
    Object,
    Variant,
    identity,
    named,
    parse,
    pods,
    render,
)

CUSTOM = {"LocalQueue"}  # of an operator: Kubernetes has no schema for it
CLUSTER_WIDE = {"PriorityClass"}
# What kubeflow-edit of Kubeflow's manifests (common/kubeflow-roles) may create in a profile's
# namespace.
EDITOR_KINDS = {"ConfigMap", "Secret", "Service", "StatefulSet", "Job", "NetworkPolicy"}
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
    variant = Variant(mode, frozenset({store, "a6000", "kueue", "hub-access"}))
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
    variant = Variant("single-user", frozenset({"minio", "dev"}))
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
    for pod in pods(objects).values():
        assert "app.kubernetes.io/part-of" not in pod["metadata"]["labels"], (
            "the steps' policy would select it"
        )
    for policy in named(objects, "NetworkPolicy").values():
        selector = policy["spec"]["podSelector"]
        assert selector.keys() == {"matchLabels"}
        assert all(value.startswith("streetvision") for value in selector["matchLabels"].values())
    for service in named(objects, "Service").values():
        assert all(
            value.startswith("streetvision") for value in service["spec"]["selector"].values()
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
    assert "kind: ResourceQuota" in render(tmp_path / "manifests/overlays/profile/admin")


def test_the_runner_may_do_little_and_read_the_secrets_of_both_stores(
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
        *(named(objects, "Secret").keys() & {"streetvision-s3"}),
    }
    assert (
        used
        <= set(allowed["secrets"]["resourceNames"])
        == {"mlpipeline-minio-artifact", "streetvision-s3"}
    )
    binding = named(objects, "RoleBinding")["streetvision-runner"]
    assert binding["roleRef"]["name"] in named(objects, "Role")
    assert [subject["name"] for subject in binding["subjects"]] == ["streetvision-runner"]
    assert "streetvision-runner" in named(objects, "ServiceAccount")


def test_examples_are_committed_and_secrets_cannot_be() -> None:
    examples = sorted(MANIFESTS.rglob("*.env.example"))
    assert [str(file.relative_to(MANIFESTS / "components")) for file in examples] == [
        "external-s3/s3.env.example",
        "hub-access/hub.env.example",
        "minio/minio-root.env.example",
        "minio/s3.env.example",
    ]
    for example in examples:
        values = [line for line in example.read_text().splitlines() if not line.startswith("#")]
        assert all(re.fullmatch(r"\w+=(change-me.*)?", line) for line in values), example
    real = [str(file.with_suffix("").relative_to(MANIFESTS.parent)) for file in examples]
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
