"""What KServe's API accepts: the schema of its resource InferenceService, as an API server uses it.

kserve-0.20.0-inferenceservice.json says where it is from and what was cut away: a field that is not
in it is refused here, also where KServe knows it.
"""

import json
from pathlib import Path
from typing import Any

import jsonschema

_FILE = Path(__file__).with_name("kserve-0.20.0-inferenceservice.json")
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
    """Return what an API server would say of an InferenceService; unknown fields are problems."""
    schema = _closed(json.loads(_FILE.read_text(encoding="utf-8"))["schema"])
    found = jsonschema.Draft202012Validator(schema).iter_errors(item)
    return [f"{error.json_path}: {error.message}" for error in found]


def refused_by_knative(item: dict[str, Any]) -> set[str]:
    """Return the fields of the predictor for which Knative Serving needs a feature flag."""
    return set(item["spec"]["predictor"]) - _KNATIVE_POD - _OF_KSERVE


def _closed(schema: Any) -> Any:
    """Return a structural schema of Kubernetes as a strict JSON schema."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema

    closed = {
        key: {name: _closed(part) for name, part in value.items()}
        if key == "properties"
        else _closed(value)
        for key, value in schema.items()
    }
    if closed.pop("x-kubernetes-int-or-string", False):
        closed["type"] = ["integer", "string"]
    if "properties" in closed and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed
