"""What is sent to Kubeflow, and under which version name?"""

import dataclasses
import hashlib
import tempfile
from pathlib import Path

from kfp import compiler

from pipelines.resources import PROFILES
from pipelines.stage1 import stage1


def write_package(output: Path, profile: str, queue: str = "") -> str:
    """Compile the pipeline to `output`; returns the version name, which is the same for the same content.

    The content names every image by a digest of its sources, so the version changes with the code of any step.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(stage1(dataclasses.replace(PROFILES[profile], queue=queue)), str(output))
    return f"{profile}-{hashlib.sha256(output.read_bytes()).hexdigest()[:16]}"


def package(profile: str, queue: str = "") -> tuple[Path, str]:
    """The same in a temporary folder: path and version name."""
    output = Path(tempfile.mkdtemp(prefix="streetvision-")) / "stage1.yaml"
    return output, write_package(output, profile, queue)
