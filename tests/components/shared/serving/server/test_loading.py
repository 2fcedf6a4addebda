"""Loading: verified bundles in their forms, and as many threads as a container has."""

from pathlib import Path

import pytest

from components.shared.contracts.artifacts import read_manifest
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.machine import n_usable_cores
from components.shared.serving.server.loading import Loader, usable_cores
from tests.bundles import SIZE, noise, onnx_bundle


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_bundle(tmp_path_factory)


def test_a_bundle_is_loaded_with_what_its_form_decides(path: Path, tmp_path: Path) -> None:
    loaded = Loader("onnx", 1, tmp_path).given(str(path))
    assert loaded.digest == read_manifest(path).content_digest
    assert (loaded.form, loaded.image_size) == ("onnx", SIZE)
    assert set(loaded.outcomes) == {"None", "Roadwork"}
    answers = loaded.engine.answers(noise(3))
    assert {answer.decision for answer in answers} <= set(loaded.outcomes)


def test_another_bundle_or_form_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="its content digest is"):
        Loader("onnx", 1, tmp_path).given(str(path), digest="0" * 64)
    with pytest.raises(ArtifactError, match="has no onnx_int8/"):
        Loader("onnx_int8", 1, tmp_path).given(str(path))


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("150000 100000\n", 1),
        ("50000 100000\n", 1),
        ("10000000 100000\n", None),
        ("max 100000\n", None),
        ("nonsense", None),
        (None, None),
    ],
)
def test_threads_are_those_of_the_container(
    tmp_path: Path, quota: str | None, expected: int | None
) -> None:
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota)
    assert usable_cores(file) == (n_usable_cores() if expected is None else expected)
