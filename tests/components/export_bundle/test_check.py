"""The check of stored files: it passes what was exported and refuses everything else."""

from pathlib import Path

import numpy as np
import pytest
import torch

from components.export_bundle.check import check_decisions, check_logits, check_stock
from components.export_bundle.fuse_head import fuse_into_head, write_model
from components.shared.contracts.errors import PermanentError
from components.shared.contracts.outcomes import Outcomes
from components.shared.models.classifier import Classifier, normalise
from components.shared.policies.logit_affine import logit_affine_of
from components.shared.policies.policy import softmax_policy
from components.shared.serving.bundle import open_bundle
from tests.bundles import make_inputs, noise, random_classifier

NAMES = ("None", "Roadwork")
POLICY = softmax_policy(Outcomes.of(NAMES, "binary", "Roadwork"), 0.7)


def test_logits_of_the_checkpoint_pass_and_others_do_not(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, policy=POLICY)
    bundle = open_bundle(inputs.export(tmp_path / "bundle"))
    classifier, pixels = Classifier.load(tmp_path / "checkpoint"), noise(4)
    with torch.inference_mode():
        logits = classifier(normalise(torch.from_numpy(pixels), classifier.spec)).numpy()
    check_logits(bundle, pixels, logits)
    with pytest.raises(PermanentError, match="differs from the checkpoint by"):
        check_logits(bundle, pixels, logits + np.float32(0.01) * (1 + np.abs(logits)))
    logits[0, 0] = np.nan
    with pytest.raises(PermanentError, match="not finite"):
        check_logits(bundle, pixels, logits)


@pytest.mark.parametrize(
    "outcomes",
    [
        Outcomes.of(NAMES),
        Outcomes.of(("Pothole", "crack", "plain"), "binary", "Pothole"),
        Outcomes.of(("stop", "yield", "bus", "priority", "speed")),
    ],
    ids=lambda outcomes: f"{len(outcomes.class_names)} classes, {outcomes.task}",
)
def test_a_stock_model_that_decides_otherwise_is_refused(
    outcomes: Outcomes, tmp_path: Path
) -> None:
    policy = softmax_policy(outcomes, 0.7)
    inputs = make_inputs(tmp_path, policy=policy)
    bundle, pixels = open_bundle(inputs.export(tmp_path / "bundle")), noise(16)
    logits = inputs.logits(pixels).astype(np.float32)
    check_decisions(bundle, pixels, logits)
    with pytest.raises(PermanentError, match=r"decides \d+ of 16 images of the dataset unlike"):
        check_decisions(bundle, pixels, -logits)


def test_a_stock_model_passes_only_beside_its_own_fused_classifier(tmp_path: Path) -> None:
    classifier = random_classifier("dinov2", NAMES)
    write_model(classifier, POLICY, tmp_path / "stock")
    check_stock(tmp_path / "stock", classifier, noise(4), POLICY.outcomes)
    fuse_into_head(classifier.head.linear, logit_affine_of(POLICY))
    with pytest.raises(PermanentError, match="exported distilled head differs from the checkpoint"):
        check_stock(tmp_path / "stock", classifier, noise(4), POLICY.outcomes)
