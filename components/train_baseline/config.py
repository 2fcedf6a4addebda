"""Options of the training of the classifier."""

from dataclasses import dataclass

from components.shared.training.classifier.config import ClassifierConfig


@dataclass(frozen=True, kw_only=True)
class TrainBaselineConfig(ClassifierConfig):
    """Hyper-parameters of the classifier. Defaults are the safe ones: fp32, frozen backbone."""
