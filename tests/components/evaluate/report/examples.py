"""Predictions and report data of a random model."""

import numpy as np

from components.evaluate.report.report import HardExample, PolicyResult, ReportData
from components.evaluate.report.scorecard import Predictions, measure
from components.evaluate.targets import Targets
from components.shared.contracts.artifacts import Manifest
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.policy import softmax_policy


def predictions(n: int = 300, seed: int = 0, noise: float = 1.5) -> Predictions:
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.4
    margin = np.where(truth, 1.5, -1.5) + rng.normal(0, noise, n)
    groups = tuple(f"g{row // 3}" for row in range(n))
    return Predictions(
        truth,
        margin > 0.5,
        margin,
        np.abs(margin - 0.5),
        groups,
        np.ones(n, bool),
        np.zeros(n, bool),
    )


def result(shown: Predictions, positive: str = "Roadwork") -> PolicyResult:
    policy = softmax_policy(Outcomes.of(("None", positive), "binary", positive), 0.5)
    return PolicyResult(
        policy, shown, measure(shown, targets=Targets(0.95, 0.05), n_replicates=100, seed=0)
    )


def report_data(shown: Predictions | None = None) -> ReportData:
    image = np.tile(np.arange(224, dtype=np.uint8)[:, None, None], (1, 224, 3))
    manifest = Manifest("ImageDataset", "ingest_dataset", "0123456789abcdef", {}, "", {}, {})
    return ReportData(
        class_names=("None", "Roadwork"),
        policies={"softmax": result(shown or predictions())},
        hard=[
            HardExample(
                sample_id="id1",
                source="a",
                path="drive/7.jpg",
                group="drive",
                label="Roadwork",
                decision="None",
                probability=0.0213,
                margin=-3.83,
                missed=True,
                image=image,
            )
        ],
        counts={
            "n_samples": 900,
            "n_per_class": {"None": 800, "Roadwork": 100},
            "sources": ["a", "b"],
        },
        lineage={"dataset": manifest},
        targets=Targets(0.95, 0.05),
        n_bootstrap=100,
    )
