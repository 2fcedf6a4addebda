"""What a search leaves: the best options as a recipe, its trials, the optimism of the maximum."""

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml

from components.shared.calibration.selection_optimism import Selection, best_of, monitored_values
from components.shared.contracts.adaptations import monitored
from components.shared.contracts.artifacts import write_json
from components.shared.contracts.listing import say
from components.shared.contracts.options import StepsLaunchConfig
from components.shared.contracts.pages import templates
from components.shared.contracts.tables import write_table
from components.shared.data.features import FeatureLabels
from components.shared.training.classifier.config import ClassifierConfig
from components.shared.training.search.config import SearchConfig
from components.shared.training.search.space import space_of
from components.shared.training.search.study import importances
from components.shared.training.search.trials import Trial, read_trials

PHASE = "train_baseline"  # whose options are searched
# Neither data nor resources belong into a recipe.
_RESOURCES = {field.name for field in dataclasses.fields(StepsLaunchConfig)} | {"micro_batch_size"}


@dataclass(frozen=True)
class SearchResult:
    """A finished search: its trials, the choice among the complete ones, importance by option."""

    monitor: str
    trials: list[Trial]
    best: Trial
    selection: Selection
    importance: dict[str, float]
    n_samples: int
    n_groups: int

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics for KFP's interface."""
        found = {"trials": float(len(self.trials)), f"best {self.monitor}": self.selection.value}
        if self.selection.corrected is not None:
            found[f"corrected {self.monitor}"] = self.selection.corrected
        return found


def result_of(config: SearchConfig, work: Path, select: FeatureLabels) -> SearchResult:
    """Choose the best trial of those that `run_trials` left in `work`, and judge the choice.

    `select`: classes and groups of VAL_SELECT's images, in the order of the logits.
    """
    base = config.base()
    trials, logits = read_trials(work)
    complete = [trial for trial in trials if trial.state == "complete"]
    selection = best_of(
        logits,
        select.labels,
        select.groups,
        base.outcomes(select.class_names),
        base.monitor,
        seed=config.seed,
        n_bootstrap=config.n_bootstrap,
    )

    found = SearchResult(
        base.monitor,
        trials,
        complete[selection.chosen],
        selection,
        importances(
            [_number(trial.value) for trial in complete],
            [trial.options for trial in complete],
            space_of(base),
            config.seed,
        ),
        len(select),
        len(np.unique(select.groups)),
    )
    say(" ".join(_statements(found)))
    return found


def recipe(base: ClassifierConfig, options: dict[str, Any]) -> dict[str, Any]:
    """Return options by phase: those of `base` that are no defaults, and those of a trial."""
    default = type(base)().to_json(resolved=False)
    given = base.to_json(resolved=False) | options
    return {
        PHASE: {
            name: value
            for name, value in given.items()
            if name in options or (name not in _RESOURCES and value != default[name])
        }
    }


def write_result(directory: Path, config: SearchConfig, result: SearchResult) -> None:
    """Write best.yaml, trials.csv and tuning.json into an artifact's staging directory."""
    document = yaml.safe_dump(recipe(config.base(), result.best.options), sort_keys=False)
    head = "".join(f"# {line}\n" for line in _statements(result))
    (directory / "best.yaml").write_text(head + document, encoding="utf-8")

    selection = result.selection
    write_json(
        directory / "tuning.json",
        {
            "split": "VAL_SELECT",
            "monitor": result.monitor,
            "best_trial": result.best.number,
            "best": selection.value,
            "corrected": selection.corrected,
            "optimism": selection.optimism,
            "default": selection.first,
            "gain": None if selection.gain is None else selection.gain.value,
            "gain_interval_95": None if selection.gain is None else selection.gain.interval,
            "importance": result.importance,
            "n_samples": result.n_samples,
            "n_groups": result.n_groups,
            "trials": [dataclasses.asdict(trial) for trial in result.trials],
        },
    )

    names = list(result.best.options)
    rows = [
        [
            trial.number,
            trial.state,
            "" if trial.value is None else monitored(result.monitor, trial.value),
            trial.best_epoch or "",
            *(trial.options[name] for name in names),
        ]
        for trial in result.trials
    ]
    columns = ["trial", "state", result.monitor, "best_epoch", *names]
    write_table(directory / "trials.csv", columns, rows, for_people=True)


def write_page(page: Path, config: SearchConfig, result: SearchResult) -> None:
    """Write the report (HTML), which contains its plots."""
    base = config.base()
    options = [
        (name, getattr(base, name), value, result.importance.get(name))
        for name, value in result.best.options.items()
    ]
    states = [trial.state for trial in result.trials]
    text = _template().render(
        statements=_statements(result),
        options=options,
        n_pruned=states.count("pruned"),
        failures=[trial for trial in result.trials if trial.state == "failed"],
        importance=_importance_plot(result.importance) if result.importance else "",
        progress=_progress_plot(result),
        recipe=yaml.safe_dump(recipe(base, result.best.options), sort_keys=False),
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")


def _statements(result: SearchResult) -> list[str]:
    """Return what there is to say of the result, a sentence each."""
    monitor, selection = result.monitor, result.selection
    said = [
        f"Trial {result.best.number} is the best of {len(result.trials)}: {monitor}"
        f" {selection.value:.4f}, with the options of the run {selection.first:.4f}."
    ]
    if selection.corrected is None:
        return [*said, "VAL_SELECT has too few groups to say by how much the maximum flatters."]

    said.append(
        f"The best of many flatters itself: chosen without the images that judge it, it has"
        f" {selection.corrected:.4f}, so the optimism of the maximum is {selection.optimism:+.4f}."
    )
    gain = selection.gain
    if gain is not None:
        bounds = gain.interval
        interval = (
            f"95 % {bounds[0]:+.4f} to {bounds[1]:+.4f} over {result.n_groups} groups"
            if bounds is not None
            else f"no interval: {result.n_groups} groups are too few, or no trial differs"
        )
        said.append(f"Without it, the search changes {monitor} by {gain.value:+.4f} ({interval}).")
    return said


def _importance_plot(importance: dict[str, float]) -> str:
    def draw(axes: Any) -> None:
        names = list(importance)
        axes.barh(names, list(importance.values()), color="C0")
        axes.invert_yaxis()
        axes.set(xlabel="part of the variance", xlim=(0, 1))

    return _svg(draw, "importance", (6.0, 0.7 + 0.32 * len(importance)))


def _progress_plot(result: SearchResult) -> str:
    """Plot every complete trial's metric and the best so far."""
    complete = [trial for trial in result.trials if trial.value is not None]
    numbers = [trial.number for trial in complete]
    values = np.array([monitored(result.monitor, _number(trial.value)) for trial in complete])
    best = np.maximum.accumulate(monitored_values(result.monitor, values))

    def draw(axes: Any) -> None:
        axes.plot(numbers, values, "o", color="C0", markersize=3, alpha=0.6)
        axes.plot(numbers, monitored_values(result.monitor, best), color="C1")
        low, high = _limits(values)
        axes.set(xlabel="trial", ylabel=result.monitor, ylim=(low, high))

    return _svg(draw, "progress", (6.0, 3.2))


def _limits(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the ends of an axis that shows nine tenths of the values: some trials are absurd."""
    low, high = np.quantile(values, [0.0, 1.0])
    inner_low, inner_high = np.quantile(values, [0.05, 0.95])
    margin = 0.1 * (inner_high - inner_low) or 0.01
    return max(low, inner_low - 2 * margin) - margin, min(high, inner_high + 2 * margin) + margin


def _svg(draw: Any, name: str, size: tuple[float, float]) -> str:
    """Return a drawing as an SVG element; the same data give the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10}
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **style}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})

    text = stream.getvalue()
    return text[text.index("<svg") :]


def _number(value: float | None) -> float:
    assert value is not None  # of a complete trial
    return value


def _template() -> jinja2.Template:
    environment = templates("components.shared.training.search.templates")
    return environment.get_template("tuning.html.jinja")
