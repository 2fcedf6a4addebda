"""However often a pod or a process of a training is killed, it ends with the bytes of an
undisturbed one.

KILLS says how many per campaign: of lost pods 2 in one campaign by default, 5 in each of six by
`make test-faults`, 50 nightly; of processes inside one pod 1 or 2 in two campaigns by default, 5 in
each of six otherwise.
"""

import dataclasses
import os
import time
from pathlib import Path

import pytest

from components.shared.storage import StoreSettings
from tests.faults import campaign
from tests.faults.campaign import Campaign

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KILLS", "0"))
_RECIPE: dict[str, object] = {"global_batch_size": 16, "checkpoint_steps": 10, "patience": None}
_CAMPAIGNS = [
    Campaign(
        "lora2",
        _RECIPE | {"mode": "lora", "epochs": 40, "n_processes": 2},
        2,
        seed=1,
        stored=True,
        wiped=True,
    ),
    Campaign("frozen1", _RECIPE | {"mode": "frozen", "epochs": 400, "n_processes": 1}, 0, seed=2),
    Campaign(
        "full1",
        _RECIPE | {"mode": "full", "epochs": 60, "n_processes": 1},
        0,
        seed=3,
        stored=True,
        wiped=True,
    ),
    Campaign(
        "gate1",
        {
            "global_batch_size": 16,
            "checkpoint_steps": 10,
            "patience": None,
            "epochs": 300,
            "n_processes": 1,
        },
        0,
        seed=5,
        step="train_gate",
        inputs=("dataset", "splits", "checkpoint"),
        outputs=("gate_checkpoint", "val_calib_logits", "val_test_logits"),
    ),
    Campaign(
        "explora2",
        {
            "explora_objective": "dino",
            "epochs": 30,
            "global_batch_size": 16,
            "explora_rank": 4,
            "explora_prototypes": 16,
            "explora_head_width": 16,
            "explora_local_crops": 2,
            "explora_centering": "center",
            "checkpoint_steps": 10,
            "n_processes": 2,
        },
        0,
        seed=6,
        step="pretrain_explora",
        inputs=("train_images", "pretrained"),
        outputs=("adapted",),
    ),
    # One shard for each split: what is killed is computed again, what is finished is not.
    Campaign(
        "extract2",
        {"n_processes": 2, "n_cached_augmentations": 40},
        0,
        seed=8,
        step="extract_features",
        inputs=("dataset", "splits", "backbone"),
        outputs=("train_features", "val_select_features"),
    ),
    Campaign(
        "full2", _RECIPE | {"mode": "full", "epochs": 40, "n_processes": 2}, 0, seed=4, stored=True
    ),
]


# Predicts again from the beginning: there are no checkpoints.
_PREDICTION = Campaign(
    "predict1",
    {"n_processes": 1},
    1,
    seed=7,
    step="predict_logits",
    inputs=("dataset", "splits", "checkpoint"),
    outputs=("val_calib_logits", "val_test_logits", "val_test_images"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    campaign.prepare(folder)
    return folder


def _prepared(plan: Campaign, name: str, kills: int, max_restarts: int) -> Campaign:
    if not kills:
        pytest.skip("part of make test-faults")
    config = plan.config | {"max_restarts": max_restarts}
    return dataclasses.replace(
        plan, name=f"{plan.name}-{name}", config=config, kills=kills, delivered=[]
    )


@pytest.mark.parametrize("plan", _CAMPAIGNS, ids=lambda plan: plan.name)
def test_lost_at_random_moments_a_pod_is_followed_by_one_that_ends_with_the_same_bytes(
    plan: Campaign, root: Path, s3: StoreSettings
) -> None:
    # Whatever is killed ends the step, as a lost pod does: nothing is started again inside it.
    plan = _prepared(plan, "pods", KILLS or plan.kills, max_restarts=0)
    campaign.run(plan, root, s3)
    print(f"{plan.name}: {len(plan.delivered)} kills: {'; '.join(plan.delivered)}")


@pytest.mark.parametrize("plan", [*_CAMPAIGNS, _PREDICTION], ids=lambda plan: plan.name)
def test_with_its_processes_killed_one_step_ends_with_the_same_bytes(
    plan: Campaign, root: Path, s3: StoreSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    kills = KILLS or plan.kills
    plan = _prepared(plan, "pod", kills, max_restarts=kills)
    started = time.monotonic()
    moments = campaign.run_in_one_pod(plan, root, s3)
    output = capfd.readouterr().out
    assert output.count("; restart ") == kills
    assert f"; restart {kills} of {kills} in " in output
    with capfd.disabled():
        print(f"{plan.name}: {'; '.join(moments)}: {time.monotonic() - started:.0f} s")
