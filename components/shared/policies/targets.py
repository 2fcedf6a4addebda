"""Certification of a policy's targets, and the reason where a target cannot be certified."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from components.shared.contracts.listing import first_of
from components.shared.policies.calibration_split import CalibrationSplit
from components.shared.policies.certify import Certificate, Samples, best_level, certify
from components.shared.policies.config import SelectiveConfig
from components.shared.policies.policy import Infeasible
from components.shared.stats.bootstrap import membership
from components.shared.stats.bounds import fewest_samples
from components.shared.stats.group_needs import least_certifiable

ALL_ANSWERS = "all"


@dataclass(frozen=True)
class Target:
    """One certificate that a policy needs.

    name: the answer it is about, or `ALL_ANSWERS`; tuning and calibration: samples of both parts.
    """

    name: str
    tuning: Samples
    calibration: Samples

    @property
    def n_groups(self) -> int:
        """Number of tested groups with a sample that counts."""
        samples = self.calibration
        if samples.member is None:
            return int(samples.counted.sum())
        return len(np.unique(samples.member[samples.counted]))


@dataclass(frozen=True)
class Certified:
    """Certificates of the targets by name, each at level `delta`.

    uncertified: names of the answers without a certificate, which are never given.
    """

    certificates: Mapping[str, Certificate]
    delta: float
    uncertified: tuple[str, ...] = ()

    @property
    def coverage(self) -> float:
        """Fraction of the calibration samples that are answered."""
        return sum(certificate.coverage for certificate in self.certificates.values())

    @property
    def coverage_lower_bound(self) -> float:
        """Lower bound of the coverage, each certificate's at `delta`."""
        return sum(certificate.coverage_lower_bound for certificate in self.certificates.values())


def target_of(
    config: SelectiveConfig,
    name: str,
    samples: Samples,
    groups: Sequence[str],
    split: CalibrationSplit,
) -> Target:
    """Return the target of that name on both parts of VAL_CALIB.

    Args:
        config: says whether the risk is that of a random image, or of one of a random group.
        name: the answer it is about, or `ALL_ANSWERS`.
        samples: all images of VAL_CALIB.
        groups: (N,) group name of each.
        split: both parts.
    """
    member = membership(groups, len(groups))

    if config.max_group_images is None:
        # A threshold is proposed for what is tested: a random image of a random group.
        sizes = np.bincount(member[split.tuning], minlength=member.max() + 1)
        weight = 1 / sizes[member[split.tuning]]
        tuning = replace(samples.take(split.tuning), weight=weight / weight.mean())
        return Target(name, tuning, samples.take(split.calibration))

    whole = replace(samples, member=member, max_group_images=config.max_group_images)
    return Target(name, whole.take(split.tuning), whole.take(split.calibration_images))


def certify_targets(
    config: SelectiveConfig, targets: Sequence[Target], kind: str, *, need_all: bool = True
) -> Certified | Infeasible:
    """Certify every target at `config.alpha`; risk and coverage share `config.delta` among them.

    Each has its part of delta whether or not the others are certified, so that those which are hold
    together with probability 1 - delta.

    Args:
        config: risk, levels and method.
        targets: the certificates that the policy needs.
        kind: kind of the policy, for `Infeasible`.
        need_all: whether the policy needs every target; else one of them suffices.
    """
    delta, method = config.risk_delta / len(targets), config.multiple_testing
    certificates: dict[str, Certificate] = {}
    failed: list[Target] = []

    for target in targets:
        found = certify(
            target.tuning,
            target.calibration,
            alpha=config.alpha,
            delta=delta,
            coverage_delta=delta,
            method=method,
        )
        if found is None:
            failed.append(target)
        else:
            certificates[target.name] = found

    if failed and (need_all or not certificates):
        levels = [
            best_level(t.tuning, t.calibration, delta=delta, method=method, start=config.alpha)
            for t in failed
        ]
        # All must be certified, or the most promising one.
        level = max(levels) if need_all else min(levels)
        n_groups = [target.n_groups for target in failed]
        least = min(n_groups) if need_all else max(n_groups)
        return Infeasible(kind, _uncertified(config, failed, delta, level, least), level)

    uncertified = tuple(target.name for target in failed)
    return check_coverage(config, Certified(certificates, delta, uncertified), kind)


def check_coverage(
    config: SelectiveConfig, certified: Certified, kind: str
) -> Certified | Infeasible:
    """Return `certified`, or `Infeasible` where its coverage may be below `min_coverage`."""
    lower = certified.coverage_lower_bound
    if lower >= config.min_coverage:
        return certified

    never = first_of(certified.uncertified)
    reason = (
        f"alpha={config.alpha:g} is certified at coverage {certified.coverage:.4f}, whose lower"
        f" bound {lower:.4f} is below min_coverage={config.min_coverage:g}"
        f"{f' (without a certificate: {never})' if never else ''}; increase alpha or provide more"
        " calibration data"
    )

    return Infeasible(kind, reason, config.alpha)


def too_few_for_sets(config: SelectiveConfig, n_samples: int, kind: str) -> Infeasible:
    """Return the reason why `n_samples` cannot certify even sets that are never wrong.

    The best level is that of so many samples without an error.
    """
    level = least_certifiable(n_samples, config.risk_delta)
    reason = _reason(config, "prediction sets", n_samples, config.risk_delta, level)
    return Infeasible(kind, reason, level)


def _uncertified(
    config: SelectiveConfig, failed: Sequence[Target], delta: float, level: float, n_groups: int
) -> str:
    """Return the message for targets without a certificate at `delta`.

    `level` is the best certifiable one, of `n_groups` tested groups.
    """
    risk = "error rate" if config.risk == "error" else "false negative rate"
    names = first_of((target.name for target in failed), separator=" and ")
    of_answer = "" if failed[0].name == ALL_ANSWERS else f" of the answer {names}"
    return _reason(config, f"the {risk}{of_answer}", n_groups, delta, level)


def _reason(config: SelectiveConfig, risk: str, n_groups: int, delta: float, level: float) -> str:
    """Return why `risk` cannot be certified from so many tested groups, and what would help."""
    least = fewest_samples(config.alpha, delta)
    remedies = []
    if n_groups < least:
        needed = ceil(least / (1 - config.tuning_fraction))
        remedies.append(
            f"more than {needed} groups in VAL_CALIB (more data, larger calib_fraction)"
        )
    else:
        remedies.append("a model with fewer errors")
    if config.max_group_images is not None:
        remedies.append("smaller max_group_images, where groups are smaller")
    if level < 1:
        remedies.append(f"alpha >= {ceil(1000 * level) / 1000:g}")

    return (
        f"alpha={config.alpha:g} cannot be certified for {risk} at delta={config.delta:g}: the best"
        f" certifiable level is {level:.4f} with {n_groups} independent groups (at least {least}"
        f" without an error are needed); use {' or '.join(remedies)}."
        f" {attempts_sentence(config.attempt)}"
    )


def attempts_sentence(attempt: int) -> str:
    """Return what the number of attempts at a guarantee on the same data means for it."""
    warning = "Trying other seeds until one certifies voids the guarantee"
    if not attempt:
        return warning
    return f"{warning}; this is attempt {attempt} on these data"
