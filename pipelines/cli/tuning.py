"""The verb that searches the classifier's options on this machine."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipelines.cli.declare import LOCAL, verb
from pipelines.cli.local import print_plan, run_values, shown_path
from pipelines.cli.options import ParameterOptions
from pipelines.names import TUNE, TUNE_TRAINING

app = typer.Typer()

_NOTES = """
examples:
  python -m pipelines tune --param data=photos --param backbone=facebook/dinov2-small
  python -m pipelines tune --params my-run.yaml --param n_trials=500
  python -m pipelines tune --search training --params my-run.yaml --param mode=lora
  python -m pipelines run --params runs/best.yaml --param data=photos

The first trial has the options of the run. A search that is interrupted goes on when the same
command is given again. In Kubeflow: submit --pipeline tune, or --pipeline tune-training.
"""


@verb(app, "tune", LOCAL, notes=_NOTES)
def tune(
    parameters: ParameterOptions,
    search: Annotated[
        Literal["head", "training"],
        typer.Option(
            "--search",
            metavar="head|training",
            help="head: hundreds of heads on features that are computed once; training: a few"
            " whole trainings, which end early below the median of others.",
        ),
    ] = "head",
    demo: Annotated[
        bool, typer.Option("--demo", help="Use generated scenes and a small random backbone.")
    ] = False,
    output: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="Folder of runs and cache.")
    ] = Path("runs"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the steps and which are cached; run nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Search the classifier's options on TRAIN and VAL_SELECT; write the best as a recipe."""
    from components.shared.contracts.documents import read_object
    from pipelines.local.output import check_output
    from pipelines.local.run import run_artifacts
    from pipelines.parameters import Variant, sources_of

    variant = Variant(pipeline=TUNE if search == "head" else TUNE_TRAINING)
    check_output(output)
    values = run_values(parameters, variant, output if demo else None)
    check_output(output, sources_of(values, variant))
    if dry_run:
        print_plan(values, output, variant)
        return

    tuning = run_artifacts(values, output, variant)["tuning"]
    # Every run has a folder of its own: the recipe of the last search has one place.
    recipe = output / "best.yaml"
    recipe.write_bytes((tuning / "best.yaml").read_bytes())

    found = read_object(tuning / "tuning.json", dict[str, Any])
    if as_json:
        found = {key: value for key, value in found.items() if key != "trials"}
        print(json.dumps(found | {"recipe": str(recipe), "tuning": str(tuning)}, indent=1))
        return

    print("\n".join(_summary(found)))
    print(f"report: {shown_path(tuning.with_name('report'))}")
    print(f"recipe: {shown_path(recipe)}, for --params of run, submit and schedule create")


def _summary(found: dict[str, Any]) -> list[str]:
    """Return the result in four lines."""
    lines = [
        f"VAL_SELECT: {found['monitor']}, {found['n_samples']} images, {found['n_groups']} groups",
        f"  options of the run {found['default']:.4f}",
        f"  best of {len(found['trials'])} trials {found['best']:.4f} (trial"
        f" {found['best_trial']})",
    ]
    if found["corrected"] is None:
        return [*lines, "  optimism of the maximum unknown: too few groups"]

    interval = found["gain_interval_95"]
    shown = f"95 %: {interval[0]:+.4f} to {interval[1]:+.4f}" if interval else "95 %: none"
    return [
        *lines,
        f"  corrected for the choice {found['corrected']:.4f}, a change by {found['gain']:+.4f}"
        f" ({shown})",
    ]
