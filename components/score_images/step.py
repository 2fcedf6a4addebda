"""Answers of a bundle to all images below an address, as one Parquet table.

One row for each image, also for one that cannot be read. A step that is killed and started again
goes on where it was, and writes the same file.
"""

import importlib.metadata
from pathlib import Path
from typing import Any

from components.score_images.config import ScoreImagesConfig
from components.score_images.scoring import parts_of, score
from components.score_images.table import FILE, counts, write_table
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import code_version, read_manifest, writing
from components.shared.contracts.config import digest
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.formats import TRANSFORMERS
from components.shared.contracts.listing import first_of, printable, say
from components.shared.contracts.outcomes import DEFER
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.data.finished_parts import Work, resumable
from components.shared.serving.bundle import open_bundle
from components.shared.serving.new_images import listed_images, shown_rejects

STEP = "score_images"
# Whose version may change an answer.
_LIBRARIES = {TRANSFORMERS: ("pillow", "torch", "transformers")}
_WITHOUT_TORCH = ("pillow", "onnxruntime")


def run(config: ScoreImagesConfig, *, bundle: InputDir, scores: OutputDir) -> dict[str, Any]:
    """Score the images of `config.images`.

    Args:
        config: The step's configuration.
        bundle: The bundle that answers.
        scores: The table scores.parquet.

    Returns:
        n_images, n_rejected, n_deferred, and under "decisions" how many images have each.

    Raises:
        ConfigError: No images are named.
        DataError: The address holds no images.
        ArtifactError: The bundle is damaged, or has no such form.
    """
    if not config.images:
        raise ConfigError("images is not set; give a folder or s3://bucket/prefix")
    opened, manifest = open_bundle(bundle), read_manifest(bundle)
    listing = listed_images(config.images)
    parts = parts_of(listing)

    libraries = _LIBRARIES.get(config.form, _WITHOUT_TORCH)
    versions = [importlib.metadata.version(name) for name in libraries]
    key = digest([STEP, config.to_json(), manifest.content_digest, code_version(), versions])[:32]
    summary: dict[str, Any] = {}
    with resumable(Work("scores", Kind.SCORES, STEP, config), key, scores) as finished:
        folders = score(opened, config.form, listing.files, parts, finished)

        with writing(
            scores,
            kind=Kind.SCORES,
            step=STEP,
            config=config,
            inputs={"bundle": manifest},
            summary=summary,
        ) as out:
            about = {"bundle": manifest.content_digest, "form": config.form}
            write_table(out / FILE, folders, [part.paths for part in parts], about)
            summary |= _summary(out / FILE)

    return summary


def _summary(file: Path) -> dict[str, Any]:
    """Return the counts of a table, and say them."""
    decided, errors = counts(file)
    n_images = sum(decided.values()) + len(errors)
    listed = first_of([f"{printable(name)} {n:,}" for name, n in decided.items()]) or "none"
    say(f"scored {n_images:,} images: {listed}")
    if errors:
        say(f"{len(errors):,} of {n_images:,} cannot be read: {shown_rejects(errors)}")

    return {
        "n_images": n_images,
        "n_rejected": len(errors),
        "n_deferred": decided.get(DEFER, 0),
        "decisions": decided,
    }


if __name__ == "__main__":
    main(run, ScoreImagesConfig)
