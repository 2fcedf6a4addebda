"""Options by which a user names Kubeflow's API and the object store.

The command line makes its options of these fields: `metavar` and `help` are the metadata that it
shows.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from components.shared.contracts.environment import Variable
from pipelines.names import PIPELINES, STAGE1, name_in_kubeflow


@dataclass(frozen=True, kw_only=True)
class ApiAddress:
    """Address of Kubeflow's API, and namespace of the runs."""

    TITLE: ClassVar[str] = "Kubeflow API"
    NOTE: ClassVar[str] = (
        f"The API's address is --host or {Variable.KFP_ENDPOINT}; in a pod of the cluster it is"
        f" found. Authentication: none, a bearer token ({Variable.KFP_TOKEN}), a Dex session cookie"
        f" ({Variable.KFP_COOKIE}: authservice_session=...), or the pod's service account. The"
        " namespace is --namespace, else that of kubeconfig's current context, else kubeflow if KFP"
        " has one user, and streetvision if it has several."
    )

    host: str | None = field(
        default=None,
        metadata={
            "metavar": "URL",
            "help": "Kubeflow Pipelines' API, for example http://localhost:8080/pipeline.",
        },
    )
    namespace: str | None = field(
        default=None, metadata={"metavar": "NAME", "help": "Namespace of the runs."}
    )
    ca_file: str | None = field(
        default=None,
        metadata={"metavar": "PEM", "help": "Certificate authority of an https host."},
    )


@dataclass(frozen=True, kw_only=True)
class ApiOptions(ApiAddress):
    """The same, and name of the pipeline."""

    pipeline: str = field(
        default=STAGE1,
        metadata={
            "metavar": "NAME",
            "help": (
                f"The pipeline: {', '.join(PIPELINES)}, or the name in Kubeflow of a {STAGE1} of"
                " one's own."
            ),
        },
    )

    def __post_init__(self) -> None:
        """The pipeline's name is that in Kubeflow from here on."""
        object.__setattr__(self, "pipeline", name_in_kubeflow(self.pipeline))


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """Root of the artifacts in the object store, and its address as seen from this machine."""

    TITLE: ClassVar[str] = "Object store"

    root: str | None = field(
        default=None,
        metadata={
            "metavar": "URI",
            "help": (
                "KFP's pipeline root, s3:// or minio://. Without it:"
                f" {Variable.PIPELINE_ROOT}, else that of the cluster."
            ),
        },
    )
    store_endpoint: str | None = field(
        default=None,
        metadata={
            "metavar": "HOST:PORT",
            "help": "Forwarded port of the object store, if its own address is not reachable.",
        },
    )
