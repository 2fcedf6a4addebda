"""The exit handler: how did the run end, whatever happened in it?"""

from typing import Any

from components.report_outcome.config import OutcomeConfig
from components.shared.artifacts import code_version, write_json
from components.shared.step import OutputFile, main


def run(config: OutcomeConfig, *, outcome: OutputFile) -> str:
    """Write the outcome as JSON and as one line in the log; returns "succeeded", "failed" or "cancelled"."""
    state = config.state.lower()
    error = {"code": config.error_code, "message": " ".join(config.error_message.split())}
    document: dict[str, Any] = {"run": config.run, "state": state, "code_version": code_version()}
    if config.error_code or config.error_message:
        document["error"] = error
    outcome.parent.mkdir(parents=True, exist_ok=True)
    write_json(outcome, document)
    print(f"run {config.run} {state}" + (f": {error['message']}" if "error" in document else ""))
    return state


if __name__ == "__main__":
    main(run, OutcomeConfig)
