"""Checks of whether the cluster can take the steps: nodes, GPUs, quota, limits and the queue."""

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import yaml
from kubernetes.utils import parse_quantity

from components.shared.contracts.listing import first_of
from pipelines.doctor.capacity import (
    Amounts,
    Demand,
    NodeCapacity,
    amount_text,
    copies,
    demands,
    node_capacities,
    shortfall,
)
from pipelines.doctor.findings import Check, Passed, missing, unknown
from pipelines.doctor.target import Target
from pipelines.kubeflow.reader import ClusterReader, if_allowed
from pipelines.resources import GPU, PROFILE_NAMES, load_profile

_SHOWN = 3
# What a quota counts only where every container has it, and short forms of two of these.
_COMPUTE = {"requests.cpu", "requests.memory", "limits.cpu", "limits.memory"}
_LONG = {"cpu": "requests.cpu", "memory": "requests.memory"}
_TRAIN_JOBS = "trainer.kubeflow.org/trainjob"  # Kueue's name of the integration
_KUEUE_NAMESPACE, _KUEUE_CONFIG = "kueue-system", "kueue-manager-config"


def scheduling_checks(reader: ClusterReader, target: Target) -> dict[str, Check]:
    """Return the checks by name, in the order in which they are shown."""
    checks: dict[str, Check] = {
        f"nodes for {kind}": lambda kind=kind: nodes(reader, target, kind)  # type: ignore[misc]
        for kind in demands(target.profile)
    }
    checks["quota"] = lambda: quota(reader, target)
    checks["limits"] = lambda: limits(reader, target)
    if target.profile.queue:
        checks["queue"] = lambda: queue(reader, target)

    return checks


def nodes(reader: ClusterReader, target: Target, kind: str) -> Passed:
    """At least one node can hold a step of this kind now."""
    demand = demands(target.profile)[kind]
    capacities, pods_seen = _capacities(reader, demand)
    fitting = [
        node.name for node in capacities if not node.refusal and not shortfall(demand, node.free)
    ]
    wanted = _n_nodes(target, kind)
    room = sum(copies(demand, node.free) for node in capacities if not node.refusal)
    if fitting and room < wanted:
        raise missing(
            f"{wanted} times {demand}: there is room for {room} now, on"
            f" {first_of(fitting, most=_SHOWN)}",
            f"a run waits until other pods end, or lower n_nodes{_other_profiles(reader, target)}",
        )
    if fitting:
        when = "now" if pods_seen else "when empty (what runs there may not be looked at)"
        return Passed(f"{demand}: {first_of(fitting, most=_SHOWN)} can hold one {when}")

    usable = [node for node in capacities if not node.refusal]
    busy = [node for node in usable if not shortfall(demand, node.allocatable)]
    if busy:
        raise missing(
            f"{demand}: no node has it free ({_shortfalls(demand, busy, free=True)})",
            f"a run waits until other pods end{_other_profiles(reader, target)}",
        )

    reasons = [
        text for text in (_shortfalls(demand, usable, free=False), _refusals(capacities)) if text
    ]
    raise missing(
        f"{demand}: no node can ever hold it ({'; '.join(reasons) or 'the cluster has no nodes'})",
        f"{_node_advice(target, kind)}{_other_profiles(reader, target)}",
    )


def quota(reader: ClusterReader, target: Target) -> Passed:
    """The namespace's ResourceQuotas leave room for a step of each kind."""
    lines = []
    for found in reader.quotas():
        name, spec, status = found.metadata.name, found.spec, found.status
        if spec.scopes or spec.scope_selector:
            lines.append(f"{name} counts some pods only, not judged")
            continue

        hard = {key: parse_quantity(value) for key, value in (spec.hard or {}).items()}
        used = {
            key: parse_quantity(value) for key, value in ((status and status.used) or {}).items()
        }
        for kind, demand in demands(target.profile).items():
            _check_quota(name, kind, _quota_demand(demand, _n_nodes(target, kind)), hard, used)
        lines.append(f"{name} has {_left(hard, used)} left")

    return Passed("; ".join(lines) or f"{target.namespace} has none")


def limits(reader: ClusterReader, target: Target) -> Passed:
    """LimitRanges admit the limits of the steps.

    They also give Argo's own containers the requests that a quota demands of every container.
    """
    ranges = [
        item
        for found in reader.limit_ranges()
        for item in found.spec.limits
        if item.type == "Container"
    ]

    for item in ranges:
        for kind, demand in demands(target.profile).items():
            for name, limit in demand.limits.items():
                most = (item.max or {}).get(name)
                if most is not None and limit > parse_quantity(most):
                    wanted = amount_text(name, limit)
                    raise missing(
                        f"a LimitRange allows at most {most} {name} for a container, {kind} have"
                        f" {wanted}: their pods are refused",
                        "lower the limits in the profile, or have an admin raise the LimitRange",
                    )

    counted = {_LONG.get(key, key) for found in reader.quotas() for key in found.spec.hard or {}}
    given = {
        f"requests.{name}" for item in ranges for name in item.default_request or item.default or {}
    }
    given |= {f"limits.{name}" for item in ranges for name in item.default or {}}
    if absent := sorted(counted & _COMPUTE - given):
        raise missing(
            f"a quota counts {', '.join(absent)}, and no LimitRange gives Argo's containers such a"
            " value: every pod is refused",
            "have an admin add a LimitRange with default and defaultRequest",
        )

    return Passed(
        "the steps' limits are within the LimitRanges" if ranges else f"{target.namespace} has none"
    )


def queue(reader: ClusterReader, target: Target) -> Passed:
    """Kueue has the LocalQueue of the profile and manages pods.

    Else the queue's label has no effect.
    """
    name = target.profile.queue
    queues = reader.local_queues()
    if queues is None:
        raise missing(
            "Kueue is not installed: --queue has no effect",
            "install it, or compile without --queue",
        )

    known = [item["metadata"]["name"] for item in queues]
    if name not in known:
        raise missing(
            f"no LocalQueue {name}, there are: {', '.join(known) or 'none'}",
            "correct --queue, or create it",
        )

    manager = if_allowed(lambda: reader.config_map(_KUEUE_CONFIG, _KUEUE_NAMESPACE), None)
    if manager is None:
        raise unknown(
            f"LocalQueue {name} is there; whether Kueue manages pods may not be looked at",
            f"kubectl get configmap {_KUEUE_CONFIG} --namespace {_KUEUE_NAMESPACE} -o yaml:"
            " integrations.frameworks must have pod",
        )
    if "pod" not in _frameworks(manager.data):
        raise missing(
            f"LocalQueue {name} is there, but Kueue does not manage pods: training does not wait in"
            " the queue",
            f"have an admin add pod to integrations.frameworks in {_KUEUE_CONFIG} of"
            f" {_KUEUE_NAMESPACE}",
        )

    several = target.profile.training.n_nodes > 1
    if several and _TRAIN_JOBS not in _frameworks(manager.data):
        raise missing(
            f"LocalQueue {name} is there, but Kueue does not manage TrainJobs: a training on"
            " several nodes does not wait in the queue",
            f"have an admin add {_TRAIN_JOBS} to integrations.frameworks in {_KUEUE_CONFIG} of"
            f" {_KUEUE_NAMESPACE}",
        )

    return Passed(f"LocalQueue {name}, and Kueue manages pods{' and TrainJobs' * several}")


def _capacities(reader: ClusterReader, demand: Demand) -> tuple[list[NodeCapacity], bool]:
    """The nodes, and whether what runs on them could be looked at."""
    pods = if_allowed(reader.active_pods, None)
    return node_capacities(reader.nodes(), pods or [], demand), pods is not None


def _check_quota(name: str, kind: str, wanted: Amounts, hard: Amounts, used: Amounts) -> None:
    for key, amount in wanted.items():
        if key not in hard:
            continue

        resource = key.partition(".")[2] or key
        asked = amount_text(resource, amount)
        if amount > hard[key]:
            raise missing(
                f"quota {name} allows {amount_text(resource, hard[key])} ({key}), {kind} ask for"
                f" {asked}: never",
                "have an admin raise it, or take a smaller --profile",
            )

        left = hard[key] - used.get(key, Decimal(0))
        if amount > left:
            raise missing(
                f"quota {name} has {amount_text(resource, max(left, Decimal(0)))} left of "
                f"{amount_text(resource, hard[key])} ({key}), {kind} ask for {asked}",
                "a run waits until other pods of the namespace end; or have an admin raise it",
            )


def _n_nodes(target: Target, kind: str) -> int:
    """Return how many pods a step of this kind has at a time."""
    return target.profile.training.n_nodes if kind == "training steps" else 1


def _quota_demand(demand: Demand, count: int) -> Amounts:
    """The names under which a ResourceQuota counts `count` equal pods."""
    wanted: Amounts = {"pods": Decimal(1), "count/pods": Decimal(1)}
    for name, amount in demand.requests.items():
        wanted[f"requests.{name}"] = amount
        if name != GPU:
            wanted[name] = amount
    for name, amount in demand.limits.items():
        wanted[f"limits.{name}"] = amount
    return {name: count * amount for name, amount in wanted.items()}


def _left(hard: Amounts, used: Amounts) -> str:
    shown = [f"requests.{GPU}", "requests.cpu", "requests.memory", "pods"]
    parts = [
        amount_text(key.partition(".")[2] or key, hard[key] - used.get(key, Decimal(0)))
        for key in shown
        if key in hard
    ]
    return ", ".join(parts) or "nothing that a step needs counted"


def _shortfalls(demand: Demand, capacities: list[NodeCapacity], *, free: bool) -> str:
    parts = [
        f"{node.name}:"
        f" {shortfall(demand, node.free if free else node.allocatable)}{' free' if free else ''}"
        for node in capacities
    ]
    return first_of(parts, most=_SHOWN, separator="; ")


def _refusals(capacities: list[NodeCapacity]) -> str:
    counts = Counter(node.refusal for node in capacities if node.refusal)
    return "; ".join(
        f"{count} node{'s' if count > 1 else ''} {reason}"
        for reason, count in sorted(counts.items())
    )


def _node_advice(target: Target, kind: str) -> str:
    labels = target.profile.training.node_labels
    if kind == "training steps" and target.profile.training.gpus:
        labelled = "label the nodes (GPU feature discovery does), or " if labels else ""
        return f"{labelled}add such a node, unless an autoscaler does"
    return (
        "add such a node, unless an autoscaler does; or lower the requests in a profile of your own"
    )


def _other_profiles(reader: ClusterReader, target: Target) -> str:
    """The shipped profiles of which every step would fit now, as advice."""
    fitting = list(_fitting_profiles(reader, target))
    return f"; now fits: --profile {', '.join(fitting)}" if fitting else ""


def _fitting_profiles(reader: ClusterReader, target: Target) -> Iterator[str]:
    for name in PROFILE_NAMES:
        if name != target.profile.name and all(
            any(
                not node.refusal and not shortfall(demand, node.free)
                for node in _capacities(reader, demand)[0]
            )
            for demand in demands(load_profile(name)).values()
        ):
            yield name


def _frameworks(data: dict[str, str]) -> list[Any]:
    for text in data.values():
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError:
            continue
        if isinstance(document, dict) and document.get("integrations"):
            return list(document["integrations"].get("frameworks") or [])
    return []
