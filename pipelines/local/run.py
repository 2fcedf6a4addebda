"""Local runs of the very same pipeline.

`kfp.local` executes the compiled components as subprocesses, in order, with the same cache
semantics as a cluster: steps whose image (a digest of the source), inputs and parameters are
unchanged are not run again.
"""

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kfp import local

from components.configure.step import configured
from components.shared.contracts.documents import read_object
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import (
    PERMANENT_EXIT_CODE,
    ArtifactError,
    LeakageViolationError,
    PermanentError,
    StreetVisionError,
    TransientError,
    one_line,
)
from pipelines.catalog import pipeline_of
from pipelines.local.cache import Cache, cache_folder, damage
from pipelines.local.command_line import StepEnd, Steps
from pipelines.local.console import readable_log, without_colours
from pipelines.local.leftovers import remove_leftovers
from pipelines.names import PIPELINES
from pipelines.ownership import owning, scratch
from pipelines.parameters import Variant
from pipelines.resources import LOCAL
from pipelines.sources import code_commit

_ROOT = Path(__file__).resolve().parents[2]
# Outputs of the pipelines that are artifacts of ours; the others are pages.
_VERIFIED = ("bundle", "evaluation", "promotion", "tuning")
_OF_ARTIFACTS = (ArtifactError.__name__, LeakageViolationError.__name__)


@dataclass(frozen=True)
class LocalRun:
    """Where a finished run left its outputs; promotion: of a pipeline that promotes."""

    bundle: Path
    evaluation: Path
    report: Path
    promotion: Path | None = None


def run_local(values: Mapping[str, Any], output: Path, variant: Variant) -> LocalRun:
    """Run a pipeline that ends with a bundle; arguments and errors as in `run_artifacts`."""
    found = run_artifacts(values, output, variant)
    return LocalRun(**found, report=found["evaluation"] / "report.html")


def run_artifacts(values: Mapping[str, Any], output: Path, variant: Variant) -> dict[str, Path]:
    """Run a pipeline with `values` below `output`; a failed step's own error is raised again.

    What the first step would refuse (an option, a source that is not there) is refused before
    anything is made. What is returned, the pipeline's artifacts by name, is verified: a cached one
    that is damaged is made again.

    Raises StreetVisionError.
    """
    with recording(output):
        configured(variant.with_form(values))
    output.mkdir(parents=True, exist_ok=True)
    output = output.resolve()
    remove_leftovers(output)

    cache = Cache(str(cache_folder(output)))
    with recording(output), _environment(output), cache.used_by_kfp():
        return _run_until_sound(values, output, variant, cache)


def _run_until_sound(
    values: Mapping[str, Any], output: Path, variant: Variant, cache: Cache
) -> dict[str, Path]:
    """Run the pipeline, again as often as it meets a cached artifact that is damaged.

    Return its artifacts, which are verified.
    """
    made_again: set[str] = set()
    while True:
        try:
            artifacts = _run_once(values, output, variant)
            damaged = _damaged(artifacts.values())
            if not damaged:
                return artifacts
        except _StepFailedError as failed:
            # A step verifies what it reads, so only this error can come from a damaged input.
            damaged = _damaged(failed.end.inputs) if failed.is_of_artifacts else {}
            if not damaged:
                raise failed.error from None

        for folder, reason in damaged.items():
            if folder.name in made_again or not cache.drop(folder):
                raise ArtifactError(f"{reason}; delete {folder} to have it made again")
            made_again.add(folder.name)
            print(f"damaged, step {folder.name} runs again: {reason}", flush=True)


def _damaged(artifacts: Iterable[Path]) -> dict[Path, str]:
    """Return the folders of the steps whose artifacts differ from their manifests, and how."""
    return {artifact.parent: reason for artifact in artifacts if (reason := damage(artifact))}


def _run_once(values: Mapping[str, Any], output: Path, variant: Variant) -> dict[str, Path]:
    """Run the pipeline in a folder of its own; return its artifacts that have a manifest."""
    folder = _new_run_folder(output, PIPELINES[variant.pipeline])
    os.environ[Variable.RUN] = folder.name  # until `_environment` ends
    with scratch("run") as temporary, owning(folder) as owned, readable_log() as printed:
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(output),
            workspace_root=str(temporary / "workspace"),
        )
        steps = Steps(folder, temporary, descriptors=(owned,))
        try:
            with steps.started_here():
                outputs = pipeline_of(LOCAL, variant)(**values).outputs
        except RuntimeError as error:
            failed = [end for end in steps.ended if end.code != 0]
            if not failed:
                raise TransientError(without_colours(one_line(error))) from error
            raise _StepFailedError(failed[0], printed) from error

    return {name: Path(outputs[name].path) for name in _VERIFIED if name in outputs}


def _new_run_folder(output: Path, pipeline: str) -> Path:
    """Make a folder that no other run has, named after the pipeline and the time."""
    while True:
        folder = output / f"{pipeline}-{datetime.now():%Y-%m-%d-%H-%M-%S-%f}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


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
    os.environ.setdefault(Variable.GIT_COMMIT, code_commit())

    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass(frozen=True)
class _Status:
    """A step's status.json."""

    step: str
    state: str
    error_class: str = ""
    message: str = ""
    permanent: bool = False


class _StepFailedError(Exception):
    """A step ended with an error.

    end: of its process. error: what the run ends with. is_of_artifacts: an artifact that the step
    read is not what it should be.
    """

    def __init__(self, end: StepEnd, printed: list[str]) -> None:
        status = _status_of(end)
        super().__init__(end, status)
        self.end = end
        self.error = _error_of(end, status, printed)
        self.is_of_artifacts = status is not None and status.error_class in _OF_ARTIFACTS


def _status_of(end: StepEnd) -> _Status | None:
    """Return what the failed step has reported; None where it could not."""
    try:
        status = read_object(end.folder / "status.json", _Status)
    except ArtifactError:
        return None
    return status if status.state == "failed" else None


def _error_of(end: StepEnd, status: _Status | None, printed: list[str]) -> StreetVisionError:
    """Return a failed step's own error: what it has reported, else what it has printed."""
    kind = PermanentError if end.code == PERMANENT_EXIT_CODE else TransientError
    if status is not None:
        return kind(f"step {status.step} failed: {status.message}")

    step = end.folder.name
    if end.code < 0:
        return kind(f"step {step} was killed by {signal.Signals(-end.code).name}")
    if printed:
        return kind(f"step {step} failed: {printed[-1]}")
    return kind(f"step {step} ended with exit code {end.code}; its last lines are above")
