"""Certificates and metrics of a run's INT8 form: `python -m tests.studies.int8 FOLDER...`.

FOLDER is what a run with `--formats transformers,onnx,onnx_int8` has printed, of which no step came
from the cache. Certificates are of either form, each on its own logits of VAL_CALIB; metrics on
VAL_TEST have paired differences over groups. Last comes how far the INT8 form moves where float
sums are added in another order. docs/results/formats.md names the runs.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from components.shared.contracts.formats import ONNX, ONNX_INT8
from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits
from components.shared.policies.policy import Policy, SelectivePolicy
from components.shared.policies.policy_artifact import FIT, read_fit
from components.shared.serving.bundle import Bundle, open_bundle
from components.shared.serving.formats.onnx_format import MODEL, read_format
from components.shared.stats.metrics import Floats, Integers

_BATCH = 16


def tables(run: Path) -> Iterator[str]:
    """Yield lines of Markdown about the forms of a run's bundle."""
    bundle = open_bundle(run / "export-bundle/bundle")
    if ONNX_INT8 not in bundle.forms:
        yield f"{ONNX_INT8} is refused: {bundle.refused_formats[ONNX_INT8]}"
        return

    found = read_format(bundle.path / ONNX_INT8, bundle.policy.outcomes)
    made, compared = found.quantisation, found.metrics
    sizes = ", ".join(f"{form} {_megabytes(bundle, form):.1f} MB" for form in (ONNX, ONNX_INT8))
    yield (
        f"{sizes}; {len(made['float_layers'])} of {made['n_layers']} layers in float, ranges of"
        f" {made['n_images']} images. {compared['n_other_answers']} of {compared['n_images']}"
        f" images of {compared['n_groups']} groups are answered otherwise.\n"
    )

    yield "| form | certificate | errors among tested, answered groups | coverage on VAL_CALIB |"
    yield "|---|---|---|---|"
    float_fit = read_fit(run / f"calibrate-{bundle.policy.kind}/{bundle.policy.kind}_policy")
    for form, fit in ((ONNX, float_fit), (ONNX_INT8, _own_fit(bundle))):
        yield f"| `{form}` | {_certificate(bundle.policy_of(form), fit)} |"

    yield "\n| metric on VAL_TEST | float | INT8 | difference | 95 %, paired over groups |"
    yield "|---|---|---|---|---|"
    for name, row in compared["metrics"].items():
        yield f"| {name} | {_cells(row)} |"


def other_sums(bundle: Bundle, pixels: npt.NDArray[np.uint8]) -> Iterator[str]:
    """Yield lines of Markdown: how far INT8 moves where float sums are added in another order.

    ONNX Runtime without its graph optimisations stands for another CPU or another version: it sums
    in another order, and what it computes with integers is the same. Margins (differences of the
    first two logits) are compared by their root mean square, in standard deviations of the float
    graph's.
    """
    own, other = GraphOptimizationLevel.ORT_ENABLE_ALL, GraphOptimizationLevel.ORT_DISABLE_ALL
    (float_, _), (float_other, _) = (_run(bundle, ONNX, level, pixels) for level in (own, other))
    (int8, decided), (int8_other, others) = (
        _run(bundle, ONNX_INT8, level, pixels) for level in (own, other)
    )
    rows = [
        ("float, other sums", float_other - float_),
        ("INT8", int8 - float_),
        ("INT8, other sums, from INT8", int8_other - int8),
    ]
    yield f"\n| margins of {len(pixels)} images of VAL_TEST | difference |\n|---|---|"
    for name, difference in rows:
        yield f"| {name} | {np.sqrt((difference**2).mean()) / float_.std():.3f} |"
    yield f"\nDecisions of INT8 that other sums change: {int((decided != others).sum())}"


def _run(
    bundle: Bundle, form: str, level: GraphOptimizationLevel, pixels: npt.NDArray[np.uint8]
) -> tuple[Floats, Integers]:
    """Return margins (N,) and codes of decisions (N,) of a form's graph."""
    options = SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    session = InferenceSession(
        bundle.path / form / MODEL, options, providers=["CPUExecutionProvider"]
    )
    parts = [pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH)]
    found = [session.run(["logits", "decision"], {"images": part}) for part in parts]
    logits = np.concatenate([logits for logits, _ in found]).astype(np.float64)
    return logits[:, 1] - logits[:, 0], np.concatenate([decision for _, decision in found])


def _val_test(run: Path, image_size: int) -> npt.NDArray[np.uint8]:
    """Return the images (N, S, S, 3) of VAL_TEST of a run."""
    data = Dataset.open(run / "ingest-dataset/dataset").resized(image_size)
    ids = read_splits(run / "split-dataset/splits").ids("VAL_TEST")
    return data.images(np.array([data.index[sample_id] for sample_id in ids]))


def _own_fit(bundle: Bundle) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle.path / ONNX_INT8 / FIT).read_text(encoding="utf-8"))
    return found


def _certificate(policy: Policy, fit: dict[str, Any]) -> str:
    """Return the guarantee of a policy and the counts that it rests on, as cells of a table."""
    if not isinstance(policy, SelectivePolicy):
        return "none, the policy has no guarantee | | "
    counts = ", ".join(
        f"{entry['n_errors']} of {entry['n_accepted']}" for entry in fit["certificates"].values()
    )
    promised = f"{policy.risk} at most {policy.alpha:g} with probability {1 - policy.delta:g}"
    return (
        f"{promised} | {counts} | {fit['coverage']:.3f}, at least {fit['coverage_lower_bound']:.3f}"
    )


def _cells(row: dict[str, Any]) -> str:
    """Return both values, their difference and its interval."""
    values = ["none" if row[form] is None else f"{row[form]:.4f}" for form in ("float", "int8")]
    difference, bounds = row["difference"], row["difference_95"]
    values.append("none" if difference is None else f"{difference:+.4f}")
    values.append("none" if bounds is None else f"{bounds[0]:+.4f} to {bounds[1]:+.4f}")
    return " | ".join(values)


def _megabytes(bundle: Bundle, form: str) -> float:
    return sum(file.stat().st_size for file in (bundle.path / form).iterdir()) / 1e6


def main() -> None:
    """Print the tables of each run."""
    parser = argparse.ArgumentParser(prog="python -m tests.studies.int8", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+", metavar="FOLDER")
    for folder in parser.parse_args().folder:
        print(f"\n### {folder.name}\n")
        for line in tables(folder):
            print(line, flush=True)

        bundle = open_bundle(folder / "export-bundle/bundle")
        if ONNX_INT8 in bundle.forms:
            for line in other_sums(bundle, _val_test(folder, bundle.spec.image_size)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
