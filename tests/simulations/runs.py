"""Accepted data sets of few groups, through every step from the split to the bundle.

`python -m tests.simulations.runs [--count 1000] [--first 0]` simulates data sets with few groups of
a class and logits of good, useless, separable, constant and extreme models. Each goes through the
split, and where that accepts it through the calibrators, all policies and the evaluation, and every
tenth through the export. Printed is how many end with anything but a report and either a bundle or
the reason why there is none.
"""

import argparse
import contextlib
import io
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from components.calibrate_gate.config import CalibrateGateConfig
from components.calibrate_gate.step import run as calibrate_gate
from components.calibrate_scrc.config import CalibrateScrcConfig
from components.calibrate_scrc.step import run as calibrate_scrc
from components.compare_calibrators.config import CompareCalibratorsConfig
from components.compare_calibrators.step import run as compare_calibrators
from components.evaluate.config import EvaluateConfig
from components.evaluate.step import run as evaluate
from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.step import run as fit_threshold
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import verify_dir, writing
from components.shared.contracts.config import Config
from components.shared.contracts.errors import DataError, InfeasibleError
from components.shared.data.dataset import Sample, write_header, write_samples, write_shards
from components.shared.policies.logits import Logits, write_logits
from components.shared.stats.metrics import Floats, Integers
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import run as split_dataset
from tests.bundles import SIZE, random_classifier, write_test_images

# Groups of the rarest class, of the others, and the mean number of images of a group.
SHAPES = (
    (8, 16, 20),
    (12, 100, 15),
    (20, 20, 15),
    (20, 100, 15),
    (30, 30, 15),
    (30, 300, 10),
    (40, 40, 10),
    (60, 200, 8),
    (80, 80, 8),
)
MODELS = ("good", "useless", "separable", "constant", "extreme")
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"policy": "gate"},
    {"policy": "scrc"},
    {"policy": "scrc", "class_wise": True},
    {"policy": "scrc", "set_valued": True, "min_coverage": 0.5},
    {"policy": "gate", "min_coverage": 0.3},
    {"policy": "scrc", "risk": "fnr"},
    {"max_fnr": 0.01},
    {"calibrator": "platt"},
    {"calibrator": "isotonic", "policy": "scrc", "alpha": 0.2},
)
_EXPORT_EVERY = 10


@dataclass(frozen=True)
class Case:
    """One data set: its groups, the model's logits, and the options of the run."""

    number: int
    n_classes: int
    shape: tuple[int, int, int]
    model: str
    options: dict[str, Any]

    @classmethod
    def of(cls, number: int) -> "Case":
        """Return the case of that number; every third has five classes."""
        n_classes = 5 if number % 3 == 2 else 2
        options = OPTIONS[(number // len(SHAPES)) % len(OPTIONS)]
        if n_classes > 2:
            options = {name: value for name, value in options.items() if "fnr" not in str(options)}
        return cls(
            number, n_classes, SHAPES[number % len(SHAPES)], MODELS[number % len(MODELS)], options
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes, the positive one last."""
        return (*("None", "Stop", "Yield", "Priority")[: self.n_classes - 1], "Roadwork")

    def draw(self, rng: np.random.Generator) -> tuple[Integers, list[str]]:
        """Return the class and the group of each image; a tenth of the groups have two classes."""
        rare, others, size = self.shape
        per_class = [others // (self.n_classes - 1)] * (self.n_classes - 1) + [rare]
        of_group = np.repeat(np.arange(self.n_classes), per_class)
        sizes = rng.integers(max(size // 2, 1), 2 * size, len(of_group))
        labels, member = np.repeat(of_group, sizes), np.repeat(np.arange(len(of_group)), sizes)
        mixed = rng.random(len(of_group)) < 0.1
        other = rng.integers(0, self.n_classes, len(labels))
        labels = np.where(mixed[member] & (rng.random(len(labels)) < 0.3), other, labels)
        return labels.astype(np.int64), [f"{self.number}-{group}" for group in member.tolist()]

    def logits(self, rng: np.random.Generator, labels: Integers) -> Floats:
        """Return (N, C) logits of the model."""
        noise = rng.normal(size=(len(labels), self.n_classes))
        truth = np.eye(self.n_classes)[labels]
        return {
            "good": 3 * truth + 1.2 * noise,
            "useless": noise,
            "separable": 8 * truth + 0.1 * noise,
            "constant": np.zeros_like(noise),
            "extreme": 1e4 * (2 * truth + noise),
        }[self.model]


def write_dataset(path: Path, case: Case, labels: Integers, groups: list[str]) -> None:
    """Write an ImageDataset of black images."""
    rows = range(len(labels))
    samples = [
        Sample(f"{i:016x}", int(labels[i]), groups[i], "sim", f"{i}.jpg", f"{i:064x}", {})
        for i in rows
    ]
    names = case.class_names
    counts = {name: int((labels == k).sum()) for k, name in enumerate(names)}
    summary = {"n_samples": len(labels), "n_groups": len(set(groups)), "n_per_class": counts}
    black = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    with writing(
        path,
        kind=Kind.IMAGE_DATASET,
        step="ingest_dataset",
        config=Config(),
        summary=summary | {"n_rejected": 0, "n_exact_duplicates": 0},
    ) as out:
        write_header(out, names, SIZE)
        write_samples(out, samples)
        (out / "duplicates.csv").write_text("sample_id_a,sample_id_b\n", encoding="utf-8")
        write_shards(out, [black] * len(samples), len(samples), SIZE)


def read_splits(path: Path) -> dict[str, list[int]]:
    """Return the image numbers of each split."""
    found: dict[str, list[int]] = {}
    header, *lines = (path / "splits.csv").read_text(encoding="utf-8").splitlines()
    columns = header.split(",")
    for line in lines:
        row = dict(zip(columns, line.split(","), strict=True))
        found.setdefault(row["split"], []).append(int(row["sample_id"], 16))
    return found


def write_case_logits(
    path: Path, case: Case, split: str, rows: list[int], labels: Integers, groups: list[str]
) -> Path:
    """Write the logits of a split, with gate scores that know a little."""
    rng = np.random.default_rng([case.number, len(rows)])
    logits = case.logits(rng, labels[rows])
    correct = logits.argmax(axis=1) == labels[rows]
    gate = np.where(correct, 1.0, -1.0) + 2 * rng.normal(size=len(rows))
    kind = Kind.logits_of(split)
    with writing(path, kind=kind, step="predict_logits", config=Config(), split=split) as out:
        write_logits(
            out,
            Logits(
                split=split,
                class_names=case.class_names,
                sample_ids=tuple(f"{row:016x}" for row in rows),
                labels=labels[rows],
                logits=logits.astype(np.float32),
                groups=tuple(groups[row] for row in rows),
                sources=("sim",) * len(rows),
                paths=tuple(f"{row}.jpg" for row in rows),
                gate=gate.astype(np.float32),
            ),
        )
    return path


def config_of(cls: Any, values: dict[str, Any]) -> Any:
    """Return the configuration with those of the values that it has."""
    known = cls.__dataclass_fields__
    return cls(**{name: value for name, value in values.items() if name in known})


def run_case(case: Case, root: Path) -> str:
    """Run one data set through all steps; return how it ended."""
    labels, groups = case.draw(np.random.default_rng([7, case.number]))
    write_dataset(root / "dataset", case, labels, groups)
    values = {"n_bootstrap": 100, "seed": case.number} | case.options
    try:
        split_dataset(
            config_of(SplitConfig, values), dataset=root / "dataset", splits=root / "splits"
        )
    except DataError:
        return "refused by the split"

    rows = read_splits(root / "splits")
    calib, test = (
        write_case_logits(root / split, case, split, rows[split], labels, groups)
        for split in ("VAL_CALIB", "VAL_TEST")
    )
    write_test_images(root / "val_test_images", root / "dataset")
    compare_calibrators(
        config_of(CompareCalibratorsConfig, values),
        val_calib_logits=calib,
        calibration=root / "calibration",
    )
    fit_threshold(
        config_of(FitThresholdConfig, values),
        val_calib_logits=calib,
        policy=root / "softmax",
        calibration=root / "calibration",
    )
    calibrate_gate(
        config_of(CalibrateGateConfig, values), val_calib_logits=calib, gate_policy=root / "gate"
    )
    calibrate_scrc(
        config_of(CalibrateScrcConfig, values), val_calib_logits=calib, scrc_policy=root / "scrc"
    )
    evaluate(
        config_of(EvaluateConfig, values),
        val_test_logits=test,
        gate_test_logits=test,
        softmax_policy=root / "softmax",
        gate_policy=root / "gate",
        scrc_policy=root / "scrc",
        val_test_images=root / "val_test_images",
        evaluation=root / "evaluation",
        report=root / "report.html",
    )
    if not _exported(case.number):
        return "report"

    return _export(case, values, root)


def _export(case: Case, values: dict[str, Any], root: Path) -> str:
    from components.export_bundle.config import ExportConfig
    from components.export_bundle.step import run as export_bundle
    from components.shared.models.gate import Gate, GateHead

    classifier = random_classifier("dinov2", case.class_names)
    dataset = {"dataset": verify_dir(root / "dataset", Kind.IMAGE_DATASET)}
    with writing(
        root / "checkpoint",
        kind=Kind.CHECKPOINT,
        step="train_gate",
        config=Config(),
        inputs=dataset,
    ) as out:
        classifier.save(out)
        Gate(GateHead(classifier.head.linear.in_features)).save(out)

    try:
        export_bundle(
            config_of(ExportConfig, values | {"formats": ["transformers"]}),
            checkpoint=root / "checkpoint",
            gate_checkpoint=root / "checkpoint",
            softmax_policy=root / "softmax",
            gate_policy=root / "gate",
            scrc_policy=root / "scrc",
            evaluation=root / "evaluation",
            val_test_images=root / "val_test_images",
            bundle=root / "bundle",
        )
    except InfeasibleError:
        return "report, no bundle: infeasible"
    return "report and bundle"


def _exported(number: int) -> bool:
    return number % _EXPORT_EVERY == 0


def _without_drawing() -> contextlib.AbstractContextManager[object]:
    return mock.patch("matplotlib.figure.Figure.savefig", _draw_nothing)


def _draw_nothing(figure: object, file: Any, **options: object) -> None:
    """Take the place of Figure.savefig: drawing takes half of the time, and depends on no data."""
    del figure, options
    stub = '<svg viewBox="0 0 1 1"></svg>'
    if isinstance(file, io.StringIO):
        file.write(stub)
    elif isinstance(file, io.BytesIO):
        file.write(stub.encode())
    else:
        Path(file).write_text(stub, encoding="utf-8")


def main() -> None:
    """Print how the data sets ended, and the first traceback of each kind of death."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first data set")
    parsed = parser.parse_args()
    ended: Counter[str] = Counter()
    shown: set[str] = set()
    started = time.monotonic()
    for number in range(parsed.first, parsed.first + parsed.count):
        case = Case.of(number)
        drawn = contextlib.nullcontext() if _exported(number) else _without_drawing()
        with tempfile.TemporaryDirectory() as folder, drawn:
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    outcome = run_case(case, Path(folder))
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                outcome = f"died: {type(error).__name__} in {last.name}"
                if outcome not in shown:
                    shown.add(outcome)
                    print(case, flush=True)
                    print(f"  {outcome}: {str(error)[:300]}", flush=True)
        ended[outcome] += 1
        ended[f"{case.n_classes} classes, {outcome.split(':')[0].split(' in ')[0]}"] += 1
        if number % 100 == 99:
            print(number + 1, f"{time.monotonic() - started:.0f} s", flush=True)
    for outcome, count in sorted(ended.items()):
        print(f"{count:5d} {outcome}")


if __name__ == "__main__":
    main()
