"""Which certificates does a policy need, and why can it not have them?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.shared.policies.certify import Certificate, Samples, best_level, certify
from components.shared.policies.config import SelectiveConfig
from components.shared.stats.bounds import fewest_samples


@dataclass(frozen=True)
class Target:
    """One certificate that is needed: the answers it is about ("all" or one), and the samples of
    both parts.
    """

    name: str
    tuning: Samples
    calibration: Samples


def certified(config: SelectiveConfig, target: Target, delta: float) -> Certificate | None:
    """The certificate at `config.alpha`, risk and coverage each at `delta`."""
    return certify(
        target.tuning,
        target.calibration,
        alpha=config.alpha,
        delta=delta,
        coverage_delta=delta,
        method=config.multiple_testing,
    )


def infeasibility_reason(
    config: SelectiveConfig,
    targets: Sequence[Target],
    certificates: Mapping[str, Certificate],
    delta: float,
) -> tuple[str, float] | None:
    """Why the target is out of reach, and the best certifiable level; None where it is reached."""
    failed = [target for target in targets if target.name not in certificates]
    if failed:
        method = config.multiple_testing
        levels = [
            best_level(t.tuning, t.calibration, delta=delta, method=method, start=config.alpha)
            for t in failed
        ]
        return _reason(config, failed, max(levels)), max(levels)
    return too_little_coverage(config, certificates)


def too_little_coverage(
    config: SelectiveConfig, certificates: Mapping[str, Certificate]
) -> tuple[str, float] | None:
    """The obstacle where the coverage's lower bound is below `min_coverage`, else None."""
    coverage = sum(certificate.coverage for certificate in certificates.values())
    lower = sum(certificate.coverage_lower_bound for certificate in certificates.values())
    if lower < config.min_coverage:
        return (
            (
                f"alpha={config.alpha:g} is certified at coverage {coverage:.4f}, whose lower bound"
                f" {lower:.4f} is below min_coverage={config.min_coverage:g}; raise alpha, or use"
                " more data"
            ),
            config.alpha,
        )
    return None


def too_few(config: SelectiveConfig, n_samples: int) -> tuple[str, float]:
    """The obstacle where not even answers that are never wrong can be certified; and the level at
    which they could.
    """
    level = -np.expm1(np.log(config.risk_delta) / n_samples) if n_samples else 1.0
    return (
        (
            f"alpha={config.alpha:g} cannot be certified for prediction sets at"
            f" delta={config.delta:g}: the best certifiable level is {level:.4f} with {n_samples}"
            f" independent samples selected ({fewest_samples(config.alpha, config.risk_delta)}"
            " would be the least); raise alpha or use more data"
        ),
        float(level),
    )


def _reason(config: SelectiveConfig, failed: list[Target], level: float) -> str:
    what = "error rate" if config.risk == "error" else "false negative rate"
    answers = (
        "" if failed[0].name == "all" else f" of the answer {' and '.join(t.name for t in failed)}"
    )
    least = fewest_samples(config.alpha, config.risk_delta)
    return (
        f"alpha={config.alpha:g} cannot be certified for the {what}{answers} at"
        f" delta={config.delta:g}: the best certifiable level is {level:.4f} with"
        f" {len(failed[0].calibration.confidence)} independent samples ({least} without an error"
        " would be the least); raise alpha or use more data"
    )
