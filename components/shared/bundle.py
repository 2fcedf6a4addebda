"""What does a deployed bundle answer for an image?"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForImageClassification

from components.shared.artifacts import sha256_file, verify_dir
from components.shared.data.decode import decode, resize
from components.shared.errors import ArtifactError
from components.shared.evaluation.policy import Policy, parse_policy
from components.shared.models.classifier import Classifier, ClassifierSpec, normalise

KIND = "Bundle"


@dataclass(frozen=True)
class Answer:
    """decision: "roadwork" or "none"; probability: P(positive) before the threshold was folded in, in [0, 1]."""

    decision: str
    probability: float


class Predictor:
    """An opened, verified bundle. The stored model carries the threshold; the policy gives it back."""

    def __init__(self, path: Path) -> None:
        """Raises ArtifactError listing every difference from manifest or bundle.json."""
        verify_dir(path, KIND)
        document = json.loads((path / "bundle.json").read_text(encoding="utf-8"))
        wrong = [name for name, digest in document["files"].items() if sha256_file(path / name) != digest]
        if wrong:
            raise ArtifactError(f"{path}: files differ from bundle.json: {', '.join(wrong)}")
        text = (path / document["policy"]).read_text(encoding="utf-8")
        self.policy: Policy = parse_policy(json.loads(text), f"{path}/{document['policy']}")
        folder = path / document["model"]
        if document["stock_pipeline"]:
            self._model = AutoModelForImageClassification.from_pretrained(folder).eval()
            self._spec = _stock_spec(folder, self.policy)
        else:
            self._model = Classifier.load(folder)
            self._spec = self._model.spec

    def __call__(self, data: bytes, name: str) -> Answer:
        """Answer for one encoded image; raises ImageRejectedError where it cannot be decoded."""
        size = self._spec.image_size
        image = resize(decode(data, name=name, target_size=size), size)
        with torch.no_grad():
            output = self._model(normalise(torch.from_numpy(image.copy())[None], self._spec))
        folded = self.policy.margin(getattr(output, "logits", output).numpy())
        probability = torch.sigmoid(torch.tensor(float(folded[0]) + self.policy.threshold_margin, dtype=torch.float64))
        return Answer("roadwork" if folded[0] > 0 else "none", float(probability))


def _stock_spec(folder: Path, policy: Policy) -> ClassifierSpec:
    processor = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    mean, std = tuple(processor["image_mean"]), tuple(processor["image_std"])
    return ClassifierSpec(policy.class_names, processor["size"]["height"], mean, std, "stock")
