"""Two steps that take no time: an evaluation, and a bundle made from it; and one without outputs.

They stand in for the phases. `end` says how a step ends.
"""

import os
import signal
from dataclasses import dataclass

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import verify_dir, writing
from components.shared.contracts.config import Config, option
from components.shared.contracts.errors import DataError
from components.shared.contracts.step import InputDir, OutputDir


@dataclass(frozen=True, kw_only=True)
class EndConfig(Config):
    """How a step ends."""

    end: str = option("", "nothing, permanent, unexpected, killed or another exit code")


def evaluate(config: EndConfig, *, evaluation: OutputDir) -> None:
    """Write an evaluation with a report."""
    _end(config.end)
    with writing(evaluation, kind=Kind.EVALUATION, step="evaluate", config=config) as out:
        (out / "report.html").write_text("<p>report</p>", encoding="utf-8")
        (out / "eval_report.json").write_text("{}", encoding="utf-8")


def export(config: EndConfig, *, evaluation: InputDir, bundle: OutputDir) -> None:
    """Write a bundle from a verified evaluation."""
    manifest = verify_dir(evaluation, Kind.EVALUATION)
    with writing(
        bundle, kind=Kind.BUNDLE, step="export", config=config, inputs={"evaluation": manifest}
    ) as out:
        _end(config.end)
        (out / "policy.json").write_text("{}", encoding="utf-8")


def check(config: EndConfig) -> None:
    """Write nothing, as the pipeline's first step."""
    _end(config.end)


def _end(how: str) -> None:
    if how == "permanent":
        raise DataError("the data\nare wrong: \x1b[95mred")
    if how == "unexpected":
        raise RuntimeError("a surprise")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how.isdigit():
        print("error: \x1b[95ma line of its own", flush=True)
        os._exit(int(how))
