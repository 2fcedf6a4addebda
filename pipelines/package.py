"""What is sent to Kubeflow, and under which version name?"""

import dataclasses
import hashlib
import tempfile
from pathlib import Path

import yaml
from kfp import compiler

from components.shared.config import canonical_json
from pipelines.resources import PROFILES
from pipelines.stage1 import stage1


def write_package(output: Path, profile: str, queue: str = "") -> str:
    """Compile the pipeline to `output`; returns the version name, which is the same for the same content.

    The content names every image by a digest of its sources, so the version changes with the code of any step.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(stage1(dataclasses.replace(PROFILES[profile], queue=queue)), str(output))
    # Not of the text: the comment that KFP writes above the spec has the order of a hash table.
    documents = list(yaml.safe_load_all(output.read_text(encoding="utf-8")))
    return f"{profile}-{hashlib.sha256(canonical_json(documents).encode()).hexdigest()[:16]}"


def package(profile: str, queue: str = "") -> tuple[Path, str]:
    """The same in a temporary folder: path and version name."""
    output = Path(tempfile.mkdtemp(prefix="streetvision-")) / "stage1.yaml"
    return output, write_package(output, profile, queue)
