"""KFP types of the artifacts that flow between the phases, one for each kind of the table.

One KFP type per kind, and per data split for everything that carries predictions, so that the KFP
compiler refuses a pipeline that wires VAL_TEST logits into a fitting step
(InconsistentTypeException). Content and readers of each:
components/shared/contracts/artifact_kinds.py.
"""

from kfp import dsl

from components.shared.contracts.artifact_kinds import Kind


class ImageDataset(dsl.Artifact):
    __doc__ = Kind.IMAGE_DATASET.content
    schema_title = Kind.IMAGE_DATASET.schema_title


class ImagePart(dsl.Artifact):
    __doc__ = Kind.IMAGE_PART.content
    schema_title = Kind.IMAGE_PART.schema_title


class Splits(dsl.Artifact):
    __doc__ = Kind.SPLITS.content
    schema_title = Kind.SPLITS.schema_title


class TrainImages(dsl.Artifact):
    __doc__ = Kind.TRAIN_IMAGES.content
    schema_title = Kind.TRAIN_IMAGES.schema_title


class TrainLabels(dsl.Artifact):
    __doc__ = Kind.TRAIN_LABELS.content
    schema_title = Kind.TRAIN_LABELS.schema_title


class Backbone(dsl.Artifact):
    __doc__ = Kind.BACKBONE.content
    schema_title = Kind.BACKBONE.schema_title


class TrainFeatures(dsl.Artifact):
    __doc__ = Kind.TRAIN_FEATURES.content
    schema_title = Kind.TRAIN_FEATURES.schema_title


class ValSelectFeatures(dsl.Artifact):
    __doc__ = Kind.VAL_SELECT_FEATURES.content
    schema_title = Kind.VAL_SELECT_FEATURES.schema_title


class LabelAudit(dsl.Artifact):
    __doc__ = Kind.LABEL_AUDIT.content
    schema_title = Kind.LABEL_AUDIT.schema_title


class Checkpoint(dsl.Artifact):
    __doc__ = Kind.CHECKPOINT.content
    schema_title = Kind.CHECKPOINT.schema_title


class ValSelectLogits(dsl.Artifact):
    __doc__ = Kind.VAL_SELECT_LOGITS.content
    schema_title = Kind.VAL_SELECT_LOGITS.schema_title


class ValCalibLogits(dsl.Artifact):
    __doc__ = Kind.VAL_CALIB_LOGITS.content
    schema_title = Kind.VAL_CALIB_LOGITS.schema_title


class ValTestLogits(dsl.Artifact):
    __doc__ = Kind.VAL_TEST_LOGITS.content
    schema_title = Kind.VAL_TEST_LOGITS.schema_title


class ValTestImages(dsl.Artifact):
    __doc__ = Kind.VAL_TEST_IMAGES.content
    schema_title = Kind.VAL_TEST_IMAGES.schema_title


class ValCalibReference(dsl.Artifact):
    __doc__ = Kind.VAL_CALIB_REFERENCE.content
    schema_title = Kind.VAL_CALIB_REFERENCE.schema_title


class Comparison(dsl.Artifact):
    __doc__ = Kind.COMPARISON.content
    schema_title = Kind.COMPARISON.schema_title


class Tuning(dsl.Artifact):
    __doc__ = Kind.TUNING.content
    schema_title = Kind.TUNING.schema_title


class Calibration(dsl.Artifact):
    __doc__ = Kind.CALIBRATION.content
    schema_title = Kind.CALIBRATION.schema_title


class Policy(dsl.Artifact):
    __doc__ = Kind.POLICY.content
    schema_title = Kind.POLICY.schema_title


class Evaluation(dsl.Artifact):
    __doc__ = Kind.EVALUATION.content
    schema_title = Kind.EVALUATION.schema_title


class Bundle(dsl.Artifact):
    __doc__ = Kind.BUNDLE.content
    schema_title = Kind.BUNDLE.schema_title


class Promotion(dsl.Artifact):
    __doc__ = Kind.PROMOTION.content
    schema_title = Kind.PROMOTION.schema_title


class Drift(dsl.Artifact):
    __doc__ = Kind.DRIFT.content
    schema_title = Kind.DRIFT.schema_title


class LabellingTasks(dsl.Artifact):
    __doc__ = Kind.LABELLING_TASKS.content
    schema_title = Kind.LABELLING_TASKS.schema_title


class Scores(dsl.Artifact):
    __doc__ = Kind.SCORES.content
    schema_title = Kind.SCORES.schema_title
