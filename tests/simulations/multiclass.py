"""Violations of the guarantees of multiclass policies, through the pipeline's own steps.

`python -m tests.simulations.multiclass [--draws 200]` draws grouped VAL_CALIB logits of several
classes from a population whose labels are known for 100,000 groups, fits each policy by its step,
and prints how often the true risk exceeded alpha, or the true coverage fell below its bound.

Groups have 1 to 8 images of one place. A place has a class, a number of images that grows with its
difficulty, and images that resemble each other; logits are twice as extreme as the truth. The true
risk is that of a random image of a random group.
"""

import argparse
import contextlib
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.calibrate_gate.config import CalibrateGateConfig
from components.calibrate_gate.step import run as calibrate_gate
from components.calibrate_scrc.config import CalibrateScrcConfig
from components.calibrate_scrc.step import run as calibrate_scrc
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Policy, SelectivePolicy
from components.shared.policies.policy_artifact import read_policy_or_infeasible
from components.shared.stats.metrics import Bools, Floats
from tests.logits_artifacts import multiclass_artifact

DELTA = 0.1
_N_TEST_GROUPS = 100_000
# Options by name; the gate's policy where "gate" is said.
POLICIES: dict[str, dict[str, Any]] = {
    "scrc": {"policy": "scrc", "alpha": 0.1},
    "scrc, class_wise": {"policy": "scrc", "alpha": 0.15, "class_wise": True},
    "scrc, sets": {"policy": "scrc", "alpha": 0.1, "set_valued": True, "min_coverage": 0.6},
    "scrc, min_coverage": {"policy": "scrc", "alpha": 0.1, "min_coverage": 0.3},
    "gate": {"policy": "gate", "alpha": 0.1},
}


@dataclass(frozen=True)
class Validity:
    """Over all draws: fractions infeasible, with a true risk above alpha (of any class with
    `class_wise`), with a true coverage below its bound; mean coverage of the feasible.
    """

    infeasible: float
    violations: float
    coverage_too_low: float
    coverage: float


def draw(rng: np.random.Generator, n_groups: int, n_classes: int, *, one_each: bool) -> Logits:
    """Draw VAL_CALIB, or of each group one random image where that is all that is asked."""
    place = rng.normal(size=(n_groups, n_classes)) * 4
    ease = rng.exponential(size=n_groups)
    sizes = np.ones(n_groups, np.int64)
    if not one_each:
        sizes += np.minimum(rng.poisson(3 / (1 + ease)), 7)
    member = np.repeat(np.arange(n_groups), sizes)
    count = len(member)

    seen = ease[member, None] * (place[member] + rng.normal(size=(count, n_classes)))
    # Gumbel's maximum is a draw from the softmax; logits say twice as much as they know.
    labels = (seen + rng.gumbel(size=seen.shape)).argmax(axis=1)
    logits = 2 * seen
    wrong = logits.argmax(axis=1) != labels
    gate = np.where(wrong, -1, 1) * 1.5 + rng.normal(size=count)

    return Logits(
        split="VAL_CALIB",
        class_names=tuple(f"class{number}" for number in range(n_classes)),
        sample_ids=tuple(f"s{row}" for row in range(count)),
        labels=labels.astype(np.int64),
        logits=logits.astype(np.float32),
        groups=tuple(f"g{group}" for group in member),
        sources=("s",) * count,
        paths=("p",) * count,
        gate=gate.astype(np.float32),
    )


def errors(policy: Policy, test: Logits) -> tuple[Bools, Bools]:
    """Return (N,) which images are answered, and which answers miss the truth."""
    sets = policy.answer_sets(test.logits)
    missed = ~sets[np.arange(len(sets)), test.truth(policy.outcomes)]
    return policy.answers(test.logits, test.gate), missed


def highest_risk(policy: Policy, test: Logits, *, class_wise: bool) -> tuple[float, float]:
    """Return the coverage, and the risk among the answered: the highest of any answer's."""
    answered, missed = errors(policy, test)
    decision = policy.decision(test.logits)
    parts = [decision == number for number in range(len(policy.outcomes.names))]
    rows = [answered & part for part in parts] if class_wise else [answered]
    return float(answered.mean()), max(float(missed[r].mean()) for r in rows if r.any())


def simulate(name: str, n_groups: int, n_classes: int, draws: int, seed: int = 0) -> Validity:
    """Fit a policy of `POLICIES` on `draws` data sets of so many groups."""
    options = {"calibrator": "temperature", "delta": DELTA} | POLICIES[name]
    test = draw(np.random.default_rng(seed), _N_TEST_GROUPS, n_classes, one_each=True)
    found: list[SelectivePolicy | None] = []

    for number in range(draws):
        rng = np.random.default_rng([seed, n_groups, n_classes, number + 1])
        calib = draw(rng, n_groups, n_classes, one_each=False)
        found.append(_fitted(options | {"seed": number}, calib))

    policies = [policy for policy in found if policy is not None]
    class_wise = bool(options.get("class_wise"))
    results: Floats = np.array(
        [
            (*highest_risk(policy, test, class_wise=class_wise), policy.coverage_lower_bound)
            for policy in policies
        ]
    ).reshape(-1, 3)
    coverage, risk, lower = results.T

    return Validity(
        infeasible=1 - len(policies) / draws,
        violations=float((risk > options["alpha"]).sum() / draws),
        coverage_too_low=float((coverage < lower).sum() / draws),
        coverage=float(coverage.mean()) if len(policies) else float("nan"),
    )


def _fitted(options: dict[str, Any], calib: Logits) -> SelectivePolicy | None:
    """Return the policy that the step writes; None where it is infeasible."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        root = Path(folder)
        logits = multiclass_artifact(root / "logits", calib)
        if options["policy"] == "gate":
            gate = CalibrateGateConfig(**options)
            calibrate_gate(gate, val_calib_logits=logits, gate_policy=root / "policy")
        else:
            scrc = CalibrateScrcConfig(**options)
            calibrate_scrc(scrc, val_calib_logits=logits, scrc_policy=root / "policy")
        policy, _ = read_policy_or_infeasible(root / "policy")
        return policy if isinstance(policy, SelectivePolicy) else None


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--draws", type=int, default=200)
    parsed = parser.parse_args()
    print(
        "| policy | classes | groups | infeasible | violated | coverage bound broken | coverage |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in POLICIES:
        for n_classes, n_groups in ((5, 400), (5, 1500), (20, 1500)):
            o = simulate(name, n_groups, n_classes, parsed.draws)
            print(
                f"| {name} | {n_classes} | {n_groups} | {o.infeasible:.3f} | {o.violations:.3f} |"
                f" {o.coverage_too_low:.3f} | {o.coverage:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
