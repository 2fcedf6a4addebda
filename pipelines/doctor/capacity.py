"""Demand of a pod and free capacity of the nodes, by the scheduler's rules.

Only the rules that concern the pipeline's pods are modelled.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kubernetes.utils import parse_quantity

from pipelines.resources import GPU, Profile, StepResources, TrainingResources

Amounts = dict[str, Decimal]
_NAMES = {"cpu": "CPUs", "memory": "memory", GPU: "GPUs"}
_NONE, _GIB, _MIB = Decimal(0), Decimal(2**30), Decimal(2**20)


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What one kind of step asks of the cluster. Amounts are in CPUs, bytes and GPUs."""

    requests: Amounts
    limits: Amounts
    labels: Mapping[str, str]
    tolerations: Sequence[Mapping[str, Any]]

    def __str__(self) -> str:
        return ", ".join(amount_text(name, amount) for name, amount in self.requests.items())


@dataclass(frozen=True, kw_only=True)
class NodeCapacity:
    """A node's name, the reason why it takes no pod of ours ("" where it may), and its amounts."""

    name: str
    refusal: str
    allocatable: Amounts
    free: Amounts


def demands(profile: Profile) -> dict[str, Demand]:
    """Return what the light, ingest, heavy and training steps of a profile ask for."""
    return {
        "light steps": _demand(profile.light),
        "ingest steps": _demand(profile.ingest),
        "heavy steps": _demand(profile.heavy),
        "training steps": _demand(profile.training),
    }


def node_capacities(
    nodes: Iterable[Any], pods: Iterable[Any], demand: Demand
) -> list[NodeCapacity]:
    """Return the nodes as a step with this demand meets them.

    `pods` are all that have not ended.
    """
    used: dict[str, Amounts] = {}
    for pod in pods:
        if pod.spec.node_name:
            _add(used.setdefault(pod.spec.node_name, {}), pod_requests(pod.spec))

    capacities = []

    for node in nodes:
        name = node.metadata.name
        allocatable = _amounts(node.status.allocatable)
        taken = used.get(name, {})
        free = {
            resource: amount - taken.get(resource, _NONE)
            for resource, amount in allocatable.items()
        }
        capacities.append(
            NodeCapacity(
                name=name, refusal=_refusal(node, demand), allocatable=allocatable, free=free
            )
        )

    return capacities


def shortfall(demand: Demand, amounts: Mapping[str, Decimal]) -> str:
    """Return what is too little of `amounts`, such as "1 of 2 GPUs"; "" where the demand fits."""
    short = [
        f"{_number(name, amounts.get(name, _NONE))} of {amount_text(name, wanted)}"
        for name, wanted in demand.requests.items()
        if amounts.get(name, _NONE) < wanted
    ]
    return ", ".join(short)


def copies(demand: Demand, amounts: Mapping[str, Decimal]) -> int:
    """Return how many equal pods with this demand fit."""
    return max(
        0, min(int(amounts.get(name, _NONE) // wanted) for name, wanted in demand.requests.items())
    )


def pod_requests(spec: Any) -> Amounts:
    """Return the resources that the scheduler reserves for a pod.

    These are the sum of its containers, or its largest init container if that is more.
    """
    total: Amounts = {}
    for container in spec.containers:
        _add(total, _container_requests(container))

    largest: Amounts = {}

    for container in spec.init_containers or []:
        requests = _container_requests(container)
        if container.restart_policy == "Always":  # a sidecar: it runs beside the containers
            _add(total, requests)
            continue

        for name, amount in requests.items():
            largest[name] = max(largest.get(name, _NONE), amount)

    for name, amount in largest.items():
        total[name] = max(total.get(name, _NONE), amount)
    _add(total, _amounts(spec.overhead))

    return total


def amount_text(name: str, amount: Decimal) -> str:
    """Return an amount with its unit: "2 GPUs", "500m CPUs", "96Gi memory"."""
    unit = _NAMES.get(name, name)
    return f"{_number(name, amount)} {unit.removesuffix('s') if amount == 1 else unit}"


def _number(name: str, amount: Decimal) -> str:
    if name == "memory" and amount:
        unit, suffix = (_GIB, "Gi") if amount >= _GIB else (_MIB, "Mi")
        return f"{float(amount / unit):.4g}{suffix}"
    if 0 < amount < 1:
        return f"{amount * 1000:.0f}m"
    return f"{float(amount):.6g}"


def _demand(step: StepResources) -> Demand:
    requests = {
        "cpu": parse_quantity(step.cpu_request),
        "memory": parse_quantity(step.memory_request),
    }
    limits = {"cpu": parse_quantity(step.cpu_limit), "memory": parse_quantity(step.memory_limit)}
    if not isinstance(step, TrainingResources):
        return Demand(requests=requests, limits=limits, labels={}, tolerations=())

    if step.gpus:
        requests = {GPU: Decimal(step.gpus)} | requests

    return Demand(
        requests=requests, limits=limits, labels=step.node_labels, tolerations=step.tolerations
    )


def _refusal(node: Any, demand: Demand) -> str:
    """Why the scheduler does not put a step on this node, whatever it has left; "" where it may."""
    labels = node.metadata.labels or {}
    absent = [f"{key}={value}" for key, value in demand.labels.items() if labels.get(key) != value]
    if absent:
        return f"without label {', '.join(absent)}"

    if node.spec.unschedulable:
        return "cordoned"

    ready = [
        condition.status for condition in node.status.conditions or [] if condition.type == "Ready"
    ]
    if ready != ["True"]:
        return "not ready"

    for taint in node.spec.taints or []:
        if taint.effect != "PreferNoSchedule" and not any(
            _tolerates(t, taint) for t in demand.tolerations
        ):
            return f"tainted {taint.key}"

    return ""


def _tolerates(toleration: Mapping[str, Any], taint: Any) -> bool:
    """Source: Kubernetes, Toleration.ToleratesTaint."""
    key, operator = toleration.get("key"), toleration.get("operator", "Equal")
    if toleration.get("effect") not in (None, "", taint.effect) or key not in (None, "", taint.key):
        return False
    return operator == "Exists" or (toleration.get("value") or "") == (taint.value or "")


def _container_requests(container: Any) -> Amounts:
    return _amounts(container.resources.requests if container.resources else None)


def _add(total: Amounts, more: Mapping[str, Decimal]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, _NONE) + amount


def _amounts(quantities: Mapping[str, str] | None) -> Amounts:
    return {name: parse_quantity(quantity) for name, quantity in (quantities or {}).items()}
