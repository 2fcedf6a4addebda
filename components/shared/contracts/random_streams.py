"""All numbers of random streams: the last part of the keys from which random generators are seeded.

A generator is seeded by (seed, step, stream), so that any step can be drawn without the ones before
it. Two draws of one step with equal numbers would be the same numbers: within a context, a set of
draws that share seeds and steps, every value is unique, and a test checks this. Values never
change, because weights, splits and demo images depend on them.

Numbers may be equal across contexts, which draw for different trainings or by keys of other parts.
numpy fills short keys with zeros: (a, b) and (a, b, 0) are one key.
"""

from enum import IntEnum


class CachedImageStream(IntEnum):
    """Images that are drawn once, with the number of the view or the severity as the step.

    They belong to the context of every phase that trains a head or predicts.
    """

    CACHED_AUGMENTATION = 3
    CORRUPTION = 4


class ClassifierStream(IntEnum):
    """Training of a classifier, by (seed, step, stream)."""

    DROPOUT = 0
    AUGMENTATION = 1
    CHOICE_OF_CACHED_AUGMENTATION = 2


class DistilledHeadStream(IntEnum):
    """Distillation of the full-image head, a training of its own after the classifier's.

    Its draws at a step begin with the same numbers as the classifier's dropout at that step.
    """

    DROPOUT = 0


class GateStream(IntEnum):
    """Training of a gate, by (seed, step, stream)."""

    DROPOUT = 0
    CHOICE_OF_CACHED_AUGMENTATION = 1


class SampleOrderStream(IntEnum):
    """Order of the training samples, by (seed, epoch, number of samples, stream)."""

    TRAINING = 0
    PROFIT_REFERENCE = 1


class DinoStream(IntEnum):
    """Self-distillation: crops are numbered from 0, by (seed, step, crop).

    Masks have the crop's place in the global batch as a fourth part.
    """

    MASKS = 1000


class MaeStream(IntEnum):
    """Masked autoencoding, by (seed, step, stream)."""

    CROP = 0
    PATCH_ORDER = 1


class SearchStream(IntEnum):
    """Search of options, by (seed, number of the trial, stream)."""

    SAMPLER = 0


class DriftStream(IntEnum):
    """Comparison of new images, by (seed, number of images, stream)."""

    FOLDS = 1
    LABEL_SHIFT = 2
    KEPT_GROUPS = 3


class DemoStream(IntEnum):
    """Demo images: by (seed, drive, stream), with the place or the frame as a fourth part.

    The plan's key is (seed, PLAN) and equals that of drive 4 (zeros fill it up): both draw from the
    same numbers, for other purposes.
    """

    DRIVE = 0
    PLACE = 1
    FRAME = 2
    PLAN = 4
