"""The registry: bundles, claimed comparisons, decisions kept for ever, and one champion."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from components.shared.contracts.artifacts import MANIFEST, PROVENANCE, SIGNATURE, verify_dir
from components.shared.contracts.errors import ArtifactError, ConfigError
from components.shared.storage import Store
from components.shared.storage.artifacts import upload_artifact
from components.shared.storage.errors import (
    ObjectNotFoundError,
    StoreConflictError,
    StoreRefusedError,
)
from components.shared.storage.registry import BundleRegistry, Draft, Provenance, SplitLineage
from pipelines.sources import ROOT
from tests.components.shared.storage.registry.conftest import bundle
from tests.modes import modes
from tests.resigned import resign

LINEAGE = SplitLineage(name="photos-1", salt="5", fractions={"TRAIN": 0.7, "VAL_TEST": 0.3})


def _put(registry: BundleRegistry, name: str, file: Path, data: bytes) -> None:
    file.write_bytes(data)
    registry.root.store.put(registry.root.bucket, registry.root.prefix + name, file)


def _delete(registry: BundleRegistry, name: str) -> None:
    registry.root.store.delete(registry.root.bucket, registry.root.prefix + name)


def _promoting(digest: str, **fields: object) -> Draft:
    given = {"kind": "by_hand", "promoted": True, "challenger": digest, "reason": "test"}
    return Draft(**(given | fields))  # type: ignore[arg-type]


# Bundles.


def test_a_bundle_comes_back_as_it_went(registry: BundleRegistry, tmp_path: Path) -> None:
    digest = registry.put_bundle(bundle(tmp_path / "up", "weights"))
    assert registry.put_bundle(tmp_path / "up") == digest
    before = os.umask(0o077)
    registry.get_bundle(digest, tmp_path / "down")
    os.umask(before)
    assert modes(tmp_path / "down") == modes(tmp_path / "up")
    assert verify_dir(tmp_path / "down", "Bundle") == verify_dir(tmp_path / "up", "Bundle")
    assert registry.put_bundle(bundle(tmp_path / "other", "other")) != digest


def test_an_unfinished_upload_does_not_exist(registry: BundleRegistry, tmp_path: Path) -> None:
    digest = registry.put_bundle(bundle(tmp_path / "up", "weights"))
    _delete(registry, f"bundles/{digest}/manifest.json")
    assert [entry.is_complete for entry in registry.bundles()] == [False]
    with pytest.raises(ObjectNotFoundError):
        registry.get_bundle(digest, tmp_path / "down")
    with pytest.raises(ObjectNotFoundError, match="bundles/"):
        registry.decide(_promoting(digest), over=None)
    assert not (tmp_path / "down").exists()
    assert list(registry.decisions()) == []


def test_a_bundle_under_another_digest_is_refused(registry: BundleRegistry, tmp_path: Path) -> None:
    up = bundle(tmp_path / "up", "weights")
    root = registry.root
    place = f"{root.prefix}bundles/{'0' * 64}"
    upload_artifact(root.store, up, root.bucket, place, kind="Bundle")
    with pytest.raises(ArtifactError, match="000000000000"):
        registry.get_bundle("0" * 64, tmp_path / "down")


def test_a_digest_is_found_by_its_beginning(registry: BundleRegistry, digests: list[str]) -> None:
    assert registry.resolve(digests[0][:12]) == digests[0]
    assert registry.resolve(digests[0]) == digests[0]
    with pytest.raises(ConfigError, match="none of the bundles"):
        registry.resolve("0" * 12)
    with pytest.raises(ConfigError, match="6 to 64 hex digits"):
        registry.resolve("../x")


def test_the_first_provenance_of_equal_bytes_stays(
    registry: BundleRegistry, tmp_path: Path
) -> None:
    up = bundle(tmp_path / "up", "weights")
    digest = registry.put_bundle(up, Provenance(lineage=LINEAGE, run="first"))
    registry.put_bundle(up, Provenance(run="second"))
    found = registry.provenance(digest)
    assert found is not None
    assert (found.run, found.lineage) == ("first", LINEAGE)
    assert found.registered_at
    assert registry.provenance("0" * 64) is None


# Lineages.


def test_a_lineage_keeps_its_salt_and_fractions(registry: BundleRegistry) -> None:
    assert registry.lineage(LINEAGE.name) is None
    assert registry.put_lineage(LINEAGE) == LINEAGE
    assert registry.put_lineage(replace(LINEAGE, salt="other")) == LINEAGE
    assert registry.lineage(LINEAGE.name) == LINEAGE
    with pytest.raises(ConfigError, match="letters, digits"):
        registry.lineage("../champion")


def test_a_table_is_what_its_digest_says(registry: BundleRegistry, tmp_path: Path) -> None:
    digest = registry.put_table(b"sample_id,split,group\n")
    assert registry.table(digest) == b"sample_id,split,group\n"
    _put(registry, f"tables/{digest}.csv", tmp_path / "x", b"other")
    with pytest.raises(ArtifactError, match="was changed"):
        registry.table(digest)


# Comparisons.


def test_comparisons_are_counted_per_lineage(registry: BundleRegistry) -> None:
    claims = [
        registry.claim(lineage=lineage, challenger=challenger, champion="c", run="r")
        for lineage, challenger in (("one", "x"), ("one", "y"), ("two", "x"))
    ]
    assert [claim.number for claim in claims] == [1, 2, 1]
    assert all(claim.is_new for claim in claims)
    assert registry.comparisons("one") == claims[:2]


def test_a_retry_of_a_comparison_spends_nothing(registry: BundleRegistry) -> None:
    asked = {"lineage": "one", "challenger": "x", "champion": "c", "question": "q"}
    first = registry.claim(**asked, run="night 1")
    registry.claim(**(asked | {"challenger": "y"}))
    again = registry.claim(**asked, run="night 3")
    assert (again, again.is_new, again.run) == (first, False, "night 1")
    other_images = registry.claim(**(asked | {"question": "q2"}))
    assert (other_images.number, other_images.is_new) == (3, True)


def test_racing_claims_get_numbers_of_their_own_and_equal_ones_share(
    registry: BundleRegistry,
) -> None:
    def claim(challenger: str) -> tuple[int, bool]:
        found = registry.claim(lineage="one", challenger=challenger, champion="c")
        return found.number, found.is_new

    registry.require_conditional_writes()
    challengers = [*"abcdefgh", *"abcdefgh"]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(claim, challengers))
    numbers = dict(zip(challengers, found, strict=True))
    assert sorted(number for number, _ in numbers.values()) == list(range(1, 9))
    assert sum(is_new for _, is_new in found) == 8
    assert len(registry.comparisons("one")) == 8


# Decisions and the champion.


def test_the_champion_moves_only_from_the_one_that_was_seen(
    registry: BundleRegistry, digests: list[str]
) -> None:
    first, second, *_ = digests
    assert registry.champion() is None
    registry.decide(_promoting(first, kind="first"), over=None)
    old = registry.champion()
    assert old is not None
    assert (old.digest, old.previous, old.decision) == (first, None, 1)
    registry.decide(_promoting(second), over=old)
    new = registry.champion()
    assert new is not None
    assert (new.digest, new.previous, new.decision) == (second, first, 2)
    for stale in (None, old):
        with pytest.raises(StoreConflictError, match=r"champion\.json"):
            registry.decide(_promoting(digests[2]), over=stale)
    assert registry.champion() == new


def test_a_refusal_is_kept_with_its_numbers(registry: BundleRegistry, digests: list[str]) -> None:
    registry.decide(_promoting(digests[0], kind="first"), over=None)
    over = registry.champion()
    assert over is not None
    claim = registry.claim(lineage="one", challenger=digests[1], champion=over.digest)
    refusal = Draft(
        kind="comparison",
        promoted=False,
        challenger=digests[1],
        reason="MCC is not higher",
        lineage="one",
        comparison=claim.number,
        evidence={"gain": -0.01, "interval": [-0.04, None]},
        run="night 2",
        git_commit="abc",
    )
    recorded = registry.decide(refusal, over)
    assert registry.champion() == over
    assert registry.decision(recorded.number) == recorded
    assert recorded.evidence == {"gain": -0.01, "interval": [-0.04, None]}
    assert (recorded.challenger, recorded.champion) == (digests[1], digests[0])


def test_a_comparison_is_decided_once(registry: BundleRegistry, digests: list[str]) -> None:
    """Whatever a later attempt thinks of it: it has seen the same images again."""
    registry.decide(_promoting(digests[0], kind="first"), over=None)
    over = registry.champion()
    assert over is not None
    claim = registry.claim(lineage="one", challenger=digests[1], champion=over.digest)
    assert registry.decision_on(claim) is None
    draft = _promoting(digests[1], kind="comparison", lineage="one", comparison=claim.number)
    refused = registry.decide(replace(draft, promoted=False), over)
    assert registry.decide(draft, over) == refused
    assert registry.decision_on(claim) == refused
    assert registry.champion() == over
    assert len(list(registry.decisions())) == 2


def test_a_step_that_died_between_record_and_pointer_moves_it_when_it_is_repeated(
    registry: BundleRegistry,
    digests: list[str],
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry.decide(_promoting(digests[0], kind="first"), over=None)
    over = registry.champion()
    assert over is not None
    claim = registry.claim(lineage="one", challenger=digests[1], champion=over.digest)
    draft = _promoting(digests[1], kind="comparison", lineage="one", comparison=claim.number)
    with monkeypatch.context() as patch:
        patch.setattr(
            store, "compare_and_swap", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            registry.decide(draft, over)

    assert registry.champion() == over
    for _ in range(2):  # and a third attempt, after the pointer has moved
        assert registry.decide(draft, over).number == 2
        champion = registry.champion()
        assert champion is not None
        assert (champion.digest, champion.decision) == (digests[1], 2)
    assert len(list(registry.decisions())) == 2


def test_the_chain_has_what_took_effect_and_a_rollback_goes_further_back_each_time(
    registry: BundleRegistry, digests: list[str]
) -> None:
    first, second, third, lost = digests
    assert registry.champions() == []
    assert registry.predecessors() == []
    for digest in (first, second, third):
        registry.decide(_promoting(digest), registry.champion())
    with pytest.raises(StoreConflictError):
        registry.decide(_promoting(lost), over=None)  # recorded, without effect
    assert [digest for digest, _ in registry.champions()] == [third, second, first]
    assert registry.predecessors() == [second, first]

    registry.decide(_promoting(second, kind="rollback"), registry.champion())
    assert registry.predecessors() == [first]
    registry.decide(_promoting(first, kind="rollback"), registry.champion())
    assert registry.predecessors() == []
    chain = [(digest, decision.number) for digest, decision in registry.champions() if decision]
    assert chain == [(first, 6), (second, 5), (third, 3), (second, 2), (first, 1)]


def test_a_pointer_of_an_earlier_release_is_read_and_replaced(
    registry: BundleRegistry, digests: list[str], tmp_path: Path
) -> None:
    document = {"digest": digests[1], "previous": digests[0]}
    _put(registry, "champion.json", tmp_path / "x", json.dumps(document).encode())
    over = registry.champion()
    assert over is not None
    assert (over.digest, over.previous, over.decision) == (digests[1], digests[0], None)
    assert registry.champions() == [(digests[1], None), (digests[0], None)]
    registry.decide(_promoting(digests[2]), over)
    assert [digest for digest, _ in registry.champions()] == [digests[2], digests[1]]


def test_a_pointer_of_any_length_is_refused_by_its_size(
    registry: BundleRegistry, tmp_path: Path
) -> None:
    _put(registry, "champion.json", tmp_path / "x", b" " * 2_000_000)
    with pytest.raises(StoreRefusedError, match="has 2,000,000 bytes, more than the 1,048,576"):
        registry.champion()


def test_records_of_every_release_are_read(registry: BundleRegistry, tmp_path: Path) -> None:
    """They are kept for ever: those of tests/golden/registry are of the first release with them."""
    golden = ROOT / "tests/golden/registry"
    for file in golden.rglob("*.json"):
        _put(registry, file.relative_to(golden).as_posix(), tmp_path / "x", file.read_bytes())
    assert [digest for digest, _ in registry.champions()] == ["b", "a"]
    assert registry.predecessors() == ["a"]
    newest, first = registry.decisions()
    assert newest.evidence == {"gain": 0.04, "interval": [0.01, None]}
    assert (first.kind, first.over) == ("first", None)
    (comparison,) = registry.comparisons("one")
    assert registry.decision_on(comparison) == newest
    lineage, provenance = registry.lineage("one"), registry.provenance("b")
    assert lineage is not None
    assert lineage.fractions == {"TRAIN": 0.7, "TEST": 0.3}
    assert provenance is not None
    assert (provenance.run, provenance.split_table) == ("night 2", "f00d")


@pytest.mark.parametrize("data", [b"", b"[]", b'{"digest": 3}', b'{"digest": "x"}', b"\xff"])
def test_garbage_is_named(registry: BundleRegistry, tmp_path: Path, data: bytes) -> None:
    for name, read in (
        ("champion.json", registry.champion),
        ("decisions/000001.json", lambda: list(registry.decisions())),
        ("comparisons/one/000001.json", lambda: registry.comparisons("one")),
        ("lineages/one.json", lambda: registry.lineage("one")),
    ):
        _put(registry, f"{name}", tmp_path / "m", data)
        with pytest.raises(ArtifactError, match=f"{name}: "):
            read()


def test_a_bundle_keeps_its_signature_and_a_new_one_replaces_it(
    registry: BundleRegistry, tmp_path: Path
) -> None:
    """The registry stores bytes; who signed them is asked by who opens the bundle."""
    up = bundle(tmp_path / "up", "weights")
    digest = registry.put_bundle(up)
    registry.get_bundle(digest, tmp_path / "unsigned")
    assert not (tmp_path / "unsigned" / SIGNATURE).exists()

    for text in ("first", "second"):
        (up / SIGNATURE).write_text(text)
        (up / PROVENANCE).write_text("{}")
        assert registry.put_bundle(up) == digest
        registry.get_bundle(digest, tmp_path / "down")
        assert (tmp_path / "down" / SIGNATURE).read_text() == text
        assert (tmp_path / "down" / PROVENANCE).read_text() == "{}"
        assert [entry.digest for entry in registry.bundles()] == [digest]

    (up / SIGNATURE).unlink()
    registry.put_bundle(up)
    registry.get_bundle(digest, tmp_path / "down")
    assert (tmp_path / "down" / SIGNATURE).read_text() == "second"


def test_a_signature_comes_with_the_manifest_that_it_covers(
    registry: BundleRegistry, tmp_path: Path
) -> None:
    """Other code made the same bytes: one content digest, two manifests."""
    registry.put_bundle(bundle(tmp_path / "up", "weights"))
    again = bundle(tmp_path / "again", "weights")
    resign(again, code_version="other")
    (again / SIGNATURE).write_text("over the other manifest")
    digest = registry.put_bundle(again)
    registry.get_bundle(digest, tmp_path / "down")
    assert (tmp_path / "down" / MANIFEST).read_bytes() == (again / MANIFEST).read_bytes()
