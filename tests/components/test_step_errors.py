"""Every step ends a permanent error with 42 and one line, alone and as a component.

One row for each step and each thing of its inputs that can be broken: the options, the place of a
source, and every artifact that it reads, which is absent, of another kind, or damaged. All other
inputs are sound.
"""

import importlib
import json
import shutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.configure.config import ConfigureConfig
from components.configure.phases import PHASES
from components.shared.contracts.environment import Variable
from components.shared.contracts.step import main, path_parameters
from pipelines.parameters import STANDALONE

GOLDEN = Path(__file__).resolve().parents[1] / "golden/schema1"
# Of inputs that are not named as the golden artifact is.
_GOLDEN_OF = {
    "pretrained": "backbone",
    "checkpoints": "checkpoint",
    "logits": "val_select_logits",
    "calibrator": "calibration",
    "parts": "image_part",
}
_NO_SOURCE = "a source that is not there"
STEPS = {"configure": ConfigureConfig} | PHASES | STANDALONE
# Options that a step needs before it looks at its inputs.
_OPTIONS: dict[str, dict[str, Any]] = {
    "configure": {"data": "/nowhere", "backbone": "org/name"},
    "ingest_dataset": {"data": "/nowhere"},
    "import_backbone": {"backbone": "/nowhere"},
    "import_bundle": {"bundle": "/nowhere"},
    "score_images": {"images": "/nowhere"},
    "detect_drift": {"reference": str(GOLDEN / "bundle"), "images": "/nowhere"},
    "compare_adaptations": {"modes": ["full", "lora"]},
}


@dataclass(frozen=True)
class Broken:
    """A step with one broken thing; `damage` is None where the options are it."""

    step: str
    what: str
    damage: Callable[[Path], None] | None = None

    def __str__(self) -> str:
        return f"{self.step}-{self.what}"


def _run_of(step: str) -> Any:
    return importlib.import_module(f"components.{step}.step").run


def _inputs_of(step: str) -> dict[str, str]:
    roles = path_parameters(_run_of(step))
    return {name: role for name, role in roles.items() if role.startswith("input")}


def _absent(artifact: Path) -> None:
    (artifact / "manifest.json").unlink()


def _of_another_kind(artifact: Path) -> None:
    name = "bundle" if "bundle" not in artifact.name else "splits"
    shutil.rmtree(artifact)
    shutil.copytree(GOLDEN / name, artifact)


def _changed(artifact: Path) -> None:
    file = next(file for file in sorted(artifact.rglob("*.*")) if file.name != "manifest.json")
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")


def _rows() -> list[Broken]:
    rows = []
    for step in STEPS:
        rows.append(Broken(step, "an unknown option"))
        names = list(_inputs_of(step))
        rows += [
            Broken(step, f"{name}{damage.__name__}", damage)
            for name in names
            for damage in (_absent, _of_another_kind, _changed)
        ]
        # Of parts, ingest reads no source.
        if not names or step == "ingest_dataset":
            rows.append(Broken(step, _NO_SOURCE))
    return rows


@pytest.fixture
def paths(broken: Broken, tmp_path: Path) -> dict[str, str | list[str]]:
    """The step's paths: copies of golden artifacts, one of them broken."""
    found: dict[str, str | list[str]] = {}
    for name, role in path_parameters(_run_of(broken.step)).items():
        place = tmp_path / name
        if not role.startswith("input"):
            found[name] = str(tmp_path / "task" / name)
        elif broken.what != _NO_SOURCE:
            n_places = 2 if role == "input directories" else 1
            places = [place.with_name(f"{name}_{i + 1}") for i in range(n_places)]
            for copy in places:
                shutil.copytree(GOLDEN / _GOLDEN_OF.get(name, name), copy)
            found[name] = list(map(str, places)) if n_places > 1 else str(places[0])
            if broken.damage is not None and broken.what.startswith(f"{name}_"):
                broken.damage(places[0])
    return found


def _options(broken: Broken) -> dict[str, Any]:
    given = dict(_OPTIONS.get(broken.step, {}))
    if broken.what == "an unknown option":
        # KFP refuses another field of the run form.
        wrong = {"no_such_option": 1}
        given |= {"overrides": wrong} if broken.step == "configure" else wrong
    if broken.step == "export_bundle" and broken.what.startswith(("gate_", "scrc_")):
        given["policy"] = broken.what[:4]  # else these inputs are not read
    return given


def _alone(broken: Broken, paths: Mapping[str, Any], folder: Path) -> None:
    job = folder / "job.json"
    job.write_text(json.dumps({"config": _options(broken), "paths": paths}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["step", str(job)])
        main(_run_of(broken.step), STEPS[broken.step])


def _as_component(broken: Broken, paths: Mapping[str, Any], folder: Path) -> None:
    """Call the component's function, which is what the container of a step runs."""

    class _Artifact:
        def __init__(self, path: str) -> None:
            self.path = path

    module = importlib.import_module(f"components.{broken.step}.component")
    function = getattr(module, broken.step).python_func
    given: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(function).items():
        base, _, number = name.rpartition("_")
        if name in paths:
            given[name] = _Artifact(paths[name])
        elif number.isdigit() and (listed := paths.get(base, paths.get(f"{base}s"))):
            given[name] = _Artifact(listed[int(number) - 1]) if int(number) <= 2 else None
        elif name not in ("config", "return") and hint is not str and broken.step != "configure":
            given[name] = _Artifact(str(folder / "task" / name))
    options = _options(broken)
    if broken.step == "configure":  # KFP hands over every field of the form
        function(**ConfigureConfig(data="", backbone="").to_json() | options)
    else:
        function(**given, config=options)


@pytest.mark.parametrize("entry", [_alone, _as_component], ids=lambda entry: entry.__name__)
@pytest.mark.parametrize("broken", _rows(), ids=str)
def test_a_permanent_error_ends_with_42_one_line_and_the_same_line_in_the_status(
    broken: Broken,
    entry: Callable[..., None],
    paths: dict[str, str | list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = tmp_path / "task/status.json"
    monkeypatch.setenv(Variable.STATUS, str(status))  # as a local run does: configure has no output
    with pytest.raises(SystemExit) as caught:
        entry(broken, paths, tmp_path)

    assert caught.value.code == 42
    *warnings, error = capsys.readouterr().err.splitlines(keepends=True)
    assert all("is not signed; its sums do not say who made it" in line for line in warnings)
    assert error.startswith("error: ")
    reported = json.loads(status.read_text())
    assert reported["permanent"] is True
    assert error == f"error: {reported['message']}\n"
