"""Parts of ingest and their merge, as processes that KFP's local runner starts."""

from pathlib import Path

import pytest
from kfp import dsl, local

from components.artifact_types import ImageDataset
from components.ingest_dataset.component import ingest_part, merge_parts
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest
from components.shared.contracts.environment import Variable
from pipelines.sources import ROOT
from tests.components.conftest import write_source
from tests.components.ingest_dataset.test_chunks import digests


@dsl.pipeline(name="parts")
def in_parts(config: dict) -> ImageDataset:  # type: ignore[type-arg]
    """Check two parts and merge them."""
    parts = {
        f"part_{number}": ingest_part(config=config, number=number, n_parts=2).outputs["part"]
        for number in (1, 2)
    }
    return merge_parts(config=config, **parts).outputs["dataset"]


@pytest.mark.filterwarnings("ignore:You may be attemping to run a task:RuntimeWarning")
def test_two_tasks_and_their_merge_give_the_bytes_of_one_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_source(tmp_path / "source", 20)
    config = IngestConfig(data=str(tmp_path / "source"), image_size=16, source_fingerprint="f")
    ingest(config, dataset=tmp_path / "one")

    monkeypatch.setenv(Variable.PYTHONPATH, str(ROOT))
    monkeypatch.setenv(Variable.CHECKPOINTS, str(tmp_path / "checkpoints"))
    local.init(
        runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "outputs")
    )
    values = {
        name: value for name, value in config.to_json().items() if value is not None
    }  # KFP's local runner refuses null
    task = in_parts(config=values)
    assert digests(Path(task.output.path)) == digests(tmp_path / "one")
