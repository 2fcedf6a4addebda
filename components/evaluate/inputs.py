"""Inputs of the evaluation: fitted policies with the logits they decide on, and the images."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate.config import EvaluateConfig
from components.evaluate.stage2 import Stage2Logits, read_stage2
from components.shared.contracts.artifacts import Manifest
from components.shared.contracts.errors import ArtifactError, DataError
from components.shared.data.attributes import resolved_names, sliceable_columns
from components.shared.data.val_test_images import ValTestImages
from components.shared.policies.early_exit import EarlyExit, read_early_exit
from components.shared.policies.logits import Logits, read_logits
from components.shared.policies.policy import Infeasible, Policy, argmax_policy
from components.shared.policies.policy_artifact import (
    read_distilled_policy,
    read_fit,
    read_policy_or_infeasible,
)
from components.shared.policies.targets import ALL_ANSWERS
from components.shared.stats.slices import Slice, find_slices


@dataclass(frozen=True)
class FittedPolicy:
    """A policy and the logits of VAL_TEST it decides on.

    Attributes:
        logits: of VAL_TEST.
        policy: fitted on VAL_CALIB.
        early_exit: of a multi-view model, where it has one.
        fit: fit.json, the record of the fit; empty where there is none.
    """

    logits: Logits
    policy: Policy
    early_exit: EarlyExit | None = None
    fit: Mapping[str, Any] = field(default_factory=dict)

    @property
    def uncalibrated_reason(self) -> str:
        """Why the probabilities have no calibrator; empty where there is no reason."""
        return str(self.fit.get("uncalibrated_reason") or "")

    @property
    def certified(self) -> tuple[str, ...]:
        """The answers with certificates of their own, or `ALL_ANSWERS` alone."""
        certificates = self.fit.get("certificates", ())
        of_answers = tuple(name for name in self.policy.outcomes.names if name in certificates)
        return of_answers or (ALL_ANSWERS,)


@dataclass(frozen=True)
class EvaluationInputs:
    """All inputs of one run.

    Attributes:
        images: of VAL_TEST.
        policies: by kind, where there is a policy; never empty.
        infeasible: by kind, the reason why it could not be fitted.
        distilled_head: the head of the full image alone, of a multi-view model that has one.
        manifests: of all input artifacts and of the data set, by name.
    """

    images: ValTestImages
    policies: dict[str, FittedPolicy]
    infeasible: dict[str, str]
    distilled_head: FittedPolicy | None
    manifests: dict[str, Manifest]


def read_inputs(
    config: EvaluateConfig,
    policy_paths: Mapping[str, Path | None],
    val_test_logits: Path,
    gate_test_logits: Path | None,
    val_test_images: Path,
) -> EvaluationInputs:
    """Verify and read all input artifacts.

    Where no policy at all could be fitted, the more probable class of the model stands in as
    "softmax", so that an evaluation is always complete.

    Args:
        config: names the policy to be bundled and the positive class.
        policy_paths: Policy artifacts by kind of policy; None where there is none.
        val_test_logits: of the model.
        gate_test_logits: of the model with the gate, for the policy "gate".
        val_test_images: thumbnails and labels of the images.

    Raises:
        LeakageViolationError: logits of another split.
        ArtifactError: a policy of another kind than its input's name says, or two logits artifacts
            of different samples, or no artifact for the policy to be bundled.
    """
    logits, manifest = read_logits(val_test_logits, "VAL_TEST")
    manifests = {"val_test_logits": manifest}
    gate_logits = logits

    if gate_test_logits is not None:
        gate_logits, manifests["gate_test_logits"] = read_logits(gate_test_logits, "VAL_TEST")
        if gate_logits.sample_ids != logits.sample_ids:
            raise ArtifactError(
                "val_test_logits and gate_test_logits hold different samples; use both of one run"
            )

    if policy_paths[config.policy] is None:
        raise ArtifactError(
            f"policy={config.policy!r} cannot be evaluated, no such policy was given"
        )

    policies: dict[str, FittedPolicy] = {}
    infeasible: dict[str, str] = {}
    distilled_head = None

    for kind, path in policy_paths.items():
        if path is None:
            continue

        fitted, manifests[f"{kind}_policy"] = read_policy_or_infeasible(path)
        if fitted.kind != kind:
            raise ArtifactError(
                f"{path}: holds a policy of kind {fitted.kind!r}, expected {kind!r}"
            )

        if isinstance(fitted, Infeasible):
            infeasible[kind] = fitted.reason
            continue

        own_logits = gate_logits if kind == "gate" else logits
        policies[kind] = FittedPolicy(own_logits, fitted, read_early_exit(path), read_fit(path))
        head_policy = read_distilled_policy(path)
        if distilled_head is None and head_policy is not None and logits.distilled is not None:
            distilled_head = FittedPolicy(replace(logits, logits=logits.distilled), head_policy)

    if not policies:
        argmax = argmax_policy(config.outcomes(logits.class_names))
        policies[argmax.kind] = FittedPolicy(logits, argmax)

    images = ValTestImages.open(val_test_images)
    manifests |= {"val_test_images": images.manifest, "dataset": images.dataset}

    return EvaluationInputs(images, policies, infeasible, distilled_head, manifests)


def check_inputs(config: EvaluateConfig, inputs: EvaluationInputs) -> None:
    """Refuse inputs of different runs; samples are joined by id.

    Raises:
        ArtifactError: logits, policies and images do not belong together.
        DataError: VAL_TEST has images of one class only.
    """
    for fitted in inputs.policies.values():
        problems = [
            *_class_problems(config, fitted, inputs.images),
            *_sample_problems(fitted.logits, inputs.images),
        ]
        if problems:
            raise ArtifactError("; ".join(problems) + ": use inputs of one run")

        _check_outcomes(fitted)


def slices_of(config: EvaluateConfig, inputs: EvaluationInputs) -> tuple[Slice, ...]:
    """Return the slices of the images by what is recorded of them; none of former artifacts.

    The inputs were checked, so that all policies decide on the same images.

    Raises:
        ConfigError: `slices` names what is no column, or is a text of more than 20 values.
    """
    images = inputs.images
    logits = next(iter(inputs.policies.values())).logits
    positions = {sample_id: row for row, sample_id in enumerate(images.labels)}
    rows = [positions[sample_id] for sample_id in logits.sample_ids]
    recorded = {name: [values[row] for row in rows] for name, values in images.recorded.items()}

    columns = sliceable_columns(recorded, "samples.csv of val_test_images")
    names = None if config.slices is None else resolved_names(config.slices, columns)
    return find_slices(columns, logits.groups, names)


def stage2_of(config: EvaluateConfig, inputs: EvaluationInputs) -> Stage2Logits | None:
    """Return the logits of stage 2, None where there are none; raises as `read_stage2`."""
    if not config.stage2_logits:
        return None
    logits = next(iter(inputs.policies.values())).logits
    return read_stage2(config.stage2_logits, logits.class_names, logits.sample_ids)


def _check_outcomes(fitted: FittedPolicy) -> None:
    """Raise DataError where VAL_TEST has images of one outcome only."""
    outcomes, truth = fitted.policy.outcomes, fitted.logits.truth(fitted.policy.outcomes)
    present = np.unique(truth).tolist()
    if len(present) < 2:
        raise DataError(
            f"all {len(truth)} images of VAL_TEST are {outcomes.names[present[0]]!r}, an evaluation"
            f" needs two of {list(outcomes.names)}; use more data or a larger test_fraction"
        )


def _class_problems(
    config: EvaluateConfig, fitted: FittedPolicy, images: ValTestImages
) -> list[str]:
    problems = []
    expected = list(fitted.logits.class_names)
    named = {"policy": fitted.policy.class_names, "val_test_images": images.class_names}
    for name, found in named.items():
        if list(found) != expected:
            problems.append(f"{name} has class_names {list(found)}, logits have {expected}")

    wanted, found_outcomes = config.outcomes(expected), fitted.policy.outcomes
    if wanted.names != found_outcomes.names:
        problems.append(
            f"the policy decides between {list(found_outcomes.names)}, the configuration between"
            f" {list(wanted.names)}"
        )

    return problems


def _sample_problems(logits: Logits, images: ValTestImages) -> list[str]:
    unknown, differing = [], []
    for sample_id, label in zip(logits.sample_ids, logits.labels.tolist(), strict=True):
        if sample_id not in images.labels:
            unknown.append(sample_id)
        elif images.labels[sample_id] != label:
            differing.append(sample_id)

    problems = []
    if unknown:
        problems.append(
            f"{len(unknown)} sample(s) of the logits are not in val_test_images, first {unknown[0]}"
        )

    if differing:
        problems.append(
            f"{len(differing)} label(s) of the logits differ from those of val_test_images,"
            f" first {differing[0]}"
        )

    return problems
