"""Options of the bundle: name, version and description in the model cards."""

import re
from dataclasses import dataclass

from components.shared.contracts.config import option
from components.shared.policies.config import BundledPolicyConfig

_SINGLE_LINE = ("model_name", "description")


@dataclass(frozen=True, kw_only=True)
class ExportConfig(BundledPolicyConfig):
    """Options of the bundle."""

    model_name: str = option("streetvision-roadwork", "Name in the model cards.")
    model_version: str = option("0.1.0", "Version X.Y.Z in the model cards.")
    description: str = option(
        "Roadwork classifier, stage 1 of a cascade.", "One sentence for the model cards."
    )
    submitted_by: str = option(
        "", "Hotkey (ss58 address) for NATIX's model_card.json; empty outside that network."
    )
    submission_time: int = option(
        0, "Unix time for NATIX's model_card.json; a parameter, so that bytes repeat.", ge=0
    )

    def check(self) -> list[str]:
        """Values that the model cards cannot hold."""
        problems = [
            f"{name}={getattr(self, name)!r} must be one line of text"
            for name in _SINGLE_LINE
            if not getattr(self, name).strip() or len(getattr(self, name).splitlines()) > 1
        ]

        if not re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", self.model_version):
            problems.append(
                f"model_version={self.model_version!r} must be X.Y.Z, for example 1.0.0"
            )

        # base58 of 35 bytes: network prefix, 32-byte public key, 2-byte checksum
        if self.submitted_by and not re.fullmatch(
            r"[1-9A-HJ-NP-Za-km-z]{46,48}", self.submitted_by
        ):
            problems.append(
                f"submitted_by={self.submitted_by!r} must be an ss58 address (46 to 48 base58"
                " characters)"
            )

        return problems
