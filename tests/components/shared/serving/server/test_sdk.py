"""The parts of KServe's SDK: what the server imports, and that the rest still imports after it."""

import subprocess
import sys

import pytest

from pipelines.sources import ROOT

_PROGRAM = """
import sys
import components.shared.serving.server.loading
import components.shared.serving.server.process
print([name for name in ("kubernetes", "pandas", "torch", "transformers") if name in sys.modules])
import kserve, pandas
print(kserve.KServeClient.__name__, pandas.DataFrame({"a": [1, 2]}).shape)
"""


@pytest.mark.slow  # seconds of imports in a process of its own
def test_a_server_imports_no_library_that_no_request_uses() -> None:
    said = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == ["[]", "KServeClient (2, 1)"]
