"""Comparison of an ONNX form with the bundle's own model, on all of VAL_CALIB and VAL_SELECT.

A form that decides one image otherwise is another model than the one that was evaluated. Two
runtimes add up in another order, so that an image whose margin lies within 1e-3 of a threshold may
fall on either side of it; such images are counted apart.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from components.shared.calibration.calibrator import class_log_odds
from components.shared.contracts.errors import ArtifactError, PermanentError
from components.shared.contracts.formats import TRANSFORMERS
from components.shared.contracts.listing import first_of, printable, say
from components.shared.contracts.progress import progress
from components.shared.data.dataset import Dataset
from components.shared.data.splits import Splits, refuse_empty
from components.shared.policies.policy import Policy, top_log_odds
from components.shared.serving.bundle import Bundle
from components.shared.serving.formats.onnx_format import MODEL, TILES, decision_names
from components.shared.serving.formats.onnx_predictor import OnnxOutputs, OnnxPredictor
from components.shared.serving.predictor import Predictor
from components.shared.stats.metrics import Bools, Floats, Integers

SPLITS = ("VAL_CALIB", "VAL_SELECT")
# Log-odds by which two runtimes may differ: a hundred times what other orders of float32 sums give.
TOLERANCE = 1e-3
_BATCH = 16  # images, as the predict command's

_Scores = tuple[Floats, Floats | None]


@dataclass(frozen=True)
class Parity:
    """Comparison of one graph with the bundle's own model.

    Attributes:
        n_images: Images compared.
        n_near: Of these, images whose margin lies within the tolerance of a threshold; they are
            compared in their margins alone, and all others are decided alike.
        largest_difference: Of margins, in log-odds.
    """

    n_images: int
    n_near: int
    largest_difference: float

    def to_json(self) -> dict[str, Any]:
        """Return the entry of format.json.

        The difference is rounded up to a power of ten, which hides the rounding of another
        processor: the bundle's digest is the same.
        """
        exponent = math.ceil(math.log10(max(self.largest_difference, 1e-6)))
        return {
            "splits": list(SPLITS),
            "n_images": self.n_images,
            "n_near_a_threshold": self.n_near,
            "margins_within": float(f"1e{exponent}"),
        }


def check_parity(bundle: Bundle, form: str, data: Dataset, splits: Splits) -> dict[str, Parity]:
    """Compare every graph of a form with the bundle's own model.

    Args:
        bundle: On disk.
        form: Folder of the form.
        data: The data set of the run.
        splits: Its splits.

    Returns:
        The comparison of each graph, by its file.

    Raises:
        DataError: Splits and data set have other samples.
        ArtifactError: The data set's images are smaller than the model's.
        PermanentError: A decision or a margin differs; the message names the first such image.
    """
    refuse_empty(data, splits)
    if data.image_size < bundle.spec.image_size:
        raise ArtifactError(
            f"dataset has images of {data.image_size} pixels, the model sees"
            f" {bundle.spec.image_size}; use the artifacts of one run"
        )

    ids = [sample_id for split in SPLITS for sample_id in splits.ids(split)]
    own, onnx = Predictor(bundle), OnnxPredictor(bundle, form)
    graphs = [MODEL, TILES] if onnx.format.has_tiles else [MODEL]
    found: dict[str, list[_Compared]] = {graph: [] for graph in graphs}
    for pixels in _batches(data.resized(bundle.spec.image_size), ids, form):
        stages = zip(
            graphs, own.scores_by_stage(pixels), onnx.outputs_by_stage(pixels), strict=True
        )
        for graph, scores, outputs in stages:
            found[graph].append(_compare(bundle, graph, scores, outputs))

    results = {}
    for graph, batches in found.items():
        compared = _Compared(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))
        _refuse_difference(f"{form}/{graph}", compared, ids, data, onnx.policy)
        largest = float(compared.difference.max())
        results[graph] = Parity(len(ids), int(compared.near.sum()), largest)
        say(
            f"{form}/{graph}: {len(ids)} images of {' and '.join(SPLITS)} compared,"
            f" {results[graph].n_near} within {TOLERANCE:g} of a threshold; all other decisions are"
            f" equal, margins differ by at most {largest:.2g}"
        )
    return results


class _Compared(NamedTuple):
    """Comparison of N images.

    Attributes:
        expected: (N,) int64 codes of the bundle's own decisions.
        found: (N,) int64 codes of the graph's.
        difference: (N,) float64 largest difference of a margin before calibration, or of the gate's
            scores; NaN where the graph's are none.
        near: (N,) bool, where a difference of the tolerance changes the decision.
        wrong: (N,) bool, where the graph differs by more than that explains.
    """

    expected: Integers
    found: Integers
    difference: Floats
    near: Bools
    wrong: Bools


def _compare(bundle: Bundle, graph: str, scores: _Scores, outputs: OnnxOutputs) -> _Compared:
    """Compare a batch of `graph`'s outputs with the bundle's own logits and gate scores."""
    policy, (logits, gate) = bundle.policy, scores
    early_exit = bundle.early_exit if graph == MODEL else None
    expected, margin = _codes(policy, logits, gate), _margin(policy, logits)

    near = np.zeros(len(logits), dtype=bool)
    lowest, highest = margin.copy(), margin.copy()
    for other_logits, other_gate in _shifted(policy, logits, gate):
        near |= _codes(policy, other_logits, other_gate) != expected
        shifted = _margin(policy, other_logits)
        lowest, highest = np.minimum(lowest, shifted), np.maximum(highest, shifted)
    if early_exit is not None:
        raw = class_log_odds(logits, policy.outcomes.positive_index)
        below, above = early_exit.exits(raw - TOLERANCE), early_exit.exits(raw + TOLERANCE)
        near |= below != above

    # Twice a centred logit of two classes is their margin.
    difference = 2 * np.abs(_centred(outputs.logits) - _centred(logits)).max(axis=1)
    if gate is not None and outputs.gate is not None:
        difference = np.maximum(difference, np.abs(outputs.gate - gate))
    # A calibrator may be steep, or a staircase: a small difference before it is a large one after.
    explained = np.maximum(TOLERANCE, highest - lowest)
    wrong = ~((difference <= TOLERANCE) & (np.abs(outputs.margin - margin) <= explained))
    return _Compared(
        expected,
        outputs.decision,
        difference,
        near,
        wrong | ((outputs.decision != expected) & ~near),
    )


def _refuse_difference(
    where: str, compared: _Compared, ids: list[str], data: Dataset, policy: Policy
) -> None:
    """Raise PermanentError where the graph differs, naming the first images."""
    wrong = np.flatnonzero(compared.wrong)
    if not len(wrong):
        return

    names = decision_names(policy.outcomes)
    listed = [
        f"{printable(data.samples[data.index[ids[row]]].path)} ({ids[row]}:"
        f" {names[compared.found[row]]!r} for {names[compared.expected[row]]!r}, margins differ by"
        f" {compared.difference[row]:.3g})"
        for row in wrong[:3].tolist()
    ]
    raise PermanentError(
        f"{where}: differs from the bundle's own model in {len(wrong)} of {len(ids)} images of"
        f" {' and '.join(SPLITS)}, such as {first_of(listed, most=3)}; this version of the exporter"
        f" or of onnxruntime computes another model. Export with formats=[{TRANSFORMERS}]"
    )


def _codes(policy: Policy, logits: Floats, gate: Floats | None) -> Integers:
    """Return (N,) int64 codes of the policy's answers, as a graph gives them."""
    n_outcomes = len(policy.outcomes.names)
    several = policy.answer_sets(logits).sum(axis=1) > 1
    codes = np.where(several, n_outcomes + 1, policy.decision(logits))
    return np.where(policy.answers(logits, gate), codes, n_outcomes)


def _margin(policy: Policy, logits: Floats) -> Floats:
    """Return (N,) what a graph calls the margin."""
    if policy.outcomes.positive is not None:
        return policy.margin(logits)
    return top_log_odds(policy.calibrated(logits))


def _shifted(policy: Policy, logits: Floats, gate: Floats | None) -> Iterator[_Scores]:
    """Yield scores that differ by the tolerance: of the class that decides, and of the gate.

    Of a multiclass task the two most probable classes decide.
    """
    order = np.argsort(-logits, axis=1)
    positive = policy.outcomes.positive
    classes = [np.full(len(logits), positive)] if positive is not None else list(order[:, :2].T)
    gates = [None] if gate is None else [gate - TOLERANCE, gate, gate + TOLERANCE]
    for k in classes:
        for step in (-TOLERANCE, 0, TOLERANCE):
            moved = logits.copy()
            moved[np.arange(len(logits)), k] += step
            yield from ((moved, score) for score in gates)


def _centred(logits: npt.NDArray[np.floating[Any]]) -> Floats:
    """Return (N, C) logits whose mean over the classes is 0, since only differences count."""
    logits64 = np.asarray(logits, dtype=np.float64)
    return np.asarray(logits64 - logits64.mean(axis=1, keepdims=True))


def _batches(data: Dataset, ids: list[str], form: str) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the pixels (B, S, S, 3) of images, with progress."""
    positions = np.array([data.index[sample_id] for sample_id in ids])
    parts = [positions[start : start + _BATCH] for start in range(0, len(ids), _BATCH)]
    for part in progress(parts, f"{form} against {TRANSFORMERS}", total=len(ids), size=len):
        yield data.images(part)
