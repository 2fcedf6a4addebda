"""Checks of `submit` and `schedule create` before anything is sent.

Each refusal is one line: field, value, fix.

Places are judged by their form. Objects and the namespace are looked at where the store and
Kubernetes can be reached with the credentials at hand; what cannot be looked at is no reason to
refuse.
"""

from pipelines.preflight.findings import Preflight
from pipelines.preflight.namespace import check_namespace
from pipelines.preflight.places import check_places
from pipelines.preflight.target import check_target

__all__ = ["Preflight", "check_namespace", "check_places", "check_target"]
