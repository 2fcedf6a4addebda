"""The compiled pipeline, and the name of its version."""

import hashlib
import tempfile
from pathlib import Path

import yaml
from kfp import compiler

from components.shared.contracts.config import canonical_json
from pipelines.parameters import Variant
from pipelines.resources import Profile
from pipelines.stage1 import stage1


def write_package(output: Path, profile: Profile, variant: Variant) -> str:
    """Compile the pipeline to `output`.

    Return the version's name, which is the same for the same content.

    The content names every image by a digest of its sources, so the version changes with the code
    of any step.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(stage1(profile, variant), str(output))

    # Not of the text: the comment that KFP writes above the spec has the order of a hash table.
    documents = list(yaml.safe_load_all(output.read_text(encoding="utf-8")))
    digest = hashlib.sha256(canonical_json(documents).encode()).hexdigest()[:16]
    return "-".join(part for part in (profile.name, variant.name, digest) if part)


def package(profile: Profile, variant: Variant) -> tuple[Path, str]:
    """Compile into a temporary folder; return the path and the version's name."""
    output = Path(tempfile.mkdtemp(prefix="streetvision-")) / "stage1.yaml"
    return output, write_package(output, profile, variant)
