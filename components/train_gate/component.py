"""KFP interface of train_gate."""

from kfp import dsl

from components.shared.artifact_types import Checkpoint, ImageDataset, Splits, ValCalibLogits, ValTestLogits
from components.shared.component import documented
from components.train_gate.config import TrainGateConfig
from pipelines.sources import trainer_image


# fmt: off
@dsl.component(base_image=trainer_image(__name__), install_kfp_package=False)
@documented(TrainGateConfig)
def train_gate(
    dataset: dsl.Input[ImageDataset], splits: dsl.Input[Splits], checkpoint: dsl.Input[Checkpoint],
    gate_checkpoint: dsl.Output[Checkpoint], val_calib_logits: dsl.Output[ValCalibLogits],
    val_test_logits: dsl.Output[ValTestLogits], metrics: dsl.Output[dsl.Metrics],
    gate_loss: str = "selectivenet", gate_coverage: float = 0.8, gatekeeper_weight: float = 0.5, gate_epochs: int = 20,
    gate_learning_rate: float = 1e-3, global_batch_size: int = 64, weight_decay: float = 0.01,
    warmup_ratio: float = 0.1, dropout: float = 0.3, conformal_weight: float = 0.0, conformal_alpha: float = 0.1,
    ema_decay: float = 0.99, gradient_clip: float = 1.0, patience: int = 10, augmentation: str = "moderate",
    n_cached_augmentations: int = 4, n_processes: int = 0, positive_class: str = "Roadwork", seed: int = 0,
    checkpoint_seconds: int = 600, checkpoint_steps: int = 0, require_durable: bool = False,
) -> None:
    """Train a gate on the fixed backbone's features; write logits with gate scores of VAL_CALIB and VAL_TEST."""
    arguments = dict(locals())
    from components.shared.step import execute
    from components.train_gate import config, step
    for name, value in execute(step.run, config.TrainGateConfig, arguments).items():
        metrics.log_metric(name, value)
