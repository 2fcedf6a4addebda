"""What a phase's container is told to run."""

import ast
import importlib
import inspect
import os
import subprocess
import sys

import pytest

from pipelines.sources import ROOT, phase_sources, phases


@pytest.mark.parametrize("phase", phases())
def test_the_command_of_a_container_names_code_that_its_image_has(phase: str) -> None:
    module = importlib.import_module(f"components.{phase}.component")
    container = getattr(module, phase).component_spec.implementation.container
    description, line = container.command[-1].splitlines()
    assert line == f"from components.{phase}.component import {phase}"
    documented = inspect.getdoc(getattr(module, phase).python_func) or ""
    clause, sentence = ast.literal_eval(description), documented.partition("\n\n")[0]
    assert " " in clause
    assert " ".join(sentence.split()).startswith(clause)
    assert ROOT / "components" / phase / "component.py" in phase_sources(phase)


def test_kfps_executor_gets_the_function_itself() -> None:
    """In a container kfp has no decorators, and calls what it is given."""
    program = "from components.fit_threshold.component import fit_threshold as f; print(type(f))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "_KFP_RUNTIME": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "<class 'function'>\n"
