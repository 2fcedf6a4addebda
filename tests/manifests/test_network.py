"""Network policies admit what a run needs, from sources that say so, and nothing else."""

import shutil
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.import_backbone.component import import_backbone
from tests.manifests.conftest import (
    Object,
    Variant,
    named,
    parse,
    pods,
    render,
    switch_options,
)

Rendered = Callable[..., list[Object]]
RUN_POD = "workflows.argoproj.io/workflow"  # on every pod of a run, KFP's drivers too
STEP = {
    "app.kubernetes.io/part-of": "streetvision",
    RUN_POD: "stage1-x",
}  # pipelines/resources.py sets the first
NODE = {  # a pod of a TrainJob, which pipelines/train_job.py labels
    "app.kubernetes.io/part-of": "streetvision",
    "streetvision/training-node": "true",
}
IMPORT = STEP | {"app.kubernetes.io/component": "import-backbone"}
KFP = {"kubernetes.io/metadata.name": "kubeflow"}
STORE = {"kubernetes.io/metadata.name": "streetvision-store"}
RUNS = {"kubernetes.io/metadata.name": "streetvision"}
OUTSIDE, METADATA = "203.0.113.9", "169.254.169.254"
# Servers and Service of the Kubernetes API, as a user has set them in settings.yaml.
API = {"apiServer": "172.18.0.0/30", "apiServerPort": "6443", "apiService": "10.96.0.1/32"}
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
    ("launcher and Argo's executor to a Kubernetes API server", "TCP", 6443, {"ip": "172.18.0.2"}),
    ("the same, by the address of its Service", "TCP", 443, {"ip": "10.96.0.1"}),
]


@pytest.fixture(scope="session")
def installed(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Give the policies of a Profile whose settings name the cluster's addresses."""
    copy = tmp_path_factory.mktemp("installed") / "manifests"
    shutil.copytree(manifests, copy, ignore=shutil.ignore_patterns("minio-tls", "*+*"))
    settings = copy / "overlays/profile/editor/settings.yaml"
    document = yaml.safe_load(settings.read_text())
    document["data"] |= API
    settings.write_text(yaml.safe_dump(document))
    cache: dict[frozenset[str], list[Object]] = {}

    def objects(*options: str) -> list[Object]:
        key = frozenset(options)
        if key not in cache:
            switch_options(copy / "overlays/profile", key)
            cache[key] = parse(render(copy / "overlays/profile/editor"))
        return cache[key]

    return objects


@pytest.mark.parametrize(
    ("purpose", "protocol", "port", "peer"), NEEDS, ids=[need[0] for need in NEEDS]
)
@pytest.mark.parametrize("store", ["minio", "external-s3"])
def test_a_step_of_a_profile_reaches_what_a_run_needs(
    installed: Rendered, store: str, purpose: str, protocol: str, port: int, peer: dict[str, Any]
) -> None:
    assert _leaves(installed(store), STEP, protocol, port, **peer), purpose


def test_a_step_of_a_profile_reaches_its_own_store(
    installed: Rendered, minio: list[Object]
) -> None:
    labels = pods(minio)["streetvision-minio"]["metadata"]["labels"]
    assert _leaves(installed("minio"), STEP, "TCP", 9000, pod=labels, ns=STORE)
    assert not _leaves(installed("minio"), STEP, "TCP", 9000, pod=labels, ns=RUNS)
    assert not _leaves(installed("minio"), STEP, "TCP", 9000, pod={"app": "other"}, ns=STORE)
    assert _leaves(installed("external-s3"), STEP, "TCP", 443, ip=OUTSIDE)


@pytest.mark.parametrize("store", ["minio", "external-s3"])
def test_a_step_of_a_profile_reaches_nothing_else(installed: Rendered, store: str) -> None:
    """Steps reach neither KFP's database nor the instance's credentials nor the intranet.

    Nobody reaches a step.
    """
    objects = installed(store, "hub-access")
    policy = _policies(objects)["streetvision-steps"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert not [policy for policy in _policies(objects).values() if "ingress" in policy]
    for labels in (STEP, IMPORT):
        assert not _leaves(objects, labels, "TCP", 3306, ns=KFP)
        assert not _leaves(objects, labels, "TCP", 80, ip=METADATA)
        for port in (443, 6443):
            for address in ("10.1.2.3", "172.18.0.9", "192.168.1.20", "100.64.3.4", METADATA):
                assert not _leaves(objects, labels, "TCP", port, ip=address), address
    assert not _leaves(installed("minio"), STEP, "TCP", 443, ip=OUTSIDE)


@pytest.mark.parametrize("store", ["minio", "external-s3"])
def test_hub_access_opens_https_for_the_import_alone(installed: Rendered, store: str) -> None:
    assert _leaves(installed(store, "hub-access"), IMPORT, "TCP", 443, ip=OUTSIDE)
    if store == "minio":
        assert not _leaves(installed(store, "hub-access"), STEP, "TCP", 443, ip=OUTSIDE)
        assert not _leaves(installed(store), IMPORT, "TCP", 443, ip=OUTSIDE)
    hub = _policies(installed(store, "hub-access"))["streetvision-hub"]
    assert not _admits(hub["egress"], "TCP", 443, ip="10.1.2.3")


@pytest.mark.parametrize("mode", ["single-user", "profile"])
def test_the_nodes_of_a_training_reach_each_other_and_nobody_else_reaches_them(
    rendered: Rendered, mode: str
) -> None:
    objects = rendered(Variant(mode, frozenset({"minio", "multi-node"})))
    policy = _policies(objects)["streetvision-nodes"]
    assert _selects(policy["podSelector"], NODE)
    for port in (29500, 1024, 65535):  # torchrun's, and those that NCCL and gloo get
        assert _admits(policy["ingress"], "TCP", port, pod=NODE)
        assert not _admits(policy["ingress"], "TCP", port, pod=STEP)
        assert not _admits(policy["ingress"], "TCP", port, pod=NODE, ns=KFP)
        assert not _admits(policy["ingress"], "TCP", port, ip="10.1.2.3")


@pytest.mark.parametrize("store", ["minio", "external-s3"])
def test_a_node_of_a_profile_reaches_its_peers_and_the_store(
    installed: Rendered, minio: list[Object], store: str
) -> None:
    objects = installed(store)
    assert _leaves(objects, NODE, "TCP", 29500, pod=NODE)
    assert not _leaves(objects, STEP, "TCP", 29500, pod=NODE)
    assert not _leaves(objects, NODE, "TCP", 29500, ip="10.1.2.3")
    if store == "minio":
        labels = pods(minio)["streetvision-minio"]["metadata"]["labels"]
        assert _leaves(objects, NODE, "TCP", 9000, pod=labels, ns=STORE)


def test_the_policy_names_the_import_as_its_pods_are_labelled() -> None:
    """A pod's label is its task's name (tests/pipelines/test_stage1.py)."""
    assert import_backbone.name == IMPORT["app.kubernetes.io/component"]


def test_as_shipped_the_policy_reaches_no_api_server(rendered: Rendered) -> None:
    """Addresses of documentation (RFC 5737), which `doctor` and `submit` refuse."""
    policies = _policies(rendered(Variant("profile", frozenset({"minio"}))))
    blocks = [
        peer["ipBlock"]["cidr"]
        for rule in policies["streetvision-steps"]["egress"]
        for peer in rule.get("to", [])
        if "ipBlock" in peer
    ]
    assert blocks == ["192.0.2.1/32", "192.0.2.2/32"]


def test_single_user_mode_limits_no_pod(objects: list[Object], variant: Variant) -> None:
    """No policy selects the steps in a namespace whose needs are not ours to know.

    A policy would deny everything that it does not name.
    """
    if variant.mode == "single-user":
        policies = _policies(objects)
        # That of the server is about pods of KServe, whose needs are known.
        assert set(policies) <= {"streetvision-nodes", "streetvision-serving"}
        for name, policy in policies.items():
            assert not _selects(policy["podSelector"], STEP)
            assert name == "streetvision-serving" or policy["policyTypes"] == ["Ingress"]


@pytest.mark.parametrize(
    ("namespace", "labels", "admitted"),
    [
        (RUNS, STEP, True),
        (RUNS, NODE, True),
        (KFP, {RUN_POD: "stage1-x"}, True),  # a driver in single-user mode
        (KFP, {"app": "ml-pipeline-ui"}, True),  # KFP's interface
        (RUNS, {"app": "ml-pipeline-ui-artifact"}, True),  # the artifact proxy of a profile
        (KFP, {"app": "mysql"}, False),
        (RUNS, {}, False),
        ({"kubernetes.io/metadata.name": "another-team"}, STEP, False),
    ],
)
def test_minio_admits_runs_and_those_that_show_artifacts(
    minio: list[Object], namespace: dict[str, str], labels: dict[str, str], admitted: bool
) -> None:
    policy = _policies(minio)["streetvision-minio"]
    assert _admits(policy["ingress"], "TCP", 9000, pod=labels, ns=namespace) is admitted
    assert not _admits(policy["ingress"], "TCP", 9001, pod=labels, ns=namespace)
    assert "Egress" in policy["policyTypes"]
    assert "egress" not in policy


def test_the_stores_namespace_is_closed_to_everything_else(minio: list[Object]) -> None:
    assert _policies(minio)["streetvision-store"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }


def test_the_buckets_job_reaches_the_store_and_the_store_admits_it(minio: list[Object]) -> None:
    job, store = (
        pods(minio)[name]["metadata"]["labels"]
        for name in ("streetvision-minio-setup", "streetvision-minio")
    )
    policies = _policies(minio)
    assert _admits(policies["streetvision-minio-setup"]["egress"], "TCP", 9000, pod=store)
    assert _admits(policies["streetvision-minio-setup"]["egress"], "UDP", 53, ip="10.96.0.10")
    assert not _admits(policies["streetvision-minio-setup"]["egress"], "TCP", 443, ip=OUTSIDE)
    assert _admits(policies["streetvision-minio"]["ingress"], "TCP", 9000, pod=job)


def _leaves(
    objects: list[Object], labels: dict[str, str], protocol: str, port: int, **peer: Any
) -> bool:
    """Whether a pod with these labels may connect: policies add up, and one must select it."""
    chosen = [
        policy
        for policy in _policies(objects).values()
        if "Egress" in policy["policyTypes"] and _selects(policy["podSelector"], labels)
    ]
    assert chosen, "a pod that no policy selects may do everything"
    return any(_admits(policy.get("egress", []), protocol, port, **peer) for policy in chosen)


def _policies(objects: list[Object]) -> dict[str, Any]:
    return {name: policy["spec"] for name, policy in named(objects, "NetworkPolicy").items()}


def _admits(rules: list[Any], protocol: str, port: int, **peer: Any) -> bool:
    return any(
        _port(rule, protocol, port) and _peer(rule.get("to", rule.get("from")), **peer)
        for rule in rules
    )


def _port(rule: Any, protocol: str, port: int) -> bool:
    assert rule["ports"], "a rule without ports opens every port"
    return any(
        item["protocol"] == protocol and item["port"] <= port <= item.get("endPort", item["port"])
        for item in rule["ports"]
    )


def _peer(
    peers: list[Any] | None,
    ip: str = "",
    ns: dict[str, str] | None = None,
    pod: dict[str, str] | None = None,
) -> bool:
    """Return whether a rule's peers admit an address, or a pod of another or the same namespace.

    ns: labels of the pod's namespace, None for that of the policy. None as peers admits everyone.
    """
    if peers is None:
        return True
    return any(_block(peer, ip) if ip else _pod(peer, ns, pod or {}) for peer in peers)


def _block(peer: Any, ip: str) -> bool:
    if "ipBlock" not in peer:
        return False
    block = peer["ipBlock"]
    excepted = any(ip_address(ip) in ip_network(cidr) for cidr in block.get("except", []))
    return ip_address(ip) in ip_network(block["cidr"]) and not excepted


def _pod(peer: Any, ns: dict[str, str] | None, pod: dict[str, str]) -> bool:
    if "ipBlock" in peer or ("namespaceSelector" in peer) != (ns is not None):
        return False
    here = ns is None or _selects(peer["namespaceSelector"], ns)
    return here and _selects(peer.get("podSelector", {}), pod)


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
