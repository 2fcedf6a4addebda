"""The phases with a configuration, in the pipeline's order, and the classes of their options."""

from dataclasses import fields

from components.audit_labels.config import AuditLabelsConfig
from components.calibrate_gate.config import CalibrateGateConfig
from components.calibrate_scrc.config import CalibrateScrcConfig
from components.compare_adaptations.config import CompareAdaptationsConfig
from components.compare_calibrators.config import CompareCalibratorsConfig
from components.evaluate.config import EvaluateConfig
from components.export_bundle.config import ExportConfig
from components.extract_features.config import ExtractFeaturesConfig
from components.fit_threshold.config import FitThresholdConfig
from components.import_backbone.config import ImportBackboneConfig
from components.ingest_dataset.config import IngestConfig
from components.predict_logits.config import PredictLogitsConfig
from components.pretrain_explora.config import PretrainExploraConfig
from components.promote_bundle.config import PromoteConfig
from components.shared.contracts.config import Config
from components.shared.contracts.environment import Variable
from components.shared.contracts.options import LaunchConfig
from components.split_dataset.config import SplitConfig
from components.train_baseline.config import TrainBaselineConfig
from components.train_gate.config import TrainGateConfig
from components.tune_head.config import TuneHeadConfig
from components.tune_training.config import TuneTrainingConfig

PHASES: dict[str, type[Config]] = {
    "ingest_dataset": IngestConfig,
    "split_dataset": SplitConfig,
    "import_backbone": ImportBackboneConfig,
    "pretrain_explora": PretrainExploraConfig,
    "extract_features": ExtractFeaturesConfig,
    "audit_labels": AuditLabelsConfig,
    "train_baseline": TrainBaselineConfig,
    "compare_adaptations": CompareAdaptationsConfig,
    "predict_logits": PredictLogitsConfig,
    "train_gate": TrainGateConfig,
    "compare_calibrators": CompareCalibratorsConfig,
    "fit_threshold": FitThresholdConfig,
    "calibrate_gate": CalibrateGateConfig,
    "calibrate_scrc": CalibrateScrcConfig,
    "evaluate": EvaluateConfig,
    "export_bundle": ExportConfig,
    "promote_bundle": PromoteConfig,
    "tune_head": TuneHeadConfig,
    "tune_training": TuneTrainingConfig,
}
# Phases that only some pipelines have, and the flag that compiles them in.
OPTIONAL = {
    "pretrain_explora": "--pretrain unlabelled",
    "compare_adaptations": "--modes full,lora",
    "promote_bundle": "--pipeline continuous",
    "audit_labels": "--audit-labels",
}
# Options that no user sets: fingerprints of the sources, and choices of the compiled pipeline.
SET_BY_PIPELINE = {
    "source_fingerprint": "is computed from the data",
    "backbone_fingerprint": "is computed from the backbone",
    "stage2_fingerprint": "is computed from stage2_logits",
    "lineage_request": "is computed from the data and the options",
    "lineage_previous": "is read from the lineage's record",
    "attempt": "is counted by the pipeline",
    "trusted_keys": f"is computed from {Variable.TRUSTED_KEYS}",
    "champion": "is read from the registry",
    "use_labeled_data": "is chosen when the pipeline is compiled: --pretrain labelled",
    "modes": "is chosen when the pipeline is compiled: --modes full,lora",
    "formats": "is chosen when the pipeline is compiled: --formats transformers",
    "needed": "follows from the mode",
    "training": "is that of train_baseline",
}
# Options of the extraction that are those of the training which reads the features.
FEATURE_OPTIONS = sorted(
    {field.name for field in fields(ExtractFeaturesConfig)}
    & {field.name for field in fields(TrainBaselineConfig)}
    - {field.name for field in fields(LaunchConfig)}
)


def not_settable(phase: str, option: str) -> str:
    """Return why no user sets an option of a phase, as a predicate; empty where users do.

    The bare name of an option that is the training's sets both.
    """
    if phase == "extract_features" and option in FEATURE_OPTIONS:
        return f"is that of train_baseline: set train_baseline.{option}"
    return SET_BY_PIPELINE.get(option, "")
