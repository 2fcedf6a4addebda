"""What KServe and Knative Serving accept of an InferenceService."""

from typing import Any

from tests.manifests import custom_resources

# Those that PodSpecMask and ContainerMask of knative.dev/serving (pkg/apis/serving/fieldmask.go)
# let pass without a feature flag, of those that the manifests have.
_KNATIVE_POD = {"automountServiceAccountToken", "containers", "volumes"}
_OF_KSERVE = {
    "canaryTrafficPercent",
    "labels",
    "maxReplicas",
    "minReplicas",
    "scaleMetric",
    "scaleTarget",
    "timeout",
}


def problems(item: dict[str, Any]) -> list[str]:
    """Return what an API server with KServe would say of an InferenceService."""
    return custom_resources.problems("kserve-0.20.0-inferenceservice", item)


def refused_by_knative(item: dict[str, Any]) -> set[str]:
    """Return the fields of the predictor for which Knative Serving needs a feature flag."""
    return set(item["spec"]["predictor"]) - _KNATIVE_POD - _OF_KSERVE
