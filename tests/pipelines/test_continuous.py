"""The recurring pipeline: stage 1 as it is, and a promotion with what it needs of the cluster."""

from pathlib import Path
from typing import Any

import pytest

from components.configure.resolve import resolve
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from pipelines.names import CONTINUOUS
from pipelines.package import write_package
from pipelines.parameters import Variant
from pipelines.resources import load_profile
from tests.pipelines.backend.specs import Compiled

PROMOTE = "promote-bundle"
PROFILE = load_profile("a6000x2", own_store=True)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    file = tmp_path_factory.mktemp("spec") / "continuous.yaml"
    version = write_package(file, PROFILE, Variant(pipeline=CONTINUOUS))
    assert version.startswith("a6000x2-")
    return Compiled.read(file)


def test_it_has_a_name_of_its_own_and_everything_of_stage_1(
    compiled: Compiled, tmp_path: Path
) -> None:
    write_package(tmp_path / "stage1.yaml", PROFILE, Variant())
    stage1 = Compiled.read(tmp_path / "stage1.yaml")
    assert compiled.name == "streetvision-continuous"
    assert compiled.parameters == stage1.parameters

    tasks, before = (found.root["dag"]["tasks"] for found in (compiled, stage1))
    assert tasks.keys() - before.keys() == {PROMOTE}
    for name, task in before.items():
        if name != "configure":
            assert tasks[name] == task
    for name, component in stage1.components.items():
        assert compiled.components[name] == component
    assert _constant(tasks, "promote") is True
    assert _constant(before, "promote") is False


def _constant(tasks: Any, name: str) -> Any:
    return tasks["configure"]["inputs"]["parameters"][name]["runtimeValue"]["constant"]


def test_the_promotion_comes_last_and_reads_the_bundle_and_all_that_it_is_judged_by(
    compiled: Compiled,
) -> None:
    tasks = compiled.root["dag"]["tasks"]
    promote = tasks[PROMOTE]
    sources = {
        name: given["taskOutputArtifact"]["producerTask"]
        for name, given in promote["inputs"]["artifacts"].items()
    }
    assert sources == {
        "bundle": "evaluate-and-deliver",
        "evaluation": "evaluate-and-deliver",
        "val_test_logits": "train",
        "gate_test_logits": "train",
        "dataset": "ingest-dataset",
        "splits": "split-dataset",
    }
    config = promote["inputs"]["parameters"]["config"]["taskOutputParameter"]
    assert (config["producerTask"], config["outputParameterKey"]) == ("configure", "promote_bundle")
    assert promote["cachingOptions"]["enableCache"] is True
    assert all(PROMOTE not in task.get("dependentTasks", []) for task in tasks.values())


def test_the_promotion_may_write_the_registry_and_knows_its_run(compiled: Compiled) -> None:
    settings = compiled.kubernetes[f"exec-{PROMOTE}"]
    secrets = {entry["secretName"]: entry for entry in settings["secretAsEnv"]}
    assert secrets.keys() == {"streetvision-webhook", "streetvision-registry"}
    assert all(entry["optional"] for entry in secrets.values())
    (key,) = secrets["streetvision-webhook"]["keyToEnv"]
    assert (key["secretKey"], key["envVar"]) == ("secret", Variable.WEBHOOK_SECRET)
    (run,) = settings["fieldPathAsEnv"]
    assert (run["name"], run["fieldPath"]) == (Variable.RUN, "metadata.labels['pipeline/runid']")


def test_a_run_of_stage_1_has_no_options_of_the_promotion() -> None:

    given = {"data": "d", "backbone": "b", "overrides": {"min_gain": 0.02}}
    promoting = resolve(Variant(pipeline=CONTINUOUS).with_form(given))["promote_bundle"]
    assert promoting.to_json()["min_gain"] == 0.02
    with pytest.raises(ConfigError, match="'min_gain' is an option of promote_bundle, which is"):
        resolve(Variant().with_form(given))
