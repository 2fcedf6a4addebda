"""Certificates and metrics of a run's INT8 form: `python -m tests.studies.int8 FOLDER...`.

FOLDER is what a run with `--formats transformers,onnx,onnx_int8` has printed. Certificates are of
either form, each on its own logits of VAL_CALIB; metrics on VAL_TEST have paired differences over
groups. docs/results/formats.md names the runs.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.shared.contracts.formats import ONNX, ONNX_INT8
from components.shared.policies.policy import Policy, SelectivePolicy
from components.shared.policies.policy_artifact import FIT, read_fit
from components.shared.serving.bundle import Bundle, open_bundle
from components.shared.serving.formats.onnx_format import read_format


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


if __name__ == "__main__":
    main()
