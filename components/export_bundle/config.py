"""Options of the bundle: name, version and description in the model cards."""

import dataclasses
import re
from dataclasses import dataclass

from components.shared.contracts.config import MOST_INTEGER, option
from components.shared.contracts.environment import Variable
from components.shared.contracts.formats import (
    DEFAULT_FORMATS,
    FORMATS,
    ONNX,
    ONNX_INT8,
    TRANSFORMERS,
)
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.config import BundledPolicyConfig

_SINGLE_LINE = ("model_name", "description", "reference_machine")


def slug(name: str) -> str:
    """Return the name in lower case, with hyphens for all but letters and digits of ASCII."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@dataclass(frozen=True, kw_only=True)
class ExportConfig(BundledPolicyConfig):
    """Options of the bundle."""

    model_name: str | None = option(
        None,
        "Name in the model cards; auto: streetvision- with the positive class, or with the number"
        " of classes.",
        unset="auto",
    )
    model_version: str = option("0.1.0", "Version X.Y.Z in the model cards.")
    description: str | None = option(
        None, "One sentence for the model cards; auto: what is classified.", unset="auto"
    )
    submitted_by: str = option(
        "", "Hotkey (ss58 address) for NATIX's model_card.json; empty outside that network."
    )
    submission_time: int = option(
        0,
        "Unix time for NATIX's model_card.json; a parameter, so that bytes repeat.",
        ge=0,
        le=MOST_INTEGER,
    )
    trusted_keys: str = option(
        "",
        f"Digest of the keys of {Variable.TRUSTED_KEYS}, one of which must sign the bundle;"
        " computed by the first step, so that another key signs again.",
    )
    formats: tuple[str, ...] = option(
        DEFAULT_FORMATS,
        "Forms of the model in the bundle. onnx runs with onnxruntime alone, and must decide the"
        " images of VAL_CALIB and VAL_SELECT as transformers' does. onnx_int8 is quantised from"
        " onnx and has a policy of its own.",
        choices=FORMATS,
    )
    onnx_resize: bool = option(
        False,
        "onnx/model.onnx takes RGB photographs of any size (N, H, W, 3) and resizes them; without"
        " it, of the model's size. For models of one view, without onnx_int8.",
    )

    reference_machine: str | None = option(
        None,
        "Name of the machine that exports: the model card then has the time of an image by each"
        " form on it. none: no times, so that equal exports are equal bytes.",
        unset="none",
    )

    def check(self) -> list[str]:
        """Values that the model cards cannot hold, and formats without the first one."""
        problems = [
            f"{name}={value!r} must be one line of text"
            for name in _SINGLE_LINE
            if (value := getattr(self, name)) is not None and len(value.strip().splitlines()) != 1
        ]

        if TRANSFORMERS not in self.formats or len(set(self.formats)) != len(self.formats):
            problems.append(
                f"formats={list(self.formats)} must have {TRANSFORMERS}, and none twice"
            )
        if ONNX_INT8 in self.formats and ONNX not in self.formats:
            problems.append(
                f"formats={list(self.formats)}: {ONNX_INT8} is quantised from {ONNX}; add {ONNX}"
            )

        if self.onnx_resize and (ONNX not in self.formats or ONNX_INT8 in self.formats):
            problems.append(
                f"onnx_resize=True with formats={list(self.formats)}: only {ONNX} resizes; add"
                f" {ONNX}, leave out {ONNX_INT8}, or set onnx_resize=False"
            )

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

    def views_problem(self, has_tiles: bool) -> str:
        """Return why a model of several views cannot resize in its graph; empty where it can."""
        if not (self.onnx_resize and has_tiles):
            return ""
        return (
            "onnx_resize=True with tiles: model.onnx would take photographs of any size and"
            " tiles.onnx would not; set onnx_resize=False"
        )

    def named(self, outcomes: Outcomes) -> "ExportConfig":
        """Return the options with name and description of a model with these outcomes."""
        n_classes = len(outcomes.class_names)
        name, subject = f"{n_classes}-classes", f"Classifier of {n_classes} classes"
        if outcomes.positive_class is not None:
            name = slug(outcomes.positive_class) or name
            subject = f"{' '.join(outcomes.positive_class.split())} classifier"

        return dataclasses.replace(
            self,
            model_name=self.model_name or f"streetvision-{name}",
            description=self.description or f"{subject}, stage 1 of a cascade.",
        )
