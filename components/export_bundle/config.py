"""Under which name and version is the model handed over?"""

import re
from dataclasses import dataclass

from components.shared.config import Config, option


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Config):
    """Parameters of phase 6."""

    model_name: str = option("streetvision-roadwork", "Name in the model cards.")
    model_version: str = option("0.1.0", "Version X.Y.Z in the model cards.")
    description: str = option("Roadwork classifier, stage 1 of a cascade.", "One sentence for the model cards.")
    submitted_by: str = option("", "Hotkey (ss58 address) for NATIX's model_card.json; empty outside that network.")
    submission_time: int = option(0, "Unix time for NATIX's model_card.json; a parameter, so that bytes repeat.", ge=0)

    def check(self) -> list[str]:
        """The version must be X.Y.Z."""
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.model_version):
            return [f"model_version={self.model_version!r} must be X.Y.Z, for example 1.0.0"]
        return []
