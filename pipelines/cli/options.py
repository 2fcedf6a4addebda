"""Groups of options that several verbs share: parameters, the compiled pipeline, the run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from components.shared.contracts.environment import Variable
from pipelines.kubeflow.options import ApiOptions
from pipelines.names import PIPELINES, key_of
from pipelines.sources import DEFAULT_REGISTRY

if TYPE_CHECKING:
    from pipelines.parameters import Variant
    from pipelines.resources import Profile

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be sent and send nothing.")
]
Poll = Annotated[
    float, typer.Option("--poll", metavar="SECONDS", help="Time between two requests.")
]
DAY = 24 * 3600.0
Timeout = Annotated[
    float,
    typer.Option("--timeout", metavar="SECONDS", help="How long to wait.", show_default="a day"),
]
Registry = Annotated[
    str,
    typer.Option(
        "--registry",
        metavar="PREFIX",
        help=(
            f"Prefix of the images' names. Without it: {Variable.REGISTRY}, else"
            f" {DEFAULT_REGISTRY}."
        ),
    ),
]

PipelineKey = Annotated[
    str,
    typer.Option("--pipeline", metavar="NAME", help=f"The pipeline: {', '.join(PIPELINES)}."),
]


def _option(metavar: str, help_text: str, **default: Any) -> Any:
    return field(**default, metadata={"metavar": metavar, "help": help_text})


@dataclass(frozen=True, kw_only=True)
class ParameterOptions:
    """Values of a run's parameters."""

    TITLE: ClassVar[str] = "Parameters of the run"

    params: Path | None = _option(
        "FILE",
        "YAML or JSON mapping of parameters; they may be grouped by phase.",
        default=None,
    )
    param: list[str] = _option(
        "KEY=VALUE",
        "One parameter by its name, or phase.parameter; overrides --params. May be repeated.",
        default_factory=list,
    )

    def read(self, variant: "Variant") -> dict[str, Any]:
        """Return the parameters, checked as the run's first step checks them.

        Raises ConfigError.
        """
        from pipelines.parameters import read_parameters

        return read_parameters(self.params, self.param, variant)


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """Optional phases of the graph."""

    TITLE: ClassVar[str] = "Compiled pipeline"

    pretrain: str = _option(
        "none|unlabelled|labelled",
        "Extended pre-training of the backbone on TRAIN, without or with labels.",
        default="none",
    )
    modes: str = _option(
        "MODE,MODE",
        "Adaptations to train side by side and compare, for example full,frozen,lora,dora. One"
        " alone, lora: without the step for frozen training. Without it: that of the run's mode.",
        default="",
    )

    ingest_parts: int = _option(
        "N",
        "Tasks that check the images side by side, each a part of the listing. The data set has the"
        " same bytes.",
        default=1,
    )
    audit_labels: bool = _option(
        "",
        "A task that looks for wrong labels of TRAIN and VAL_SELECT, for a person to decide about.",
        default=False,
    )

    formats: str = _option(
        "FORMAT,FORMAT",
        "Forms of the model in the bundle: transformers always, onnx for onnxruntime alone,"
        " onnx_int8 (with onnx) quantised.",
        default="transformers,onnx",
    )

    def variant(self, pipeline: str) -> "Variant":
        """Return the graph that the options ask for.

        Args:
            pipeline: key of the pipeline in `names.PIPELINES`.

        Raises:
            ConfigError: an option is invalid, or there is no such pipeline.
        """
        from pipelines.parameters import parse_variant

        return parse_variant(
            self.pretrain,
            self.modes,
            self.ingest_parts,
            pipeline,
            audit_labels=self.audit_labels,
            formats=self.formats,
        )

    def variant_of(self, api: ApiOptions) -> "Variant":
        """Return the graph that the options ask for, of the pipeline that `api` names."""
        return self.variant(key_of(api.pipeline))


@dataclass(frozen=True, kw_only=True)
class ResourceOptions:
    """Requests of the compiled pipeline to the cluster."""

    TITLE: ClassVar[str] = "Compiled pipeline"

    profile: str = _option(
        "NAME|FILE",
        "Resources of the steps: a6000x2, a6000x1, cpu, or a YAML file like"
        " pipelines/profiles/a6000x2.yaml.",
        default="a6000x2",
    )
    queue: str = _option("NAME", "Kueue's LocalQueue for training. Without it: none.", default="")
    store_secret: str = _option(
        "NAME",
        "One Secret with the object store's accesskey and secretkey for all steps. Without it: the"
        " profile's, which is KFP's own store.",
        default="",
    )
    own_store: bool = _option(
        "",
        "A store of the pipeline's own: each step is given the Secret of its role only,"
        " streetvision-data, -runs, -checkpoints or -registry.",
        default=False,
    )
    registry: str = _option(
        "PREFIX",
        f"Prefix of the images' names. Without it: {Variable.REGISTRY}, else {DEFAULT_REGISTRY}.",
        default="",
    )

    def load(self) -> "Profile":
        """Return the profile with the options applied. Raises ConfigError."""
        from pipelines.resources import load_profile

        return load_profile(
            self.profile,
            queue=self.queue,
            store_secret=self.store_secret,
            own_store=self.own_store,
            registry=self.registry,
        )


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Experiment and service account of a run."""

    TITLE: ClassVar[str] = "Kubeflow API"

    experiment: str = _option("NAME", "Experiment of the run.", default="streetvision")
    service_account: str = _option(
        "NAME",
        "Kubernetes service account that the pods of all steps run as.",
        default="streetvision-runner",
    )
