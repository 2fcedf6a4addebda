"""Study of equal decisions: `python -m tests.studies.formats`.

Models on real roads, exported to ONNX and compared with their own by the gate of the export, on all
of VAL_CALIB and VAL_SELECT: one of the whole image at 224 pixels, and one of the whole image and
four tiles at 112, each with a policy of every kind. GTSDB, a frozen DINOv2-S, a linear head by
logistic regression on TRAIN, and a SelectiveNet gate on what the head gets right; calibrators are
fitted on VAL_CALIB, and thresholds lie at medians, so that every answer occurs. No policy is
certified here: the study is about graphs. About a quarter of an hour on an idle core.

`--resizing` compares a graph that resizes instead, of the photographs of VAL_CALIB and VAL_SELECT
at full size, with the decode path. About five minutes.
"""

import argparse
import contextlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from components.export_bundle.fuse_head import stock_incompatibility, write_model
from components.export_bundle.onnx_export import write_onnx
from components.export_bundle.onnx_resize import RESIZED
from components.export_bundle.parity import SPLITS, TOLERANCE, check_parity
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.shared.calibration import registry
from components.shared.calibration.calibrator import class_log_odds
from components.shared.contracts.artifacts import write_json
from components.shared.contracts.formats import ONNX
from components.shared.contracts.outcomes import Outcomes
from components.shared.contracts.progress import progress
from components.shared.data.dataset import Dataset
from components.shared.data.decode import decode, resize
from components.shared.data.splits import Splits, read_splits
from components.shared.models.backbone import image_statistics, load_backbone
from components.shared.models.classifier import Classifier, new_head, normalise
from components.shared.models.gate import Gate, GateHead
from components.shared.policies.early_exit import EarlyExit
from components.shared.policies.logit_affine import logit_affine_of
from components.shared.policies.policy import GatePolicy, Policy, ScrcPolicy, softmax_policy
from components.shared.serving.bundle import GATE, MODEL, Bundle
from components.shared.serving.formats.onnx_format import MODEL as MODEL_GRAPH
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from components.shared.vision.classifier_spec import ClassifierSpec
from components.shared.vision.view_spec import ViewSpec
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import run as split_dataset
from tests.studies.explanations import BACKBONE
from tests.studies.features import CLASSES, LABEL_MAP
from tests.studies.gtsdb import SHARED

_SIZE, _BATCH = 224, 16
_TILES = ViewSpec(
    grid=2,
    overlap=0.25,
    flips=False,
    size=112,
    aggregation="lse",
    top_k=3,
    sharpness=1.0,
    positive_class="Roadwork",
)
_OUTCOMES = Outcomes.of(CLASSES)
_CALIBRATORS = {"softmax": "platt", "gate": "temperature", "scrc": "isotonic"}
_STEPS, _RATE = 200, 1e-3  # of the gate's training

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """A classifier of GTSDB, with what policies are made of.

    Attributes:
        classifier: With its head.
        gate: Trained on the same features.
        logits: (N, 2) float64 of VAL_CALIB.
        whole: (N,) float64 margins of the full image alone.
        scores: (N,) float64 raw scores of the gate.
        labels: (N,) int64.
    """

    classifier: Classifier
    gate: Gate
    logits: _Floats
    whole: _Floats
    scores: _Floats
    labels: npt.NDArray[np.int64]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.studies.formats", description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "data/gtsdb", metavar="FOLDER")
    parser.add_argument("--backbone", type=Path, default=BACKBONE, metavar="FOLDER")
    parser.add_argument("--resizing", action="store_true", help="the graph that resizes")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        data, splits = prepared(parsed.data, Path(name))
        if parsed.resizing:
            lines = resizing_table(parsed.backbone, parsed.data, data, splits, Path(name))
        else:
            lines = table(parsed.backbone, data, splits, Path(name))
        for line in lines:
            print(line, flush=True)


def prepared(source: Path, root: Path) -> tuple[Dataset, Splits]:
    """Ingest and split a labelled folder."""
    with contextlib.redirect_stdout(io.StringIO()):
        config = IngestConfig(data=str(source), label_map=LABEL_MAP, image_size=_SIZE)
        ingest_dataset(config, dataset=root / "dataset")
        split_dataset(
            SplitConfig(
                train_fraction=0.4, select_fraction=0.15, calib_fraction=0.15, test_fraction=0.3
            ),
            dataset=root / "dataset",
            splits=root / "splits",
            train_images=root / "train_images",
            train_labels=root / "train_labels",
        )
    return Dataset.open(root / "dataset"), read_splits(root / "splits")


def table(backbone: Path, data: Dataset, splits: Splits, root: Path) -> Iterator[str]:
    """Markdown: one row for each graph of each model and policy."""
    near = f"within {TOLERANCE:g} of a threshold"
    yield f"| model | policy, calibrator | graph | images | decisions equal | {near} | margins |"
    yield "|---" * 7 + "|"
    for name, views in (("whole image, 224", None), ("5 views, 112", _TILES)):
        model = trained(backbone, views, data, splits)
        for kind, calibrator in _CALIBRATORS.items():
            with contextlib.redirect_stdout(io.StringIO()):
                bundle = write_bundle(model, kind, root / f"{name} {kind}")
                write_onnx(bundle, bundle.path / ONNX)
                found = check_parity(bundle, ONNX, data, splits)
            for graph, parity in found.items():
                cells = [name, f"{kind}, {calibrator}", graph, str(parity.n_images)]
                cells += [str(parity.n_images - parity.n_near), str(parity.n_near)]
                yield f"| {' | '.join([*cells, f'{parity.largest_difference:.1e}'])} |"


def resizing_table(
    backbone: Path, source: Path, data: Dataset, splits: Splits, root: Path
) -> Iterator[str]:
    """Markdown: one row."""
    yield "| images | values that differ | by at most | decisions equal | margins |"
    yield "|---" * 5 + "|"
    with contextlib.redirect_stdout(io.StringIO()):
        bundle = write_bundle(trained(backbone, None, data, splits), "softmax", root / "resizing")
        write_onnx(bundle, bundle.path / ONNX, resizes=True)
        predictor = OnnxPredictor(bundle)
    graph = onnx.load(bundle.path / ONNX / MODEL_GRAPH)
    graph.graph.output.append(
        onnx.helper.make_tensor_value_info(RESIZED, onnx.TensorProto.UINT8, None)
    )
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    ids = [sample_id for split in SPLITS for sample_id in splits.ids(split)]
    steps, margins, n_equal = [], [], 0
    for sample_id in progress(ids, "photographs", total=len(ids)):
        image = decode((source / data.samples[data.index[sample_id]].path).read_bytes())
        values = session.run(names, {"images": np.asarray(image)[None]})
        found = dict(zip(names, values, strict=True))
        small = resize(image, _SIZE)[None]
        (expected,) = predictor.raw_outputs(small)
        steps.append(np.abs(found[RESIZED].astype(np.int64) - small))
        margins.append(abs(float(found["margin"][0] - expected["margin"][0])))
        n_equal += int(found["decision"][0] == expected["decision"][0])
    changed = np.mean([(step > 0).mean() for step in steps])
    cells = [str(len(ids)), f"{changed:.1e}", str(max(step.max() for step in steps))]
    yield f"| {' | '.join([*cells, str(n_equal), f'{max(margins):.1e}'])} |"


def trained(path: Path, views: ViewSpec | None, data: Dataset, splits: Splits) -> Model:
    """Fit the head on TRAIN, and the gate on what the head gets right of VAL_CALIB."""
    torch.manual_seed(0)
    backbone = load_backbone(str(path)).eval()
    mean, std = image_statistics(str(path))
    spec = ClassifierSpec(CLASSES, _SIZE, mean, std, backbone.config.model_type, views)
    n_features = 2 * backbone.config.hidden_size
    classifier = Classifier(backbone, new_head(n_features, spec), spec).eval()

    # Of several views the full image teaches the head, which then looks at each of them.
    x, labels = _features(classifier, data, splits, "TRAIN", last=1)
    full = x if views is None else x[:, 0]
    fit = LogisticRegression(C=0.01, max_iter=5000, class_weight="balanced").fit(full, labels)
    with torch.no_grad():
        weight = torch.from_numpy(fit.coef_[0]).float()
        classifier.head.linear.weight.copy_(torch.stack([-weight / 2, weight / 2]))
        bias = float(fit.intercept_[0]) / 2
        classifier.head.linear.bias.copy_(torch.tensor([-bias, bias]))

    x, labels = _features(classifier, data, splits, "VAL_CALIB")
    with torch.inference_mode():
        logits = classifier.head(x).double()
        pooled = classifier.head.pooled(x).clone()
        whole = classifier.head(x if views is None else x[:, :1]).double().numpy()
    gate = _trained_gate(pooled.numpy(), logits.argmax(1).numpy() == labels)
    with torch.inference_mode():
        scores = gate.scores(pooled, logits).double().numpy()
    return Model(classifier, gate, logits.numpy(), class_log_odds(whole, 1), scores, labels)


def write_bundle(model: Model, kind: str, path: Path) -> Bundle:
    """Write what a bundle's model is read from, with a policy of this kind."""
    path.mkdir()
    classifier, policy = model.classifier, _policy(model, kind)
    spec = classifier.spec
    kept = {name: value.clone() for name, value in classifier.head.state_dict().items()}
    write_model(classifier, policy, path / MODEL)
    classifier.head.load_state_dict(kept)  # writing fuses calibrator and threshold into the head
    write_json(path / "policy.json", policy.to_json())
    if kind == "gate":
        (path / GATE).mkdir()
        model.gate.save(path / GATE)

    stock = not stock_incompatibility(spec, logit_affine_of(policy))
    bundle = Bundle(path, policy, spec, stock=stock)
    if spec.views is None:
        return bundle
    low, high = np.quantile(model.whole, [0.25, 0.75]).tolist()
    count = spec.views.count
    return replace(bundle, early_exit=EarlyExit(count, None, high, low, 0.1, 0.1, 0, 0, 0.0))


def _policy(model: Model, kind: str) -> Policy:
    """Return a policy that answers about half of VAL_CALIB, or is positive for about half."""
    calibrator = registry.fit(_CALIBRATORS[kind], model.logits, model.labels)
    plain = softmax_policy(_OUTCOMES, 0.0, calibrator)
    if kind == "softmax":
        return softmax_policy(_OUTCOMES, float(np.median(plain.margin(model.logits))), calibrator)

    given: dict[str, Any] = {
        "threshold": plain.threshold,
        "threshold_margin": plain.threshold_margin,
        "outcomes": _OUTCOMES,
        "calibrator": calibrator,
        "risk": "error",
        "alpha": 0.1,
        "delta": 0.1,
        "coverage_lower_bound": 0.0,
    }
    if kind == "gate":
        middle = float(np.median(model.scores))
        return GatePolicy(
            kind="gate", **given, gate_slope=1.0, gate_intercept=-middle, answer_from=0.0
        )
    middle = float(np.median(plain.confidence(model.logits)))
    return ScrcPolicy(kind="scrc", **given, answer_from=(middle, middle))


def _features(
    classifier: Classifier, data: Dataset, splits: Splits, split: str, last: int | None = None
) -> tuple[torch.Tensor, npt.NDArray[np.int64]]:
    """Return the features (N, 2h) of a split, or of views (N, V, 2h), and the labels (N,)."""
    rows = np.array([data.index[sample_id] for sample_id in splits.ids(split)])
    parts = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    found = []
    for part in progress(parts, f"features of {split}", total=len(rows), size=len):
        pixels = torch.from_numpy(data.images(part))
        with torch.inference_mode():
            found.append(classifier.features(normalise(pixels, classifier.spec, last=last)))
    labels = np.array([data.samples[row].label for row in rows], dtype=np.int64)
    return torch.cat(found), labels


def _trained_gate(x: npt.NDArray[np.float32], is_right: npt.NDArray[np.bool_]) -> Gate:
    head, features = GateHead(x.shape[1]), torch.from_numpy(x)
    optimizer = torch.optim.Adam(head.parameters(), lr=_RATE)
    target = torch.from_numpy(is_right).float()
    for _ in range(_STEPS):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(head(features), target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return Gate(head.eval())


if __name__ == "__main__":
    main()
