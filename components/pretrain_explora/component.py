"""KFP interface of pretrain_explora."""

from kfp import dsl

from components.pretrain_explora.config import PretrainExploraConfig
from components.shared.artifact_types import Backbone, TrainImages, TrainLabels
from components.shared.component import documented
from pipelines.sources import trainer_image


# fmt: off
@dsl.component(base_image=trainer_image(__name__), install_kfp_package=False)
@documented(PretrainExploraConfig)
def pretrain_explora(
    train_images: dsl.Input[TrainImages], pretrained: dsl.Input[Backbone], adapted: dsl.Output[Backbone],
    metrics: dsl.Output[dsl.Metrics], train_labels: dsl.Input[TrainLabels] = None,
    explora_objective: str = "none", use_labeled_data: bool = False, explora_rank: int = 64,
    explora_alpha: float = 64.0,
    explora_unfrozen_blocks: int = 1, explora_epochs: int = 20, explora_learning_rate: float = 5e-4,
    explora_batch_size: int = 64, explora_weight_decay: float = 0.04, explora_crop_size: int = 224,
    explora_momentum: float = 0.992,
    explora_centering: str = "sinkhorn", explora_prototypes: int = 1024, explora_head_width: int = 1024,
    explora_local_crops: int = 8, explora_teacher_temperature: float = 0.07, explora_ibot_weight: float = 1.0,
    explora_koleo_weight: float = 0.1, explora_mask_ratio: float = 0.75, explora_decoder_width: int = 192,
    warmup_ratio: float = 0.1, gradient_clip: float = 1.0, micro_batch_size: int = 0, precision: str = "fp32",
    n_processes: int = 0, seed: int = 0, checkpoint_seconds: int = 600, checkpoint_steps: int = 0,
    require_durable: bool = False,
) -> None:
    """Adapt a pretrained backbone to TRAIN's images without labels; verify the merged result from disk."""
    arguments = dict(locals())
    from components.pretrain_explora import config, step
    from components.shared.step import execute
    for name, value in execute(step.run, config.PretrainExploraConfig, arguments).items():
        metrics.log_metric(name, value)
