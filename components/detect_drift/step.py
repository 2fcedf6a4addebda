"""Comparison of new images with the drift reference of a bundle.

The images are below an address and have no labels. The bundle's own predictor computes their
features, as it does for users. Drift is an answer and no failure: the step succeeds, and writes the
decision into drift.json, the report, and the metric `drift`.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.detect_drift.comparison import Comparison, compare
from components.detect_drift.config import DetectDriftConfig
from components.detect_drift.new_images import FEWEST_GROUPS, NewImages, read_new_images
from components.detect_drift.page import DrivingImage, PageData, render
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import read_manifest, write_json, writing
from components.shared.contracts.errors import ArtifactError, ConfigError, DataError
from components.shared.contracts.listing import say
from components.shared.contracts.progress import progress
from components.shared.contracts.step import OutputDir, OutputFile, main
from components.shared.contracts.tables import write_table
from components.shared.data.drift_reference import DriftReference, as_half
from components.shared.data.val_test_images import encode_thumbnail
from components.shared.serving.bundle import REFERENCE, Bundle
from components.shared.serving.chosen_bundle import chosen_bundle
from components.shared.serving.new_images import BATCH, shown_rejects
from components.shared.vision.reference_image import reference_image

STEP = "detect_drift"
# Of features relative to the largest: rounding to float16 is 5e-4, another backbone is far off.
_TOLERANCE = 0.02
_COLUMNS = ("path", "images_in_group", "score", "margin", "support_quantile", "outside_support")


@dataclass(frozen=True)
class Result:
    """What a caller wants to know.

    Attributes:
        is_drift: the decision.
        document: of drift.json.
        metrics: scalars for the KFP UI.
    """

    is_drift: bool
    document: dict[str, Any]
    metrics: dict[str, float]


def run(config: DetectDriftConfig, *, drift: OutputDir, report: OutputFile | None = None) -> Result:
    """Compare the images of `config.images` with the reference of `config.reference`.

    Args:
        config: The step's configuration.
        drift: drift.json, the tested images as a table, and the report.
        report: The report again, for KFP's interface.

    Raises:
        ConfigError: no images are named, or no bundle.
        DataError: the address holds no images, or too few groups of them.
        ArtifactError: the bundle has no drift reference, or one of another backbone.
    """
    if not config.images:
        raise ConfigError("images is not set; give a folder or s3://bucket/prefix of new images")

    with tempfile.TemporaryDirectory(prefix="streetvision-drift-") as folder:
        bundle = chosen_bundle(
            config.reference, config.bundle_registry, Path(folder), option="reference"
        )
        reference = _reference_of(bundle)
        images = read_new_images(config, bundle.spec.image_size)
        features, logits = _embedded(bundle, reference, images)
        manifest = read_manifest(bundle.path)

        found = compare(
            reference,
            bundle.policy,
            as_half(features),
            logits,
            false_alarm_rate=config.false_alarm_rate,
            n_permutations=config.n_permutations,
            seed=config.seed,
        )

    document = _document(config, manifest.content_digest, reference, images, found)
    with writing(
        drift, kind=Kind.DRIFT, step=STEP, config=config, inputs={"bundle": manifest}
    ) as out:
        write_json(out / "drift.json", document)
        write_table(out / "images.csv", _COLUMNS, _rows(images, found), for_people=True)
        page = render(_page_data(config, document, images, found))
        (out / "report.html").write_text(page, encoding="utf-8")

    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(drift / "report.html", report)

    say(verdict(document))
    return Result(found.is_drift, document, _metrics(found))


def verdict(document: dict[str, Any]) -> str:
    """Return the decision in one line."""
    test = document["classifier"]
    return (
        f"{'drift' if document['drift'] else 'no drift'}: a classifier tells"
        f" {document['n_compared']} new from {document['n_reference']} reference groups with AUROC"
        f" {test['auroc']:.3f}, p = {test['p_value']:.4f}; it alarms at p <="
        f" {document['false_alarm_rate']:g}"
    )


def _reference_of(bundle: Bundle) -> DriftReference:
    reference = bundle.drift_reference()
    if len(reference.features) < FEWEST_GROUPS:
        raise ArtifactError(
            f"{bundle.place(REFERENCE)}: has {len(reference.features)} groups of VAL_CALIB, a test"
            f" needs at least {FEWEST_GROUPS}; use data of more groups or a larger calib_fraction"
        )
    return reference


def _embedded(
    bundle: Bundle, reference: DriftReference, images: NewImages
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Return features (n, 2h) and logits (n, C) of the new images, from the bundle's predictor."""
    # Seconds of imports, which a refused address need not wait for.
    from components.shared.serving.predictor import Predictor

    predictor = Predictor(bundle)
    probe = predictor.embedded(reference_image(bundle.spec.image_size))[0][0]
    _check_probe(bundle, reference, probe)

    starts = range(0, len(images.names), BATCH)
    found = []
    for start in progress(starts, "features of new images", total=len(starts)):
        rows = range(start, min(start + BATCH, len(images.names)))
        found.append(predictor.embedded(images.pixels(rows))[:2])
    features, logits = (np.concatenate(parts) for parts in zip(*found, strict=True))

    if not (np.isfinite(features).all() and np.isfinite(logits).all()):
        raise DataError(f"{bundle.path}: features of the new images are not finite")
    return features, logits


def _check_probe(bundle: Bundle, reference: DriftReference, probe: npt.NDArray[np.float32]) -> None:
    """Raise ArtifactError where another backbone has computed the reference."""
    expected = reference.probe.astype(np.float32)
    if len(expected) != len(probe):
        raise ArtifactError(
            f"{bundle.place(REFERENCE)}: has {len(expected)} features of an image, the model"
            f" {len(probe)}; another backbone computed the reference"
        )
    error = float(np.abs(expected - probe).max() / max(float(np.abs(expected).max()), 1e-6))
    if not error <= _TOLERANCE:  # also for NaN
        raise ArtifactError(
            f"{bundle.place(REFERENCE)}: features of the reference image differ by {error:.3g} of"
            f" the largest (> {_TOLERANCE}) from the model's; another backbone computed the"
            " reference"
        )


def _document(
    config: DetectDriftConfig,
    digest: str,
    reference: DriftReference,
    images: NewImages,
    found: Comparison,
) -> dict[str, Any]:
    """Return drift.json."""
    return found.to_json() | {
        "unit": config.unit,
        "n_permutations": config.n_permutations,
        "n_listed": images.n_listed,
        "n_read": images.n_read,
        "n_rejected": len(images.rejected),
        "n_groups": images.n_groups,
        "n_compared": len(images.names),
        "n_reference": len(reference.features),
        "n_reference_groups": reference.n_groups,
        "n_support": len(reference.support),
        "bundle": digest,
        "driving_images": [
            {"path": images.names[row], "score": float(found.scores[row])}
            for row in found.driving(config.n_shown)
        ],
        "rejected": shown_rejects(images.rejected),
    }


def _rows(images: NewImages, found: Comparison) -> list[list[object]]:
    """Return the rows of images.csv, the least like the reference first."""
    return [
        [
            images.names[row],
            images.group_sizes[row],
            f"{found.scores[row]:.6f}",
            f"{found.new_margins[row]:.6f}",
            f"{found.support.quantile[row]:.6f}",
            str(bool(found.support.outside[row])).lower(),
        ]
        for row in found.driving(len(images.names))
    ]


def _page_data(
    config: DetectDriftConfig, document: dict[str, Any], images: NewImages, found: Comparison
) -> PageData:
    return PageData(
        document=document,
        verdict=verdict(document),
        images=[
            DrivingImage(
                path=images.names[row],
                score=float(found.scores[row]),
                margin=float(found.new_margins[row]),
                quantile=float(found.support.quantile[row]),
                thumbnail=encode_thumbnail(images.pixels([row])[0]),
            )
            for row in found.driving(config.n_shown)
        ],
    )


def _metrics(found: Comparison) -> dict[str, float]:
    return {
        "drift": float(found.is_drift),
        "p_value": found.classifier.p_value,
        "auroc_old_against_new": found.classifier.statistic,
        "outside_support": found.support.share,
    }


if __name__ == "__main__":
    main(run, DetectDriftConfig)
