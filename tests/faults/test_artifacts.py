"""Every kind of artifact, damaged in every way, is refused by its reader: exit 42, the difference
named, no compute.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from components.calibrate_gate.step import run as calibrate_gate
from components.calibrate_scrc.step import run as calibrate_scrc
from components.compare_calibrators.step import run as compare_calibrators
from components.evaluate.step import run as evaluate
from components.export_bundle.step import run as export_bundle
from components.extract_features.step import run as extract_features
from components.fit_threshold.step import run as fit_threshold
from components.predict_logits.step import run as predict_logits
from components.pretrain_explora.step import run as pretrain_explora
from components.shared.contracts.config import canonical_json
from components.shared.contracts.step import Run, execute
from components.shared.serving import predict
from components.split_dataset.step import run as split_dataset
from components.train_baseline.step import run as train_baseline
from components.train_gate.step import run as train_gate
from tests.golden.make import BUNDLED, EVALUATED, FOLDER


@dataclass(frozen=True)
class Reader:
    """A step, its inputs with the stored artifact of each, its outputs, and what is not default."""

    run: Run
    inputs: dict[str, str]
    outputs: tuple[str, ...]
    settings: dict[str, object] = field(default_factory=dict)


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_TRAIN = Reader(
    train_baseline, _same("dataset", "splits", "backbone"), ("checkpoint", "val_select_logits")
)
_EXTRACT = Reader(
    extract_features,
    _same("dataset", "splits", "backbone"),
    ("train_features", "val_select_features"),
)
_EXPLORA = Reader(
    pretrain_explora,
    {"train_images": "train_images", "pretrained": "backbone"},
    ("adapted",),
)
_LABELLED = Reader(
    pretrain_explora,
    {"train_images": "train_images", "train_labels": "train_labels", "pretrained": "backbone"},
    ("adapted",),
    {"explora_objective": "dino", "use_labeled_data": True},
)
_PREDICT = Reader(
    predict_logits,
    _same("dataset", "splits", "checkpoint"),
    ("val_calib_logits", "val_test_logits", "val_test_images"),
)
_GATE = Reader(
    train_gate,
    _same("dataset", "splits", "checkpoint"),
    ("gate_checkpoint", "val_calib_logits", "val_test_logits"),
)
_EVALUATE = Reader(evaluate, _same(*EVALUATED), ("evaluation", "report"))
_EXPORT = Reader(export_bundle, _same(*BUNDLED, "dataset", "splits"), ("bundle",))
_THRESHOLD = Reader(fit_threshold, _same("val_calib_logits", "calibration"), ("policy",))
_CALIBRATE_GATE = Reader(
    calibrate_gate, {"val_calib_logits": "gate_calib_logits"}, ("gate_policy",)
)
_COMPARE = Reader(compare_calibrators, _same("val_calib_logits"), ("calibration",))
_SCRC = Reader(calibrate_scrc, _same("val_calib_logits"), ("scrc_policy",))
# Who reads what: every kind of artifact, and every input of every step.
CASES: list[tuple[Reader, str]] = [
    (Reader(split_dataset, _same("dataset"), ("splits",)), "dataset"),
    *((_EXPLORA, name) for name in _EXPLORA.inputs),
    (_LABELLED, "train_labels"),
    *((_EXTRACT, name) for name in _EXTRACT.inputs),
    *((_TRAIN, name) for name in _TRAIN.inputs),
    *((_PREDICT, name) for name in _PREDICT.inputs),
    *((_GATE, name) for name in _GATE.inputs),
    *((_THRESHOLD, name) for name in _THRESHOLD.inputs),
    (
        Reader(compare_calibrators, _same("val_calib_logits"), ("calibration",)),
        "val_calib_logits",
    ),
    (Reader(calibrate_scrc, _same("val_calib_logits"), ("scrc_policy",)), "val_calib_logits"),
    (_CALIBRATE_GATE, "val_calib_logits"),
    *((_EVALUATE, name) for name in _EVALUATE.inputs),
    *((_EXPORT, name) for name in _EXPORT.inputs),
]


def _files(path: Path) -> list[Path]:
    """Largest first, without the manifest."""
    files = [file for file in path.rglob("*") if file.is_file() and file.name != "manifest.json"]
    return sorted(files, key=lambda file: (-file.stat().st_size, file))


def _flip(path: Path) -> str:
    file = _files(path)[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return f"{file.relative_to(path)}: sha256"


def _truncate(path: Path) -> str:
    file = _files(path)[0]
    file.write_bytes(file.read_bytes()[:-1])
    return f"{file.relative_to(path)}: {file.stat().st_size} bytes, expected"


def _remove(path: Path) -> str:
    file = _files(path)[0]
    file.unlink()
    return f"{file.relative_to(path)}: missing"


def _add(path: Path) -> str:
    (path / "extra.bin").write_bytes(b"x")
    return "extra.bin: not in the manifest"


def _swap(path: Path) -> str:
    files = _files(path)
    if len(files) == 1:  # nothing to exchange but the name
        files[0].rename(path / "other")
        return f"{files[0].name}: missing; other: not in the manifest"
    first, second = files[0].read_bytes(), files[1].read_bytes()
    files[0].write_bytes(second)
    files[1].write_bytes(first)
    return f"{files[0].relative_to(path)}: "


def _rewrite(path: Path, **changes: object) -> None:
    """Change the manifest as its writer would have: the digest over it is right."""
    document = json.loads((path / "manifest.json").read_text())
    del document["manifest_digest"]
    document |= changes
    document["manifest_digest"] = hashlib.sha256(canonical_json(document).encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(document))


def _age(path: Path) -> str:
    _rewrite(path, schema_version=0)
    return "schema_version is 0, this code reads 1; rerun the step"


def _other_split(path: Path) -> str:
    present = json.loads((path / "manifest.json").read_text())["split"]
    other = "VAL_CALIB" if present == "VAL_TEST" else "VAL_TEST"
    _rewrite(path, split=other)
    return f"holds split '{other}'"


DAMAGES: list[Callable[[Path], str]] = [_flip, _truncate, _remove, _add, _swap, _age, _other_split]


def _label(value: Reader | str) -> str:
    return value if isinstance(value, str) else value.run.__module__.split(".")[-2]


class _Artifact:
    def __init__(self, path: Path) -> None:
        self.path = str(path)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
@pytest.mark.parametrize(("reader", "name"), CASES, ids=_label)
def test_a_damaged_artifact_is_refused_before_anything_is_computed(
    reader: Reader,
    name: str,
    damage: Callable[[Path], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = {part: FOLDER / stored for part, stored in reader.inputs.items()}
    paths[name] = Path(shutil.copytree(paths[name], tmp_path / "damaged"))
    expected = damage(paths[name])
    paths |= {output: tmp_path / "task" / output for output in reader.outputs}
    settings = dict(reader.settings)
    if reader is _EXPORT and name.startswith(("gate", "scrc")):
        settings["policy"] = name.split("_")[0]  # of three policies, it reads the one it bundles
    with pytest.raises(SystemExit) as caught:
        execute(reader.run, settings, **{part: _Artifact(path) for part, path in paths.items()})
    assert caught.value.code == 42
    message = capsys.readouterr().err
    assert str(paths[name]) in message
    assert expected in message
    assert message.count("\n") == 1
    assert [entry.name for entry in (tmp_path / "task").iterdir()] == ["status.json"]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_a_damaged_bundle_answers_nothing(
    damage: Callable[[Path], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = Path(shutil.copytree(FOLDER / "bundle", tmp_path / "bundle"))
    expected = damage(bundle)
    monkeypatch.setattr(sys, "argv", ["predict", str(bundle), "photo.jpg"])
    with pytest.raises(SystemExit) as caught:
        predict.main()
    assert caught.value.code == 42
    output = capsys.readouterr()
    assert expected in output.err
    assert output.out == ""


@pytest.mark.parametrize(
    ("reader", "name"), [(_THRESHOLD, "val_calib_logits"), (_EVALUATE, "val_test_logits")]
)
def test_the_other_splits_logits_are_refused_by_their_own_manifest(
    reader: Reader, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {part: FOLDER / stored for part, stored in reader.inputs.items()}
    paths[name] = FOLDER / ("val_test_logits" if name == "val_calib_logits" else "val_calib_logits")
    paths |= {output: tmp_path / output for output in reader.outputs}
    with pytest.raises(SystemExit) as caught:
        execute(reader.run, {}, **{part: _Artifact(path) for part, path in paths.items()})
    assert caught.value.code == 42
    assert "this step may only see" in capsys.readouterr().err
