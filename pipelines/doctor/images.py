"""Check of whether nodes can pull the steps' images, by what nodes, pods and events say.

Starts no pod.
"""

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from components.shared.contracts.environment import Variable
from pipelines.doctor.findings import Passed, missing, unknown
from pipelines.doctor.target import RUNNER, Target
from pipelines.kubeflow.reader import ClusterReader, if_allowed

_PULL_FAILED = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_IMAGE_IN_EVENT = re.compile(
    r'(Failed to pull|Successfully pulled|Back-off pulling) image "([^"]+)"(?:: (.*))?', re.S
)
_PRESENT_IN_EVENT = re.compile(r'Container image "([^"]+)" already present')
_LONGEST_REASON = 300
_NO_REGISTRY = (
    f"the names have no registry, so that nodes ask docker.io: set {Variable.REGISTRY}, "
    "run python -m pipelines images --build --push, and compile again"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def image_pull(reader: ClusterReader, target: Target) -> Passed:
    """Every image is on a node, and no pull of one has failed; else says what a test would be."""
    wanted = sorted(set(target.images))
    failures = {image: reason for image, reason in _failures(reader).items() if image in wanted}
    if failures:
        image, reason = next(iter(sorted(failures.items())))
        raise missing(
            f"{len(failures)} of {len(wanted)} cannot be pulled: {image}: {reason}",
            _advice(image, target),
        )

    nodes = if_allowed(reader.nodes, None)
    if nodes is None:
        raise unknown(
            f"{len(wanted)} images; these credentials may not look at nodes",
            _settle(wanted[0], target),
        )

    there = {
        _full_name(name)
        for node in nodes
        for image in node.status.images or []
        for name in image.names or []
    }

    absent = [image for image in wanted if _listed(image) not in there]
    if not absent:
        return Passed(f"each of the {len(wanted)} images is on a node")
    if target.profile.image_pull_policy == "Never":
        raise missing(
            f"{len(absent)} of {len(wanted)} are on no node, and image_pull_policy is Never:"
            f" {absent[0]}",
            "load them onto the nodes, or set another policy in the profile",
        )
    raise unknown(
        f"{len(absent)} of {len(wanted)} are on no node yet: {absent[0]}",
        _settle(absent[0], target),
    )


def _failures(reader: ClusterReader) -> dict[str, str]:
    """Reason for each image whose newest pull in this namespace failed."""
    newest: dict[str, tuple[datetime, str]] = {}
    for event in if_allowed(reader.pod_events, []):
        for image, reason in _pulls(event.message or ""):
            when = (
                event.last_timestamp
                or event.event_time
                or event.metadata.creation_timestamp
                or _EPOCH
            )

            before, known = newest.get(image, (_EPOCH, ""))
            if when > before or (when == before and len(reason) > len(known)):
                newest[image] = (when, reason)

    failures = {image: reason for image, (_, reason) in newest.items() if reason}

    for image, reason in _waiting(
        if_allowed(lambda: reader.pods("app.kubernetes.io/part-of=streetvision"), [])
    ):
        failures.setdefault(image, reason)

    return failures


def _pulls(message: str) -> Iterable[tuple[str, str]]:
    """Images of a kubelet's message, with the reason of a failure, "" for a success."""
    for done, image, reason in _IMAGE_IN_EVENT.findall(message):
        if done == "Successfully pulled":
            yield image, ""
        else:
            yield image, _shown(reason) or "the pull failed"
    for image in _PRESENT_IN_EVENT.findall(message):
        yield image, ""


def _waiting(pods: Iterable[Any]) -> Iterable[tuple[str, str]]:
    for pod in pods:
        for status in [
            *(pod.status.init_container_statuses or []),
            *(pod.status.container_statuses or []),
        ]:
            waiting = status.state.waiting if status.state else None
            if waiting is not None and waiting.reason in _PULL_FAILED:
                yield status.image, _shown(waiting.message or waiting.reason)


def _shown(reason: str) -> str:
    return " ".join(reason.split())[:_LONGEST_REASON]


def _listed(image: str) -> str:
    """The name under which a node lists an image: with its registry, by tag or by digest."""
    name, at, digest = _full_name(image).partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return f"{name.removesuffix(f':{tag}')}@{digest}" if at else name


def _full_name(image: str) -> str:
    """The image's name with its registry."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


def _advice(image: str, target: Target) -> str:
    if _full_name(image) != image:
        return _NO_REGISTRY
    secrets = ", ".join(target.profile.secrets.image_pull) or "none"
    return (
        "python -m pipelines images --push, if it is not in the registry; if that asks for a"
        f" login, name a Secret in the profile (secrets.image_pull, now {secrets})"
    )


def _settle(image: str, target: Target) -> str:
    """The command that settles it: a pod that pulls the image and ends.

    It meets every Pod Security level.
    """
    if _full_name(image) != image:
        return f"{_NO_REGISTRY}, or load the images onto the nodes"

    container = {
        "name": "pull",
        "image": image,
        "command": ["true"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }

    spec: dict[str, Any] = {
        "serviceAccountName": RUNNER,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    if target.profile.secrets.image_pull:
        spec["imagePullSecrets"] = [{"name": name} for name in target.profile.secrets.image_pull]
    overrides = json.dumps({"spec": spec}, separators=(",", ":"))

    return (
        f"kubectl run pull --namespace {target.namespace} --image {image} --restart=Never --rm"
        f" --attach --overrides '{overrides}'"
    )
