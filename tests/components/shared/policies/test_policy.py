"""Policy documents: decisions, round trip, and refusal of edited or malformed files."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from components.shared.calibration.linear import Platt, Temperature
from components.shared.contracts.errors import ArtifactError, DataError
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.policy import (
    GatePolicy,
    Policy,
    ScrcPolicy,
    argmax_policy,
    parse_policy,
    softmax_policy,
)
from components.shared.stats.metrics import sigmoid, softmax

POLICY = softmax_policy(Outcomes.of(("None", "Roadwork"), "binary", "Roadwork"), -1.605)


COMMON: dict[str, Any] = {
    "outcomes": Outcomes.of(("None", "Roadwork")),
    "threshold": 0.5,
    "threshold_margin": 0.0,
    "risk": "error",
    "alpha": 0.05,
    "delta": 0.1,
    "coverage_lower_bound": 0.3,
}
SCRC = ScrcPolicy(
    kind="scrc",
    **COMMON,
    calibrator=Temperature(2.0),
    answer_from=(2.0, 1.0),
)
GATE = GatePolicy(kind="gate", **COMMON, gate_slope=2.0, gate_intercept=-1.0, answer_from=0.0)


def test_positive_strictly_above_the_threshold() -> None:
    policy = softmax_policy(Outcomes.of(("None", "Roadwork"), "binary", "Roadwork"), 1.0)
    logits = np.array([[0, 1], [0, 1.0001], [3, 0], [-5, -3]], dtype=np.float32)
    assert policy.decide(logits).tolist() == ["None", "Roadwork", "None", "Roadwork"]
    assert policy.threshold == pytest.approx(0.7310585786)


def test_the_order_of_classes_does_not_matter() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 2))
    swapped = softmax_policy(Outcomes.of(("Roadwork", "None"), "binary", "Roadwork"), -1.605)
    assert (swapped.decide(logits[:, ::-1]) == POLICY.decide(logits)).all()


def test_with_more_classes_the_threshold_is_on_the_probability_of_the_positive_one() -> None:
    policy = softmax_policy(Outcomes.of(("a", "b", "c"), "binary", "b"), float(np.log(0.3 / 0.7)))
    logits = np.random.default_rng(0).normal(0, 2, (200, 3))
    assert ((policy.decide(logits) == "b") == (softmax(logits)[:, 1] > 0.3)).all()


def test_extreme_logits_are_decided() -> None:
    logits = np.array([[1e30, -1e30], [-1e30, 1e30]], dtype=np.float32)
    assert POLICY.decide(logits).tolist() == ["None", "Roadwork"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"threshold": 0.5},
            r"threshold=0.5 is not 0\.167.*, the probability of threshold_margin=-1.605",
        ),
        (
            {"threshold_margin": 0.0},
            "threshold=0.167.* is not 0.5, the probability of threshold_margin=0.0",
        ),
        ({"threshold_margin": "0"}, "threshold_margin='0' must be a finite number"),
        ({"threshold_margin": True}, "threshold_margin=True must be a finite number"),
        ({"threshold": float("nan")}, "threshold=nan must be a finite number"),
        ({"threshold": None}, "threshold=None must be a finite number"),
        ({"kind": "argmax"}, "kind='argmax' must be one of softmax, gate, scrc"),
        ({"kind": ["softmax"]}, "kind="),
        ({"positive_class": "Roadworks"}, "positive_class='Roadworks' is not in"),
        ({"positive_class": None}, "positive_class=None is not in"),
        (
            {"class_names": "None"},
            "class_names='None' must be a list of at least two distinct names",
        ),
        ({"class_names": ["Roadwork"]}, "class_names=.* must be a list of at least two"),
        ({"class_names": ["Roadwork", "Roadwork"]}, "distinct"),
        ({"class_names": ["Roadwork", 3]}, "names"),
        ({"treshold": 1}, "unknown key 'treshold', did you mean 'threshold'"),
    ],
)
def test_edited_documents_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        parse_policy(POLICY.to_json() | changes, "policy.json")


@pytest.mark.parametrize("name", sorted(POLICY.to_json().keys() - {"task"}))
def test_every_field_is_needed(name: str) -> None:
    document = POLICY.to_json()
    del document[name]
    with pytest.raises(ArtifactError, match=name):
        parse_policy(document, "policy.json")


@pytest.mark.parametrize("document", [[], "softmax", None, 3])
def test_only_an_object_is_a_policy(document: Any) -> None:
    with pytest.raises(ArtifactError, match="must be a JSON object"):
        parse_policy(document, "policy.json")


@pytest.mark.parametrize(
    "policy",
    [
        SCRC,
        GATE,
        softmax_policy(Outcomes.of(("a", "b"), "binary", "a"), 0.3, Platt((2.0,), (0.1,))),
    ],
)
def test_every_kind_survives_json(policy: Policy) -> None:
    assert parse_policy(json.loads(json.dumps(policy.to_json())), "policy.json") == policy


def test_the_calibrator_acts_before_the_threshold() -> None:
    policy = softmax_policy(
        Outcomes.of(("None", "Roadwork"), "binary", "Roadwork"), 1.0, Platt((2.0,), (0.5,))
    )
    logits = np.array([[0, 0.2], [0, 0.3], [1, 0]])
    assert policy.margin(logits) == pytest.approx([0.9, 1.1, -1.5])
    assert policy.decide(logits).tolist() == ["None", "Roadwork", "None"]
    first = softmax_policy(
        Outcomes.of(("Roadwork", "None"), "binary", "Roadwork"), 1.0, Platt((2.0,), (0.5,))
    )
    assert first.margin(np.array([[0.2, 0]])) == pytest.approx([2 * 0.2 - 0.5])


def test_scrc_defers_below_the_bound_of_its_answer() -> None:
    logits = np.array([[0, 2.1], [0, 1.9], [4.1, 0], [3.9, 0]])
    assert SCRC.confidence(logits) == pytest.approx([1.05, 0.95, 2.05, 1.95])
    assert SCRC.decide(logits).tolist() == ["Roadwork", "defer", "None", "defer"]
    assert (SCRC.answer_sets(logits).sum(axis=1) == 1).all()
    assert SCRC.decision(logits).tolist() == [1, 1, 0, 0]


def test_sets_name_both_classes_up_to_their_bound() -> None:
    sets = replace(SCRC, single_from=0.8)
    logits = np.array([[0, 2.1], [0, 1.9], [4.1, 0], [0, 2.8]])
    assert sigmoid(sets.margin(logits)) == pytest.approx([0.741, 0.721, 0.114, 0.802], abs=1e-3)
    assert sets.decide(logits).tolist() == ["None or Roadwork", "defer", "None", "Roadwork"]
    document = sets.to_json()
    assert parse_policy(document, "policy.json") == sets
    del document["single_from"]  # as policies were written before there were sets
    assert parse_policy(document, "policy.json") == SCRC


def test_a_gate_defers_by_its_own_score() -> None:
    logits, gate = np.array([[0, 9.0], [0, 9.0], [9.0, 0]]), np.array([0.6, 0.4, 0.5])
    assert GATE.decide(logits, gate).tolist() == ["Roadwork", "defer", "None"]
    with pytest.raises(ArtifactError, match="the logits carry no gate scores"):
        GATE.decide(logits)


@pytest.mark.parametrize(
    ("policy", "changes", "message"),
    [
        (SCRC, {"risk": "regret"}, "risk='regret' must be one of error, fnr"),
        (SCRC, {"alpha": 0}, "alpha=0 must lie between 0 and 1"),
        (
            SCRC,
            {"answer_from": [float("inf"), 1.0]},
            r"answer_from=\[inf, 1.0\] must be a list of finite numbers or nulls",
        ),
        (
            SCRC,
            {"calibrator": {"name": "temperature", "temperature": 0}},
            "temperature=0 must be a number > 0",
        ),
        (
            SCRC,
            {"calibrator": Platt((1.0,) * 3, (0.0,) * 3).to_json()},
            "calibrator is for 3 classes",
        ),
        (SCRC, {"single_from": 0.4}, r"single_from=0.4 must be null or lie in \[0.5, 1\]"),
        (GATE, {"gate_slope": None}, "gate_slope=None must be a finite number"),
        (SCRC, {"answer_from": [1.0]}, "must have one bound for each of"),
        (SCRC, {"answer_positive_from": 1.0}, "unknown key 'answer_positive_from'"),
        (SCRC, {"task": "ranking"}, "task='ranking' must be one of binary, multiclass"),
        (
            SCRC,
            {"task": "multiclass"},
            "positive_class='Roadwork' must be null for task=multiclass",
        ),
        (
            SCRC,
            {"task": "multiclass", "positive_class": None, "risk": "fnr"},
            "risk='fnr' needs task=binary",
        ),
    ],
)
def test_edited_promises_are_refused(policy: Policy, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        parse_policy(policy.to_json() | changes, "policy.json")


NAMES = ("a", "b", "c")
MULTICLASS = Outcomes.of(NAMES)
SEVERAL = ScrcPolicy(
    kind="scrc",
    **COMMON
    | {
        "outcomes": MULTICLASS,
        "threshold": 1 / 3,
        "threshold_margin": float(-np.log(2)),
    },
    calibrator=Temperature(2.0),
    answer_from=(0.0, None, 2.0),
)


def test_a_multiclass_policy_answers_with_the_most_probable_class() -> None:
    policy = softmax_policy(MULTICLASS, float(np.log(0.6 / 0.4)), Temperature(0.5))
    logits = np.random.default_rng(0).normal(size=(500, 3))
    probabilities = softmax(logits / 0.5)
    assert policy.probabilities(logits) == pytest.approx(probabilities)
    assert (policy.decision(logits) == probabilities.argmax(axis=1)).all()
    top = probabilities.max(axis=1)
    assert policy.confidence(logits) == pytest.approx(np.log(top / (1 - top)))
    expected = np.where(top >= 0.6, np.array(NAMES)[probabilities.argmax(axis=1)], "defer")
    assert (policy.decide(logits) == expected).all()
    assert {"a", "b", "c", "defer"} == set(expected.tolist())
    assert parse_policy(json.loads(json.dumps(policy.to_json())), "policy.json") == policy
    assert policy.to_json()["positive_class"] is None
    with pytest.raises(DataError, match="has no positive class"):
        policy.margin(logits)


@pytest.mark.parametrize("names", [("None", "Roadwork"), NAMES, tuple("abcdefg")])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_the_most_probable_outcome_is_always_answered(names: tuple[str, ...], task: str) -> None:
    positive = None if task == "multiclass" else names[1]
    policy = argmax_policy(Outcomes.of(names, task, positive))
    tied = np.zeros((1, len(names)))
    logits = np.vstack([np.random.default_rng(1).normal(size=(200, len(names))), tied])
    assert policy.answers(logits).all()
    probabilities = policy.probabilities(logits)
    assert probabilities.shape == (201, len(policy.outcomes.names))
    assert (policy.decision(logits) == probabilities.argmax(axis=1)).all()
    assert parse_policy(policy.to_json(), "policy.json") == policy


def test_the_answers_of_several_classes_have_a_bound_each() -> None:
    logits = np.log(np.array([[0.8, 0.1, 0.1], [0.01, 0.98, 0.01], [0.1, 0.1, 0.8]])) * 2
    assert SEVERAL.decide(logits).tolist() == ["a", "defer", "defer"]
    assert replace(SEVERAL, answer_from=(0.0, 0.0, 1.0)).decide(logits).tolist() == [*NAMES]
    assert parse_policy(json.loads(json.dumps(SEVERAL.to_json())), "policy.json") == SEVERAL


def test_sets_of_several_classes_hold_every_probable_one() -> None:
    sets = replace(SEVERAL, answer_from=(-9.0,) * 3, single_from=0.7)
    probabilities = np.array([[0.5, 0.3 + 1e-9, 0.2], [0.34, 0.33, 0.33], [0.9, 0.06, 0.04]])
    logits = np.log(probabilities) * 2
    assert sets.decide(logits).tolist() == ["a or b", "a or b or c", "a"]
    # The decision is in the set, however improbable.
    some = replace(sets, single_from=0.5)
    assert some.decide(logits).tolist() == ["a", "a", "a"]


def test_earlier_documents_are_read() -> None:
    document = SCRC.to_json()
    for name in ("task", "answer_from", "single_from"):
        del document[name]
    document |= {"answer_positive_from": 1.0, "answer_negative_from": 2.0}
    assert parse_policy(document, "policy.json") == SCRC
    del document["answer_negative_from"]
    with pytest.raises(ArtifactError, match="answer_from is missing"):
        parse_policy(document, "policy.json")
