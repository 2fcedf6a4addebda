"""Searches the options of a training of backbone and head, by whole trainings."""

import dataclasses

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import verify_dir, writing
from components.shared.contracts.step import InputDir, OutputDir, OutputFile, main
from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits, refuse_empty
from components.shared.training.loop.conformal_batches import check_conformal
from components.shared.training.loop.inference import SplitData
from components.shared.training.search.result import result_of, write_page, write_result
from components.shared.training.session.features import labels_of
from components.shared.training.session.training_session import TrainingSession
from components.tune_training.config import TuneTrainingConfig

STEP = "tune_training"


def run(
    config: TuneTrainingConfig,
    *,
    dataset: InputDir,
    splits: InputDir,
    backbone: InputDir,
    tuning: OutputDir,
    report: OutputFile | None = None,
) -> dict[str, float]:
    """Train one classifier after the other; write the best options as a recipe, best.yaml.

    A training that is below the median of the others' at the same epoch, by the monitored metric on
    VAL_SELECT, is ended. If interrupted and started again with the same inputs, the search goes on
    at the last checkpoint of the training under way, and ends with the same best.

    Args:
        config: The step's configuration.
        dataset: The images; those of TRAIN are learnt from, those of VAL_SELECT compare.
        splits: The splits of the dataset.
        backbone: The pretrained backbone.
        tuning: Recipe, trials, and what the maximum overstates.
        report: Page (HTML) of the same.

    Returns:
        Metrics of the best trial.
    """
    config = dataclasses.replace(config, training=config.base().to_json())
    sources = {"dataset": dataset, "splits": splits, "backbone": backbone}
    session = TrainingSession(config, step=STEP, inputs=sources, beside=tuning)
    session.raise_recorded_failure()

    data, assignment = Dataset.open(dataset), read_splits(splits)
    inputs = {
        "dataset": data.manifest,
        "splits": assignment.manifest,
        "backbone": verify_dir(backbone, Kind.BACKBONE),
    }
    base = config.base()
    base.check_training(data.class_names)
    refuse_empty(data, assignment)
    check_conformal(base, data, assignment)

    with session.run("components.tune_training.search", inputs) as work:
        select = labels_of(SplitData.of(data, assignment, "VAL_SELECT"))
        result = result_of(config, work, select)
        with writing(tuning, kind=Kind.TUNING, step=STEP, config=config, inputs=inputs) as out:
            write_result(out, config, result)
        if report is not None:
            write_page(report, config, result)

    return result.metrics


if __name__ == "__main__":
    main(run, TuneTrainingConfig)
