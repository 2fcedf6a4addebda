"""Splits of the tiny data: held-out values, refusals, and data that grow within a lineage."""

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.calibrate_scrc.config import CalibrateScrcConfig
from components.configure.config import ConfigureConfig
from components.configure.step import configured
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.shared.contracts.errors import ConfigError, DataError, LeakageViolationError
from components.shared.data.dataset import Dataset
from components.shared.data.lineage import LineageConflictError
from components.shared.data.splits import EXCLUDED, Splits, read_splits
from components.shared.data.train_images import TrainImages
from components.split_dataset import needs
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import _plot
from components.split_dataset.step import run as split_dataset
from tests.components.conftest import TinyRun
from tests.model_folder import write_model_folder


def test_held_out_values_form_val_test(tiny: TinyRun, tmp_path: Path) -> None:
    config = SplitConfig(
        holdout_column="group", holdout_values=("place1", "place2", "place7"), min_per_class=1
    )
    split_dataset(config, dataset=tiny.dataset, splits=tmp_path / "splits")
    data, splits = Dataset.open(tiny.dataset), read_splits(tmp_path / "splits")
    held = {data.samples[data.index[i]].attributes.get("group") for i in splits.ids("VAL_TEST")}
    assert held == {"place1", "place2", "place7"}


def test_an_impossible_split_says_what_is_missing(tiny: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"min_per_class=50 cannot be met: the data cannot be split four ways, whichever the"
        r" fractions: class None has 60 images in 40 group\(s\), needs 200 in 5",
    ):
        split_dataset(
            SplitConfig(min_per_class=50), dataset=tiny.dataset, splits=tmp_path / "splits"
        )
    with pytest.raises(
        ConfigError, match="holdout_column='dya' is not in the data; did you mean 'day'"
    ):
        split_dataset(
            SplitConfig(holdout_column="dya", holdout_values=("x",)),
            dataset=tiny.dataset,
            splits=tmp_path / "splits",
        )


def test_the_picture_has_room_for_many_classes(tmp_path: Path) -> None:
    names = tuple(f"speed_limit_{number}" for number in range(43))
    counts = np.tile([[20], [5], [10], [5]], (1, len(names)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _plot(tmp_path / "splits.png", counts, names)
    with Image.open(tmp_path / "splits.png") as image:
        assert image.height > 43 * 16


def test_the_split_says_what_policies_need_before_anything_is_trained(
    tiny: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split_dataset(SplitConfig(min_per_class=1), dataset=tiny.dataset, splits=tmp_path / "splits")
    printed = capsys.readouterr().out
    assert (
        "gate and scrc at alpha=0.05, delta=0.1: 2 independent groups in VAL_CALIB, at least 45"
        " needed: will be infeasible"
    ) in printed
    assert "least alpha that 2 groups without an error certify: 0.684" in printed
    assert "STREETVISION_LINEAGES is not set: the split is not recorded" in printed
    rows = json.loads((tmp_path / "splits/policy_needs.json").read_text())
    assert [row["met"] for row in rows if row["purpose"] == "calibrators"] == [True]
    assert {"purpose": "intervals of metrics", "needs": 16, "has": 4, "met": False}.items() <= rows[
        -1
    ].items()


def test_the_needs_are_shown_at_the_defaults_of_the_policies() -> None:
    scrc = CalibrateScrcConfig()
    defaults = (scrc.alpha, scrc.delta, scrc.tuning_fraction)
    assert defaults == (needs.ALPHA, needs.DELTA, needs.TUNING_FRACTION)
    assert needs.ALPHA in needs.LEVELS


# --- Lineages: data that grow, from `configure` to the split.


class Roads:
    """A folder of noise images with a CSV, and runs of the first three steps on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.n_runs = folder, 0
        self.rows: list[list[str]] = []
        self._rng = np.random.default_rng(0)
        (folder / "data").mkdir()
        write_model_folder(folder / "backbone")

    def add(self, group: str, label: int, n_images: int = 4) -> None:
        """Add images of one place."""
        for _ in range(n_images):
            pixels = self._rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            name = f"{len(self.rows):04d}.png"
            Image.fromarray(pixels).resize((64, 64)).save(self.folder / "data" / name)
            self.rows.append([name, str(label), group])

    def add_like(self, name: str, group: str, label: int) -> str:
        """Add an image that looks like another one but is said to be of `group`."""
        image = Image.open(self.folder / "data" / name)
        copy = f"{len(self.rows):04d}.jpg"
        image.save(self.folder / "data" / copy, quality=75 + len(self.rows) % 20)
        self.rows.append([copy, str(label), group])
        return copy

    def configs(self, **overrides: object) -> dict[str, dict[str, object]]:
        """What `configure` gives every phase."""
        text = "\n".join(",".join(row) for row in [["path", "label", "group"], *self.rows])
        table = self.folder / "data/labels.csv"
        if not table.exists() or table.read_text() != text:  # its time is in the fingerprint
            table.write_text(text)
        form = {
            "data": str(self.folder / "data"),
            "backbone": str(self.folder / "backbone"),
            "image_size": "32",
            "overrides": {"min_per_class": 1, **overrides},
        }
        return dict(configured(ConfigureConfig.from_mapping(form))._asdict())

    def ingested(self, configs: dict[str, dict[str, object]]) -> Path:
        """Return a new folder with the data set."""
        self.n_runs += 1
        run = self.folder / f"run{self.n_runs}"
        config = IngestConfig.from_mapping(configs["ingest_dataset"])
        ingest_dataset(config, dataset=run / "dataset")
        return run

    def split(self, **overrides: object) -> tuple[Path, dict[str, str]]:
        """Run all three; return the run's folder, and the split of every image by its path."""
        configs = self.configs(**overrides)
        run = self.ingested(configs)
        config = SplitConfig.from_mapping(configs["split_dataset"])
        split_dataset(
            config,
            dataset=run / "dataset",
            splits=run / "splits",
            train_images=run / "train_images",
        )
        return run, _by_path(run, read_splits(run / "splits"))


def _by_path(run: Path, splits: Splits) -> dict[str, str]:
    samples = Dataset.open(run / "dataset").samples
    return {sample.path: splits.of[sample.sample_id] for sample in samples}


@pytest.fixture
def roads(lineages: None, tmp_path: Path) -> Roads:
    """Data of 40 places, whose lineages are recorded in a folder or a real store."""
    del lineages
    made = Roads(tmp_path)
    for number in range(40):
        made.add(f"place{number:02d}", number % 2)
    return made


def _place(roads: Roads, splits: dict[str, str], split: str) -> tuple[str, str]:
    """Name of an image, and its group, in a split."""
    return next((row[0], row[2]) for row in roads.rows if splits[row[0]] == split)


def test_data_added_later_never_move_a_group(roads: Roads) -> None:
    """At +2, +10 and +50 % of the groups, with changed labels and united groups."""
    _, first = roads.split()
    total = 40

    for step, n_new in enumerate((1, 4, 20)):
        for _ in range(n_new):
            roads.add(f"place{total:02d}", total % 2)
            total += 1
        roads.rows[step][1] = str(1 - int(roads.rows[step][1]))
        in_train = _place(roads, first, "TRAIN")
        in_test = _place(roads, first, "VAL_TEST")
        joining = roads.add_like(in_test[0], in_train[1], label=step % 2)

        run, grown = roads.split()
        assert {path: grown[path] for path in first} == first
        assert grown[joining] == EXCLUDED
        with (run / "splits/excluded.csv").open() as stream:
            excluded = {row["path"]: row["connects"] for row in csv.DictReader(stream)}
        assert excluded[joining] == "TRAIN VAL_TEST"

        test_before = {path for path, split in first.items() if split == "VAL_TEST"}
        trained = set(TrainImages.open(run / "train_images").sample_ids)
        by_path = {s.path: s.sample_id for s in Dataset.open(run / "dataset").samples}
        assert not {by_path[path] for path in test_before} & trained
        first = {path: split for path, split in grown.items() if split != EXCLUDED}

    counts = [sum(split == name for split in first.values()) for name in ("TRAIN", "VAL_TEST")]
    assert counts[0] / len(first) == pytest.approx(0.7, abs=0.05)
    assert counts[1] / len(first) == pytest.approx(0.1, abs=0.04)


def test_a_repeated_run_has_the_configuration_and_the_bytes_of_the_first(roads: Roads) -> None:
    """So it comes from the cache, or gives the same where the cache was lost."""
    before = roads.configs()["split_dataset"]
    run, _ = roads.split()
    assert roads.configs()["split_dataset"] == before
    again, _ = roads.split()
    assert _bytes(run / "splits") == _bytes(again / "splits")

    roads.add("place90", 1)
    after = roads.configs()["split_dataset"]
    assert after["lineage"] == before["lineage"]
    assert after["lineage_previous"] != before["lineage_previous"] == ""
    grown, _ = roads.split()
    assert roads.configs()["split_dataset"] == after
    assert _bytes(grown / "splits") == _bytes(roads.split()[0] / "splits")


def _bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_another_lineage_starts_anew_and_the_first_one_stays(roads: Roads) -> None:
    _, first = roads.split()
    roads.add("place90", 1)
    run, other = roads.split(lineage="roads-2", seed=5)
    assert json.loads((run / "splits/split.json").read_text())["lineage"] == "roads-2"
    assert {path: other[path] for path in first} != first
    _, grown = roads.split()
    assert {path: grown[path] for path in first} == first


def test_a_seed_chooses_no_new_split(roads: Roads) -> None:
    _, first = roads.split()
    assert roads.split(seed=7)[1] == first


def test_other_fractions_are_another_split_unless_the_lineage_is_named(roads: Roads) -> None:
    larger = {"train_fraction": 0.4, "calib_fraction": 0.4}
    _, first = roads.split(lineage="roads")
    assert roads.split(lineage="roads", **larger)[1] == first
    run, _ = roads.split(**larger)
    assert json.loads((run / "splits/split.json").read_text())["counts"]["VAL_CALIB"]["None"] > 20


def test_a_salt_decides_by_the_hash_alone(roads: Roads) -> None:
    salted = {"salt": "a", "train_fraction": 0.4, "calib_fraction": 0.3, "test_fraction": 0.2}
    limits = {"min_groups_per_class": 1}
    _, first = roads.split(**salted, **limits)
    roads.add("place90", 1)
    _, grown = roads.split(**salted, **limits)
    assert {path: grown[path] for path in first} == first
    assert roads.split(lineage="anew", **salted, **limits)[1] == grown


def test_a_run_that_was_overtaken_says_so(roads: Roads) -> None:
    roads.split()
    roads.add("place90", 1)
    slow = roads.configs()
    run = roads.ingested(slow)
    roads.add("place91", 0)
    roads.split()
    with pytest.raises(LineageConflictError, match="start this run again"):
        split_dataset(
            SplitConfig.from_mapping(slow["split_dataset"]),
            dataset=run / "dataset",
            splits=run / "splits",
        )


def test_groups_that_later_data_declare_one_are_refused(roads: Roads) -> None:
    """No image is new: the user's groups have changed, and the recorded split would leak."""
    _, first = roads.split()
    (_, one), (_, other) = _place(roads, first, "TRAIN"), _place(roads, first, "VAL_TEST")
    for row in roads.rows:
        row[2] = one if row[2] == other else row[2]
    with pytest.raises(LeakageViolationError, match="name another lineage to start anew"):
        roads.split()
    roads.split(lineage="anew")


def test_a_wider_search_for_duplicates_needs_another_lineage(roads: Roads) -> None:
    roads.split(lineage="roads")
    with pytest.raises(ConfigError, match="near_duplicate_distance=10 is more than the 8 of"):
        roads.split(lineage="roads", near_duplicate_distance=10)
    roads.split(near_duplicate_distance=10)


def test_values_to_hold_out_contradict_a_lineage_that_has_them_elsewhere(roads: Roads) -> None:
    _, first = roads.split(lineage="roads")
    held_out = {"holdout_column": "group", "holdout_values": [_place(roads, first, "TRAIN")[1]]}
    with pytest.raises(ConfigError, match="are in another split by lineage 'roads', such as"):
        roads.split(lineage="roads", **held_out)
