"""Verbs that need no cluster: run the pipeline here, list its parameters, answer from a bundle."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from components.shared.contracts.artifacts import read_manifest
from components.shared.contracts.errors import ConfigError
from pipelines.cli.declare import LOCAL, verb
from pipelines.cli.help import Verb
from pipelines.cli.options import GraphOptions, ParameterOptions, PipelineKey
from pipelines.names import DRIFT, LABELLING, SCORE, STAGE1, TUNE, TUNE_TRAINING

if TYPE_CHECKING:
    from pipelines.local.store import LocalStore
    from pipelines.parameters import Variant

app = typer.Typer()

_RUN_NOTES = """
examples:
  python -m pipelines run --demo
  python -m pipelines run --param data=photos --param backbone=facebook/dinov2-small
  python -m pipelines run --demo --param epochs=5 --dry-run
  python -m pipelines run --demo --modes full,frozen,lora

`python -m pipelines parameters` lists every parameter with its default and meaning.
"""
# Pipelines that a verb of their own runs on this machine.
_OWN_VERB = {
    TUNE: "tune",
    TUNE_TRAINING: "tune",
    DRIFT: "drift",
    LABELLING: "select-for-labelling",
    SCORE: "score",
}
_PARAMETERS_NOTES = """
example:
  python -m pipelines parameters | grep -A 1 learning_rate
"""


@verb(app, "run", LOCAL, notes=_RUN_NOTES)
def run(
    parameters: ParameterOptions,
    graph: GraphOptions,
    pipeline: PipelineKey = STAGE1,
    demo: Annotated[
        bool, typer.Option("--demo", help="Use generated scenes and a small random backbone.")
    ] = False,
    output: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="Folder of runs and cache.")
    ] = Path("runs"),
    store: Annotated[
        Literal["none", "embedded"],
        typer.Option(
            "--store",
            metavar="none|embedded",
            help="embedded: read the data from, and register the bundle in, an S3 server that is"
            " started for this run.",
        ),
    ] = "none",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the steps and which are cached; run nothing.")
    ] = False,
) -> None:
    """Run the whole pipeline on this machine.

    kfp.local runs the steps one after the other; unchanged steps come from the cache.
    """
    from pipelines.local.output import check_output
    from pipelines.parameters import sources_of

    variant = graph.variant(pipeline)
    if pipeline in _OWN_VERB:
        raise ConfigError(
            f"--pipeline {pipeline} is run on this machine by the verb {_OWN_VERB[pipeline]}"
        )
    check_output(output)
    values = run_values(parameters, variant, output if demo else None)
    check_output(output, sources_of(values, variant))
    with _store(output if store == "embedded" else None) as embedded:
        if dry_run:
            print_plan(values, output, variant, embedded)
        else:
            if embedded is not None:
                values["data"] = embedded.mirror(values["data"])
            _run(values, output, variant, embedded)


@verb(app, "parameters", LOCAL, notes=_PARAMETERS_NOTES)
def parameters() -> None:
    """List the pipeline's parameters with defaults and meaning."""
    from components.configure.config import RunForm
    from components.configure.phases import PHASES, not_settable
    from components.shared.contracts.config import Config, accepted_values, shown_default

    sections: dict[str, type[Config]] = {"form": RunForm, **PHASES}
    for title, config_class in sections.items():
        print(f"{title}:")
        for name, field in config_class.__dataclass_fields__.items():
            if not not_settable(title, name):
                values = f" [{accepted_values(field)}]" if accepted_values(field) else ""
                print(f"  {name} = {shown_default(config_class, name)}{values}")
                print(f"      {field.metadata['help']}")


# The options are those of the module, which images without Typer run as a program of its own.
@app.command(
    "predict",
    cls=Verb,
    rich_help_panel=LOCAL,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def predict(context: typer.Context) -> None:
    """Answer from a bundle, one JSON line per image."""
    from components.shared.serving.predict import main

    main(context.args, program=context.command_path)


# As of predict, the options are those of the module, which is the image's program.
@app.command(
    "serve",
    cls=Verb,
    rich_help_panel=LOCAL,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def serve(context: typer.Context) -> None:
    """Serve a bundle over HTTP and gRPC."""
    from components.shared.serving.server.command import main

    main(context.args, program=context.command_path)


def run_values(given: ParameterOptions, variant: "Variant", demo: Path | None) -> dict[str, Any]:
    """Return the run's parameters, with those of the demo below the folder `demo`, if any."""
    from components.configure.fingerprint import exists
    from pipelines.parameters import validated

    values = given.read(variant)
    if demo is not None:
        values = validated(_demo_values(demo / "demo") | values, variant)

    if not values.get("data"):
        raise ConfigError(
            "data is not set; add --param data=FOLDER_OR_PARQUET, or --demo for generated scenes"
        )
    if not values.get("backbone"):
        raise ConfigError(
            "backbone is not set; add --param backbone=PLACE (folder, s3:// or hub id)"
        )

    for key in ("data", "backbone"):
        if exists(values[key]):
            values[key] = str(Path(values[key]).resolve())

    return validated(values, variant)


def _demo_values(folder: Path) -> dict[str, Any]:
    """Generate the demo's data and backbone where `folder` does not hold them."""
    from pipelines.demo.backbone import write_demo_backbone
    from pipelines.demo.dataset import write_demo_data

    data, backbone = folder / "data", folder / "backbone"
    write_demo_data(data)
    write_demo_backbone(backbone)
    return {"recipe": "demo", "data": str(data), "backbone": str(backbone)}


def _store(output: Path | None) -> contextlib.AbstractContextManager["LocalStore | None"]:
    if output is None:
        return contextlib.nullcontext()
    from pipelines.local.store import local_store

    return local_store(output / "store")


def print_plan(
    values: dict[str, Any],
    output: Path,
    variant: "Variant",
    store: "LocalStore | None" = None,
) -> None:
    """Print the steps; a store that does not hold the data yet stays as it is."""
    from pipelines.local.plan import plan

    are_new = store is not None and not store.mirrors(values["data"])
    if store is not None and not are_new:
        values["data"] = store.address(values["data"])

    for planned in plan(values, output, variant, data_are_new=are_new):
        print(f"{planned.step:28} {planned.state}")


def _run(
    values: dict[str, Any], output: Path, variant: "Variant", store: "LocalStore | None"
) -> None:
    """Run, register the bundle where there is a store, and print a summary."""
    from components.shared.policies.evaluation_report import read_report
    from pipelines.local.run import run_local

    earlier = set(output.resolve().glob("*"))
    finished = run_local(values, output, variant)
    registered = store.register(finished.bundle) if store is not None else ""

    print(_summary(read_report(finished.evaluation)))
    print(f"report: {shown_path(finished.report)}")
    print(f"digest: {read_manifest(finished.bundle).content_digest}")
    print(f"bundle: {shown_path(finished.bundle)}")
    if registered:
        print(f"registered: {registered}")
    if finished.promotion is not None:
        is_cached = finished.promotion.resolve().parents[1] in earlier
        when = "of an earlier run, from the cache: " if is_cached else ""
        print(f"promotion: {when}{_decided(finished.promotion)}")


def _summary(report: dict[str, Any]) -> str:
    """Return a short table: the headline metrics of the task with their 95 % intervals."""
    counts = f"{report['n_samples']} images, {report['n_groups']} groups"
    lines = [f"VAL_TEST: {report['question']}, {counts}"]
    for name, title in (
        ("accuracy", "accuracy"),
        ("mcc", "MCC"),
        ("auroc", "AUROC"),
        ("auroc_macro", "mean AUROC"),
        ("ece_top_label", "ECE"),
    ):
        if name in report["metrics"]:
            entry = report["metrics"][name]
            value = "none" if entry["value"] is None else f"{entry['value']:.3f}"
            lines.append(f"  {title:10} {value:>7}   {_spread(entry, report['n_groups'])}")

    return "\n".join(lines)


def _decided(promotion: Path) -> str:
    """Return what was decided on a bundle, and why."""
    from components.shared.contracts.documents import read_object

    document = read_object(promotion / "promotion.json", dict[str, Any])
    return f"{document['outcome']}, {document['reason']}"


def _spread(entry: dict[str, Any], n_groups: int) -> str:
    """Return the interval of a metric, or what noise alone makes of a calibration error."""
    from components.shared.stats.jackknife import MIN_GROUPS

    bounds, band = entry["interval_95"], entry.get("calibrated_95")
    if band is not None:
        return f"noise: up to {band[1]:.3f}"
    if bounds is not None:
        return f"95 %: {bounds[0]:.3f} to {bounds[1]:.3f}"
    return "95 %: none" if n_groups >= MIN_GROUPS else f"95 %: none below {MIN_GROUPS} groups"


def shown_path(path: Path) -> str:
    """Return a path as a reader in this folder writes it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
