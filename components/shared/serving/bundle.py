"""Opening and verification of an exported bundle, without torch.

model/              the classifier with calibrator and decision fused into the head: P(positive) >
                    0.5 of a binary task, the largest logit of a multiclass one, also where the
                    policy defers (bundle.json says what could not be fused, and how to decide)
policy.json         the one policy, with its task, its calibrator and its thresholds
gate/               the gate's weights, where the policy is a gate
preprocessing.json  how an image becomes the model's input
student/            a transformers image classifier of the full image alone, where one was distilled
early_exit.json     when the full image is enough, where the model uses several views
bundle.json         name, version, SHA-256 of every other file, lineage, library versions
README.md, model_card.json
                    for readers, and for NATIX
manifest.json       as in every artifact
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import MANIFEST, verify_dir
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.early_exit import EarlyExit, read_early_exit
from components.shared.policies.policy import Policy, parse_policy

MODEL, POLICY, PREPROCESSING, DOCUMENT = "model", "policy.json", "preprocessing.json", "bundle.json"
GATE, DISTILLED_MODEL = "gate", "student"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. `stock`: whether model/ is a transformers image classification model."""

    path: Path
    policy: Policy
    preprocessing: dict[str, Any]
    stock: bool
    early_exit: EarlyExit | None = None


def stock_order(outcomes: Outcomes) -> list[int]:
    """Return which class each label of the stock model is.

    The positive one of two classes comes last, as consumers of NATIX's None and Roadwork expect;
    several classes stay as they are.
    """
    classes = list(range(len(outcomes.class_names)))
    return classes[::-1] if len(classes) == 2 and outcomes.positive == 0 else classes


def open_bundle(path: Path) -> Bundle:
    """Verify and read a bundle; needs neither torch nor transformers.

    Raises ArtifactError listing every difference from the manifest or from bundle.json, or for
    another number of policies than one.
    """
    recorded = {
        name: entry["sha256"] for name, entry in verify_dir(path, Kind.BUNDLE).files.items()
    }
    policies = sorted(name for name in recorded if name.rsplit("/", 1)[-1] == POLICY)
    if policies != [POLICY]:
        raise ArtifactError(
            f"{path}: must hold exactly one {POLICY}, holds {', '.join(policies) or 'none'}"
        )

    document = _read(path / DOCUMENT)
    listed = document["files"]
    del recorded[DOCUMENT]  # a file cannot hold its own digest
    differing = sorted(
        name for name in recorded.keys() | listed.keys() if recorded.get(name) != listed.get(name)
    )
    if differing:
        raise ArtifactError(
            f"{path / DOCUMENT}: disagrees with {MANIFEST} about {', '.join(differing)}"
        )

    policy = parse_policy(_read(path / POLICY), str(path / POLICY))

    return Bundle(
        path, policy, _read(path / PREPROCESSING), document["stock_pipeline"], read_early_exit(path)
    )


def _read(file: Path) -> Any:
    if not file.is_file():
        raise ArtifactError(f"{file}: missing; export the bundle again")
    return json.loads(file.read_text(encoding="utf-8"))
