"""The lineage that `configure` gives to the split: its name, and where the run starts from."""

import dataclasses
from pathlib import Path

import pytest

from components.configure.config import ConfigureConfig
from components.configure.lineage import lineage_name, with_lineage
from components.configure.step import configured, run
from components.ingest_dataset.config import IngestConfig
from components.shared.contracts.environment import Variable
from components.shared.data.lineage import Lineage, Recorded
from components.split_dataset.config import SplitConfig
from tests.model_folder import write_model_folder

INGEST = IngestConfig(data="s3://bucket/photos of 2026", source_fingerprint="f1")
SPLIT = SplitConfig()
ANOTHER_SPLIT = {
    "train_fraction": 0.6,
    "calib_fraction": 0.2,
    "salt": "a",
    "holdout_column": "day",
    "holdout_values": ("monday",),
}


@pytest.fixture(autouse=True)
def lineages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Record lineages below the test's folder."""
    monkeypatch.setenv(Variable.LINEAGES, str(tmp_path / "lineages"))
    return tmp_path / "lineages"


def _record(split: SplitConfig, *, n_calib: int = 13) -> None:
    """What the split leaves after a run with this configuration."""
    lineage = Lineage.open(split.lineage)
    assert lineage is not None
    lineage.append(
        {split.lineage_request: Recorded("place", "TRAIN")},
        request=split.lineage_request,
        previous=split.lineage_previous,
        salt="0-1",
        near_duplicate_distance=8,
        n_groups={"VAL_CALIB": n_calib, "VAL_TEST": 15},
    )


def test_the_name_is_of_the_source_and_of_what_makes_another_split() -> None:
    name = lineage_name(SPLIT, INGEST)
    assert name.startswith("photos-of-2026-")
    same = [
        dataclasses.replace(INGEST, source_fingerprint="f2"),
        dataclasses.replace(INGEST, extra_sources='[{"data": "more"}]'),
        dataclasses.replace(INGEST, image_size=448),
    ]
    assert {lineage_name(SPLIT, ingest) for ingest in same} == {name}
    assert lineage_name(dataclasses.replace(SPLIT, seed=3, min_per_class=1), INGEST) == name

    fractions = {key: ANOTHER_SPLIT[key] for key in ("train_fraction", "calib_fraction")}
    held_out = {key: ANOTHER_SPLIT[key] for key in ("holdout_column", "holdout_values")}
    other = [
        lineage_name(SplitConfig.from_mapping(values), INGEST)
        for values in (fractions, held_out, {"salt": "a"})
    ]
    other.append(lineage_name(SPLIT, dataclasses.replace(INGEST, near_duplicate_distance=4)))
    other.append(lineage_name(SPLIT, dataclasses.replace(INGEST, data="elsewhere")))
    assert len({name, *other}) == 6


def test_a_named_lineage_keeps_its_name_under_any_options() -> None:
    split = SplitConfig.from_mapping({**ANOTHER_SPLIT, "lineage": "roads"})
    assert with_lineage(split, INGEST).lineage == "roads"


def test_the_same_request_starts_where_it_started_and_another_one_from_the_newest() -> None:
    first = with_lineage(SPLIT, INGEST)
    assert first.lineage_previous == ""
    _record(first)
    assert with_lineage(SPLIT, INGEST) == first

    grown = dataclasses.replace(INGEST, source_fingerprint="f2")
    second = with_lineage(SPLIT, grown)
    assert second.lineage == first.lineage
    assert second.lineage_previous
    _record(second)
    assert with_lineage(SPLIT, grown) == second
    assert with_lineage(SPLIT, INGEST) == first

    third = with_lineage(dataclasses.replace(SPLIT, seed=1), grown)
    lineage = Lineage.open(first.lineage)
    assert lineage is not None
    assert third.lineage_previous == lineage.start("another").previous != second.lineage_previous


def test_a_recorded_split_says_what_the_runs_own_policies_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("data")
    write_model_folder(tmp_path / "backbone")
    form = ConfigureConfig(
        data=str(tmp_path / "data"),
        backbone=str(tmp_path / "backbone"),
        alpha="0.1",
        overrides={"calibrate_scrc.min_coverage": 0.5},
    )
    run(form)
    assert "VAL_CALIB" not in capsys.readouterr().out

    _record(SplitConfig.from_mapping(configured(form)._asdict()["split_dataset"]))
    run(form)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines == [
        "gate at alpha=0.1, delta=0.1: 9 independent groups in VAL_CALIB, at least 22 needed: will"
        " be infeasible",
        "scrc at alpha=0.1, delta=0.05: 9 independent groups in VAL_CALIB, at least 29 needed: will"
        " be infeasible",
        "intervals of metrics: 15 groups in VAL_TEST, at least 16 needed: will be left out",
    ]


def test_without_a_place_for_records_the_run_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(Variable.LINEAGES)
    assert with_lineage(SPLIT, INGEST).lineage_previous == ""
