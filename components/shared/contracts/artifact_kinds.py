"""All kinds of artifact: name in the manifest, KFP type, data split, content and reader.

`components/artifact_types.py` makes one KFP type of every kind that travels between phases;
docs/reference/artifacts.md is rendered from this table. Each member is the kind's name, so that
`verify_dir(path, Kind.CHECKPOINT)` works.
"""

from enum import StrEnum
from typing import Self


class Kind(StrEnum):
    """Name of a kind of artifact, with what it is.

    `data_split`: the split that every artifact of the kind belongs to, None for no split;
    `content`: what it holds; `readers`: the phases that take it as an input, or others in words.
    """

    data_split: str | None
    content: str
    readers: tuple[str, ...]

    def __new__(cls, name: str, data_split: str | None, content: str, *readers: str) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.data_split, member.content, member.readers = data_split, content, readers
        return member

    IMAGE_DATASET = (
        "ImageDataset",
        None,
        "Checked, deduplicated, resized images in shards, with their labels.",
        "split_dataset",
        "extract_features",
        "audit_labels",
        "train_baseline",
        "tune_training",
        "train_gate",
        "predict_logits",
        "export_bundle",
        "promote_bundle",
    )
    IMAGE_PART = (
        "ImagePart",
        None,
        "Checked images of one part of the listing, before duplicates are looked for.",
        "ingest_dataset",
    )
    SPLITS = (
        "Splits",
        None,
        "Assignment of every sample to TRAIN, VAL_SELECT, VAL_CALIB or VAL_TEST.",
        "extract_features",
        "train_baseline",
        "tune_training",
        "train_gate",
        "predict_logits",
        "export_bundle",
        "promote_bundle",
    )
    TRAIN_IMAGES = (
        "TrainImages",
        "TRAIN",
        "Pixels of TRAIN and nothing else: all that a phase without labels may read.",
        "pretrain_explora",
    )
    TRAIN_LABELS = (
        "TrainLabels",
        "TRAIN",
        "Labels of the images in `TrainImages`. A separate type, so that a component that uses"
        " labels must declare it.",
        "pretrain_explora",
    )
    BACKBONE = (
        "Backbone",
        None,
        "A pretrained vision backbone: a Hugging Face folder in safetensors.",
        "pretrain_explora",
        "extract_features",
        "train_baseline",
        "tune_training",
    )
    TRAIN_FEATURES = (
        "TrainFeatures",
        "TRAIN",
        "Features of TRAIN's images under several augmentations, in float16, and labels: what heads"
        " on a frozen backbone learn from. Empty where the backbone is trained.",
        "audit_labels",
        "train_baseline",
        "train_gate",
        "tune_head",
    )
    VAL_SELECT_FEATURES = (
        "ValSelectFeatures",
        "VAL_SELECT",
        "Features of VAL_SELECT's images, in float16, and labels, by which the epoch is"
        " selected. Empty where the backbone is trained.",
        "audit_labels",
        "train_baseline",
        "train_gate",
        "tune_head",
    )
    LABEL_AUDIT = (
        "LabelAudit",
        None,
        "Labels of TRAIN and VAL_SELECT that may be wrong, outliers, near-duplicates and clusters"
        " that fit badly, with a gallery; nothing is changed by it.",
        "a person",
    )
    CHECKPOINT = (
        "Checkpoint",
        None,
        "Backbone and classification head, adapters merged; or a gate on top of them.",
        "compare_adaptations",
        "train_gate",
        "predict_logits",
        "export_bundle",
    )
    VAL_SELECT_LOGITS = (
        "ValSelectLogits",
        "VAL_SELECT",
        "Logits on VAL_SELECT, by which models are selected.",
        "compare_adaptations",
    )
    VAL_CALIB_LOGITS = (
        "ValCalibLogits",
        "VAL_CALIB",
        "Logits on VAL_CALIB, on which policies are fitted.",
        "compare_calibrators",
        "fit_threshold",
        "calibrate_gate",
        "calibrate_scrc",
    )
    VAL_TEST_LOGITS = (
        "ValTestLogits",
        "VAL_TEST",
        "Logits on VAL_TEST, which only the final evaluation may read.",
        "evaluate",
        "promote_bundle",
    )
    VAL_TEST_IMAGES = (
        "ValTestImages",
        "VAL_TEST",
        "Thumbnails of VAL_TEST for the report, and a few images on which the bundle is checked.",
        "evaluate",
        "export_bundle",
    )
    VAL_CALIB_REFERENCE = (
        "ValCalibReference",
        "VAL_CALIB",
        "Features and logits of one image of each group of VAL_CALIB, and features of images of"
        " TRAIN: what new images are compared with.",
        "export_bundle",
    )
    COMPARISON = (
        "Comparison",
        None,
        "Metrics of the backbone's adaptations on VAL_SELECT, with paired intervals.",
        "a person",
    )
    TUNING = (
        "Tuning",
        None,
        "The best options of a search as a recipe, its trials, and what the maximum overstates.",
        "a person",
    )
    CALIBRATION = (
        "Calibration",
        None,
        "A calibrator fitted on VAL_CALIB, and the comparison that selected it.",
        "fit_threshold",
    )
    POLICY = (
        "Policy",
        None,
        "A fitted exit policy.",
        "evaluate",
        "export_bundle",
    )
    EVALUATION = (
        "Evaluation",
        None,
        "Metrics with intervals, confusion matrix and hard examples on VAL_TEST.",
        "export_bundle",
        "promote_bundle",
    )
    BUNDLE = (
        "Bundle",
        None,
        "The deployable model directory with exactly one policy.",
        "promote_bundle",
        "score_images",
        "serving",
    )
    PROMOTION = (
        "Promotion",
        None,
        "The decision on a bundle: numbers, intervals, guards, and its record in the registry.",
        "a person",
    )
    DRIFT = (
        "Drift",
        None,
        "Comparison of new images with a bundle's drift reference: the decision, what explains it,"
        " and the images that drove it.",
        "a person",
    )
    LABELLING_TASKS = (
        "LabellingTasks",
        None,
        "New images that are worth a label: a table, and tasks of Label Studio with the bundle's"
        " answers.",
        "a person",
    )
    SCORES = (
        "Scores",
        None,
        "A bundle's answers to many images as one Parquet table; or to some, between two attempts.",
        "a person",
    )
    TRAINING_STATE = (
        "TrainingState",
        None,
        "Weights, optimizer, schedule and random states of a training between two steps, or one"
        " shard of the features of an extraction.",
        "the next attempt of the same training or extraction",
    )

    NODE_RESULTS = (
        "NodeResults",
        None,
        "What the processes of a training on several nodes leave for its step.",
        "the step that started them",
    )

    @property
    def schema_title(self) -> str:
        """Name of the kind's KFP type; KFP accepts custom types only under `system.`."""
        return f"system.{self}"

    @classmethod
    def logits_of(cls, split: str) -> "Kind":
        """Return the kind of a split's logits; raises KeyError where the split has none."""
        return {kind.data_split: kind for kind in _LOGITS}[split]

    @classmethod
    def features_of(cls, split: str) -> "Kind":
        """Return the kind of a split's features; raises KeyError where the split has none."""
        return {kind.data_split: kind for kind in _FEATURES}[split]


_FEATURES = (Kind.TRAIN_FEATURES, Kind.VAL_SELECT_FEATURES)
_LOGITS = (Kind.VAL_SELECT_LOGITS, Kind.VAL_CALIB_LOGITS, Kind.VAL_TEST_LOGITS)
