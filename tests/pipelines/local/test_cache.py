"""An entry is as it was written, or a miss; a damaged artifact's entries can be dropped."""

import json
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components.artifact_types import Evaluation
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from pipelines.local.cache import Cache, cache_folder, damage
from tests.pipelines.local.small_steps import EndConfig

KEY = "0" * 64


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "run/evaluate/evaluation"
    with writing(path, kind=Kind.EVALUATION, step="evaluate", config=EndConfig()) as out:
        (out / "report.html").write_text("report")
    return path


@pytest.fixture
def cache(tmp_path: Path, artifact: Path) -> Cache:
    cache = Cache(str(cache_folder(tmp_path)))
    outputs = {"evaluation": Evaluation("evaluation", str(artifact), {"a": 1}), "n": 3.0}
    cache.put(KEY, outputs)
    return cache


def test_an_entry_is_read_as_it_was_written(cache: Cache, artifact: Path) -> None:
    outputs = cache.get(KEY)
    assert outputs is not None
    assert isinstance(outputs["evaluation"], dsl.Artifact)
    assert outputs["evaluation"].path == str(artifact)
    assert outputs["evaluation"].metadata == {"a": 1}
    assert outputs["n"] == 3.0
    assert cache.get("1" * 64) is None


def test_a_commit_that_leaves_the_image_as_it_is_is_no_change(cache: Cache) -> None:
    def key(**variables: str) -> str:
        return cache.compute_key(
            component_name="export-bundle",
            image="cpu:export_bundle-src-0",
            full_command=["python"],
            arguments={},
            env_vars=variables,
        )

    assert key(STREETVISION_GIT_COMMIT="a", OTHER="1") == key(OTHER="1") != key(OTHER="2")


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"5",
        b"null",
        b'{"evaluation": 5}',
        b'{"outputs": [], "digest": ""}',
        b'{"outputs": {}, "digest": "0"}',
        b'{"outputs": {}, "digest": "0", "more": 1}',
        b'{"outputs": ',
        b"\xff",
        b"[" * 100_000,
        b"",
    ],
)
def test_an_entry_of_another_form_is_a_miss(cache: Cache, content: bytes) -> None:
    file = Path(cache.cache_root, f"{KEY}.json")
    file.write_bytes(content)
    assert cache.get(KEY) is None
    assert not cache.drop(Path("/anywhere"))


def test_an_edited_entry_is_a_miss(cache: Cache) -> None:
    file = Path(cache.cache_root, f"{KEY}.json")
    document: dict[str, Any] = json.loads(file.read_text())
    document["outputs"]["n"] = 4.0
    file.write_text(json.dumps(document))
    assert cache.get(KEY) is None


def test_an_artifact_that_is_gone_is_a_miss(cache: Cache, artifact: Path) -> None:
    artifact.rename(artifact.with_name("moved"))
    assert cache.get(KEY) is None


def test_dropping_removes_the_entries_of_one_step(cache: Cache, artifact: Path) -> None:
    cache.put("1" * 64, {"n": 3.0})
    assert not cache.drop(artifact.parents[1] / "other")
    assert cache.drop(artifact.parent)
    assert cache.get(KEY) is None
    assert cache.get("1" * 64) == {"n": 3.0}


def test_damage_is_told_and_its_absence_too(artifact: Path) -> None:
    assert damage(artifact) == ""
    (artifact / "report.html").write_text("changed")
    assert "1 difference(s) from its manifest: report.html" in damage(artifact)
    (artifact / "manifest.json").unlink()
    assert f"{artifact}: no manifest.json" in damage(artifact)
