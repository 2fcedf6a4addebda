"""The command line for the life of the pipeline: `python -m pipelines --help`."""

import argparse
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.shared.contracts.errors import ConfigError, StreetVisionError
from components.shared.contracts.step import fail
from pipelines.cli import cluster as cluster_cli
from pipelines.cli import options
from pipelines.cli.output import ending_quietly

if TYPE_CHECKING:
    from pipelines.local.store import LocalStore


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and run one verb; every deliberate error is one line, exit code 42 where a retry cannot
    help.
    """
    parsed = _parser().parse_args(arguments)
    try:
        with ending_quietly():
            parsed.verb(parsed)
    except StreetVisionError as error:
        fail(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines",
        description=(
            "The stage-1 pipeline: run it here, or compile, upload, run and schedule it in"
            " Kubeflow."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    run = verbs.add_parser(
        "run",
        help="run the whole pipeline on this machine",
        description=(
            "Run the whole pipeline on this machine through kfp.local; unchanged steps come from"
            " the cache."
        ),
        epilog=(
            "examples:\n"
            "  python -m pipelines run --demo\n"
            "  python -m pipelines run --param data=photos --param backbone=facebook/dinov2-small\n"
            "  python -m pipelines run --demo --param epochs=5 --dry-run\n"
            "  python -m pipelines run --demo --modes full,frozen,lora\n\n"
            "`python -m pipelines parameters` lists every option with its default and meaning."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_parameter_options(run)
    options.add_variant_options(run)
    run.add_argument(
        "--demo", action="store_true", help="generated street scenes and a small random backbone"
    )
    run.add_argument(
        "--output", type=Path, default=Path("runs"), help="folder of runs and cache (default: runs)"
    )
    run.add_argument(
        "--store",
        choices=("none", "embedded"),
        default="none",
        help=(
            "embedded: read the data from, and register the bundle in, an S3 server started for"
            " this run"
        ),
    )
    run.add_argument(
        "--dry-run", action="store_true", help="print the steps and which are cached, run nothing"
    )
    run.set_defaults(verb=_run)
    compile_ = verbs.add_parser("compile", help="write the pipeline spec for Kubeflow (YAML)")
    compile_.add_argument(
        "--output", type=Path, default=Path("build/stage1.yaml"), help="default: build/stage1.yaml"
    )
    options.add_profile_options(compile_)
    options.add_variant_options(compile_)
    compile_.set_defaults(verb=_compile)
    cluster_cli.add_verbs(verbs)
    listing = verbs.add_parser(
        "parameters", help="list the pipeline's parameters with defaults and meaning"
    )
    listing.set_defaults(verb=_list_parameters)
    return parser


def _run(parsed: argparse.Namespace) -> None:
    from pipelines.local.plan import plan
    from pipelines.local.run import run_local
    from pipelines.parameters import read_parameters, validated

    variant = options.variant_of(parsed)
    values = read_parameters(parsed.params, parsed.param, variant)
    if parsed.demo:
        values = validated(_demo_values(parsed.output) | values, variant)
    if not values.get("data"):
        raise ConfigError(
            "data is not set; add --param data=FOLDER_OR_PARQUET, or --demo for generated scenes"
        )
    if not values.get("backbone"):
        raise ConfigError(
            "backbone is not set; add --param backbone=PLACE (folder, s3:// or hub id)"
        )
    for key in ("data", "backbone"):
        if Path(values[key]).exists():
            values[key] = str(Path(values[key]).resolve())
    with _store(parsed) as store:
        if store is not None:
            values["data"] = store.mirror(values["data"])
        if parsed.dry_run:
            for planned in plan(values, parsed.output, variant):
                print(f"{planned.step:28} {planned.state}")
            return
        finished = run_local(values, parsed.output, variant)
        registered = store.register(finished.bundle) if store is not None else ""
    print(
        _summary(json.loads((finished.evaluation / "eval_report.json").read_text(encoding="utf-8")))
    )
    print(f"report: {_shown(finished.report)}\nbundle: {_shown(finished.bundle)}")
    if registered:
        print(f"registered: {registered}")


def _store(parsed: argparse.Namespace) -> contextlib.AbstractContextManager["LocalStore | None"]:
    from pipelines.local.store import local_store

    return (
        local_store(parsed.output / "store")
        if parsed.store == "embedded"
        else contextlib.nullcontext()
    )


def _demo_values(output: Path) -> dict[str, Any]:
    from pipelines.demo.backbone import write_demo_backbone
    from pipelines.demo.dataset import write_demo_data

    data, backbone = output / "demo" / "data", output / "demo" / "backbone"
    write_demo_data(data)
    write_demo_backbone(backbone)
    return {"recipe": "demo", "data": str(data), "backbone": str(backbone)}


def _compile(parsed: argparse.Namespace) -> None:
    import yaml

    from pipelines.graph import critical_path, steps_of
    from pipelines.package import write_package

    version = write_package(parsed.output, options.profile_of(parsed), options.variant_of(parsed))
    print(f"wrote {parsed.output} ({version})")

    spec = next(yaml.safe_load_all(parsed.output.read_text(encoding="utf-8")))
    path = critical_path(spec)
    n_fields = len(spec["root"]["inputDefinitions"]["parameters"])
    print(
        f"{len(steps_of(spec))} steps, a form of {n_fields} fields,"
        f" {parsed.output.stat().st_size / 1000:.0f} kB, {path.pods} pods on the critical path,"
        f" {path.driver_only} of them only open a group"
    )


def _list_parameters(parsed: argparse.Namespace) -> None:
    del parsed
    from components.configure.config import RunForm
    from components.configure.phases import PHASES, SET_BY_PIPELINE
    from components.shared.contracts.config import Config, accepted_values, shown_default

    sections: dict[str, type[Config]] = {"form": RunForm, **PHASES}
    for title, config_class in sections.items():
        print(f"{title}:")
        for name, field in config_class.__dataclass_fields__.items():
            if name not in SET_BY_PIPELINE:
                values = f" [{accepted_values(field)}]" if accepted_values(field) else ""
                print(f"  {name} = {shown_default(config_class, name)}{values}")
                print(f"      {field.metadata['help']}")


def _summary(report: dict[str, Any]) -> str:
    """A short table: the four headline metrics with their 95 % intervals."""
    lines = [f"VAL_TEST: {report['n_samples']} images, {report['n_groups']} groups"]
    for name, title in (
        ("accuracy", "accuracy"),
        ("mcc", "MCC"),
        ("auroc", "AUROC"),
        ("ece_top_label", "ECE"),
    ):
        entry = report["metrics"][name]
        value = "none" if entry["value"] is None else f"{entry['value']:.3f}"
        bounds = entry["interval_95"]
        interval = f"95 %: {bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else "95 %: none"
        lines.append(f"  {title:10} {value:>7}   {interval}")
    return "\n".join(lines)


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
