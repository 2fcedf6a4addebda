"""Network policies admit what a run needs, from sources that say so, and nothing else."""

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.manifests.conftest import Object, Variant, named, pods

Rendered = Callable[..., list[Object]]
RUN_POD = "workflows.argoproj.io/workflow"  # on every pod of a run, KFP's drivers too
STEP = {
    "app.kubernetes.io/part-of": "streetvision",
    RUN_POD: "stage1-x",
}  # pipelines/resources.py sets the first
KFP = {"kubernetes.io/metadata.name": "kubeflow"}
# Ports are those of pods (a Service's targetPort), as a NetworkPolicy sees them.
NEEDS = [
    ("DNS: kube-dns and node-local caches", "UDP", 53, {"ip": "10.96.0.10"}),
    ("DNS: node-local cache on its link-local address", "UDP", 53, {"ip": "169.254.20.10"}),
    ("DNS: OpenShift's dns-default", "TCP", 5353, {"ip": "10.128.0.7"}),
    (
        "launcher to the API, backend/src/v2/cmd/launcher-v2/main.go (ml_pipeline_server_port)",
        "TCP",
        8887,
        {"ns": KFP},
    ),
    ("launcher to ML Metadata, manifests/.../metadata-grpc-service.yaml", "TCP", 8080, {"ns": KFP}),
    (
        "Argo's log archive: seaweedfs-service.yaml, port 9000 to targetPort 8333",
        "TCP",
        8333,
        {"ns": KFP},
    ),
    ("Argo's log archive where KFP's store is a MinIO", "TCP", 9000, {"ns": KFP}),
    ("launcher and Argo's executor to the Kubernetes API", "TCP", 443, {"ip": "10.96.0.1"}),
    ("the same, as its pods or hosts listen", "TCP", 6443, {"ip": "192.168.1.20"}),
    ("the same, in clusters that use shared address space", "TCP", 443, {"ip": "100.64.3.4"}),
]


@pytest.mark.parametrize(
    ("purpose", "protocol", "port", "peer"), NEEDS, ids=[need[0] for need in NEEDS]
)
@pytest.mark.parametrize("store", ["minio", "external-s3"])
def test_a_step_of_a_profile_reaches_what_a_run_needs(
    rendered: Rendered, store: str, purpose: str, protocol: str, port: int, peer: dict[str, Any]
) -> None:
    policy = _policies(rendered(Variant("profile", frozenset({store}))))["streetvision-steps"]
    assert _selects(policy["podSelector"], STEP)
    assert _admits(policy["egress"], protocol, port, **peer), purpose


def test_a_step_of_a_profile_reaches_its_own_store(rendered: Rendered) -> None:
    objects = rendered(Variant("profile", frozenset({"minio"})))
    labels = pods(objects)["streetvision-minio"]["metadata"]["labels"]
    assert _admits(_policies(objects)["streetvision-steps"]["egress"], "TCP", 9000, pod=labels)
    external = _policies(rendered(Variant("profile", frozenset({"external-s3"}))))[
        "streetvision-steps"
    ]["egress"]
    assert _admits(external, "TCP", 443, ip="203.0.113.9")


def test_a_step_of_a_profile_reaches_nothing_else(rendered: Rendered) -> None:
    """Steps reach neither KFP's database nor the instance's credentials nor the internet.

    Nobody reaches a step.
    """
    policy = _policies(rendered(Variant("profile", frozenset({"minio"}))))["streetvision-steps"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
    assert not _admits(policy["egress"], "TCP", 3306, ns=KFP)
    assert not _admits(policy["egress"], "TCP", 80, ip="169.254.169.254")
    assert not _admits(policy["egress"], "TCP", 443, ip="203.0.113.9")
    assert not _admits(policy["egress"], "TCP", 9000, pod={"app": "someone-elses"})


def test_hub_access_opens_https_outside_the_cluster(rendered: Rendered) -> None:
    policy = _policies(rendered(Variant("profile", frozenset({"minio", "hub-access"}))))[
        "streetvision-steps"
    ]
    assert _admits(policy["egress"], "TCP", 443, ip="203.0.113.9")
    assert not _admits(policy["egress"], "TCP", 443, ip="169.254.169.254")


def test_single_user_mode_limits_no_pod_but_the_stores_own(
    objects: list[Object], variant: Variant
) -> None:
    """No policy selects the steps in a namespace whose needs are not ours to know.

    A policy would deny everything that it does not name.
    """
    if variant.mode == "single-user":
        assert not [
            name
            for name, policy in _policies(objects).items()
            if _selects(policy["podSelector"], STEP)
        ]
        assert not [
            name
            for name, policy in _policies(objects).items()
            if _selects(policy["podSelector"], {})
        ]


@pytest.mark.parametrize("mode", ["single-user", "profile"])
@pytest.mark.parametrize(
    ("labels", "admitted"),
    [
        (STEP, True),
        ({RUN_POD: "stage1-x"}, True),  # a driver
        ({"app": "ml-pipeline-ui"}, True),  # KFP's interface, in its own namespace
        ({"app": "ml-pipeline-ui-artifact"}, True),  # the artifact proxy of a profile
        ({"app": "mysql"}, False),
        ({}, False),
    ],
)
def test_minio_admits_runs_and_those_that_show_artifacts(
    rendered: Rendered, mode: str, labels: dict[str, str], admitted: bool
) -> None:
    policy = _policies(rendered(Variant(mode, frozenset({"minio"}))))["streetvision-minio"]
    assert _admits(policy["ingress"], "TCP", 9000, pod=labels) is admitted
    assert not _admits(policy["ingress"], "TCP", 9001, pod=labels)
    assert "Egress" in policy["policyTypes"]
    assert "egress" not in policy


@pytest.mark.parametrize("mode", ["single-user", "profile"])
def test_the_buckets_job_reaches_the_store_and_the_store_admits_it(
    rendered: Rendered, mode: str
) -> None:
    objects = rendered(Variant(mode, frozenset({"minio"})))
    job, store = (
        pods(objects)[name]["metadata"]["labels"]
        for name in ("streetvision-minio-setup", "streetvision-minio")
    )
    policies = _policies(objects)
    assert _admits(policies["streetvision-minio-setup"]["egress"], "TCP", 9000, pod=store)
    assert _admits(policies["streetvision-minio-setup"]["egress"], "UDP", 53, ip="10.96.0.10")
    assert _admits(policies["streetvision-minio"]["ingress"], "TCP", 9000, pod=job)


def _policies(objects: list[Object]) -> dict[str, Any]:
    return {name: policy["spec"] for name, policy in named(objects, "NetworkPolicy").items()}


def _admits(rules: list[Any], protocol: str, port: int, **peer: Any) -> bool:
    return any(
        _port(rule, protocol, port) and _peer(rule.get("to", rule.get("from")), **peer)
        for rule in rules
    )


def _port(rule: Any, protocol: str, port: int) -> bool:
    assert rule["ports"], "a rule without ports opens every port"
    return any(item["protocol"] == protocol and item["port"] == port for item in rule["ports"])


def _peer(
    peers: list[Any] | None,
    ip: str = "",
    ns: dict[str, str] | None = None,
    pod: dict[str, str] | None = None,
) -> bool:
    """Return whether a rule's peers admit an address, another namespace's pod, or one of the same.

    None as peers admits everyone.
    """
    if peers is None:
        return True
    for peer in peers:
        if ip and "ipBlock" in peer:
            block = peer["ipBlock"]
            excepted = any(ip_address(ip) in ip_network(cidr) for cidr in block.get("except", []))
            if ip_address(ip) in ip_network(block["cidr"]) and not excepted:
                return True
        if (
            ns is not None
            and "namespaceSelector" in peer
            and _selects(peer["namespaceSelector"], ns)
        ):
            return True
        if pod is not None and "podSelector" in peer and _selects(peer["podSelector"], pod):
            return True
    return False


def _selects(selector: Any, labels: dict[str, str]) -> bool:
    expressions = selector.get("matchExpressions", [])
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        (
            labels.get(item["key"]) in item["values"]
            if item["operator"] == "In"
            else item["key"] in labels
        )
        for item in expressions
    )
