"""Check of the network policy of the steps: it lets them reach the Kubernetes API.

The API's addresses differ from cluster to cluster, so that the policy of a Profile has to be told
them (manifests/overlays/profile/editor/settings.yaml). Without them every step fails, because KFP's
launcher reads its settings there.
"""

from ipaddress import ip_address, ip_network
from typing import Any

from pipelines.doctor.findings import Passed, missing
from pipelines.kubeflow.reader import ClusterReader, if_allowed

_POLICY = "streetvision-steps"
_SETTINGS = "manifests/overlays/profile/editor/settings.yaml"
_PLACEHOLDERS = ip_network("192.0.2.0/24")  # RFC 5737; what the settings have as they are shipped


def api_access(reader: ClusterReader) -> Passed:
    """The steps' NetworkPolicy, where there is one, admits every server of the Kubernetes API."""
    policy = reader.network_policy(_POLICY)
    if policy is None:
        return Passed("none of ours limits the steps")

    blocks = list(_blocks(policy))
    advice = f"set apiServer and apiServerPort in {_SETTINGS}, then apply the overlay"
    if any(network.subnet_of(_PLACEHOLDERS) for network, _ in blocks if network.version == 4):
        raise missing(
            f"{_POLICY} has the placeholder for the Kubernetes API, so that no step reaches it",
            advice,
        )

    addresses = if_allowed(reader.api_addresses, [])
    closed = [
        f"{address}:{port}"
        for address, port in addresses
        if not any(ip_address(address) in network and port == at for network, at in blocks)
    ]
    if closed:
        raise missing(
            f"{_POLICY} does not admit {', '.join(closed)}, where the Kubernetes API is", advice
        )

    shown = ", ".join(f"{address}:{port}" for address, port in addresses)
    return Passed(
        f"{_POLICY} admits the Kubernetes API ({shown or 'its addresses may not be looked at'})"
    )


def _blocks(policy: Any) -> Any:
    """Yield each address range of the policy's egress rules with each of its ports."""
    for rule in policy.spec.egress or []:
        for peer in rule.to or []:
            for port in (rule.ports or []) if peer.ip_block else []:
                yield ip_network(peer.ip_block.cidr), port.port
