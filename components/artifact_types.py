"""Kinds of artifact that flow between the phases, as KFP types.

One KFP type per kind, and per data split for everything that carries predictions, so that the KFP
compiler refuses a pipeline that wires VAL_TEST logits into a fitting step
(InconsistentTypeException). KFP accepts custom types only under the `system.` namespace.
"""

from kfp import dsl


class ImageDataset(dsl.Artifact):
    """Checked, deduplicated, resized images in shards, with their labels."""

    schema_title = "system.ImageDataset"


class Splits(dsl.Artifact):
    """Assignment of every sample to TRAIN, VAL_SELECT, VAL_CALIB or VAL_TEST."""

    schema_title = "system.Splits"


class TrainImages(dsl.Artifact):
    """Pixels of TRAIN and nothing else: what may be seen without labels."""

    schema_title = "system.TrainImages"


class TrainLabels(dsl.Artifact):
    """Labels of the images in `TrainImages`. A separate type, so that a component that uses labels
    must declare it.
    """

    schema_title = "system.TrainLabels"


class Backbone(dsl.Artifact):
    """A pretrained vision backbone: a Hugging Face folder in safetensors."""

    schema_title = "system.Backbone"


class Checkpoint(dsl.Artifact):
    """Backbone and classification head, adapters merged."""

    schema_title = "system.Checkpoint"


class ValSelectLogits(dsl.Artifact):
    """Logits on VAL_SELECT: what models are chosen by."""

    schema_title = "system.ValSelectLogits"


class ValCalibLogits(dsl.Artifact):
    """Logits on VAL_CALIB: what policies may be fitted on."""

    schema_title = "system.ValCalibLogits"


class ValTestLogits(dsl.Artifact):
    """Logits on VAL_TEST: what only the final evaluation may see."""

    schema_title = "system.ValTestLogits"


class Comparison(dsl.Artifact):
    """How adaptations of the backbone compare on VAL_SELECT."""

    schema_title = "system.Comparison"


class Calibration(dsl.Artifact):
    """A calibrator fitted on VAL_CALIB, and the comparison it was chosen by."""

    schema_title = "system.Calibration"


class Policy(dsl.Artifact):
    """A fitted exit policy."""

    schema_title = "system.Policy"


class Evaluation(dsl.Artifact):
    """Metrics with intervals, confusion matrix and hard examples on VAL_TEST."""

    schema_title = "system.Evaluation"


class Bundle(dsl.Artifact):
    """The deployable model directory with exactly one policy."""

    schema_title = "system.Bundle"
