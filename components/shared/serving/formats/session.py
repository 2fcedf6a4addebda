"""Sessions of onnxruntime on the CPU, the same wherever a graph runs."""

from pathlib import Path

import onnxruntime

_ERRORS_ONLY = 3  # onnxruntime's level of messages


def cpu_session(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    """Load a graph.

    Args:
        graph: The file.
        threads: Of one operator.

    Raises:
        Exception: onnxruntime refuses the graph; its own classes have no other base in common.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # A thread that spins for work takes the core from one that has it: from the decoding of the
    # next image, or another process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A plan for each number of images holds memory of its own, and saves no time.
    options.enable_mem_pattern = False
    options.log_severity_level = _ERRORS_ONLY
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
