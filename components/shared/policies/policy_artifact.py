"""How is a certified policy written down, and what is written where nothing can be certified?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, write_json, writing
from components.shared.contracts.errors import InfeasibleError
from components.shared.policies.calibration_split import CalibrationSplit
from components.shared.policies.certify import Certificate, risk_upper_bound
from components.shared.policies.config import SelectiveConfig
from components.shared.policies.early_exit import EarlyExit, write_early_exit
from components.shared.policies.policy import INFEASIBLE, SelectivePolicy


def write_policy(
    path: Path,
    policy: SelectivePolicy,
    fit: dict[str, Any],
    *,
    step: str,
    config: SelectiveConfig,
    inputs: Mapping[str, Manifest],
    early_exit: EarlyExit | None = None,
) -> None:
    """policy.json, fit.json and, for a model of several views, early_exit.json."""
    print(
        f"{policy.kind}: {policy.risk} <= {policy.alpha} with probability {1 - policy.delta:g}, "
        f"coverage {fit['coverage']:.3f} (at least {policy.coverage_lower_bound:.3f}) on VAL_CALIB"
    )
    with writing(path, kind=Kind.POLICY, step=step, config=config, inputs=inputs) as out:
        write_json(out / "policy.json", policy.to_json())
        write_json(out / "fit.json", fit)
        write_early_exit(out, early_exit)


def infeasible(
    path: Path,
    reason: str,
    best_level: float,
    *,
    kind: str,
    config: SelectiveConfig,
    inputs: Mapping[str, Manifest],
) -> None:
    """Raise InfeasibleError where this policy is to be bundled; otherwise say in its artifact that
    there is none.
    """
    if config.policy == kind:
        raise InfeasibleError(reason)
    print(f"{kind}: infeasible. {reason}")
    with writing(
        path, kind=Kind.POLICY, step=f"calibrate_{kind}", config=config, inputs=inputs
    ) as out:
        write_json(out / INFEASIBLE, {"kind": kind, "reason": reason, "best_level": best_level})


def fit_document(
    config: SelectiveConfig,
    parts: CalibrationSplit,
    certificates: Mapping[str, Certificate],
    delta: float,
) -> dict[str, Any]:
    """What a policy's promise rests on, for fit.json; `delta` is what each certificate's risk
    takes.
    """
    return {
        "split": "VAL_CALIB",
        "guarantee": "for a random image of a random group, exchangeable with those of VAL_CALIB",
        "risk": config.risk,
        "alpha": config.alpha,
        "delta": config.delta,
        "min_coverage": config.min_coverage,
        "multiple_testing": config.multiple_testing,
        "n_tuning_images": len(parts.tuning),
        "n_calibration_groups": len(parts.calibration),
        "coverage": sum(certificate.coverage for certificate in certificates.values()),
        "coverage_lower_bound": sum(
            certificate.coverage_lower_bound for certificate in certificates.values()
        ),
        "certificates": {
            name: _certificate(certificate, delta) for name, certificate in certificates.items()
        },
    }


def _certificate(certificate: Certificate, delta: float) -> dict[str, Any]:
    return {
        "threshold": certificate.threshold,
        "n_accepted": certificate.n_accepted,
        "n_errors": certificate.n_errors,
        "risk": certificate.risk,
        "risk_upper_bound": risk_upper_bound(certificate, delta),
        "p_value": certificate.p_value,
        "coverage": certificate.coverage,
        "n_tested": certificate.n_tested,
    }
