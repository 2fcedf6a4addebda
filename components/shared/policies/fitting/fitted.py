"""What a fit gives beside the policy."""

from dataclasses import dataclass
from typing import Any

from components.shared.policies.early_exit import EarlyExit
from components.shared.policies.policy import Policy, SelectivePolicy


@dataclass(frozen=True)
class FittedPolicy:
    """A policy, the document of its fit.json, and the early exit of a model of several views."""

    policy: Policy
    fit: dict[str, Any]
    early_exit: EarlyExit | None = None


@dataclass(frozen=True)
class CertifiedPolicy(FittedPolicy):
    """A policy with a guarantee."""

    policy: SelectivePolicy
