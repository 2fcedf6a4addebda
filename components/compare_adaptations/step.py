"""Compares adaptations of the backbone on VAL_SELECT and selects the best checkpoint."""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from components.compare_adaptations.candidates import Candidate, read_candidates
from components.compare_adaptations.config import CompareAdaptationsConfig
from components.shared.calibration.model_selection import METRICS, SCALES
from components.shared.contracts.adaptations import monitored
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import MANIFEST, Manifest, write_json, writing
from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import say
from components.shared.contracts.step import InputDirs, OutputDir, OutputFile, main
from components.shared.contracts.tables import write_table
from components.shared.policies.logits import Logits
from components.shared.stats.bootstrap import Statistic, intervals, membership, paired_difference
from components.shared.stats.jackknife import MIN_GROUPS, TOO_FEW_GROUPS

STEP = "compare_adaptations"
_CSV_COLUMNS = (
    "mode",
    "metric",
    "value",
    "low_95",
    "high_95",
    "difference",
    "difference_low_95",
    "difference_high_95",
)

# One metric of one mode: value with 95 % interval, and the same of its difference to the first
# mode. The entries are those of comparison.json.
MetricRow = dict[str, Any]


def run(
    config: CompareAdaptationsConfig,
    *,
    checkpoints: InputDirs,
    val_select_logits: InputDirs,
    checkpoint: OutputDir,
    comparison: OutputDir,
    table: OutputFile,
) -> None:
    """Copy the best checkpoint by `monitor` on VAL_SELECT, ties to the earlier mode.

    The interval of a difference is of the same groups drawn for both modes (paired). It does not
    account for the selection of the best of several on these very images.

    Args:
        config: modes, metric and resampling.
        checkpoints: one Checkpoint for each mode, in any order.
        val_select_logits: one ValSelectLogits for each mode, in any order.
        checkpoint: folder of the selected Checkpoint.
        comparison: folder of the Comparison artifact.
        table: Markdown table for the KFP UI.

    Raises:
        ArtifactError: the candidates are not those of one run.
        DataError: VAL_SELECT lacks a class, or the positive class is unknown.
    """
    candidates = read_candidates(config.modes, checkpoints, val_select_logits)
    _refuse_one_class(config, candidates[0].logits)
    rows = [
        row for candidate in candidates for row in _metric_rows(config, candidate, candidates[0])
    ]
    values = {row["mode"]: row["value"] for row in rows if row["metric"] == config.monitor}
    # The first of equals.
    chosen = max(candidates, key=lambda found: monitored(config.monitor, values[found.mode]))
    verdict = {
        "chosen": chosen.mode,
        "because": f"best {config.monitor} on VAL_SELECT, ties to the earlier mode",
        "candidates": values,
        "notes": _notes(len(candidates), len(set(candidates[0].logits.groups))),
    }

    shown = ", ".join(f"{mode} {value:.4f}" for mode, value in values.items())
    say(f"{chosen.mode} is selected: {shown}")

    inputs = _inputs(candidates)
    summary = chosen.manifest.summary | {"adaptations": verdict}
    # The inputs of the selected training are recorded too: readers of a checkpoint check on which
    # data it was trained.
    lineage = dict(chosen.manifest.inputs) | inputs
    with writing(
        checkpoint, kind=Kind.CHECKPOINT, step=STEP, config=config, inputs=lineage, summary=summary
    ) as out:
        shutil.copytree(
            chosen.checkpoint, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST)
        )

    with writing(comparison, kind=Kind.COMPARISON, step=STEP, config=config, inputs=inputs) as out:
        write_json(out / "comparison.json", verdict | {"split": "VAL_SELECT", "rows": rows})
        _write_csv(out / "comparison.csv", rows)
        _plot(out / "comparison.png", config, rows, chosen.mode)

    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(_markdown(config, verdict, rows), encoding="utf-8")


def _refuse_one_class(config: CompareAdaptationsConfig, logits: Logits) -> None:
    """Raise DataError where VAL_SELECT has no positive or no negative samples."""
    outcomes = config.outcomes(logits.class_names)
    counts = np.bincount(logits.truth(outcomes), minlength=len(outcomes.names))
    if np.count_nonzero(counts) < 2:
        shown = ", ".join(
            f"{n} of {name!r}" for name, n in zip(outcomes.names, counts, strict=True)
        )
        raise DataError(
            f"VAL_SELECT has {shown}; a comparison needs two classes: use more data or a larger"
            " select_fraction"
        )


def _notes(n_candidates: int, n_groups: int) -> list[str]:
    """Return what a reader of values and intervals has to know."""
    notes = []
    if n_candidates > 1:
        notes.append(
            f"Selected among {n_candidates} on these very images: its values and its difference to"
            " the others flatter. Of eight equal adaptations the selected one has an interval above"
            " the first one's in one run of six. Report the metrics of evaluate instead."
        )
    if n_groups < MIN_GROUPS:
        notes.append(f"{n_groups} groups: {TOO_FEW_GROUPS}.")
    return notes


def _inputs(candidates: Sequence[Candidate]) -> dict[str, Manifest | str]:
    """Return the manifests of all candidates, by input and mode."""
    inputs: dict[str, Manifest | str] = {}
    for candidate in candidates:
        inputs[f"checkpoint {candidate.mode}"] = candidate.manifest
        inputs[f"val_select_logits {candidate.mode}"] = candidate.logits_manifest
    return inputs


def _metric_rows(
    config: CompareAdaptationsConfig, candidate: Candidate, first: Candidate
) -> list[MetricRow]:
    """Return one row for each metric, with the difference to the first mode."""
    statistics, of_first = _statistics(config, candidate), _statistics(config, first)
    groups, count = first.logits.groups, config.n_bootstrap
    bounds = intervals(statistics, groups, count, config.seed, SCALES)
    rows = []

    for name, statistic in statistics.items():
        row: MetricRow = {
            "mode": candidate.mode,
            "metric": name,
            "value": _value(statistic),
            "interval_95": bounds[name],
        }
        if candidate is not first:
            member = membership(groups, len(groups))
            found = paired_difference(statistic, of_first[name], member, count, config.seed)
            row |= {"difference": found.value, "difference_interval_95": found.interval}

        rows.append(row)

    return rows


def _statistics(config: CompareAdaptationsConfig, candidate: Candidate) -> Mapping[str, Statistic]:
    """Return the selection metrics of a candidate, as functions of weights."""
    logits = candidate.logits
    outcomes = config.outcomes(logits.class_names)
    logits64 = logits.logits.astype(np.float64)
    return {
        name: partial(metric, logits64, logits.labels, outcomes) for name, metric in METRICS.items()
    }


def _value(statistic: Statistic) -> float:
    found = statistic(None)
    return float("nan") if found is None else float(found)


def _write_csv(file: Path, rows: Sequence[MetricRow]) -> None:
    table = []
    for row in rows:
        interval = row["interval_95"] or ("", "")
        of_difference = row.get("difference_interval_95") or ("", "")
        difference = row.get("difference", "")
        table.append(
            [row["mode"], row["metric"], row["value"], *interval, difference, *of_difference]
        )

    write_table(file, _CSV_COLUMNS, table, for_people=True)


def _markdown(
    config: CompareAdaptationsConfig, verdict: Mapping[str, Any], rows: Sequence[MetricRow]
) -> str:
    """Return the table of the KFP UI: one line for each mode and metric."""
    lines = [
        f"**{verdict['chosen']}** is selected: {verdict['because']}.",
        "",
        *(line for note in verdict["notes"] for line in (note, "")),
        f"| mode | metric | value (95 %) | difference to {config.modes[0]} (95 %, paired) |",
        "|---|---|---|---|",
    ]

    for row in rows:
        metric = row["metric"].removeprefix("val_select/")
        value = _with_interval(row["value"], row["interval_95"], ".4f")
        difference = ""
        if "difference" in row:
            difference = _with_interval(row["difference"], row["difference_interval_95"], "+.4f")
        lines.append(f"| {row['mode']} | {metric} | {value} | {difference} |")

    return "\n".join(lines) + "\n"


def _with_interval(value: float, interval: tuple[float, float] | None, form: str) -> str:
    """Return the value in the given format, with its interval where there is one."""
    if interval is None:
        return f"{value:{form}}"
    return f"{value:{form}} ({interval[0]:{form}} to {interval[1]:{form}})"


def _plot(
    file: Path, config: CompareAdaptationsConfig, rows: Sequence[MetricRow], chosen: str
) -> None:
    """Draw a panel for each metric: every mode's value with its interval."""
    from matplotlib.figure import Figure

    size = (2.6 * len(METRICS), 1.2 + 0.4 * len(config.modes))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(METRICS), sharey=True)
    for axes, metric in zip(panels, METRICS, strict=True):
        of_metric = [row for row in rows if row["metric"] == metric]
        for height, row in enumerate(of_metric):
            if row["interval_95"]:
                axes.hlines(height, *row["interval_95"], color="C0", linewidth=2)
            axes.plot(row["value"], height, "o", color="C0")

        axes.set_title(metric.removeprefix("val_select/"), fontsize=9)
        axes.set_yticks(range(len(config.modes)), config.modes)
        axes.set_ylim(len(config.modes) - 0.5, -0.5)

    if len(config.modes) > 1:
        figure.suptitle(
            f"{chosen}: selected among {len(config.modes)} on these images, its values flatter",
            fontsize=9,
        )
    figure.savefig(file, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main(run, CompareAdaptationsConfig)
