"""KFP interface of ingest_dataset."""

from kfp import dsl

from components.artifact_types import ImageDataset
from components.base_images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def ingest_dataset(
    dataset: dsl.Output[ImageDataset],
    config: dict,
) -> None:
    """Decode and check every image once, find duplicates, and store the usable ones in shards."""
    from components.ingest_dataset.step import run
    from components.shared.contracts.step import execute

    execute(run, config, dataset=dataset)
