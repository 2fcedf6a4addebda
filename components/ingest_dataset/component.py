"""KFP interface of ingest_dataset."""

from kfp import dsl

from components.ingest_dataset.config import IngestConfig
from components.shared.artifact_types import ImageDataset
from components.shared.component import documented
from pipelines.sources import cpu_image


# fmt: off
@dsl.component(base_image=cpu_image(__name__), install_kfp_package=False)
@documented(IngestConfig)
def ingest_dataset(
    dataset: dsl.Output[ImageDataset],
    data: str = "", extra_sources: str = "", source_name: str = "", source_fingerprint: str = "",
    csv: str = "labels.csv", path_column: str = "path", label_column: str = "label", group_column: str = "group",
    timestamp_column: str = "", label_map: dict = {"0": "None", "1": "Roadwork", "-1": "exclude"},  # noqa: B006
    class_names: list = ["None", "Roadwork"], image_size: int = 224, max_reject_fraction: float = 0.01,  # noqa: B006
    max_pixels: int = 100_000_000, near_duplicate_distance: int = 8,
) -> None:
    """Decode and check every image once, find duplicates, and store the usable ones in shards."""
    arguments = dict(locals())
    from components.ingest_dataset import config, step
    from components.shared.step import execute
    execute(step.run, config.IngestConfig, arguments)
