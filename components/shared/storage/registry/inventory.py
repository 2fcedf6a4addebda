"""What the decisions say about each bundle of a registry, and which bundles may be removed.

A bundle that ever was the champion is kept: a rollback may go back to it. So is one that was not
decided on yet, and one whose promotion is recorded and may still take effect. What was refused, or
lost against another promotion, is removed on request; its records stay.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from components.shared.contracts.artifacts import MANIFEST
from components.shared.contracts.errors import ConfigError
from components.shared.storage.client import MOST_DOCUMENT_BYTES
from components.shared.storage.errors import ObjectNotFoundError, StoreConflictError
from components.shared.storage.registry.bundle_registry import BundleRegistry
from components.shared.storage.registry.documents import Champion, Decision

_N_TRIES = 20


class State(StrEnum):
    """What the decisions say about a bundle."""

    CHAMPION = "champion"
    FORMER = "former champion"
    PENDING = "promotion recorded"
    UNDECIDED = "undecided"
    REFUSED = "refused"
    LOST = "another promotion was first"


_REMOVED = (State.REFUSED, State.LOST)


@dataclass(frozen=True)
class Entry:
    """A bundle of the registry.

    Attributes:
        digest: content digest.
        n_bytes: of all its objects.
        state: what the decisions say about it.
        decision: the newest decision on it; None where there is none.
        is_complete: False for an unfinished upload.
    """

    digest: str
    n_bytes: int
    state: State
    decision: Decision | None
    is_complete: bool


def inventory(registry: BundleRegistry) -> list[Entry]:
    """Return all bundles with what was decided on them, sorted by digest."""
    return _inventory(registry, registry.champion())


def removable(
    entries: Sequence[Entry], *, undecided: bool = False, keep: Collection[str] = ()
) -> list[Entry]:
    """Return the bundles that `collect` removes.

    Args:
        entries: the inventory.
        undecided: also those that no decision names, unfinished uploads among them: right only
            while no run is at work.
        keep: digests of bundles that stay whatever was decided on them.
    """
    states = (*_REMOVED, State.UNDECIDED) if undecided else _REMOVED
    return [entry for entry in entries if entry.state in states and entry.digest not in keep]


def collect(
    registry: BundleRegistry,
    *,
    undecided: bool = False,
    keep: Collection[str] = (),
    on_removed: Callable[[Entry], None] = lambda _: None,
) -> list[Entry]:
    """Remove the objects of bundles that nothing can go back to; return these bundles.

    First their manifests go, so that no promotion finds them whole; then the pointer is renewed, so
    that a promotion which found them whole before cannot move it; only then all else goes. Where a
    promotion was first, the manifests come back and everything is looked at anew.

    Args:
        registry: the registry.
        undecided: see `removable`.
        keep: see `removable`.
        on_removed: called with each bundle that is gone.

    Raises:
        ConfigError: there is no champion, and so no decision on what can go.
        StoreConflictError: promotions were first every time.
    """
    registry.require_conditional_writes()
    for _ in range(_N_TRIES):
        champion = registry.champion()
        if champion is None:
            raise ConfigError(f"{registry.uri} has no champion: nothing in it was decided yet")

        entries = removable(_inventory(registry, champion), undecided=undecided, keep=keep)
        manifests = dict(_take_manifests(registry, entries))
        try:
            registry.renew_pointer(champion)
        except StoreConflictError:
            for name, data in manifests.items():
                registry.root.store.put_if_absent(registry.root.bucket, name, data)
            continue

        for entry in entries:
            for item in registry.root.objects(f"bundles/{entry.digest}/"):
                registry.root.store.delete(registry.root.bucket, item.key)
            on_removed(entry)
        return entries

    raise StoreConflictError(f"{registry.uri}: {_N_TRIES} promotions were first; try again later")


def _inventory(registry: BundleRegistry, champion: Champion | None) -> list[Entry]:
    newest: dict[str, Decision] = {}
    for decision in registry.decisions():
        newest.setdefault(decision.challenger, decision)

    champions = {digest for digest, _ in registry.champions()}
    return [
        Entry(
            digest=bundle.digest,
            n_bytes=bundle.n_bytes,
            state=_state(bundle.digest, newest.get(bundle.digest), champion, champions),
            decision=newest.get(bundle.digest),
            is_complete=bundle.is_complete,
        )
        for bundle in registry.bundles()
    ]


def _state(
    digest: str, decision: Decision | None, champion: Champion | None, champions: set[str]
) -> State:
    if champion is not None and digest == champion.digest:
        return State.CHAMPION
    if digest in champions:
        return State.FORMER
    if decision is None:
        return State.UNDECIDED
    if not decision.promoted:
        return State.REFUSED

    # The step may have died before it moved the pointer, and be repeated.
    at = champion.decision if champion is not None else None
    return State.PENDING if decision.over == at else State.LOST


def _take_manifests(
    registry: BundleRegistry, entries: Sequence[Entry]
) -> Iterator[tuple[str, bytes]]:
    """Remove the manifests of bundles; yield the key and the bytes of each one."""
    root = registry.root
    for entry in entries:
        key = f"{root.prefix}bundles/{entry.digest}/{MANIFEST}"
        try:
            data = root.store.read(root.bucket, key, most_bytes=4 * MOST_DOCUMENT_BYTES)
        except ObjectNotFoundError:
            continue
        root.store.delete(root.bucket, key)
        yield key, data
