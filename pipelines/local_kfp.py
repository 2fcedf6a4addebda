"""What does kfp's local runner lack for this pipeline? Artifacts of whichever branch of a condition has run.

kfp 2.17 runs `dsl.If` and `dsl.Else`, and hands on by `dsl.OneOf` a parameter but no artifact (a cluster does both).
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from kfp.local import io
from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils


@contextlib.contextmanager
def one_of_artifacts() -> Iterator[None]:
    """Inside, a group's output artifact is that of the branch that ran."""
    original = OrchestratorUtils.get_dag_output_artifacts
    OrchestratorUtils.get_dag_output_artifacts = staticmethod(_of_the_branch_that_ran)
    try:
        yield
    finally:
        OrchestratorUtils.get_dag_output_artifacts = original


def _of_the_branch_that_ran(dag_outputs_spec: Any, io_store: io.IOStore) -> dict[str, Any]:
    return {key: _first(selectors, io_store) for key, selectors in dag_outputs_spec.artifacts.items()}


def _first(selectors: Any, io_store: io.IOStore) -> Any:
    for selector in selectors.artifact_selectors:
        with contextlib.suppress(ValueError):  # the store's answer for what did not run
            return io_store.get_task_output(selector.producer_subtask, selector.output_artifact_key)
    raise ValueError(f"none of {[s.producer_subtask for s in selectors.artifact_selectors]} ran")
