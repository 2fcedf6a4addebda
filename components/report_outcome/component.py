"""KFP interface of report_outcome."""

from kfp import dsl

from pipelines.sources import cpu_image


# fmt: off
@dsl.component(base_image=cpu_image(__name__), install_kfp_package=False)
def report_outcome(status: dsl.PipelineTaskFinalStatus, outcome: dsl.Output[dsl.Artifact]) -> str:
    """Write how the run ended: state, and the first error. Runs after success, failure and cancellation."""
    from components.report_outcome import config, step
    from components.shared.step import execute
    arguments = {
        "state": status.state, "run": status.pipeline_job_resource_name, "outcome": outcome,
        "error_code": int(status.error_code or 0), "error_message": str(status.error_message or ""),
    }
    return execute(step.run, config.OutcomeConfig, arguments)  # type: ignore[no-any-return]
