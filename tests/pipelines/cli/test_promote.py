"""The verb `promote`: the checks of a run or none, always a reason, always a record."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from components.shared.storage import StoreSettings
from components.shared.storage.registry import BundleRegistry, Draft, Provenance, SplitLineage
from pipelines.cli.app import main
from pipelines.cli.registry import commit, login
from tests.promotion import FRACTIONS, Run, make_run
from tests.registries import name_registry, new_registry

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The model that the labels come from: 95 % of its decisions are right."""
    return make_run(tmp_path_factory.mktemp("best"), seed=1)


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Another model on the same data, hardly better than chance."""
    return make_run(tmp_path_factory.mktemp("weak"), seed=2)


@pytest.fixture(scope="module")
def abroad(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model of another lineage, which trained on 50 of the 60 groups of VAL_TEST."""
    seen = {f"g{group}": "TRAIN" for group in range(50)}
    root = tmp_path_factory.mktemp("abroad")
    return make_run(root, seed=2, lineage="abroad", splits_of_groups=seen)


@pytest.fixture
def registry(s3: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> BundleRegistry:
    """An empty registry, which the environment names."""
    found = new_registry(s3)
    name_registry(found, s3, monkeypatch)
    return found


@pytest.fixture
def promote(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the verb; return its exit code, output and errors."""

    def run(bundle: object, artifacts: Path, *options: str) -> tuple[int, str, str]:
        code = 0
        try:
            main(["promote", str(bundle), "--artifacts", str(artifacts), *options])
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def _bundle(run: Run) -> Path:
    return run.root / "bundle"


def test_a_bundle_is_compared_as_in_a_run_and_refused_or_promoted(
    registry: BundleRegistry, promote: Command, best: Run, weak: Run
) -> None:
    because = ("--because", "a new camera")
    code, out, _ = promote(_bundle(weak), weak.root, *because)
    assert code == 0
    assert f"promoted {weak.digest[:12]}  (first champion)" in out
    assert f"{login()}: a new camera" in out

    code, out, _ = promote(_bundle(best), best.root, *because, "--param", "min_gain=0.01")
    assert code == 0
    assert f"promoted {best.digest[:12]} over {weak.digest[:12]}  (comparison 1 of" in out

    code, out, _ = promote(weak.digest[:9], weak.root, *because, "--json")
    assert code == 3
    decision = json.loads(out)
    assert (decision["promoted"], decision["comparison"]) == (False, 2)
    assert (decision["because"], decision["by"]) == ("a new camera", login())
    assert decision["git_commit"] == commit()

    code, out, _ = promote(_bundle(best), best.root, *because)
    assert (code, out.strip()) == (
        0,
        f"{best.digest[:12]} is the champion already; nothing was compared",
    )
    assert len(registry.comparisons("roads")) == 2


def test_force_makes_no_comparison_and_the_record_says_so(
    registry: BundleRegistry, promote: Command, best: Run, weak: Run, tmp_path: Path
) -> None:
    forced = ("--because", "it fails at night", "--force")
    assert promote(_bundle(best), best.root, *forced)[0] == 0
    code, out, _ = promote(_bundle(weak), tmp_path, *forced, "--json")
    assert code == 0
    decision = json.loads(out)
    assert (decision["kind"], decision["comparison"]) == ("by_hand", None)
    assert decision["reason"] == "by hand, without a comparison; its lineage is not known"
    known = registry.provenance(best.digest)
    unknown = registry.provenance(weak.digest)
    assert known is not None
    assert known.lineage is not None
    assert known.lineage.name == "roads"
    assert unknown is not None
    assert unknown.lineage is None
    assert registry.comparisons("roads") == []
    code, _, err = promote(_bundle(weak), tmp_path, *forced)
    assert (code, "is the champion already" in err) == (42, True)


@pytest.mark.parametrize(
    ("bundle", "options", "message"),
    [
        ("bundle", (), "give --because TEXT"),
        ("bundle", ("--because", "x"), "has not the dataset that the bundle was made from"),
        ("nowhere", ("--because", "x"), "neither the folder of a bundle nor a digest"),
        ("0123456789", ("--because", "x"), "none of the bundles"),
        ("splits", ("--because", "x", "--force"), "kind is 'Splits'"),
        ("bundle", ("--because", "x", "--param", "gain=1"), "gain"),
        ("bundle", ("--because", "x", "--param", "min_gain=2"), "min_gain=2"),
        ("bundle", ("--because", "x", "--param", "min_gain"), "must be key=value"),
        ("bundle", ("--because", "x", "--on-promotion", "hook"), "must be http://host/path"),
    ],
)
def test_bad_input_is_one_line(
    registry: BundleRegistry,
    promote: Command,
    best: Run,
    tmp_path: Path,
    bundle: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    place = best.root / bundle if (best.root / bundle).exists() else bundle
    code, out, err = promote(place, tmp_path, *options)
    assert (code, out) == (42, "")
    assert len(err.splitlines()) == 1
    assert message in err
    assert registry.bundles() == []


def test_a_champion_of_a_foreign_lineage_is_not_compared(
    registry: BundleRegistry, promote: Command, best: Run, abroad: Run
) -> None:
    """Of its samples nothing is known; without a comparison it can be replaced."""
    registry.put_bundle(
        _bundle(abroad),
        Provenance(lineage=SplitLineage(name="abroad", salt="s", fractions=FRACTIONS)),
    )
    draft = Draft(kind="by_hand", promoted=True, challenger=abroad.digest, reason="test")
    registry.decide(draft, None)

    because = ("--because", "x")
    code, out, err = promote(_bundle(best), best.root, *because)
    line = (
        "error: not compared: the champion is of lineage 'abroad', the challenger of 'roads', and"
        " the samples that the champion has seen are not recorded; promote by hand with --force,"
        " or train in the champion's lineage; recorded as decision 2\n"
    )
    assert (code, out, err) == (42, "", line)
    assert registry.comparisons("roads") == []
    assert promote(_bundle(best), best.root, *because, "--force")[0] == 0


def test_a_champion_that_trained_on_val_test_is_not_compared(
    registry: BundleRegistry, promote: Command, best: Run, abroad: Run
) -> None:
    because = ("--because", "x")
    assert promote(_bundle(abroad), abroad.root, *because)[0] == 0
    code, out, err = promote(_bundle(best), best.root, *because)
    assert (code, out) == (42, "")
    assert err.startswith(
        "error: not compared: 10 groups of VAL_TEST can be compared, a test needs 16"
    )
    assert len(err.splitlines()) == 1


def test_not_worse_than_no_champion_is_refused(
    registry: BundleRegistry, promote: Command, best: Run
) -> None:
    options = ("--because", "x", "--param", "promotion=not_worse")
    code, _, err = promote(_bundle(best), best.root, *options)
    assert code == 42
    assert "promotion='not_worse' needs a champion" in err
