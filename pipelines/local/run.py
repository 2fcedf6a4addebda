"""Local runs of the very same pipeline.

`kfp.local` executes the compiled components as subprocesses, in order, with the same cache
semantics as a cluster: steps whose image (a digest of the source), inputs and parameters are
unchanged are not run again.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import local

from components.configure.step import configured
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import PermanentError, StreetVisionError, TransientError
from pipelines.local.command_line import own_command_lines
from pipelines.local.console import readable_log
from pipelines.parameters import Variant
from pipelines.resources import LOCAL
from pipelines.stage1 import stage1

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class LocalRun:
    """Where a finished run left its outputs."""

    bundle: Path
    evaluation: Path
    report: Path


@own_command_lines()
def run_local(values: Mapping[str, Any], output: Path, variant: Variant) -> LocalRun:
    """Run the pipeline with `values` below `output`; a failed step's own error is raised again.

    What the first step would refuse (an option, a source that is not there) is refused before
    anything is made.
    """
    with recording(output):
        configured(variant.with_form(values))
    output.mkdir(parents=True, exist_ok=True)
    output = output.resolve()
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(output),
        enable_caching=True,
        cache_root=str(cache_root(output)),
    )

    before = _run_folders(output)
    with recording(output), _environment(output), readable_log() as errors:
        try:
            outputs = stage1(LOCAL, variant)(**values).outputs
        except RuntimeError as error:
            raise _step_error(_run_folders(output) - before, errors, error) from error

    report = Path(outputs["report"].path)
    # KFP names the file after the output; a person's browser wants the suffix.
    page = report.with_name("report.html")
    shutil.copyfile(report, page)

    return LocalRun(
        bundle=Path(outputs["bundle"].path),
        evaluation=Path(outputs["evaluation"].path),
        report=page,
    )


@contextlib.contextmanager
def recording(output: Path) -> Iterator[None]:
    """Record the splits of lineages below `output`, unless the environment names another place."""
    if Variable.LINEAGES in os.environ:
        yield
        return
    os.environ[Variable.LINEAGES] = str(output.resolve() / ".lineages")
    try:
        yield
    finally:
        del os.environ[Variable.LINEAGES]


@contextlib.contextmanager
def _environment(output: Path) -> Iterator[None]:
    """What the steps' processes inherit; afterwards this process has what it had."""
    before = dict(os.environ)
    # The components' subprocesses start in a temporary file: they find our packages through the
    # path.
    os.environ[Variable.PYTHONPATH] = os.pathsep.join(
        [str(_ROOT), os.environ.get(Variable.PYTHONPATH, "")]
    ).rstrip(os.pathsep)
    # Each run has directories of its own; a training that was interrupted is found again by the
    # next run.
    os.environ.setdefault(Variable.CHECKPOINTS, str(output / ".checkpoints"))

    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def cache_root(output: Path) -> Path:
    """Where the cache of runs below `output` is."""
    return output.resolve() / ".cache"


def _run_folders(output: Path) -> set[Path]:
    """Of all runs, also of interrupted ones, whose last step may still write."""
    return set(output.glob("[!.]*/"))


def _step_error(
    run_folders: set[Path], printed: list[str], fallback: RuntimeError
) -> StreetVisionError:
    """Return the failed step's error from its status.json, else from what steps have printed."""
    for file in sorted(file for folder in run_folders for file in folder.glob("*/status.json")):
        status = json.loads(file.read_text(encoding="utf-8"))
        if status["state"] == "failed":
            kind = PermanentError if status["permanent"] else TransientError
            return kind(f"step {status['step']} failed: {status['message']}")
    if printed:
        return TransientError(f"{fallback} {printed[-1]}")
    return TransientError(f"{fallback} The step's own message is in the log above.")
