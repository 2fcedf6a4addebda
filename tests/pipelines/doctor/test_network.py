"""The steps' network policy against the addresses of the Kubernetes API."""

import json
from typing import Any

import pytest
from kubernetes.client import ApiClient, ApiException

from pipelines.doctor.findings import CheckError, Status
from pipelines.doctor.network import api_access


class _Reader:
    """What the check asks of a cluster."""

    def __init__(self, policy: dict[str, Any] | None, addresses: Any) -> None:
        self._policy, self._addresses = policy, addresses

    def network_policy(self, name: str) -> Any:
        assert name == "streetvision-steps"
        if self._policy is None:
            return None
        answer = type("Answer", (), {"data": json.dumps(self._policy)})
        return ApiClient().deserialize(answer, "V1NetworkPolicy")

    def api_addresses(self) -> list[tuple[str, int]]:
        if self._addresses == 403:
            raise ApiException(status=403)
        return list(self._addresses)


def _policy(*blocks: tuple[str, int]) -> dict[str, Any]:
    rules: list[Any] = [
        {"to": [{"ipBlock": {"cidr": cidr}}], "ports": [{"protocol": "TCP", "port": port}]}
        for cidr, port in blocks
    ]
    rules.append({"ports": [{"protocol": "UDP", "port": 53}]})
    rules.append({"to": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": 8887}]})
    return {
        "metadata": {"name": "streetvision-steps"},
        "spec": {"podSelector": {}, "egress": rules},
    }


@pytest.mark.parametrize(
    ("policy", "addresses", "says"),
    [
        (None, [], "none of ours limits the steps"),
        (_policy(("10.0.0.4/30", 6443)), [("10.0.0.5", 6443), ("10.0.0.6", 6443)], "10.0.0.6:6443"),
        (_policy(("fd00::/64", 6443)), [("fd00::1", 6443)], "fd00::1:6443"),
        (_policy(("10.0.0.4/30", 443)), 403, "its addresses may not be looked at"),
    ],
)
def test_a_policy_that_admits_the_api_passes(policy: Any, addresses: Any, says: str) -> None:
    assert says in api_access(_Reader(policy, addresses)).found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("policy", "addresses", "says"),
    [
        (_policy(("192.0.2.1/32", 6443)), 403, "has the placeholder for the Kubernetes API"),
        (_policy(("10.0.0.4/30", 443)), [("10.0.0.5", 6443)], "does not admit 10.0.0.5:6443"),
        (_policy(("10.0.0.4/30", 6443)), [("10.0.0.9", 6443)], "does not admit 10.0.0.9:6443"),
        (_policy(), [("10.0.0.9", 6443)], "does not admit 10.0.0.9:6443"),
    ],
)
def test_a_policy_that_keeps_the_steps_from_the_api_is_refused(
    policy: Any, addresses: Any, says: str
) -> None:
    with pytest.raises(CheckError) as caught:
        api_access(_Reader(policy, addresses))  # type: ignore[arg-type]
    assert caught.value.status is Status.MISSING
    assert says in str(caught.value)
    assert "apiServer" in caught.value.advice
