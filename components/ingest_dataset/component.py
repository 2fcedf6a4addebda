"""KFP interfaces of ingest_dataset.

One task does everything, or `ingest_part` is a task for each part of the listing, and `merge_parts`
joins them under the name of the first. A back end fetches a `dsl.Collected` list by its first
artifact's bucket alone, and fails where some are cached and some new: so each part has an input of
its own. It also repeats a component's declared inputs in the status of every node: so one task that
does everything declares none.
"""

from kfp import dsl

from components.artifact_types import ImageDataset, ImagePart
from components.base_images import CPU
from components.kfp_component import component

MAX_PARTS = 8


@component(CPU)
def ingest_dataset(dataset: dsl.Output[ImageDataset], config: dict) -> None:
    """Decode and check every image once, find duplicates, and store the usable ones in shards."""
    from components.ingest_dataset.step import run
    from components.shared.contracts.step import execute

    execute(run, config, dataset=dataset)


@component(CPU)
def ingest_part(
    part: dsl.Output[ImagePart],
    config: dict,
    number: int,
    n_parts: int,
) -> None:
    """Decode and check the images of one part of the listing.

    Args:
        config: The configuration of ingest_dataset, from `configure`.
        number: Which part, from 1.
        n_parts: Number of parts.
    """
    from components.ingest_dataset.part import run_part
    from components.shared.contracts.step import execute

    execute(run_part, {**config, "part": number, "n_parts": n_parts}, part=part)


@component(CPU)
def merge_parts(
    dataset: dsl.Output[ImageDataset],
    config: dict,
    part_1: dsl.Input[ImagePart] = None,
    part_2: dsl.Input[ImagePart] = None,
    part_3: dsl.Input[ImagePart] = None,
    part_4: dsl.Input[ImagePart] = None,
    part_5: dsl.Input[ImagePart] = None,
    part_6: dsl.Input[ImagePart] = None,
    part_7: dsl.Input[ImagePart] = None,
    part_8: dsl.Input[ImagePart] = None,
) -> None:
    """Find duplicates among the images of all parts, and store the usable ones in shards."""
    from components.ingest_dataset.step import run
    from components.shared.contracts.step import execute

    parts = [part_1, part_2, part_3, part_4, part_5, part_6, part_7, part_8]
    given = [part for part in parts if part is not None]
    execute(run, config, dataset=dataset, parts=given)
