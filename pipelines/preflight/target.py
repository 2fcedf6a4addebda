"""Checks of the target of a run: its object store and its namespace.

What cannot be reached from this machine is passed over with a remark.
"""

from collections.abc import Mapping
from typing import Any

from components.shared.contracts.errors import ConfigError, TransientError, one_line
from pipelines.doctor.target import Target
from pipelines.kubeflow.connection import KFP_NAMESPACE, Mode
from pipelines.kubeflow.options import StoreOptions
from pipelines.kubeflow.reader import ClusterReader
from pipelines.kubeflow.run_pods import reader_or_none
from pipelines.parameters import Variant
from pipelines.preflight.findings import Preflight
from pipelines.preflight.namespace import check_namespace
from pipelines.preflight.places import check_objects, places
from pipelines.resources import Profile
from pipelines.upload_data.location import reachable_store

_STORE_SECONDS = 5.0


def check_target(
    given: StoreOptions,
    values: Mapping[str, Any],
    variant: Variant,
    profile: Profile,
    mode: Mode,
    *,
    service_account: str,
) -> Preflight:
    """Check the run's data and backbone in the store, and the namespace of its pods.

    Args:
        given: root and address of the object store.
        values: parameters of the run; empty to check the namespace alone.
        variant: the graph, which decides what is read.
        profile: Secrets and resources of the steps.
        mode: KFP's mode and the namespace of the runs.
        service_account: the account that the pods run as.
    """
    reader = reader_or_none(mode.namespace)
    found = Preflight()
    if reader is not None:
        target = Target(
            namespace=mode.namespace,
            kfp_namespace=KFP_NAMESPACE if mode.multi_user else mode.namespace,
            multi_user=mode.multi_user,
            profile=profile,
        )
        found.add(check_namespace(reader, target, service_account))

    stored = _stored(given, values, variant, mode, reader)
    if found != Preflight():  # why the store could not be found follows from it
        stored.remarks.clear()
    found.add(stored)

    return found


def _stored(
    given: StoreOptions,
    values: Mapping[str, Any],
    variant: Variant,
    mode: Mode,
    reader: ClusterReader | None,
) -> Preflight:
    stored = [place for place in places(values, variant) if place.is_stored]
    if not stored:
        return Preflight()

    try:
        runs = reachable_store(given, mode, reader, _STORE_SECONDS)
    except (ConfigError, TransientError) as error:
        shown = " and ".join(place.field for place in stored)
        return Preflight(remarks=[f"{shown} not looked for: {one_line(error)}"])

    return check_objects(runs.store, stored)
