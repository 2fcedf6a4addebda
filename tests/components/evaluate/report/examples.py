"""Predictions and report data of random models, binary and of any number of classes."""

import numpy as np

from components.evaluate.inputs import FittedPolicy
from components.evaluate.policies import predict
from components.evaluate.report.per_class import measure_classes
from components.evaluate.report.report import HardExample, PolicyResult, ReportData
from components.evaluate.report.scorecard import measure
from components.evaluate.targets import Targets
from components.shared.contracts.artifacts import Manifest
from components.shared.contracts.outcomes import Outcomes
from components.shared.data.val_test_images import encode_thumbnail
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Policy, argmax_policy, softmax_policy
from components.shared.policies.predictions import Predictions
from components.shared.stats.miscalibration import calibration_p_value

TARGETS = Targets(0.95, 0.05)
ROADWORK = Outcomes.of(("None", "Roadwork"))


def class_logits(
    class_names: tuple[str, ...], n: int = 300, seed: int = 0, signal: float = 2.5
) -> Logits:
    """Logits that favour the true class by `signal`; three images of a place, at least one each.

    The softmax of the logits is calibrated where `signal` is 2.5 or less and noise is normal.
    """
    rng, n_classes = np.random.default_rng(seed), len(class_names)
    labels = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n - n_classes)])
    logits = rng.normal(0, 1, (n, n_classes)) + signal * np.eye(n_classes)[labels]
    ids = tuple(f"{row:016x}" for row in range(n))
    return Logits(
        split="VAL_TEST",
        class_names=class_names,
        sample_ids=ids,
        labels=labels.astype(np.int64),
        logits=logits.astype(np.float32),
        groups=tuple(f"g{row // 3}" for row in range(n)),
        sources=ids,
        paths=ids,
    )


def class_predictions(
    outcomes: Outcomes, n: int = 300, seed: int = 0, signal: float = 2.5
) -> tuple[Policy, Predictions]:
    """The most probable outcome of `class_logits`."""
    policy = argmax_policy(outcomes)
    return policy, predict(
        FittedPolicy(class_logits(outcomes.class_names, n, seed, signal), policy)
    )


def predictions(n: int = 300, seed: int = 0, noise: float = 1.5) -> Predictions:
    """Of a binary policy with the threshold 0.5 on the margin."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.4
    margin = np.where(truth, 1.5, -1.5) + rng.normal(0, noise, n)
    return binary(truth, margin, 0.5, tuple(f"g{row // 3}" for row in range(n)))


def binary(
    truth: np.ndarray, margin: np.ndarray, threshold: float, groups: tuple[str, ...]
) -> Predictions:
    ids = tuple(f"{row:016x}" for row in range(len(truth)))
    logits = Logits(
        split="VAL_TEST",
        class_names=ROADWORK.class_names,
        sample_ids=ids,
        labels=truth.astype(np.int64),
        logits=np.column_stack([np.zeros(len(truth)), margin]).astype(np.float32),
        groups=groups,
        sources=ids,
        paths=ids,
    )
    return predict(FittedPolicy(logits, softmax_policy(ROADWORK, threshold)))


def result(shown: Predictions, policy: Policy | None = None) -> PolicyResult:
    return PolicyResult(
        policy=policy or softmax_policy(shown.outcomes, 0.5),
        predictions=shown,
        metrics=measure(shown, targets=TARGETS, n_replicates=100, seed=0),
        classes=measure_classes(shown, 100, 0),
        calibration_p_value=calibration_p_value(*shown.forecast, shown.groups, 100, 0),
    )


def hard_example(outcomes: Outcomes = ROADWORK) -> HardExample:
    return HardExample(
        sample_id="id1",
        source="a",
        path="drive/7.jpg",
        group="drive",
        label=outcomes.names[-1],
        decision=outcomes.names[0],
        probability=0.9787,
        probability_of_label=0.0213,
        confidence=3.83,
        error="missed",
        thumbnail=encode_thumbnail(
            np.tile(np.arange(224, dtype=np.uint8)[:, None, None], (1, 224, 3))
        ),
    )


def report_data(shown: Predictions | None = None, policy: Policy | None = None) -> ReportData:
    manifest = Manifest("ImageDataset", "ingest_dataset", "0123456789abcdef", {}, "", {}, {})
    shown = shown or predictions()
    return ReportData(
        policies={"softmax": result(shown, policy)},
        hard=[hard_example(shown.outcomes)],
        counts={
            "n_samples": 900,
            "n_per_class": {"None": 800, "Roadwork": 100},
            "sources": ["a", "b"],
            "labels": [{"source": "a", "label": "-1", "class": "exclude", "count": 3}],
        },
        lineage={"dataset": manifest},
        targets=TARGETS,
        n_bootstrap=100,
    )
