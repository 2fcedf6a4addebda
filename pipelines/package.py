"""The compiled pipeline, and the name of its version."""

import atexit
import contextlib
import difflib
import re
from pathlib import Path

import yaml
from kfp import compiler

from components.shared.contracts.config import digest
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.listing import shown
from pipelines.catalog import pipeline_of
from pipelines.names import PIPELINES
from pipelines.ownership import scratch
from pipelines.parameters import Variant
from pipelines.resources import Profile

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # part of the names of pods
# A name of one's own may begin with a pipeline's; one letter less is a slip.
_MISSPELT = 0.85

_UNTIL_EXIT = contextlib.ExitStack()
atexit.register(_UNTIL_EXIT.close)


def write_package(output: Path, profile: Profile, variant: Variant) -> str:
    """Compile the pipeline to `output`.

    Return the version's name, which is the same for the same content.

    The content names every image by a digest of its sources, so the version changes with the code
    of any step. Raises ConfigError for an `output` that cannot be written.
    """
    _check_output(output)
    compiler.Compiler().compile(pipeline_of(profile, variant), str(output))

    # Not of the text: the comment that KFP writes above the spec has the order of a hash table.
    documents = list(yaml.safe_load_all(output.read_text(encoding="utf-8")))
    parts = (profile.name, variant.name, digest(documents)[:16])
    return "-".join(part for part in parts if part)


def _check_output(output: Path) -> None:
    """Raise ConfigError unless `output` is a YAML file that can be written; its folder is made."""
    where = f"--output {shown(str(output))}"
    if output.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{where} must end in .yaml")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a", encoding="utf-8"):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{where} cannot be written ({reason})") from None


def package(profile: Profile, variant: Variant) -> tuple[Path, str]:
    """Compile into a temporary folder, which goes when this process ends.

    Return the path and the version's name.
    """
    output = _UNTIL_EXIT.enter_context(scratch("package")) / f"{variant.pipeline}.yaml"
    return output, write_package(output, profile, variant)


def package_named(name: str, profile: Profile, variant: Variant) -> tuple[Path, str]:
    """Compile under the pipeline's `name`; return the path and the version's name.

    Raises ConfigError for a name that Kubernetes refuses, or that is nearly one of the project's.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--pipeline {name!r} must be lower case letters, digits and hyphens, at most 63"
        )
    if close := difflib.get_close_matches(name, PIPELINES, n=1, cutoff=_MISSPELT):
        raise ConfigError(f"--pipeline {name!r} is not known, did you mean {close[0]!r}?")

    output, version = package(profile, variant)
    if name != PIPELINES[variant.pipeline]:
        _rename(output, name)
    return output, version


def _rename(file: Path, name: str) -> None:
    """Give a compiled pipeline another name, part of KFP's cache keys and of the pipeline root."""
    documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    documents[0]["pipelineInfo"]["name"] = name
    file.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
