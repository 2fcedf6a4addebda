"""A run as it is sent to Kubeflow: its parameters, its compiled pipeline, the checks before."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.shared.contracts.errors import ConfigError
from pipelines.cli.options import GraphOptions, ParameterOptions, ResourceOptions, RunOptions
from pipelines.kubeflow.options import ApiOptions, StoreOptions

if TYPE_CHECKING:
    from pipelines.kubeflow.cluster import Cluster
    from pipelines.kubeflow.run_store import RunStore
    from pipelines.parameters import Variant


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What `submit` and `schedule create` send, as the options say it."""

    api: ApiOptions
    store: StoreOptions
    parameters: ParameterOptions
    graph: GraphOptions
    resources: ResourceOptions
    run: RunOptions

    @property
    def variant(self) -> "Variant":
        """The graph that is sent. Raises ConfigError."""
        return self.graph.variant_of(self.api)

    def values(self, demo: "RunStore | None" = None) -> dict[str, Any]:
        """Return the run's parameters; `demo` is the store that holds the demo, if any.

        Ends the process if pods could not read a place that they name. Raises ConfigError.
        """
        from pipelines.parameters import validated
        from pipelines.preflight import check_places

        variant = self.variant
        values = self.parameters.read(variant)

        if demo is not None:
            from pipelines.upload_data.demo import demo_values

            values = validated(demo_values(demo.bucket) | values, variant)

        for key in ("data", "backbone"):
            if key in variant.form and not values.get(key):
                raise ConfigError(
                    f"{key} is not set; add --param {key}=..., or set it in the file of --params"
                )

        check_places(values, variant).report()

        return values

    def package(self) -> tuple[Path, str]:
        """Compile the pipeline; return the file and the version's name."""
        from pipelines.package import package_named

        return package_named(self.api.pipeline, self.resources.load(), self.variant)

    def check_target(self, cluster: "Cluster", values: dict[str, Any]) -> None:
        """End the process if a run would fail for a reason that can be seen from here."""
        from pipelines.preflight import check_target

        check_target(
            self.store,
            values,
            self.variant,
            self.resources.load(),
            cluster.mode,
            service_account=self.run.service_account,
        ).report()

    def request(self, name: str, version: str, values: dict[str, Any]) -> dict[str, Any]:
        """Return the document that --dry-run prints."""
        return {
            "pipeline": self.api.pipeline,
            "version": version,
            "experiment": self.run.experiment,
            "name": name,
            "namespace": self.api.namespace,
            "service_account": self.run.service_account,
            "parameters": values,
        }


def root_of_runs(store: StoreOptions, cluster: "Cluster") -> str:
    """Return the root of the run's artifacts; "" for KFP's default."""
    from pipelines.kubeflow.run_pods import reader_or_none
    from pipelines.kubeflow.run_store import root_for_runs

    return root_for_runs(store, reader_or_none(cluster.mode.namespace))
