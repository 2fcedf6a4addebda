"""Checks of what training on several nodes needs: Kubeflow Trainer, rights, a store."""

from components.shared.contracts.environment import Variable
from pipelines.doctor.findings import Passed, missing
from pipelines.doctor.target import RUNNER, Target
from pipelines.kubeflow.reader import ClusterReader
from pipelines.resources import STORE_CONFIG
from pipelines.train_job import API_VERSION, RUNTIME

_GROUP, _, _VERSION = API_VERSION.partition("/")
_RIGHTS = (
    ("create", _GROUP, "trainjobs"),
    ("get", _GROUP, "trainjobs"),
    ("delete", _GROUP, "trainjobs"),
    ("list", "", "pods"),
    ("get", "", "pods/log"),
)
_OPTION = "add components/multi-node to the overlay"


def training_nodes(reader: ClusterReader, target: Target) -> Passed:
    """The cluster runs TrainJobs, and a step may make one and find out how it ended."""
    served = reader.resources(_GROUP, _VERSION)
    if served is None or "trainjobs" not in served:
        raise missing(
            f"{API_VERSION} is not served: a training on {target.profile.training.n_nodes} nodes"
            " cannot be started",
            "have an admin install Kubeflow Trainer 2.2 or later, or compile with n_nodes: 1",
        )
    if not reader.has_object(_GROUP, _VERSION, "trainingruntimes", RUNTIME):
        raise missing(
            f"TrainingRuntime {RUNTIME} is not there", f"{_OPTION}, then {target.apply_runner}"
        )

    refused = [
        f"{verb} {resource}"
        for verb, group, resource in _RIGHTS
        if not reader.may(RUNNER, verb, group, resource)
    ]
    if refused:
        raise missing(
            f"{RUNNER} may not {', '.join(refused)}", f"{_OPTION}, then {target.apply_runner}"
        )

    found = reader.config_map(STORE_CONFIG)
    if found is None or not found.data.get(Variable.CHECKPOINT_STORE):
        raise missing(
            f"{STORE_CONFIG} has no {Variable.CHECKPOINT_STORE}: nodes get data and checkpoints"
            " through the store",
            f"set it, then {target.apply_store}",
        )

    return Passed(f"{API_VERSION} with TrainingRuntime {RUNTIME}, and {RUNNER} may use them")
