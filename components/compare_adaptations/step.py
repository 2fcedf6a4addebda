"""Comparison of adaptations of the backbone on VAL_SELECT; selects the checkpoint that goes on."""

import csv
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from components.compare_adaptations.candidates import Candidate, read_candidates
from components.compare_adaptations.config import CompareAdaptationsConfig
from components.shared.calibration.model_selection import METRICS
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import MANIFEST, Manifest, write_json, writing
from components.shared.contracts.errors import DataError
from components.shared.contracts.step import InputDirs, OutputDir, OutputFile, main
from components.shared.policies.logits import Logits
from components.shared.stats.bootstrap import Statistic, intervals, membership, paired_difference

STEP = "compare_adaptations"
# Row of a table: mode and metric with value and 95 % interval, the same of its difference to the
# first mode.
Row = dict[str, Any]


def run(
    config: CompareAdaptationsConfig,
    *,
    checkpoints: InputDirs,
    val_select_logits: InputDirs,
    checkpoint: OutputDir,
    comparison: OutputDir,
    table: OutputFile,
) -> None:
    """Copy the best checkpoint by `monitor` on VAL_SELECT, ties to the earlier mode; write how all
    compare.

    The interval of a difference is of the same groups drawn for both (paired); that the best of
    several was chosen on these very images is not in it. Raises ArtifactError where the candidates
    are not those of one run.
    """
    candidates = read_candidates(config.modes, checkpoints, val_select_logits)
    _check(config, candidates[0].logits)
    rows = [row for candidate in candidates for row in _rows(config, candidate, candidates[0])]
    values = {row["mode"]: row["value"] for row in rows if row["metric"] == config.monitor}
    chosen = max(candidates, key=lambda candidate: values[candidate.mode])  # the first of equals
    verdict = {
        "chosen": chosen.mode,
        "because": f"largest {config.monitor} on VAL_SELECT, ties to the earlier mode",
        "candidates": values,
    }
    print(
        f"{chosen.mode} goes on: "
        + ", ".join(f"{mode} {value:.4f}" for mode, value in values.items())
    )
    inputs = _inputs(candidates)
    summary = chosen.manifest.summary | {"adaptations": verdict}
    # Inputs of the chosen training too: who reads a checkpoint asks of which data it was made.
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
        _plot(out / "comparison.png", config, rows)
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(_markdown(config, verdict, rows), encoding="utf-8")


def _check(config: CompareAdaptationsConfig, logits: Logits) -> None:
    if config.positive_class not in logits.class_names:
        raise DataError(
            f"positive_class={config.positive_class!r} is not in {list(logits.class_names)}"
        )
    n_positive = int((logits.labels == logits.class_names.index(config.positive_class)).sum())
    if not 0 < n_positive < len(logits.labels):
        raise DataError(
            f"VAL_SELECT has {n_positive} of {config.positive_class!r} among {len(logits.labels)}"
            " samples, a comparison needs both classes; use more data or a larger select_fraction"
        )


def _inputs(candidates: Sequence[Candidate]) -> dict[str, Manifest | str]:
    found: dict[str, Manifest | str] = {}
    for candidate in candidates:
        found[f"checkpoint {candidate.mode}"] = candidate.manifest
        found[f"val_select_logits {candidate.mode}"] = candidate.logits_manifest
    return found


def _rows(config: CompareAdaptationsConfig, candidate: Candidate, first: Candidate) -> list[Row]:
    """One row for each metric."""
    ours, theirs = _statistics(config, candidate), _statistics(config, first)
    groups, count = first.logits.groups, config.n_bootstrap
    bounds = intervals(ours, groups, count, config.seed)
    rows = []
    for name, statistic in ours.items():
        row: Row = {
            "mode": candidate.mode,
            "metric": name,
            "value": _value(statistic),
            "interval_95": bounds[name],
        }
        if candidate is not first:
            member = membership(groups, len(groups))
            found = paired_difference(statistic, theirs[name], member, count, config.seed)
            row |= {"difference": found.value, "difference_interval_95": found.interval}
        rows.append(row)
    return rows


def _statistics(config: CompareAdaptationsConfig, candidate: Candidate) -> Mapping[str, Statistic]:
    logits = candidate.logits
    positive = logits.class_names.index(config.positive_class)
    wide = logits.logits.astype(np.float64)
    return {
        name: partial(metric, wide, logits.labels, positive) for name, metric in METRICS.items()
    }


def _value(statistic: Statistic) -> float:
    found = statistic(None)
    return float("nan") if found is None else float(found)


def _write_csv(file: Path, rows: Sequence[Row]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            [
                "mode",
                "metric",
                "value",
                "low_95",
                "high_95",
                "difference",
                "difference_low_95",
                "difference_high_95",
            ]
        )
        for row in rows:
            bounds, apart = (
                row["interval_95"] or ("", ""),
                row.get("difference_interval_95") or ("", ""),
            )
            writer.writerow(
                [
                    row["mode"],
                    row["metric"],
                    row["value"],
                    *bounds,
                    row.get("difference", ""),
                    *apart,
                ]
            )


def _markdown(
    config: CompareAdaptationsConfig, verdict: Mapping[str, Any], rows: Sequence[Row]
) -> str:
    """What the KFP UI shows: one line for each mode and metric."""
    lines = [
        f"**{verdict['chosen']}** goes on: {verdict['because']}.",
        "",
        f"| mode | metric | value (95 %) | difference to {config.modes[0]} (95 %, paired) |",
        "|---|---|---|---|",
    ]
    for row in rows:
        apart = (
            _shown(row["difference"], row["difference_interval_95"], "+.4f")
            if "difference" in row
            else ""
        )
        value = _shown(row["value"], row["interval_95"], ".4f")
        lines.append(
            f"| {row['mode']} | {row['metric'].removeprefix('val_select/')} | {value} | {apart} |"
        )
    return "\n".join(lines) + "\n"


def _shown(value: float, bounds: tuple[float, float] | None, form: str) -> str:
    return (
        f"{value:{form}} ({bounds[0]:{form}} to {bounds[1]:{form}})"
        if bounds
        else f"{value:{form}}"
    )


def _plot(file: Path, config: CompareAdaptationsConfig, rows: Sequence[Row]) -> None:
    """A panel for each metric: every mode's value with its interval."""
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(2.6 * len(METRICS), 1.2 + 0.4 * len(config.modes)), layout="constrained"
    )
    for axes, metric in zip(figure.subplots(1, len(METRICS), sharey=True), METRICS, strict=True):
        for place, row in enumerate(row for row in rows if row["metric"] == metric):
            if row["interval_95"]:
                axes.hlines(place, *row["interval_95"], color="C0", linewidth=2)
            axes.plot(row["value"], place, "o", color="C0")
        axes.set_title(metric.removeprefix("val_select/"), fontsize=9)
        axes.set_yticks(range(len(config.modes)), config.modes)
        axes.set_ylim(len(config.modes) - 0.5, -0.5)
    figure.savefig(file, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main(run, CompareAdaptationsConfig)
