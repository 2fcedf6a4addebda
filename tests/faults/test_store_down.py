"""A store that fails while a model trains: a fifth of all calls, or every one.

Part of `make test-faults`: with every call failing, each attempt first waits for the store's
deadline of a minute.
"""

import dataclasses
import os
from pathlib import Path

import pytest

from components.shared.contracts.environment import Variable
from components.shared.storage import Store, StoreSettings
from tests.fault_proxy import fault_proxy
from tests.faults.campaign import Campaign, attempt, digests, prepare

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not int(os.environ.get("KILLS", "0")), reason="part of make test-faults"),
]
_CONFIG: dict[str, object] = {
    "mode": "full",
    "epochs": 8,
    "global_batch_size": 16,
    "checkpoint_steps": 5,
    "patience": None,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store_down")
    prepare(folder)
    return folder


def _campaign(**changes: object) -> Campaign:
    config = _CONFIG | {"n_processes": 1} | changes
    return Campaign("down", config, 0, stored=True, wiped=True)


def _environment(settings: StoreSettings, endpoint: str) -> dict[str, str]:
    settings = dataclasses.replace(settings, endpoint=endpoint)
    return settings.to_environment() | {Variable.CHECKPOINT_STORE: "s3://down/trainings"}


def test_the_model_does_not_depend_on_the_store(root: Path, s3: StoreSettings) -> None:
    Store(s3).make_bucket("down")
    plan = _campaign()
    assert attempt(plan, root, "alone", {}) is None
    expected = digests(plan, root / "down" / "alone")
    for name, rate in (("fifth", 0.2), ("every", 1.0)):
        with fault_proxy(
            s3.endpoint, rate=rate, faults=("error500", "slow_down", "reset_before")
        ) as proxy:
            assert attempt(plan, root, name, _environment(s3, proxy.endpoint)) is None
            print(f"{name}: {proxy.n_faults} of {proxy.counts['calls']} calls failed")
            assert proxy.n_faults
        assert digests(plan, root / "down" / name) == expected
    log = (root / "down" / "every" / "log.txt").read_text()
    assert "warning: the store does not protect this training yet" in log


def test_durability_that_is_required_and_cannot_be_had_ends_the_step(
    root: Path, s3: StoreSettings
) -> None:
    with (
        fault_proxy(s3.endpoint, rate=1.0, faults=("error500",)) as proxy,
        pytest.raises(AssertionError, match="without success"),
    ):
        attempt(_campaign(require_durable=True), root, "durable", _environment(s3, proxy.endpoint))
    assert not (root / "down" / "durable" / "checkpoint").exists()
