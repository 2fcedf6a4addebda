"""SIGTERM under load: every request that was sent gets its answer."""

import time
from pathlib import Path

import pytest

from tests.bench.server_load import finish_load, start_load
from tests.bundles import onnx_bundle
from tests.serving_server import Process, photo


@pytest.mark.slow
@pytest.mark.parametrize("queue", [64, 2])
def test_an_end_under_load_loses_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, queue: int
) -> None:
    """Also where the queue is full all the time, so that some requests are refused with 503."""
    image = tmp_path / "photo.jpg"
    image.write_bytes(photo(200, "JPEG", 200))
    with Process("--queue", queue, onnx_bundle(tmp_path_factory)) as process:
        load = start_load(process.said["http"], 8, 60, [image])
        time.sleep(4)
        assert process.end() == 0
        said = process.errors()
    seen = finish_load(load)
    assert set(seen.statuses) <= {"200", "503"}, seen.statuses
    assert seen.statuses["200"] > 20
    assert seen.refused == 8  # each client ended because nobody listened any more
    assert "Traceback" not in said
