"""Sessions are of the CPU, with the threads that are asked for, and silent."""

from pathlib import Path

import pytest

from components.shared.serving.formats.session import cpu_session
from tests.golden.make import FOLDER


def test_a_session_has_the_threads_that_are_asked_for() -> None:
    session = cpu_session(FOLDER / "onnx_bundle/onnx/model.onnx", 1)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_session_options().intra_op_num_threads == 1
    assert [entry.name for entry in session.get_inputs()] == ["images"]


def test_a_refused_graph_is_an_error_without_a_message_of_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(Exception, match=r"model\.onnx"):
        cpu_session(tmp_path / "model.onnx", 1)
    assert capfd.readouterr() == ("", "")
