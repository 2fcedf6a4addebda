"""KFP interface of predict_logits."""

from kfp import dsl

from components.predict_logits.config import PredictLogitsConfig
from components.shared.artifact_types import Checkpoint, ImageDataset, Splits, ValCalibLogits, ValTestLogits
from components.shared.component import documented
from pipelines.sources import trainer_image


# fmt: off
@dsl.component(base_image=trainer_image(__name__), install_kfp_package=False)
@documented(PredictLogitsConfig)
def predict_logits(
    dataset: dsl.Input[ImageDataset], splits: dsl.Input[Splits], checkpoint: dsl.Input[Checkpoint],
    val_calib_logits: dsl.Output[ValCalibLogits], val_test_logits: dsl.Output[ValTestLogits],
    robustness: bool = True, seed: int = 0, n_processes: int = 0,
) -> None:
    """Write what the chosen model says about VAL_CALIB and VAL_TEST, the splits that nothing before has seen."""
    arguments = dict(locals())
    from components.predict_logits import config, step
    from components.shared.step import execute
    execute(step.run, config.PredictLogitsConfig, arguments)
