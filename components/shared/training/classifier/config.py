"""Options of the training of a classifier, which its training and the search of options share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.shared.contracts.adaptations import AGGREGATIONS, FROZEN, MODES
from components.shared.contracts.config import Range, adjusted, option
from components.shared.contracts.documents import parse_json
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.listing import shown
from components.shared.contracts.options import (
    BackboneLoopConfig,
    InputConfig,
    LoopConfig,
    MonitorConfig,
    RecipeConfig,
)
from components.shared.contracts.outcomes import BINARY, MULTICLASS

# Usual starting points for AdamW: a linear head, low-rank adapters, a whole pretrained transformer.
_LEARNING_RATE_OF_MODE = {FROZEN: 1e-3, "full": 2e-5}
_LEARNING_RATE_OF_ADAPTERS = 2e-4
_REFERENCE_FRACTION = 0.01  # PROFIT's authors: a tenth to a ten-thousandth of the peak rate


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(BackboneLoopConfig, RecipeConfig, MonitorConfig, InputConfig):
    """Hyper-parameters of the classifier. Defaults are the safe ones: fp32, frozen backbone."""

    mode: str = option(
        FROZEN,
        "Part of the backbone that is trained with the head: frozen (nothing; features are computed"
        " once and cached), full (everything), or the name of an adapter.",
        choices=MODES,
    )
    epochs: int = adjusted(
        LoopConfig, "epochs", help="Passes of the classifier's training over TRAIN."
    )
    learning_rate: float = adjusted(
        LoopConfig,
        "learning_rate",
        default=None,
        help="Peak learning rate of AdamW; auto: 1e-3 frozen, 2e-4 adapters, 2e-5 full.",
        unset="auto",
    )
    optimizer: str = option(
        "adamw",
        "adamw, or profit: AdamW whose gradient, where it agrees with that of another batch, loses"
        " what they have in common (PROFIT), so that the backbone stays near the start; the new"
        " head is trained as by adamw. For converged backbones; doubles the training time.",
        choices=("adamw", "profit"),
    )
    profit_reference_rate: float | None = option(
        None,
        "profit: learning rate of the reference step; auto: a hundredth of learning_rate.",
        gt=0,
        lt=1,
        unset="auto",
    )
    label_smoothing: float = option(
        0.1,
        "Fraction of the target mass that is spread over all classes.",
        ge=0,
        lt=1,
        search=Range(0.0, 0.3),
    )
    class_weights: str = option(
        "none",
        "Loss weights: none, or inverse class frequency.",
        choices=("none", "balanced"),
        search=True,
    )
    aggregation: str = option(
        "lse",
        "Aggregation of the views' margins into the image's; lse: log-sum-exp.",
        choices=AGGREGATIONS,
        search=True,
    )
    aggregation_top_k: int = option(
        3, "topk_mean: how many of the largest margins are averaged.", ge=1, le=1000
    )
    aggregation_sharpness: float = option(
        1.0, "lse: from the mean (towards 0) to the maximum (large).", gt=0, le=1e4
    )
    distilled_head: bool = option(
        False,
        "Several views: also distil a head on the whole image alone, for transformers' stock"
        " pipeline.",
    )
    adapter_rank: int = option(
        8, "Rank of the adapters.", ge=1, le=4096, search=Range(4, 64, log=True)
    )
    adapter_alpha: float = option(
        16.0, "Adapters are scaled by adapter_alpha / adapter_rank.", gt=0, le=1e6
    )
    adapter_options: str = option(
        "", "JSON mapping of further fields of peft's configuration of the adapter."
    )

    def automatic(self) -> Mapping[str, Any]:
        """Learning rates that are usual for the mode."""
        rate = self.learning_rate or _LEARNING_RATE_OF_MODE.get(
            self.mode, _LEARNING_RATE_OF_ADAPTERS
        )
        if self.optimizer != "profit":
            return {"learning_rate": rate}
        return {"learning_rate": rate, "profit_reference_rate": _REFERENCE_FRACTION * rate}

    def check(self) -> list[str]:
        """Options that need several views, PROFIT for a fresh head, malformed adapter options."""
        problems = super().check()
        for name in ("distilled_head", "tile_flips"):
            if getattr(self, name) and self.tile_grid is None:
                problems.append(f"{name}=True needs tile_grid of at least 2")

        if self.optimizer == "profit" and self.mode == FROZEN:
            problems.append(
                "optimizer='profit' needs a converged start, and mode='frozen' trains a fresh head"
                " alone; use adamw, or another mode"
            )

        return problems + self._adapter_problems()

    def _adapter_problems(self) -> list[str]:
        """Return what is wrong with `adapter_options`."""
        try:
            options = self.parsed_adapter_options()
        except ConfigError as error:
            return [str(error)]

        return [
            f"adapter_options: {name[:100]}={shown(value)} would draw anew in each pass, so that"
            " the result depended on the size of micro-batches; use dropout, which is of the"
            " head's input"
            for name, value in options.items()
            if "dropout" in name and value
        ]

    def parsed_adapter_options(self) -> dict[str, Any]:
        """Return the mapping in `adapter_options`; raise ConfigError where it holds none."""
        if not self.adapter_options:
            return {}

        reason = ""
        try:
            document = parse_json(self.adapter_options, "not JSON", error=ConfigError)
        except ConfigError as error:
            document, reason = None, f" ({error})"
        if not isinstance(document, dict):
            raise ConfigError(
                f"adapter_options={shown(self.adapter_options)} must be a JSON mapping, like"
                f' {{"bias": "all"}}{reason}'
            )
        return document

    def task_problems(self, task: str, class_names: Sequence[str] | None = None) -> list[str]:
        """Return the options that need a positive class, or two classes, where these are absent."""
        problems = super().task_problems(task, class_names)
        if self.distilled_head and task == MULTICLASS:
            problems.append("distilled_head=True needs task=binary: one margin is distilled")
        if self.tile_grid and task == BINARY and class_names is not None and len(class_names) != 2:
            problems.append(
                f"tile_grid={self.tile_grid} with task=binary needs 2 classes, not"
                f" {list(class_names)}; use task=multiclass, or tile_grid=none"
            )
        return problems

    @property
    def reference_rate(self) -> float | None:
        """Learning rate of PROFIT's reference step; None without PROFIT."""
        return self.profit_reference_rate if self.optimizer == "profit" else None
