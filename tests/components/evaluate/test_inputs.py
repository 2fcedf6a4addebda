"""Inputs of an evaluation: parts of different runs are refused, with every difference named."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from components.evaluate.config import EvaluateConfig
from components.evaluate.inputs import EvaluationInputs, check_inputs, read_inputs
from components.shared.contracts.errors import ArtifactError, DataError
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.logits import Logits
from components.shared.policies.policy import softmax_policy
from tests.bundles import write_dataset, write_test_images
from tests.components.evaluate.conftest import N, make_logits, store_logits, store_policy

CONFIG = EvaluateConfig()


def _read(paths: dict[str, Path]) -> EvaluationInputs:
    policies = {kind: paths.get(f"{kind}_policy") for kind in ("softmax", "gate", "scrc")}
    return read_inputs(
        CONFIG,
        policies,
        paths["val_test_logits"],
        paths.get("gate_test_logits"),
        paths["val_test_images"],
    )


def test_each_policy_gets_the_logits_of_its_model(inputs: dict[str, Path]) -> None:
    read = _read(inputs)
    check_inputs(CONFIG, read)
    assert list(read.policies) == ["softmax", "gate", "scrc"]
    assert read.policies["gate"].logits.gate is not None
    assert read.policies["scrc"].logits.gate is None
    assert read.policies["softmax"].policy.outcomes.names == ("None", "Roadwork")
    assert set(read.manifests) == set(inputs) | {"dataset"}


def test_artifacts_in_each_others_place_are_refused(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="holds a policy of kind 'scrc', expected 'gate'"):
        _read(inputs | {"gate_policy": inputs["scrc_policy"]})
    logits = make_logits(gate=True)
    other = dataclasses.replace(logits, sample_ids=tuple(reversed(logits.sample_ids)))
    with pytest.raises(ArtifactError, match="hold different samples"):
        _read(inputs | {"gate_test_logits": store_logits(tmp_path / "other", other)})


def _without_positives(logits: Logits) -> Logits:
    return dataclasses.replace(logits, labels=np.zeros(N, dtype=np.int64))


def _other_labels(logits: Logits) -> Logits:
    labels = logits.labels.copy()
    labels[[3, 5]] = 1 - labels[[3, 5]]
    return dataclasses.replace(logits, labels=labels)


def _unknown_sample(logits: Logits) -> Logits:
    return dataclasses.replace(logits, sample_ids=(*logits.sample_ids[:-1], "f" * 16))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            _other_labels,
            r"2 label\(s\) of the logits differ from those of val_test_images, first 0+3",
        ),
        (_unknown_sample, r"1 sample\(s\) of the logits are not in val_test_images, first f{16}"),
    ],
)
def test_logits_of_another_dataset_are_refused(
    edit: Callable[[Logits], Logits], message: str, inputs: dict[str, Path], tmp_path: Path
) -> None:
    path = store_logits(tmp_path / "edited", edit(make_logits(gate=False)))
    with pytest.raises(ArtifactError, match=message):
        check_inputs(CONFIG, _read({"val_test_logits": path, **_only_softmax(inputs)}))


def _only_softmax(inputs: dict[str, Path]) -> dict[str, Path]:
    return {name: inputs[name] for name in ("softmax_policy", "val_test_images")}


def test_a_test_split_of_one_class_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    path = store_logits(tmp_path / "edited", _without_positives(make_logits(gate=False)))
    read = _read({"val_test_logits": path, **_only_softmax(inputs)})
    images = dataclasses.replace(read.images, labels=dict.fromkeys(read.images.labels, 0))
    read = dataclasses.replace(read, images=images)
    with pytest.raises(DataError, match="all 200 images of VAL_TEST are 'None', an evaluation"):
        check_inputs(CONFIG, read)


def test_every_difference_of_class_names_is_named(inputs: dict[str, Path], tmp_path: Path) -> None:
    policy = softmax_policy(Outcomes.of(("Nothing", "Works"), "binary", "Works"), 0.0)
    write_dataset(tmp_path / "other", ("Empty", "Roadwork"), N)
    write_test_images(tmp_path / "images", tmp_path / "other")
    paths = inputs | {
        "softmax_policy": store_policy(tmp_path / "renamed", policy),
        "val_test_images": tmp_path / "images",
    }
    message = (
        r"policy has class_names \['Nothing', 'Works'\], logits have \['None', 'Roadwork'\];"
        r" val_test_images has class_names \['Empty', 'Roadwork'\], .*; the policy decides between"
        r" \['Nothing', 'Works'\], the configuration between \['None', 'Roadwork'\]: use inputs"
    )
    with pytest.raises(ArtifactError, match=message):
        check_inputs(CONFIG, _read(paths))
