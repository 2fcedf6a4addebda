"""The INT8 form of a bundle: quantised graphs with a policy of their own.

A quantised model is another model: its policy is fitted and certified again on its own logits of
VAL_CALIB. Where that cannot be done, the form is refused and the bundle goes on without it.

Activation ranges and the layers that stay in float come from images of VAL_SELECT, without labels:
a choice of the model belongs there, and what VAL_CALIB certifies must be as new to the quantised
model as to the float one.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.export_bundle.check import rounded
from components.export_bundle.onnx_export import write_onnx
from components.export_bundle.quantise import (
    WEIGHT_BITS,
    Inputs,
    layers,
    outputs,
    quantise,
    sensitive_layers,
)
from components.shared.calibration.calibrator import class_log_odds
from components.shared.contracts.artifacts import write_json
from components.shared.contracts.errors import PermanentError
from components.shared.contracts.formats import ONNX, ONNX_INT8
from components.shared.contracts.listing import say
from components.shared.contracts.progress import progress
from components.shared.data.dataset import Dataset
from components.shared.data.splits import Splits
from components.shared.policies.fitting.refit import refit
from components.shared.policies.logits import Logits, Views
from components.shared.policies.policy import Infeasible, Policy, SelectivePolicy
from components.shared.policies.policy_artifact import FIT
from components.shared.policies.predictions import Predictions
from components.shared.serving.bundle import POLICY, Bundle
from components.shared.serving.formats.onnx_format import (
    FORMAT,
    MODEL,
    TILES,
    write_format,
)
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from components.shared.stats import calibration_error, multiclass
from components.shared.stats.bootstrap import Statistic, membership, paired_differences
from components.shared.stats.metrics import (
    Bools,
    Floats,
    Integers,
    Weights,
    auroc,
    ratio,
    weighted_mean,
)
from components.shared.stats.risk_coverage import augrc
from components.shared.vision.reference_image import reference_image

_N_IMAGES = 64  # that give the ranges of activations
_N_SWEPT = 16  # of these, on which the sensitivity of layers is measured
_BATCH = 8
_REPLICATES, _SEED = 2000, 0  # of the paired intervals


@dataclass(frozen=True)
class Int8:
    """What became of the form.

    Attributes:
        metrics: The entry of format.json, see `compare`; empty where the form is refused.
        refusals: The form with the reason why it is refused; empty where it is not.
        policy: Its own; None where it is refused.
    """

    metrics: dict[str, Any]
    refusals: dict[str, str]
    policy: Policy | None = None


def write_int8(bundle: Bundle, options: Mapping[str, Any], data: Dataset, splits: Splits) -> Int8:
    """Write onnx_int8/ of a bundle that has onnx/, or say why it is refused.

    Args:
        bundle: On disk, with onnx/.
        options: Those of its policy's fit, as the manifest of the policy has them.
        data: The data set of the run.
        splits: Its splits.

    Raises:
        PermanentError: The graph with the policy of its own computes other logits than the one that
            the policy was fitted on, or its output is not finite.
    """
    folder = bundle.path / ONNX_INT8
    sized = data.resized(bundle.spec.image_size)
    select = np.array([sized.index[sample_id] for sample_id in splits.ids("VAL_SELECT")])

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        quantiser = _Quantiser(bundle, work, sized.images(_spread(select, _N_IMAGES)))
        quantiser.write(bundle.path / ONNX, folder)

        found = refit(bundle.policy, options, _logits(bundle, sized, splits, "VAL_CALIB"))
        if isinstance(found, Infeasible):
            shutil.rmtree(folder)
            return _refused(found.reason)

        before = quantiser.logits(folder)
        shutil.rmtree(folder)
        document = write_onnx(bundle, work / "own", found.policy)
        quantiser.write(work / "own", folder)
        if not np.array_equal(quantiser.logits(folder), before):
            shutil.rmtree(folder)
            raise PermanentError(
                f"{ONNX_INT8}: the graph with its own policy computes other logits than the one"
                " that the policy was fitted on; this version of the exporter or of onnxruntime"
                f" does not repeat itself. Export without {ONNX_INT8}"
            )

    write_json(folder / POLICY, found.policy.to_json())
    write_json(folder / FIT, found.fit)
    quantised = replace(bundle, form_policies={ONNX_INT8: found.policy})
    metrics = compare(quantised, sized, splits)
    document = replace(
        document,
        early_exit=found.early_exit,
        quantisation=quantiser.described,
        metrics=metrics,
        reference_logits=_reference_logits(quantised),
    )
    write_format(folder, document)
    return Int8(metrics, {}, found.policy)


def _reference_logits(bundle: Bundle) -> list[float]:
    """Return the form's logits of the reference image and all views, with four decimals."""
    pixels = reference_image(bundle.spec.image_size)
    logits = OnnxPredictor(bundle, ONNX_INT8).outputs(pixels, all_views=True).logits[0]
    return rounded(logits)


def compare(bundle: Bundle, data: Dataset, splits: Splits) -> dict[str, Any]:
    """Compare the INT8 form with the float one on VAL_TEST, each with its own policy, on all views.

    Args:
        bundle: With both forms, and the policy of the INT8 one.
        data: The data set, of the model's size.
        splits: Its splits.

    Returns:
        Split, counts, and for each metric both values and the paired difference INT8 minus float
        with its 95 % interval over groups (None where there is none).
    """
    ours, theirs = (
        _predictions(bundle.policy_of(form), _logits(bundle, data, splits, "VAL_TEST", form))
        for form in (ONNX_INT8, ONNX)
    )
    risk = bundle.policy.risk if isinstance(bundle.policy, SelectivePolicy) else "error"
    first, second = (_statistics(p, risk) for p in (ours, theirs))
    pairs = {name: (first[name], second[name]) for name in first}
    member = membership(ours.groups, len(ours.groups))
    differences = paired_differences(pairs, member, _REPLICATES, _SEED)
    answers = [np.where(p.answered[:, None], p.answer_sets, False) for p in (ours, theirs)]
    return {
        "split": "VAL_TEST",
        "n_images": len(ours.truth),
        "n_groups": ours.n_groups,
        "n_other_answers": int((answers[0] != answers[1]).any(axis=1).sum()),
        "metrics": {
            name: {
                "float": _number(theirs_of(None)),
                "int8": _number(ours_of(None)),
                "difference": _number(differences[name].value),
                "difference_95": differences[name].interval,
            }
            for name, (ours_of, theirs_of) in pairs.items()
        },
    }


class _Quantiser:
    """Quantises the graphs of a form, always with the same ranges and the same layers.

    Attributes:
        described: The entry of format.json.
    """

    def __init__(self, bundle: Bundle, work: Path, images: npt.NDArray[np.uint8]) -> None:
        """Find ranges and layers.

        Args:
            bundle: With onnx/.
            work: Folder for intermediate files.
            images: (M, S, S, 3), that give the ranges.
        """
        source = bundle.path / ONNX
        batches: list[Inputs] = [{"images": part} for part in _parts(images)]
        self._work, self._batches = work, {MODEL: batches}
        if bundle.spec.views is not None:
            features = _parts(outputs(source / MODEL, batches, "features"))
            self._batches[TILES] = [
                batch | {"features": part.astype(np.float32)}
                for batch, part in zip(batches, features, strict=True)
            ]

        names = layers(source / MODEL)
        quantise(source / MODEL, work / "all.onnx", self._ranges(MODEL), names, batches)
        swept = images[_spread(np.arange(len(images)), _N_SWEPT)]
        # The tiles are seen by the same backbone, whose layers are in the same order.
        self._in_float = sensitive_layers(
            source / MODEL, self._ranges(MODEL), [{"images": part} for part in _parts(swept)], work
        )
        self.described = {
            "n_images": len(images),
            "weight_bits": WEIGHT_BITS,
            "n_layers": len(names),
            "float_layers": self._in_float,
        }

    def write(self, source: Path, folder: Path) -> None:
        """Quantise the graphs of a form, whatever its policy, into a new folder."""
        folder.mkdir()
        shutil.copyfile(source / FORMAT, folder / FORMAT)
        for graph, batches in self._batches.items():
            names = layers(source / graph)
            chosen = [name for row, name in enumerate(names) if row not in self._in_float]
            quantise(source / graph, folder / graph, self._ranges(graph), chosen, batches)

    def logits(self, folder: Path) -> Floats:
        """Return (M * graphs, C) float64 logits of the images that gave the ranges."""
        found = [outputs(folder / graph, batches) for graph, batches in self._batches.items()]
        return np.concatenate(found)

    def _ranges(self, graph: str) -> Path:
        return self._work / f"{graph}.ranges.json"


def _refused(reason: str) -> Int8:
    say(f"{ONNX_INT8}: refused. {reason}")
    return Int8({}, {ONNX_INT8: reason})


def _logits(
    bundle: Bundle, data: Dataset, splits: Splits, split: str, form: str = ONNX_INT8
) -> Logits:
    """Return a form's logits of a split, in the order of the sample ids."""
    predictor, outcomes, views = OnnxPredictor(bundle, form), bundle.policy.outcomes, None
    samples = [data.samples[data.index[sample_id]] for sample_id in splits.ids(split)]
    positions = np.array([data.index[sample.sample_id] for sample in samples])
    stages = [
        predictor.outputs_by_stage(data.images(part))
        for part in progress(_parts(positions), f"{form} on {split}", size=len, total=len(samples))
    ]
    margin = None
    if bundle.spec.views is not None and outcomes.positive is not None:
        # Of one view, every aggregation gives that view's margin.
        of_full_image = np.concatenate([first.logits for first, _ in stages]).astype(np.float64)
        margin = class_log_odds(of_full_image, outcomes.positive).astype(np.float32)
        views = Views(bundle.spec.views.count, bundle.spec.views.lower_bound)

    found = [batch[-1] for batch in stages]
    gates = [batch.gate for batch in found if batch.gate is not None]
    return Logits(
        split=split,
        class_names=bundle.policy.class_names,
        sample_ids=tuple(sample.sample_id for sample in samples),
        labels=np.array([sample.label for sample in samples], dtype=np.int64),
        logits=np.concatenate([batch.logits for batch in found]),
        groups=tuple(sample.group for sample in samples),
        sources=tuple(sample.source for sample in samples),
        paths=tuple(sample.path for sample in samples),
        gate=np.concatenate(gates) if gates else None,
        full_image_margin=margin,
        views=views,
    )


def _predictions(policy: Policy, found: Logits) -> Predictions:
    truth = found.truth(policy.outcomes)
    return Predictions.of(policy, truth, found.groups, found.logits, found.gate)


def _statistics(p: Predictions, risk: str) -> dict[str, Statistic]:
    """Return the metrics of predictions, as functions of weights."""
    statistics: dict[str, Statistic] = {
        "accuracy": lambda w: weighted_mean(~p.error, w),
        "mcc": lambda w: multiclass.mcc(p.truth, p.decision, p.n_outcomes, w),
        "augrc": lambda w: augrc(p.confidence, p.error, w),
        "coverage": lambda w: weighted_mean(p.answered, w),
        "risk": partial(_risk, p, np.asarray(p.is_positive | (risk != "fnr"))),
    }
    if p.margin is None:
        return statistics | {
            "ece": lambda w: calibration_error.ece_classwise(p.truth, p.probabilities, weights=w)
        }
    return statistics | {
        "auroc": lambda w: auroc(p.is_positive, p.log_odds, w),
        "ece": lambda w: calibration_error.ece_positive_class(
            p.is_positive, p.probability, weights=w
        ),
    }


def _risk(p: Predictions, counted: Bools, weights: Weights) -> Floats:
    """Return the fraction of answers without the true outcome, among the answered that count."""
    answered = np.asarray(p.answered & counted)
    wrong = weighted_mean(np.asarray(answered & ~p.covered), weights)
    return ratio(wrong, weighted_mean(answered, weights), np.nan)


def _number(value: object) -> float | None:
    found = float(np.asarray(value))
    return found if np.isfinite(found) else None


def _spread(rows: Integers, most: int) -> Integers:
    """Return at most so many of rows (n,), evenly spaced."""
    chosen = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)
    return np.asarray(rows[chosen])


def _parts(values: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Return consecutive parts along the first axis."""
    return [values[start : start + _BATCH] for start in range(0, len(values), _BATCH)]
