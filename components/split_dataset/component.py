"""KFP interface of split_dataset."""

from kfp import dsl

from components.shared.artifact_types import ImageDataset, Splits, TrainImages, TrainLabels
from components.shared.component import documented
from components.split_dataset.config import SplitConfig
from pipelines.sources import cpu_image


# fmt: off
@dsl.component(base_image=cpu_image(__name__), install_kfp_package=False)
@documented(SplitConfig)
def split_dataset(
    dataset: dsl.Input[ImageDataset], splits: dsl.Output[Splits], train_images: dsl.Output[TrainImages],
    train_labels: dsl.Output[TrainLabels],
    train_fraction: float = 0.7, select_fraction: float = 0.1, calib_fraction: float = 0.1, test_fraction: float = 0.1,
    salt: str = "", n_salts: int = 64, min_per_class: int = 5,
    holdout_column: str = "", holdout_values: list = [], seed: int = 0,  # noqa: B006
) -> None:
    """Assign every sample to TRAIN, VAL_SELECT, VAL_CALIB or VAL_TEST by a salted hash of its group."""
    arguments = dict(locals())
    from components.shared.step import execute
    from components.split_dataset import config, step
    execute(step.run, config.SplitConfig, arguments)
