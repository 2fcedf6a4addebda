"""Do certified risks hold for images in groups? Every policy through its own step.

`python -m tests.simulations.grouped [--draws 200]` draws VAL_CALIB from a population of groups of
very different size and difficulty, runs the calibration step on the artifact, and compares the
policy's risk on a large sample of the population with alpha: for a random image of a random group,
and for a random image. Printed are the fractions of draws in which each exceeds alpha; delta is
allowed of the one that is certified.
"""

import argparse
import contextlib
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from components.calibrate_gate.config import CalibrateGateConfig
from components.calibrate_gate.step import run as calibrate_gate
from components.calibrate_scrc.config import CalibrateScrcConfig
from components.calibrate_scrc.step import run as calibrate_scrc
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.contracts.config import Config
from components.shared.policies.logits import Logits, write_logits
from components.shared.policies.policy import Infeasible, Policy
from components.shared.policies.policy_artifact import read_policy_or_infeasible
from components.shared.stats.bootstrap import membership
from components.shared.stats.metrics import Bools, sigmoid

DELTA = 0.1
MAX_GROUP_IMAGES = 30
_N_TRUTH_GROUPS = 6000


@dataclass(frozen=True)
class Population:
    """Groups of images; `long_videos`: a fifth has 16 to 30 images, and twice as many errors.

    `flat_risk`: the error rate of every image, whatever its confidence; None: it falls with it.
    """

    n_classes: int
    long_videos: bool = False
    flat_risk: float | None = None

    def draw(self, rng: np.random.Generator, n_groups: int) -> Logits:
        """Return logits with gate scores of so many groups."""
        hard = rng.random(n_groups) < 0.2
        small = 1 + np.minimum(rng.geometric(0.25, n_groups), 14)
        large = rng.integers(16, MAX_GROUP_IMAGES + 1, n_groups)
        size = np.where(hard & self.long_videos, large, small)
        member = np.repeat(np.arange(n_groups), size)
        count = len(member)

        confidence = np.abs(rng.normal(0, 2.2, count)) + 0.01
        error = 2 * sigmoid(-1.0 - 1.1 * confidence + rng.normal(0, 0.5, n_groups)[member])
        error = error * np.where(hard[member], 1.0, 0.4)
        if self.flat_risk is not None:
            error = np.full(count, self.flat_risk)

        prevalence = rng.dirichlet(np.full(self.n_classes, 0.7), n_groups)
        uniform = rng.random(count)
        labels = (prevalence.cumsum(axis=1)[member] < uniform[:, None]).sum(axis=1)
        labels = np.minimum(labels, self.n_classes - 1)
        wrong = rng.random(count) < error
        shift = rng.integers(1, self.n_classes, count)
        decided = np.where(wrong, (labels + shift) % self.n_classes, labels)
        others = -2 * rng.random((count, self.n_classes)) * (self.n_classes > 2)
        others[np.arange(count), decided] = confidence
        gate = 0.6 * confidence + rng.normal(0, 0.5, count)

        return Logits(
            split="VAL_CALIB",
            class_names=_class_names(self.n_classes),
            sample_ids=tuple(f"{row:016x}" for row in range(count)),
            labels=labels.astype(np.int64),
            logits=others.astype(np.float32),
            groups=tuple(f"g{group:06d}" for group in member.tolist()),
            sources=("sim",) * count,
            paths=("p",) * count,
            gate=gate.astype(np.float32),
        )


def _class_names(n_classes: int) -> tuple[str, ...]:
    return (*("None", "Stop", "Yield", "Priority")[: n_classes - 1], "Roadwork")


@dataclass(frozen=True)
class Setting:
    """A policy with its options on a population, alpha included."""

    name: str
    population: Population
    options: dict[str, Any]
    n_groups: int = 300


def settings() -> list[Setting]:
    """Return all policies on binary data and five classes, and where the unit matters."""
    of_two, of_five = Population(2), Population(5)
    videos = {"long_videos": True}
    found = []
    for name, population in (("2 classes", of_two), ("5 classes", of_five)):
        found += [
            Setting(f"scrc, {name}", population, {"policy": "scrc", "alpha": 0.1}),
            Setting(f"gate, {name}", population, {"policy": "gate", "alpha": 0.1}),
            Setting(
                f"scrc class_wise, {name}",
                population,
                {"policy": "scrc", "alpha": 0.15, "class_wise": True},
                n_groups=1200,
            ),
            Setting(
                f"scrc set_valued, {name}",
                population,
                {"policy": "scrc", "alpha": 0.1, "set_valued": True, "min_coverage": 0.6},
            ),
            Setting(
                f"scrc min_coverage, {name}",
                population,
                {"policy": "scrc", "alpha": 0.1, "min_coverage": 0.3},
            ),
            Setting(
                f"scrc, risk .11 everywhere, {name}",
                Population(population.n_classes, flat_risk=0.11),
                {"policy": "scrc", "alpha": 0.1},
            ),
        ]
    fnr = {"risk": "fnr", "alpha": 0.1}
    per_image = {"max_group_images": MAX_GROUP_IMAGES, "alpha": 0.15}
    found += [
        Setting("scrc fnr, 2 classes", of_two, {"policy": "scrc"} | fnr),
        Setting("gate fnr, 2 classes", of_two, {"policy": "gate"} | fnr),
    ]
    for kind in ("scrc", "gate"):
        for n_classes in (2, 5):
            found += [
                Setting(
                    f"{kind}, long videos, {n_classes} classes",
                    Population(n_classes, **videos),
                    {"policy": kind, "alpha": 0.15},
                ),
                Setting(
                    f"{kind} max_group_images, long videos, {n_classes} classes",
                    Population(n_classes, **videos),
                    {"policy": kind} | per_image,
                ),
            ]
    return found


def _wrong_and_counted(policy: Policy, logits: Logits, risk: str) -> tuple[Bools, Bools]:
    truth = logits.truth(policy.outcomes)
    held = policy.answer_sets(logits.logits)[np.arange(len(truth)), truth]
    counted = truth == 1 if risk == "fnr" else np.ones(len(truth), dtype=bool)
    return ~held, counted & policy.answers(logits.logits, logits.gate)


def risks(policy: Policy, logits: Logits, risk: str) -> tuple[float, float, float]:
    """Return (risk per group, risk per image, coverage per group)."""
    wrong, accepted = _wrong_and_counted(policy, logits, risk)
    member = membership(logits.groups, len(logits.groups))
    per_group = 1 / np.bincount(member)[member]
    answered = policy.answers(logits.logits, logits.gate)
    found = [
        float((weight * (wrong & accepted)).sum() / max((weight * accepted).sum(), 1e-12))
        for weight in (per_group, np.ones(len(member)))
    ]
    return found[0], found[1], float((per_group * answered).sum() / per_group.sum())


def simulate(setting: Setting, draws: int) -> tuple[float, float, float, float, float]:
    """Return fractions of draws: infeasible, risk per group and per image above alpha, coverage
    below its bound; and the mean coverage per group, 0 where nothing is certified.
    """
    truth = setting.population.draw(np.random.default_rng(12345), _N_TRUTH_GROUPS)
    rng = np.random.default_rng([draws, len(setting.name)])
    rows = []
    for draw in range(draws):
        logits = setting.population.draw(rng, setting.n_groups)
        # The level is for people; finding it takes most of the time.
        with mock.patch("components.shared.policies.targets.best_level", return_value=1.0):
            found = _fit(setting, logits, draw)
        if isinstance(found, Infeasible):
            rows.append((1.0, 0.0, 0.0, 0.0, 0.0))
            continue
        alpha = setting.options["alpha"]
        group, image, coverage = risks(found, truth, setting.options.get("risk", "error"))
        bound = getattr(found, "coverage_lower_bound", 0.0)
        rows.append((0.0, group > alpha, image > alpha, coverage < bound, coverage))
    values = np.array(rows, dtype=float).mean(axis=0).tolist()
    return values[0], values[1], values[2], values[3], values[4]


def _fit(setting: Setting, logits: Logits, seed: int) -> Policy | Infeasible:
    options = {"calibrator": "temperature", "seed": seed} | setting.options
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path, fitted = Path(folder) / "logits", Path(folder) / "policy"
        kind = Kind.logits_of("VAL_CALIB")
        with writing(
            path, kind=kind, step="predict_logits", config=Config(), split="VAL_CALIB"
        ) as out:
            write_logits(out, logits)
        if options["policy"] == "gate":
            calibrate_gate(
                CalibrateGateConfig(**options), val_calib_logits=path, gate_policy=fitted
            )
        else:
            calibrate_scrc(
                CalibrateScrcConfig(**options), val_calib_logits=path, scrc_policy=fitted
            )
        return read_policy_or_infeasible(fitted)[0]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--draws", type=int, default=300)
    parsed = parser.parse_args()
    bound = DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / parsed.draws)
    print(f"{parsed.draws} draws, delta {DELTA}: violations may be {bound:.3f}\n")
    print(
        "| policy | alpha | groups | infeasible | violated per group | violated per image |"
        " coverage below its bound | coverage |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for setting in settings():
        values = simulate(setting, parsed.draws)
        shown = " | ".join(f"{value:.3f}" for value in values)
        name, alpha = setting.name, setting.options["alpha"]
        print(f"| {name} | {alpha:g} | {setting.n_groups} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
