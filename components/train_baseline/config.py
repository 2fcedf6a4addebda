"""Options of phase 1: what is trained, and how."""

import json
from dataclasses import dataclass

from components.shared.contracts.adaptations import MODES, MONITOR_HELP, MONITORS
from components.shared.contracts.config import option
from components.shared.contracts.options import HALF_REFUSED, RecipeConfig
from components.shared.vision.view_spec import AGGREGATIONS, ViewSpec

# Usual starting points for AdamW: a linear head, low-rank adapters, a whole pretrained transformer.
_LEARNING_RATE_OF_MODE = {"frozen": 1e-3, "full": 2e-5}
_LEARNING_RATE_OF_ADAPTERS = 2e-4
_REFERENCE_SHARE = 0.01  # PROFIT's authors: a tenth to a ten-thousandth


@dataclass(frozen=True, kw_only=True)
class TrainBaselineConfig(RecipeConfig):
    """Hyper-parameters of phase 1. Defaults are the safe ones: fp32, frozen backbone."""

    mode: str = option(
        "frozen",
        "What is trained besides the head: nothing (features are computed once and cached),"
        " everything, adapters.",
        choices=MODES,
    )
    epochs: int = option(20, "Passes over TRAIN; early stopping may end sooner.", ge=1)
    learning_rate: float = option(
        0.0, "Peak rate of AdamW; 0: 1e-3 frozen, 2e-4 adapters, 2e-5 full.", ge=0, lt=1
    )
    optimizer: str = option(
        "adamw",
        "adamw, or profit: AdamW whose steps do not undo a reference step (PROFIT). For converged"
        " backbones; twice the time.",
        choices=("adamw", "profit"),
    )
    profit_reference_rate: float = option(
        0.0, "profit: rate of the reference step; 0: a hundredth of the peak rate.", ge=0, lt=1
    )
    micro_batch_size: int = option(
        0, "Samples per forward pass and process; 0: the whole share. Halved on OOM.", ge=0
    )
    label_smoothing: float = option(
        0.1, "Share of the target mass spread over all classes.", ge=0, lt=1
    )
    class_weights: str = option(
        "none", "Loss weights: none, or inverse class frequency.", choices=("none", "balanced")
    )
    conformal_weight: float = option(
        0.0,
        "Weight of conformal risk training: the smoothed false positive rate at the conformal"
        " threshold.",
        ge=0,
    )
    conformal_alpha: float = option(
        0.1,
        "False negative rate of that threshold; half of a batch needs 1 / alpha positives.",
        gt=0,
        lt=1,
    )
    tile_grid: int = option(
        1,
        "Looks at the whole image and at tile_grid x tile_grid tiles of it; 0 or 1: at the whole"
        " only.",
        ge=0,
        le=8,
    )
    tile_overlap: float = option(
        0.0, "Share of a tile's side that its neighbour covers too.", ge=0, lt=1
    )
    tile_flips: bool = option(False, "Also looks at every view mirrored; doubles the cost.")
    tile_size: int = option(224, "Side of each view in pixels, where there are several.", ge=1)
    aggregation: str = option(
        "lse",
        "How margins of views become the image's: topk_mean, lse (log-sum-exp), ...",
        choices=AGGREGATIONS,
    )
    aggregation_top_k: int = option(
        3, "topk_mean: how many of the largest margins are averaged.", ge=1
    )
    aggregation_sharpness: float = option(
        1.0, "lse: from the mean (towards 0) to the maximum (large).", gt=0
    )
    distilled_head: bool = option(
        False,
        "Several views: also distils a head on the whole image alone, for transformers' stock"
        " pipeline.",
    )
    monitor: str = option("val_select/acc", MONITOR_HELP, choices=MONITORS)
    adapter_rank: int = option(8, "Rank of the adapters.", ge=1)
    adapter_alpha: float = option(
        16.0, "Adapters are scaled by adapter_alpha / adapter_rank.", gt=0
    )
    adapter_options: str = option(
        "", "JSON mapping of further fields of peft's configuration of the adapter."
    )
    precision: str = option(
        "fp32", "fp32, or bf16 autocast where supported.", choices=("fp32", "bf16", "fp16")
    )

    def check(self) -> list[str]:
        """fp16, and PROFIT for a fresh head alone, are refused with their reason; adapter_options
        must be a mapping.
        """
        problems = []
        if self.distilled_head and self.tile_grid < 2:
            problems.append("distilled_head=True needs tile_grid of at least 2")
        if self.tile_flips and self.tile_grid < 2:
            problems.append("tile_flips=True needs tile_grid of at least 2")
        if self.optimizer == "profit" and self.mode == "frozen":
            problems.append(
                "optimizer='profit' needs a converged start, and mode='frozen' trains a fresh head"
                " alone; use adamw, or another mode"
            )
        if self.precision == "fp16":
            problems.append(HALF_REFUSED)
        try:
            mapping = isinstance(json.loads(self.adapter_options or "{}"), dict)
        except ValueError:
            mapping = False
        if not mapping:
            problems.append(
                f'adapter_options={self.adapter_options!r} must be a JSON mapping, like {{"bias":'
                ' "all"}'
            )
        return problems

    @property
    def views(self) -> ViewSpec | None:
        """How images are cut; None where they are seen as a whole."""
        if self.tile_grid < 2:
            return None
        return ViewSpec(
            grid=self.tile_grid,
            overlap=self.tile_overlap,
            flips=self.tile_flips,
            size=self.tile_size,
            aggregation=self.aggregation,
            top_k=self.aggregation_top_k,
            sharpness=self.aggregation_sharpness,
            positive_class=self.positive_class,
        )

    @property
    def peak_learning_rate(self) -> float:
        """`learning_rate`, or the mode's usual one where it is 0."""
        return self.learning_rate or _LEARNING_RATE_OF_MODE.get(
            self.mode, _LEARNING_RATE_OF_ADAPTERS
        )

    @property
    def reference_rate(self) -> float:
        """Rate of PROFIT's reference step; 0 without PROFIT."""
        if self.optimizer != "profit":
            return 0.0
        return self.profit_reference_rate or _REFERENCE_SHARE * self.peak_learning_rate
