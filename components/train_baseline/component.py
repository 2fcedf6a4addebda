"""KFP interface of train_baseline."""

from kfp import dsl

from components.shared.artifact_types import Backbone, Checkpoint, ImageDataset, Splits, ValSelectLogits
from components.shared.component import documented
from components.train_baseline.config import TrainBaselineConfig
from pipelines.sources import trainer_image


# fmt: off
@dsl.component(base_image=trainer_image(__name__), install_kfp_package=False)
@documented(TrainBaselineConfig)
def train_baseline(
    dataset: dsl.Input[ImageDataset], splits: dsl.Input[Splits], backbone: dsl.Input[Backbone],
    checkpoint: dsl.Output[Checkpoint], val_select_logits: dsl.Output[ValSelectLogits],
    metrics: dsl.Output[dsl.Metrics],
    mode: str = "frozen", epochs: int = 20, optimizer: str = "adamw", profit_reference_rate: float = 0.0,
    learning_rate: float = 0.0, global_batch_size: int = 64, micro_batch_size: int = 0, weight_decay: float = 0.01,
    warmup_ratio: float = 0.1, dropout: float = 0.3, label_smoothing: float = 0.1, class_weights: str = "none",
    conformal_weight: float = 0.0, conformal_alpha: float = 0.1,
    ema_decay: float = 0.99, gradient_clip: float = 1.0, patience: int = 10, monitor: str = "val_select/acc",
    augmentation: str = "moderate", n_cached_augmentations: int = 4, tile_grid: int = 1, tile_overlap: float = 0.0,
    tile_flips: bool = False, tile_size: int = 224, aggregation: str = "lse", aggregation_top_k: int = 3,
    aggregation_sharpness: float = 1.0, distilled_head: bool = False, adapter_rank: int = 8, adapter_alpha: float = 16.0,
    adapter_options: str = "", precision: str = "fp32", n_processes: int = 0, positive_class: str = "Roadwork",
    seed: int = 0, checkpoint_seconds: int = 600, checkpoint_steps: int = 0, require_durable: bool = False,
) -> None:
    """Train a classifier on TRAIN, choose the epoch on VAL_SELECT, write the logits of VAL_SELECT."""
    arguments = dict(locals())
    from components.shared.step import execute
    from components.train_baseline import config, step
    for name, value in execute(step.run, config.TrainBaselineConfig, arguments).items():
        metrics.log_metric(name, value)
