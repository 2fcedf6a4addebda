r"""Prediction sets for a batch of images, each calibrated jointly with VAL_CALIB (SCRC-T).

python -m components.shared.serving.score_batch VAL_CALIB_LOGITS BATCH_LOGITS \
    --alpha 0.1 --coverage 0.8
"""

import argparse
from pathlib import Path
from typing import Any

from components.shared.contracts.artifacts import read_manifest
from components.shared.contracts.errors import (
    ConfigError,
    DataError,
    InfeasibleError,
    StreetVisionError,
)
from components.shared.contracts.listing import say_json
from components.shared.contracts.step import fail
from components.shared.policies.calibration_split import one_per_group
from components.shared.policies.logits import Logits, read_logits
from components.shared.policies.scrc import scrc_joint
from components.shared.stats.metrics import softmax

_EPILOG = """\
example:
  python -m components.shared.serving.score_batch \\
      runs/.../val_calib_logits runs/.../val_test_logits --alpha 0.1 --coverage 0.8
  {"sample_id": "3f…", "accepted": true, "prediction_set": ["Roadwork"]}
  {"sample_id": "8c…", "accepted": false, "prediction_set": []}

Among accepted images, the set lacks the true class with a probability of at most alpha, averaged
over calibration sets and images (arXiv 2512.12844, theorem 2). One image of each group of VAL_CALIB
is used, because images of one place are not exchangeable. A bundle carries the inductive form,
which needs no calibration samples and holds for one calibration set with probability 1 - delta: see
calibrate_scrc.
"""


def score(
    calibration: Logits, batch: Logits, *, coverage: float, alpha: float, seed: int
) -> list[dict[str, Any]]:
    """Return one document per image of `batch`, in its order.

    A document has sample_id, accepted and prediction_set (class names). Raises ConfigError for
    levels outside (0, 1), DataError where the class names differ, InfeasibleError where alpha < 1 /
    (m + 1) for the m selected calibration samples.
    """
    for name, value in (("alpha", alpha), ("coverage", coverage)):
        if not 0 < value < 1:
            raise ConfigError(f"{name}={value:g} must lie between 0 and 1")

    if calibration.class_names != batch.class_names:
        raise DataError(
            f"class_names are {list(calibration.class_names)} and {list(batch.class_names)}: of two"
            " models"
        )

    rows = one_per_group(calibration.groups, seed)
    of_calibration, of_batch = softmax(calibration.logits[rows]), softmax(batch.logits)
    confidence, labels = of_calibration.max(axis=1), calibration.labels[rows]

    documents: list[dict[str, Any]] = []

    for sample_id, probabilities in zip(batch.sample_ids, of_batch, strict=True):
        found = scrc_joint(
            confidence,
            of_calibration,
            labels,
            float(probabilities.max()),
            probabilities,
            coverage=coverage,
            alpha=alpha,
        )
        if found.lambda_set is None:
            raise InfeasibleError(
                f"alpha={alpha:g} is below 1 / {found.n_selected + 1}, the least that"
                f" {found.n_selected} selected groups of VAL_CALIB can show; raise alpha or"
                " coverage, or use more data"
            )

        members = [batch.class_names[k] for k in found.prediction_set]
        documents.append(
            {"sample_id": sample_id, "accepted": found.accepted, "prediction_set": members}
        )

    return documents


def main() -> None:
    """Print one JSON line per image."""
    parser = argparse.ArgumentParser(
        prog="python -m components.shared.serving.score_batch",
        description=(
            "Prediction sets for a batch of saved logits, each image jointly with VAL_CALIB"
            " (SCRC-T)."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    parser.add_argument("calibration", type=Path, help="ValCalibLogits artifact")
    parser.add_argument("batch", type=Path, help="logits artifact of any split but TRAIN")
    parser.add_argument(
        "--alpha", type=float, default=0.1, help="most miscoverage among accepted (default: 0.1)"
    )
    parser.add_argument(
        "--coverage",
        type=float,
        default=0.8,
        help="fraction of images that is accepted (default: 0.8)",
    )

    parser.add_argument(
        "--seed", type=int, default=0, help="draws the image of each group (default: 0)"
    )
    options = parser.parse_args()
    try:
        calibration, _ = read_logits(options.calibration, "VAL_CALIB")
        batch, _ = read_logits(options.batch, read_manifest(options.batch).split or "")
        found = score(
            calibration, batch, coverage=options.coverage, alpha=options.alpha, seed=options.seed
        )
    except StreetVisionError as error:
        fail(error)

    for document in found:
        say_json(document)


if __name__ == "__main__":
    main()
