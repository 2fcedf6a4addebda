"""What the decisions say about bundles, and which ones the garbage collection removes."""

from dataclasses import replace
from pathlib import Path

import pytest

from components.shared.contracts.errors import ConfigError
from components.shared.storage import Store
from components.shared.storage.errors import ObjectNotFoundError, StoreConflictError
from components.shared.storage.registry import BundleRegistry, Draft
from components.shared.storage.registry import inventory as module
from components.shared.storage.registry.inventory import State, collect, inventory, removable
from tests.components.shared.storage.registry.conftest import bundle


def _delete(registry: BundleRegistry, name: str) -> None:
    registry.root.store.delete(registry.root.bucket, registry.root.prefix + name)


def _decide(registry: BundleRegistry, digest: str, *, promoted: bool = True) -> None:
    draft = Draft(kind="by_hand", promoted=promoted, challenger=digest, reason="test")
    registry.decide(draft, registry.champion())


def _states(registry: BundleRegistry) -> dict[str, State]:
    return {entry.digest: entry.state for entry in inventory(registry)}


def test_the_champion_its_predecessors_and_what_is_undecided_stay(
    registry: BundleRegistry, digests: list[str], tmp_path: Path
) -> None:
    first, second, refused, undecided = digests
    _decide(registry, first)
    _decide(registry, refused, promoted=False)
    _decide(registry, second)
    assert _states(registry) == {
        first: State.FORMER,
        second: State.CHAMPION,
        refused: State.REFUSED,
        undecided: State.UNDECIDED,
    }

    assert [entry.digest for entry in removable(inventory(registry))] == [refused]
    assert [entry.digest for entry in collect(registry)] == [refused]
    assert {entry.digest for entry in registry.bundles()} == {first, second, undecided}
    assert collect(registry) == []
    assert len(list(registry.decisions())) == 3

    assert [entry.digest for entry in collect(registry, undecided=True)] == [undecided]
    registry.get_bundle(first, tmp_path / "first")
    registry.get_bundle(second, tmp_path / "second")


def test_what_a_rollback_left_can_be_gone_back_to(
    registry: BundleRegistry, digests: list[str]
) -> None:
    first, second, *_ = digests
    _decide(registry, first)
    _decide(registry, second)
    rollback = Draft(kind="rollback", promoted=True, challenger=first, reason="test")
    registry.decide(rollback, registry.champion())
    assert collect(registry) == []
    assert _states(registry)[second] is State.FORMER


def test_a_recorded_promotion_that_may_still_take_effect_stays(
    registry: BundleRegistry, digests: list[str], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, pending, winner, _ = digests
    _decide(registry, first)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "compare_and_swap", die)
        with pytest.raises(KeyboardInterrupt):
            _decide(registry, pending)

    assert _states(registry)[pending] is State.PENDING
    assert collect(registry) == []
    _decide(registry, winner)
    assert _states(registry)[pending] is State.LOST
    assert [entry.digest for entry in collect(registry)] == [pending]


def test_a_promotion_during_the_collection_keeps_its_bundle(
    registry: BundleRegistry, digests: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The promotion finds the bundle whole, and moves the pointer after the inventory was made."""
    first, refused, *_ = digests
    _decide(registry, first)
    _decide(registry, refused, promoted=False)
    take = module._take_manifests
    moved = []

    def promoted_meanwhile(*given: object) -> object:
        if not moved:
            moved.append(refused)
            _decide(registry, refused)
        return take(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_take_manifests", promoted_meanwhile)
    assert collect(registry) == []
    registry.get_bundle(refused, tmp_path / "down")


def test_a_promotion_that_read_the_pointer_before_the_collection_is_refused(
    registry: BundleRegistry, digests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, refused, *_ = digests
    _decide(registry, first)
    _decide(registry, refused, promoted=False)
    over = registry.champion()
    draft = Draft(kind="by_hand", promoted=True, challenger=refused, reason="test")

    monkeypatch.setattr(registry, "holds", lambda _: True)  # it looked before the collection
    collect(registry)
    with pytest.raises(StoreConflictError):
        registry.decide(draft, over)
    monkeypatch.undo()
    with pytest.raises(ObjectNotFoundError):
        registry.decide(replace(draft, reason="again"), registry.champion())


def test_an_unfinished_upload_is_undecided(
    registry: BundleRegistry, digests: list[str], tmp_path: Path
) -> None:
    digest = registry.put_bundle(bundle(tmp_path / "x", "unfinished"))
    _delete(registry, f"bundles/{digest}/manifest.json")
    _decide(registry, digests[0])
    entry = next(entry for entry in inventory(registry) if entry.digest == digest)
    assert (entry.state, entry.is_complete) == (State.UNDECIDED, False)
    assert collect(registry) == []


def test_a_registry_without_a_champion_has_no_garbage(
    registry: BundleRegistry, digests: list[str]
) -> None:
    with pytest.raises(ConfigError, match="has no champion"):
        collect(registry)
