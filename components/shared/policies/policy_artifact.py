"""Reading and writing of Policy artifacts: a policy, or the reason why none could be certified."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir, write_json, writing
from components.shared.contracts.config import Config
from components.shared.contracts.documents import read_json, read_object
from components.shared.contracts.errors import ArtifactError, InfeasibleError
from components.shared.contracts.listing import first_of, say, shown
from components.shared.policies.calibration_split import CalibrationSplit
from components.shared.policies.certify import Certificate, risk_upper_bound
from components.shared.policies.config import SelectiveConfig
from components.shared.policies.early_exit import EarlyExit, write_early_exit
from components.shared.policies.policy import Infeasible, Policy, SelectivePolicy, parse_policy
from components.shared.policies.targets import Certified, attempts_sentence

POLICY, FIT, INFEASIBLE = "policy.json", "fit.json", "infeasible.json"
DISTILLED_POLICY = "student.json"  # the distilled head's policy, beside that of all views


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
    """Write policy.json, fit.json and, for a model of several views, early_exit.json.

    Args:
        path: folder of the artifact.
        policy: the certified policy.
        fit: the document of `fit_document`, with what the step adds.
        step: name of the step, for the manifest.
        config: configuration of the step, for the manifest.
        inputs: manifests of the step's inputs, by name.
        early_exit: the early exit of a model of several views.
    """
    say(
        f"{policy.kind}: {policy.risk} <= {policy.alpha} with probability {1 - policy.delta:g}, "
        f"coverage {fit['coverage']:.3f} (at least {policy.coverage_lower_bound:.3f}) on VAL_CALIB,"
        f" {_unit_of_guarantee(policy.max_group_images)}"
    )
    if config.attempt > 1:
        say(f"{policy.kind}: {attempts_sentence(config.attempt)}")

    with writing(path, kind=Kind.POLICY, step=step, config=config, inputs=inputs) as out:
        write_json(out / POLICY, policy.to_json())
        write_json(out / FIT, fit)
        write_early_exit(out, early_exit)


def write_infeasible(
    path: Path,
    found: Infeasible,
    *,
    step: str,
    config: Config,
    inputs: Mapping[str, Manifest],
) -> None:
    """Write infeasible.json in the place of a policy, and print the reason.

    A run goes on without the policy; only export_bundle ends where it is the one to be bundled.
    """
    say(f"{found.kind}: infeasible. {found.reason}")
    with writing(path, kind=Kind.POLICY, step=step, config=config, inputs=inputs) as out:
        write_json(out / INFEASIBLE, asdict(found))


def fit_document(
    config: SelectiveConfig, split: CalibrationSplit, certified: Certified
) -> dict[str, Any]:
    """Return the document of fit.json: the counts and levels that a policy's guarantee rests on."""
    return {
        "split": "VAL_CALIB",
        "attempt": config.attempt,
        "guarantee": _unit_of_guarantee(config.max_group_images),
        "risk": config.risk,
        "alpha": config.alpha,
        "delta": config.delta,
        "min_coverage": config.min_coverage,
        "multiple_testing": config.multiple_testing,
        "n_tuning_images": len(split.tuning),
        "n_calibration_groups": len(split.calibration),
        "coverage": certified.coverage,
        "coverage_lower_bound": certified.coverage_lower_bound,
        "certificates": {
            name: _certificate_document(
                certificate, None if config.max_group_images else certified.delta
            )
            for name, certificate in certified.certificates.items()
        },
    }


def _unit_of_guarantee(max_group_images: int | None) -> str:
    """Return for which images the guarantee holds."""
    if max_group_images is None:
        return "for a random image of a random group, exchangeable with those of VAL_CALIB"
    return (
        "for a random image; groups are exchangeable with those of VAL_CALIB and none has more than"
        f" {max_group_images} images"
    )


def _certificate_document(certificate: Certificate, delta: float | None) -> dict[str, Any]:
    """Return the counts of a certificate; delta: of the bound of its risk, None for no bound."""
    return {
        "threshold": certificate.threshold,
        "n_accepted": certificate.n_accepted,
        "n_errors": certificate.n_errors,
        "risk": certificate.risk,
        "risk_upper_bound": None if delta is None else risk_upper_bound(certificate, delta),
        "p_value": certificate.p_value,
        "coverage": certificate.coverage,
        "n_tested": certificate.n_tested,
    }


def read_policy(path: Path) -> tuple[Policy, Manifest]:
    """Verify and read a Policy artifact, which holds exactly one policy.json.

    Raises:
        ArtifactError: the artifact is damaged, or holds no policy or several.
        InfeasibleError: the policy could not be fitted.
    """
    manifest = verify_dir(path, Kind.POLICY)
    if INFEASIBLE in manifest.files:
        found = read_object(path / INFEASIBLE, Infeasible)
        raise InfeasibleError(
            f"policy={shown(found.kind)} could not be fitted and has no bundle: {found.reason}"
        )

    policies = sorted(name for name in manifest.files if name.endswith(POLICY))
    if policies != [POLICY]:
        raise ArtifactError(
            f"{path}: must hold exactly one {POLICY}, holds {first_of(policies) or 'none'}"
        )
    return _read_policy(path / POLICY), manifest


def read_policy_or_infeasible(path: Path) -> tuple[Policy | Infeasible, Manifest]:
    """Verify and read a Policy artifact that may hold infeasible.json in the place of a policy."""
    if not (path / INFEASIBLE).is_file():
        return read_policy(path)
    manifest = verify_dir(path, Kind.POLICY)
    return read_object(path / INFEASIBLE, Infeasible), manifest


def read_fit(path: Path) -> dict[str, Any]:
    """Read fit.json of a verified Policy artifact; empty where there is none."""
    file = path / FIT
    if not file.is_file():
        return {}
    return read_object(file, dict[str, Any])


def read_distilled_policy(path: Path) -> Policy | None:
    """Read the distilled head's policy in a verified artifact; None where there is none."""
    file = path / DISTILLED_POLICY
    if not file.is_file():
        return None
    return _read_policy(file)


def _read_policy(file: Path) -> Policy:
    return parse_policy(read_json(file), str(file))
