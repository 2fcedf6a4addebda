"""Commands of the guides lead to files and objects that exist."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from components.shared.contracts.environment import Variable
from pipelines.kubeflow.connection import AUDIENCE
from tests.manifests.conftest import (
    MANIFESTS,
    ROLES,
    STORE_NAMESPACE,
    Object,
    Variant,
    identity,
    parse,
    render,
)

ROOT = MANIFESTS.parent
GUIDES = {
    "single-user": ROOT / "docs/guides/kubeflow-single-user.md",
    "profile": ROOT / "docs/guides/kubeflow-profile.md",
}
DOCUMENTS = [*GUIDES.values(), MANIFESTS / "README.md"]
KINDS = {"svc": "Service", "job": "Job", "configmap": "ConfigMap", "secret": "Secret"}
Rendered = Callable[..., list[Object]]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_paths_and_links_exist(document: Path) -> None:
    text = document.read_text()
    examples = {str(file.relative_to(MANIFESTS)) for file in MANIFESTS.rglob("*.env.example")}
    filled_in = {name.removesuffix(".example") for name in examples} | {"components/tls/ca.crt"}
    folders = "overlays|components|base|minio"
    for path in re.findall(rf"(?<![\w/.])(?:manifests/)?((?:{folders})/[\w./-]*\w)(?![$:])", text):
        known = (MANIFESTS / path).exists() or path in filled_in
        assert known or path.startswith(("base/credentials/$", "minio/minio")), path
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert (document.parent / link).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_folders_that_are_applied_build(manifests: Path, document: Path) -> None:
    folders = re.findall(
        r"kubectl (?:(?:apply|delete) -k|kustomize) manifests/([\w/-]+)", document.read_text()
    )
    assert folders
    for folder in sorted(set(folders)):
        assert parse(render(manifests / folder))


@pytest.mark.parametrize("mode", GUIDES)
def test_objects_that_are_named_are_the_pipelines_or_kfps(
    rendered: Rendered, minio: list[Object], kfp_objects: dict[str, set[str]], mode: str
) -> None:
    known = {
        identity(item) for item in [*rendered(Variant(mode, frozenset({"minio"}))), *minio]
    } | kfp_objects["multi-user"]
    known |= {name.replace("//", "/streetvision/") for name in kfp_objects["profile"]}
    known |= kfp_objects["single-user"]
    found = re.findall(r"\b(svc|job|configmap|secret)[/ ]([a-z][\w-]+)", _commands(GUIDES[mode]))
    assert len(found) >= 5
    for kind, name in found:
        assert {
            f"{KINDS[kind]}/{namespace}/{name}"
            for namespace in ("kubeflow", "streetvision", STORE_NAMESPACE)
        } & known, name


def test_the_token_is_made_as_the_api_wants_it() -> None:
    text = _commands(GUIDES["profile"])
    created = "$(kubectl create token default-editor -n streetvision --audience"
    assert f"export {Variable.KFP_TOKEN}={created} {AUDIENCE}" in text
    assert "--duration" in text
    assert Variable.KFP_COOKIE in GUIDES["profile"].read_text()
    assert all(f"export {Variable.KFP_ENDPOINT}=" in _commands(guide) for guide in GUIDES.values())


def test_a_profile_is_installed_in_the_order_that_works() -> None:
    text = _commands(GUIDES["profile"])
    steps = [
        "kind: Profile",
        "-k manifests/overlays/profile/admin",
        "-k manifests/minio/namespace\n",
        "-k manifests/minio\n",
        "-k manifests/overlays/profile/editor",
        "submit",
    ]
    assert [text.index(step) for step in steps] == sorted(text.index(step) for step in steps)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_every_credential_of_the_store_is_filled_in_before_it_is_applied(document: Path) -> None:
    text = document.read_text()
    first = text.index("kubectl apply -k manifests/minio")
    copied = set(re.findall(r"cp manifests/(\S+)\.example", text[:first]))
    if "for role in" in text[:first]:
        copied |= {f"base/credentials/{role}.env" for role in (*ROLES, "team")}
    wanted = [
        str(file.relative_to(MANIFESTS))
        for folder in ("base/credentials", "minio")
        for file in (MANIFESTS / folder).glob("*.env.example")
    ]
    assert {name.removesuffix(".example") for name in wanted} <= copied


def _commands(guide: Path) -> str:
    """Code blocks of a guide, each command on one line."""
    blocks = re.findall(r"^ *```\n(.*?)^ *```$", guide.read_text(), re.MULTILINE | re.DOTALL)
    return re.sub(r" \\\n\s*", " ", "\n".join(blocks))
