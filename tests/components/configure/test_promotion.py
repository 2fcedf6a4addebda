"""What `configure` reads from the registry: the champion, and the lineage's salt and fractions."""

import dataclasses
from pathlib import Path

import pytest

from components.configure.lineage import lineage_name, with_lineage
from components.configure.promotion import with_champion, with_registered_lineage
from components.ingest_dataset.config import IngestConfig
from components.promote_bundle.config import PromoteConfig
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.data.lineage import Lineage, Recorded
from components.shared.storage import Store, StoreSettings
from components.shared.storage.registry import BundleRegistry, Draft, SplitLineage
from components.split_dataset.config import SplitConfig
from tests.components.shared.storage.registry.conftest import bundle

INGEST = IngestConfig(data="s3://bucket/photos", source_fingerprint="f1")
FRACTIONS = {"TRAIN": 0.6, "VAL_SELECT": 0.1, "VAL_CALIB": 0.15, "VAL_TEST": 0.15}
OPTIONS = {
    "train_fraction": 0.6,
    "select_fraction": 0.1,
    "calib_fraction": 0.15,
    "test_fraction": 0.15,
}


@pytest.fixture
def registry(
    s3: StoreSettings, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BundleRegistry:
    """An empty registry; lineages are recorded below the test's folder."""
    monkeypatch.setenv(Variable.LINEAGES, str(tmp_path / "lineages"))
    return BundleRegistry(Store(s3, deadline_seconds=10), bucket, "registry")


def _know(registry: BundleRegistry, name: str, salt: str = "0-17", *, record: bool = True) -> None:
    """A bundle of the lineage was registered; with `record`, its splits are recorded too."""
    registry.put_lineage(SplitLineage(name=name, salt=salt, fractions=FRACTIONS))
    lineage = Lineage.open(name)
    assert lineage is not None
    if record:
        lineage.append(
            {"a": Recorded("place", "TRAIN")},
            request="r",
            previous="",
            salt=salt,
            near_duplicate_distance=8,
            n_groups={"VAL_CALIB": 1, "VAL_TEST": 1},
        )


def test_the_champion_is_an_option_of_the_promotion(
    registry: BundleRegistry, tmp_path: Path
) -> None:
    asked = PromoteConfig(min_gain=0.01)
    assert with_champion(asked, registry) == asked
    digest = registry.put_bundle(bundle(tmp_path / "up", "a"))
    registry.decide(Draft(kind="first", promoted=True, challenger=digest, reason="none"), None)
    assert with_champion(asked, registry) == dataclasses.replace(asked, champion=digest)


def test_no_worse_than_nothing_is_refused_before_any_work(registry: BundleRegistry) -> None:
    with pytest.raises(ConfigError, match=r"promotion=not_worse: s3://.* has no champion"):
        with_champion(PromoteConfig(promotion="not_worse"), registry)


def test_a_lineage_keeps_the_fractions_of_its_first_run_under_later_defaults(
    registry: BundleRegistry,
) -> None:
    first = SplitConfig.from_mapping({**OPTIONS, "lineage": "roads"})
    assert with_registered_lineage(first, INGEST, registry) == first
    _know(registry, "roads")
    later = with_registered_lineage(SplitConfig(lineage="roads"), INGEST, registry)
    assert later == with_registered_lineage(first, INGEST, registry) == first
    assert (
        with_lineage(later, INGEST).lineage_request == with_lineage(first, INGEST).lineage_request
    )


def test_an_unnamed_lineage_asks_for_the_same_before_and_after_it_is_registered(
    registry: BundleRegistry,
) -> None:
    """So that the split of the second night comes from the cache."""
    split = SplitConfig.from_mapping(OPTIONS)
    before = with_lineage(with_registered_lineage(split, INGEST, registry), INGEST)
    _know(registry, lineage_name(split, INGEST))
    after = with_lineage(with_registered_lineage(split, INGEST, registry), INGEST)
    assert after.lineage_request == before.lineage_request


def test_a_lineage_by_hash_keeps_its_salt(registry: BundleRegistry) -> None:
    _know(registry, "roads", "pepper")
    assert with_registered_lineage(SplitConfig(lineage="roads"), INGEST, registry).salt == "pepper"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"train_fraction": 0.5, "test_fraction": 0.3},
            "its fractions are TRAIN 0.6, VAL_SELECT 0.1, VAL_CALIB 0.15, VAL_TEST 0.15",
        ),
        ({"salt": "salt"}, "its salt is '0-17', not 'salt'"),
    ],
)
def test_other_fractions_or_another_salt_are_refused(
    registry: BundleRegistry, options: dict[str, object], says: str
) -> None:
    _know(registry, "roads")
    split = SplitConfig.from_mapping({"lineage": "roads", **options})
    with pytest.raises(ConfigError, match=f"^lineage 'roads' of the registry: {says}; leave the"):
        with_registered_lineage(split, INGEST, registry)


def test_a_registered_lineage_whose_record_is_lost_is_refused(registry: BundleRegistry) -> None:
    """A new split would put groups that the champion has trained on into VAL_TEST."""
    _know(registry, "roads", record=False)
    with pytest.raises(ConfigError, match=r"'roads' has bundles in s3://.* and no record"):
        with_registered_lineage(SplitConfig(lineage="roads"), INGEST, registry)


def test_splits_that_are_not_recorded_are_refused(
    registry: BundleRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(Variable.LINEAGES)
    with pytest.raises(ConfigError, match=f"^{Variable.LINEAGES} is not set"):
        with_registered_lineage(SplitConfig(), INGEST, registry)
