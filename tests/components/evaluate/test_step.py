"""Policies on the same images of VAL_TEST: certified and observed, or refused if runs differ."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as peer

from components.evaluate.config import EvaluateConfig
from components.evaluate.step import run
from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.config import Config
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.logits import read_logits
from components.shared.policies.policy import KINDS, softmax_policy
from components.shared.policies.policy_artifact import read_policy
from components.shared.stats.risk_coverage import augrc
from tests.bundles import write_test_images
from tests.components.evaluate.conftest import (
    SCRC,
    SOFTMAX,
    N,
    class_inputs,
    make_logits,
    store_logits,
    store_policy,
)


def _evaluate(inputs: dict[str, Path], tmp_path: Path, policy: str = "softmax") -> dict[str, Any]:
    config = EvaluateConfig(n_bootstrap=100, policy=policy)
    run(config, **inputs, evaluation=tmp_path / "out", report=tmp_path / "report.html")
    document: dict[str, Any] = json.loads((tmp_path / "out/eval_report.json").read_text())
    return document


def test_all_policies_are_compared_and_the_asked_one_is_shown(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    document = _evaluate(inputs, tmp_path, "scrc")
    assert document["policy"] == SCRC.to_json()
    assert list(document["policies"]) == sorted(["scrc", "softmax", "gate"])
    logits = make_logits(gate=True)
    answered = np.abs(logits.margin) >= 1.0
    wrong = (logits.margin > 0) != (logits.labels == 1)
    metrics = document["policies"]["scrc"]["metrics"]
    assert document["metrics"] == metrics
    assert metrics["exit_rate"]["value"] == pytest.approx(answered.mean())
    assert metrics["exit_accuracy"]["value"] == pytest.approx(1 - wrong[answered].mean())
    assert metrics["exit_error"]["value"] == pytest.approx(wrong[answered].mean())
    positives = logits.labels == 1
    assert metrics["deferred_positives"]["value"] == pytest.approx((~answered)[positives].mean())
    assert metrics["exit_fnr"]["value"] == pytest.approx(
        (logits.margin <= 0)[answered & positives].mean()
    )
    assert metrics["exit_rate"]["interval_95"] is not None
    assert document["policies"]["softmax"]["metrics"]["exit_rate"]["value"] == 1


def test_a_gate_that_knows_more_is_recommended(inputs: dict[str, Path], tmp_path: Path) -> None:
    document = _evaluate(inputs, tmp_path, "gate")
    against = document["against_confidence"]
    assert against.keys() == {"gate"}
    assert against["gate"]["better"]
    assert against["gate"]["interval_95"][1] < 0
    logits = make_logits(gate=True)
    wrong = (logits.margin > 0) != (logits.labels == 1)
    assert logits.gate is not None
    expected = augrc(logits.gate.astype(np.float64), wrong) - augrc(np.abs(logits.margin), wrong)
    assert against["gate"]["difference"] == pytest.approx(expected)
    html = (tmp_path / "report.html").read_text()
    assert "error rate ≤ 0.1 <small>with probability at least 0.9</small>" in html
    assert "not recommended" not in html
    assert "Shaded: 95 % interval. Dots: operating points." in html
    assert "uncertain images are deferred" in html


def test_a_gate_that_knows_nothing_is_not(inputs: dict[str, Path], tmp_path: Path) -> None:
    blind = np.random.default_rng(3).normal(size=N).astype(np.float32)
    path = store_logits(tmp_path / "blind", dataclasses.replace(make_logits(gate=True), gate=blind))
    document = _evaluate(inputs | {"gate_test_logits": path}, tmp_path)
    assert not document["against_confidence"]["gate"]["better"]
    html = (tmp_path / "report.html").read_text()
    assert "does not rank errors significantly better than the model" in html
    assert "not recommended" in html


def test_an_infeasible_policy_is_shown_as_such(inputs: dict[str, Path], tmp_path: Path) -> None:
    with writing(tmp_path / "none", kind="Policy", step="test", config=Config()) as out:
        write_json(
            out / "infeasible.json",
            {"kind": "scrc", "reason": "alpha=0.01 is too low", "best_level": 0.2},
        )
    document = _evaluate(inputs | {"scrc_policy": tmp_path / "none"}, tmp_path)
    assert document["policies"]["scrc"] == {"infeasible": "alpha=0.01 is too low"}
    assert "infeasible: alpha=0.01 is too low" in (tmp_path / "report.html").read_text()
    assert document["bundled"] == {"policy": "softmax", "infeasible": None}
    assert "No bundle" not in (tmp_path / "report.html").read_text()


def _infeasible(path: Path, kind: str) -> Path:
    with writing(path, kind="Policy", step="test", config=Config()) as out:
        write_json(
            out / "infeasible.json",
            {"kind": kind, "reason": f"{kind} needs more data", "best_level": None},
        )
    return path


def test_an_infeasible_bundle_is_said_first_and_the_others_are_shown(
    inputs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scrc = _infeasible(tmp_path / "none", "scrc")
    document = _evaluate(inputs | {"scrc_policy": scrc}, tmp_path, "scrc")
    assert document["bundled"] == {"policy": "scrc", "infeasible": "scrc needs more data"}
    assert document["policy"] == SOFTMAX.to_json()
    assert document["policies"]["scrc"] == {"infeasible": "scrc needs more data"}
    assert document["policies"].keys() == {"softmax", "gate", "scrc"}
    html = (tmp_path / "report.html").read_text()
    assert "No bundle: policy scrc is infeasible." in html
    assert "The figures below are of policy softmax." in html
    assert "the report shows softmax in its place" in capsys.readouterr().out


def test_a_model_without_any_policy_is_evaluated_by_its_more_probable_class(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    none = {f"{kind}_policy": _infeasible(tmp_path / f"no_{kind}", kind) for kind in KINDS}
    document = _evaluate(inputs | none, tmp_path)
    assert document["policy"] == SOFTMAX.to_json()
    assert document["bundled"]["infeasible"] == "softmax needs more data"
    entry = document["policies"]["softmax"]
    assert entry["infeasible"] == "softmax needs more data"
    assert entry["metrics"] == document["metrics"]
    html = (tmp_path / "report.html").read_text()
    assert "the most probable class of the uncalibrated model" in html


def test_the_report_beside_the_artifact_is_the_one_inside(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    _evaluate(inputs, tmp_path)
    inside = (tmp_path / "out/report.html").read_bytes()
    assert (tmp_path / "report.html").read_bytes() == inside


def test_a_policy_that_was_not_given_cannot_be_bundled(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    del inputs["gate_policy"]
    with pytest.raises(
        ArtifactError, match="policy='gate' cannot be evaluated, no such policy was given"
    ):
        _evaluate(inputs, tmp_path, "gate")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("n_classes", [2, 3, 5, 43])
def test_classes_of_own_names_are_evaluated_as_scikit_learn_does(
    n_classes: int, tmp_path: Path
) -> None:
    names = tuple(f"sign {number}, of many" for number in range(n_classes))
    inputs = class_inputs(tmp_path, names, 6 * n_classes + 60)
    config = EvaluateConfig(n_bootstrap=100)
    result = run(config, **inputs, evaluation=tmp_path / "out", report=tmp_path / "report.html")
    document = json.loads((tmp_path / "out/eval_report.json").read_text())
    logits, _ = read_logits(inputs["val_test_logits"], "VAL_TEST")
    truth, decision = logits.labels, logits.logits.argmax(axis=1)

    assert document["task"] == ("binary" if n_classes == 2 else "multiclass")
    assert document["outcomes"] == document["class_names"] == list(names)
    assert document["n_per_outcome"] == {
        name: int((truth == number).sum()) for number, name in enumerate(names)
    }
    metrics = {name: entry["value"] for name, entry in document["metrics"].items()}
    assert metrics["accuracy"] == pytest.approx(peer.accuracy_score(truth, decision))
    assert metrics["mcc"] == pytest.approx(peer.matthews_corrcoef(truth, decision))
    assert result.labels == list(names)
    assert result.metrics["accuracy"] == metrics["accuracy"]
    assert result.confusion == peer.confusion_matrix(truth, decision).tolist()
    assert (result.roc is None) == (n_classes > 2)

    recall = peer.recall_score(truth, decision, average=None)
    for number, name in enumerate(names):
        row = document["classes"][name]
        assert row["n_images"] == (truth == number).sum()
        assert row["metrics"]["recall"]["value"] == pytest.approx(recall[number])

    sets = document["policies"]["scrc"]["metrics"]
    policy, _ = read_policy(inputs["scrc_policy"])
    answered, members = policy.answers(logits.logits), policy.answer_sets(logits.logits)
    missed = ~members[np.arange(len(truth)), truth]
    assert sets["exit_rate"]["value"] == pytest.approx(answered.mean())
    assert sets["exit_error"]["value"] == pytest.approx(missed[answered].mean())
    [guarantee] = document["policies"]["scrc"]["guarantees"]
    assert guarantee["unit"] == "a random image of a random group"
    if n_classes > 2:
        expected = members[answered].sum(axis=1).mean()
        assert sets["mean_set_size"]["value"] == pytest.approx(expected)


def test_one_class_against_the_rest_is_a_binary_task(tmp_path: Path) -> None:
    names = ("stop", "yield", "workers_in_road")
    inputs = class_inputs(tmp_path, names)
    outcomes = Outcomes.of(names, "binary", "workers_in_road")
    store_policy(inputs["softmax_policy"], softmax_policy(outcomes, 0.0))
    del inputs["scrc_policy"]
    config = EvaluateConfig(n_bootstrap=100, task="binary", positive_class="workers_in_road")
    result = run(config, **inputs, evaluation=tmp_path / "out", report=tmp_path / "report.html")
    document = json.loads((tmp_path / "out/eval_report.json").read_text())
    assert document["question"] == "workers_in_road against the rest of 3 classes"
    assert document["outcomes"] == result.labels == ["not workers_in_road", "workers_in_road"]
    assert document["n_positive"] == 80
    assert result.roc is not None
    html = (tmp_path / "report.html").read_text()
    assert "Evaluation report: workers_in_road against the rest of 3 classes" in html
    assert "Roadwork" not in html


def test_certificates_of_single_answers_and_reasons_reach_the_report(tmp_path: Path) -> None:
    names = ("car", "bus", "tram")
    inputs = class_inputs(tmp_path, names)
    policy, _ = read_policy(inputs["scrc_policy"])
    fit = {
        "certificates": {name: {} for name in names},
        "uncalibrated_reason": "temperature: needs 2 groups of 'tram'",
    }
    with writing(inputs["scrc_policy"], kind="Policy", step="test", config=Config()) as out:
        write_json(out / "policy.json", policy.to_json())
        write_json(out / "fit.json", fit)

    document = _evaluate(inputs, tmp_path, "scrc")
    entry = document["policies"]["scrc"]
    assert [found["answer"] for found in entry["guarantees"]] == list(names)
    assert entry["uncalibrated_reason"] == fit["uncalibrated_reason"]
    html = (tmp_path / "report.html").read_text()
    assert "scrc, answer tram" in html
    assert "temperature: needs 2 groups of" in html


def test_every_hard_example_of_every_policy_has_its_picture(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    """The gate ranks by scores that predict_logits does not know; one error in five."""
    logits = make_logits(gate=False)
    write_test_images(tmp_path / "few", tmp_path / "dataset", logits.logits, most=N // 3)
    for policy in ("softmax", "gate", "scrc"):
        paths = inputs | {"val_test_images": tmp_path / "few"}
        config = EvaluateConfig(policy=policy, n_bootstrap=100, n_hard_examples=200)
        outputs = {"evaluation": tmp_path / f"shown-{policy}", "report": tmp_path / "report.html"}
        run(config, **paths, **outputs)
        page = (tmp_path / "report.html").read_text()
        table = tmp_path / f"shown-{policy}/hard_examples.csv"
        n_examples = len(table.read_text().splitlines()) - 1
        assert n_examples > 20
        assert page.count("data:image/jpeg;base64,") == n_examples


def test_a_hard_example_without_a_picture_is_still_named(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    logits = make_logits(gate=False).logits
    write_test_images(tmp_path / "few", tmp_path / "dataset", logits, most=5)
    paths = inputs | {"val_test_images": tmp_path / "few"}
    outputs = {"evaluation": tmp_path / "evaluation", "report": tmp_path / "report.html"}
    run(EvaluateConfig(n_bootstrap=100), **paths, **outputs)
    page = (tmp_path / "report.html").read_text()
    assert page.count('<figure class="tile">\n') >= 12
    assert 0 < page.count("data:image/jpeg;base64,") <= 5
