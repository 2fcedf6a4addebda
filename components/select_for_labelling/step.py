"""Choice of the new images that are worth a label, for the champion or another bundle.

The images are below an address and have no labels. The bundle's own predictor judges them, as it
does for users: what it defers comes first, then what it is least sure of, as different from one
another as possible, and of near-duplicates one. Nothing is labelled: people do that, for example in
Label Studio, whose import document has the bundle's answers as pre-annotations.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from components.select_for_labelling.config import SelectForLabellingConfig
from components.select_for_labelling.label_studio import address_of, labelling_interface, task
from components.select_for_labelling.selection import Choice, choose
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import read_manifest, write_json, writing
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.listing import say
from components.shared.contracts.step import OutputDir, main
from components.shared.contracts.tables import write_table
from components.shared.policies.policy import Policy
from components.shared.serving.chosen_bundle import chosen_bundle
from components.shared.serving.new_images import (
    NewImages,
    embed_images,
    listed_images,
    shown_rejects,
)
from components.shared.stats.metrics import softmax

STEP = "select_for_labelling"
_COLUMNS = ("rank", "path", "reason", "decision", "predicted", "probability", "near_duplicates")


def run(config: SelectForLabellingConfig, *, labelling_tasks: OutputDir) -> dict[str, float]:
    """Choose images of `config.images` by the bundle `config.bundle`.

    Args:
        config: The step's configuration.
        labelling_tasks: selection.csv, label_studio.json, label_studio.xml and summary.json.

    Returns:
        The counts of summary.json.

    Raises:
        ConfigError: No images are named, or no bundle.
        DataError: The address holds no images that can be decoded; the registry has no champion.
        ArtifactError: The bundle is damaged.
    """
    if not config.images:
        raise ConfigError("images is not set; give a folder or s3://bucket/prefix of new images")
    listing = listed_images(config.images)  # a wrong prefix is seen before a bundle is fetched

    with tempfile.TemporaryDirectory(prefix="streetvision-labelling-") as folder:
        bundle = chosen_bundle(config.bundle, config.bundle_registry, Path(folder))
        # Seconds of imports, which a refused bundle need not wait for.
        from components.shared.serving.predictor import Predictor

        images = embed_images(Predictor(bundle), listing, most=config.max_images, seed=config.seed)
        manifest, policy = read_manifest(bundle.path), bundle.policy

    choice = choose(
        images.features,
        policy.confidence(images.logits, images.gate),
        ~policy.answers(images.logits, images.gate),
        images.groups,
        config.n_images,
        config.seed,
    )
    counts = _counts(images, choice)

    with writing(
        labelling_tasks,
        kind=Kind.LABELLING_TASKS,
        step=STEP,
        config=config,
        inputs={"bundle": manifest},
        summary=counts,
    ) as out:
        rows = list(_rows(images, choice, policy))
        write_table(out / "selection.csv", _COLUMNS, rows, for_people=True)
        write_json(out / "label_studio.json", _tasks(config, rows, manifest.content_digest))
        interface = labelling_interface(policy.class_names)
        (out / "label_studio.xml").write_text(interface, encoding="utf-8")
        write_json(out / "summary.json", counts | {"rejected": images.rejected})

    say(
        f"chose {len(choice.rows)} of {len(images.names)} images: {int(choice.deferred.sum())}"
        f" deferred, {int((~choice.deferred).sum())} uncertain"
    )
    if images.rejected:
        say(f"{len(images.rejected)} images cannot be decoded: {shown_rejects(images.rejected)}")
    return {name: float(value) for name, value in counts.items()}


def _counts(images: NewImages, choice: Choice) -> dict[str, Any]:
    return {
        "n_listed": images.n_listed,
        "n_read": len(images.names),
        "n_rejected": len(images.rejected),
        "n_groups": len(np.unique(images.groups)),
        "n_chosen": len(choice.rows),
        "n_chosen_deferred": int(choice.deferred.sum()),
    }


def _rows(images: NewImages, choice: Choice, policy: Policy) -> Iterator[list[Any]]:
    """Yield the rows of selection.csv, the first to label first."""
    logits = images.logits[choice.rows]
    gate = None if images.gate is None else images.gate[choice.rows]
    # Of the classes and not of the outcomes: a label names a class.
    probabilities = softmax(policy.calibrated(logits))
    sizes = np.bincount(images.groups)

    for number, (row, answer) in enumerate(
        zip(choice.rows.tolist(), policy.decide(logits, gate).tolist(), strict=True)
    ):
        best = int(probabilities[number].argmax())
        yield [
            number + 1,
            images.names[row],
            "deferred" if choice.deferred[number] else "uncertain",
            answer,
            policy.class_names[best],
            f"{probabilities[number, best]:.6f}",
            int(sizes[images.groups[row]]) - 1,
        ]


def _tasks(
    config: SelectForLabellingConfig, rows: list[list[Any]], digest: str
) -> list[dict[str, Any]]:
    """Return the import document of Label Studio."""
    address = address_of(config.images, config.image_address)
    return [
        task(address, path, predicted, float(probability), digest[:12])
        for _, path, _, _, predicted, probability, _ in rows
    ]


if __name__ == "__main__":
    main(run, SelectForLabellingConfig)
