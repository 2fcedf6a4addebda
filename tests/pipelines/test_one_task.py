"""The pipelines that look at new images, never cached, with the parameters of their forms."""

import json
from pathlib import Path

import pytest
from google.protobuf import json_format
from kfp import local

from components.detect_drift.config import DriftForm
from components.select_for_labelling.config import LabellingForm
from components.shared.contracts.artifacts import verify_dir
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.options import NewImagesForm
from pipelines.catalog import pipeline_of
from pipelines.demo.dataset import write_demo_data
from pipelines.local.console import readable_log
from pipelines.names import DRIFT, LABELLING, SCORE
from pipelines.parameters import FORMS, Variant, read_parameters
from pipelines.resources import LOCAL
from pipelines.sources import ROOT, phase_image
from tests.drift import write_bundle


@pytest.mark.parametrize(
    ("pipeline", "phase", "kind", "bundle"),
    [
        (DRIFT, "detect_drift", "Drift", "reference"),
        (LABELLING, "select_for_labelling", "LabellingTasks", "bundle"),
    ],
)
def test_the_graph_is_one_task_that_is_never_cached(
    pipeline: str, phase: str, kind: str, bundle: str
) -> None:
    spec = json_format.MessageToDict(pipeline_of(LOCAL, Variant(pipeline=pipeline)).pipeline_spec)
    (task,) = spec["root"]["dag"]["tasks"].values()
    assert not task.get("cachingOptions", {}).get("enableCache", False)
    assert {
        name: source["componentInputParameter"]
        for name, source in task["inputs"]["parameters"].items()
    } == {"config": "options", bundle: bundle, "images": "images"}

    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: given["defaultValue"] for name, given in parameters.items()} == {
        "images": "",
        bundle: "champion",
        "options": {},
    }
    (executor,) = spec["deploymentSpec"]["executors"].values()
    assert executor["container"]["image"] == phase_image(phase)
    (output,) = spec["root"]["outputDefinitions"]["artifacts"].values()
    assert kind in json.dumps(output)


def test_the_graph_of_score_imports_the_bundle_and_scores_the_images() -> None:
    spec = json_format.MessageToDict(pipeline_of(LOCAL, Variant(pipeline=SCORE)).pipeline_spec)
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks.keys() == {"import-bundle", "score-images"}
    given = {"bundle": "bundle", "bundle_registry": "bundle_registry"}
    scored = {"images": "images", "form": "form"}
    for name, channels in (("import-bundle", given), ("score-images", scored)):
        assert not tasks[name].get("cachingOptions", {}).get("enableCache", False)
        parameters = dict(tasks[name]["inputs"]["parameters"])
        assert parameters.pop("config") == {"runtimeValue": {"constant": {}}}
        assert {
            key: source["componentInputParameter"] for key, source in parameters.items()
        } == channels
    artifact = tasks["score-images"]["inputs"]["artifacts"]["bundle"]["taskOutputArtifact"]
    assert artifact == {"producerTask": "import-bundle", "outputArtifactKey": "imported"}

    images = {
        executor["container"]["image"] for executor in spec["deploymentSpec"]["executors"].values()
    }
    assert images == {phase_image("import_bundle"), phase_image("score_images")}
    (output,) = spec["root"]["outputDefinitions"]["artifacts"].values()
    assert "Scores" in json.dumps(output)


def test_the_form_of_score_has_the_options_of_its_two_phases() -> None:
    with pytest.raises(ConfigError, match=r"form='no' must be one of transformers, onnx"):
        read_parameters(None, ["form=no"], Variant(pipeline=SCORE))
    with pytest.raises(ConfigError, match="images is not set; give s3://"):
        read_parameters(None, [], Variant(pipeline=SCORE))
    given = ["images=s3://bucket/tonight", "bundle=3f2a9c1b"]
    found = read_parameters(None, given, Variant(pipeline=SCORE))
    assert found == {"images": "s3://bucket/tonight", "bundle": "3f2a9c1b"}


@pytest.mark.parametrize(
    ("form", "option", "value"),
    [(DriftForm, "false_alarm_rate", 0.05), (LabellingForm, "n_images", 7)],
)
def test_the_form_refuses_what_the_step_would(
    form: type[NewImagesForm], option: str, value: float
) -> None:
    given = form(images="s3://bucket/tonight", options={option: value})
    assert getattr(given.step(), option) == value
    with pytest.raises(ConfigError, match=r"images is not set.*; unknown key 'alpha'"):
        form(options={"alpha": 1})
    with pytest.raises(ConfigError, match=f"{option}=-1 must be"):
        form(images="s3://bucket/tonight", options={option: -1})


@pytest.mark.parametrize("pipeline", [DRIFT, LABELLING])
def test_parameters_of_the_command_line_are_the_forms(pipeline: str) -> None:
    assert issubclass(FORMS[pipeline], NewImagesForm)
    given = ["images=s3://bucket/tonight", "options={seed: 3}"]
    found = read_parameters(None, given, Variant(pipeline=pipeline))
    assert found == {"images": "s3://bucket/tonight", "options": {"seed": 3}}


@pytest.fixture(scope="module")
def tonight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Images of the demo, and a bundle of a random model whose drift reference is noise."""
    root = tmp_path_factory.mktemp("one-task")
    write_demo_data(root / "demo", n_images=40)
    return {"images": str(root / "demo"), "bundle": str(write_bundle(root))}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipeline", "bundle", "options", "kind", "document"),
    [
        (DRIFT, "reference", {"n_permutations": 99}, "Drift", "drift.json"),
        (LABELLING, "bundle", {"n_images": 5}, "LabellingTasks", "label_studio.json"),
    ],
)
def test_a_run_of_the_compiled_graph_on_this_machine(
    pipeline: str,
    bundle: str,
    options: dict[str, int],
    kind: str,
    document: str,
    tonight: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the images have it
    monkeypatch.chdir(tmp_path)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "runs"))
    values = {"images": tonight["images"], bundle: tonight["bundle"], "options": options}
    with readable_log():
        artifact = pipeline_of(LOCAL, Variant(pipeline=pipeline))(**values).output

    found = Path(artifact.path)
    assert verify_dir(found, kind).config["images"] == tonight["images"]
    read = json.loads((found / document).read_text())
    if pipeline == DRIFT:
        assert read["drift"], "scenes are no noise"
        assert (found.parent / "report").read_bytes() == (found / "report.html").read_bytes()
    else:
        assert len(read) == 5
