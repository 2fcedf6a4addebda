"""The champion behind an address: KServe's schema, safe pods, who reaches them, and the canary."""

import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes.utils import parse_quantity

from components.shared.contracts.environment import Variable
from components.shared.serving.server.command import _parser
from tests.manifests.conftest import NAMESPACES, Object, Variant, named, parse, render
from tests.manifests.kserve import problems, refused_by_knative

Rendered = Callable[..., list[Object]]
ON = {mode: Variant(mode, frozenset({"minio", "serving"})) for mode in NAMESPACES}


def _service(objects: list[Object]) -> dict[str, Any]:
    return named(objects, "InferenceService")["streetvision"]


def _container(objects: list[Object]) -> dict[str, Any]:
    (container,) = _service(objects)["spec"]["predictor"]["containers"]
    return container


@pytest.fixture(params=["", "standard", "canary", "trusted-keys"])
def option(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def objects(
    option: str, rendered: Rendered, overlay: Callable[[Variant], Path], manifests: Path
) -> list[Object]:
    """Objects of a mode with the option; those without one are rendered once."""
    variant = ON["single-user"]
    if not option:
        return rendered(variant)
    made = manifests / "overlays" / f"{variant}-{option}"
    if not made.exists():
        shutil.copytree(overlay(variant), made)
        keys = manifests / "components/serving/trusted-keys/trusted.pem"
        keys.write_text("-----BEGIN PUBLIC KEY-----\n")
        file = made / "kustomization.yaml"
        line = f"  # - ../../components/serving/{option}\n"
        assert file.read_text().count(line) == 1
        file.write_text(file.read_text().replace(line, line.replace("# ", "")))
    return parse(render(made))


def test_kserves_api_accepts_it(objects: list[Object]) -> None:
    assert problems(_service(objects)) == []


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("minReplicas",), "2", "is not of type 'integer'"),
        (("scaleMetric",), "requests", "is not one of"),
        (("replicas",), 2, "Additional properties are not allowed"),
        (("containers", 0, "securityContext", "runAsRoot"), True, "Additional properties"),
        (("containers", 0, "resources", "limits", "cpu"), [], "is not of type"),
    ],
)
def test_the_schema_finds_what_it_is_for(
    rendered: Rendered, path: tuple[str | int, ...], value: Any, says: str
) -> None:
    item = copy.deepcopy(_service(rendered(ON["profile"])))
    place: Any = item["spec"]["predictor"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert any(says in problem for problem in problems(item))


def test_knative_needs_no_feature_flag_for_it(objects: list[Object], option: str) -> None:
    mode = _service(objects)["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
    assert mode == ("RawDeployment" if option == "standard" else "Serverless")
    extra = {"terminationGracePeriodSeconds", "deploymentStrategy"}
    assert refused_by_knative(_service(objects)) == (extra if option == "standard" else set())


def test_the_container_meets_the_restricted_level_and_is_bounded(objects: list[Object]) -> None:
    container, predictor = _container(objects), _service(objects)["spec"]["predictor"]
    context = container["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == 10001  # images/Dockerfile
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert predictor["automountServiceAccountToken"] is False
    kinds = {"name", "emptyDir", "configMap"}  # Knative takes these without a feature flag
    assert all(volume.keys() <= kinds for volume in predictor["volumes"])
    assert {volume["name"] for volume in predictor["volumes"]} == {
        mount["name"] for mount in container["volumeMounts"]
    }

    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    assert requests.keys() == limits.keys() == {"cpu", "memory", "ephemeral-storage"}
    for resource, amount in requests.items():
        assert parse_quantity(amount) <= parse_quantity(limits[resource])
    (scratch,) = (
        volume["emptyDir"]["sizeLimit"] for volume in predictor["volumes"] if "emptyDir" in volume
    )
    assert parse_quantity(scratch) <= parse_quantity(limits["ephemeral-storage"])


def test_the_server_takes_its_arguments_and_its_registry(objects: list[Object]) -> None:
    container = _container(objects)
    assert container["command"] == ["python3", "-m", "components.shared.serving.server"]
    settings = named(objects, "ConfigMap")["streetvision-store"]["data"]
    assert container["envFrom"] == [{"configMapRef": {"name": "streetvision-store"}}]
    uri = f"$({Variable.BUNDLE_REGISTRY})"
    assert uri in container["args"]
    registry = settings[Variable.BUNDLE_REGISTRY]
    arguments = _parser("serve").parse_args(
        [registry if word == uri else word for word in container["args"]]
    )
    assert registry in (arguments.follow, arguments.bundle_registry)
    assert (arguments.bundle is None) == (arguments.follow is not None)
    (port,) = (entry["containerPort"] for entry in container["ports"])
    assert arguments.port == port
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == port
        assert container[probe]["httpGet"]["path"].startswith("/v2/health/")


@pytest.mark.parametrize("mode", NAMESPACES)
def test_credentials_are_references_to_a_user_that_may_only_read(
    rendered: Rendered, manifests: Path, mode: str
) -> None:
    objects = rendered(ON[mode])
    env = {entry["name"]: entry for entry in _container(objects)["env"]}
    secrets = named(objects, "Secret")
    for variable, key in (
        (Variable.S3_ACCESS_KEY, "accesskey"),
        (Variable.S3_SECRET_KEY, "secretkey"),
    ):
        reference = env[variable]["valueFrom"]["secretKeyRef"]
        assert reference == {"name": "streetvision-data", "key": key}
        assert key in secrets["streetvision-data"]["data"]
    policy = (manifests / "minio/policies/data.json").read_text()
    assert "registry/*" in policy
    assert not re.search(r'"s3:PutObject"[^}]*registry', policy)


def test_pods_are_found_by_the_label_that_kserve_sets(objects: list[Object]) -> None:
    label = {"serving.kserve.io/inferenceservice": _service(objects)["metadata"]["name"]}
    policy = named(objects, "NetworkPolicy")["streetvision-serving"]["spec"]
    budget = named(objects, "PodDisruptionBudget")["streetvision-serving"]["spec"]
    assert policy["podSelector"] == budget["selector"] == {"matchLabels": label}
    assert budget["maxUnavailable"] == 1
    assert _service(objects)["spec"]["predictor"]["minReplicas"] > budget["maxUnavailable"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert all("from" in rule for rule in policy["ingress"])
    (closed,) = (
        peer["ipBlock"]["except"]
        for rule in policy["egress"]
        for peer in rule.get("to", [])
        if "ipBlock" in peer
    )
    assert {"10.0.0.0/8", "169.254.0.0/16"} <= set(closed)


def test_pods_are_added_by_requests_in_flight(objects: list[Object], option: str) -> None:
    predictor = _service(objects)["spec"]["predictor"]
    metric = "cpu" if option == "standard" else "concurrency"
    assert predictor["scaleMetric"] == metric
    assert predictor["minReplicas"] < predictor["maxReplicas"]


def test_the_authority_of_the_store_is_where_the_settings_say(rendered: Rendered) -> None:
    objects = rendered(Variant("single-user", frozenset({"minio", "tls", "serving"})))
    settings = named(objects, "ConfigMap")["streetvision-store"]["data"]
    mounts = {mount["name"]: mount["mountPath"] for mount in _container(objects)["volumeMounts"]}
    (name,) = named(objects, "ConfigMap")["streetvision-store-ca"]["data"]
    assert settings[Variable.S3_CA_FILE] == f"{mounts['store-ca']}/{name}"


@pytest.mark.parametrize("option", ["trusted-keys"], indirect=True)
def test_keys_that_are_trusted_are_a_file_of_the_server(objects: list[Object]) -> None:
    container = _container(objects)
    env = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (name,) = named(objects, "ConfigMap")["streetvision-trusted-keys"]["data"]
    assert env[Variable.TRUSTED_KEYS] == f"{mounts['trusted-keys']}/{name}"


@pytest.mark.parametrize("option", ["canary"], indirect=True)
def test_the_canary_is_a_digest_for_a_fifth_of_the_requests(
    objects: list[Object], rendered: Rendered
) -> None:
    service, champion = copy.deepcopy((_service(objects), _service(rendered(ON["single-user"]))))
    assert service["spec"]["predictor"].pop("canaryTrafficPercent") == 20
    args = service["spec"]["predictor"]["containers"][0].pop("args")
    assert re.fullmatch("[0-9a-f]{12}", args[0])
    del champion["spec"]["predictor"]["containers"][0]["args"]
    assert service == champion  # and nothing else makes another revision
