"""With three processes the order of sums depends on how DDP groups gradients, which it learns in
its first step.
"""

import os
from pathlib import Path

import pytest
import torch

from components.shared.contracts.errors import TransientError
from tests.components.shared.training.session.test_resume import launch_toy

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not os.environ.get("KILLS"), reason="part of make test-faults")
def test_three_processes_resume_identically(tmp_path: Path) -> None:
    job = {"width": 700, "noise": False}
    expected = launch_toy(tmp_path / "whole", 3, tmp_path / "unused", **job)
    with pytest.raises(TransientError, match="planted"):
        launch_toy(tmp_path / "first", 3, tmp_path / "place", fault="raise", at=5, **job)
    resumed = launch_toy(tmp_path / "second", 3, tmp_path / "place", **job)
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
