"""Racing writers and stores that do not keep the promise."""

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.shared.storage import Store, StoreSettings
from components.shared.storage.errors import (
    StoreConflictError,
    StoreRefusedError,
    StoreUnsuitableError,
)
from components.shared.storage.registry import BundleRegistry, Draft
from tests.fault_proxy import fault_proxy

N_WRITERS = 24


def _race(write: Callable[[int], bool]) -> list[int]:
    """The writers that were told that they won."""
    barrier = threading.Barrier(N_WRITERS)

    def contestant(number: int) -> bool:
        barrier.wait()
        return write(number)

    with ThreadPoolExecutor(N_WRITERS) as pool:
        return [number for number, won in enumerate(pool.map(contestant, range(N_WRITERS))) if won]


def test_of_24_racing_creators_one_wins_and_its_bytes_stay(s3: StoreSettings, bucket: str) -> None:
    stores = [Store(s3) for _ in range(N_WRITERS)]
    winners = _race(
        lambda number: stores[number].put_if_absent(bucket, "pointer", b"writer %d" % number)
    )
    assert len(winners) == 1
    assert stores[0].read(bucket, "pointer") == b"writer %d" % winners[0]


def test_of_24_racing_swaps_of_one_version_one_wins(s3: StoreSettings, bucket: str) -> None:
    stores = [Store(s3) for _ in range(N_WRITERS)]
    etag = stores[0].compare_and_swap(bucket, "pointer", b"start", None)

    def swap(number: int) -> bool:
        try:
            stores[number].compare_and_swap(bucket, "pointer", b"writer %d" % number, etag)
        except StoreConflictError:
            return False
        return True

    winners = _race(swap)
    assert len(winners) == 1
    assert stores[0].read(bucket, "pointer") == b"writer %d" % winners[0]


def test_the_winner_is_told_so_although_answers_get_lost(s3: StoreSettings, bucket: str) -> None:
    with fault_proxy(s3.endpoint, rate=0.3, faults=("reset_after",), seed=5) as proxy:
        faulty = dataclasses.replace(s3, endpoint=proxy.endpoint)
        stores = [Store(faulty, deadline_seconds=20) for _ in range(N_WRITERS)]
        winners = _race(
            lambda number: stores[number].put_if_absent(bucket, "pointer", b"writer %d" % number)
        )
        assert proxy.n_faults > 0
    assert len(winners) == 1
    assert Store(s3).read(bucket, "pointer") == b"writer %d" % winners[0]


def test_no_increment_of_a_counter_is_lost(s3: StoreSettings, bucket: str) -> None:
    Store(s3).compare_and_swap(bucket, "counter", b"0", None)

    def increment(_: int) -> None:
        store = Store(s3)
        while True:
            data, etag = store.read_with_etag(bucket, "counter")
            try:
                store.compare_and_swap(bucket, "counter", b"%d" % (int(data) + 1), etag)
            except StoreConflictError:
                continue
            return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(increment, range(24)))
    assert Store(s3).read(bucket, "counter") == b"24"


def test_swapping_needs_the_current_version(s3: StoreSettings, bucket: str) -> None:
    store = Store(s3)
    first = store.compare_and_swap(bucket, "k", b"1", None)
    second = store.compare_and_swap(bucket, "k", b"2", first)
    assert store.read_with_etag(bucket, "k") == (b"2", second)
    for stale in (first, None):
        with pytest.raises(StoreConflictError, match=f"{bucket}.*'k'.*another writer"):
            store.compare_and_swap(bucket, "k", b"3", stale)
    with pytest.raises(StoreConflictError):
        store.compare_and_swap(bucket, "absent", b"3", first)
    assert not store.put_if_absent(bucket, "k", b"3")
    assert store.read(bucket, "k") == b"2"


def test_a_store_that_ignores_conditions_is_refused_for_promotion(
    s3: StoreSettings, bucket: str
) -> None:
    with fault_proxy(s3.endpoint) as proxy:
        proxy.ignore_conditions = True
        registry = BundleRegistry(Store(dataclasses.replace(s3, endpoint=proxy.endpoint)), bucket)
        draft = Draft(kind="first", promoted=True, challenger="0" * 64, reason="test")
        for write in (
            lambda: registry.decide(draft, over=None),
            lambda: registry.claim(lineage="one", challenger="x", champion="y"),
            registry.require_conditional_writes,
        ):
            with pytest.raises(StoreUnsuitableError, match="ignores If-None-Match"):
                write()
    Store(s3).require_conditional_writes(bucket)
    assert Store(s3).list(bucket) == []  # the probe cleans up


def test_the_probe_shows_what_failed_first_and_not_its_clean_up(
    s3: StoreSettings, bucket: str
) -> None:
    wrong_key = Store(dataclasses.replace(s3, secret_key="wrong-secret-key"))
    with pytest.raises(StoreRefusedError, match=f"cannot swap .*{bucket}.*SignatureDoesNotMatch"):
        wrong_key.require_conditional_writes(bucket)
    with pytest.raises(StoreRefusedError, match=r"cannot swap .*no-such-bucket.*NoSuchBucket"):
        Store(s3).require_conditional_writes("no-such-bucket")
